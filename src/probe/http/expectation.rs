//! The answers that an HTTP check accepts, and the limits on their size.

use std::ops::RangeInclusive;

use hyper::StatusCode;

use crate::config::HttpCheck;
use crate::probe::phase::{Phase, ProbeResult};
use crate::probe::text::{StreamSearcher, quote};

/// The largest head of an answer.
pub(crate) const MAX_HEAD: usize = 64 << 10;
/// The part of a body that is searched for the expected text.
pub(crate) const MAX_BODY: usize = 1 << 20;

/// The answers that pass.
pub(crate) struct Expectation {
    statuses: Vec<RangeInclusive<u16>>,
    body: Option<String>,
}

impl Expectation {
    pub(crate) fn new(check: &HttpCheck) -> Self {
        Self { statuses: check.expected_statuses.clone(), body: check.expected_body.clone() }
    }

    /// Checks the status. Returns the matcher of the body if the body must contain a text.
    pub(crate) fn check_status(&self, status: StatusCode) -> ProbeResult<Option<BodyMatcher<'_>>> {
        let status = status.as_u16();
        if !self.statuses.iter().any(|expected| expected.contains(&status)) {
            return Err(Phase::Http.fail(format_args!("status {status}")));
        }
        Ok(self.body.as_deref().map(|text| BodyMatcher {
            text,
            searcher: StreamSearcher::new(text.as_bytes()),
            searched: 0,
        }))
    }
}

/// The search of a body for the expected text.
pub(crate) struct BodyMatcher<'a> {
    text: &'a str,
    searcher: StreamSearcher<'a>,
    searched: usize,
}

impl BodyMatcher<'_> {
    /// Searches the next bytes. Returns true once the text has been found.
    pub(crate) fn feed(&mut self, data: &[u8]) -> ProbeResult<bool> {
        let rest = &data[..data.len().min(MAX_BODY - self.searched)];
        self.searched += rest.len();
        if self.searcher.feed(rest) {
            return Ok(true);
        }
        if self.searched == MAX_BODY {
            let text = quote(self.text, 60);
            return Err(Phase::Http
                .fail(format_args!("the first 1 MiB of the body does not contain {text}")));
        }
        Ok(false)
    }

    /// Returns the failure when the body ends before the text was found.
    pub(crate) fn not_found(self) -> ProbeResult<()> {
        Err(Phase::Http.fail(format_args!("the body does not contain {}", quote(self.text, 60))))
    }
}
