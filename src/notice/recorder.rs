//! The recorder of notices, as client-go's EventRecorder, and the channel behind it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::mpsc;

use super::{LogLine, Notice};

/// The number of notices that the channel can hold.
const CAPACITY: usize = 1024;

/// Renders notices. The name of each method says as what.
///
/// The default recorder has no receiver: it writes log lines, and no Events.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Option<Sender>);

#[derive(Debug, Clone)]
struct Sender {
    notices: mpsc::Sender<Notice>,
    dropped: Arc<AtomicU64>,
}

/// The end of the channel from which Events are made.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub notices: mpsc::Receiver<Notice>,
    /// The number of notices that found the channel full.
    pub dropped: Arc<AtomicU64>,
}

/// Creates a channel from recorders to one receiver.
pub(crate) fn channel() -> (Recorder, Receiver) {
    let (sender, notices) = mpsc::channel(CAPACITY);
    let dropped = Arc::new(AtomicU64::new(0));
    (
        Recorder(Some(Sender { notices: sender, dropped: dropped.clone() })),
        Receiver { notices, dropped },
    )
}

impl Recorder {
    /// Writes a log line and emits an Event.
    pub(crate) fn log_and_event(&self, notice: Notice, line: &LogLine<'_>) {
        line.write(&notice);
        self.event(|| notice);
    }

    /// Writes a log line only: the happening is of no interest to people who read Events.
    pub(crate) fn log(&self, notice: &Notice, line: &LogLine<'_>) {
        line.write(notice);
    }

    /// Emits an Event only: the log has the happening in other words, or not for each object.
    ///
    /// The notice is dropped when the channel is full. Nothing is created without a receiver.
    pub(crate) fn event(&self, notice: impl FnOnce() -> Notice) {
        let Some(Sender { notices, dropped }) = &self.0 else { return };
        if notices.try_send(notice()).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::notice::{Reason, Regarding};

    fn notice() -> Notice {
        Notice::new(Regarding::Daemon, Reason::ConfigBad, "", clock::now())
    }

    #[test]
    fn a_notice_without_room_is_dropped_counted_and_not_waited_for() {
        let (recorder, mut receiver) = channel();
        (0..CAPACITY + 3).for_each(|_| recorder.event(notice));
        assert_eq!(receiver.dropped.load(Ordering::Relaxed), 3);
        assert!(receiver.notices.try_recv().is_ok());
        recorder.event(notice);
        assert_eq!(receiver.dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn without_a_receiver_no_notice_is_created() {
        Recorder::default().event(|| panic!("created"));
    }
}
