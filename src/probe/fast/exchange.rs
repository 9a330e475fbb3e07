//! The HTTP exchange of a fast probe: sends the request and reads the answer over a socket that
//! never blocks.

use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

use super::check::FastHttp;
use crate::probe::http::{ResponseChecker, ResponseReader};
use crate::probe::phase::{Phase, ProbeResult};

/// The most bytes of an answer that are read before other probes have their turn.
const MAX_READ_PER_TURN: usize = 16 << 10;

/// The state of an exchange between two events of its socket.
#[derive(Default)]
pub(super) struct FastExchange {
    /// The bytes of the request that have been sent.
    sent: usize,
    /// The error that ended the sending. An answer that has come nevertheless is read first.
    send_error: Option<Errno>,
    /// True if bytes came before the request was sent.
    is_early: bool,
    /// The answer so far, if it did not come in one piece.
    response: Option<Box<ResponseReader>>,
}

/// The state of a probe after an event.
pub(super) enum Advance {
    /// The next event continues it.
    Waiting,
    /// There may be more to read, which no event will announce.
    Unread,
    Ended(ProbeResult<()>),
}

impl FastExchange {
    /// Sends and reads as much as the socket takes and has. `read_buf` is scratch space.
    pub(super) fn advance(
        &mut self,
        socket: &OwnedFd,
        http: &FastHttp,
        flags: EventFlags,
        read_buf: &mut [u8],
    ) -> Advance {
        if self.sent < http.request.len() && self.send_error.is_none() {
            self.send(socket, http, flags);
            let readable = EventFlags::IN | EventFlags::ERR | EventFlags::HUP;
            if self.send_error.is_none() && !flags.intersects(readable) {
                // Nothing to read yet: the answer causes an event of its own.
                return Advance::Waiting;
            }
        }
        // Most answers come in one piece, and need no allocation.
        let mut fresh = ResponseReader::new();
        let response = self.response.as_deref_mut().unwrap_or(&mut fresh);
        if self.is_early {
            response.set_early();
        }
        let advance = read(socket, http, self.send_error, response, read_buf);
        if self.response.is_none() && !matches!(advance, Advance::Ended(_)) && !fresh.is_empty() {
            self.response = Some(Box::new(fresh));
        }
        advance
    }

    fn send(&mut self, socket: &OwnedFd, http: &FastHttp, flags: EventFlags) {
        // Some servers answer as soon as they accept, and read only then.
        self.is_early |= self.sent == 0 && flags.contains(EventFlags::IN);
        match net::send(socket, &http.request[self.sent..], SendFlags::NOSIGNAL) {
            Ok(more) => self.sent += more,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => self.send_error = Some(errno),
        }
    }

    /// Returns the verdict if it is known while the rest of the answer is read.
    pub(super) fn verdict(&self) -> Option<&ProbeResult<()>> {
        self.response.as_ref()?.verdict()
    }
}

fn read(
    socket: &OwnedFd,
    http: &FastHttp,
    send_error: Option<Errno>,
    response: &mut ResponseReader,
    read_buf: &mut [u8],
) -> Advance {
    let mut checker = ResponseChecker::new(&http.expectation);
    let failed = |errno: Errno| Err(Phase::Http.io_error(&errno.into()));
    let mut received = 0;
    loop {
        let length = match net::recv(socket, &mut *read_buf, RecvFlags::empty()) {
            Ok((_, 0)) => {
                let unanswered = send_error.filter(|_| response.is_empty());
                return Advance::Ended(
                    unanswered.map_or_else(|| response.close(&mut checker), failed),
                );
            }
            Ok((_, length)) => length,
            Err(Errno::AGAIN) => return Advance::Waiting,
            Err(Errno::INTR) => continue,
            Err(errno) => {
                return Advance::Ended(
                    response.verdict().cloned().unwrap_or_else(|| failed(errno)),
                );
            }
        };
        if let Some(verdict) = response.feed(&read_buf[..length], &http.method, &mut checker) {
            return Advance::Ended(verdict);
        }
        received += length;
        if received >= MAX_READ_PER_TURN {
            return Advance::Unread;
        }
    }
}
