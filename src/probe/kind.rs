//! The interface of a kind of check: a config record makes a prober, and a prober tries one target.

use futures::future::BoxFuture;

use super::phase::{ProbeResult, Progress};
use super::target::Target;

/// A check of one kind, made ready to be tried on one target many times.
pub(crate) trait CheckProber: Send + Sync {
    /// Tries the target once. Reports each phase that it enters, so that the verdict on a deadline
    /// names it.
    ///
    /// Dropping the future ends all that the try has started.
    fn probe<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, ProbeResult<()>>;

    /// Returns what a try occupies most.
    fn workload(&self) -> Workload;
}

/// The resource that a try occupies most. It decides which runtime and which limit a try has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Waits for the network nearly all the time.
    Network,
    /// Takes long stretches of a processor at a time, as a TLS handshake does.
    Cpu,
    /// Runs a command, on a thread that may block.
    Command,
}

/// A check's config record that a prober can be made from.
pub(crate) trait NewProber {
    fn new_prober(&self, target: &Target) -> Box<dyn CheckProber>;
}
