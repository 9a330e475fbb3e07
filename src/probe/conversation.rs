//! The conversation of one probe with a server in the server's own protocol, without any I/O.
//!
//! ```text
//!  Protocol --start--> Conversation     one file for each protocol
//!                          ^
//!                       Exchange        buffers and limits, the same for all protocols
//!                       ^      ^
//!           fast::reactor      native   sockets: plain in the reactor, over TLS in a task
//! ```

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::BoxFuture;

use super::credentials::Credentials;
use super::observation::Observed;
use super::phase::{Phase, ProbeResult};
use crate::health::Verdict;

/// The most bytes that are read in one probe, unless its conversation takes more.
pub(crate) const MAX_RECEIVED: usize = 64 << 10;

/// The room for output from the beginning, so that a first message is one allocation.
const OUTPUT_CAPACITY: usize = 128;

/// The size of the largest message that is read.
pub(crate) const MAX_MESSAGE: usize = 16 << 10;

/// The way in which a probe ends its connection. It decides on what the server logs and counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A reset alone.
    Reset,
    /// A FIN, and a reset once the server's kernel has acknowledged it, for a server that logs a
    /// reset alone and waits for the client's close.
    FinReset,
    /// A last message and then a reset, for a server that would log anything else.
    Farewell(&'static [u8]),
}

/// The kind of connection that a conversation has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Plain,
    Tls,
}

/// A computation that takes too long for the thread of the monitor. It keeps its result where the
/// conversation finds it.
pub(crate) type Work = Box<dyn FnOnce() + Send>;

/// The protocol of one target, which starts its conversations.
pub(crate) trait Protocol: Send + Sync {
    /// Returns the user and password that a conversation needs, if the protocol has any.
    fn credentials(&self) -> Option<&Credentials> {
        None
    }

    /// Returns whether all values that a conversation needs are at hand and fresh. If not, the
    /// caller reads them: others may use what is at hand meanwhile.
    fn is_ready(&self, now: Instant) -> bool {
        self.credentials().is_none_or(|credentials| credentials.are_ready(now))
    }

    /// Returns whether a probe has files to read or long computations to do, so that it is a task.
    fn needs_reading(&self) -> bool {
        self.credentials().is_some_and(Credentials::need_reading)
    }

    /// Reads the values that a conversation needs. May read files.
    fn prepare(&self) -> BoxFuture<'_, ProbeResult<()>> {
        match self.credentials() {
            Some(credentials) => credentials.prepare().boxed(),
            None => std::future::ready(Ok(())).boxed(),
        }
    }

    /// Starts a conversation, after [`prepare`](Self::prepare) or while
    /// [`is_ready`](Self::is_ready).
    fn start(
        self: Arc<Self>,
        transport: Transport,
        now: Instant,
    ) -> ProbeResult<Box<dyn Conversation>>;

    /// Returns the place of the TLS handshake, if the check speaks TLS.
    fn tls_start(&self) -> TlsStart {
        TlsStart::AtOnce
    }

    /// Returns whether the server's program must learn of a connection before it gets any data,
    /// because it speaks first.
    fn server_speaks_first(&self, _now: Instant) -> bool {
        false
    }

    /// Records that a connect has failed.
    fn on_connect_failure(&self, _failure: ConnectFailure, _now: Instant) {}

    /// Returns the details that the newest probe has found that found any.
    fn observed(&self) -> Option<Observed>;
}

/// The place of the TLS handshake in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsStart {
    /// Before all messages.
    AtOnce,
    /// After messages without TLS, in which the client asks for it.
    OnRequest,
}

/// The way in which a connect has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectFailure {
    /// The target's kernel answered that nothing listens.
    Refused,
    /// This host could not connect, which says nothing of the target.
    Local,
    /// Any other, most often no answer.
    Other,
}

impl ConnectFailure {
    pub(crate) fn new(verdict: &Verdict) -> Self {
        match verdict {
            Verdict::Inconclusive(_) => ConnectFailure::Local,
            _ if *verdict == Phase::Connect.fail("refused") => ConnectFailure::Refused,
            _ => ConnectFailure::Other,
        }
    }
}

/// The client's side of one conversation.
pub(crate) trait Conversation: Send + Sync {
    /// Appends the first message to the output.
    fn begin(&mut self, output: &mut Vec<u8>);

    /// Takes all complete messages from the front of the input, and appends answers to the output.
    /// Returns the result once it is known.
    fn advance(&mut self, input: &mut &[u8], output: &mut Vec<u8>) -> Option<ProbeResult<()>>;

    /// Returns the phase of the message that is awaited.
    fn phase(&self) -> Phase;

    /// Returns the way in which to end the connection if it ends now.
    fn ending(&self) -> Ending;

    /// Returns the most bytes that are read in one probe.
    fn max_received(&self) -> usize {
        MAX_RECEIVED
    }

    /// Returns a computation without which the conversation can't continue.
    /// [`advance`](Self::advance) follows it.
    fn take_work(&mut self) -> Option<Work> {
        None
    }

    /// Returns whether the TLS handshake comes now, after the output.
    fn awaits_handshake(&self) -> bool {
        false
    }

    /// Takes the server's certificate in DER, after the TLS handshake.
    fn on_certificate(&mut self, _certificate: &[u8]) {}

    /// Continues after the TLS handshake, if that was awaited.
    fn on_handshake(&mut self, _output: &mut Vec<u8>) {}

    /// Records the verdict that has ended the conversation. A probe that is dropped has none.
    fn on_failure(&mut self, _verdict: &Verdict) {}
}

/// A conversation with its buffers and its limits.
pub(crate) struct Exchange {
    conversation: Box<dyn Conversation>,
    /// The bytes to send, of which the first `sent` are sent.
    output: Vec<u8>,
    sent: usize,
    /// The beginning of a message whose rest has not come.
    rest: Vec<u8>,
    received: usize,
    /// True once the server has closed its side.
    is_closed: bool,
}

impl Exchange {
    pub(crate) fn new(mut conversation: Box<dyn Conversation>) -> Self {
        let mut output = Vec::with_capacity(OUTPUT_CAPACITY);
        conversation.begin(&mut output);
        if output.is_empty() {
            // Thousands may wait for the first word of their servers.
            output = Vec::new();
        }
        Self { conversation, output, sent: 0, rest: Vec::new(), received: 0, is_closed: false }
    }

    /// Returns the bytes that are still to be sent.
    pub(crate) fn output(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// Removes bytes that have been sent.
    pub(crate) fn consume_output(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.output().is_empty() {
            self.output.clear();
            self.sent = 0;
        }
    }

    /// Returns true if nothing has come yet.
    pub(crate) fn is_unanswered(&self) -> bool {
        self.received == 0
    }

    /// Returns the number of received bytes that are kept for the rest of their message.
    #[cfg(test)]
    pub(crate) fn unread(&self) -> usize {
        self.rest.len()
    }

    /// Passes received bytes to the conversation. Returns its result once that is known.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Option<ProbeResult<()>> {
        self.received += bytes.len();
        let Self { conversation, output, rest, .. } = self;
        let result = if rest.is_empty() {
            // Most answers come in whole messages, and need no copy.
            let mut input = bytes;
            let result = conversation.advance(&mut input, output);
            rest.extend_from_slice(input);
            result
        } else {
            rest.extend_from_slice(bytes);
            let mut input = &rest[..];
            let result = conversation.advance(&mut input, output);
            let consumed = rest.len() - input.len();
            rest.drain(..consumed);
            result
        };
        result.or_else(|| self.check_limits())
    }

    fn check_limits(&self) -> Option<ProbeResult<()>> {
        let most = self.conversation.max_received();
        let what = match (self.rest.len() > MAX_MESSAGE, self.received > most) {
            (true, _) => "a message is over 16 KiB".to_owned(),
            (false, true) => format!("the server has sent over {} KiB", most >> 10),
            (false, false) => return None,
        };
        Some(Err(self.phase().fail(what)))
    }

    /// Returns a computation without which the conversation can't continue.
    pub(crate) fn take_work(&mut self) -> Option<Work> {
        self.conversation.take_work()
    }

    pub(crate) fn awaits_handshake(&self) -> bool {
        self.conversation.awaits_handshake()
    }

    /// Checks that nothing has come that the handshake would not protect. More bytes would be plain
    /// text that looks as if it came through TLS.
    pub(crate) fn check_nothing_unread(&self) -> ProbeResult<()> {
        match self.rest.is_empty() {
            true => Ok(()),
            false => Err(Phase::Tls.fail("bytes before the handshake")),
        }
    }

    /// Passes the server's certificate to the conversation, after the TLS handshake.
    pub(crate) fn on_certificate(&mut self, certificate: &[u8]) {
        self.conversation.on_certificate(certificate);
    }

    /// Continues after the TLS handshake.
    pub(crate) fn on_handshake(&mut self) {
        self.conversation.on_handshake(&mut self.output);
    }

    /// Records the verdict that has ended the conversation.
    pub(crate) fn on_result(&mut self, result: &ProbeResult<()>) {
        if let Err(verdict) = result {
            self.conversation.on_failure(verdict);
        }
    }

    /// Continues after a computation.
    pub(crate) fn resume(&mut self) -> Option<ProbeResult<()>> {
        self.receive(&[])
    }

    pub(crate) fn phase(&self) -> Phase {
        self.conversation.phase()
    }

    /// Returns the way in which to end the connection if it ends now.
    pub(crate) fn ending(&self) -> Ending {
        match self.conversation.ending() {
            // The server waits no more, and would keep a TIME_WAIT after a FIN.
            Ending::FinReset if self.is_closed => Ending::Reset,
            ending => ending,
        }
    }

    /// Records that the server has closed, and returns the verdict.
    pub(crate) fn on_close(&mut self) -> Verdict {
        self.is_closed = true;
        self.phase().connection_ended("closed")
    }

    /// Returns the verdict on an error of the connection.
    pub(crate) fn io_error(&self, error: &io::Error) -> Verdict {
        self.phase().io_error(error)
    }

    /// Returns the result if the deadline comes now.
    pub(crate) fn timed_out(&self, timeout: Duration) -> ProbeResult<()> {
        self.phase().timed_out(timeout)
    }
}

/// Returns whether a result is as a row of a test has it: empty for a pass, with `?` at the start
/// if it is inconclusive, and with `…` at the end if only the start of the reason counts.
#[cfg(test)]
pub(crate) fn is_expected(result: &ProbeResult<()>, expected: &str) -> bool {
    match (result, expected.strip_prefix('?')) {
        (Ok(()), None) => expected.is_empty(),
        (Err(crate::health::Verdict::Inconclusive(reason)), Some(expected)) => reason == expected,
        (Err(crate::health::Verdict::Fail(reason)), None) => match expected.strip_suffix('…') {
            Some(start) => reason.starts_with(start),
            None => reason == expected,
        },
        _ => false,
    }
}
