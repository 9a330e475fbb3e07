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
const ROOM: usize = 1024;

/// What news are about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum About {
    Database(DatabaseId),
    /// The daemon as a whole.
    Daemon,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct News {
    pub about: About,
    /// One word for machines, in PascalCase: `TargetDown`.
    pub reason: String,
    /// What was being done, in the same manner: `Check`.
    pub action: &'static str,
    /// Whether a person should look.
    pub warning: bool,
    /// What of it, such as the address; with the reason it says which news are the same thing again.
    pub subject: String,
    /// The words for people. They hold no secret: whoever tells has seen to that.
    pub note: String,
    pub at: Instant,
}

/// Where news are told.
#[derive(Debug, Clone, Default)]
pub struct Teller(Option<Line>);

#[derive(Debug, Clone)]
struct Line {
    sender: mpsc::Sender<News>,
    dropped: Arc<AtomicU64>,
}

/// Where news are heard.
#[derive(Debug)]
pub(crate) struct Listener {
    pub news: mpsc::Receiver<News>,
    /// How many found no room.
    pub dropped: Arc<AtomicU64>,
}

/// A line from those who tell to the one who listens. A default [`Teller`] has nobody who listens.
pub(crate) fn line() -> (Teller, Listener) {
    let (sender, news) = mpsc::channel(ROOM);
    let dropped = Arc::new(AtomicU64::new(0));
    (Teller(Some(Line { sender, dropped: dropped.clone() })), Listener { news, dropped })
}

impl Teller {
    /// Tells it, if someone listens and there is room.
    pub fn tell(&self, news: impl FnOnce() -> News) {
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

    fn news() -> News {
        News {
            about: About::Database(DatabaseId {
                namespace: "prod".into(),
                service: "mysql".into(),
            }),
            reason: "TargetDown".into(),
            action: "Check",
            warning: true,
            subject: String::new(),
            note: String::new(),
            at: clock::now(),
        }
    }

    #[test]
    fn what_finds_no_room_is_dropped_and_counted_and_nobody_waits() {
        let (teller, mut listener) = line();
        (0..ROOM + 3).for_each(|_| teller.tell(news));
        assert_eq!(listener.dropped.load(Ordering::Relaxed), 3);
        assert!(listener.news.try_recv().is_ok());
        teller.tell(news);
        assert_eq!(listener.dropped.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn where_nobody_listens_nothing_is_made() {
        Teller::default().tell(|| panic!("made"));
    }
}
