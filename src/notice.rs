//! Notices: happenings that people should learn of, each recorded once and shown as a log line, as
//! an Event, or as both.
//!
//! A [`Reason`] fixes the severity and the action of a happening, and the [`Recorder`] renders it.
//! Recording never waits: it pushes into a channel of fixed capacity. A notice that finds the
//! channel full is dropped and counted, because notices are worth less than checks and writes.

use std::fmt;
use std::time::Instant;

use crate::config::DatabaseId;
pub(crate) use log_line::LogLine;
pub use reason::{Reason, Topic};
pub use recorder::Recorder;
pub(crate) use recorder::{Receiver, channel};

mod log_line;
mod reason;
mod recorder;

/// The object that a notice is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Regarding {
    /// The Service of a database.
    Database(DatabaseId),
    /// The daemon as a whole.
    Daemon,
}

/// The type of an Event, as Kubernetes has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// Nothing to act on.
    Normal,
    /// A person should look at it.
    Warning,
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The severity of a happening, from which follow the level of its log line and the type of its
/// Event.
///
/// | severity | log level | Event type |
/// | ---      | ---       | ---        |
/// | Info     | info      | Normal     |
/// | Advice   | info      | Warning    |
/// | Warning  | warn      | Warning    |
/// | Error    | error     | Warning    |
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// A change that needs no action.
    Info,
    /// A state that a person should know of, and that the daemon handles.
    Advice,
    /// A problem.
    Warning,
    /// A problem that needs action now.
    Error,
}

impl Severity {
    /// Returns the type of the Event.
    pub fn event_type(self) -> EventType {
        match self {
            Severity::Info => EventType::Normal,
            Severity::Advice | Severity::Warning | Severity::Error => EventType::Warning,
        }
    }
}

/// One happening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// The object that it is about.
    pub regarding: Regarding,
    /// The reason, which fixes the action.
    pub reason: Reason,
    /// The severity, usually that of the reason.
    pub severity: Severity,
    /// Tells happenings of the same object and reason apart, such as by the address. Notices that
    /// agree in all three are repetitions, and share an Event.
    pub dedup_key: String,
    /// The text for people. It must hold no secret.
    pub note: String,
    /// The time at which it happened.
    pub at: Instant,
}

impl Notice {
    /// Creates a notice with the severity of its reason and without a key.
    pub fn new(regarding: Regarding, reason: Reason, note: impl Into<String>, at: Instant) -> Self {
        let (severity, dedup_key) = (reason.severity(), String::new());
        Self { regarding, reason, severity, dedup_key, note: note.into(), at }
    }

    /// Sets the key that tells it from others of the same object and reason.
    pub fn with_dedup_key(self, dedup_key: impl Into<String>) -> Self {
        Self { dedup_key: dedup_key.into(), ..self }
    }

    /// Sets another severity than that of the reason.
    pub fn with_severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }
}
