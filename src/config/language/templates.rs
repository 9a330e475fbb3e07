//! `$(NAME)` in the arguments of a command: warnings of unknown names, which the program gets
//! unchanged, and of `$(TARGET_IP)` in a URL without the brackets that an IPv6 address needs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use crate::config::problem::{Collector, Location};

const TARGET_IP: &str = "$(TARGET_IP)";

/// Returns a warning for each reference to a name that is not known.
pub(crate) fn unknown_names(text: &str, known: &[&str]) -> Vec<String> {
    let is_unknown = |name: &str| is_name(name) && !known.contains(&name);
    let unknown = references(text).map(|(_, name)| name).filter(|name| is_unknown(name));
    unknown
        .map(|name| {
            let distance = |known: &&&str| strsim::osa_distance(known, &name.to_uppercase());
            let nearest = known.iter().min_by_key(distance).unwrap_or(&"TARGET_IP");
            format!(
                "`$({name})` is not known, so the program gets it unchanged; write \
                 `$({nearest})`, a name in `env`, or `$$({name})` if you mean it literally"
            )
        })
        .collect()
}

/// Returns the offsets and the names of all `$(…)`. `$$` begins none.
fn references(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut rest = text;
    std::iter::from_fn(move || {
        loop {
            let start = text.len() - rest.len() + rest.find('$')?;
            rest = &text[start + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                rest = after;
            } else if let Some((name, after)) =
                rest.strip_prefix('(').and_then(|inner| inner.split_once(')'))
            {
                rest = after;
                return Some((start, name));
            }
        }
    })
}

/// Returns true if this can be a variable. Anything else in `$(…)`, such as a command of a shell,
/// is not a reference.
fn is_name(name: &str) -> bool {
    let is_allowed = |char: char| char.is_ascii_alphanumeric() || char == '_';
    (1..=40).contains(&name.len())
        && name.chars().all(is_allowed)
        && !name.starts_with(|char: char| char.is_ascii_digit())
}

/// The texts with `$(TARGET_IP)` in a URL and the addresses for which they are used. A text is
/// known by its offset in the file, because several addresses may share it.
#[derive(Default)]
pub(crate) struct UrlHosts<'a>(BTreeMap<u32, UrlHost<'a>>);

/// A text with `$(TARGET_IP)` in a URL, and the first address of each family.
struct UrlHost<'a> {
    location: &'a Location,
    brackets: Brackets,
    ipv4: Option<IpAddr>,
    ipv6: Option<IpAddr>,
}

/// The brackets around the host of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Brackets {
    Present,
    Absent,
}

impl<'a> UrlHosts<'a> {
    /// Adds a text that is used for an address.
    pub(crate) fn add(&mut self, text: &str, location: &'a Location, ip: IpAddr) {
        let Some(brackets) = brackets_of_host(text) else { return };
        let unused = UrlHost { location, brackets, ipv4: None, ipv6: None };
        let host = self.0.entry(location.span.start).or_insert(unused);
        let family = if ip.is_ipv4() { &mut host.ipv4 } else { &mut host.ipv6 };
        family.get_or_insert(ip);
    }

    /// Warns of brackets that an address needs or must not have.
    pub(crate) fn warn(&self, problems: &mut Collector) {
        for UrlHost { location, brackets, ipv4, ipv6 } in self.0.values() {
            let (wrong, right) = match brackets {
                Brackets::Present => (ipv4, ipv6),
                Brackets::Absent => (ipv6, ipv4),
            };
            let Some(wrong) = wrong else { continue };
            let advice = match brackets {
                Brackets::Present => format!(
                    "{wrong} is not an IPv6 address, and only those have brackets in a URL; write \
                     `{TARGET_IP}` alone"
                ),
                Brackets::Absent => format!(
                    "{wrong} is an IPv6 address, which needs brackets in a URL; write \
                     `[{TARGET_IP}]`"
                ),
            };
            let only = if right.is_some() {
                " in a `check: {exec: {command: …}}` of that address"
            } else {
                ""
            };
            problems.warn_at(location, format!("{advice}{only}"));
        }
    }
}

/// Returns whether `$(TARGET_IP)` has brackets where it is the host of a URL or stands before a
/// port. None if it stands in neither place.
fn brackets_of_host(text: &str) -> Option<Brackets> {
    let mut hosts = references(text).filter(|(_, name)| *name == "TARGET_IP");
    hosts.find_map(|(start, _)| {
        let (before, after) = (&text[..start], &text[start + TARGET_IP.len()..]);
        if before.ends_with('[') && after.starts_with(']') {
            let before = &before[..before.len() - 1];
            let is_host = is_in_authority(before) || is_port(&after[1..]);
            return is_host.then_some(Brackets::Present);
        }
        (is_in_authority(before) || is_port(after)).then_some(Brackets::Absent)
    })
}

/// Returns true if the text ends after the `//` of a URL and before its path.
fn is_in_authority(before: &str) -> bool {
    let word = before.rsplit([' ', '\t', '\n', '"', '\'']).next().unwrap_or_default();
    word.rsplit_once("://").is_some_and(|(_, authority)| !authority.contains(['/', '?', '#']))
}

fn is_port(after: &str) -> bool {
    after.strip_prefix(':').is_some_and(|port| {
        port.starts_with("$(") || port.starts_with(|char: char| char.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_of_urls_and_before_a_port_are_found() {
        let (absent, present) = (Some(Brackets::Absent), Some(Brackets::Present));
        let table = [
            ("http://$(TARGET_IP):$(TARGET_PORT)/health", absent),
            ("http://[$(TARGET_IP)]:$(TARGET_PORT)/health", present),
            ("https://$(TARGET_IP)", absent),
            ("postgresql://app:$(PW)@$(TARGET_IP)/orders", absent),
            ("mongodb://a.example,[$(TARGET_IP)]/", present),
            ("curl -s \"http://$(TARGET_IP)/\"", absent),
            ("$(TARGET_IP):8080", absent),
            ("--endpoint=$(TARGET_IP):$(TARGET_PORT)", absent),
            ("[$(TARGET_IP)]:2379", present),
            ("--host=$(TARGET_IP)", None),
            ("$(TARGET_IP)", None),
            ("[$(TARGET_IP)]", None),
            ("http://proxy.example/?ip=$(TARGET_IP)", None),
            ("http://proxy.example/ $(TARGET_IP)", None),
            ("http://$$(TARGET_IP)/", None),
            ("$$$(TARGET_IP):1", absent),
            ("é://$(TARGET_IP)", absent),
            ("$(TARGET_IP): up", None),
        ];
        for (text, expected) in table {
            assert_eq!(brackets_of_host(text), expected, "{text}");
        }
    }
}
