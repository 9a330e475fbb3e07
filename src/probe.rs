//! One try of one target: runs a check and says what it saw, as a verdict whose reason names the phase.
//!
//! A check has one deadline for all it does. Every kind reports the phase it enters, so that whatever the deadline
//! cuts short is named. Inside, `Err(verdict)` ends a try early; reaching the end is a pass.

mod exec;
mod fast;
mod http;
mod kind;
mod phase;
mod registry;
mod stream;
mod target;
mod tcp;
mod text;
mod tls;
mod value;

use std::sync::Arc;
use std::time::Duration;

use crate::config::Check;
use crate::health::Verdict;
pub use fast::{Completion, FastCheck, Reactor, Waker};
use kind::{CheckProber, Workload};
use phase::Progress;
pub use target::Target;

/// A check made ready to be tried on one target many times.
pub struct Prober {
    timeout: Duration,
    path: Path,
}

/// The way that the tries of a check go.
enum Path {
    Fast(Arc<FastCheck>),
    Task(Box<dyn CheckProber>),
}

impl Prober {
    pub fn new(check: Arc<Check>, target: Target) -> Self {
        let path = match FastCheck::new(&check.kind, check.timeout, target.ip) {
            Some(fast) => Path::Fast(Arc::new(fast)),
            None => Path::Task(registry::new_prober(&check.kind, &target)),
        };
        Self { timeout: check.timeout, path }
    }

    /// Returns the check if a [`Reactor`] can try it.
    pub fn fast_check(&self) -> Option<&Arc<FastCheck>> {
        match &self.path {
            Path::Fast(check) => Some(check),
            Path::Task(_) => None,
        }
    }

    /// Returns true if a try takes long stretches of a processor at a time, as a TLS handshake does.
    pub fn is_cpu_bound(&self) -> bool {
        self.workload() == Workload::Cpu
    }

    /// Returns true if a try runs a command.
    pub fn is_exec(&self) -> bool {
        self.workload() == Workload::Command
    }

    fn workload(&self) -> Workload {
        match &self.path {
            Path::Fast(_) => Workload::Network,
            Path::Task(prober) => prober.workload(),
        }
    }

    /// Tries the target once. Ends within the check's timeout; dropping the future ends all that the try has started.
    pub async fn probe(&self) -> Verdict {
        let prober = match &self.path {
            Path::Fast(check) => return Box::pin(fast::run_once(check)).await,
            Path::Task(prober) => prober,
        };
        let progress = Progress::default();
        let result = tokio::time::timeout(self.timeout, prober.probe(&progress)).await;
        result.unwrap_or_else(|_| progress.timed_out(self.timeout)).err().unwrap_or(Verdict::Pass)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten thousand of them are held, and at times all at once in flight.
    #[test]
    fn a_quiet_try_is_small() {
        use crate::config::{CheckKind, DatabaseId, TcpCheck};
        use crate::health::Thresholds;
        let tcp = TcpCheck { port: 1, tls: None, send: None, expect: None, accept: false };
        let check = Check {
            kind: CheckKind::Tcp(tcp),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            recheck_interval: Duration::from_secs(1),
            thresholds: Thresholds { healthy: 1, unhealthy: 1 },
        };
        let database = DatabaseId { namespace: "a".into(), service: "b".into() };
        let target = Target { database, ip: [127, 0, 0, 1].into(), hostname: None, port: 1 };
        let prober = Prober::new(Arc::new(check), target);
        let (held, in_flight) = (size_of_val(&prober), size_of_val(&prober.probe()));
        assert!(held <= 80 && in_flight <= 640, "{held} and {in_flight} bytes");
    }
}
