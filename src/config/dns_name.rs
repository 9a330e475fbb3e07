//! The names that an entry of a database may be, and the mistakes in them.
//!
//! A name is asked for as it is written: no search domain is added to it. It has at least two
//! labels, because a name of one label is almost always meant with a search domain.

mod punycode;

use self::punycode::to_ascii;
use crate::config::ip::NOT_IPV4;

/// The kind of record that a name has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum NameKind {
    /// A host, with A and AAAA records.
    Host,
    /// A service, `_service._proto.name`, with SRV records (RFC 2782).
    Service,
}

/// A whole name in DNS.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct DnsName {
    /// The name in lower case, without a dot at the end.
    pub name: String,
    pub kind: NameKind,
}

/// The limits of RFC 1035, without the dot at the end.
const MAX_NAME_LENGTH: usize = 253;
const MAX_LABEL_LENGTH: usize = 63;

impl DnsName {
    /// Returns the name, or what is wrong with the text and what to write instead.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('.').unwrap_or(text);
        reject_surroundings(name)?;
        reject_characters(name)?;
        reject_lengths(name)?;
        let name = name.to_ascii_lowercase();
        let labels: Vec<&str> = name.split('.').collect();
        let kind = kind(&labels)?;
        reject_ends(&labels)?;
        Ok(Self { name, kind })
    }
}

/// Reports what people write around a name.
fn reject_surroundings(name: &str) -> Result<(), String> {
    if let Some((scheme, _)) = name.split_once("://") {
        let srv = if scheme.ends_with("+srv") { "`_mongodb._tcp.` and " } else { "the IP or " };
        return Err(format!("is a URL; write {srv}the host name of the database alone"));
    }
    let inner = name.trim_matches(['[', ']']);
    if inner != name && !inner.is_empty() && inner.chars().all(is_allowed) {
        return Err("has brackets; write the name alone".into());
    }
    if let Some((host, port)) = name.rsplit_once(':')
        && !host.is_empty()
        && port.chars().all(|char| char.is_ascii_digit())
    {
        let advice = "write the name alone, and the port as `port: …` of the database";
        return Err(format!("has a port; {advice}"));
    }
    let is_place = |word: &&str| word.contains('.') && word.chars().all(is_allowed);
    if name.split([' ', '\t', '\n', ';', ',']).filter(is_place).count() > 1 {
        let advice = "write each as an item of the list, with a comma between them";
        return Err(format!("is more than one address; {advice}"));
    }
    Ok(())
}

fn reject_characters(name: &str) -> Result<(), String> {
    match name.chars().find(|char| !is_allowed(*char)) {
        None => Ok(()),
        Some(char) if !char.is_ascii() && char.is_alphanumeric() => {
            let advice = match to_ascii(name).filter(|ascii| ascii.len() <= MAX_NAME_LENGTH) {
                Some(ascii) => format!("write `{ascii}`, which is the name in DNS"),
                None => "write the form of the name in DNS, which begins with `xn--`".into(),
            };
            Err(format!("has `{char}`, which is not ASCII; {advice}"))
        }
        Some(char) => Err(format!(
            "has {}, which is in no host name; write letters, digits, `-` and `_`, with dots \
             between the labels",
            describe(char)
        )),
    }
}

fn is_allowed(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.')
}

fn describe(char: char) -> String {
    match char {
        ' ' => "a space".into(),
        _ if char.is_control() => format!("`{}`", char.escape_default()),
        _ => format!("`{char}`"),
    }
}

fn reject_lengths(name: &str) -> Result<(), String> {
    if name.split('.').any(str::is_empty) {
        return Err("has an empty label; write one dot between two labels, and none before the \
                    first"
            .into());
    }
    if let Some(label) = name.split('.').find(|label| label.len() > MAX_LABEL_LENGTH) {
        return Err(format!(
            "has a label of {} characters; write one of at most {MAX_LABEL_LENGTH}",
            label.len()
        ));
    }
    if name.len() > MAX_NAME_LENGTH {
        return Err(format!(
            "has {} characters; write a name of at most {MAX_NAME_LENGTH}",
            name.len()
        ));
    }
    Ok(())
}

/// Returns the kind of a name by the underscores at the start of its labels.
fn kind(labels: &[&str]) -> Result<NameKind, String> {
    let is_service_label = |index: usize| labels.get(index).is_some_and(|it| it.starts_with('_'));
    if !is_service_label(0) && !is_service_label(1) {
        return Ok(NameKind::Host);
    }
    let (service, rest) = match (is_service_label(0), is_service_label(1)) {
        (true, true) if labels.len() > 2 && labels[0] != "_" && labels[1] != "_" => {
            return Ok(NameKind::Service);
        }
        (true, true) => (labels[0], &labels[2..]),
        (true, false) if PROTOCOLS.contains(&&labels[0][1..]) => ("", &labels[1..]),
        (true, false) if PROTOCOLS.contains(labels.get(1).unwrap_or(&"")) => {
            (labels[0], &labels[2..])
        }
        (true, false) => (labels[0], &labels[1..]),
        (false, _) => (labels[0], &labels[2..]),
    };
    let service = match service.trim_start_matches('_') {
        "" => "mongodb",
        service => service,
    };
    let rest = match &rest.join(".")[..] {
        "" => "db.corp.example".to_owned(),
        rest => rest.to_owned(),
    };
    Err(format!(
        "has a label that begins with `_`, but is not the name of SRV records; write two such \
         labels and a name, as in {}",
        example(&format!("_{service}._tcp.{rest}"))
    ))
}

/// The protocols that SRV records are usually for.
const PROTOCOLS: [&str; 4] = ["tcp", "udp", "sctp", "tls"];

/// Returns an example in quotes. One that is too long for a message is replaced.
fn example(name: &str) -> String {
    let name = if name.len() > 60 { "_mongodb._tcp.db.corp.example" } else { name };
    format!("`{name}`")
}

/// Reports names that have a meaning only on one machine, or none in DNS.
fn reject_ends(labels: &[&str]) -> Result<(), String> {
    let Some(last) = labels.last() else { return Ok(()) };
    if *last == "localhost" {
        let advice = "write the name that Pods reach the database at";
        return Err(format!("is the machine itself, which each Pod is for itself; {advice}"));
    }
    if let [label] = labels {
        return Err(format!(
            "is one label; write the whole name, as in `{}.corp.example`; search domains are not \
             used",
            if label.len() > 30 { "db" } else { label }
        ));
    }
    let is_number = |digits: &str| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if is_number(last) {
        return Err(NOT_IPV4.into());
    }
    if labels.iter().any(|label| label.starts_with('-') || label.ends_with('-')) {
        return Err("has a label with `-` at one end; write a letter, a digit or `_` there".into());
    }
    Ok(())
}
