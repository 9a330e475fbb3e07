//! The log: one line an event on standard error, for people or as JSON.
//!
//! Whoever reads standard error may stop reading, go away, or be a full disk. None of that may stop the daemon, so every line
//! goes through a bounded queue to a thread that does nothing but write. `tracing-appender` has such a writer, but at the end
//! it prints to standard output, which blocks for ever or panics when both are the same pipe, and it bounds lines, not bytes.

use std::backtrace::{Backtrace, BacktraceStatus};
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

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people; in colour on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// What is logged unless RUST_LOG says otherwise. What the client logs, conditions say in words, and once; what h2 logs, a
/// server that is checked makes it say, thousands of times in one try.
const FILTER: &str = "info,kube=off,kube_client=off,kube_runtime=off,tower=off,hyper=off,h2=off";

/// How long the end of the program waits for the last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The lines of the log that are not written yet, once the log has been started.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

/// Starts the log, and has panics told in it. Later calls change nothing.
pub fn start(format: Format) -> io::Result<()> {
    let queue = Arc::new(Queue::default());
    if QUEUE.set(queue.clone()).is_err() {
        return Ok(());
    }
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let lines = queue.clone();
    // What goes wrong with a line would be printed to standard error, past the queue.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(move || Lines(lines.clone()))
        .with_target(false)
        .log_internal_errors(false);
    // A log that is there already is the one to keep.
    let _ = match format {
        Format::Human => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        Format::Json => builder.json().flatten_event(true).try_init(),
    };
    std::panic::set_hook(Box::new(log_panic));
    let mut stderr = stderr::Stderr::new()?;
    thread::Builder::new()
        .name("log".into())
        .spawn(move || queue.write_to(&mut stderr, log_dropped))?;
    Ok(())
}

/// Writes text for a person to standard error: in its turn among the lines of the log, if there is one. Errors are ignored, as
/// there is no other place to tell of them.
pub fn print(text: &str) {
    match QUEUE.get() {
        Some(queue) => queue.push(text.as_bytes()),
        None => drop(io::stderr().write_all(text.as_bytes())),
    }
}

/// Waits until all lines are written, but not for a reader that has stopped reading.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.wait_until_empty(FLUSH_TIMEOUT);
    }
}

/// How many lines were lost since the start, because there was no room or they could not be written.
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
    warn!(lines, "lines of the log were lost: its reader was too slow, or it could not be written");
}

/// Tells of a panic in the log. The hook of the standard library writes to standard error itself, and would wait for a reader
/// that has stopped reading.
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
    fn libraries_that_a_server_can_make_speak_are_not_logged() {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let sink = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(FILTER))
            .with_writer(move || Sink(sink.clone()))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            warn!(target: "h2::proto::ping_pong", "recv PING ack that we never sent");
            error!(target: "hyper::proto", "of hyper");
            error!(target: "kube_client::client", "of the client");
            warn!(target: "external_endpoints::monitor", "of ours");
        });
        let lines = String::from_utf8(lines.lock().unwrap().clone()).unwrap();
        assert!(lines.lines().count() == 1 && lines.contains("of ours"), "{lines}");
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
