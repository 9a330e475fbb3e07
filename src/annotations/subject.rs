//! The part of a database that an annotation names: an address, or a host name.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

/// Characters of the longest name in DNS, without the dot at the end.
const MAX_NAME_LENGTH: usize = 253;

/// A part of a database that an annotation names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// One address.
    Ip(IpAddr),
    /// All addresses that a name has, now and later. It is in lower case, without a dot at the end.
    Name(Arc<str>),
}

impl Subject {
    /// Returns the subject of a text, or None if it is neither an IP nor like a name.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(ip) = text.parse() {
            return Some(Subject::Ip(ip));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let is_allowed =
            |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.');
        let may_be_name = (1..=MAX_NAME_LENGTH).contains(&name.len())
            && name.chars().all(is_allowed)
            && name.contains('.')
            && name.contains(|char: char| char.is_ascii_alphabetic());
        may_be_name.then(|| Subject::Name(name.to_ascii_lowercase().into()))
    }

    /// Returns the kind in words: `address` or `name`.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Subject::Ip(_) => "address",
            Subject::Name(_) => "name",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Ip(ip) => ip.fmt(f),
            Subject::Name(name) => name.fmt(f),
        }
    }
}
