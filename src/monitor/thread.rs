//! The monitor's own thread, so that no work for the cluster or for the admin pages delays a check.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle as Runtime};
use tokio::sync::oneshot;
use tracing::error;

use super::{Handle, prepare};
use crate::config::Spec;
use crate::limits::Limits;
use crate::news::Teller;

/// Threads that may read files for checks, beside those that commands have.
const READERS: usize = 512;

/// The checks that run. Dropping it ends them.
pub struct Checking {
    stop: Option<oneshot::Sender<()>>,
    ended: oneshot::Receiver<()>,
}

impl Checking {
    /// Waits for the checks to end, which they should not do by themselves.
    pub async fn ended(&mut self) {
        // Whether the thread returned or panicked, its end of the channel is gone.
        let _ = (&mut self.ended).await;
    }

    /// Ends all checks, and all that they started.
    pub async fn shutdown(mut self) {
        self.stop.take();
        self.ended().await;
    }
}

/// Starts to check every target of `spec`, on a thread of its own. Called from within a runtime, which gets the heavy tries.
pub fn start(spec: &Spec, limits: Limits, news: &Teller) -> io::Result<(Handle, Checking)> {
    let (handle, monitor) = prepare(spec, limits, news, Runtime::current());
    let runtime = Builder::new_current_thread()
        .enable_all()
        // A command has a thread for as long as it runs.
        .max_blocking_threads(READERS + limits.exec_at_once)
        .build()?;
    let (stop, stopped) = oneshot::channel();
    let (alive, ended) = oneshot::channel();
    thread::Builder::new().name("checks".into()).spawn(move || {
        let _alive: oneshot::Sender<()> = alive;
        // A task, for whatever wakes the future that a runtime blocks on also wakes the runtime, by a system call.
        match runtime.block_on(runtime.spawn(monitor.run(stopped))) {
            Ok(Ok(())) => {}
            Ok(Err(error)) => error!(%error, "checks can't go on"),
            Err(panic) => error!(%panic, "checks can't go on"),
        }
        drop(runtime);
    })?;
    Ok((handle, Checking { stop: Some(stop), ended }))
}
