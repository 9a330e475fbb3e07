//! An HTTP/1 answer as it comes in: its head and body are judged, and what is left of a short body
//! is read before the end.
//!
//! The rest is read because a server that is cut off while it writes may log an error, as Patroni
//! does with a traceback. By then the verdict is fixed: no malformed rest, no reset and no deadline
//! changes it.

use hyper::{Method, StatusCode};

use super::body::{Body, Piece};
use super::expectation::{Search, Wanted};
use super::head::{Flaw, HeadReader};
use crate::probe::phase::{Phase, Step};

/// How much of a body is read after the verdict. The connection of a longer one is reset.
const MAX_REST: usize = 16 << 10;

pub(crate) struct Answer {
    stage: Stage,
    /// Fixed, while the rest is read.
    verdict: Option<Step<()>>,
    /// How much has come since then.
    rest: usize,
    /// The first bytes came before the request was sent.
    is_early: bool,
}

enum Stage {
    Head(HeadReader),
    Body(Body),
}

/// The judge of an answer: its status first, then its body, if that must contain a text.
pub(crate) struct Judge<'a> {
    wanted: &'a Wanted,
    search: Option<Search<'a>>,
}

impl Answer {
    pub(crate) fn new() -> Self {
        Self { stage: Stage::Head(HeadReader::default()), verdict: None, rest: 0, is_early: false }
    }

    /// Notes that bytes have come from the server before anything was sent to it.
    pub(crate) fn set_early(&mut self) {
        self.is_early = true;
    }

    /// The verdict, if it is known. More may still come of the answer.
    pub(crate) fn verdict(&self) -> Option<&Step<()>> {
        self.verdict.as_ref()
    }

    /// True if nothing has come yet.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(&self.stage, Stage::Head(head) if head.is_untouched())
    }

    /// The part of the answer that is read now.
    pub(crate) fn phase(&self) -> Phase {
        match self.stage {
            Stage::Head(_) => Phase::Http,
            Stage::Body(_) => Phase::Body,
        }
    }

    /// Takes the next bytes. Returns the verdict once there is nothing more to read.
    pub(crate) fn feed(
        &mut self,
        mut data: &[u8],
        method: &Method,
        judge: &mut Judge<'_>,
    ) -> Option<Step<()>> {
        let decided_before = self.verdict.is_some();
        let all = data.len();
        loop {
            let item = match self.next(&mut data, method) {
                Ok(Some(item)) => item,
                Ok(None) => break,
                Err(flaw) => return Some(self.verdict.take().unwrap_or(Err(flaw))),
            };
            if self.verdict.is_none() {
                self.verdict = judge.item(&item);
                self.rest = data.len();
            }
            if matches!(item, Item::End) {
                return self.verdict.take();
            }
        }
        if decided_before {
            self.rest += all;
        }
        // A body that is known to be long is not begun with.
        let long = |body: &Body| body.remaining() > MAX_REST.saturating_sub(self.rest) as u64;
        match &self.stage {
            Stage::Body(body) if self.rest >= MAX_REST || long(body) => self.verdict.take(),
            _ => None,
        }
    }

    /// The verdict when the server closes the connection.
    pub(crate) fn close(&mut self, judge: &mut Judge<'_>) -> Step<()> {
        let ended = matches!(&self.stage, Stage::Body(body) if body.may_end());
        match self.verdict.take() {
            Some(verdict) => verdict,
            None if ended => judge.end(),
            None => Err(Phase::Http.cut_off("closed")),
        }
    }

    fn next<'a>(&mut self, data: &mut &'a [u8], method: &Method) -> Step<Option<Item<'a>>> {
        match &mut self.stage {
            Stage::Head(reader) => {
                let head = reader.read(data, method).map_err(|flaw| self.not_http(flaw))?;
                Ok(head.map(|head| {
                    self.stage = Stage::Body(head.body);
                    Item::Head(head.status)
                }))
            }
            Stage::Body(body) => {
                let piece = body
                    .read(data)
                    .map_err(|what| Phase::Http.fail(format_args!("not HTTP: {what}")))?;
                Ok(piece.map(|piece| match piece {
                    Piece::Data(data) => Item::Data(data),
                    Piece::End => Item::End,
                }))
            }
        }
    }

    fn not_http(&self, flaw: Flaw) -> crate::health::Verdict {
        match flaw {
            Flaw::TooLarge => Phase::Http.fail("the head of the answer is over 64 KiB"),
            Flaw::TooLargeWithInterim => Phase::Http
                .fail("the head of the answer is over 64 KiB, interim answers (1xx) included"),
            Flaw::TooManyHeaders => Phase::Http.fail("the head of the answer has over 100 headers"),
            Flaw::NotHttp(_) if self.is_early => {
                Phase::Http.fail("not HTTP: the server spoke first")
            }
            Flaw::NotHttp(what) => Phase::Http.fail(format_args!("not HTTP: {what}")),
        }
    }
}

/// One part of an answer.
enum Item<'a> {
    Head(StatusCode),
    Data(&'a [u8]),
    End,
}

impl<'a> Judge<'a> {
    pub(crate) fn new(wanted: &'a Wanted) -> Self {
        Self { wanted, search: None }
    }

    /// The verdict, once it is known.
    fn item(&mut self, item: &Item<'_>) -> Option<Step<()>> {
        let more = match (item, &mut self.search) {
            (Item::Head(status), _) => self.wanted.judge(*status).map(|search| {
                self.search = search;
                self.search.is_some()
            }),
            (Item::Data(data), Some(search)) => search.feed(data).map(|found| !found),
            (Item::Data(_), None) => Ok(false),
            (Item::End, _) => return Some(self.end()),
        };
        match more {
            Ok(true) => None,
            Ok(false) => Some(Ok(())),
            Err(verdict) => Some(Err(verdict)),
        }
    }

    /// The verdict when the body ends before it contained the text.
    fn end(&mut self) -> Step<()> {
        self.search.take().map_or(Ok(()), Search::ended)
    }
}

#[cfg(test)]
mod tests;
