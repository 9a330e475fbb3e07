//! The conversation of a fast probe over a socket that never blocks.

use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

use super::exchange::Advance;
use crate::probe::conversation::{Conversation, Exchange};
use crate::probe::native;
use crate::probe::phase::{Phase, ProbeResult};

/// The most bytes of an answer that are read before other probes have their turn.
const MAX_READ_PER_TURN: usize = 16 << 10;

/// The state of a conversation between two events of its socket.
pub(super) struct NativeExchange {
    exchange: Exchange,
    /// The error that ended the sending. An answer that has come nevertheless is read first.
    send_error: Option<Errno>,
}

impl NativeExchange {
    pub(super) fn new(conversation: Box<dyn Conversation>) -> Self {
        Self { exchange: Exchange::new(conversation), send_error: None }
    }

    /// Sends and reads as much as the socket takes and has. `read_buf` is scratch space.
    pub(super) fn advance(
        &mut self,
        socket: &OwnedFd,
        flags: EventFlags,
        read_buf: &mut [u8],
    ) -> Advance {
        if !self.exchange.output().is_empty() && self.send_error.is_none() {
            self.send(socket);
            let readable = EventFlags::IN | EventFlags::ERR | EventFlags::HUP;
            if self.send_error.is_none() && !flags.intersects(readable) {
                // Nothing to read yet: the answer causes an event of its own.
                return Advance::Waiting;
            }
        }
        let advance = self.read(socket, read_buf);
        if let Advance::Ended(result) = &advance {
            self.end(socket, result);
        }
        advance
    }

    /// Returns the result at the deadline, and ends the conversation.
    pub(super) fn time_out(&mut self, socket: &OwnedFd, timeout: Duration) -> ProbeResult<()> {
        let result = self.exchange.timed_out(timeout);
        self.end(socket, &result);
        result
    }

    /// Prepares the connection for its close, so that it ends as the protocol wants it.
    pub(super) fn end(&mut self, socket: &OwnedFd, result: &ProbeResult<()>) {
        self.exchange.on_result(result);
        native::end(socket, self.exchange.ending());
    }

    fn send(&mut self, socket: &OwnedFd) {
        match net::send(socket, self.exchange.output(), SendFlags::NOSIGNAL) {
            Ok(sent) => self.exchange.consume_output(sent),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => self.send_error = Some(errno),
        }
    }

    fn read(&mut self, socket: &OwnedFd, read_buf: &mut [u8]) -> Advance {
        let mut received = 0;
        loop {
            let length = match net::recv(socket, &mut *read_buf, RecvFlags::empty()) {
                Ok((_, 0)) => {
                    let unanswered = self.send_error.filter(|_| self.exchange.is_unanswered());
                    return Advance::Ended(Err(match unanswered {
                        Some(errno) => self.exchange.io_error(&errno.into()),
                        None => self.exchange.on_close(),
                    }));
                }
                Ok((_, length)) => length,
                Err(Errno::AGAIN) => return Advance::Waiting,
                Err(Errno::INTR) => continue,
                Err(errno) => {
                    return Advance::Ended(Err(self.exchange.io_error(&errno.into())));
                }
            };
            if let Some(result) = self.exchange.receive(&read_buf[..length]) {
                return Advance::Ended(result);
            }
            if self.exchange.take_work().is_some() {
                // The next probe is a task, and does it.
                let words = "the server wants new ones, which the next check computes";
                return Advance::Ended(Err(Phase::Keys.inconclusive(words)));
            }
            if !self.exchange.output().is_empty() && self.send_error.is_none() {
                self.send(socket);
            }
            received += length;
            if received >= MAX_READ_PER_TURN {
                return Advance::Unread;
            }
        }
    }
}
