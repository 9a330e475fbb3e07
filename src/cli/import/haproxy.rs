//! Databases from the `backend` and `listen` sections of an HAProxy config. Pure.
//!
//! | in HAProxy | becomes |
//! | --- | --- |
//! | `backend NAME`, `listen NAME` | `service`, in the letters of a Service's name |
//! | `server`, `server-template` | `addresses`; all must have one port |
//! | `backup` | a lower tier: one for each, or one for all with `option allbackups` |
//! | `disabled`, `weight 0` | `maintenance` |
//! | `option httpchk`, `http-check send`, `http-check expect` | `check: {http: …}` |
//! | `option tcp-check`, `tcp-check send`, `tcp-check expect`, `redis-check` | `check: {tcp: …}` |
//! | `inter`, `fastinter`, `rise`, `fall`, `timeout check` | the keys of the check |
//!
//! Every other keyword is named in a comment, unless it is known to mean nothing here.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::entry::{Entry, Found, PortEntry};
use server::Server;
use settings::Settings;
use tokens::Words;

mod keywords;
mod remarks;
mod server;
mod settings;
mod tokens;

/// The keywords that begin a section. Sections of other keywords have no servers.
const SECTIONS: [&str; 21] = [
    "global",
    "defaults",
    "frontend",
    "backend",
    "listen",
    "peers",
    "mailers",
    "resolvers",
    "userlist",
    "cache",
    "program",
    "http-errors",
    "ring",
    "log-forward",
    "log-profile",
    "fcgi-app",
    "crt-store",
    "traces",
    "acme",
    "dynamic-update",
    "healthcheck",
];

/// A section that is being read.
#[derive(Debug, Default)]
struct Section {
    kind: String,
    name: String,
    settings: Settings,
    servers: Vec<Server>,
    /// The reasons why servers are left out.
    mistakes: Vec<String>,
}

/// Returns what became of each section that can have servers.
pub(super) fn databases(text: &str, namespace: Option<&str>) -> Vec<Found> {
    let mut reader = Reader { namespace, ..Reader::default() };
    for line in text.lines() {
        reader.apply(line);
    }
    reader.close();
    reader.found
}

/// The state while the lines are read.
#[derive(Default)]
struct Reader<'a> {
    namespace: Option<&'a str>,
    /// The settings of the `defaults` sections, by their names.
    defaults: BTreeMap<String, Settings>,
    /// The name of the newest `defaults` section, which counts where none is named.
    newest_defaults: String,
    /// The number of `.if` without an `.endif` so far.
    conditions: usize,
    /// True if HAProxy verifies no server unless a server asks for it.
    skips_verify: bool,
    open: Section,
    services: BTreeSet<String>,
    found: Vec<Found>,
}

impl Reader<'_> {
    fn apply(&mut self, line: &str) {
        let line = tokens::split(line);
        let words: Vec<&str> = line.words.iter().map(String::as_str).collect();
        match words[..] {
            [] => {}
            [".if", ..] => self.conditions += 1,
            [".endif", ..] => self.conditions = self.conditions.saturating_sub(1),
            [word, ..] if word.starts_with('.') => {}
            [kind, ref rest @ ..] if SECTIONS.contains(&kind) => self.begin(kind, rest),
            ["ssl-server-verify", verify] => self.skips_verify = verify == "none",
            ["server", ref rest @ ..] => self.open.add_server(rest, &line),
            ["server-template", prefix, count, ref rest @ ..] => {
                let words: Vec<&str> = [prefix].iter().chain(rest).copied().collect();
                self.open.add_server(&words, &line);
                self.open.settings.remark(format!(
                    "`server-template {prefix}` has at most {count} addresses of its name; here \
                     all count"
                ));
            }
            _ => self.open.apply(&words, &line),
        }
        if self.conditions > 0 && !words.is_empty() {
            let remark = "it depends on `.if` in HAProxy; here all branches count";
            self.open.settings.remark(remark.to_owned());
        }
    }

    fn begin(&mut self, kind: &str, words: &[&str]) {
        self.close();
        let (name, from) = match words {
            ["from", from, ..] => ("", Some(*from)),
            [name, "from", from, ..] => (*name, Some(*from)),
            [name, ..] => (*name, None),
            [] => ("", None),
        };
        // A `defaults` section without `from` begins anew.
        let parent = match (kind, from) {
            (_, Some(from)) => self.defaults.get(from),
            ("defaults", None) => None,
            (_, None) => self.defaults.get(&self.newest_defaults),
        };
        let mut settings = parent.cloned().unwrap_or_default();
        settings.begin();
        settings.default_server.skips_verify |= parent.is_none() && self.skips_verify;
        let (kind, name) = (kind.to_owned(), name.to_owned());
        self.open = Section { kind, name, settings, ..Section::default() };
    }

    fn close(&mut self) {
        let section = std::mem::take(&mut self.open);
        match section.kind.as_str() {
            "defaults" => {
                self.newest_defaults.clone_from(&section.name);
                self.defaults.insert(section.name, section.settings);
            }
            "backend" | "listen" if section.servers.is_empty() && section.mistakes.is_empty() => {}
            "backend" | "listen" => {
                let service = self.service_name(&section.name);
                let what = format!("{} {}", section.kind, section.name);
                let reason = section.reason();
                self.found.push(match (section.database(&service, self.namespace), reason) {
                    (Ok(entry), None) => Found::checked(&what, entry),
                    (Ok(draft), Some(why)) => Found::LeftOut { what, why, draft: Some(draft) },
                    (Err(why), reason) => Found::left_out(what, reason.unwrap_or(why)),
                });
            }
            _ => {}
        }
    }

    /// Returns a name for a Service that no other section has.
    fn service_name(&mut self, section: &str) -> String {
        let letter = |c: char| match c.to_ascii_lowercase() {
            c if c.is_ascii_lowercase() || c.is_ascii_digit() => c,
            _ => '-',
        };
        let name: String = section.chars().map(letter).take(50).collect();
        let mut name = name.trim_matches('-').to_owned();
        if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
            name = format!("db-{name}").trim_end_matches('-').to_owned();
        }
        let mut unique = name.clone();
        let mut number = 1_usize;
        while !self.services.insert(unique.clone()) {
            number += 1;
            unique = format!("{name}-{number}");
        }
        unique
    }
}

impl Section {
    /// Adds the server that these words of a line describe.
    fn add_server(&mut self, words: &[&str], line: &Words) {
        let server = match line.has_variable {
            true => Err(format!(
                "server {} has a variable of HAProxy's environment; write its value",
                words.first().copied().unwrap_or_default()
            )),
            false => Server::read(words, &self.settings.default_server),
        };
        match server {
            Ok(server) => self.servers.push(server),
            Err(mistake) => self.mistakes.push(mistake),
        }
    }

    /// Applies a line that is not a server.
    fn apply(&mut self, words: &[&str], line: &Words) {
        self.settings.apply(words);
        if line.has_variable {
            let name = keywords::name(words);
            self.settings.remark(format!("`{name}` has a variable of HAProxy; write its value"));
        }
    }

    /// Returns the reason why the database is only a draft, if it is one.
    fn reason(&self) -> Option<String> {
        const MAX_MISTAKES: usize = 8;
        if self.settings.is_disabled {
            return Some(
                "it is disabled in HAProxy; take the draft below to publish it".to_owned(),
            );
        }
        let mistakes = &self.mistakes[..self.mistakes.len().min(MAX_MISTAKES)];
        let advice = "mend the servers, or take the draft below, which has only the others";
        (!mistakes.is_empty()).then(|| match &self.servers[..] {
            [] => mistakes.join("; "),
            _ => format!("{}; {advice}", mistakes.join("; ")),
        })
    }

    /// Returns the database, or the reason why there is none.
    fn database(mut self, service: &str, namespace: Option<&str>) -> Result<Entry, String> {
        let port = self.port()?;
        let checks: Vec<Value> =
            self.servers.iter().map(|server| self.settings.check(&server.parameters)).collect();
        let base = in_common(&checks);
        let tiers = self.tiers();
        let addresses: Vec<Value> = self
            .servers
            .iter()
            .zip(&checks)
            .zip(tiers)
            .map(|((server, check), tier)| address(server, tier, check, &base))
            .collect();
        self.add_remarks();
        let remark = format!("{} {} of HAProxy", self.kind, self.name);
        let create = "the Service is created; remove this line if there is one";
        Ok(Entry::new(service, namespace)
            .remark(remark)
            .with_remarks(self.settings.remarks)
            .ports(&[PortEntry::tcp(port)])
            .key("addresses", json!(addresses))
            .commented_key("createService", json!({}), create)
            .key("check", base))
    }

    /// Returns the port that all servers have.
    fn port(&self) -> Result<u16, String> {
        let ports: BTreeSet<Option<u16>> = self.servers.iter().map(|server| server.port).collect();
        match (ports.first(), ports.len()) {
            (Some(Some(port)), 1) => Ok(*port),
            (Some(None), _) => {
                let name = self.servers.iter().find(|server| server.port.is_none());
                let name = name.map(|server| server.name.as_str()).unwrap_or_default();
                Err(format!("server {name} has no port of its own; write the database's"))
            }
            _ => Err("its servers have different ports; give those with the same port a Service \
                      and a database of their own"
                .to_owned()),
        }
    }

    /// Returns the tier of each server. HAProxy uses one backup at a time, in their order.
    fn tiers(&self) -> Vec<u32> {
        let mut backups = 0;
        let mut tier = |server: &Server| {
            if !server.parameters.is_backup {
                return 0;
            }
            backups = if self.settings.all_backups { 1 } else { backups + 1 };
            backups
        };
        self.servers.iter().map(&mut tier).collect()
    }
}

/// Returns the entry of a server: alone its address, if it has nothing of its own.
fn address(server: &Server, tier: u32, check: &Value, base: &Value) -> Value {
    let mut keys = Map::from_iter([("address".to_owned(), json!(server.host))]);
    if tier > 0 {
        keys.insert("priority".to_owned(), json!(tier));
    }
    if let Some(reason) = server.parameters.out() {
        keys.insert("maintenance".to_owned(), json!(reason));
    }
    if let Some(own) = difference(check, base) {
        keys.insert("check".to_owned(), own);
    }
    if keys.len() == 1 { json!(server.host) } else { Value::Object(keys) }
}

/// Returns the keys that all checks have alike. An address can change keys of its database's check,
/// but not remove them.
fn in_common(checks: &[Value]) -> Value {
    let Some((first, others)) = checks.split_first() else { return Value::Null };
    others.iter().fold(first.clone(), |common, other| intersect(&common, other))
}

/// Returns the keys of a check that are not those of its base.
fn difference(check: &Value, base: &Value) -> Option<Value> {
    let (Value::Object(keys), Value::Object(base)) = (check, base) else {
        return (check != base).then(|| check.clone());
    };
    let own = keys.iter().filter_map(|(key, value)| {
        let own = match base.get(key) {
            Some(theirs) => difference(value, theirs)?,
            None => value.clone(),
        };
        Some((key.clone(), own))
    });
    let own: Map<String, Value> = own.collect();
    (!own.is_empty()).then_some(Value::Object(own))
}

fn intersect(one: &Value, other: &Value) -> Value {
    let (Value::Object(one), Value::Object(other)) = (one, other) else { return one.clone() };
    let both = one.iter().filter_map(|(key, value)| {
        let theirs = other.get(key)?;
        let is_common = value == theirs || (value.is_object() && theirs.is_object());
        is_common.then(|| (key.clone(), intersect(value, theirs)))
    });
    Value::Object(both.collect())
}

#[cfg(test)]
mod tests;
