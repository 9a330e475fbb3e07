//! The DNS servers in the order in which they are asked, and which of them failed lately.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time for which a server that was silent or wrong comes after the others.
const DEMOTION_TIME: Duration = Duration::from_secs(30);

/// The servers to ask, in the order of preference.
#[derive(Debug, Default)]
pub(super) struct Servers {
    addresses: Vec<SocketAddr>,
    demoted_at: Mutex<Vec<Option<Instant>>>,
}

impl Servers {
    pub(super) fn new(addresses: Vec<SocketAddr>) -> Self {
        let demoted_at = Mutex::new(vec![None; addresses.len()]);
        Self { addresses, demoted_at }
    }

    pub(super) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Returns the servers, those last that were silent or wrong within 30 s.
    pub(super) fn in_order(&self, now: Instant) -> Vec<SocketAddr> {
        let demoted_at = self.demoted_at();
        let is_demoted = |index: usize| {
            demoted_at[index].is_some_and(|at| now.saturating_duration_since(at) < DEMOTION_TIME)
        };
        let mut order: Vec<usize> = (0..self.addresses.len()).collect();
        order.sort_by_key(|index| is_demoted(*index));
        order.into_iter().map(|index| self.addresses[index]).collect()
    }

    /// Puts a server behind the others for 30 s.
    pub(super) fn demote(&self, server: SocketAddr, now: Instant) {
        self.mark(server, Some(now));
    }

    /// Gives a server its own place again.
    pub(super) fn restore(&self, server: SocketAddr) {
        self.mark(server, None);
    }

    fn mark(&self, server: SocketAddr, at: Option<Instant>) {
        let mut demoted_at = self.demoted_at();
        for (address, known_at) in self.addresses.iter().zip(demoted_at.iter_mut()) {
            if *address == server {
                *known_at = at;
            }
        }
    }

    fn demoted_at(&self) -> MutexGuard<'_, Vec<Option<Instant>>> {
        self.demoted_at.lock().unwrap_or_else(PoisonError::into_inner)
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
        servers.demote(a, start);
        assert_eq!(servers.in_order(start + Duration::from_secs(29)), [b, a]);
        assert_eq!(servers.in_order(start + Duration::from_secs(30)), [a, b]);
        servers.demote(a, start);
        servers.restore(a);
        assert_eq!(servers.in_order(start), [a, b]);
    }
}
