//! The message for an unknown key: the known key that was probably meant, or where the key belongs.

use crate::config::yaml::node::{NodeKind, Scalar, ScalarKind};

/// The keys of a record, as the reader needs them.
pub(crate) struct Shape<'a> {
    /// The known keys, as they are spelt in the file.
    pub keys: &'a [String],
    /// The keys that must be written.
    pub required: &'a [&'a str],
    /// The keys of which one is expected.
    pub one_of: &'a [&'a str],
    /// The keys of the record that each key holds. It is empty for a key that holds no record.
    pub inner_keys: &'a [&'a [String]],
}

/// The advice on an unknown key.
pub(super) struct Hint {
    pub message: String,
    /// The known keys that may have been meant. They are then not reported as missing.
    pub meant: Vec<usize>,
}

/// The names that other tools, first of all Kubernetes, use for keys of this config.
pub(crate) const SYNONYMS: [(&str, &str); 28] = [
    ("periodSeconds", "interval"),
    ("period", "interval"),
    ("timeoutSeconds", "timeout"),
    ("successThreshold", "healthyThreshold"),
    ("failureThreshold", "unhealthyThreshold"),
    ("tcpSocket", "tcp"),
    ("httpGet", "http"),
    ("httpHeaders", "headers"),
    ("name", "service"),
    ("ip", "address"),
    ("host", "address"),
    ("fqdn", "address"),
    ("endpoints", "addresses"),
    ("hosts", "addresses"),
    ("names", "addresses"),
    ("ips", "addresses"),
    ("args", "command"),
    ("expectedStatus", "expectedStatuses"),
    ("ipFamilies", "families"),
    ("cidrs", "within"),
    ("networks", "within"),
    ("ttl", "refresh"),
    ("pgsql", "postgres"),
    ("mariadb", "mysql"),
    ("valkey", "redis"),
    ("mongo", "mongodb"),
    ("etcd", "grpc"),
    ("username", "user"),
];

impl Shape<'_> {
    /// Returns the index of a known key.
    pub(super) fn index_of(&self, key: &str) -> Option<usize> {
        self.keys.iter().position(|known| known == key)
    }

    /// Returns the advice on an unknown key. `exists` says which known keys are written.
    pub(super) fn hint(&self, key: &str, exists: &[bool]) -> Hint {
        if key == "<<" {
            let message =
                "YAML merge keys are not supported; use `defaults`, or write the keys out";
            return Hint { message: message.into(), meant: (0..self.keys.len()).collect() };
        }
        if let Some(index) = self.inner_record(key, exists) {
            let outer = &self.keys[index];
            let message = format!(
                "this is a key of `{outer}`; put it under `{outer}`, as in `{outer}: {{{key}: …}}`"
            );
            return Hint { message, meant: vec![index] };
        }
        if let Some(index) = self.nearest(key) {
            let message = format!("unknown key; did you mean `{}`?", self.keys[index]);
            return Hint { message, meant: vec![index] };
        }
        let keys: Vec<_> = self.keys.iter().map(|key| format!("`{key}`")).collect();
        let message = format!("unknown key; the keys here are {}", keys.join(", "));
        Hint { message, meant: self.missing_alternative(exists).into_iter().collect() }
    }

    /// Returns the key whose record has this key, if it is the only one or the only one written.
    fn inner_record(&self, key: &str, exists: &[bool]) -> Option<usize> {
        let has_key = |index: &usize| self.inner_keys[*index].iter().any(|inner| inner == key);
        let candidates: Vec<usize> = (0..self.keys.len()).filter(has_key).collect();
        let written = candidates.iter().copied().filter(|index| exists[*index]);
        match (&candidates[..], &written.collect::<Vec<_>>()[..]) {
            ([index], _) | (_, [index]) => Some(*index),
            _ => None,
        }
    }

    /// Returns the first of the keys of which one is expected, if none of them is written. An
    /// unknown key may then stand for one of them.
    fn missing_alternative(&self, exists: &[bool]) -> Option<usize> {
        let mut indexes = self.one_of.iter().filter_map(|key| self.index_of(key));
        let first = indexes.clone().next();
        if indexes.any(|index| exists[index]) { None } else { first }
    }

    /// Returns the known key that was probably meant: a synonym, or one with few other letters.
    fn nearest(&self, key: &str) -> Option<usize> {
        let folded = |key: &str| key.to_lowercase().replace(['_', '-', '.'], "");
        let synonym = SYNONYMS.iter().find(|(other, _)| folded(other) == folded(key));
        if let Some(known) = synonym.and_then(|(_, known)| self.index_of(known)) {
            return Some(known);
        }
        let distance =
            |index: &usize| strsim::osa_distance(&folded(key), &folded(&self.keys[*index]));
        let is_close =
            |index: &usize| distance(index) <= key.len().max(self.keys[*index].len()).div_ceil(3);
        (0..self.keys.len()).filter(is_close).min_by_key(distance)
    }

    /// Returns an example of the mapping that must stand where another kind of value stands.
    pub(super) fn example(&self, found: &NodeKind) -> String {
        match found {
            NodeKind::Scalar(Scalar { text, .. }) if self.keys.contains(text) => {
                format!("{{{text}: …}}")
            }
            NodeKind::Scalar(Scalar { kind: ScalarKind::Null | ScalarKind::Bool(_), .. })
                if self.required.is_empty() =>
            {
                "{}".into()
            }
            _ if self.required.is_empty() => format!("{{{}: …}}", self.keys[0]),
            _ => format!("{{{}: …}}", self.required.join(": …, ")),
        }
    }
}
