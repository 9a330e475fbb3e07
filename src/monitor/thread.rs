//! The threads of the checks: one for the monitor and its light tries, and one for the tasks of all others, so that no work for
//! the cluster or for the admin pages delays a check.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle as Runtime};
use tokio::sync::oneshot;
use tracing::error;

use super::{Handle, prepare};
use crate::config::Spec;
use crate::freeze::Rules;
use crate::limits::Limits;
use crate::news::Teller;
use crate::probe::Bell;

/// Threads that may read files for checks, beside those that commands have.
const READERS: usize = 512;

/// The checks that run. Dropping it ends them.
pub struct Checking {
    stop: Option<oneshot::Sender<()>>,
    bell: Bell,
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
        self.stop();
        self.ended().await;
    }

    fn stop(&mut self) {
        self.stop.take();
        self.bell.ring();
    }
}

impl Drop for Checking {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts to check every target of `spec`, on threads of its own. Called from within a runtime, which gets the heavy tries.
pub fn start(spec: &Spec, limits: Limits, rules: Rules, news: &Teller) -> io::Result<(Handle, Checking)> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("tries")
        .enable_all()
        // A command has a thread for as long as it runs.
        .max_blocking_threads(READERS + limits.exec_at_once)
        .build()?;
    let (handle, monitor) = prepare(spec, limits, rules, news, runtime.handle().clone(), Runtime::current())?;
    let bell = monitor.bell();
    let (stop, stopped) = oneshot::channel();
    let (alive, ended) = oneshot::channel();
    thread::Builder::new().name("checks".into()).spawn(move || {
        let _alive: oneshot::Sender<()> = alive;
        if let Err(error) = monitor.run(stopped) {
            error!(%error, "checks can't go on");
        }
        // Waits for the ends of all processes of exec checks.
        drop(runtime);
    })?;
    Ok((handle, Checking { stop: Some(stop), bell, ended }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_monitor_turns_with_nothing_to_check_and_ends_when_told_to() {
        let spec = Spec::default();
        let limits = Limits { checks_in_flight: 1, exec_at_once: 1 };
        let (monitor, checking) = start(&spec, limits, Rules::default(), &Teller::default()).expect("threads");
        let first = monitor.turned();
        while monitor.turned() == first {
            tokio::task::yield_now().await;
        }
        checking.shutdown().await;
        assert!(monitor.snapshot().await.is_none());
    }
}
