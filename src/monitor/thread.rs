//! The threads of the checks: one for the monitor with its reactor, and one for tries that are
//! tasks. So no work for the cluster or for the admin pages delays a check.

use std::io;
use std::thread;

use tokio::runtime::{Builder, Handle as Runtime};
use tokio::sync::oneshot;

use super::{Handle, build};
use crate::config::Spec;
use crate::freeze::Rules;
use crate::limits::Limits;
use crate::notice::Recorder;
use crate::probe::Waker;
use crate::resolve;

/// Threads that may read files for checks, besides those of exec checks.
const MAX_FILE_READERS: usize = 512;

/// The thread of the monitor. Dropping this ends all checks.
pub(crate) struct MonitorThread {
    stop: Option<oneshot::Sender<()>>,
    waker: Waker,
    /// Receives the reason for which the checks have ended; none once it has been received.
    ended: Option<oneshot::Receiver<String>>,
}

impl MonitorThread {
    /// Starts a thread for the work of the checks.
    fn spawn<W>(waker: Waker, work: W) -> io::Result<Self>
    where
        W: FnOnce(oneshot::Receiver<()>) -> io::Result<()> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let (why, ended) = oneshot::channel();
        thread::Builder::new().name("checks".into()).spawn(move || {
            let outcome = work(stopped);
            // The owner may be gone.
            let _ = why.send(
                outcome
                    .map_or_else(|error| error.to_string(), |()| "its thread returned".to_owned()),
            );
        })?;
        Ok(Self { stop: Some(stop), waker, ended: Some(ended) })
    }

    /// Waits until the checks have ended, which they should not do by themselves, and returns the
    /// reason.
    pub(crate) async fn ended(&mut self) -> String {
        let Some(ended) = &mut self.ended else { return "it has ended before".to_owned() };
        // A thread that panics drops its end of the channel.
        let why =
            ended.await.unwrap_or_else(|_| "its thread panicked; the log says where".to_owned());
        self.ended = None;
        why
    }

    /// Ends all checks, and all that they started.
    pub(crate) async fn shutdown(mut self) {
        self.stop();
        self.ended().await;
    }

    fn stop(&mut self) {
        self.stop.take();
        self.waker.wake();
    }
}

impl Drop for MonitorThread {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Starts the checks of all targets of `spec`, on threads of their own. The runtime of the caller
/// runs the CPU-bound tries.
pub(crate) fn start(
    spec: &Spec,
    limits: Limits,
    rules: Rules,
    recorder: &Recorder,
    resolver: resolve::Handle,
) -> io::Result<(Handle, MonitorThread)> {
    let runtime = TaskRuntime::new(limits)?;
    let runtimes = (runtime.handle(), Runtime::current());
    let (handle, monitor) = build(spec, limits, rules, recorder, resolver, runtimes)?;
    let checking = MonitorThread::spawn(monitor.waker(), move |stopped| {
        let outcome = monitor.run(stopped);
        runtime.shutdown();
        outcome
    })?;
    Ok((handle, checking))
}

/// The runtime of the tries that are tasks.
struct TaskRuntime(Option<tokio::runtime::Runtime>);

impl TaskRuntime {
    fn new(limits: Limits) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("tries")
            .enable_all()
            // A command has a thread for as long as it runs.
            .max_blocking_threads(MAX_FILE_READERS + limits.max_execs)
            .build()?;
        Ok(Self(Some(runtime)))
    }

    fn handle(&self) -> Runtime {
        self.0.as_ref().expect("it is not shut down").handle().clone()
    }

    /// Waits until all processes of exec checks have ended.
    fn shutdown(mut self) {
        drop(self.0.take());
    }
}

impl Drop for TaskRuntime {
    /// Shuts down without waiting: after a failed start this is dropped inside another runtime,
    /// where waiting panics.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
impl MonitorThread {
    /// Creates a thread that ends by itself at once, with the result of `work`.
    pub(crate) fn ending_with(work: impl FnOnce() -> io::Result<()> + Send + 'static) -> Self {
        let waker = crate::probe::Reactor::new()
            .and_then(|mut reactor| reactor.waker())
            .expect("an epoll instance");
        Self::spawn(waker, move |_| work()).expect("a thread")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_monitor_runs_with_nothing_to_check_until_it_is_stopped() {
        let spec = Spec::default();
        let limits = Limits { max_in_flight: 1, max_execs: 1 };
        let (monitor, checking) =
            start(&spec, limits, Rules::default(), &Recorder::default(), resolve::channel().0)
                .expect("threads");
        let first = monitor.last_heartbeat();
        while monitor.last_heartbeat() == first {
            tokio::task::yield_now().await;
        }
        checking.shutdown().await;
        assert!(monitor.snapshot().await.is_none());
    }
    #[tokio::test]
    async fn checks_that_end_by_themselves_say_why_once_and_for_all() {
        let mut failed = MonitorThread::ending_with(|| Err(io::Error::other("epoll is gone")));
        assert_eq!(failed.ended().await, "epoll is gone");
        failed.ended().await;
        failed.shutdown().await;
        let mut panicked = MonitorThread::ending_with(|| panic!("a panic of this test"));
        assert_eq!(panicked.ended().await, "its thread panicked; the log says where");
        panicked.shutdown().await;
    }
}
