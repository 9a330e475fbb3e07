//! One probe of a fast check: a connect, and for HTTP an exchange over the connection.

use std::fs;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::io::Errno;

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
    stage: Stage,
}

enum Stage {
    Connecting,
    Exchanging(FastExchange),
    /// Boxed, because most checks are of the other kinds.
    Conversing(Box<NativeExchange>),
}

impl FastProbe {
    /// Starts to connect. Events of the socket carry `event_data`.
    pub(super) fn start(
        check: &Arc<FastCheck>,
        token: usize,
        now: Instant,
        epoll: &OwnedFd,
        event_data: u64,
    ) -> ProbeResult<Self> {
        let socket = connect(check, now, epoll, EventData::new_u64(event_data))
            .inspect_err(|verdict| check.on_connect_failure(verdict, now))?;
        let check = check.clone();
        Ok(Self { socket, check, token, generation: 0, started: now, stage: Stage::Connecting })
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
            self.stage = match self.first_stage() {
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

    /// Returns the stage that follows the connect.
    fn first_stage(&self) -> ProbeResult<Stage> {
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
        let timed_out = |phase: Phase| to_verdict(phase.timed_out(self.check.timeout));
        match &mut self.stage {
            Stage::Connecting => {
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
fn connect(
    check: &FastCheck,
    now: Instant,
    epoll: &OwnedFd,
    event_data: EventData,
) -> ProbeResult<OwnedFd> {
    let socket = connect::socket(check.address)?;
    let local_error = |errno: Errno| Phase::Connect.local_error(&errno.into());
    let needs_ack = match &check.kind {
        FastKind::FullHandshake => true,
        FastKind::Native(protocol) => protocol.server_speaks_first(now),
        FastKind::HalfOpen | FastKind::Http(_) => false,
    };
    if !needs_ack {
        connect::delay_ack(&socket)?;
    }
    let events = match check.kind {
        FastKind::HalfOpen | FastKind::FullHandshake => EventFlags::OUT,
        FastKind::Http(_) | FastKind::Native(_) => EventFlags::OUT | EventFlags::IN,
    };
    connect::start(&socket, check.address)?;
    // Closing the socket removes it from the epoll instance.
    epoll::add(epoll, &socket, event_data, events | EventFlags::ET).map_err(local_error)?;
    Ok(socket)
}

/// Returns the lowest port that the kernel assigns by itself, or 0 if the kernel does not say.
pub(super) fn first_ephemeral_port() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|lowest| lowest.parse().ok()).unwrap_or(0)
}
