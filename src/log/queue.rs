//! A bounded queue of lines, and the loop that writes them. Nobody who adds a line ever waits.

use std::collections::VecDeque;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How much may wait: a line for each of ten thousand targets that fail together, and little of the memory that a Pod has.
const MAX_BYTES: usize = 4 << 20;

/// What a line takes beside its text.
const LINE_OVERHEAD: usize = 64;

/// Lines that wait to be written.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    /// Notified when a line has come.
    filled: Condvar,
    /// Notified when all lines have been written.
    emptied: Condvar,
    dropped: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    lines: VecDeque<Box<[u8]>>,
    bytes: usize,
    /// Whether a line that is no longer among these is being written.
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
    /// Adds a line, or counts it as dropped if there is no room for it.
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

    /// How many lines were dropped.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until all lines have been written, for at most this long.
    pub(super) fn wait_until_empty(&self, timeout: Duration) {
        let wait =
            self.emptied.wait_timeout_while(self.lock(), timeout, |waiting| !waiting.is_done());
        drop(wait.unwrap_or_else(PoisonError::into_inner));
    }

    /// Writes all lines that come, without end. Once lines can be written again after some were dropped, says how many to
    /// `log_dropped`.
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
            // Only where there is room, and after a success: this becomes a line of the queue itself.
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

    /// A panic while it is held leaves nothing half done.
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

    /// An output that hands over each line, and waits until it is taken; a refusal is an error of the write.
    struct Reader {
        lines: mpsc::SyncSender<Vec<u8>>,
        answers: mpsc::Receiver<io::Result<()>>,
    }

    impl Write for Reader {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.lines.send(line.to_vec()).map_err(io::Error::other)?;
            self.answers.recv().map_err(io::Error::other)??;
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Test {
        queue: Arc<Queue>,
        lines: mpsc::Receiver<Vec<u8>>,
        answers: mpsc::SyncSender<io::Result<()>>,
    }

    impl Test {
        fn new() -> Self {
            let queue = Arc::new(Queue::default());
            let (lines, lines_out) = mpsc::sync_channel(0);
            let (answers, answers_out) = mpsc::sync_channel(0);
            let own = queue.clone();
            thread::spawn(move || {
                let log_dropped = |lines| own.push(format!("lost {lines}").as_bytes());
                own.write_to(&mut Reader { lines, answers: answers_out }, log_dropped);
            });
            Self { queue, lines: lines_out, answers }
        }

        fn read(&self, answer: io::Result<()>) -> String {
            let line = self.lines.recv_timeout(LONG).expect("a line");
            self.answers.send(answer).expect("the writer waits");
            String::from_utf8(line).expect("text")
        }
    }

    #[test]
    fn lines_come_in_their_order_and_the_end_waits_for_them() {
        let test = Test::new();
        for line in ["a", "b", "c"] {
            test.queue.push(line.as_bytes());
        }
        let queue = test.queue.clone();
        let end = thread::spawn(move || queue.wait_until_empty(LONG));
        assert_eq!([test.read(Ok(())), test.read(Ok(())), test.read(Ok(()))], ["a", "b", "c"]);
        end.join().expect("no panic");
        assert_eq!(test.queue.dropped(), 0);
    }

    #[test]
    fn a_stalled_reader_costs_lines_and_nobody_waits() {
        let test = Test::new();
        let line = [b'a'; 1000];
        // Nothing is read meanwhile.
        (0..20_000).for_each(|_| test.queue.push(&line));
        let held = test.queue.lock();
        assert!(held.bytes <= MAX_BYTES && held.bytes > MAX_BYTES - 2000, "{}", held.bytes);
        drop(held);
        let dropped = test.queue.dropped();
        assert!(dropped > 15_000, "{dropped}");
        test.queue.wait_until_empty(Duration::from_millis(1));
        // Once it reads again, it gets all that was kept, and then how many are missing.
        let last = loop {
            let line = test.read(Ok(()));
            if line.len() != 1000 {
                break line;
            }
        };
        assert_eq!(last, format!("lost {dropped}"));
        test.queue.wait_until_empty(LONG);
    }

    #[test]
    fn a_line_that_can_not_be_written_counts_as_dropped() {
        let test = Test::new();
        test.queue.push(b"a");
        test.queue.push(b"b");
        test.read(Err(io::ErrorKind::StorageFull.into()));
        test.read(Err(io::ErrorKind::BrokenPipe.into()));
        test.queue.wait_until_empty(LONG);
        assert_eq!(test.queue.dropped(), 2);
        test.queue.push(b"c");
        assert_eq!([test.read(Ok(())), test.read(Ok(()))], ["c", "lost 2"]);
    }

    #[test]
    fn a_line_larger_than_the_queue_is_dropped() {
        let test = Test::new();
        test.queue.push(&vec![b'a'; MAX_BYTES]);
        assert_eq!(test.queue.dropped(), 1);
        test.queue.wait_until_empty(LONG);
    }
}
