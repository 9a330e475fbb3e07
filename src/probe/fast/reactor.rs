//! The reactor: probes of fast checks in one epoll instance, with neither a task nor a timer each.

use std::collections::VecDeque;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{self, PollFd, Timespec};
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

/// The probes that epoll does not watch.
///
/// Most targets are so near that a connect or an answer is there in the next turn of a busy thread.
/// So one `poll` for all of them is tried first, which costs far less than to tell epoll of each
/// socket. Before a wait that blocks, epoll learns of all that are left.
#[derive(Default)]
struct Unwatched {
    /// Polled in this turn.
    now: Vec<ProbeId>,
    /// Polled in the next turn.
    next: Vec<ProbeId>,
}

/// A set of probes in flight, which one thread drives: `start` any number, `wait`, `drain`.
pub struct Reactor {
    epoll: Arc<OwnedFd>,
    waker: Option<Waker>,
    /// The events that were fetched and are not handled yet.
    ready: Vec<(u64, EventFlags)>,
    /// The probes that may have more to read, which no event announces.
    unread: VecDeque<ProbeId>,
    unwatched: Unwatched,
    /// The probes that epoll has refused.
    refused: Vec<Completion>,
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
            unwatched: Unwatched::default(),
            refused: Vec::new(),
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
        match FastProbe::start(check, token, now) {
            Ok(probe) => {
                self.deadlines.push(id, check.timeout, now, &self.probes);
                self.probes.fill(id, probe);
                self.unwatched.next.push(id);
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

    /// Returns the shortest timeout of a probe in flight.
    pub(crate) fn shortest_timeout(&mut self) -> Option<Duration> {
        self.deadlines.shortest_timeout(&self.probes)
    }

    /// Blocks until a probe has an event, the waker is used, or `timeout` has passed.
    ///
    /// The kernel rounds the timeout up to a millisecond: what is due within one is best done
    /// together.
    pub fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        if !timeout.is_zero() {
            self.watch_all();
        }
        let is_busy = self.has_unread() || !self.refused.is_empty();
        let timeout = if is_busy { Duration::ZERO } else { timeout };
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
        self.refused.drain(..).for_each(&mut complete);
        self.poll_unwatched(now, &mut complete);
        // A probe that is queued meanwhile has had its turn.
        for _ in 0..self.unread.len().min(MAX_EVENTS) {
            if let Some(id) = self.unread.pop_front() {
                self.advance(id, EventFlags::IN).into_iter().for_each(&mut complete);
            }
        }
        let backlog = self.handle_events(now, &mut complete)?;
        for id in self.deadlines.take_expired(now, &self.probes) {
            // The answer may have come in time, and its event waits behind others, or epoll does
            // not watch for it.
            let may_be_ready = backlog || self.probes.get(id).is_some_and(|it| !it.is_watched);
            let completion = if may_be_ready { self.advance_pending(id) } else { None };
            completion.or_else(|| self.expire(id)).into_iter().for_each(&mut complete);
        }
        Ok(())
    }

    /// Makes epoll watch all probes.
    pub(super) fn watch_all(&mut self) {
        let Unwatched { now, next } = std::mem::take(&mut self.unwatched);
        now.into_iter().chain(next).for_each(|id| self.watch(id));
    }

    fn watch(&mut self, id: ProbeId) {
        let Some(probe) = self.probes.get_mut(id) else { return };
        if let Err(verdict) = probe.watch(&self.epoll, id.to_u64()) {
            let Some(mut probe) = self.probes.remove(id) else { return };
            probe.on_local_error(&verdict);
            let FastProbe { token, started, .. } = probe;
            self.refused.push(Completion { token, verdict, started });
        }
    }

    /// Advances the probes that are not watched and have something to do. Epoll watches the others
    /// from now on.
    fn poll_unwatched(&mut self, now: Instant, complete: &mut impl FnMut(Completion)) {
        let ids = std::mem::take(&mut self.unwatched.now);
        for ids in ids.chunks(MAX_EVENTS) {
            if clock::now().saturating_duration_since(now) > MAX_DRAIN_TIME {
                self.unwatched.next.extend(ids);
                continue;
            }
            for (id, flags) in self.poll(ids) {
                match flags.is_empty() {
                    true => self.watch(id),
                    false => self.advance(id, flags).into_iter().for_each(&mut *complete),
                }
            }
        }
        self.unwatched.now = std::mem::take(&mut self.unwatched.next);
    }

    /// Returns the events that these probes have now, of those that are still in flight.
    fn poll(&self, ids: &[ProbeId]) -> Vec<(ProbeId, EventFlags)> {
        let probes: Vec<_> =
            ids.iter().filter_map(|id| Some((*id, self.probes.get(*id)?))).collect();
        let mut sockets: Vec<_> =
            probes.iter().map(|(_, probe)| PollFd::new(&probe.socket, probe.awaited())).collect();
        // After an error no socket has an event.
        let _ = event::poll(&mut sockets, Some(&Timespec::default()));
        let flags =
            |socket: &PollFd| EventFlags::from_bits_truncate(socket.revents().bits().into());
        probes.iter().zip(&sockets).map(|((id, _), socket)| (*id, flags(socket))).collect()
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
        let (id, flags) = self.poll(&[id]).pop()?;
        if flags.is_empty() { None } else { self.advance(id, flags) }
    }

    /// Advances a probe as far as the event allows.
    fn advance(&mut self, id: ProbeId, flags: EventFlags) -> Option<Completion> {
        let probe = self.probes.get_mut(id)?;
        match probe.advance(flags, self.first_ephemeral_port, &mut self.read_buf) {
            Advance::Waiting => {
                if !probe.is_watched {
                    self.unwatched.next.push(id);
                }
                None
            }
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
mod tests;
