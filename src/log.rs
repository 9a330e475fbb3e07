//! The log: lines on standard error, for people or as JSON.
//!
//! The reader of standard error may be slow, gone, or a full disk. None of these may stop the
//! daemon, so every line goes through a bounded queue to a thread that only writes.
//! `tracing-appender` has such a writer too. But it bounds lines rather than bytes, and at the end
//! it prints to standard output, which blocks forever or panics when both are the same pipe.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::panic::PanicHookInfo;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use clap::ValueEnum;
use queue::Queue;
use tracing::{error, warn};
use tracing_subscriber::EnvFilter;

mod queue;
mod stderr;

/// The format of the log's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; in colour on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// The filter that applies unless `RUST_LOG` gives another. Conditions already report the client's
/// errors, once each. A checked server can make h2 log thousands of lines in one check.
const FILTER: &str = "info,kube=off,kube_client=off,kube_runtime=off,tower=off,hyper=off,h2=off";

/// The longest time that the end of the program waits for the last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The lines that are not written yet. It is set when the log is started.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// Starts the log, which gets panics too. Later calls change nothing.
pub fn start(format: Format) -> io::Result<()> {
    let queue = Arc::new(Queue::default());
    if QUEUE.set(queue.clone()).is_err() {
        return Ok(());
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let lines = queue.clone();
    // Internal errors would be printed to standard error, past the queue.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Lines(lines.clone()))
        .with_target(false)
        .log_internal_errors(false);
    // An error means that a log exists already, which stays.
    let _ = match format {
        Format::Human => builder
            .with_ansi(io::stderr().is_terminal() && allows_color(|name| std::env::var_os(name)))
            .try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    std::panic::set_hook(Box::new(log_panic));
    let mut stderr = stderr::Stderr::new()?;
    thread::Builder::new()
        .name("log".into())
        .spawn(move || queue.write_to(&mut stderr, log_dropped))?;
    Ok(())
}

/// Returns whether the environment allows colours on a terminal, by `NO_COLOR` and `TERM`.
pub(crate) fn allows_color(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    variable("NO_COLOR").is_none_or(|value| value.is_empty())
        && variable("TERM").is_none_or(|terminal| terminal != "dumb")
}

/// Writes text for people to standard error, in order with the lines of the log. Errors are
/// ignored, because there is no other place to report them.
pub fn print(text: &str) {
    match QUEUE.get() {
        Some(queue) => queue.push(text.as_bytes()),
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Waits until all lines are written, for at most a second.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.wait_until_empty(FLUSH_TIMEOUT);
    }
}

/// Returns the number of lines that were lost because the queue was full or a write failed.
pub fn dropped_lines() -> u64 {
    QUEUE.get().map_or(0, |queue| queue.dropped())
}

/// The writer of one event's line.
struct Lines(Arc<Queue>);

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn log_dropped(lines: u64) {
    warn!(lines, "lines of the log were lost: its reader was too slow, or a write failed");
}

/// Logs a panic. The hook of the standard library would write to standard error itself, and wait
/// for a reader that has stopped reading.
fn log_panic(panic: &PanicHookInfo) {
    let payload = panic.payload();
    let text = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    let message = text.unwrap_or("without a message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = thread::current();
    let backtrace = Backtrace::capture();
    let backtrace = (backtrace.status() == BacktraceStatus::Captured)
        .then(|| tracing::field::display(backtrace));
    error!(message, place, thread = thread.name(), backtrace, "panicked; please report this");
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn no_color_and_a_dumb_terminal_forbid_colors() {
        let is_allowed = |name: &str, value: &str| {
            allows_color(|asked| (asked == name).then(|| OsString::from(value)))
        };
        assert!(is_allowed("NO_COLOR", "") && is_allowed("TERM", "xterm"));
        assert!(!is_allowed("NO_COLOR", "1") && !is_allowed("TERM", "dumb"));
    }

    #[test]
    fn libraries_that_a_server_can_make_log_are_filtered_out() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(FILTER))
            .with_writer(move || Sink(sink.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            warn!(target: "h2::proto::ping_pong", "recv PING ack that we never sent");
            error!(target: "hyper::proto", "from hyper");
            error!(target: "kube_client::client", "from the client");
            warn!(target: "external_endpoints::monitor", "from the daemon");
        });
        let lines = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert!(lines.lines().count() == 1 && lines.contains("from the daemon"), "{lines}");
    }

    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
