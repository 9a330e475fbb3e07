//! The DNS servers in the order in which they are asked, and which of them were silent lately.
//!
//! A server is silent if it leaves a question without an answer and has answered no other since
//! then, or if it can't be reached. A reply that is no answer, such as SERVFAIL, does not make it
//! silent: it may be for one zone alone, and must not send all other names to the next server,
//! which may know less.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time for which a server that was silent comes after the others.
const DEMOTION_TIME: Duration = Duration::from_secs(30);

/// The servers to ask, in the order of preference.
#[derive(Debug, Default)]
pub(super) struct Servers {
    addresses: Vec<SocketAddr>,
    states: Mutex<Vec<ServerState>>,
}

#[derive(Debug, Clone, Copy, Default)]
struct ServerState {
    demoted_at: Option<Instant>,
    replied_at: Option<Instant>,
}

impl Servers {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Self {
        let states = Mutex::new(vec![ServerState::default(); addresses.len()]);
        Self { addresses, states }
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the servers, those last that were silent within 30 s.
    pub(super) fn in_order(&self, now: Instant) -> Vec<SocketAddr> {
        let states = self.states();
        let is_demoted = |index: usize| {
            let demoted_at = states[index].demoted_at;
            demoted_at.is_some_and(|at| now.saturating_duration_since(at) < DEMOTION_TIME)
        };
        let mut order: Vec<usize> = (0..self.addresses.len()).collect();
        order.sort_by_key(|index| is_demoted(*index));
        order.into_iter().map(|index| self.addresses[index]).collect()
    }

    /// Records any reply of a server, which gives it its own place again.
    pub(super) fn record_reply(&self, server: SocketAddr, now: Instant) {
        self.update(server, |state| {
            *state = ServerState { demoted_at: None, replied_at: Some(now) };
        });
    }

    /// Records that a server has not answered a question for some time. Puts it behind the others
    /// for 30 s, unless it has answered another meanwhile.
    pub(super) fn record_silence(&self, server: SocketAddr, asked_at: Instant, now: Instant) {
        self.update(server, |state| {
            if state.replied_at.is_none_or(|at| at < asked_at) {
                state.demoted_at = Some(now);
            }
        });
    }

    /// Records that a server can't be reached, and puts it behind the others for 30 s.
    pub(super) fn record_unreachable(&self, server: SocketAddr, now: Instant) {
        self.update(server, |state| state.demoted_at = Some(now));
    }

    fn update(&self, server: SocketAddr, change: impl Fn(&mut ServerState)) {
        let mut states = self.states();
        let of_server = self.addresses.iter().zip(states.iter_mut());
        of_server.filter(|(address, _)| **address == server).for_each(|(_, state)| change(state));
    }

    fn states(&self) -> MutexGuard<'_, Vec<ServerState>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn a_silent_server_comes_last_for_30_s() {
        let [a, b]: [SocketAddr; 2] =
            ["10.0.0.1:53", "10.0.0.2:53"].map(|text| text.parse().expect("an address"));
        let servers = Servers::new(vec![a, b]);
        let start = clock::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        servers.record_silence(a, start, start);
        assert_eq!(servers.in_order(after(29)), [b, a]);
        assert_eq!(servers.in_order(after(30)), [a, b]);
        servers.record_unreachable(a, start);
        assert_eq!(servers.in_order(start), [b, a]);
        servers.record_reply(a, after(1));
        assert_eq!(servers.in_order(after(1)), [a, b]);
        // It is slow for one name, and answers others.
        servers.record_silence(a, after(1), after(2));
        assert_eq!(servers.in_order(after(2)), [a, b]);
        servers.record_silence(a, after(2), after(3));
        assert_eq!(servers.in_order(after(3)), [b, a]);
    }
}
