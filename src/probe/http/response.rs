//! An HTTP/1 answer as it arrives: it is checked, and the rest of a short body is read before the
//! connection closes.
//!
//! A server whose connection ends while it writes may log an error, as Patroni does with a
//! traceback. The verdict is fixed by then: no malformed rest, reset or deadline changes it.

use hyper::{Method, StatusCode};

use super::body::{BodyPart, BodyReader};
use super::expectation::{BodyMatcher, Expectation};
use super::head::{HeadError, HeadReader};
use crate::probe::phase::{Phase, ProbeResult};

/// The most bytes of a body that are read after the verdict. The connection of a longer one is
/// reset.
const MAX_REST: usize = 16 << 10;

pub(crate) struct ResponseReader {
    stage: Stage,
    /// The verdict, while the rest is read.
    verdict: Option<ProbeResult<()>>,
    /// The number of bytes since the verdict.
    rest: usize,
    /// True if the first bytes came before the request was sent.
    is_early: bool,
}

enum Stage {
    Head(HeadReader),
    BodyReader(BodyReader),
}

/// The check of an answer: of its status, and of its body if that must contain a text.
pub(crate) struct ResponseChecker<'a> {
    expectation: &'a Expectation,
    matcher: Option<BodyMatcher<'a>>,
}

impl ResponseReader {
    pub(crate) fn new() -> Self {
        Self { stage: Stage::Head(HeadReader::default()), verdict: None, rest: 0, is_early: false }
    }

    /// Records that the server has sent bytes before the request.
    pub(crate) fn set_early(&mut self) {
        self.is_early = true;
    }

    /// Returns the verdict if it is known. More of the answer may still come.
    pub(crate) fn verdict(&self) -> Option<&ProbeResult<()>> {
        self.verdict.as_ref()
    }

    /// Returns true if nothing has come yet.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.stage, Stage::Head(head) if head.is_untouched())
    }

    /// Returns the phase for the part of the answer that is read now.
    pub(crate) fn phase(&self) -> Phase {
        match self.stage {
            Stage::Head(_) => Phase::Http,
            Stage::BodyReader(_) => Phase::Body,
        }
    }

    /// Reads the next bytes. Returns the verdict once there is nothing more to read.
    pub(crate) fn feed(
        &mut self,
        mut data: &[u8],
        method: &Method,
        checker: &mut ResponseChecker<'_>,
    ) -> Option<ProbeResult<()>> {
        let decided_before = self.verdict.is_some();
        let all = data.len();
        loop {
            let item = match self.next(&mut data, method) {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(flaw) => return Some(self.verdict.take().unwrap_or(Err(flaw))),
            };
            if self.verdict.is_none() {
                self.verdict = checker.check(&item);
                self.rest = data.len();
            }
            if matches!(item, ResponsePart::End) {
                return self.verdict.take();
            }
        }
        if decided_before {
            self.rest += all;
        }
        // A body that is announced as long is not read.
        let long = |body: &BodyReader| body.remaining() > MAX_REST.saturating_sub(self.rest) as u64;
        match &self.stage {
            Stage::BodyReader(body) if self.rest >= MAX_REST || long(body) => self.verdict.take(),
            _ => None,
        }
    }

    /// Returns the verdict when the server closes the connection.
    pub(crate) fn close(&mut self, checker: &mut ResponseChecker<'_>) -> ProbeResult<()> {
        let may_end = matches!(&self.stage, Stage::BodyReader(body) if body.may_end());
        match self.verdict.take() {
            Some(verdict) => verdict,
            None if may_end => checker.end(),
            None => Err(Phase::Http.connection_ended("closed")),
        }
    }

    fn next<'a>(
        &mut self,
        data: &mut &'a [u8],
        method: &Method,
    ) -> ProbeResult<Option<ResponsePart<'a>>> {
        match &mut self.stage {
            Stage::Head(reader) => {
                let head = reader.read(data, method).map_err(|flaw| self.not_http(flaw))?;
                Ok(head.map(|head| {
                    self.stage = Stage::BodyReader(head.body);
                    ResponsePart::Head(head.status)
                }))
            }
            Stage::BodyReader(body) => {
                let piece = body
                    .read(data)
                    .map_err(|what| Phase::Http.fail(format_args!("not HTTP: {what}")))?;
                Ok(piece.map(|piece| match piece {
                    BodyPart::Data(data) => ResponsePart::Data(data),
                    BodyPart::End => ResponsePart::End,
                }))
            }
        }
    }

    fn not_http(&self, flaw: HeadError) -> crate::health::Verdict {
        match flaw {
            HeadError::TooLarge => Phase::Http.fail("the head of the answer is over 64 KiB"),
            HeadError::TooLargeWithInterim => Phase::Http
                .fail("the head of the answer is over 64 KiB, interim answers (1xx) included"),
            HeadError::TooManyHeaders => {
                Phase::Http.fail("the head of the answer has over 100 headers")
            }
            HeadError::Malformed(_) if self.is_early => {
                Phase::Http.fail("not HTTP: the server spoke first")
            }
            HeadError::Malformed(what) => Phase::Http.fail(format_args!("not HTTP: {what}")),
        }
    }
}

/// A part of an answer.
enum ResponsePart<'a> {
    Head(StatusCode),
    Data(&'a [u8]),
    End,
}

impl<'a> ResponseChecker<'a> {
    pub(crate) fn new(expectation: &'a Expectation) -> Self {
        Self { expectation, matcher: None }
    }

    /// Returns the verdict once it is known.
    fn check(&mut self, item: &ResponsePart<'_>) -> Option<ProbeResult<()>> {
        let more = match (item, &mut self.matcher) {
            (ResponsePart::Head(status), _) => {
                self.expectation.check_status(*status).map(|matcher| {
                    self.matcher = matcher;
                    self.matcher.is_some()
                })
            }
            (ResponsePart::Data(data), Some(matcher)) => matcher.feed(data).map(|found| !found),
            (ResponsePart::Data(_), None) => Ok(false),
            (ResponsePart::End, _) => return Some(self.end()),
        };
        match more {
            Ok(true) => None,
            Ok(false) => Some(Ok(())),
            Err(verdict) => Some(Err(verdict)),
        }
    }

    /// Returns the verdict when the body ends before the text was found.
    fn end(&mut self) -> ProbeResult<()> {
        self.matcher.take().map_or(Ok(()), BodyMatcher::not_found)
    }
}

#[cfg(test)]
mod tests;
