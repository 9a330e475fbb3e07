//! Tries of light checks, thousands at once: sockets in one epoll instance, with neither a task nor a timer for each.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, RecvFlags, SendFlags, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::ask::MOST_HEAD;
use super::light::{Http, Kind, Light};
use super::{Bell, Phase, Step, connect};
use crate::clock;
use crate::health::Verdict;

/// Events that are fetched at once.
const EVENTS: usize = 256;

/// What an event of the bell carries; no try is ever born so late.
const RUNG: u64 = u64::MAX;

/// How much of an answer is fetched at once: nearly always all of it.
const FETCHED: usize = 16 << 10;

/// A try that has ended.
pub struct Ended {
    /// As it was given to the start.
    pub tag: usize,
    pub verdict: Verdict,
    pub started: Instant,
}

pub struct Swarm {
    epoll: Arc<OwnedFd>,
    /// What ends a wait, once there is something that may.
    bell: Option<Bell>,
    /// News that have come and wait to be taken.
    news: Vec<(u64, EventFlags)>,
    /// By number; those without a try are free.
    tries: Vec<Option<Try>>,
    free: Vec<usize>,
    /// By how long a try may take: the tries in the order of their starts, which is that of their ends.
    deadlines: BTreeMap<Duration, VecDeque<(Instant, Id)>>,
    /// Counts the starts, to tell a try from an earlier one of the same number.
    born: u32,
    /// From here on the kernel gives out local ports.
    ephemeral: u16,
    fetched: Box<[u8]>,
}

/// Names a try: its number, and its place in the order of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Id {
    number: u32,
    born: u32,
}

impl Id {
    fn data(self) -> EventData {
        EventData::new_u64(u64::from(self.born) << 32 | u64::from(self.number))
    }

    fn of(data: u64) -> Self {
        Self { number: data as u32, born: (data >> 32) as u32 }
    }
}

struct Try {
    socket: OwnedFd,
    light: Arc<Light>,
    tag: usize,
    born: u32,
    started: Instant,
    stage: Stage,
}

enum Stage {
    Connecting,
    /// So much of the request has been sent.
    Sending(usize),
    /// What has come of the answer, where it did not come at once.
    Answering(Vec<u8>),
}

impl Swarm {
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self {
            epoll: Arc::new(epoll),
            bell: None,
            news: Vec::with_capacity(EVENTS),
            tries: Vec::new(),
            free: Vec::new(),
            deadlines: BTreeMap::new(),
            born: 0,
            ephemeral: ephemeral(),
            fetched: vec![0; FETCHED].into(),
        })
    }

    /// How many tries are under way.
    pub fn len(&self) -> usize {
        self.tries.len() - self.free.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What ends a wait, from any thread.
    pub fn bell(&mut self) -> io::Result<Bell> {
        let bell = Bell::new()?;
        epoll::add(&self.epoll, &bell, EventData::new_u64(RUNG), EventFlags::IN | EventFlags::ET)?;
        Ok(self.bell.insert(bell).clone())
    }

    /// Starts a try. Where that fails, the verdict is there at once.
    pub fn start(&mut self, tag: usize, light: &Arc<Light>, now: Instant) -> Option<Ended> {
        self.born = self.born.wrapping_add(1);
        let number = self.free.pop().unwrap_or_else(|| {
            self.tries.push(None);
            self.tries.len() - 1
        });
        let id = Id { number: number as u32, born: self.born };
        match connect(light, &self.epoll, id) {
            Ok(socket) => {
                let (light, stage) = (light.clone(), Stage::Connecting);
                let deadlines = self.deadlines.entry(light.timeout).or_default();
                forget_ended(deadlines, &self.tries);
                deadlines.push_back((now + light.timeout, id));
                self.tries[number] = Some(Try { socket, light, tag, born: id.born, started: now, stage });
                None
            }
            Err(verdict) => {
                self.free.push(number);
                Some(Ended { tag, verdict, started: now })
            }
        }
    }

    /// When the next try runs out of time.
    pub fn deadline(&mut self) -> Option<Instant> {
        let tries = &self.tries;
        self.deadlines.values_mut().for_each(|deadlines| forget_ended(deadlines, tries));
        self.deadlines.values().filter_map(|deadlines| deadlines.front()).map(|(deadline, _)| *deadline).min()
    }

    /// Blocks until a try has news, the bell rings, or so much time has passed, rounded up to a millisecond: what is due
    /// within one is best done together.
    pub fn wait(&mut self, time: Duration) -> io::Result<()> {
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let mut space = [const { MaybeUninit::uninit() }; EVENTS];
        match epoll::wait(&self.epoll, &mut space, Some(&time)) {
            Ok((events, _)) => self.news.extend(events.iter().map(|event| (event.data.u64(), event.flags))),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(())
    }

    /// Takes all news there are, and gives `end` the tries that have ended, those that ran out of time by `now` among them.
    pub fn collect(&mut self, now: Instant, mut end: impl FnMut(Ended)) -> io::Result<()> {
        loop {
            let mut news = std::mem::take(&mut self.news);
            let all = news.len() < EVENTS;
            for (data, flags) in news.drain(..) {
                if data == RUNG {
                    self.bell.iter().for_each(Bell::heard);
                } else {
                    self.follow(Id::of(data), flags).into_iter().for_each(&mut end);
                }
            }
            self.news = news;
            if all {
                break;
            }
            self.wait(Duration::ZERO)?;
        }
        self.expire(now, end);
        Ok(())
    }

    fn expire(&mut self, now: Instant, mut end: impl FnMut(Ended)) {
        for (timeout, deadlines) in &mut self.deadlines {
            while let Some(&(deadline, id)) = deadlines.front() {
                let under_way = is_under_way(&self.tries, id);
                if under_way && deadline > now {
                    break;
                }
                deadlines.pop_front();
                if !under_way {
                    continue;
                }
                if let Some(ended) = self.tries[id.number as usize].take() {
                    let phase = if matches!(ended.stage, Stage::Connecting) { Phase::Connect } else { Phase::Http };
                    self.free.push(id.number as usize);
                    end(Ended { tag: ended.tag, verdict: phase.cut_short(*timeout), started: ended.started });
                }
            }
        }
    }

    /// Takes one try as far as it goes.
    fn follow(&mut self, id: Id, flags: EventFlags) -> Option<Ended> {
        if !is_under_way(&self.tries, id) {
            return None;
        }
        let number = id.number as usize;
        let step = self.tries[number].as_mut()?.go_on(flags, self.ephemeral, &mut self.fetched)?;
        let Try { tag, started, .. } = self.tries[number].take()?;
        self.free.push(number);
        let verdict = step.err().unwrap_or(Verdict::Pass);
        Some(Ended { tag, verdict, started })
    }
}

impl Try {
    /// The end of the try, if this is it.
    fn go_on(&mut self, flags: EventFlags, ephemeral: u16, fetched: &mut [u8]) -> Option<Step<()>> {
        if matches!(self.stage, Stage::Connecting) {
            if let Err(verdict) = connected(&self.socket, flags, self.light.address, ephemeral) {
                return Some(Err(verdict));
            }
            self.stage = Stage::Sending(0);
        }
        if !matches!(self.light.kind, Kind::Http(_)) {
            return Some(Ok(()));
        }
        let light = self.light.clone();
        let Kind::Http(http) = &light.kind else { return Some(Ok(())) };
        self.exchange(http, flags, fetched).unwrap_or_else(|errno| Some(Err(Phase::Http.io(&errno.into()))))
    }

    fn exchange(&mut self, http: &Http, flags: EventFlags, fetched: &mut [u8]) -> Result<Option<Step<()>>, Errno> {
        if let Stage::Sending(sent) = &mut self.stage {
            if flags.contains(EventFlags::IN)
                && *sent == 0
                && net::recv(&self.socket, &mut *fetched, RecvFlags::PEEK)?.1 > 0
            {
                return Ok(Some(Err(Phase::Http.fail("not HTTP: the server spoke first"))));
            }
            match net::send(&self.socket, &http.request[*sent..], SendFlags::NOSIGNAL) {
                Ok(more) => *sent += more,
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
            if *sent < http.request.len() {
                return Ok(None);
            }
            self.stage = Stage::Answering(Vec::new());
            // There is nothing to read yet: the answer's coming is news of its own.
            return Ok(None);
        }
        let Stage::Answering(before) = &mut self.stage else { return Ok(None) };
        loop {
            let length = match net::recv(&self.socket, &mut *fetched, RecvFlags::empty()) {
                Ok((_, 0)) => return Ok(Some(Err(Phase::Http.cut_off("closed")))),
                Ok((_, length)) => length,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(errno) => return Err(errno),
            };
            let judged = if before.is_empty() {
                http.judge(&fetched[..length])
            } else {
                before.extend_from_slice(&fetched[..length]);
                http.judge(before)
            };
            if judged.is_some() {
                return Ok(judged);
            }
            if before.is_empty() {
                before.extend_from_slice(&fetched[..length]);
            }
            debug_assert!(before.len() < MOST_HEAD + FETCHED, "a longer head is judged");
        }
    }
}

/// One try by itself, where there is no swarm.
pub(super) async fn alone(light: &Arc<Light>) -> Verdict {
    let ours = |error: io::Error| Phase::Connect.own_io(&error);
    let mut swarm = match Swarm::new() {
        Ok(swarm) => swarm,
        Err(error) => return ours(error),
    };
    // SAFETY: the descriptor is owned by what registers it and closed by nothing else.
    let news = unsafe { AsyncFd::register_with_interest(swarm.epoll.clone(), Interest::READABLE) };
    let news = match news {
        Ok(news) => news,
        Err(error) => return ours(error.into()),
    };
    let now = clock::now();
    if let Some(ended) = swarm.start(0, light, now) {
        return ended.verdict;
    }
    let mut deadline = std::pin::pin!(tokio::time::sleep_until((now + light.timeout).into()));
    let mut verdict = None;
    loop {
        let ready = tokio::select! {
            ready = news.readable() => ready.map(|mut ready| ready.clear_ready()),
            () = &mut deadline => Ok(()),
        };
        let taken = ready.and_then(|()| swarm.wait(Duration::ZERO));
        if let Err(error) = taken.and_then(|()| swarm.collect(clock::now(), |ended| verdict = Some(ended.verdict))) {
            return ours(error);
        }
        if let Some(verdict) = verdict {
            return verdict;
        }
    }
}

/// Drops what has ended from the front.
fn forget_ended(deadlines: &mut VecDeque<(Instant, Id)>, tries: &[Option<Try>]) {
    while deadlines.front().is_some_and(|(_, id)| !is_under_way(tries, *id)) {
        deadlines.pop_front();
    }
}

fn is_under_way(tries: &[Option<Try>], id: Id) -> bool {
    tries.get(id.number as usize).and_then(Option::as_ref).is_some_and(|try_| try_.born == id.born)
}

/// Starts a connection that ends with a reset, at once and without TIME_WAIT on either side.
fn connect(light: &Light, epoll: &OwnedFd, id: Id) -> Step<OwnedFd> {
    let socket = connect::socket(light.address)?;
    let own_fault = |errno: Errno| Phase::Connect.own_io(&errno.into());
    if !matches!(light.kind, Kind::Accept) {
        // Linux then holds back the last ACK of the handshake for a moment, and what we do next takes its place: the reset of
        // a close, or the request.
        sockopt::set_tcp_quickack(&socket, false).map_err(own_fault)?;
    }
    let news = match light.kind {
        Kind::Quiet | Kind::Accept => EventFlags::OUT,
        Kind::Http(_) => EventFlags::OUT | EventFlags::IN,
    };
    connect::begin(&socket, light.address)?;
    // Closing the socket takes it out again.
    epoll::add(epoll, &socket, id.data(), news | EventFlags::ET).map_err(own_fault)?;
    Ok(socket)
}

/// What came of a connect.
fn connected(socket: &OwnedFd, flags: EventFlags, address: SocketAddr, ephemeral: u16) -> Step<()> {
    if flags.intersects(EventFlags::ERR | EventFlags::HUP) {
        connect::result(socket)?;
    }
    if address.port() >= ephemeral {
        connect::refuse_self(socket, address)?;
    }
    Ok(())
}

/// The lowest port that the kernel gives out by itself; the lowest of all if it does not say.
fn ephemeral() -> u16 {
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    range.split_whitespace().next().and_then(|lowest| lowest.parse().ok()).unwrap_or(0)
}
