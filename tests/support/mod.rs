//! Support for the programs that need a cluster: the sandbox, the control plane, databases to
//! break, and functions that wait.

#![allow(
    dead_code,
    unused_imports,
    unused_macros,
    reason = "several programs include this module, and none uses all of it"
)]

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

pub(crate) mod addresses;
pub(crate) mod api_proxy;
pub(crate) mod binaries;
pub(crate) mod black_hole;
pub(crate) mod case;
pub(crate) mod control_plane;
pub(crate) mod coredns;
pub(crate) mod daemon;
pub(crate) mod database;
pub(crate) mod http;
pub(crate) mod kubelet;
pub(crate) mod name_server;
pub(crate) mod namespace;
pub(crate) mod pki;
pub(crate) mod process;
pub(crate) mod rbac;
pub(crate) mod sandbox;
pub(crate) mod traffic;

pub(crate) use api_proxy::ApiProxy;
pub(crate) use control_plane::{ControlPlane, Options, shared};
pub(crate) use coredns::CoreDns;
pub(crate) use daemon::Daemon;
pub(crate) use database::{Behavior, Database};
pub(crate) use name_server::NameServer;
pub(crate) use namespace::Namespace;
pub(crate) use traffic::{ConnectOutcome, Traffic};

/// Returns the runtime of the whole run. Clients, databases and proxies live on it, beyond the test
/// that created them only if it leaks them.
pub(crate) fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        // Fails only if a provider is installed already.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(4)
            .enable_all()
            .build()
            .expect("a tokio runtime")
    })
}

/// Runs blocking work without blocking the servers on the runtime.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    runtime().spawn_blocking(work).await.expect("blocking work doesn't panic")
}

/// A result of an attempt: it succeeded, or it describes the current state.
pub(crate) trait Attempt {
    type Value;
    fn into_result(self) -> Result<Self::Value, String>;
}

impl Attempt for bool {
    type Value = ();
    fn into_result(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".into()) }
    }
}

impl<T> Attempt for Option<T> {
    type Value = T;
    fn into_result(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".into())
    }
}

impl<T, E: std::fmt::Display> Attempt for Result<T, E> {
    type Value = T;
    fn into_result(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Repeats an attempt until it succeeds. Panics with `what` and the last state if it does not
/// succeed `within` the time.
pub(crate) async fn eventually<O: Attempt>(
    within: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> O,
) -> O::Value {
    let started = Instant::now();
    let mut last = "no attempt ended".to_owned();
    while let Some(left) = within.checked_sub(started.elapsed()) {
        match tokio::time::timeout(left, attempt()).await.map(O::into_result) {
            Ok(Ok(value)) => return value,
            Ok(Err(seen)) => last = seen,
            Err(_) => break,
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within {within:?}: {what}; last seen: {last}");
}

/// Repeats an attempt all the time, `during` the time. Panics with `what` and the state as soon as
/// one fails.
pub(crate) async fn consistently<O: Attempt>(
    during: Duration,
    what: &str,
    mut attempt: impl AsyncFnMut() -> O,
) {
    let started = Instant::now();
    while started.elapsed() < during {
        if let Err(seen) = attempt().await.into_result() {
            panic!("no longer after {:?}: {what}; seen: {seen}", started.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Panics with `what` if a future takes too long.
pub(crate) async fn with_timeout<T>(
    within: Duration,
    what: &str,
    work: impl Future<Output = T>,
) -> T {
    match tokio::time::timeout(within, work).await {
        Ok(value) => value,
        Err(_) => panic!("{what} took longer than {within:?}"),
    }
}

/// Returns the last lines of a file, for an error message.
pub(crate) fn tail(path: &Path, lines: usize) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}

/// Creates an empty folder in the sandbox's tmpfs. It is gone when the sandbox is.
pub(crate) fn temp_dir(prefix: &str) -> PathBuf {
    static TAKEN: Mutex<u32> = Mutex::new(0);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    *taken += 1;
    let path = sandbox::scratch_dir().join(format!("{prefix}-{}", *taken));
    std::fs::create_dir_all(&path).expect("a folder in the sandbox");
    path
}
