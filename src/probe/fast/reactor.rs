//! Tries of check checks, thousands at once: sockets in one epoll instance, with neither a task nor a timer for each.

#![expect(unsafe_code, reason = "a descriptor that is registered with tokio must stay open")]

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{self, PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::sockopt;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::check::{FastCheck, FastKind};
use super::exchange::{Advance, FastExchange};
use super::waker::Waker;
use crate::clock;
use crate::health::Verdict;
use crate::probe::phase::{Phase, ProbeResult};
use crate::probe::stream::connect;

/// Events that are read_buf at once.
const MAX_EVENTS: usize = 256;

/// What an event of the waker carries; no try is ever generation so late.
const WAKER_TOKEN: u64 = u64::MAX;

/// How much of an answer is read_buf at once: nearly always all of it.
const READ_BUF_SIZE: usize = 16 << 10;

/// How long news are taken at once, before anything else has its turn.
const MAX_DRAIN_TIME: Duration = Duration::from_millis(20);

/// A try that has ended.
pub struct Completion {
    /// As it was given to the start.
    pub token: usize,
    pub verdict: Verdict,
    pub started: Instant,
}

pub struct Reactor {
    epoll: Arc<OwnedFd>,
    /// What ends a wait, once there is something that may.
    waker: Option<Waker>,
    /// News that have come and wait to be taken.
    news: Vec<(u64, EventFlags)>,
    /// Tries with more to read, after others have had their turn. No event tells of the rest.
    unread: VecDeque<Id>,
    /// By slot; those without a try are free.
    probes: Vec<Option<FastProbe>>,
    free: Vec<usize>,
    /// By how long a try may take: the probes in the order of their starts, which is that of their ends.
    deadlines: BTreeMap<Duration, VecDeque<(Instant, Id)>>,
    /// Counts the starts, to tell a try from an earlier one of the same slot.
    generation: u32,
    /// From here on the kernel gives out local ports.
    first_ephemeral_port: u16,
    read_buf: Box<[u8]>,
}

/// Names a try: its slot, and its place in the order of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    slot: u32,
    generation: u32,
}

impl Id {
    fn event_data(self) -> EventData {
        EventData::new_u64(u64::from(self.generation) << 32 | u64::from(self.slot))
    }

    fn from_data(data: u64) -> Self {
        Self { slot: data as u32, generation: (data >> 32) as u32 }
    }
}

struct FastProbe {
    socket: OwnedFd,
    check: Arc<FastCheck>,
    token: usize,
    generation: u32,
    started: Instant,
    stage: Stage,
}

enum Stage {
    Connecting,
    Exchanging(FastExchange),
}

impl Reactor {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll: Arc::new(epoll),
            waker: None,
            news: Vec::with_capacity(MAX_EVENTS),
            unread: VecDeque::new(),
            probes: Vec::new(),
            free: Vec::new(),
            deadlines: BTreeMap::new(),
            generation: 0,
            first_ephemeral_port: first_ephemeral_port(),
            read_buf: vec![0; READ_BUF_SIZE].into(),
        })
    }

    /// How many probes are under way.
    pub fn len(&self) -> usize {
        self.probes.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What ends a wait, from any thread.
    pub fn waker(&mut self) -> io::Result<Waker> {
        let waker = Waker::new()?;
        epoll::add(
            &self.epoll,
            &waker,
            EventData::new_u64(WAKER_TOKEN),
            EventFlags::IN | EventFlags::ET,
        )?;
        Ok(self.waker.insert(waker).clone())
    }

    /// Starts a try. Where that fails, the verdict is there at once.
    pub fn start(
        &mut self,
        token: usize,
        check: &Arc<FastCheck>,
        now: Instant,
    ) -> Option<Completion> {
        self.generation = self.generation.wrapping_add(1);
        let slot = self.free.pop().unwrap_or_else(|| {
            self.probes.push(None);
            self.probes.len() - 1
        });
        let id = Id { slot: slot as u32, generation: self.generation };
        match connect(check, &self.epoll, id) {
            Ok(socket) => {
                let (check, stage) = (check.clone(), Stage::Connecting);
                let deadlines = self.deadlines.entry(check.timeout).or_default();
                drop_ended(deadlines, &self.probes);
                deadlines.push_back((now + check.timeout, id));
                self.probes[slot] = Some(FastProbe {
                    socket,
                    check,
                    token,
                    generation: id.generation,
                    started: now,
                    stage,
                });
                None
            }
            Err(verdict) => {
                self.free.push(slot);
                Some(Completion { token, verdict, started: now })
            }
        }
    }

    /// When the next try runs out of time.
    pub fn deadline(&mut self) -> Option<Instant> {
        let probes = &self.probes;
        self.deadlines.values_mut().for_each(|deadlines| drop_ended(deadlines, probes));
        self.deadlines
            .values()
            .filter_map(|deadlines| deadlines.front())
            .map(|(deadline, _)| *deadline)
            .min()
    }

    /// Blocks until a try has news, the waker rings, or so much time has passed, rounded up to a millisecond: what is due
    /// within one is best done together.
    pub fn wait(&mut self, time: Duration) -> io::Result<()> {
        let time = if self.unread.is_empty() { time } else { Duration::ZERO };
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let mut space = [const { MaybeUninit::uninit() }; MAX_EVENTS];
        match epoll::wait(&self.epoll, &mut space, Some(&time)) {
            Ok((events, _)) => {
                self.news.extend(events.iter().map(|event| (event.data.u64(), event.flags)))
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Takes the news there are, and gives `end` the probes that have ended, those that ran out of time by `now` among them.
    /// Returns in bounded time, also where sockets have bytes without end.
    pub fn drain(&mut self, now: Instant, mut end: impl FnMut(Completion)) -> io::Result<()> {
        // A try that is added meanwhile has had its turn.
        for _ in 0..self.unread.len().min(MAX_EVENTS) {
            if let Some(id) = self.unread.pop_front() {
                self.advance_probe(id, EventFlags::IN).into_iter().for_each(&mut end);
            }
        }
        let news_left = loop {
            let mut news = std::mem::take(&mut self.news);
            let all = news.len() < MAX_EVENTS;
            for (data, flags) in news.drain(..) {
                if data == WAKER_TOKEN {
                    self.waker.iter().for_each(Waker::reset);
                } else {
                    self.advance_probe(Id::from_data(data), flags).into_iter().for_each(&mut end);
                }
            }
            self.news = news;
            if all || clock::now().saturating_duration_since(now) > MAX_DRAIN_TIME {
                break !all;
            }
            self.wait(Duration::ZERO)?;
        };
        for id in self.expired(now) {
            // The answer may have come in time, and wait behind others' news.
            let ended = if news_left { self.poll_attempt(id) } else { None };
            ended.or_else(|| self.expire(id)).into_iter().for_each(&mut end);
        }
        Ok(())
    }

    /// True if the next turn has something to do whatever happens.
    fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }

    /// Takes the probes that have run out of time off the deadlines.
    fn expired(&mut self, now: Instant) -> Vec<Id> {
        let mut expired = Vec::new();
        for deadlines in self.deadlines.values_mut() {
            while let Some(&(deadline, id)) = deadlines.front() {
                let under_way = is_under_way(&self.probes, id);
                if under_way && deadline > now {
                    break;
                }
                deadlines.pop_front();
                expired.extend(under_way.then_some(id));
            }
        }
        expired
    }

    fn expire(&mut self, id: Id) -> Option<Completion> {
        if !is_under_way(&self.probes, id) {
            return None;
        }
        let FastProbe { token, started, check, stage, .. } =
            self.probes[id.slot as usize].take()?;
        self.free.push(id.slot as usize);
        let late = |phase: Phase| phase.timed_out(check.timeout);
        let verdict = match stage {
            Stage::Connecting => late(Phase::Connect),
            Stage::Exchanging(exchange) => match exchange.verdict() {
                // The rest of a body does not matter any more.
                Some(verdict) => verdict.clone().err().unwrap_or(Verdict::Pass),
                None => late(Phase::Http),
            },
        };
        Some(Completion { token, verdict, started })
    }

    /// Takes a try as far as it goes with the news that its socket has now.
    fn poll_attempt(&mut self, id: Id) -> Option<Completion> {
        let probe = self.probes.get(id.slot as usize)?.as_ref()?;
        let mut news = [PollFd::new(&probe.socket, PollFlags::IN | PollFlags::OUT)];
        event::poll(&mut news, Some(&Timespec::default())).ok()?;
        let flags = EventFlags::from_bits_truncate(news[0].revents().bits().into());
        if flags.is_empty() { None } else { self.advance_probe(id, flags) }
    }

    /// Takes one try as far as it goes.
    fn advance_probe(&mut self, id: Id, flags: EventFlags) -> Option<Completion> {
        if !is_under_way(&self.probes, id) {
            return None;
        }
        let slot = id.slot as usize;
        let step = match self.probes[slot].as_mut()?.advance(
            flags,
            self.first_ephemeral_port,
            &mut self.read_buf,
        ) {
            Advance::Waiting => return None,
            Advance::Unread => {
                self.unread.push_back(id);
                return None;
            }
            Advance::Ended(step) => step,
        };
        let FastProbe { token, started, .. } = self.probes[slot].take()?;
        self.free.push(slot);
        let verdict = step.err().unwrap_or(Verdict::Pass);
        Some(Completion { token, verdict, started })
    }
}

impl FastProbe {
    fn advance(
        &mut self,
        flags: EventFlags,
        first_ephemeral_port: u16,
        read_buf: &mut [u8],
    ) -> Advance {
        if matches!(self.stage, Stage::Connecting) {
            if let Err(verdict) =
                check_connected(&self.socket, flags, self.check.address, first_ephemeral_port)
            {
                return Advance::Ended(Err(verdict));
            }
            self.stage = Stage::Exchanging(FastExchange::default());
        }
        match (&self.check.kind, &mut self.stage) {
            (FastKind::Http(http), Stage::Exchanging(exchange)) => {
                exchange.advance(&self.socket, http, flags, read_buf)
            }
            _ => Advance::Ended(Ok(())),
        }
    }
}

/// One try by itself, where there is no reactor.
pub(crate) async fn run_once(check: &Arc<FastCheck>) -> Verdict {
    let ours = |error: io::Error| Phase::Connect.local_error(&error);
    let mut reactor = match Reactor::new() {
        Ok(reactor) => reactor,
        Err(error) => return ours(error),
    };
    // SAFETY: the descriptor is owned by what registers it and closed by nothing else.
    let news =
        unsafe { AsyncFd::register_with_interest(reactor.epoll.clone(), Interest::READABLE) };
    let news = match news {
        Ok(news) => news,
        Err(error) => return ours(error.into()),
    };
    let now = clock::now();
    if let Some(ended) = reactor.start(0, check, now) {
        return ended.verdict;
    }
    let mut deadline = std::pin::pin!(tokio::time::sleep_until((now + check.timeout).into()));
    let mut verdict = None;
    loop {
        let ready = tokio::select! {
            () = tokio::task::yield_now(), if reactor.has_unread() => Ok(()),
            ready = news.readable() => ready.map(|mut ready| ready.clear_ready()),
            () = &mut deadline => Ok(()),
        };
        let taken = ready.and_then(|()| reactor.wait(Duration::ZERO));
        if let Err(error) =
            taken.and_then(|()| reactor.drain(clock::now(), |ended| verdict = Some(ended.verdict)))
        {
            return ours(error);
        }
        if let Some(verdict) = verdict {
            return verdict;
        }
    }
}

/// Drops what has ended from the front.
fn drop_ended(deadlines: &mut VecDeque<(Instant, Id)>, probes: &[Option<FastProbe>]) {
    while deadlines.front().is_some_and(|(_, id)| !is_under_way(probes, *id)) {
        deadlines.pop_front();
    }
}

fn is_under_way(probes: &[Option<FastProbe>], id: Id) -> bool {
    probes
        .get(id.slot as usize)
        .and_then(Option::as_ref)
        .is_some_and(|probe| probe.generation == id.generation)
}

/// Starts a connection that ends with a reset, at once and without TIME_WAIT on either side.
fn connect(check: &FastCheck, epoll: &OwnedFd, id: Id) -> ProbeResult<OwnedFd> {
    let socket = connect::socket(check.address)?;
    let own_fault = |errno: Errno| Phase::Connect.local_error(&errno.into());
    if !matches!(check.kind, FastKind::FullHandshake) {
        // Linux then holds back the last ACK of the handshake for a moment, and what we do next takes its place: the reset of
        // a close, or the request.
        sockopt::set_tcp_quickack(&socket, false).map_err(own_fault)?;
    }
    let news = match check.kind {
        FastKind::HalfOpen | FastKind::FullHandshake => EventFlags::OUT,
        FastKind::Http(_) => EventFlags::OUT | EventFlags::IN,
    };
    connect::start(&socket, check.address)?;
    // Closing the socket takes it out again.
    epoll::add(epoll, &socket, id.event_data(), news | EventFlags::ET).map_err(own_fault)?;
    Ok(socket)
}

/// Returns the outcome of a connect.
fn check_connected(
    socket: &OwnedFd,
    flags: EventFlags,
    address: SocketAddr,
    first_ephemeral_port: u16,
) -> ProbeResult<()> {
    if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
        connect::outcome(socket)?;
    }
    if address.port() >= first_ephemeral_port {
        connect::reject_self_connection(socket, address)?;
    }
    Ok(())
}

/// The lowest port that the kernel gives out by itself; the lowest of all if it does not say.
fn first_ephemeral_port() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|lowest| lowest.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use super::*;
    use crate::config::{CheckKind, HttpCheck, Scheme, TcpCheck, Tls};

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn check(check: &CheckKind) -> Arc<FastCheck> {
        Arc::new(FastCheck::new(check, TIMEOUT, [127, 0, 0, 1].into()).expect("a fast check"))
    }

    fn http(port: u16) -> Arc<FastCheck> {
        check(&CheckKind::Http(HttpCheck {
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

    /// Waits until all sockets have news.
    fn until_ready(reactor: &Reactor, flags: PollFlags) {
        let mut news: Vec<_> = reactor
            .probes
            .iter()
            .flatten()
            .map(|probe| PollFd::new(&probe.socket, flags))
            .collect();
        while news.iter().any(|socket| socket.revents().is_empty()) {
            event::poll(&mut news, None).unwrap();
        }
    }

    #[test]
    fn one_event_reads_a_bounded_amount_and_goes_on_later() {
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
            reactor.drain(now, |probe| ended.push(probe)).unwrap();
        }
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: {}\r\n\r\n", "y".repeat(60 << 10));
        let mut stream = server.join().unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let come = |reactor: &Reactor| {
            rustix::io::ioctl_fionread(&reactor.probes[0].as_ref().unwrap().socket).unwrap()
        };
        while come(&reactor) < head.len() as u64 {
            thread::yield_now();
        }
        let mut turns = 0;
        while ended.is_empty() {
            // No event ends any of these waits but the first.
            reactor.wait(TIMEOUT).unwrap();
            reactor.drain(now, |probe| ended.push(probe)).unwrap();
            turns += 1;
        }
        assert_eq!((&ended[0].verdict, turns), (&Verdict::Pass, 4));
        assert!(clock::now().saturating_duration_since(now) < TIMEOUT);
    }

    /// More have news than are taken at once, and by the clock it is late.
    #[test]
    fn an_answer_that_waits_behind_others_is_not_out_of_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, probes) = (listener.local_addr().unwrap().port(), MAX_EVENTS + 50);
        let check = check(&CheckKind::Tcp(TcpCheck {
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
        until_ready(&reactor, PollFlags::OUT);
        let mut verdicts = Vec::new();
        reactor.wait(TIMEOUT).unwrap();
        reactor.drain(before + 2 * TIMEOUT, |ended| verdicts.push(ended.verdict)).unwrap();
        assert_eq!(verdicts, vec![Verdict::Pass; probes]);
        assert!(reactor.is_empty());
    }
}
