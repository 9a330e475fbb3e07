//! The baseline of checks that use the network: one epoll loop.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::Schedule;
use crate::machine::{self, MILLI};
use crate::protocol::{Ending, Protocol};
use crate::workload::Kind;

pub(super) struct Loop {
    kind: Kind,
    protocol: Option<Protocol>,
    /// The requests of the protocol.
    requests: Vec<&'static [u8]>,
    epoll: OwnedFd,
    targets: Vec<Target>,
    /// The deadlines in the order of the starts, as all checks have the same time-out.
    deadlines: VecDeque<Deadline>,
    failures: u64,
}

struct Target {
    address: SocketAddrV4,
    /// The request of HTTP, which names the target.
    request: Vec<u8>,
    is_connected: bool,
    /// The requests that have been sent.
    sent: usize,
    /// The check in flight.
    socket: Option<OwnedFd>,
    checks: u32,
}

struct Deadline {
    at: u64,
    target: usize,
    check: u32,
}

impl Loop {
    pub(super) fn new(kind: Kind, addresses: &[SocketAddrV4]) -> Result<Self> {
        let target = |address: &SocketAddrV4| Target {
            address: *address,
            request: format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
                .into_bytes(),
            is_connected: false,
            sent: 0,
            socket: None,
            checks: 0,
        };
        Ok(Self {
            kind,
            protocol: kind.protocol(),
            requests: kind.protocol().map(Protocol::requests).unwrap_or_default(),
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            targets: addresses.iter().map(target).collect(),
            deadlines: VecDeque::new(),
            failures: 0,
        })
    }

    pub(super) fn run(&mut self, rota: &mut Schedule, timeout: u64) -> Result<()> {
        let mut events = Vec::with_capacity(1024);
        let mut told = 0;
        loop {
            let now = machine::now();
            while let Some(target) = rota.take(now) {
                self.start(target, now + timeout)?;
            }
            self.expire(now);
            let next =
                self.deadlines.front().map_or(u64::MAX, |deadline| deadline.at).min(rota.next_at());
            // Whole milliseconds, as every checker's timers have.
            let wait = next.saturating_sub(now).div_ceil(MILLI).cast_signed();
            let wait = Timespec { tv_sec: wait / 1000, tv_nsec: wait % 1000 * MILLI.cast_signed() };
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&wait))?;
            for event in events.drain(..) {
                self.step(event.data.u64() as usize, event.flags);
            }
            if self.failures > told {
                told = self.failures;
                eprintln!("baseline: {told} checks failed");
            }
        }
    }

    fn start(&mut self, number: usize, deadline: u64) -> Result<()> {
        let (has_answers, server_begins) = (self.has_answers(), self.server_begins());
        let target = &mut self.targets[number];
        if target.socket.is_some() {
            return Ok(());
        }
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        // A server that begins must see the end of the handshake.
        if self.kind != Kind::Accept && !server_begins {
            sockopt::set_tcp_quickack(&socket, false)?;
        }
        match net::connect(&socket, &target.address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error).context("connect"),
        }
        let interest = epoll::EventFlags::OUT | epoll::EventFlags::ET;
        let interest = if has_answers { interest | epoll::EventFlags::IN } else { interest };
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(number as u64), interest)?;
        target.socket = Some(socket);
        (target.is_connected, target.sent) = (false, 0);
        target.checks += 1;
        self.deadlines.push_back(Deadline { at: deadline, target: number, check: target.checks });
        Ok(())
    }

    fn expire(&mut self, now: u64) {
        while let Some(deadline) = self.deadlines.front() {
            let target = &mut self.targets[deadline.target];
            let in_flight = target.socket.is_some() && target.checks == deadline.check;
            if in_flight && deadline.at > now {
                return;
            }
            if in_flight {
                target.socket = None;
                self.failures += 1;
            }
            self.deadlines.pop_front();
        }
    }

    /// Returns whether the targets answer anything.
    fn has_answers(&self) -> bool {
        self.kind == Kind::Http || self.protocol.is_some()
    }

    /// Returns whether the targets have the first word.
    fn server_begins(&self) -> bool {
        self.protocol.is_some_and(|protocol| !protocol.greeting().is_empty())
    }

    fn step(&mut self, number: usize, flags: epoll::EventFlags) {
        let (has_answers, server_begins) = (self.has_answers(), self.server_begins());
        let target = &mut self.targets[number];
        let Some(socket) = &target.socket else { return };
        if !target.is_connected {
            target.is_connected = matches!(sockopt::socket_error(socket), Ok(Ok(())));
            if !target.is_connected || !has_answers {
                let passed = target.is_connected;
                return self.finish(number, passed);
            }
            if !server_begins && !self.send(number) {
                return self.finish(number, false);
            }
            if !flags.contains(epoll::EventFlags::IN) {
                return;
            }
        }
        let target = &self.targets[number];
        let Some(socket) = &target.socket else { return };
        let mut answer = [0; 4096];
        let read = match net::recv(socket, &mut answer, RecvFlags::empty()) {
            Err(Errno::AGAIN) => return,
            Ok((read, _)) => read,
            Err(_) => return self.finish(number, false),
        };
        let is_good = match self.protocol {
            Some(protocol) => protocol.is_answer(&answer[..read]),
            None => is_whole_page(&answer[..read]),
        };
        if !is_good || target.sent >= self.requests.len() {
            self.finish(number, is_good);
        } else if !self.send(number) {
            self.finish(number, false);
        }
    }

    /// Sends the next request to a target. Returns whether that worked.
    fn send(&mut self, number: usize) -> bool {
        let target = &mut self.targets[number];
        let Some(socket) = &target.socket else { return false };
        let request = self.requests.get(target.sent).copied().unwrap_or(&target.request);
        target.sent += 1;
        net::send(socket, request, SendFlags::NOSIGNAL) == Ok(request.len())
    }

    fn finish(&mut self, number: usize, passed: bool) {
        let socket = self.targets[number].socket.take();
        if let (Some(socket), Some(protocol), true) = (socket, self.protocol, passed) {
            let _ = match protocol.ending() {
                Ending::None => Ok(()),
                Ending::Fin => reset_after_fin(&socket),
                Ending::Farewell(message) => {
                    net::send(&socket, message, SendFlags::NOSIGNAL).map(drop)
                }
            };
        }
        self.failures += u64::from(!passed);
    }
}

/// Makes the close send a FIN, and a reset once that is acknowledged.
#[allow(unsafe_code, reason = "no crate has this socket option")]
fn reset_after_fin(socket: &OwnedFd) -> rustix::io::Result<()> {
    let never: libc::c_int = -1;
    let size = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the descriptor is open, and the kernel reads `size` bytes of `never`.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_LINGER2,
            (&raw const never).cast(),
            size,
        )
    };
    if set != 0 {
        return Err(Errno::INVAL);
    }
    sockopt::set_socket_linger(socket, None)
}

/// Returns true if the answer is complete. The targets send it in one piece.
fn is_whole_page(answer: &[u8]) -> bool {
    answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(b"\r\n\r\nok\n")
}
