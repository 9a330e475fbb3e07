//! The names of a database on the status page.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Time;
use crate::config::RejectedAddress;
use crate::monitor::NameSnapshot;
use crate::names::LookupResult;
use crate::resolve::{LookupOutcome, OutcomePart};

/// An entry of the config that is a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NameStatus {
    /// The name as the config has it.
    pub name: String,
    /// The newest result in words; null before the first.
    pub result: Option<String>,
    /// True if the newest lookup gave addresses that may be published.
    pub resolved: bool,
    /// The time since which there has been no good answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<Time>,
    /// The TTL of the newest good answer, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<u32>,
    /// The end of the newest lookup.
    pub last_lookup: Option<Time>,
    /// The time of the next lookup.
    pub next_lookup: Option<Time>,
    /// The DNS server that gave the first answer of the newest lookup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<String>,
    /// The aliases that the newest lookup followed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The SRV records of the newest lookup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub records: Vec<RecordStatus>,
    /// The SRV records that are left out, with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<String>,
    /// The addresses that are known.
    pub addresses: Vec<NamedAddress>,
    /// The addresses of the newest answers that may not be published.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RejectedStatus>,
}

/// An address of a name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NamedAddress {
    /// The IP.
    pub address: String,
    /// The way in which DNS stands behind it: `current`, `departing` or `released`.
    pub dns: Cow<'static, str>,
}

/// An SRV record that is followed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecordStatus {
    /// The host.
    pub target: String,
    /// The port.
    pub port: u16,
    /// The tiers that its addresses are below the `priority` of the entry.
    pub tier: u32,
    /// The weight, which is not used.
    pub weight: u16,
}

/// An address that may not be published.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RejectedStatus {
    /// The IP.
    pub address: String,
    /// The reason why it may not be published.
    pub reason: String,
}

impl RejectedStatus {
    pub(super) fn new(rejected: &RejectedAddress) -> Self {
        Self { address: rejected.ip.to_string(), reason: rejected.reason.clone() }
    }
}

impl NameStatus {
    pub(super) fn new(name: &NameSnapshot) -> Self {
        let newest = name.newest.as_deref();
        let records = newest.into_iter().flat_map(|outcome| &outcome.parts);
        Self {
            name: name.name.to_string(),
            result: newest.map(|outcome| match (name.result, name.foreign_ports.first()) {
                (Some(LookupResult::Good), _) => "resolved".to_owned(),
                (_, Some(foreign)) if name.refused.is_empty() => foreign.clone(),
                _ => outcome.describe_failure(),
            }),
            resolved: name.result == Some(LookupResult::Good),
            failing_since: name.failing_since.map(Time::from),
            ttl: newest.and_then(|outcome| outcome.ttl),
            last_lookup: newest.map(|outcome| outcome.at.into()),
            next_lookup: newest.map(|outcome| next_lookup(outcome).into()),
            server: newest.and_then(LookupOutcome::describe_server),
            aliases: newest.map(|outcome| outcome.aliases.clone()).unwrap_or_default(),
            records: records
                .filter(|part| !is_skipped(name, part))
                .filter_map(RecordStatus::new)
                .collect(),
            skipped: skipped(name),
            addresses: name
                .addresses
                .iter()
                .map(|(ip, backing)| NamedAddress {
                    address: ip.to_string(),
                    dns: backing.as_str().into(),
                })
                .collect(),
            refused: name.refused.iter().map(RejectedStatus::new).collect(),
        }
    }
}

impl RecordStatus {
    fn new(part: &OutcomePart) -> Option<Self> {
        let record = part.service.as_ref()?;
        Some(Self {
            target: record.host.to_string(),
            port: record.port,
            tier: record.rank,
            weight: record.weight,
        })
    }
}

/// Returns the SRV records that are left out.
fn skipped(name: &NameSnapshot) -> Vec<String> {
    let by_resolver = name.newest.iter().flat_map(|outcome| outcome.skipped.iter().cloned());
    by_resolver.chain(name.foreign_ports.iter().cloned()).collect()
}

/// Returns whether the record of a part has a port that the database has not.
fn is_skipped(name: &NameSnapshot, part: &OutcomePart) -> bool {
    let Some(record) = &part.service else { return false };
    let (host, port) = (format!("{}: ", record.host), format!(" {}", record.port));
    name.foreign_ports.iter().any(|text| text.starts_with(&host) && text.ends_with(&port))
}

/// Returns the time of the next lookup. The clock of the machine shows no further ahead.
fn next_lookup(outcome: &LookupOutcome) -> Instant {
    const MAX_AHEAD: Duration = Duration::from_secs(24 * 60 * 60);
    outcome.next_at.min(outcome.at + MAX_AHEAD)
}
