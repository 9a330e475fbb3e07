//! The interface of a kind of check: a config record makes a prober, and a prober tries one target.

use futures::future::BoxFuture;

use std::net::SocketAddr;
use std::sync::Arc;

use super::conversation::Protocol;
use super::observation::Observed;
use super::phase::{ProbeResult, Progress};
use super::target::Target;

/// A check of one kind and one target, made ready to be probed many times.
pub(crate) trait CheckProber: Send + Sync {
    /// Probes the target once, and reports each phase that it enters.
    ///
    /// Dropping the future ends everything that the probe has started.
    fn probe<'a>(&'a self, progress: &'a Progress) -> BoxFuture<'a, ProbeResult<()>>;

    /// Returns the resource that a probe occupies most.
    fn workload(&self) -> Workload;

    /// Returns whether a failure for this reason may come from a wrong name of the target. A kind
    /// that uses no name has no such failure.
    fn may_fail_by_name(&self, _reason: &str) -> bool {
        false
    }

    /// Returns the conversation that the reactor can have instead of a task, if there is one.
    fn plain_protocol(&self) -> Option<PlainProtocol> {
        None
    }

    /// Returns the details that the newest probe has found that found any.
    fn observed(&self) -> Option<Observed> {
        None
    }
}

/// A protocol without TLS, and the address to speak it with.
pub(crate) struct PlainProtocol {
    pub address: SocketAddr,
    pub protocol: Arc<dyn Protocol>,
}

/// The resource that a probe occupies most. It decides on the runtime and the limit of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Waits for the network nearly all the time.
    Network,
    /// Takes long stretches of a processor at a time, as a TLS handshake does.
    Cpu,
    /// Runs a command, on a thread that may block.
    Command,
}

/// The config record of a kind of check, which makes its probers.
pub(crate) trait NewProber {
    /// Makes a prober of one target. Reads no file and resolves no name.
    fn new_prober(&self, target: &Target) -> Box<dyn CheckProber>;
}
