//! A bounded queue of lines, and the loop that writes them. Adding a line never waits.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The capacity in bytes: a line for each of ten thousand targets that fail together, which is
/// little of a Pod's memory.
const MAX_BYTES: usize = 4 << 20;

/// The memory of a line beside its text, in bytes.
const LINE_OVERHEAD: usize = 64;

/// Lines that wait to be written.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Notified when a line has been added.
    filled: Condvar,
    /// Notified when all lines have been written.
    emptied: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// True while a line that was taken from `lines` is being written.
    is_writing: bool,
}

impl Waiting {
    fn is_done(&self) -> bool {
        self.lines.is_empty() && !self.is_writing
    }
}

fn size(line: &[u8]) -> usize {
    line.len() + LINE_OVERHEAD
}

impl Queue {
    /// Adds a line, or counts it as dropped if the queue is full.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.lock();
        if waiting.bytes + size(line) > MAX_BYTES {
            drop(waiting);
            self.count_dropped();
            return;
        }
        waiting.bytes += size(line);
        waiting.lines.push_back(line.into());
        drop(waiting);
        self.filled.notify_one();
    }

    /// Returns the number of dropped lines.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines have been written, or for the timeout.
    pub(super) fn wait_until_empty(&self, timeout: Duration) {
        let wait =
            self.emptied.wait_timeout_while(self.lock(), timeout, |waiting| !waiting.is_done());
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }

    /// Writes all lines, without end. After lines were dropped, the next success calls
    /// `log_dropped` with their number.
    pub(super) fn write_to(&self, output: &mut impl Write, log_dropped: impl Fn(u64)) {
        let mut reported = 0;
        loop {
            let line = self.next();
            let written = output.write_all(&line).is_ok();
            drop(line);
            if !written {
                self.count_dropped();
            }
            let dropped = self.dropped();
            // The report becomes a line of this queue, so it waits until the queue is empty.
            if written && dropped > reported && self.lock().lines.is_empty() {
                log_dropped(dropped - reported);
                reported = dropped;
            }
        }
    }

    fn next(&self) -> Box<[u8]> {
        let mut waiting = self.lock();
        waiting.is_writing = false;
        loop {
            if let Some(line) = waiting.lines.pop_front() {
                waiting.bytes -= size(&line);
                waiting.is_writing = true;
                return line;
            }
            self.emptied.notify_all();
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Locks the lines. A panic under the lock leaves them consistent, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, mpsc};
    use std::thread;

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    /// An output that hands over each line and waits for the result of its write.
    struct Reader {
        lines: mpsc::SyncSender<Vec<u8>>,
        results: mpsc::Receiver<io::Result<()>>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.lines.send(line.to_vec()).map_err(io::Error::other)?;
            self.results.recv().map_err(io::Error::other)??;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Fixture {
        queue: Arc<Queue>,
        lines: mpsc::Receiver<Vec<u8>>,
        results: mpsc::SyncSender<io::Result<()>>,
    }

    impl Fixture {
        fn new() -> Self {
            let queue = Arc::new(Queue::default());
            let (lines, lines_out) = mpsc::sync_channel(0);
            let (results, results_out) = mpsc::sync_channel(0);
            let own = queue.clone();
            thread::spawn(move || {
                let log_dropped = |lines| own.push(format!("lost {lines}").as_bytes());
                own.write_to(&mut Reader { lines, results: results_out }, log_dropped);
            });
            Self { queue, lines: lines_out, results }
        }

        fn read(&self, result: io::Result<()>) -> String {
            let line = self.lines.recv_timeout(LONG).expect("a line");
            self.results.send(result).expect("the writer waits");
            String::from_utf8(line).expect("text")
        }
    }

    #[test]
    fn lines_are_written_in_order_before_the_end() {
        let fixture = Fixture::new();
        for line in ["a", "b", "c"] {
            fixture.queue.push(line.as_bytes());
        }
        let queue = fixture.queue.clone();
        let end = thread::spawn(move || queue.wait_until_empty(LONG));
        assert_eq!(
            [fixture.read(Ok(())), fixture.read(Ok(())), fixture.read(Ok(()))],
            ["a", "b", "c"]
        );
        end.join().expect("no panic");
        assert_eq!(fixture.queue.dropped(), 0);
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_delays_nothing() {
        let fixture = Fixture::new();
        let line = [b'a'; 1000];
        // Nothing is read yet.
        (0..20_000).for_each(|_| fixture.queue.push(&line));
        let bytes = fixture.queue.lock().bytes;
        assert!(bytes <= MAX_BYTES && bytes > MAX_BYTES - 2000, "{bytes}");
        let dropped = fixture.queue.dropped();
        assert!(dropped > 15_000, "{dropped}");
        fixture.queue.wait_until_empty(Duration::from_millis(1));
        // A reader that resumes gets all lines of the queue, and then the number of lost ones.
        let last = loop {
            let line = fixture.read(Ok(()));
            if line.len() != 1000 {
                break line;
            }
        };
        assert_eq!(last, format!("lost {dropped}"));
        fixture.queue.wait_until_empty(LONG);
    }

    #[test]
    fn a_line_whose_write_fails_counts_as_dropped() {
        let fixture = Fixture::new();
        fixture.queue.push(b"a");
        fixture.queue.push(b"b");
        fixture.read(Err(io::ErrorKind::StorageFull.into()));
        fixture.read(Err(io::ErrorKind::BrokenPipe.into()));
        fixture.queue.wait_until_empty(LONG);
        assert_eq!(fixture.queue.dropped(), 2);
        fixture.queue.push(b"c");
        assert_eq!([fixture.read(Ok(())), fixture.read(Ok(()))], ["c", "lost 2"]);
    }

    #[test]
    fn a_line_larger_than_the_queue_is_dropped() {
        let fixture = Fixture::new();
        fixture.queue.push(&vec![b'a'; MAX_BYTES]);
        assert_eq!(fixture.queue.dropped(), 1);
        fixture.queue.wait_until_empty(LONG);
    }
}
