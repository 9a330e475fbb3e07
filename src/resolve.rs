//! DNS: asks for the addresses of all names of the config, again and again.
//!
//! The resolver keeps no cache: the monitor knows the newest answer of each name, and the resolver
//! knows when to ask again.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, DefaultHasher};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use tokio::sync::mpsc;

use crate::clock;
use crate::config::NameKind;
use crate::names::Families;
use exchange::Client;
use feed::ServerFeed;

pub(crate) use counts::Counts;
pub(crate) use feed::ServerSource;
pub(crate) use resolv_conf::{PATH as RESOLV_CONF, parse_server};
pub(crate) use task::{ResolverTask, Settings, start};

mod counts;
mod exchange;
mod feed;
mod lateness;
mod lookup;
mod name;
mod queue;
mod resolv_conf;
mod servers;
mod service;
mod suspension;
mod task;
mod transport;
mod wire;

/// A name to ask for. Entries of several databases with the same name share it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct NameKey {
    /// The name in lower case, without a dot at the end.
    pub name: Arc<str>,
    pub kind: NameKind,
}

/// The way in which a name is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The families to ask for. None while it is not known which ones the Service has: the name
    /// then waits for them, but only for [`FAMILIES_TIMEOUT`].
    pub families: Option<Families>,
    /// The time after which the name is asked again at the latest.
    pub refresh: Duration,
}

/// The time for which a name waits for the families of its Service, before both are asked for.
pub(crate) const FAMILIES_TIMEOUT: Duration = Duration::from_secs(1);

/// The most questions a second over all names, unless `--dns-qps` gives another number.
pub(crate) const DEFAULT_QPS: NonZeroU32 = NonZeroU32::new(500).expect("not zero");

/// A hash that is the same in each process, because nothing here is random.
type Hashing = BuildHasherDefault<DefaultHasher>;

/// A command to the resolver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Asks for a name from now on, or changes how. Asks at once if it is new or if a family is.
    Insert(NameKey, Wanted),
    /// Asks for a name no more.
    Remove(NameKey),
    /// Asks for a name at once and then each second, because a target of it fails: until
    /// [`Command::Calm`], another answer or a minute.
    Hurry(NameKey),
    /// Asks for a name at its usual pace again, because its target passes.
    Calm(NameKey),
}

/// The way to the resolver. It never waits.
#[derive(Debug, Clone)]
pub(crate) struct Handle(mpsc::UnboundedSender<Command>);

impl Handle {
    /// Sends a command. The resolver ends only with the daemon.
    pub(crate) fn send(&self, command: Command) {
        let _ = self.0.send(command);
    }
}

/// Creates the way to a resolver, and the resolver's end of it.
pub(crate) fn channel() -> (Handle, mpsc::UnboundedReceiver<Command>) {
    let (commands_in, commands) = mpsc::unbounded_channel();
    (Handle(commands_in), commands)
}

/// The outcome of one lookup of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LookupOutcome {
    /// The families that were asked for.
    pub families: Families,
    /// The answers: one part for a host; for a service one for each target of its SRV records, or
    /// a single one without a target if the SRV question itself gave none.
    pub parts: Vec<OutcomePart>,
    /// The smallest TTL of all records, in seconds; none if no part has an address.
    pub ttl: Option<u32>,
    /// The aliases that were followed, as text for people.
    pub aliases: Vec<String>,
    /// The SRV records that are left out, each with the reason, as text for people.
    pub skipped: Vec<String>,
    /// The server that gave the first answer. None if DNS does not say.
    pub server: Option<SocketAddr>,
    /// The time at which the lookup ended.
    pub at: Instant,
    /// The time at which the name is due again.
    pub next_at: Instant,
}

impl LookupOutcome {
    fn answers(&self) -> impl Iterator<Item = &Answer> + Clone {
        self.parts.iter().flat_map(OutcomePart::answers)
    }

    /// Returns whether DNS does not say whether the name has addresses.
    pub(crate) fn is_unknown(&self) -> bool {
        self.answers().any(|answer| matches!(answer, Answer::Unknown(_)))
            && !self.answers().any(|answer| matches!(answer, Answer::Addresses(_)))
    }

    /// Returns the words of DNS instead of a good answer.
    pub(crate) fn describe_failure(&self) -> String {
        describe_failure(self.answers())
    }

    /// Returns the server that gave the first answer as text for people.
    pub(crate) fn describe_server(&self) -> Option<String> {
        self.server.as_ref().map(exchange::server_text)
    }
}

/// The answers for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OutcomePart {
    /// The SRV record that named the host; none for a host of the config.
    pub service: Option<ServiceRecord>,
    pub a: Answer,
    pub aaaa: Answer,
}

impl OutcomePart {
    fn answers(&self) -> impl Iterator<Item = &Answer> + Clone {
        [&self.a, &self.aaaa].into_iter()
    }

    /// Returns the words of DNS instead of a good answer.
    pub(crate) fn describe_failure(&self) -> String {
        describe_failure(self.answers())
    }
}

fn describe_failure<'a>(answers: impl Iterator<Item = &'a Answer> + Clone) -> String {
    let unknown = answers.clone().find_map(|answer| match answer {
        Answer::Unknown(reason) => Some(reason.to_string()),
        _ => None,
    });
    if let Some(reason) = unknown {
        return reason;
    }
    let has_refused = answers.clone().any(|answer| matches!(answer, Answer::Addresses(_)));
    match (has_refused, answers.clone().any(|answer| *answer == Answer::NoRecords)) {
        (true, _) => "none of its addresses may be published".into(),
        (false, true) => "it has no address".into(),
        (false, false) => "no such name".into(),
    }
}

/// An SRV record that is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServiceRecord {
    /// The host in lower case, without a dot at the end.
    pub host: Arc<str>,
    pub port: u16,
    /// The rank of its priority among those of all records; 0 is preferred.
    pub rank: u32,
    pub weight: u16,
}

/// The answer to one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// At least one address.
    Addresses(Vec<IpAddr>),
    /// The name exists, and has no address of this family.
    NoRecords,
    /// There is no such name (NXDOMAIN).
    NoSuchName,
    /// DNS does not say, for this reason.
    Unknown(UnknownReason),
    /// The family is not followed.
    NotAsked,
}

/// The reason why DNS does not say whether a name has addresses, as text for people.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct UnknownReason(pub Arc<str>);

impl fmt::Display for UnknownReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names of [`look_up_all`] that are asked at the same time.
const CONCURRENT_NAMES: usize = 64;

/// Asks once for each name.
pub(crate) async fn look_up_all(
    source: &ServerSource,
    names: impl IntoIterator<Item = (NameKey, Families)>,
) -> HashMap<(NameKey, Families), LookupOutcome, Hashing> {
    let mut names: Vec<(NameKey, Families)> = names.into_iter().collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return HashMap::default();
    }
    let feed = ServerFeed::start(source).await;
    let client = Client::new(CONCURRENT_NAMES, Counts::default());
    let (feed, client) = (&feed, &client);
    let lookups = names.into_iter().map(async |(key, families)| {
        let result = lookup::look_up(client, feed.servers(), &key, families).await;
        let now = clock::now();
        ((key, families), task::outcome(result, families, now, now))
    });
    futures::stream::iter(lookups).buffer_unordered(CONCURRENT_NAMES).collect().await
}

#[cfg(test)]
mod tests;
