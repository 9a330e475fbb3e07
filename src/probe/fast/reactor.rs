//! The reactor: probes of fast checks in one epoll instance, with neither a task nor a timer each.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{self, PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use super::check::FastCheck;
use super::deadlines::Deadlines;
use super::exchange::Advance;
use super::probe::{FastProbe, first_ephemeral_port};
use super::slab::{ProbeId, Slab};
use super::waker::Waker;
use crate::clock;
use crate::health::Verdict;
use crate::probe::phase::to_verdict;

/// The most events that one system call fetches.
const MAX_EVENTS: usize = 256;

/// The event data of the waker. No probe has it: there are never so many slots.
const WAKER_TOKEN: u64 = u64::MAX;

/// The size of the buffer that answers are read into: nearly all fit.
const READ_BUF_SIZE: usize = 16 << 10;

/// The longest that [`Reactor::drain`] fetches more events before its caller has its turn.
const MAX_DRAIN_TIME: Duration = Duration::from_millis(20);

/// A probe that has ended.
pub struct Completion {
    /// The number that was given to [`Reactor::start`].
    pub token: usize,
    /// The verdict on the target.
    pub verdict: Verdict,
    /// The time of the start.
    pub started: Instant,
}

/// A set of probes in flight, which one thread drives: `start` any number, `wait`, `drain`.
pub struct Reactor {
    epoll: Arc<OwnedFd>,
    waker: Option<Waker>,
    /// The events that were fetched and are not handled yet.
    ready: Vec<(u64, EventFlags)>,
    /// The probes that may have more to read, which no event announces.
    unread: VecDeque<ProbeId>,
    probes: Slab,
    deadlines: Deadlines,
    first_ephemeral_port: u16,
    read_buf: Box<[u8]>,
}

impl Reactor {
    /// Creates a reactor without probes.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll: Arc::new(epoll),
            waker: None,
            ready: Vec::with_capacity(MAX_EVENTS),
            unread: VecDeque::new(),
            probes: Slab::default(),
            deadlines: Deadlines::default(),
            first_ephemeral_port: first_ephemeral_port(),
            read_buf: vec![0; READ_BUF_SIZE].into(),
        })
    }

    /// Returns the number of probes in flight.
    pub fn len(&self) -> usize {
        self.probes.len()
    }

    /// Returns true if no probe is in flight.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Creates the waker that ends a wait from any thread.
    pub fn waker(&mut self) -> io::Result<Waker> {
        let waker = Waker::new()?;
        let data = EventData::new_u64(WAKER_TOKEN);
        epoll::add(&self.epoll, &waker, data, EventFlags::IN | EventFlags::ET)?;
        Ok(self.waker.insert(waker).clone())
    }

    /// Starts a probe. Returns its completion if the start fails.
    pub fn start(
        &mut self,
        token: usize,
        check: &Arc<FastCheck>,
        now: Instant,
    ) -> Option<Completion> {
        let id = self.probes.reserve();
        match FastProbe::start(check, token, now, &self.epoll, id.to_u64()) {
            Ok(probe) => {
                self.deadlines.push(id, check.timeout, now, &self.probes);
                self.probes.fill(id, probe);
                None
            }
            Err(verdict) => {
                self.probes.release(id);
                Some(Completion { token, verdict, started: now })
            }
        }
    }

    /// Returns the earliest deadline of a probe in flight.
    pub fn deadline(&mut self) -> Option<Instant> {
        self.deadlines.earliest(&self.probes)
    }

    /// Blocks until a probe has an event, the waker is used, or `timeout` has passed.
    ///
    /// The kernel rounds the timeout up to a millisecond: what is due within one is best done
    /// together.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        let timeout = if self.has_unread() { Duration::ZERO } else { timeout };
        let timeout =
            Timespec { tv_sec: timeout.as_secs() as i64, tv_nsec: timeout.subsec_nanos().into() };
        let mut space = [const { MaybeUninit::uninit() }; MAX_EVENTS];
        match epoll::wait(&self.epoll, &mut space, Some(&timeout)) {
            Ok((events, _)) => {
                self.ready.extend(events.iter().map(|event| (event.data.u64(), event.flags)))
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Handles all events there are, and passes `complete` each probe that has ended, including
    /// those whose deadline is `now` or earlier.
    ///
    /// Returns in bounded time, even if sockets deliver bytes without end.
    pub fn drain(&mut self, now: Instant, mut complete: impl FnMut(Completion)) -> io::Result<()> {
        // A probe that is queued meanwhile has had its turn.
        for _ in 0..self.unread.len().min(MAX_EVENTS) {
            if let Some(id) = self.unread.pop_front() {
                self.advance(id, EventFlags::IN).into_iter().for_each(&mut complete);
            }
        }
        let backlog = self.handle_events(now, &mut complete)?;
        for id in self.deadlines.take_expired(now, &self.probes) {
            // The answer may have come in time, and its event waits behind others.
            let completion = if backlog { self.advance_pending(id) } else { None };
            completion.or_else(|| self.expire(id)).into_iter().for_each(&mut complete);
        }
        Ok(())
    }

    /// Handles events until there are none, or time is up. Returns true if some are left.
    fn handle_events(
        &mut self,
        now: Instant,
        complete: &mut impl FnMut(Completion),
    ) -> io::Result<bool> {
        loop {
            let mut ready = std::mem::take(&mut self.ready);
            let is_last = ready.len() < MAX_EVENTS;
            for (data, flags) in ready.drain(..) {
                if data == WAKER_TOKEN {
                    self.waker.iter().for_each(Waker::reset);
                } else {
                    self.advance(ProbeId::from_u64(data), flags)
                        .into_iter()
                        .for_each(&mut *complete);
                }
            }
            // Its allocation is used again.
            self.ready = ready;
            if is_last || clock::now().saturating_duration_since(now) > MAX_DRAIN_TIME {
                return Ok(!is_last);
            }
            self.wait(Duration::ZERO)?;
        }
    }

    /// Returns true if the next turn has something to read without an event.
    pub(super) fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Returns the epoll instance, which is readable once a probe has an event.
    pub(super) fn epoll(&self) -> Arc<OwnedFd> {
        self.epoll.clone()
    }

    /// Ends a probe at its deadline.
    fn expire(&mut self, id: ProbeId) -> Option<Completion> {
        let mut probe = self.probes.remove(id)?;
        let verdict = probe.timed_out();
        Some(Completion { token: probe.token, verdict, started: probe.started })
    }

    /// Advances a probe by the events that its socket has now.
    fn advance_pending(&mut self, id: ProbeId) -> Option<Completion> {
        let mut socket =
            [PollFd::new(&self.probes.get(id)?.socket, PollFlags::IN | PollFlags::OUT)];
        event::poll(&mut socket, Some(&Timespec::default())).ok()?;
        let flags = EventFlags::from_bits_truncate(socket[0].revents().bits().into());
        if flags.is_empty() { None } else { self.advance(id, flags) }
    }

    /// Advances a probe as far as the event allows.
    fn advance(&mut self, id: ProbeId, flags: EventFlags) -> Option<Completion> {
        let probe = self.probes.get_mut(id)?;
        match probe.advance(flags, self.first_ephemeral_port, &mut self.read_buf) {
            Advance::Waiting => None,
            Advance::Unread => {
                self.unread.push_back(id);
                None
            }
            Advance::Ended(result) => {
                let FastProbe { token, started, .. } = self.probes.remove(id)?;
                Some(Completion { token, verdict: to_verdict(result), started })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::config::{CheckKind, HttpCheck, Scheme, TcpCheck, Tls};
    use crate::probe::target::Target;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn fast_check(check: &CheckKind) -> Arc<FastCheck> {
        let check = FastCheck::new(check, TIMEOUT, &Target::local());
        Arc::new(check.expect("a fast check"))
    }

    fn http(port: u16) -> Arc<FastCheck> {
        fast_check(&CheckKind::Http(HttpCheck {
            port,
            path: "/".into(),
            scheme: Scheme::Http,
            method: "GET".into(),
            host: None,
            headers: Vec::new(),
            expected_statuses: vec![200..=200],
            expected_body: None,
            http2: false,
            tls: Tls::default(),
        }))
    }

    /// Waits until all sockets have an event.
    fn wait_until_ready(reactor: &Reactor, flags: PollFlags) {
        let mut sockets: Vec<_> =
            reactor.probes.iter().map(|probe| PollFd::new(&probe.socket, flags)).collect();
        while sockets.iter().any(|socket| socket.revents().is_empty()) {
            event::poll(&mut sockets, None).unwrap();
        }
    }

    #[test]
    fn a_turn_reads_a_bounded_amount_and_the_next_the_rest() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut reactor = Reactor::new().unwrap();
        let (now, mut ended) = (clock::now(), Vec::new());
        assert!(reactor.start(0, &http(listener.local_addr().unwrap().port()), now).is_none());
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]);
            stream
        });
        while !server.is_finished() {
            reactor.wait(Duration::from_millis(1)).unwrap();
            reactor.drain(now, |completion| ended.push(completion)).unwrap();
        }
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: {}\r\n\r\n", "y".repeat(60 << 10));
        let mut stream = server.join().unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let received = |reactor: &Reactor| {
            rustix::io::ioctl_fionread(&reactor.probes.iter().next().unwrap().socket).unwrap()
        };
        while received(&reactor) < head.len() as u64 {
            thread::yield_now();
        }
        let mut turns = 0;
        while ended.is_empty() {
            // No event ends any of these waits but the first.
            reactor.wait(TIMEOUT).unwrap();
            reactor.drain(now, |completion| ended.push(completion)).unwrap();
            turns += 1;
        }
        assert_eq!((&ended[0].verdict, turns), (&Verdict::Pass, 4));
        assert!(clock::now().saturating_duration_since(now) < TIMEOUT);
    }

    // More probes have an event than one turn handles, and all deadlines have passed.
    #[test]
    fn an_answer_that_waits_behind_others_is_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, probes) = (listener.local_addr().unwrap().port(), MAX_EVENTS + 50);
        let check = fast_check(&CheckKind::Tcp(TcpCheck {
            port,
            tls: None,
            send: None,
            expect: None,
            accept: false,
        }));
        let mut reactor = Reactor::new().unwrap();
        let before = clock::now() - 3 * TIMEOUT;
        for token in 0..probes {
            assert!(reactor.start(token, &check, before).is_none());
        }
        wait_until_ready(&reactor, PollFlags::OUT);
        let mut verdicts = Vec::new();
        reactor.wait(TIMEOUT).unwrap();
        let late = before + 2 * TIMEOUT;
        reactor.drain(late, |completion| verdicts.push(completion.verdict)).unwrap();
        assert_eq!(verdicts, vec![Verdict::Pass; probes]);
        assert!(reactor.is_empty());
    }
}
