//! The threads of the checks: one for the monitor and its light tries, and one for the tasks of all others, so that no work for
//! the cluster or for the admin pages delays a check.

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

/// Threads that may read files for checks, beside those that commands have.
const MAX_FILE_READERS: usize = 512;

/// The checks that run. Dropping it ends them.
pub(crate) struct MonitorThread {
    stop: Option<oneshot::Sender<()>>,
    waker: Waker,
    /// Gets why the checks have ended; none once that has come.
    ended: Option<oneshot::Receiver<String>>,
}

impl MonitorThread {
    /// Starts a thread that does the work of the checks until it is told to stop.
    fn spawn<W>(waker: Waker, work: W) -> io::Result<Self>
    where
        W: FnOnce(oneshot::Receiver<()>) -> io::Result<()> + Send + 'static,
    {
        let (stop, stopped) = oneshot::channel();
        let (why, ended) = oneshot::channel();
        thread::Builder::new().name("checks".into()).spawn(move || {
            let outcome = work(stopped);
            // An error says that nobody wants to know any more.
            let _ = why.send(
                outcome
                    .map_or_else(|error| error.to_string(), |()| "its thread returned".to_owned()),
            );
        })?;
        Ok(Self { stop: Some(stop), waker, ended: Some(ended) })
    }

    /// Waits for the checks to end, which they should not do by themselves, and says why they did. Once that is known it
    /// returns at once.
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

/// Starts to check every target of `spec`, on threads of its own. Called from within a runtime, which gets the heavy tries.
pub(crate) fn start(
    spec: &Spec,
    limits: Limits,
    rules: Rules,
    news: &Recorder,
) -> io::Result<(Handle, MonitorThread)> {
    let runtime = TaskRuntime::new(limits)?;
    let (handle, monitor) = build(spec, limits, rules, news, runtime.handle(), Runtime::current())?;
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

    /// Waits for the ends of all processes of exec checks.
    fn shutdown(mut self) {
        drop(self.0.take());
    }
}

impl Drop for TaskRuntime {
    /// Waits for nothing: a start that has failed drops it inside another runtime, where waiting is a panic.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
impl MonitorThread {
    /// Checks that end by themselves at once, as `work` says.
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
    async fn the_monitor_turns_with_nothing_to_check_and_ends_when_told_to() {
        let spec = Spec::default();
        let limits = Limits { max_in_flight: 1, max_execs: 1 };
        let (monitor, checking) =
            start(&spec, limits, Rules::default(), &Recorder::default()).expect("threads");
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
