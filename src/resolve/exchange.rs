//! One question put to several DNS servers, until one gives a usable answer or 5 s are over.
//!
//! The first server that did not fail lately is asked first. Without an answer after 0.5 s the next
//! one is asked too, then again after 1 s and 2 s more. All sockets stay open meanwhile. A server
//! that fails (SERVFAIL, REFUSED, garbage) makes the next one be asked at once. The failure of the
//! first server is the result only if all have failed. A resolver that takes the fastest reply
//! would let one overloaded server hide the answer of a good one. Only a silent server comes after
//! the others for some time; one that fails for a single zone keeps its place.
//!
//! Each question has one socket at least. More of them, for several servers at a time, come from a
//! bounded number for all questions. Without a spare one, the next server replaces those before it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time;

use super::counts::{Counts, QuestionResult};
use super::servers::Servers;
use super::transport::{Attempt, Transport};
use super::wire::{MAX_ALIASES, Question, Records, Reply, ServerFailure, WireName};
use crate::clock;

/// The time for one question, with all its tries and aliases.
pub(super) const QUESTION_TIMEOUT: Duration = Duration::from_secs(5);

/// The pauses before the second, third and fourth try.
const HEDGE_DELAYS: [Duration; 3] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2)];

/// The answer to a question, with the aliases that led to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answered {
    pub answer: Answer,
    pub aliases: Vec<WireName>,
    /// The server that answered. None if DNS does not say.
    pub server: Option<SocketAddr>,
}

/// The answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Records { records: Records, ttl: u32 },
    NoRecords,
    NoSuchName,
    Unknown(Failure),
}

/// The reason why DNS does not say whether a name has records. It displays as text for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub kind: FailureKind,
    /// The server that failed; all of them for a time-out.
    pub servers: Vec<SocketAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    Server(ServerFailure),
    /// No server answered in time.
    Timeout,
    /// The reply was truncated, and there was none over TCP.
    TruncatedOnly,
    Unreachable(io::ErrorKind),
    /// This host has no socket for the question. The number is the error of the system.
    NoSocket(i32),
    /// No server is configured.
    NoServer,
}

/// The way to the servers, shared by all questions.
#[derive(Debug)]
pub(super) struct Client {
    transport: Transport,
    /// Permits for the second and further sockets of questions.
    spare_sockets: Semaphore,
    counts: Counts,
}

/// The end of one round of servers for one name.
enum Round {
    Records { records: Records, ttl: u32, aliases: Vec<WireName> },
    Alias { aliases: Vec<WireName>, ttl: u32 },
    NoRecords,
    NoSuchName,
    Unknown(Failure),
}

impl Client {
    pub(super) fn new(spare_sockets: usize, counts: Counts) -> Self {
        let transport = Transport::new(counts.clone());
        Self { transport, spare_sockets: Semaphore::new(spare_sockets), counts }
    }

    /// Asks for the records of a name, through its aliases. `queries` counts what is sent.
    pub(super) async fn resolve(
        &self,
        servers: &Servers,
        question: Question,
        queries: &AtomicUsize,
    ) -> Answered {
        let start = clock::now();
        let way = Way { client: self, servers, queries };
        let answered = way.follow(question, start + QUESTION_TIMEOUT).await;
        let duration = clock::now().saturating_duration_since(start);
        self.counts.record(answered.answer.result(), duration);
        answered
    }
}

/// The way of one question to the servers.
struct Way<'a> {
    client: &'a Client,
    servers: &'a Servers,
    queries: &'a AtomicUsize,
}

impl Way<'_> {
    async fn follow(&self, mut question: Question, deadline: Instant) -> Answered {
        let mut smallest_ttl = u32::MAX;
        let mut followed: Vec<WireName> = Vec::new();
        let (answer, server) = loop {
            let (round, server) = self.ask(&question, deadline).await;
            let (end, aliases) = match round {
                Round::Records { records, ttl, aliases } => {
                    let ttl = ttl.min(smallest_ttl);
                    (Some(Answer::Records { records, ttl }), aliases)
                }
                Round::Alias { aliases, ttl } => {
                    smallest_ttl = smallest_ttl.min(ttl);
                    (None, aliases)
                }
                Round::NoRecords => (Some(Answer::NoRecords), Vec::new()),
                Round::NoSuchName => (Some(Answer::NoSuchName), Vec::new()),
                Round::Unknown(failure) => (Some(Answer::Unknown(failure)), Vec::new()),
            };
            followed.extend(aliases);
            if followed.len() > MAX_ALIASES {
                let kind = FailureKind::Server(ServerFailure::TooManyAliases);
                break (Answer::Unknown(Failure { kind, servers: Vec::new() }), None);
            }
            match (end, followed.last()) {
                (Some(answer), _) => break (answer, server),
                (None, Some(target)) => question.name = target.clone(),
                (None, None) => break (Answer::NoRecords, server),
            }
        };
        Answered { answer, aliases: followed, server }
    }

    /// Asks the servers for the records of one name. Returns the server that answered, if one did.
    async fn ask(&self, question: &Question, deadline: Instant) -> (Round, Option<SocketAddr>) {
        let mut order = Order::new(self.servers.in_order(clock::now()));
        let Some(mut last_asked) = order.untried.pop_front() else {
            let failure = Failure { kind: FailureKind::NoServer, servers: Vec::new() };
            return (Round::Unknown(failure), None);
        };
        let mut asked_at = clock::now();
        let mut attempts = FuturesUnordered::new();
        attempts.push(self.attempt(last_asked, question, None));
        let mut hedges = HEDGE_DELAYS.into_iter();
        let mut next_hedge = || hedges.next().map(|delay| clock::now() + delay);
        let mut hedge_at = next_hedge();
        loop {
            let wake_at = hedge_at.unwrap_or(deadline).min(deadline);
            let next = tokio::select! {
                // After a stall of this process, a reply that has come counts more than the time.
                biased;
                Some((server, attempt)) = attempts.next() => {
                    match self.record(server, attempt) {
                        Round::Unknown(failure) => order.record_failure(failure),
                        usable => return (usable, Some(server)),
                    }
                    if order.have_all_failed() {
                        break;
                    }
                    order.untried.pop_front()
                }
                () = time::sleep_until(wake_at.into()) => {
                    if wake_at >= deadline {
                        break;
                    }
                    hedge_at = next_hedge();
                    self.servers.record_silence(last_asked, asked_at, clock::now());
                    order.untried.pop_front().or_else(|| order.repeat_after(last_asked))
                }
            };
            let Some(next) = next else { continue };
            (last_asked, asked_at) = (next, clock::now());
            let permit = self.client.spare_sockets.try_acquire().ok();
            let permit = permit.filter(|_| !attempts.is_empty());
            if permit.is_none() {
                attempts.clear();
            }
            attempts.push(self.attempt(next, question, permit));
        }
        (Round::Unknown(order.first_failure()), None)
    }

    /// Asks one server. `_permit` is held for as long as its socket is open.
    async fn attempt(
        &self,
        server: SocketAddr,
        question: &Question,
        _permit: Option<SemaphorePermit<'_>>,
    ) -> (SocketAddr, Attempt) {
        self.client.transport.attempt(server, question, self.queries).await
    }

    /// Records the result of a server, and returns its meaning.
    fn record(&self, server: SocketAddr, attempt: Attempt) -> Round {
        let now = clock::now();
        match attempt {
            Attempt::Replied(_) | Attempt::TruncatedOnly => self.servers.record_reply(server, now),
            Attempt::Unreachable(_) => self.servers.record_unreachable(server, now),
            // This says nothing about the server.
            Attempt::NoSocket(_) => {}
        }
        Round::from_attempt(server, attempt)
    }
}

/// The servers of one round, with their failures.
struct Order {
    /// All servers, the preferred one first.
    servers: Vec<SocketAddr>,
    untried: VecDeque<SocketAddr>,
    /// The first failure of each server.
    failures: Vec<Failure>,
}

impl Order {
    fn new(servers: Vec<SocketAddr>) -> Self {
        let untried = servers.iter().copied().collect();
        Self { servers, untried, failures: Vec::new() }
    }

    fn record_failure(&mut self, failure: Failure) {
        if !failure.servers.iter().any(|server| self.has_failed(*server)) {
            self.failures.push(failure);
        }
    }

    fn has_failed(&self, server: SocketAddr) -> bool {
        self.failures.iter().any(|failure| failure.servers.contains(&server))
    }

    fn have_all_failed(&self) -> bool {
        self.servers.iter().all(|server| self.has_failed(*server))
    }

    /// Returns the server that gets the question once more, after all were asked: the next one that
    /// has not failed.
    fn repeat_after(&self, last_asked: SocketAddr) -> Option<SocketAddr> {
        let place = self.servers.iter().position(|server| *server == last_asked)?;
        let others = self.servers.iter().cycle().skip(place + 1).take(self.servers.len());
        others.copied().find(|server| !self.has_failed(*server))
    }

    /// Returns the failure of the server that is preferred most.
    fn first_failure(self) -> Failure {
        let Self { servers, failures, .. } = self;
        let place = |failure: &Failure| servers.iter().position(|it| failure.servers.contains(it));
        let first = failures.into_iter().min_by_key(place);
        first.unwrap_or_else(|| Failure { kind: FailureKind::Timeout, servers: servers.clone() })
    }
}

impl Round {
    fn from_attempt(server: SocketAddr, attempt: Attempt) -> Self {
        let kind = match attempt {
            Attempt::Unreachable(error) => FailureKind::Unreachable(error),
            Attempt::NoSocket(error) => FailureKind::NoSocket(error),
            Attempt::TruncatedOnly => FailureKind::TruncatedOnly,
            Attempt::Replied(reply) => match reply {
                Reply::Records { records, ttl, aliases } => {
                    return Self::Records { records, ttl, aliases };
                }
                Reply::Alias { aliases, ttl } => return Self::Alias { aliases, ttl },
                Reply::NoRecords => return Self::NoRecords,
                Reply::NoSuchName => return Self::NoSuchName,
                Reply::Failed(failure) => FailureKind::Server(failure),
                Reply::Truncated | Reply::EdnsRejected | Reply::Unrelated => {
                    FailureKind::Server(ServerFailure::Garbage)
                }
            },
        };
        Self::Unknown(Failure { kind, servers: vec![server] })
    }
}

impl Answer {
    fn result(&self) -> QuestionResult {
        match self {
            Self::Records { .. } => QuestionResult::Answer,
            Self::NoRecords => QuestionResult::NoData,
            Self::NoSuchName => QuestionResult::NxDomain,
            Self::Unknown(Failure { kind, .. }) => match kind {
                FailureKind::Server(ServerFailure::ServFail) => QuestionResult::ServFail,
                FailureKind::Server(ServerFailure::Refused) => QuestionResult::Refused,
                FailureKind::Server(ServerFailure::Garbage | ServerFailure::Flood) => {
                    QuestionResult::Garbage
                }
                FailureKind::Timeout => QuestionResult::Timeout,
                FailureKind::TruncatedOnly => QuestionResult::Truncated,
                _ => QuestionResult::Other,
            },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.servers.iter().map(server_text).collect();
        let servers = texts.join(", ");
        match self.kind {
            FailureKind::Server(ServerFailure::ServFail) => write!(f, "SERVFAIL from {servers}"),
            FailureKind::Server(ServerFailure::Refused) => write!(f, "REFUSED from {servers}"),
            FailureKind::Server(ServerFailure::Code(code)) => {
                write!(f, "response code {code} from {servers}")
            }
            FailureKind::Server(ServerFailure::Garbage) => {
                write!(f, "an unreadable reply from {servers}")
            }
            FailureKind::Server(ServerFailure::Flood) => {
                write!(f, "too many replies to other questions from {servers}")
            }
            FailureKind::Server(ServerFailure::Referral) => {
                write!(f, "{servers} answers only for its own zones")
            }
            FailureKind::Server(ServerFailure::TooManyAliases) => {
                write!(f, "more than {MAX_ALIASES} aliases, or a circle of them")
            }
            FailureKind::Timeout => {
                write!(f, "no answer in {}s from {servers}", QUESTION_TIMEOUT.as_secs())
            }
            FailureKind::TruncatedOnly => {
                write!(f, "truncated, and no answer over TCP, from {servers}")
            }
            FailureKind::Unreachable(error) => write!(f, "no way to {servers}: {error}"),
            FailureKind::NoSocket(error) => {
                let error = io::Error::from_raw_os_error(error);
                write!(f, "this host has no socket for the question: {error}")
            }
            FailureKind::NoServer => f.write_str("no DNS server is known"),
        }
    }
}

/// Returns the address of a server as text, without the usual port.
pub(super) fn server_text(server: &SocketAddr) -> String {
    match server.port() {
        53 => server.ip().to_string(),
        _ => server.to_string(),
    }
}
