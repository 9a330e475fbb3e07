//! The scenario of a chaos run: all actions with their times, made from a seed before the run, so
//! that it can be repeated. Pure.

use std::fmt;
use std::time::Duration;

use super::dns_history::SERVERS;
use super::record::Time;

/// A target: its database, and the index of its address.
pub(crate) type Target = (usize, usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The target refuses connections.
    KillTarget(Target),
    /// Every packet to and from the target vanishes.
    BlackHoleTarget(Target),
    RestoreTarget(Target),
    /// A person removes an address from the Endpoints or the slice, or adds it.
    Edit(Target),
    /// A person deletes the Endpoints or the slice.
    Delete(usize),
    /// A person removes the target from the config.
    RemoveTarget(Target),
    /// A person adds the target to the config again.
    AddTarget(Target),
    /// A person edits a comment in the config.
    EditComment,
    /// A person breaks the config, and mends it after this time.
    CorruptConfig(Duration),
    Api(ApiFault, Duration),
    /// DNS gives these addresses of a database from now on.
    Answer(usize, Servers, Part),
    /// A name has no good answer for this time; without a database all names.
    Dns(Option<usize>, Servers, DnsFault, Duration),
    Replica(Victim, ReplicaFault, Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApiFault {
    Killed,
    Stopped,
    /// Each piece of data on each connection is delayed by this time.
    Slow(Duration),
    /// Requests are answered with this status.
    Answers(u16),
}

/// A part of the addresses of a database: so many from the first on, and around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    pub first: usize,
    pub count: usize,
}

impl Part {
    /// Returns this part of all addresses.
    pub(crate) fn of<T: Copy>(self, all: &[T]) -> impl Iterator<Item = T> {
        all.iter().cycle().skip(self.first).take(self.count).copied()
    }
}

/// The DNS servers of an action. Each replica has its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Servers {
    Both,
    One(usize),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DnsFault {
    NoSuchName,
    NoRecords,
    /// The server answers with this code and no records.
    Code(u16),
    Silence,
    /// A truncated answer, and none over TCP.
    Truncated,
    Garbage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Leader,
    Standby,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplicaFault {
    /// Killed, and restarted after the time.
    Killed,
    /// Terminated, as by a rollout, and restarted after the time.
    Terminated,
    /// Suspended, and continued after the time.
    Stopped,
    /// Cut off from the API only.
    CutOff,
}

impl fmt::Display for ReplicaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReplicaFault::Killed => "killed",
            ReplicaFault::Terminated => "ended",
            ReplicaFault::Stopped => "stopped",
            ReplicaFault::CutOff => "cut off",
        })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub at: Time,
    pub action: Action,
}

/// The largest share of all targets that are dead at the same time.
const MAX_DEAD_SHARE: f64 = 0.4;

/// The pause after a fault of a replica or of the API. It is long enough to check all targets.
const MIN_PAUSE: Duration = Duration::from_secs(8);

/// The shortest time between two edits of the same object. If repairs are undone more often, the
/// daemon slows down by design.
const EDIT_INTERVAL: Duration = Duration::from_secs(20);

/// The shortest time between two answers of DNS for the same database.
const ANSWER_INTERVAL: Duration = Duration::from_secs(12);

/// Response codes of DNS (RFC 1035, 4.1.1).
const SERVER_FAILURE: u16 = 2;
const REFUSED: u16 = 5;

/// The largest number of targets that are out of the config at the same time.
const MAX_REMOVED: usize = 8;

/// Returns true if a database has the policy `minHealthy: 1`, so that it is never emptied. Its
/// targets stay in the config.
pub(crate) fn keeps_last_target(database: usize) -> bool {
    database % 5 == 4
}

/// Returns true if a database is published in an EndpointSlice of the daemon instead of in
/// Endpoints.
pub(crate) fn uses_slice(database: usize) -> bool {
    database % 5 == 3
}

/// Returns true if the addresses of a database come from DNS.
pub(crate) fn is_named(database: usize) -> bool {
    database % 3 == 1
}

/// Makes the whole scenario, in order, for databases with this number of addresses each.
pub(crate) fn scenario(
    seed: u64,
    length: Duration,
    databases: usize,
    addresses: usize,
) -> Vec<Step> {
    let mut steps = targets(&mut Rng::new(seed, 1), length, databases, addresses);
    steps.extend(edits(&mut Rng::new(seed, 2), length, databases, addresses));
    steps.extend(api(&mut Rng::new(seed, 3), length));
    steps.extend(replicas(&mut Rng::new(seed, 4), length));
    steps.extend(configs(&mut Rng::new(seed, 5), length, databases, addresses));
    steps.extend(answers(&mut Rng::new(seed, 6), length, databases, addresses));
    steps.extend(dns(&mut Rng::new(seed, 7), length, databases));
    steps.sort_by_key(|step| step.at);
    steps
}

/// Makes deaths and returns: of single targets, and sometimes of all targets of a database.
fn targets(rng: &mut Rng, length: Duration, databases: usize, addresses: usize) -> Vec<Step> {
    let mut up = vec![vec![true; addresses]; databases];
    let mut steps = Vec::new();
    let mut at = Duration::from_secs(1);
    while at < length {
        let database = rng.below(databases);
        let dead = up.iter().flatten().filter(|up| !**up).count();
        let may_die = (dead + addresses) as f64 <= MAX_DEAD_SHARE * (databases * addresses) as f64;
        let which: Vec<usize> =
            if rng.one_in(12) { (0..addresses).collect() } else { vec![rng.below(addresses)] };
        let dies = up[database][which[0]];
        let hangs = rng.one_in(3);
        for index in which {
            let (who, is_up) = ((database, index), &mut up[database][index]);
            let action = match (*is_up, dies) {
                (true, true) if may_die && hangs => Action::BlackHoleTarget(who),
                (true, true) if may_die => Action::KillTarget(who),
                (false, false) => Action::RestoreTarget(who),
                _ => continue,
            };
            *is_up = !*is_up;
            steps.push(Step { at, action });
        }
        at += rng.between(100, 1100);
    }
    steps
}

fn edits(rng: &mut Rng, length: Duration, databases: usize, addresses: usize) -> Vec<Step> {
    let mut last = vec![None; databases];
    let mut steps = Vec::new();
    let mut at = Duration::from_secs(2);
    while at < length {
        let database = rng.below(databases);
        if last[database].is_none_or(|last| at > last + EDIT_INTERVAL) {
            last[database] = Some(at);
            let action = if rng.one_in(4) {
                Action::Delete(database)
            } else {
                Action::Edit((database, rng.below(addresses)))
            };
            steps.push(Step { at, action });
        }
        at += rng.between(500, 2500);
    }
    steps
}

/// Makes edits of the config. At most one address of each database is out at the same time.
fn configs(rng: &mut Rng, length: Duration, databases: usize, addresses: usize) -> Vec<Step> {
    let mut out: Vec<Target> = Vec::new();
    let mut steps = Vec::new();
    let mut at = rng.between(2000, 5000);
    let mut kinds = ShuffleBag::of(5);
    loop {
        let who = (rng.below(databases), rng.below(addresses));
        let free = !keeps_last_target(who.0)
            && !is_named(who.0)
            && out.len() < MAX_REMOVED
            && out.iter().all(|(database, _)| *database != who.0);
        let (action, lasts) = match kinds.draw(rng) {
            0 => (Some(Action::EditComment), Duration::ZERO),
            1 => {
                let lasts = rng.between(1000, 6000);
                (Some(Action::CorruptConfig(lasts)), lasts)
            }
            2 | 3 if !out.is_empty() => {
                (Some(Action::AddTarget(out.swap_remove(rng.below(out.len())))), Duration::ZERO)
            }
            _ if free => {
                out.push(who);
                (Some(Action::RemoveTarget(who)), Duration::ZERO)
            }
            _ => (None, Duration::ZERO),
        };
        if at + lasts > length {
            return steps;
        }
        steps.extend(action.map(|action| Step { at, action }));
        at += lasts + rng.between(2000, 5000);
    }
}

fn api(rng: &mut Rng, length: Duration) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = rng.between(5000, 12_000);
    let mut kinds = ShuffleBag::of(4);
    loop {
        let (fault, lasts) = match kinds.draw(rng) {
            0 => (ApiFault::Killed, rng.between(500, 8000)),
            1 => (ApiFault::Stopped, rng.between(500, 14_000)),
            2 => (ApiFault::Answers([429, 500, 503][rng.below(3)]), rng.between(1000, 6000)),
            _ => (ApiFault::Slow(rng.between(50, 400)), rng.between(2000, 10_000)),
        };
        if at + lasts > length {
            return steps;
        }
        steps.push(Step { at, action: Action::Api(fault, lasts) });
        at += lasts + MIN_PAUSE + rng.between(12_000, 35_000);
    }
}

/// Makes changes of what DNS answers: some of the addresses, others, or all of them again.
fn answers(rng: &mut Rng, length: Duration, databases: usize, addresses: usize) -> Vec<Step> {
    let named: Vec<usize> = (0..databases).filter(|database| is_named(*database)).collect();
    let mut last = vec![None; databases];
    let mut steps = Vec::new();
    let mut at = Duration::from_secs(2);
    while at < length {
        let database = named[rng.below(named.len())];
        if last[database].is_none_or(|last| at > last + ANSWER_INTERVAL) {
            last[database] = Some(at);
            let first = rng.below(addresses);
            let count = if rng.one_in(3) { addresses } else { 1 + rng.below(addresses - 1) };
            let action = Action::Answer(database, servers(rng), Part { first, count });
            steps.push(Step { at, action });
        }
        at += rng.between(300, 1500);
    }
    steps
}

/// Makes faults of DNS servers.
fn dns(rng: &mut Rng, length: Duration, databases: usize) -> Vec<Step> {
    let named: Vec<usize> = (0..databases).filter(|database| is_named(*database)).collect();
    let mut steps = Vec::new();
    let mut at = rng.between(3000, 6000);
    let mut kinds = ShuffleBag::of(7);
    loop {
        let fault = match kinds.draw(rng) {
            0 => DnsFault::NoSuchName,
            1 => DnsFault::NoRecords,
            2 => DnsFault::Code(SERVER_FAILURE),
            3 => DnsFault::Code(REFUSED),
            4 => DnsFault::Silence,
            5 => DnsFault::Truncated,
            _ => DnsFault::Garbage,
        };
        let database = (!rng.one_in(6)).then(|| named[rng.below(named.len())]);
        let (servers, lasts) = (servers(rng), rng.between(1000, 12_000));
        if at + lasts > length {
            return steps;
        }
        steps.push(Step { at, action: Action::Dns(database, servers, fault, lasts) });
        at += lasts + rng.between(1000, 8000);
    }
}

fn servers(rng: &mut Rng) -> Servers {
    if rng.one_in(3) { Servers::One(rng.below(SERVERS)) } else { Servers::Both }
}

fn replicas(rng: &mut Rng, length: Duration) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = rng.between(8000, 20_000);
    let mut kinds = ShuffleBag::of(6);
    loop {
        let victim = if rng.one_in(4) { Victim::Standby } else { Victim::Leader };
        let (fault, lasts) = match kinds.draw(rng) {
            0 | 1 => (ReplicaFault::Killed, rng.between(500, 20_000)),
            2 | 3 => (ReplicaFault::Stopped, rng.between(500, 22_000)),
            4 => (ReplicaFault::Terminated, rng.between(500, 10_000)),
            _ => (ReplicaFault::CutOff, rng.between(1000, 20_000)),
        };
        if at + lasts > length {
            return steps;
        }
        steps.push(Step { at, action: Action::Replica(victim, fault, lasts) });
        at += lasts + MIN_PAUSE + rng.between(12_000, 35_000);
    }
}

/// Draws each kind once before it draws any of them again, so that a short run has many kinds.
struct ShuffleBag {
    kinds: usize,
    left: Vec<usize>,
}

impl ShuffleBag {
    fn of(kinds: usize) -> ShuffleBag {
        ShuffleBag { kinds, left: Vec::new() }
    }

    fn draw(&mut self, rng: &mut Rng) -> usize {
        if self.left.is_empty() {
            self.left = (0..self.kinds).collect();
        }
        let index = rng.below(self.left.len());
        self.left.swap_remove(index)
    }
}

/// Random numbers from a seed, by SplitMix64: it is short, and the same on every machine.
pub(crate) struct Rng(u64);

impl Rng {
    /// Starts a stream of numbers. Each stream of actions has its own, so that a change of one
    /// leaves the others as they are.
    pub(crate) fn new(seed: u64, stream: u64) -> Rng {
        let mut rng = Rng(seed ^ stream.rotate_left(32));
        rng.roll();
        rng
    }

    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.roll() % limit as u64).expect("less than a usize")
    }

    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    /// Draws a duration between two numbers of milliseconds.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.roll() % (most - least + 1))
    }
}
