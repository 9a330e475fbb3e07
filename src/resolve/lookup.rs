//! One lookup of a name: the questions for its families, or for the targets of a service.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use futures::StreamExt as _;
use tokio::time;

use super::exchange::{self, Answered, Client, QUESTION_TIMEOUT};
use super::servers::Servers;
use super::service::{self, Selection, shown};
use super::wire::{Question, RecordKind, Records, SrvRecord, WireName};
use super::{Answer, NameKey, OutcomePart, UnknownReason};
use crate::clock;
use crate::config::NameKind;
use crate::names::Families;

/// The most addresses of one family in the result of a lookup. A name may have fewer, but which of
/// them are left out is decided with those that are known.
const MAX_ADDRESSES: usize = 256;

/// The hosts of one service that are asked for at the same time.
const CONCURRENT_HOSTS: usize = 4;

/// The result of one lookup.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LookupResult {
    pub parts: Vec<OutcomePart>,
    /// The smallest TTL of all records, in seconds; none if no part has an address.
    pub ttl: Option<u32>,
    pub aliases: Vec<String>,
    pub skipped: Vec<String>,
    /// The server that gave the first answer. None if DNS does not say.
    pub server: Option<SocketAddr>,
    /// The number of queries that were sent.
    pub queries: usize,
}

/// The name whose lookup panics in tests.
#[cfg(test)]
pub(super) const PANICKING_NAME: &str = "panic.example";

/// The answers for one host.
#[derive(Debug, Clone)]
struct HostAnswers {
    a: Answer,
    aaaa: Answer,
    ttl: Option<u32>,
    aliases: Vec<String>,
    server: Option<SocketAddr>,
}

/// The answer for one family of a host.
#[derive(Debug)]
struct FamilyAnswer {
    answer: Answer,
    ttl: Option<u32>,
    aliases: Vec<String>,
    server: Option<SocketAddr>,
}

impl Default for FamilyAnswer {
    fn default() -> Self {
        Self { answer: Answer::NotAsked, ttl: None, aliases: Vec::new(), server: None }
    }
}

/// Returns the most questions that a lookup has in the air at a time.
pub(super) fn concurrent_questions(kind: NameKind, families: Families) -> usize {
    let of_a_host = usize::from(families.ipv4) + usize::from(families.ipv6);
    match kind {
        NameKind::Host => of_a_host,
        NameKind::Service => 1.max(of_a_host * CONCURRENT_HOSTS),
    }
}

/// Asks for the addresses of a name. Ends within 10 s.
pub(super) async fn look_up(
    client: &Client,
    servers: &Servers,
    key: &NameKey,
    families: Families,
) -> LookupResult {
    #[cfg(test)]
    assert_ne!(&*key.name, PANICKING_NAME);
    let lookup = Lookup { client, servers, families, queries: AtomicUsize::new(0) };
    let mut result = match key.kind {
        NameKind::Host => LookupResult::of_host(lookup.host(&key.name).await),
        NameKind::Service => lookup.service(&key.name).await,
    };
    result.queries = lookup.queries.into_inner();
    result.limit_addresses(&key.name);
    result
}

impl LookupResult {
    fn of_host(host: HostAnswers) -> Self {
        let HostAnswers { a, aaaa, ttl, aliases, server } = host;
        let parts = vec![OutcomePart { service: None, a, aaaa }];
        Self { parts, ttl, aliases, skipped: Vec::new(), server, queries: 0 }
    }

    /// Leaves out the highest addresses of answers that have more than anyone needs.
    fn limit_addresses(&mut self, name: &str) {
        let max = (MAX_ADDRESSES / self.parts.len().max(1)).max(1);
        for part in &mut self.parts {
            let host = part.service.as_ref().map_or(name, |record| &record.host);
            for answer in [&mut part.a, &mut part.aaaa] {
                let Answer::Addresses(ips) = answer else { continue };
                if ips.len() > max {
                    self.skipped.push(format!("{} more addresses of {host}", ips.len() - max));
                    ips.truncate(max);
                    ips.shrink_to_fit();
                }
            }
        }
    }

    /// Returns the result that has this answer for all families.
    pub(super) fn uniform(answer: Answer, families: Families) -> Self {
        let of = |is_asked| if is_asked { answer.clone() } else { Answer::NotAsked };
        let (a, aaaa) = (of(families.ipv4), of(families.ipv6));
        Self::of_host(HostAnswers { a, aaaa, ttl: None, aliases: Vec::new(), server: None })
    }
}

struct Lookup<'a> {
    client: &'a Client,
    servers: &'a Servers,
    families: Families,
    queries: AtomicUsize,
}

impl Lookup<'_> {
    /// Asks for the addresses of a host, for both families at the same time.
    async fn host(&self, host: &str) -> HostAnswers {
        let a = async {
            if self.families.ipv4 { Some(self.addresses(host, RecordKind::A).await) } else { None }
        };
        let aaaa = async {
            let is_asked = self.families.ipv6;
            if is_asked { Some(self.addresses(host, RecordKind::Aaaa).await) } else { None }
        };
        let [a, aaaa] = <[_; 2]>::from(tokio::join!(a, aaaa)).map(Option::unwrap_or_default);
        let mut aliases = a.aliases;
        aliases.extend(aaaa.aliases);
        dedup(&mut aliases);
        let ttl = [a.ttl, aaaa.ttl].into_iter().flatten().min();
        let server = a.server.or(aaaa.server);
        HostAnswers { a: a.answer, aaaa: aaaa.answer, ttl, aliases, server }
    }

    /// Asks for the addresses of one family.
    async fn addresses(&self, host: &str, kind: RecordKind) -> FamilyAnswer {
        let Answered { answer, aliases, server } = self.ask(host, kind).await;
        let aliases = aliases.iter().map(shown).collect();
        let (answer, ttl) = match answer {
            exchange::Answer::Records { records: Records::Addresses(ips), ttl } => {
                (Answer::Addresses(ips), Some(ttl))
            }
            exchange::Answer::NoSuchName => (Answer::NoSuchName, None),
            exchange::Answer::Unknown(failure) => (unknown(failure), None),
            _ => (Answer::NoRecords, None),
        };
        FamilyAnswer { answer, ttl, aliases, server }
    }

    async fn ask(&self, name: &str, kind: RecordKind) -> Answered {
        // The config has only names that fit into a message.
        let Ok(name) = WireName::from_str(name) else {
            let answer = exchange::Answer::NoSuchName;
            return Answered { answer, aliases: Vec::new(), server: None };
        };
        self.client.resolve(self.servers, Question { name, kind }, &self.queries).await
    }

    /// Asks for the SRV records of a service, and then for the addresses of their targets.
    async fn service(&self, service: &str) -> LookupResult {
        let Answered { answer, aliases, server } = self.ask(service, RecordKind::Srv).await;
        let aliases: Vec<String> = aliases.iter().map(shown).collect();
        let mut result = match answer {
            exchange::Answer::Records { records: Records::Services(records), ttl } => {
                self.targets(service, &records, ttl).await
            }
            exchange::Answer::NoSuchName => {
                LookupResult::uniform(Answer::NoSuchName, self.families)
            }
            exchange::Answer::Unknown(failure) => {
                LookupResult::uniform(unknown(failure), self.families)
            }
            _ => LookupResult::uniform(Answer::NoRecords, self.families),
        };
        result.server = server;
        result.aliases.splice(0..0, aliases);
        dedup(&mut result.aliases);
        result
    }

    async fn targets(&self, service: &str, records: &[SrvRecord], srv_ttl: u32) -> LookupResult {
        let Selection { followed, skipped } = service::select(service, records);
        if followed.is_empty() {
            let nothing = LookupResult::uniform(Answer::NoRecords, self.families);
            return LookupResult { skipped, ..nothing };
        }
        let mut hosts: Vec<Arc<str>> = followed.iter().map(|record| record.host.clone()).collect();
        dedup(&mut hosts);
        let deadline = clock::now() + QUESTION_TIMEOUT;
        let answers: BTreeMap<Arc<str>, HostAnswers> = futures::stream::iter(hosts)
            .map(|host| async move { (host.clone(), self.host_until(&host, deadline).await) })
            .buffer_unordered(CONCURRENT_HOSTS)
            .collect()
            .await;
        let ttl = answers.values().filter_map(|host| host.ttl).min().map(|ttl| ttl.min(srv_ttl));
        let mut aliases = answers.values().flat_map(|host| host.aliases.clone()).collect();
        dedup(&mut aliases);
        let parts = followed.into_iter().map(|record| {
            let HostAnswers { a, aaaa, .. } = answers[&record.host].clone();
            OutcomePart { service: Some(record), a, aaaa }
        });
        LookupResult { parts: parts.collect(), ttl, aliases, skipped, server: None, queries: 0 }
    }

    async fn host_until(&self, host: &str, deadline: Instant) -> HostAnswers {
        let answers = time::timeout_at(deadline.into(), self.host(host)).await;
        answers.unwrap_or_else(|_| {
            let text = format!(
                "the targets of the service took more than {}s",
                QUESTION_TIMEOUT.as_secs()
            );
            let LookupResult { mut parts, .. } =
                LookupResult::uniform(Answer::Unknown(UnknownReason(text.into())), self.families);
            let OutcomePart { a, aaaa, .. } = parts.remove(0);
            HostAnswers { a, aaaa, ttl: None, aliases: Vec::new(), server: None }
        })
    }
}

fn unknown(failure: exchange::Failure) -> Answer {
    Answer::Unknown(UnknownReason(failure.to_string().into()))
}

/// Removes repetitions, and keeps the order.
fn dedup<T: Clone + Ord>(values: &mut Vec<T>) {
    let mut seen = std::collections::BTreeSet::new();
    values.retain(|value| seen.insert(value.clone()));
}
