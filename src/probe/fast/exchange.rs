//! The request and the answer of a check HTTP check, over a socket that never blocks.

use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags};

use super::check::FastHttp;
use crate::probe::http::{ResponseChecker, ResponseReader};
use crate::probe::phase::{Phase, ProbeResult};

/// How much of an answer is read before others have their turn.
const MAX_READ: usize = 16 << 10;

#[derive(Default)]
pub(crate) struct FastExchange {
    /// How much of the request has been sent.
    sent: usize,
    /// The error that ended the sending. An answer that has come all the same is read first.
    send_error: Option<Errno>,
    is_early: bool,
    /// As far as it has come, where it did not come in one piece.
    answer: Option<Box<ResponseReader>>,
}

/// How far an event has brought a try.
pub(crate) enum Advance {
    /// The next event has more.
    Waiting,
    /// There may be more to read, of which no event tells.
    Unread,
    Ended(ProbeResult<()>),
}

impl FastExchange {
    /// Sends and reads as much as the socket takes and has. `fetched` is room for what is read.
    pub(crate) fn advance(
        &mut self,
        socket: &OwnedFd,
        http: &FastHttp,
        flags: EventFlags,
        read_buf: &mut [u8],
    ) -> Advance {
        if self.sent < http.request.len() && self.send_error.is_none() {
            // Some servers answer when they accept, and only then read.
            self.is_early |= self.sent == 0 && flags.contains(EventFlags::IN);
            match net::send(socket, &http.request[self.sent..], SendFlags::NOSIGNAL) {
                Ok(more) => self.sent += more,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => self.send_error = Some(errno),
            }
            if self.send_error.is_none()
                && !flags.intersects(EventFlags::IN | EventFlags::ERR | EventFlags::HUP)
            {
                // There is nothing to read yet: the answer's coming is news of its own.
                return Advance::Waiting;
            }
        }
        // Most answers come in one piece, and need no room of their own.
        let mut fresh = ResponseReader::new();
        let answer = self.answer.as_deref_mut().unwrap_or(&mut fresh);
        if self.is_early {
            answer.set_early();
        }
        let advance = read(socket, http, self.send_error, answer, read_buf);
        if self.answer.is_none() && !matches!(advance, Advance::Ended(_)) && !fresh.is_empty() {
            self.answer = Some(Box::new(fresh));
        }
        advance
    }

    /// The verdict, if it is known while the rest of the answer is read.
    pub(crate) fn verdict(&self) -> Option<&ProbeResult<()>> {
        self.answer.as_ref()?.verdict()
    }
}

fn read(
    socket: &OwnedFd,
    http: &FastHttp,
    send_error: Option<Errno>,
    answer: &mut ResponseReader,
    read_buf: &mut [u8],
) -> Advance {
    let mut checker = ResponseChecker::new(&http.expectation);
    let failed = |errno: Errno| Err(Phase::Http.io_error(&errno.into()));
    let mut taken = 0;
    loop {
        let length = match net::recv(socket, &mut *read_buf, RecvFlags::empty()) {
            Ok((_, 0)) => {
                let unanswered = send_error.filter(|_| answer.is_empty());
                return Advance::Ended(
                    unanswered.map_or_else(|| answer.close(&mut checker), failed),
                );
            }
            Ok((_, length)) => length,
            Err(Errno::AGAIN) => return Advance::Waiting,
            Err(Errno::INTR) => continue,
            Err(errno) => {
                return Advance::Ended(answer.verdict().cloned().unwrap_or_else(|| failed(errno)));
            }
        };
        if let Some(verdict) = answer.feed(&read_buf[..length], &http.method, &mut checker) {
            return Advance::Ended(verdict);
        }
        taken += length;
        if taken >= MAX_READ {
            return Advance::Unread;
        }
    }
}
