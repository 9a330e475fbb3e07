//! The `User-Agent` of all calls, by which the API server's audit log and metrics tell replicas and
//! commands apart.

use std::env::consts::{ARCH, OS};
use std::sync::{Arc, OnceLock};

use hyper::Request;
use hyper::header::{HeaderValue, USER_AGENT};

/// The most bytes of an answer to a command. The lists of large clusters are far smaller.
const MAX_CLI_ANSWER: usize = 256 << 20;

/// The part that the caller plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientRole {
    /// The replica that writes: it holds the Lease, or is the only one.
    Leader,
    /// A replica that only checks, and is ready to take over.
    Standby,
    /// A dry run, which only reads.
    DryRun,
    /// A command that a person runs.
    Cli,
}

impl ClientRole {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Leader => "leader",
            Self::Standby => "standby",
            Self::DryRun => "dry-run",
            Self::Cli => "cli",
        }
    }
}

/// The `User-Agent` of a client: `external-endpoints/VERSION (OS/ARCH; ROLE)`. All copies share the
/// role, which is read again for each call.
#[derive(Clone)]
pub(crate) struct UserAgent {
    initial: ClientRole,
    current: Arc<OnceLock<Box<dyn Fn() -> ClientRole + Send + Sync>>>,
}

impl UserAgent {
    /// Creates the agent of a client that plays this part until [`follow`](Self::follow) is called.
    pub(crate) fn new(initial: ClientRole) -> Self {
        Self { initial, current: Arc::default() }
    }

    /// Creates the agent of a command.
    pub(crate) fn cli() -> Self {
        Self::new(ClientRole::Cli)
    }

    /// Takes the role from `current` from now on. Only the first call has an effect.
    pub(crate) fn follow(&self, current: impl Fn() -> ClientRole + Send + Sync + 'static) {
        // Fails only if the role is followed already.
        let _ = self.current.set(Box::new(current));
    }

    /// Returns the most bytes of an answer. The watches of the daemon have no end.
    pub(super) fn max_answer_size(&self) -> usize {
        match self.initial {
            ClientRole::Cli => MAX_CLI_ANSWER,
            ClientRole::Leader | ClientRole::Standby | ClientRole::DryRun => usize::MAX,
        }
    }

    /// Sets the header of a request.
    pub(super) fn stamp<B>(&self, mut request: Request<B>) -> Request<B> {
        let role = self.current.get().map_or(self.initial, |current| current());
        let value = HeaderValue::from_str(&text(role)).expect("printable ASCII");
        request.headers_mut().insert(USER_AGENT, value);
        request
    }
}

fn text(role: ClientRole) -> String {
    // The names that Kubernetes' own clients use.
    let arch = match ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("external-endpoints/{} ({OS}/{arch}; {})", env!("CARGO_PKG_VERSION"), role.as_str())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn stamped(agent: &UserAgent) -> String {
        let request = agent.stamp(Request::new(()));
        request.headers()[USER_AGENT].to_str().expect("text").to_owned()
    }

    #[test]
    fn the_role_is_that_of_the_moment_of_the_call() {
        let agent = UserAgent::new(ClientRole::Standby);
        let copy = agent.clone();
        assert!(stamped(&copy).ends_with("; standby)"), "{}", stamped(&copy));
        let leads = Arc::new(AtomicBool::new(false));
        let leading = leads.clone();
        agent.follow(move || match leading.load(Ordering::Relaxed) {
            true => ClientRole::Leader,
            false => ClientRole::Standby,
        });
        assert!(stamped(&copy).ends_with("; standby)"));
        leads.store(true, Ordering::Relaxed);
        let expected = format!("external-endpoints/{} (linux/", env!("CARGO_PKG_VERSION"));
        assert!(stamped(&copy).starts_with(&expected), "{}", stamped(&copy));
        assert!(stamped(&copy).ends_with("; leader)"));
    }
}
