//! The limits on concurrent work: probes by the file descriptors of this process, and commands by
//! its processors.

use std::num::NonZeroUsize;
use std::sync::OnceLock;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::warn;

/// The least number of descriptors reserved for everything but checks: the admin pages, connections
/// to the API, and the daemon itself.
const FD_RESERVE: u64 = 256;

/// The most connections to the admin pages. A quarter of the reserve if that is less.
const MAX_PAGE_CONNECTIONS: u64 = 64;

/// The descriptors of the daemon itself: files, the log, its runtimes, and connections to the API
/// for writes, Events and the Lease.
const FDS_FOR_DAEMON: u64 = 64;

/// The connections to the API that watch a namespace.
const FDS_PER_NAMESPACE: u64 = 3;

/// The most sockets of questions to DNS. Three eighths of the reserve if that is less.
const MAX_DNS_SOCKETS: u64 = 96;

/// The descriptors of a probe over the network: its connection, and a file that a value, a
/// certificate or a key is read from.
const FDS_PER_PROBE: u64 = 2;

/// The descriptors of a command: both ends of its pipe, its pidfd, and a file that a value is read
/// from.
const FDS_PER_EXEC: u64 = 4;

/// The default number of concurrent commands for each processor. Most commands wait for a database
/// most of the time.
const EXECS_PER_CORE: usize = 4;

/// The limits on concurrent work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// The most probes over the network in flight.
    pub max_in_flight: usize,
    /// The most commands of exec checks at once, not counted as probes over the network.
    pub max_execs: usize,
}

impl Limits {
    /// Raises the soft limit of open descriptors to the hard limit, and divides the descriptors
    /// between the uses of a config.
    ///
    /// Must be called once, before any probe or command is started.
    pub(crate) fn raise(max_exec: Option<NonZeroUsize>, uses: ReservedUses) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let max_exec = max_exec.map_or(EXECS_PER_CORE * cores, NonZeroUsize::get);
        let limits = Self::share(raise_descriptors(), max_exec, uses);
        if limits.max_execs < max_exec {
            warn!(
                max_exec,
                exec_at_once = limits.max_execs,
                "too few file descriptors for this many concurrent commands; raise `ulimit -n`"
            );
        }
        limits
    }

    fn share(descriptors: u64, max_exec: usize, uses: ReservedUses) -> Self {
        let spare = descriptors - fd_reserve(descriptors, uses);
        let commands = (spare / 4 / FDS_PER_EXEC).clamp(1, max_exec as u64);
        let checks =
            (spare.saturating_sub(commands * FDS_PER_EXEC) / FDS_PER_PROBE).clamp(1, MAX_IN_FLIGHT);
        Self { max_in_flight: checks as usize, max_execs: commands as usize }
    }
}

/// The uses of a config that descriptors are reserved for, beside the daemon's own.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ReservedUses {
    /// The namespaces that are watched.
    pub namespaces: usize,
    /// The names that DNS is asked for.
    pub names: usize,
}

impl ReservedUses {
    fn descriptors(self) -> u64 {
        let dns = if self.names == 0 { 0 } else { MAX_DNS_SOCKETS };
        dns + FDS_PER_NAMESPACE * self.namespaces as u64
    }
}

/// Returns the descriptors reserved for everything but checks: half of all, if there are few.
fn fd_reserve(descriptors: u64, uses: ReservedUses) -> u64 {
    FD_RESERVE.max(MAX_PAGE_CONNECTIONS + FDS_FOR_DAEMON + uses.descriptors()).min(descriptors / 2)
}

/// Returns the most connections to the admin pages under the current limit of descriptors.
pub(crate) fn max_page_connections() -> usize {
    page_connections(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)) as usize
}

fn page_connections(descriptors: u64) -> u64 {
    (fd_reserve(descriptors, ReservedUses::default()) / 4).clamp(1, MAX_PAGE_CONNECTIONS)
}

/// The limits on questions to DNS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DnsLimits {
    /// The most questions in the air. Each has one socket at least.
    pub max_open_questions: usize,
    /// The most further sockets, for questions that are put to several servers at a time.
    pub spare_sockets: usize,
}

impl DnsLimits {
    /// Returns the limits under the current limit of descriptors.
    pub(crate) fn current() -> Self {
        Self::share(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX))
    }

    fn share(descriptors: u64) -> Self {
        let reserve = fd_reserve(descriptors, ReservedUses::default());
        let sockets = (reserve * 3 / 8).clamp(1, MAX_DNS_SOCKETS) as usize;
        let spare_sockets = sockets / 3;
        Self { max_open_questions: sockets - spare_sockets, spare_sockets }
    }
}

/// The upper bound of probes in flight, above any number of targets.
const MAX_IN_FLIGHT: u64 = 1 << 24;

/// The limit of descriptors before it was raised.
static ORIGINAL_NOFILE: OnceLock<Rlimit> = OnceLock::new();

/// Raises the soft limit of descriptors to the hard limit. Returns the limit in force.
fn raise_descriptors() -> u64 {
    let before = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: before.maximum, maximum: before.maximum };
    let differs = before.current != raised.current;
    if differs && setrlimit(Resource::Nofile, raised).is_ok() {
        return ORIGINAL_NOFILE.get_or_init(|| before).maximum.unwrap_or(u64::MAX);
    }
    before.current.unwrap_or(u64::MAX)
}

/// Returns the limit of descriptors for a command, or `None` if the daemon's own was not raised.
///
/// A raised limit breaks programs that wait with `select`, and slows down those that close every
/// descriptor they may have.
pub(crate) fn child_nofile_limit() -> Option<Rlimit> {
    ORIGINAL_NOFILE.get().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespaces(namespaces: usize) -> ReservedUses {
        ReservedUses { namespaces, names: 0 }
    }

    #[test]
    fn descriptors_are_divided_between_all_uses() {
        let of = |descriptors, max_exec| {
            let limits = Limits::share(descriptors, max_exec, namespaces(1));
            (limits.max_in_flight, limits.max_execs)
        };
        assert_eq!(of(1024, 8), (368, 8));
        assert_eq!(of(1_048_576, 8), (524_144, 8));
        assert_eq!(of(64, 8), (12, 2));
        assert_eq!(of(1_000_000_000, 8), (1 << 24, 8));
        assert_eq!(of(u64::MAX, 1_000_000), (1 << 24, 1_000_000));
        assert_eq!(of(8, 8), (1, 1));
        for descriptors in 12..5000 {
            let (checks, commands) = of(descriptors, 1000);
            let used = checks as u64 * FDS_PER_PROBE + commands as u64 * FDS_PER_EXEC;
            assert!(
                used <= descriptors - FD_RESERVE.min(descriptors / 2),
                "{descriptors}: {checks} and {commands}"
            );
        }
        // Watches of many namespaces leave fewer descriptors to checks.
        assert_eq!(Limits::share(1024, 8, namespaces(100)).max_in_flight, 282);
        assert_eq!(Limits::share(1024, 8, namespaces(1000)).max_in_flight, 240);
    }

    #[test]
    fn questions_to_dns_fit_into_the_reserve() {
        for (descriptors, questions, spare) in
            [(u64::MAX, 64, 32), (1024, 64, 32), (256, 32, 16), (64, 8, 4), (1, 1, 0)]
        {
            let limits = DnsLimits { max_open_questions: questions, spare_sockets: spare };
            assert_eq!(DnsLimits::share(descriptors), limits, "{descriptors}");
        }
        // With 1,024 descriptors the watches of 10 namespaces fit beside, and more of them are at
        // the expense of checks.
        let in_flight = |namespaces| {
            Limits::share(1024, 8, ReservedUses { namespaces, names: 1 }).max_in_flight
        };
        assert_eq!([in_flight(1), in_flight(10), in_flight(30)], [368, 368, 339]);
    }

    #[test]
    fn pages_leave_enough_of_the_reserve_for_the_rest() {
        for (descriptors, pages) in
            [(u64::MAX, 64), (1024, 64), (512, 64), (256, 32), (64, 8), (8, 1), (1, 1)]
        {
            assert_eq!(page_connections(descriptors), pages, "{descriptors}");
        }
        // With 1,024 descriptors, 42 namespaces can be watched however many clients read pages.
        // With 256 it is 10.
        let namespaces = |descriptors| {
            (fd_reserve(descriptors, namespaces(0))
                - page_connections(descriptors)
                - FDS_FOR_DAEMON)
                / FDS_PER_NAMESPACE
        };
        assert_eq!([namespaces(1024), namespaces(256)], [42, 10]);
    }
}
