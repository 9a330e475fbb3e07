//! A random simulation of replicas, an API and a person: whatever happens, two replicas never may
//! write at the same time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use proptest::prelude::*;

use super::*;
use crate::clock;

const REPLICAS: usize = 3;
/// The length of a simulation, in ms.
const SIMULATION: u64 = 120_000;
/// The time without faults at its end, in ms.
const CALM: u64 = 60_000;
/// The time-out of a call, in ms.
const CALL_TIMEOUT: u64 = 3_000;

/// An act of a person on the Lease, or on a replica.
#[derive(Debug, Clone, Copy)]
enum Act {
    Delete,
    Empty,
    /// Writes the name of this replica as the holder.
    Name(usize),
    /// Changes something that does not matter.
    Touch,
    DropMark,
    SetDuration(u64),
    /// Kills a replica. Its container starts again after this time, under the same identity.
    Kill(usize, u64),
    /// Terminates a replica. Another starts after this time.
    Terminate(usize, u64),
    /// Stops all threads of a replica for this long.
    Stop(usize, u64),
    /// Has the checks of a replica stand still, or be late or inconclusive, for this long.
    StandStill(usize, u64),
    Impair(usize, u64),
}

fn act() -> impl Strategy<Value = Act> {
    let replica = 0..REPLICAS;
    prop_oneof![
        3 => Just(Act::Delete),
        3 => Just(Act::Empty),
        2 => replica.clone().prop_map(Act::Name),
        1 => Just(Act::Touch),
        1 => Just(Act::DropMark),
        1 => (0..40_000u64).prop_map(Act::SetDuration),
        2 => (replica.clone(), 0..5_000u64).prop_map(|(of, time)| Act::Kill(of, time)),
        2 => (replica.clone(), 0..5_000u64).prop_map(|(of, time)| Act::Terminate(of, time)),
        2 => (replica.clone(), 0..30_000u64).prop_map(|(of, time)| Act::Stop(of, time)),
        1 => (replica.clone(), 0..30_000u64).prop_map(|(of, time)| Act::StandStill(of, time)),
        1 => (replica, 0..30_000u64).prop_map(|(of, time)| Act::Impair(of, time)),
    ]
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Act(usize),
    /// The process with this number begins a tick.
    Tick(u64),
    /// A call arrives at the API.
    Arrive(usize),
    /// The answer of a call arrives, or the call times out.
    Answer(usize),
    Start(usize, u64),
    /// Writes have ended, and the Lease is released.
    Drained(u64),
}

/// One process of a replica.
struct Process {
    number: u64,
    election: Election,
    /// The version that a write rests on.
    basis: Option<String>,
    stopped_until: u64,
    still_until: u64,
    impaired_until: u64,
    ending: bool,
    /// Set when no write is in flight, and none begins.
    drained: bool,
    steps: u32,
}

enum Request {
    Get,
    Put(Draft, Option<String>),
    /// Releases the Lease.
    Release(Draft, Option<String>),
}

struct Call {
    process: u64,
    request: Request,
    begun: u64,
    answer: Option<Result<Option<Record>, ()>>,
    /// Set when it was answered or has timed out.
    over: bool,
}

struct Simulation {
    now: u64,
    start: BootInstant,
    acts: Vec<(u64, Act)>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    numbers: u64,
    chance: u64,
    lease: Option<Record>,
    replicas: Vec<Option<Process>>,
    calls: Vec<Call>,
    trace: Vec<String>,
}

impl Simulation {
    fn new(acts: Vec<(u64, Act)>, starts: [u64; REPLICAS], seed: u64) -> Self {
        let mut simulation = Self {
            now: 0,
            start: clock::boot_now(),
            acts,
            events: BinaryHeap::new(),
            numbers: 0,
            chance: seed,
            lease: None,
            replicas: (0..REPLICAS).map(|_| None).collect(),
            calls: Vec::new(),
            trace: Vec::new(),
        };
        for index in 0..simulation.acts.len() {
            simulation.at(simulation.acts[index].0, Event::Act(index));
        }
        for (replica, at) in starts.into_iter().enumerate() {
            let identity = simulation.number();
            simulation.at(at, Event::Start(replica, identity));
        }
        simulation
    }

    fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn at(&mut self, at: u64, event: Event) {
        let number = self.number();
        self.events.push(Reverse((at, number, event)));
    }

    /// Returns a random number below the limit, by SplitMix64.
    fn chance(&mut self, limit: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn is_calm(&self) -> bool {
        self.now + CALM >= SIMULATION
    }

    /// Returns the time that a message takes: mostly short, at times longer than any time-out.
    fn latency(&mut self) -> u64 {
        let limit = if self.is_calm() {
            20
        } else {
            [20, 20, 20, 200, 3_000, 25_000][self.chance(6) as usize]
        };
        self.chance(limit)
    }

    fn instant(&self) -> BootInstant {
        self.start + Duration::from_millis(self.now)
    }

    fn process(&mut self, number: u64) -> Option<&mut Process> {
        self.replicas.iter_mut().flatten().find(|process| process.number == number)
    }

    /// Counts the replicas that may write now.
    fn permitted(&self) -> usize {
        let now = self.instant();
        let may_write =
            |process: &&Process| !process.drained && process.election.remaining(now).is_some();
        self.replicas.iter().flatten().filter(may_write).count()
    }

    fn run(&mut self) -> Result<(), TestCaseError> {
        self.run_until(SIMULATION)?;
        prop_assert_eq!(self.permitted(), 1, "nobody may write at the end: {:#?}", &self.lease);
        Ok(())
    }

    fn run_until(&mut self, end: u64) -> Result<(), TestCaseError> {
        while self.events.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            let Some(Reverse((at, _, event))) = self.events.pop() else { break };
            self.now = at;
            self.trace.push(format!("{at}: {event:?}"));
            self.apply(event);
            prop_assert!(self.permitted() <= 1, "two may write: {:#?}", self.trace);
        }
        self.now = end;
        Ok(())
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Act(index) => self.act(self.acts[index].1),
            Event::Tick(number) => self.tick(number),
            Event::Arrive(call) => self.arrive(call),
            Event::Answer(call) => self.answer(call),
            Event::Start(replica, identity) => self.start(replica, identity),
            Event::Drained(number) => self.release(number),
        }
    }

    fn start(&mut self, replica: usize, identity: u64) {
        let number = self.number();
        let election =
            Election::new(format!("replica-{replica}-{identity}"), format!("process-{number}"));
        let (stopped_until, still_until, impaired_until) = (0, 0, 0);
        let (basis, ending, drained, steps) = (None, false, false, 0);
        let process = Process {
            number,
            election,
            basis,
            stopped_until,
            still_until,
            impaired_until,
            ending,
            drained,
            steps,
        };
        self.replicas[replica] = Some(process);
        self.at(self.now, Event::Tick(number));
    }

    fn act(&mut self, act: Act) {
        let (now, version) = (self.now, self.number().to_string());
        let name = |replica: &Option<Process>| {
            replica.as_ref().map(|process| process.election.identity.clone())
        };
        match act {
            Act::Delete => self.lease = None,
            Act::Empty => self.edit(version, |lease| lease.holder = None),
            Act::Name(replica) => {
                let name = name(&self.replicas[replica]);
                self.edit(version, |lease| lease.holder = name.or(lease.holder.take()));
            }
            Act::Touch => self.edit(version, |_| {}),
            Act::DropMark => self.edit(version, |lease| lease.mark = None),
            Act::SetDuration(ms) => {
                self.edit(version, |lease| lease.duration = Duration::from_millis(ms))
            }
            Act::Kill(replica, pause) => {
                if let Some(process) = self.replicas[replica].take() {
                    let identity =
                        process.election.identity.rsplit('-').next().and_then(|id| id.parse().ok());
                    self.at(now + pause, Event::Start(replica, identity.unwrap_or_default()));
                }
            }
            Act::Terminate(replica, pause) => {
                let drained = self.chance(5_000);
                if let Some(process) =
                    self.replicas[replica].as_mut().filter(|process| !process.ending)
                {
                    process.ending = true;
                    let number = process.number;
                    self.at(now + drained, Event::Drained(number));
                    let identity = self.number();
                    self.at(now + 10_000 + pause, Event::Start(replica, identity));
                }
            }
            Act::Stop(replica, time) => {
                self.with(replica, |process| process.stopped_until = now + time)
            }
            Act::StandStill(replica, time) => {
                self.with(replica, |process| process.still_until = now + time)
            }
            Act::Impair(replica, time) => {
                self.with(replica, |process| process.impaired_until = now + time)
            }
        }
    }

    fn with(&mut self, replica: usize, change: impl FnOnce(&mut Process)) {
        if let Some(process) = &mut self.replicas[replica] {
            change(process);
        }
    }

    fn edit(&mut self, version: String, change: impl FnOnce(&mut Record)) {
        if let Some(lease) = &mut self.lease {
            change(lease);
            lease.version = version;
        }
    }

    fn tick(&mut self, number: u64) {
        let (now, instant) = (self.now, self.instant());
        let Some(process) = self.process(number).filter(|process| !process.ending) else { return };
        if process.stopped_until > now {
            let until = process.stopped_until;
            return self.at(until, Event::Tick(number));
        }
        let checks = match () {
            () if process.still_until > now => Checks::Standstill(String::new()),
            () if process.impaired_until > now => {
                if process.number % 2 == 0 {
                    Checks::Late(String::new())
                } else {
                    Checks::Inconclusive(String::new())
                }
            }
            () => Checks::Timely,
        };
        process.steps = 0;
        process.election.begin_tick(checks, instant);
        self.step(number);
    }

    /// Does what the elector does between two answers.
    fn step(&mut self, number: u64) {
        let (now, instant) = (self.now, self.instant());
        let Some(process) = self.process(number).filter(|process| !process.ending) else { return };
        process.steps += 1;
        if process.steps > 8 {
            return self.at(now + 500, Event::Tick(number));
        }
        match process.election.next(instant) {
            Step::Observe => self.call(number, Request::Get),
            Step::Write(draft) => {
                let basis = process.basis.clone();
                self.call(number, Request::Put(draft, basis));
            }
            Step::FindInstallation => {
                process.election.set_installation(Installation::Existing);
                self.step(number);
            }
            Step::Release => {
                let drained = self.chance(5_000);
                self.at(now + drained, Event::Drained(number));
            }
            Step::Hold(pause) | Step::StandBy(pause) => {
                let left = process.election.remaining(instant).unwrap_or(pause);
                let pause = pause.min(left).as_millis() as u64;
                let jitter = self.chance(20);
                self.at(now + pause + jitter, Event::Tick(number));
            }
        }
    }

    fn release(&mut self, number: u64) {
        let instant = self.instant();
        let Some(process) = self.process(number) else { return };
        process.drained = true;
        match process.election.release(instant) {
            Some(draft) => {
                let basis = process.basis.clone();
                self.call(number, Request::Release(draft, basis));
            }
            None => self.end_release(number),
        }
    }

    /// Ends a process that is terminating, or the stepping down of one.
    fn end_release(&mut self, number: u64) {
        let (now, instant) = (self.now, self.instant());
        let Some(process) = self.process(number) else { return };
        if process.ending {
            let ended = self
                .replicas
                .iter_mut()
                .find(|replica| replica.as_ref().is_some_and(|of| of.number == number));
            return ended.into_iter().for_each(|replica| *replica = None);
        }
        process.election.step_down(instant);
        process.drained = false;
        self.at(now + 500, Event::Tick(number));
    }

    fn call(&mut self, process: u64, request: Request) {
        let call = self.calls.len();
        let instant = self.instant();
        let left = self.process(process).and_then(|process| process.election.remaining(instant));
        let limit = left.map_or(CALL_TIMEOUT, |left| CALL_TIMEOUT.min(left.as_millis() as u64));
        self.calls.push(Call { process, request, begun: self.now, answer: None, over: false });
        let arrives = self.now + self.latency();
        self.at(arrives, Event::Arrive(call));
        self.at(self.now + limit, Event::Answer(call));
    }

    fn arrive(&mut self, index: usize) {
        let version = self.number().to_string();
        let answer = match &self.calls[index].request {
            Request::Get => Ok(self.lease.clone()),
            Request::Put(draft, basis) | Request::Release(draft, basis) => {
                let create = draft.action == Action::Create;
                let matches = match &self.lease {
                    None => create,
                    Some(lease) => !create && Some(&lease.version) == basis.as_ref(),
                };
                let uid =
                    self.lease.as_ref().map_or_else(|| version.clone(), |lease| lease.uid.clone());
                let Draft { holder, transitions, mark, .. } = draft.clone();
                let stored = Record {
                    version,
                    uid,
                    holder,
                    duration: crate::lease::LEASE_DURATION,
                    transitions,
                    mark,
                };
                if matches { Ok(Some(self.lease.insert(stored).clone())) } else { Err(()) }
            }
        };
        self.calls[index].answer = Some(answer);
        let back = self.now + self.latency();
        self.at(back, Event::Answer(index));
    }

    /// Applies an answer, or the time-out of the call. A process that was stopped meanwhile
    /// receives it later.
    fn answer(&mut self, index: usize) {
        let (now, instant, start) = (self.now, self.instant(), self.start);
        let (number, begun) =
            (self.calls[index].process, start + Duration::from_millis(self.calls[index].begun));
        let Some(stopped_until) = self.process(number).map(|process| process.stopped_until) else {
            return;
        };
        if self.calls[index].over {
            return;
        }
        if stopped_until > now {
            return self.at(stopped_until, Event::Answer(index));
        }
        self.calls[index].over = true;
        let answer = self.calls[index].answer.take();
        let release = matches!(self.calls[index].request, Request::Release(..));
        let draft = match &self.calls[index].request {
            Request::Get => None,
            Request::Put(draft, _) | Request::Release(draft, _) => Some(draft.clone()),
        };
        let Some(process) = self.process(number).filter(|process| release || !process.ending)
        else {
            return;
        };
        match (answer, draft) {
            (None, _) if !release => return self.at(now + 500, Event::Tick(number)),
            (None, _) => {}
            (Some(Ok(Some(record))), Some(draft)) => {
                process.basis = Some(record.version.clone());
                process.election.on_written(&draft, record, begun, instant);
            }
            (Some(Ok(record)), _) => {
                process.basis = record.as_ref().map(|record| record.version.clone());
                process.election.observe(record, instant);
            }
            (Some(Err(())), _) => process.election.on_conflict(),
        }
        if release { self.end_release(number) } else { self.step(number) }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn two_replicas_never_may_write_at_the_same_time(
        acts in prop::collection::vec((0..SIMULATION - CALM, act()), 0..16),
        starts in prop::array::uniform3(0..20_000u64),
        seed in any::<u64>(),
    ) {
        Simulation::new(acts, starts, seed).run()?;
    }

    #[test]
    fn a_replica_that_checks_badly_writes_when_the_leader_is_gone(
        starts in prop::array::uniform2(0..20_000u64),
        seed in any::<u64>(),
    ) {
        let never = SIMULATION + 1;
        let mut simulation = Simulation::new(Vec::new(), [starts[0], starts[1], never], seed);
        simulation.run_until(SIMULATION - CALM + 20_000)?;
        let now = simulation.instant();
        let leads = |process: &Process| process.election.remaining(now).is_some();
        let mut replicas = simulation.replicas.iter();
        let leader = replicas.position(|replica| replica.as_ref().is_some_and(leads));
        let leader = leader.expect("a leader where all is well");
        simulation.act(Act::Impair(1 - leader, SIMULATION));
        simulation.act(Act::Kill(leader, never));
        for pause in (20_000..40_000).step_by(500) {
            simulation.run_until(SIMULATION - CALM + 20_000 + pause)?;
            let permitted = simulation.permitted();
            prop_assert_eq!(permitted, 1, "nobody writes {} ms after the leader is gone", pause);
        }
    }
}
