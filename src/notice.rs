//! What happened that people should hear of: told by whoever sees it, and never waited for.
//!
//! Telling is a push into a short line. When nobody takes from it fast enough, what comes is dropped and counted: news are
//! worth less than checks and writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use tokio::sync::mpsc;

use crate::config::DatabaseId;

/// How much may be in line.
const CAPACITY: usize = 1024;

/// What news are about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Regarding {
    Database(DatabaseId),
    /// The daemon as a whole.
    Daemon,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    pub regarding: Regarding,
    /// One word for machines, in PascalCase: `TargetDown`.
    pub reason: String,
    /// What was being done, in the same manner: `Check`.
    pub action: &'static str,
    /// Whether a person should look.
    pub warning: bool,
    /// What of it, such as the address; with the reason it says which news are the same thing again.
    pub dedup_key: String,
    /// The words for people. They hold no secret: whoever tells has seen to that.
    pub note: String,
    pub at: Instant,
}

/// Where news are told.
#[derive(Debug, Clone, Default)]
pub struct Recorder(Option<Line>);

#[derive(Debug, Clone)]
struct Line {
    sender: mpsc::Sender<Notice>,
    dropped: Arc<AtomicU64>,
}

/// Where news are heard.
#[derive(Debug)]
pub(crate) struct Receiver {
    pub notices: mpsc::Receiver<Notice>,
    /// How many found no room.
    pub dropped: Arc<AtomicU64>,
}

/// A line from those who tell to the one who listens. A default [`Teller`] has nobody who listens.
pub(crate) fn channel() -> (Recorder, Receiver) {
    let (sender, news) = mpsc::channel(CAPACITY);
    let dropped = Arc::new(AtomicU64::new(0));
    (Recorder(Some(Line { sender, dropped: dropped.clone() })), Receiver { notices: news, dropped })
}

impl Recorder {
    /// Tells it, if someone listens and there is room.
    pub fn record(&self, news: impl FnOnce() -> Notice) {
        let Some(Line { sender, dropped }) = &self.0 else { return };
        if sender.try_send(news()).is_err() {
            dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn news() -> Notice {
        Notice {
            regarding: Regarding::Database(DatabaseId {
                namespace: "prod".into(),
                service: "mysql".into(),
            }),
            reason: "TargetDown".into(),
            action: "Check",
            warning: true,
            dedup_key: String::new(),
            note: String::new(),
            at: clock::now(),
        }
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_nobody_waits() {
        let (teller, mut listener) = channel();
        (0..CAPACITY + 3).for_each(|_| teller.record(news));
        assert_eq!(listener.dropped.load(Ordering::Relaxed), 3);
        assert!(listener.notices.try_recv().is_ok());
        teller.record(news);
        assert_eq!(listener.dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn where_nobody_listens_nothing_is_made() {
        Recorder::default().record(|| panic!("made"));
    }
}
