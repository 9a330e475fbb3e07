//! One probe of one target: runs a check, and returns a verdict whose reason begins with the phase.
//!
//! A check has one deadline for everything it does. Each kind of check reports the phase that it
//! enters, so the verdict on a deadline names it.
//!
//! The modules, from the bottom up (each uses only those above it in this list):
//!
//! - `phase`: the phases, and the verdict on an error or a deadline in each of them.
//! - `target`, `text`, `value`: the target, text in streams and reasons, values from files.
//! - `credentials`: user and password, kept between probes.
//! - `observation`: role and lag of a server, and the age of a lag that is not known.
//! - `stream`: the TCP connection of a probe.
//! - `conversation`: a database's own protocol without I/O, and its buffers.
//! - `kind`: the interface of a kind of check.
//! - `tls`: TLS for several kinds.
//! - `native`: conversations over TLS.
//! - `http2_client`: an exchange over HTTP/2.
//! - `http`, `tcp`, `exec`, `postgres`, `redis`, `mongodb`, `mysql`, `grpc`: the kinds.
//! - `fast`: the cheapest checks, thousands at once without a task each.
//! - `registry`: the prober of each kind.

mod conversation;
mod credentials;
mod fast;
mod http2_client;
mod kind;
mod native;
mod observation;
mod phase;
mod registry;
mod server_text;
mod stream;
mod target;
mod text;
mod tls;
mod value;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::{Check, check_kinds};
use crate::health::Verdict;
pub use fast::{Completion, FastCheck, Reactor, Waker};
use kind::{CheckProber, Workload};
use observation::Observed;
pub(crate) use observation::describe as describe_observation;
pub use observation::{Observation, ServerRole};
use phase::{Progress, to_verdict};
pub(crate) use phase::{is_of_login, is_of_role};
pub use target::Target;

/// Declares the module of each kind of check: `tcp`, `http` and so on, as the config's registry
/// names them.
macro_rules! declare_kinds {
    ($($module:ident => $variant:ident($check:ident),)*) => { $(mod $module;)* };
}

check_kinds!(declare_kinds);

/// A check of one target, made ready to be probed many times.
pub struct Prober {
    timeout: Duration,
    path: Path,
}

/// The way that the probes of a check take.
enum Path {
    Fast(Arc<FastCheck>),
    Task(Box<dyn CheckProber>),
}

impl Prober {
    /// Makes the prober of a target. Reads no file and resolves no name.
    pub fn new(check: Arc<Check>, target: Target) -> Self {
        let timeout = check.timeout;
        let path = match FastCheck::new(&check.kind, timeout, &target) {
            Some(fast) => Path::Fast(Arc::new(fast)),
            None => {
                let prober = registry::new_prober(&check.kind, &target);
                match prober.plain_protocol() {
                    Some(plain) => Path::Fast(Arc::new(FastCheck::native(plain, timeout))),
                    None => Path::Task(prober),
                }
            }
        };
        Self { timeout, path }
    }

    /// Returns the check if a [`Reactor`] can probe it now. A probe that must read a file first
    /// is a task.
    pub fn fast_check(&self) -> Option<&Arc<FastCheck>> {
        match &self.path {
            Path::Fast(check) => Some(check).filter(|check| check.is_ready()),
            Path::Task(_) => None,
        }
    }

    /// Returns the details that the newest probe has found that found any.
    pub fn observation(&self) -> Option<Arc<Observation>> {
        self.observed().map(|observed| observed.observation)
    }

    /// Returns the details that a probe has found, if that started at `since` or later.
    pub(crate) fn observation_since(&self, since: Instant) -> Option<Arc<Observation>> {
        let observed = self.observed().filter(|observed| observed.at >= since);
        observed.map(|observed| observed.observation)
    }

    fn observed(&self) -> Option<Observed> {
        match &self.path {
            Path::Fast(check) => check.observed(),
            Path::Task(prober) => prober.observed(),
        }
    }

    /// Returns true if a probe takes long stretches of CPU time, as a TLS handshake does.
    pub fn is_cpu_bound(&self) -> bool {
        self.workload() == Workload::Cpu
    }

    /// Returns true if a probe runs a command.
    pub fn is_exec(&self) -> bool {
        self.workload() == Workload::Command
    }

    /// Returns whether a failure for this reason may come from a wrong name of the target.
    pub fn may_fail_by_name(&self, reason: &str) -> bool {
        match &self.path {
            Path::Fast(_) => false,
            Path::Task(prober) => prober.may_fail_by_name(reason),
        }
    }

    fn workload(&self) -> Workload {
        match &self.path {
            Path::Fast(_) => Workload::Network,
            Path::Task(prober) => prober.workload(),
        }
    }

    /// Probes the target once, within the check's timeout.
    ///
    /// Dropping the future ends everything that the probe has started.
    pub async fn probe(&self) -> Verdict {
        let prober = match &self.path {
            Path::Fast(check) => return Box::pin(fast::run_once(check)).await,
            Path::Task(prober) => prober,
        };
        let progress = Progress::default();
        let result = tokio::time::timeout(self.timeout, prober.probe(&progress)).await;
        to_verdict(result.unwrap_or_else(|_| progress.timed_out(self.timeout)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Ten thousand probers are held, and at times all their probes are in flight at once.
    #[test]
    fn a_fast_prober_and_its_probe_are_small() {
        use crate::config::{CheckKind, TcpCheck};
        use crate::health::Thresholds;
        let tcp = TcpCheck { port: 1, tls: None, send: None, expect: None, accept: false };
        let check = Check {
            kind: CheckKind::Tcp(tcp),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            recheck_interval: Duration::from_secs(1),
            thresholds: Thresholds { healthy: 1, unhealthy: 1 },
        };
        let prober = Prober::new(Arc::new(check), Target::local());
        let (held, in_flight) = (size_of_val(&prober), size_of_val(&prober.probe()));
        assert!(held <= 80 && in_flight <= 640, "{held} and {in_flight} bytes");
    }
}
