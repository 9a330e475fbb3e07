//! One probe of a fast check: a connect, and for HTTP an exchange over the connection.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::event::epoll::{self, EventData, EventFlags};

use super::check::{FastCheck, FastKind};
use super::exchange::{Advance, FastExchange};
use super::native_exchange::NativeExchange;
use crate::health::Verdict;
use crate::probe::conversation::Transport;
use crate::probe::phase::{Phase, ProbeResult, to_verdict};
use crate::probe::stream::connect;

/// A probe in flight. Dropping it closes its connection with a reset.
pub(super) struct FastProbe {
    pub socket: OwnedFd,
    pub check: Arc<FastCheck>,
    /// The number that the caller has given the probe.
    pub token: usize,
    /// Set by the slab that holds the probe.
    pub generation: u32,
    pub started: Instant,
    /// True once the epoll instance has the socket.
    pub is_watched: bool,
    first_word: FirstWord,
    stage: Stage,
}

/// The side whose message comes first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum FirstWord {
    Client,
    Server,
}

enum Stage {
    Connecting,
    /// Connected to a server that speaks first. It may have thousands of clients before this one,
    /// so nothing is allocated until it does.
    AwaitingGreeting,
    Exchanging(FastExchange),
    /// Boxed, because most checks are of the other kinds.
    Conversing(Box<NativeExchange>),
}

impl FastProbe {
    /// Starts to connect.
    pub(super) fn start(check: &Arc<FastCheck>, token: usize, now: Instant) -> ProbeResult<Self> {
        let first_word = match &check.kind {
            FastKind::Native(protocol) if protocol.server_speaks_first(now) => FirstWord::Server,
            _ => FirstWord::Client,
        };
        let socket = connect(check, first_word)
            .inspect_err(|verdict| check.on_connect_failure(verdict, now))?;
        Ok(Self {
            socket,
            check: check.clone(),
            token,
            generation: 0,
            started: now,
            is_watched: false,
            first_word,
            stage: Stage::Connecting,
        })
    }

    /// Adds the socket to an epoll instance. Its events carry `event_data`, and the first one comes
    /// at once if there is anything to do.
    pub(super) fn watch(&mut self, epoll: &OwnedFd, event_data: u64) -> ProbeResult<()> {
        let events = match self.check.kind {
            FastKind::HalfOpen | FastKind::FullHandshake => EventFlags::OUT,
            FastKind::Http(_) | FastKind::Native(_) => EventFlags::OUT | EventFlags::IN,
        };
        // Closing the socket removes it from the epoll instance.
        epoll::add(epoll, &self.socket, EventData::new_u64(event_data), events | EventFlags::ET)
            .map_err(|errno| Phase::Connect.local_error(&errno.into()))?;
        self.is_watched = true;
        Ok(())
    }

    /// Returns the events that the probe waits for.
    pub(super) fn awaited(&self) -> PollFlags {
        match self.stage {
            Stage::Connecting => PollFlags::IN | PollFlags::OUT,
            Stage::AwaitingGreeting | Stage::Exchanging(_) | Stage::Conversing(_) => PollFlags::IN,
        }
    }

    /// Continues as far as the socket allows after an event. `read_buf` is scratch space.
    pub(super) fn advance(
        &mut self,
        flags: EventFlags,
        first_ephemeral_port: u16,
        read_buf: &mut [u8],
    ) -> Advance {
        if matches!(self.stage, Stage::Connecting) {
            if let Err(verdict) = self.check_connected(flags, first_ephemeral_port) {
                self.check.on_connect_failure(&verdict, self.started);
                return Advance::Ended(Err(verdict));
            }
            self.stage = Stage::AwaitingGreeting;
        }
        if matches!(self.stage, Stage::AwaitingGreeting) {
            let has_spoken = EventFlags::IN | EventFlags::ERR | EventFlags::HUP;
            if self.first_word == FirstWord::Server && !flags.intersects(has_spoken) {
                return Advance::Waiting;
            }
            self.stage = match self.first_exchange() {
                Ok(stage) => stage,
                Err(verdict) => return Advance::Ended(Err(verdict)),
            };
        }
        match (&self.check.kind, &mut self.stage) {
            (FastKind::Http(http), Stage::Exchanging(exchange)) => {
                exchange.advance(&self.socket, http, flags, read_buf)
            }
            (_, Stage::Conversing(exchange)) => exchange.advance(&self.socket, flags, read_buf),
            _ => Advance::Ended(Ok(())),
        }
    }

    /// Returns the stage in which the first message is sent or read.
    fn first_exchange(&self) -> ProbeResult<Stage> {
        Ok(match &self.check.kind {
            FastKind::Native(protocol) => {
                let conversation = protocol.clone().start(Transport::Plain, self.started)?;
                Stage::Conversing(Box::new(NativeExchange::new(conversation)))
            }
            _ => Stage::Exchanging(FastExchange::default()),
        })
    }

    /// Returns the verdict at the deadline, which ends the probe.
    pub(super) fn timed_out(&mut self) -> Verdict {
        if matches!(self.stage, Stage::AwaitingGreeting) {
            self.stage = match self.first_exchange() {
                Ok(stage) => stage,
                Err(verdict) => return verdict,
            };
        }
        let timed_out = |phase: Phase| to_verdict(phase.timed_out(self.check.timeout));
        match &mut self.stage {
            Stage::Connecting | Stage::AwaitingGreeting => {
                let verdict = timed_out(Phase::Connect);
                self.check.on_connect_failure(&verdict, self.started);
                verdict
            }
            Stage::Exchanging(exchange) => match exchange.verdict() {
                // The status is known, and the rest of the body does not matter.
                Some(verdict) => to_verdict(verdict.clone()),
                None => timed_out(Phase::Http),
            },
            Stage::Conversing(exchange) => {
                to_verdict(exchange.time_out(&self.socket, self.check.timeout))
            }
        }
    }

    /// Ends the probe by an error of this host.
    pub(super) fn on_local_error(&mut self, verdict: &Verdict) {
        match &mut self.stage {
            Stage::Connecting | Stage::AwaitingGreeting => {
                self.check.on_connect_failure(verdict, self.started);
            }
            Stage::Exchanging(_) => {}
            Stage::Conversing(exchange) => exchange.end(&self.socket, &Err(verdict.clone())),
        }
    }

    /// Returns the outcome of the connect, once the socket has an event.
    fn check_connected(&self, flags: EventFlags, first_ephemeral_port: u16) -> ProbeResult<()> {
        if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
            connect::outcome(&self.socket)?;
        }
        let address: SocketAddr = self.check.address;
        if address.port() >= first_ephemeral_port {
            connect::reject_self_connection(&self.socket, address)?;
        }
        Ok(())
    }
}

/// Starts a connection that ends with a reset, at once and without TIME_WAIT on either side.
fn connect(check: &FastCheck, first_word: FirstWord) -> ProbeResult<OwnedFd> {
    let socket = connect::socket(check.address)?;
    // Who speaks first must learn that the connection stands.
    if first_word == FirstWord::Client && !matches!(check.kind, FastKind::FullHandshake) {
        connect::delay_ack(&socket)?;
    }
    connect::start(&socket, check.address)?;
    Ok(socket)
}

/// Returns the lowest port that the kernel assigns by itself, or 0 if the kernel does not say.
pub(super) fn first_ephemeral_port() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|lowest| lowest.parse().ok()).unwrap_or(0)
}
