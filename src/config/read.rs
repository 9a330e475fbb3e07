//! Reads typed records out of the tree: collects every mistake on the way instead of stopping at the first.

use std::borrow::Cow;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use super::invisible;
use super::problem::{Collector, Span, may_hold_credentials, quote};
use super::tree::{Entry, Node, NodeKind, Scalar, ScalarKind};

/// Something that can be read from a node. What is wrong is told to the reader; None says that it was.
pub(super) trait FromNode: Sized + Clone {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self>;

    /// This laid over the same thing of a lower layer: records and maps merge key by key, all else replaces.
    fn overlay(&self, _lower: &Self) -> Self {
        self.clone()
    }

    /// This without the keys that the other lacks.
    fn intersect(&self, _other: &Self) -> Self {
        self.clone()
    }
}

/// A value of one scalar. Its `parse` gets the text, and says what is wrong and what to write instead.
pub(super) trait ScalarType: Sized + Clone {
    /// What it is, for "expected …".
    const EXPECTED: &'static str;

    fn parse(scalar: &Scalar) -> Result<Self, String>;
}

impl<T: ScalarType> FromNode for T {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let parsed = match &node.kind {
            NodeKind::Scalar(Scalar { kind: ScalarKind::Null, .. })
            | NodeKind::List(_)
            | NodeKind::Map(_) => {
                return reader.expected(node, T::EXPECTED, "");
            }
            NodeKind::Scalar(scalar) => T::parse(scalar),
        };
        if parsed.is_err() && may_hold_credentials(node.text()) {
            reader.redact(node.span);
        }
        parsed.map_err(|message| reader.error(node.span, message_for(node.text(), message))).ok()
    }
}

/// The message for a word that is wrong: its invisible character if it has one, for then it looks right.
pub(super) fn message_for(word: &str, message: String) -> String {
    match invisible::first(word) {
        Some((place, name)) => {
            format!("an invisible character, {name}, is character {place} of this word; delete it")
        }
        None => message,
    }
}

/// The text of a scalar that YAML does not take for something else.
pub(super) fn text<'a>(scalar: &'a Scalar, what: &str) -> Result<&'a str, String> {
    match scalar.kind {
        ScalarKind::Text => Ok(&scalar.text),
        ScalarKind::Number => Err(unquoted(scalar, what, "a number")),
        _ => Err(unquoted(scalar, what, "not text")),
    }
}

fn unquoted(scalar: &Scalar, what: &str, to_yaml: &str) -> String {
    let shown = quote(&format!("\"{}\"", scalar.text));
    format!("expected {what}, but without quotes this is {to_yaml} to YAML; write {shown}")
}

/// A place in the file that a later stage can point at.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Location {
    pub span: Span,
    /// Of the key that the value belongs to; of an item of a list, the item's own.
    pub key: Span,
    pub path: Arc<str>,
}

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Spanned<T> {
    pub value: T,
    pub location: Location,
}

impl<T> Spanned<T> {
    pub(super) fn new(value: T) -> Self {
        Spanned { value, location: Location::default() }
    }
}

/// What a record holds for a key.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) enum Field<T> {
    #[default]
    Absent,
    /// Something is there, but wrong, and that is already reported: nothing more may be concluded.
    Invalid,
    /// Boxed, so that a list of a million mistakes is small.
    Given(Box<Spanned<T>>),
}

impl<T> Field<T> {
    /// A value that comes from no file.
    pub(super) fn new(value: T) -> Self {
        Field::Given(Box::new(Spanned::new(value)))
    }

    pub(super) fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }

    pub(super) fn given(&self) -> Option<&Spanned<T>> {
        match self {
            Field::Given(at) => Some(at),
            _ => None,
        }
    }

    pub(super) fn value(&self) -> Option<&T> {
        self.given().map(|at| &at.value)
    }

    /// The value or the default; None when what is there is wrong.
    pub(super) fn or(&self, default: T) -> Option<T>
    where
        T: Clone,
    {
        match self {
            Field::Absent => Some(default),
            Field::Invalid => None,
            Field::Given(at) => Some(at.value.clone()),
        }
    }

    /// The value if there is one; the outer None when what is there is wrong.
    pub(super) fn optional(&self) -> Option<Option<T>>
    where
        T: Clone,
    {
        match self {
            Field::Absent => Some(None),
            Field::Invalid => None,
            Field::Given(at) => Some(Some(at.value.clone())),
        }
    }
}

impl<T: FromNode> Field<T> {
    pub(super) fn overlay(&self, lower: &Self) -> Self {
        match (self, lower) {
            (Field::Absent, lower) => lower.clone(),
            (Field::Given(upper), Field::Given(lower)) => Field::Given(Box::new(Spanned {
                value: upper.value.overlay(&lower.value),
                location: upper.location.clone(),
            })),
            (upper, _) => upper.clone(),
        }
    }

    pub(super) fn intersect(&self, other: &Self) -> Self {
        match (self, other) {
            (Field::Given(one), Field::Given(other)) => {
                Field::new(one.value.intersect(&other.value))
            }
            _ => Field::Absent,
        }
    }
}

impl<T: Serialize> Serialize for Field<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

/// To a schema, a field is what it holds.
impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

impl<T: FromNode> FromNode for Vec<Field<T>> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let NodeKind::List(items) = &node.kind else {
            return reader.expected(
                node,
                "a list",
                "write `[…, …]`, or each item on a line of its own after `- `",
            );
        };
        let read = |(index, item): (usize, &Arc<Node>)| {
            reader.within(&format!("[{index}]"), |reader| reader.field(item, item.span))
        };
        Some(items.iter().enumerate().map(read).collect())
    }
}

/// Walks the tree, and knows the path to where it is.
pub(super) struct Reader<'a> {
    problems: &'a mut Collector,
    path: String,
    /// The key that the value at hand belongs to.
    key: Span,
}

impl<'a> Reader<'a> {
    pub(super) fn new(problems: &'a mut Collector) -> Self {
        Reader { problems, path: String::new(), key: Span::default() }
    }

    pub(super) fn error(&mut self, span: Span, message: impl Into<String>) {
        self.problems.error(span, &self.path, message);
    }

    pub(super) fn warn(&mut self, span: Span, message: impl Into<String>) {
        self.problems.warn(span, &self.path, message);
    }

    pub(super) fn redact(&mut self, span: Span) {
        self.problems.redact(span);
    }

    /// Another kind of value stands where `what` must be.
    pub(super) fn expected<T>(&mut self, node: &Node, what: &str, write: &str) -> Option<T> {
        let mut span = node.span;
        if !matches!(node.kind, NodeKind::Scalar(_)) {
            // Nobody has looked for secrets inside, and nobody will.
            self.redact(span);
            // Then the key says more than the first line of what is hidden.
            if span.line != self.key.line {
                span = self.key;
            }
        }
        let write = if write.is_empty() { String::new() } else { format!("; {write}") };
        self.error(span, format!("expected {what}, found {}{write}", node.kind.name()));
        None
    }

    /// Does `read` one step deeper: `step` is `[3]`, or `.key` without its dot at the root.
    pub(super) fn within<T>(&mut self, step: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(if length == 0 { step.trim_start_matches('.') } else { step });
        let value = read(self);
        self.path.truncate(length);
        value
    }

    pub(super) fn location(&self, span: Span, key: Span) -> Location {
        Location { span, key, path: self.path.as_str().into() }
    }

    pub(super) fn field<T: FromNode>(&mut self, node: &Node, key: Span) -> Field<T> {
        self.key = key;
        match T::read(node, self) {
            Some(value) => {
                Field::Given(Box::new(Spanned { value, location: self.location(node.span, key) }))
            }
            None => Field::Invalid,
        }
    }

    /// Hands each entry of a record to `read`, and tells of keys that are unknown or missing. A key that was probably
    /// meant by an unknown one is handed over without an entry: nothing more can be said of it.
    pub(super) fn record(
        &mut self,
        node: &Node,
        keys: &[String],
        required: &[&str],
        mut read: impl FnMut(&mut Self, usize, Option<&Entry>),
    ) -> Option<()> {
        let NodeKind::Map(entries) = &node.kind else {
            if matches!(&node.kind, NodeKind::Scalar(Scalar { kind: ScalarKind::Text, text, .. }) if !keys.contains(text))
            {
                // Text where a mapping must be may be what belongs into the mapping, secrets too.
                self.redact(node.span);
            }
            return self.expected(
                node,
                "a mapping",
                &format!("write `{}`", mapping_for(&node.kind, keys, required)),
            );
        };
        let mut there: Vec<bool> =
            keys.iter().map(|key| entries.iter().any(|entry| entry.key == *key)).collect();
        for entry in entries {
            match keys.iter().position(|known| *known == entry.key) {
                Some(index) => self
                    .within(&format!(".{}", entry.key), |reader| read(reader, index, Some(entry))),
                None => {
                    for index in self.unknown_key(entry, keys, &there) {
                        if !std::mem::replace(&mut there[index], true) {
                            read(self, index, None);
                        }
                    }
                }
            }
        }
        let missing = keys
            .iter()
            .zip(there)
            .filter(|(key, there)| !there && required.contains(&key.as_str()));
        for (key, _) in missing {
            self.error(node.span, format!("the key `{key}` is missing; write `{key}: …`"));
        }
        Some(())
    }

    /// Reports the key, and says which known ones it may stand for.
    fn unknown_key(&mut self, entry: &Entry, keys: &[String], there: &[bool]) -> Vec<usize> {
        let (key, span) = (entry.key.as_str(), entry.key_span);
        // The key may be a misspelt one whose value is a secret, or text that is no key at all.
        if entry.value.span != span {
            self.redact(entry.value.span);
        }
        let step = if entry.is_plain {
            format!(".{key}")
        } else {
            self.redact(span);
            String::new()
        };
        if self.problems.is_full() {
            self.error(span, "unknown key");
            return Vec::new();
        }
        let visible: String = key.chars().filter(|char| !invisible::is_invisible(*char)).collect();
        let (message, meant) = match keys.iter().position(|known| *known == visible) {
            Some(index) if visible != key => (String::new(), vec![index]),
            _ => unknown(&visible, keys, there),
        };
        let message = message_for(key, message);
        self.within(&step, |reader| reader.error(span, message));
        meant
    }
}

/// The keys of a check.
const OF_CHECK: [&str; 8] = [
    "interval",
    "timeout",
    "recheckInterval",
    "healthyThreshold",
    "unhealthyThreshold",
    "tcp",
    "http",
    "exec",
];

/// The keys of a policy.
const OF_POLICY: [&str; 4] = ["minHealthy", "exactlyOne", "failback", "maxFlips"];

/// The kinds of a check.
const KINDS: [&str; 3] = ["tcp", "http", "exec"];

/// What to say of an unknown key, and which known ones are then not said to be missing.
fn unknown(key: &str, keys: &[String], there: &[bool]) -> (String, Vec<usize>) {
    let index_of = |known: &str| keys.iter().position(|key| key == known);
    if key == "<<" {
        let message = "YAML merge keys are not read here; use `defaults`, or write the keys out";
        return (message.into(), (0..keys.len()).collect());
    }
    if let (true, Some(check)) = (OF_CHECK.contains(&key), index_of("check")) {
        return (
            format!("this is a key of `check`; put it under `check`, as in `check: {{{key}: …}}`"),
            vec![check],
        );
    }
    if let (true, Some(policy)) = (OF_POLICY.contains(&key), index_of("policy")) {
        return (
            format!(
                "this is a key of `policy`; put it under `policy`, as in `policy: {{{key}: …}}`"
            ),
            vec![policy],
        );
    }
    if let Some(index) = nearest(key, keys) {
        return (format!("unknown key; did you mean `{}`?", keys[index]), vec![index]);
    }
    // A check without a kind that is known: this may be its kind.
    let kinds = KINDS.iter().filter_map(|kind| index_of(kind)).collect::<Vec<_>>();
    let meant = if kinds.iter().any(|kind| there[*kind]) { None } else { kinds.first() };
    (
        format!("unknown key; the keys here are {}", listed(keys)),
        meant.copied().into_iter().collect(),
    )
}

/// What to write where a record must be and something else is.
fn mapping_for(kind: &NodeKind, keys: &[String], required: &[&str]) -> String {
    match kind {
        NodeKind::Scalar(Scalar { text, .. }) if keys.contains(text) => format!("{{{text}: …}}"),
        NodeKind::Scalar(Scalar { kind: ScalarKind::Null | ScalarKind::Bool(_), .. })
            if required.is_empty() =>
        {
            "{}".into()
        }
        _ if required.is_empty() => format!("{{{}: …}}", keys[0]),
        _ => format!("{{{}: …}}", required.join(": …, ")),
    }
}

fn listed(keys: &[String]) -> String {
    keys.iter().map(|key| format!("`{key}`")).collect::<Vec<_>>().join(", ")
}

/// What other tools, first of all Kubernetes itself, call our keys.
const SYNONYMS: [(&str, &str); 14] = [
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
    ("endpoints", "addresses"),
    ("ips", "addresses"),
    ("args", "command"),
    ("expectedStatus", "expectedStatuses"),
];

/// The known key that was probably meant.
fn nearest(key: &str, keys: &[String]) -> Option<usize> {
    let folded = |key: &str| key.to_lowercase().replace(['_', '-', '.'], "");
    let synonym = SYNONYMS.iter().find(|(other, _)| folded(other) == folded(key));
    if let Some(known) = synonym.and_then(|(_, known)| keys.iter().position(|key| key == known)) {
        return Some(known);
    }
    let distance = |index: &usize| strsim::osa_distance(&folded(key), &folded(&keys[*index]));
    let close = |index: &usize| distance(index) <= key.len().max(keys[*index].len()).div_ceil(3);
    (0..keys.len()).filter(close).min_by_key(distance)
}

/// `unhealthy_threshold` as it is spelt in the file.
pub(super) fn camel_case(field: &str) -> String {
    let mut words = field.split('_');
    let mut key = words.next().unwrap_or_default().to_string();
    for word in words {
        key.push_str(&word[..1].to_uppercase());
        key.push_str(&word[1..]);
    }
    key
}

/// Declares a record once: its struct, its JSON Schema, how it is read and how one is laid over another.
macro_rules! record {
    (
        $(#[$meta:meta])*
        $name:ident requires [$($required:literal),*] {
            $($(#[$field_meta:meta])* $field:ident: $type:ty,)*
        }
    ) => {
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, schemars::JsonSchema)]
        $(#[$meta])*
        #[serde(rename_all = "camelCase", deny_unknown_fields, default)]
        #[schemars(extend("required" = [$($required),*]))]
        pub(in crate::config) struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "Field::is_absent")]
                pub $field: Field<$type>,
            )*
        }

        impl FromNode for $name {
            fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
                let keys = [$(camel_case(stringify!($field))),*];
                let mut record = Self::default();
                reader.record(node, &keys, &[$($required),*], |reader, index, entry| {
                    let mut fields = 0..;
                    $(
                        if fields.next() == Some(index) {
                            record.$field = match entry {
                                Some(entry) => reader.field(&entry.value, entry.key_span),
                                None => Field::Invalid,
                            };
                        }
                    )*
                })?;
                Some(record)
            }

            fn overlay(&self, lower: &Self) -> Self {
                Self { $($field: self.$field.overlay(&lower.$field),)* }
            }

            fn intersect(&self, other: &Self) -> Self {
                Self { $($field: self.$field.intersect(&other.$field),)* }
            }
        }
    };
}
pub(super) use record;
