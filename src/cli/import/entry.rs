//! A database as text of a config, with comments, and the document of all of them. Pure.
//!
//! Each database is read back as a config before it is written. One that the config language
//! refuses is left out with the reason, so that the document is always a good config.

use serde_json::{Map, Value, json};

use crate::cli::output::{Escapes, escape_strings};
use crate::config::{self, Database, Options};

/// A database that is to be written.
#[derive(Debug, Clone, Default)]
pub(super) struct Entry {
    /// Comments above it.
    remarks: Vec<String>,
    keys: Vec<Key>,
}

#[derive(Debug, Clone)]
struct Key {
    name: &'static str,
    value: Value,
    /// The comment behind it; empty for none.
    comment: String,
}

/// The outcome for one object.
#[derive(Debug)]
pub(super) enum Found {
    /// A database for the config.
    Database(Entry),
    /// An object that is no database, or none that a config can describe.
    LeftOut {
        /// The name of the object.
        what: String,
        /// The reason, with what to do about it.
        why: String,
        /// The database that a person can complete, if there is one.
        draft: Option<Entry>,
    },
}

impl Found {
    /// Returns an object that is left out.
    pub(super) fn left_out(what: impl Into<String>, why: impl Into<String>) -> Self {
        Self::LeftOut { what: what.into(), why: why.into(), draft: None }
    }

    /// Returns the database, or the object with the mistake if the config language refuses it.
    pub(super) fn checked(what: &str, entry: Entry) -> Self {
        match entry.compile() {
            Ok((_, warnings)) => Self::Database(entry.with_remarks(warnings)),
            Err(why) => Self::LeftOut { what: what.to_owned(), why, draft: Some(entry) },
        }
    }
}

impl Entry {
    /// Creates the database of a Service. Without a namespace it is in that of the daemon.
    pub(super) fn new(service: &str, namespace: Option<&str>) -> Self {
        let entry = Self::default().key("service", json!(service));
        match namespace {
            Some(namespace) => entry.key("namespace", json!(namespace)),
            None => entry,
        }
    }

    /// Adds a key.
    pub(super) fn key(self, name: &'static str, value: Value) -> Self {
        self.commented_key(name, value, "")
    }

    /// Adds a key with a comment behind it.
    pub(super) fn commented_key(mut self, name: &'static str, value: Value, comment: &str) -> Self {
        self.keys.push(Key { name, value, comment: comment.to_owned() });
        self
    }

    /// Adds the port, or the ports with their names.
    pub(super) fn ports(self, ports: &[PortEntry]) -> Self {
        match ports {
            [PortEntry { name: None, number, protocol }] if protocol == "TCP" => {
                self.key("port", json!(number))
            }
            _ => self.key("ports", ports.iter().map(PortEntry::value).collect()),
        }
    }

    /// Adds a comment above.
    pub(super) fn remark(mut self, remark: impl Into<String>) -> Self {
        self.remarks.push(remark.into());
        self
    }

    /// Adds comments above.
    pub(super) fn with_remarks(mut self, remarks: impl IntoIterator<Item = String>) -> Self {
        self.remarks.extend(remarks);
        self
    }

    /// Reads the text back as a config. Returns its database with the warnings, or the first
    /// mistake.
    pub(super) fn compile(&self) -> Result<(Database, Vec<String>), String> {
        let options = Options { own_namespace: "default".to_owned(), ..Options::default() };
        let text = format!("databases:\n{}", self.text());
        let loaded = config::parse("import", &text, &options).map_err(|problems| {
            let first = problems.iter().next();
            first.map(|problem| problem.message.clone()).unwrap_or_default()
        })?;
        let warnings = loaded.warnings.iter().map(|problem| problem.message.clone()).collect();
        match &loaded.spec.databases[..] {
            [database] => Ok((Database::clone(database), warnings)),
            _ => Err("it is more than one database".to_owned()),
        }
    }

    /// Returns the item of the list of databases.
    fn text(&self) -> String {
        let mut text = String::new();
        for remark in &self.remarks {
            text += &wrapped("# ", &comment(remark));
        }
        for (index, key) in self.keys.iter().enumerate() {
            let indent = if index == 0 { "- " } else { "  " };
            text += &format!("{indent}{}:{}", key.name, block(&key.value));
            if !key.comment.is_empty() {
                text += &format!("  # {}", comment(&key.comment));
            }
            text.push('\n');
        }
        text
    }
}

/// A port of a database.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortEntry {
    pub(super) name: Option<String>,
    pub(super) number: u16,
    pub(super) protocol: String,
}

impl PortEntry {
    /// Returns a port of TCP without a name.
    pub(super) fn tcp(number: u16) -> Self {
        Self { name: None, number, protocol: "TCP".to_owned() }
    }

    fn value(&self) -> Value {
        let mut keys = Map::new();
        if let Some(name) = &self.name {
            keys.insert("name".to_owned(), json!(name));
        }
        keys.insert("port".to_owned(), json!(self.number));
        if self.protocol != "TCP" {
            keys.insert("protocol".to_owned(), json!(self.protocol));
        }
        Value::Object(keys)
    }
}

/// Returns a check of TCP connections, to the first of these ports that has TCP.
pub(super) fn tcp_check(ports: &[PortEntry]) -> Value {
    let mut tcp = Map::new();
    if ports.first().is_some_and(|port| port.protocol != "TCP")
        && let Some(port) = ports.iter().find(|port| port.protocol == "TCP")
    {
        tcp.insert("port".to_owned(), json!(port.number));
    }
    json!({ "tcp": tcp })
}

/// Returns the text of a config with these databases. `source` says where they come from.
pub(super) fn document(source: &str, found: &[Found]) -> String {
    let count = |is: fn(&Found) -> bool| found.iter().filter(|found| is(found)).count();
    let databases = count(|found| matches!(found, Found::Database(_)));
    let left_out = found.len() - databases;
    let mut text = format!("# Imported by external-endpoints from {}.\n", comment(source));
    text += &format!("# Found: {}, left out: {left_out}.\n", found.len());
    for found in found {
        if let Found::LeftOut { what, why, .. } = found {
            text += &wrapped("# - ", &format!("{}: {}", comment(what), comment(why)));
        }
    }
    if databases > 0 {
        text += "databases:\n";
    }
    for found in found {
        match found {
            Found::Database(entry) => text += &entry.text(),
            Found::LeftOut { what, draft: Some(draft), .. } => {
                text += &format!("# {} was left out:\n", comment(what));
                text.extend(draft.text().lines().map(|line| format!("# {line}\n")));
            }
            Found::LeftOut { .. } => {}
        }
    }
    text
}

/// Returns a text that can stand in a comment: on one line, without characters that are not seen.
fn comment(text: &str) -> String {
    let safe = |c: char| match c {
        c if c.is_whitespace() => ' ',
        ' '..='~' => c,
        c if c.is_alphanumeric() => c,
        _ => '?',
    };
    text.chars().map(safe).collect()
}

/// Returns a comment in lines of a readable width. `head` begins the first one.
fn wrapped(head: &str, text: &str) -> String {
    const MAX_WIDTH: usize = 96;
    let mut lines = String::new();
    let mut line = head.to_owned();
    for word in text.split(' ').filter(|word| !word.is_empty()) {
        let is_begun = line.len() > head.len();
        if is_begun && line.len() + 1 + word.len() > MAX_WIDTH {
            lines += &format!("{line}\n");
            line = format!("#{}{word}", " ".repeat(head.len() - 1));
        } else {
            line += if is_begun { " " } else { "" };
            line += word;
        }
    }
    lines + &line + "\n"
}

/// Returns a value behind a key, with the space before it. A list or a mapping of many or long
/// items has a line for each.
fn block(value: &Value) -> String {
    const MAX_WIDTH: usize = 80;
    let line = flow(value);
    match value {
        Value::Array(items) if line.len() > MAX_WIDTH => {
            items.iter().map(|item| format!("\n  - {}", flow(item))).collect()
        }
        Value::Object(keys) if line.len() > MAX_WIDTH => {
            let line = |(name, value): (&String, &Value)| {
                format!("\n    {}: {}", scalar(name), flow(value))
            };
            sorted(keys).into_iter().map(line).collect()
        }
        _ => format!(" {line}"),
    }
}

/// The keys of mappings in the order in which people write them. Others follow by their names.
const FIRST_KEYS: [&str; 12] = [
    "address",
    "name",
    "tcp",
    "http",
    "method",
    "path",
    "port",
    "interval",
    "timeout",
    "recheckInterval",
    "healthyThreshold",
    "unhealthyThreshold",
];

/// Returns the keys of a mapping in the order in which people write them.
fn sorted(keys: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let rank = |name: &String| {
        FIRST_KEYS.iter().position(|first| first == name).unwrap_or(FIRST_KEYS.len())
    };
    let mut sorted: Vec<(&String, &Value)> = keys.iter().collect();
    sorted.sort_by_key(|(name, _)| rank(name));
    sorted
}

/// Returns a value on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(keys) => {
            let key =
                |(name, value): (&String, &Value)| format!("{}: {}", scalar(name), flow(value));
            format!("{{{}}}", sorted(keys).into_iter().map(key).collect::<Vec<_>>().join(", "))
        }
        Value::Array(items) => {
            format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", "))
        }
        Value::String(text) => scalar(text),
        other => other.to_string(),
    }
}

/// Returns a text as YAML, in quotes wherever it could be taken for something else.
fn scalar(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./".contains(c));
    let is_word_of_yaml =
        ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf"]
            .contains(&text.to_ascii_lowercase().as_str());
    let is_duration = text.starts_with(|c: char| c.is_ascii_digit())
        && text.ends_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_digit() || c.is_ascii_lowercase())
        && humantime::parse_duration(text).is_ok();
    let is_ipv4 = text.parse::<std::net::Ipv4Addr>().is_ok();
    if (is_plain && !is_word_of_yaml) || is_duration || is_ipv4 {
        return text.to_owned();
    }
    // A string of JSON is one of YAML too.
    escape_strings(&Value::from(text).to_string(), Escapes::Yaml)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry::new("crm", Some("legacy"))
            .ports(&[PortEntry::tcp(5432)])
            .key("addresses", json!(["10.1.0.17"]))
    }

    #[test]
    fn a_database_reads_as_a_person_would_write_it() {
        let entry = entry()
            .commented_key("adopt", json!(true), "written by kubectl")
            .key("check", json!({"tcp": {}}))
            .remark("a remark");
        let found = [Found::left_out("a/b", "no\nreason"), Found::checked("legacy/crm", entry)];
        assert_eq!(
            document("the cluster", &found),
            "\
# Imported by external-endpoints from the cluster.
# Found: 2, left out: 1.
# - a/b: no reason
databases:
# a remark
- service: crm
  namespace: legacy
  port: 5432
  addresses: [10.1.0.17]
  adopt: true  # written by kubectl
  check: {tcp: {}}
"
        );
    }

    #[test]
    fn a_database_that_the_language_refuses_is_left_out_as_a_draft() {
        let found = Found::checked("legacy/crm", entry());
        let Found::LeftOut { why, draft: Some(_), .. } = &found else { panic!("{found:?}") };
        assert!(why.starts_with("no kind of check is given"), "{why}");
        let text = document("the cluster", &[found]);
        assert!(text.contains("\n# - service: crm\n#   namespace: legacy\n"), "{text}");
        assert!(!text.contains("databases:"), "{text}");
    }

    #[test]
    fn texts_of_others_never_leave_their_place() {
        for hostile in [
            "a: b",
            "x # y",
            "- z",
            "{",
            "yes",
            "\u{9b}\u{e0041}\u{202e}\n- service: x",
            "'",
            "\"",
            "",
        ] {
            let value = json!({"tcp": {"send": hostile}});
            let text = format!("check:{}", block(&value));
            let read: Value =
                serde_saphyr::from_str(&text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(read["check"], value, "{text}");
            assert!(!text.contains(['\u{9b}', '\u{202e}', '\u{e0041}']), "{text:?}");
            assert_eq!(comment(hostile).lines().count().max(1), 1, "{hostile:?}");
        }
    }
}
