//! The log line of a notice: a message and the fields that machines read.

use std::fmt::Display;
use std::net::IpAddr;

use tracing::field::display;
use tracing::{error, info, warn};

use super::{Notice, Reason, Regarding, Severity};
use crate::config::DatabaseId;
use crate::health::State;
use crate::plan::Members;

/// A log line. Fields that are none are left out; namespace and service come from the notice.
#[derive(Default)]
pub(crate) struct LogLine<'a> {
    /// The message; none for the note of the notice.
    pub message: Option<&'a str>,
    pub condition: Option<Reason>,
    pub address: Option<IpAddr>,
    /// The state that a target had before.
    pub from: Option<State>,
    /// The name of an EndpointSlice.
    pub slice: Option<&'a str>,
    pub members: Option<&'a Members>,
    /// The members that were added and removed.
    pub changes: Option<&'a str>,
    /// The number of targets that fail.
    pub failed: Option<usize>,
    /// The number of databases that have a target that fails.
    pub failed_in: Option<usize>,
    /// The number of targets that are published.
    pub published: Option<usize>,
    /// The field manager that made an outside change.
    pub manager: Option<&'a str>,
    pub reason: Option<&'a str>,
}

impl<'a> LogLine<'a> {
    /// Creates a line with this message and no fields.
    pub(crate) fn new(message: &'a str) -> Self {
        Self { message: Some(message), ..Self::default() }
    }

    /// Writes the line to the log.
    pub(super) fn write(&self, notice: &Notice) {
        let message = self.message.unwrap_or(&notice.note);
        let (namespace, service) = match &notice.regarding {
            Regarding::Database(DatabaseId { namespace, service }) => {
                (Some(display(namespace)), Some(display(service)))
            }
            Regarding::Daemon => (None, None),
        };
        macro_rules! write {
            ($level:ident) => {
                $level!(
                    namespace,
                    service,
                    condition = shown(self.condition),
                    address = shown(self.address),
                    from = shown(self.from),
                    slice = self.slice,
                    members = shown(self.members),
                    changes = self.changes,
                    manager = self.manager,
                    failed = self.failed,
                    failed_in = self.failed_in,
                    published = self.published,
                    reason = self.reason,
                    "{message}"
                )
            };
        }
        match notice.severity {
            Severity::Info | Severity::Advice => write!(info),
            Severity::Warning => write!(warn),
            Severity::Error => write!(error),
        }
    }
}

fn shown<T: Display>(value: Option<T>) -> Option<tracing::field::DisplayValue<T>> {
    value.map(display)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::{io, mem};

    use super::*;
    use crate::clock;

    /// A log that is read by the test.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().expect("the log").extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(notice: &Notice, line: &LogLine<'_>) -> String {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_target(false)
            .with_ansi(false)
            .without_time()
            .finish();
        tracing::subscriber::with_default(subscriber, || line.write(notice));
        String::from_utf8(mem::take(&mut *log.0.lock().expect("the log"))).expect("UTF-8")
    }

    #[test]
    fn a_line_has_the_fields_that_are_set_and_no_others() {
        let id = DatabaseId { namespace: "prod".into(), service: "mysql".into() };
        let down = Notice::new(Regarding::Database(id), Reason::TargetDown, "note", clock::now());
        let line = LogLine {
            address: Some([10, 0, 0, 1].into()),
            from: Some(State::Up),
            reason: Some("connect: refused"),
            ..LogLine::new("target is down")
        };
        assert_eq!(
            logged(&down, &line).trim(),
            "WARN target is down namespace=prod service=mysql address=10.0.0.1 from=up \
             reason=\"connect: refused\""
        );
    }

    #[test]
    fn the_note_is_the_message_where_there_is_no_other() {
        let frozen = Notice::new(Regarding::Daemon, Reason::Frozen, "frozen", clock::now());
        let line = LogLine { failed: Some(3), ..LogLine::default() };
        assert_eq!(logged(&frozen, &line).trim(), "WARN frozen failed=3");
        let timed_out = frozen.with_severity(Severity::Info);
        assert_eq!(logged(&timed_out, &LogLine::default()).trim(), "INFO frozen");
    }
}
