//! What happens in a chaos run, and when: made of a seed before the run begins, so that a seed can be played again. Pure.

use std::fmt;
use std::time::Duration;

use super::record::At;

/// A target: the database, and which of its addresses.
pub(crate) type Who = (usize, usize);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The target refuses connections.
    Dies(Who),
    /// Every packet to and from the target vanishes.
    Hangs(Who),
    Returns(Who),
    /// Someone takes an address out of the Endpoints or the slice, or puts one in, by the index.
    Edit(Who),
    /// Someone deletes the Endpoints or the slice.
    Delete(usize),
    /// Someone takes the target out of the config.
    Leaves(Who),
    /// And puts it in again.
    Joins(Who),
    /// Someone changes the config in a way that means nothing.
    Comments,
    /// Someone breaks the config, and takes so long to mend it.
    Garbles(Duration),
    Api(ApiFault, Duration),
    Replica(Victim, ReplicaFault, Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ApiFault {
    Killed,
    Stopped,
    /// Each piece of each connection takes this long.
    Slow(Duration),
    /// Requests are answered with this status.
    Answers(u16),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Leader,
    Standby,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReplicaFault {
    /// And started again after the time.
    Killed,
    /// Asked to end, as in an update, and started again after the time.
    Ended,
    /// And continued after the time.
    Stopped,
    /// From the API alone.
    CutOff,
}

impl fmt::Display for ReplicaFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ReplicaFault::Killed => "killed",
            ReplicaFault::Ended => "ended",
            ReplicaFault::Stopped => "stopped",
            ReplicaFault::CutOff => "cut off",
        })
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Step {
    pub at: At,
    pub action: Action,
}

/// At most so many of all targets are dead at once.
const DEAD: f64 = 0.4;

/// A replica that has just come back is left alone for as long as it takes to know all targets; so is the API.
const CALM: Duration = Duration::from_secs(8);

/// Nobody edits the same Endpoints more often: repairs that are undone again and again become slow, as they should.
const EDITS_APART: Duration = Duration::from_secs(20);

/// At most so many targets are out of the config at once.
const OUT: usize = 8;

/// Whether a database has a policy of `minHealthy: 1`, so that it is never emptied. Its config is not edited.
pub(crate) fn keeps(database: usize) -> bool {
    database % 5 == 4
}

/// Whether a database is published in an EndpointSlice of the daemon's own, and not in Endpoints.
pub(crate) fn in_slice(database: usize) -> bool {
    database % 5 == 3
}

/// The whole scenario, in order, for databases of so many addresses each.
pub(crate) fn scenario(
    seed: u64,
    length: Duration,
    databases: usize,
    addresses: usize,
) -> Vec<Step> {
    let mut steps = targets(&mut Dice::new(seed, 1), length, databases, addresses);
    steps.extend(edits(&mut Dice::new(seed, 2), length, databases, addresses));
    steps.extend(api(&mut Dice::new(seed, 3), length));
    steps.extend(replicas(&mut Dice::new(seed, 4), length));
    steps.extend(configs(&mut Dice::new(seed, 5), length, databases, addresses));
    steps.sort_by_key(|step| step.at);
    steps
}

/// Deaths and returns: of single targets, and now and then of all of a database at once.
fn targets(dice: &mut Dice, length: Duration, databases: usize, addresses: usize) -> Vec<Step> {
    let mut up = vec![vec![true; addresses]; databases];
    let mut steps = Vec::new();
    let mut at = Duration::from_secs(1);
    while at < length {
        let database = dice.below(databases);
        let dead = up.iter().flatten().filter(|up| !**up).count();
        let may_die = (dead + addresses) as f64 <= DEAD * (databases * addresses) as f64;
        let which: Vec<usize> =
            if dice.one_in(12) { (0..addresses).collect() } else { vec![dice.below(addresses)] };
        let dies = up[database][which[0]];
        let hangs = dice.one_in(3);
        for index in which {
            let (who, is_up) = ((database, index), &mut up[database][index]);
            let action = match (*is_up, dies) {
                (true, true) if may_die && hangs => Action::Hangs(who),
                (true, true) if may_die => Action::Dies(who),
                (false, false) => Action::Returns(who),
                _ => continue,
            };
            *is_up = !*is_up;
            steps.push(Step { at, action });
        }
        at += dice.between(100, 1100);
    }
    steps
}

fn edits(dice: &mut Dice, length: Duration, databases: usize, addresses: usize) -> Vec<Step> {
    let mut last = vec![None; databases];
    let mut steps = Vec::new();
    let mut at = Duration::from_secs(2);
    while at < length {
        let database = dice.below(databases);
        if last[database].is_none_or(|last| at > last + EDITS_APART) {
            last[database] = Some(at);
            let action = if dice.one_in(4) {
                Action::Delete(database)
            } else {
                Action::Edit((database, dice.below(addresses)))
            };
            steps.push(Step { at, action });
        }
        at += dice.between(500, 2500);
    }
    steps
}

/// Edits of the config: of each database at most one address is out at a time.
fn configs(dice: &mut Dice, length: Duration, databases: usize, addresses: usize) -> Vec<Step> {
    let mut out: Vec<Who> = Vec::new();
    let mut steps = Vec::new();
    let mut at = dice.between(2000, 5000);
    let mut kinds = Bag::of(5);
    loop {
        let who = (dice.below(databases), dice.below(addresses));
        let free =
            !keeps(who.0) && out.len() < OUT && out.iter().all(|(database, _)| *database != who.0);
        let (action, lasts) = match kinds.draw(dice) {
            0 => (Some(Action::Comments), Duration::ZERO),
            1 => {
                let lasts = dice.between(1000, 6000);
                (Some(Action::Garbles(lasts)), lasts)
            }
            2 | 3 if !out.is_empty() => {
                (Some(Action::Joins(out.swap_remove(dice.below(out.len())))), Duration::ZERO)
            }
            _ if free => {
                out.push(who);
                (Some(Action::Leaves(who)), Duration::ZERO)
            }
            _ => (None, Duration::ZERO),
        };
        if at + lasts > length {
            return steps;
        }
        steps.extend(action.map(|action| Step { at, action }));
        at += lasts + dice.between(2000, 5000);
    }
}

fn api(dice: &mut Dice, length: Duration) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = dice.between(5000, 12_000);
    let mut kinds = Bag::of(4);
    loop {
        let (fault, lasts) = match kinds.draw(dice) {
            0 => (ApiFault::Killed, dice.between(500, 8000)),
            1 => (ApiFault::Stopped, dice.between(500, 14_000)),
            2 => (ApiFault::Answers([429, 500, 503][dice.below(3)]), dice.between(1000, 6000)),
            _ => (ApiFault::Slow(dice.between(50, 400)), dice.between(2000, 10_000)),
        };
        if at + lasts > length {
            return steps;
        }
        steps.push(Step { at, action: Action::Api(fault, lasts) });
        at += lasts + CALM + dice.between(12_000, 35_000);
    }
}

fn replicas(dice: &mut Dice, length: Duration) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut at = dice.between(8000, 20_000);
    let mut kinds = Bag::of(6);
    loop {
        let victim = if dice.one_in(4) { Victim::Standby } else { Victim::Leader };
        let (fault, lasts) = match kinds.draw(dice) {
            0 | 1 => (ReplicaFault::Killed, dice.between(500, 20_000)),
            2 | 3 => (ReplicaFault::Stopped, dice.between(500, 22_000)),
            4 => (ReplicaFault::Ended, dice.between(500, 10_000)),
            _ => (ReplicaFault::CutOff, dice.between(1000, 20_000)),
        };
        if at + lasts > length {
            return steps;
        }
        steps.push(Step { at, action: Action::Replica(victim, fault, lasts) });
        at += lasts + CALM + dice.between(12_000, 35_000);
    }
}

/// Kinds of which each is drawn once before any is drawn again: a short run has some of many.
struct Bag {
    kinds: usize,
    left: Vec<usize>,
}

impl Bag {
    fn of(kinds: usize) -> Bag {
        Bag { kinds, left: Vec::new() }
    }

    fn draw(&mut self, dice: &mut Dice) -> usize {
        if self.left.is_empty() {
            self.left = (0..self.kinds).collect();
        }
        let index = dice.below(self.left.len());
        self.left.swap_remove(index)
    }
}

/// Chance from a seed: SplitMix64, which is a line or two, and the same everywhere.
pub(crate) struct Dice(u64);

impl Dice {
    /// Each stream of actions has dice of its own, so that a change of one leaves the others as they were.
    pub(crate) fn new(seed: u64, stream: u64) -> Dice {
        let mut dice = Dice(seed ^ stream.rotate_left(32));
        dice.roll();
        dice
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

    /// A time between two numbers of milliseconds.
    pub(crate) fn between(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(least + self.roll() % (most - least + 1))
    }
}
