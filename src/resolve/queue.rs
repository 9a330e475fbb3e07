//! The order in which names are asked, and the number of questions in the air. Pure.
//!
//! | first | names |
//! | --- | --- |
//! | 1 | of a target that has just failed |
//! | 2 | that have no answer yet |
//! | 3 | all others, by the time at which they are due |
//!
//! While others are due, at most every second lookup is of the first class: when all databases fail
//! at once, their names must not hold up the others for a minute.
//!
//! Names that DNS did not answer lately have at most half of the questions in the air, so that many
//! dead names do not hold up those that can be answered.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// A name of the queue. The numbers are small, because the queue holds a slot for each.
pub(super) type NameId = u32;

/// The class of a lookup: a lower one is asked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Urgency {
    TargetFailed,
    NeverAnswered,
    Refresh,
}

/// The time that the next lookup of a name is likely to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    Prompt,
    /// The newest lookup was not answered.
    Slow,
}

/// The next thing that the resolver does.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Asks for this name.
    Start { id: NameId, lateness: Lateness },
    /// Waits for this time, unless a lookup ends or the names change.
    Wait(Duration, Shortage),
    /// Waits until a lookup ends or the names change.
    Idle(Shortage),
}

/// The reason why a name that is due is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shortage {
    /// No name is due.
    None,
    /// All questions that one second allows were asked.
    Budget,
    /// All questions that may be in the air are.
    OpenQuestions,
    /// All names that are due were not answered lately, and such names have their half of the
    /// questions in the air.
    SlowQuestions,
}

/// The punctuality of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lateness {
    OnTime,
    /// The delay of a lookup that began more than a second after it was due, and more than a tenth
    /// of its wait.
    By(Duration),
}

/// The time by which a lookup may always begin late.
const LATENESS_TOLERANCE: Duration = Duration::from_secs(1);

/// The shortest wait for the budget. Lookups then begin in small groups, which costs less.
const MIN_BUDGET_WAIT: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// There is no such name.
    Absent,
    Waiting,
    Due,
    Open,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    due: Instant,
    /// The time from the lookup before until it is due, in milliseconds.
    wait_ms: u32,
    /// Questions that a lookup has in the air.
    questions: u8,
    phase: Phase,
    urgency: Urgency,
    pace: Pace,
}

/// The names to ask, with their due times.
#[derive(Debug)]
pub(super) struct LookupQueue {
    entries: Vec<Entry>,
    waiting: BTreeSet<(Instant, NameId)>,
    due: DueNames,
    open: OpenQuestions,
    budget: TokenBucket,
    /// The class of the newest lookup.
    last_urgency: Urgency,
}

/// The names that are due, by urgency and pace.
#[derive(Debug, Default)]
struct DueNames([[BTreeSet<(Instant, NameId)>; 2]; 3]);

#[derive(Debug)]
struct OpenQuestions {
    max: usize,
    prompt: usize,
    slow: usize,
}

/// Questions a second, with as many at once after a pause of a second.
#[derive(Debug)]
struct TokenBucket {
    per_second: f64,
    tokens: f64,
    filled_at: Instant,
}

impl DueNames {
    fn of(&mut self, entry: &Entry) -> &mut BTreeSet<(Instant, NameId)> {
        &mut self.0[entry.urgency as usize][entry.pace as usize]
    }
}

impl OpenQuestions {
    fn of(&mut self, pace: Pace) -> &mut usize {
        match pace {
            Pace::Prompt => &mut self.prompt,
            Pace::Slow => &mut self.slow,
        }
    }

    /// Returns whether a lookup may begin. One that is larger than the limit begins alone.
    fn have_room_for(&self, entry: &Entry) -> bool {
        self.have_room_at_all_for(entry)
            && (entry.pace == Pace::Prompt || Self::fits(entry, self.slow, self.max / 2))
    }

    /// Returns whether a lookup could begin if it were prompt.
    fn have_room_at_all_for(&self, entry: &Entry) -> bool {
        Self::fits(entry, self.prompt + self.slow, self.max)
    }

    fn fits(entry: &Entry, open: usize, max: usize) -> bool {
        open == 0 || open + usize::from(entry.questions) <= max
    }
}

impl TokenBucket {
    fn fill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + elapsed * self.per_second).min(self.per_second.max(1.0));
        self.filled_at = now;
    }

    /// Returns the wait until a lookup with so many questions may begin. One with more questions
    /// than a second allows waits for a full bucket.
    fn wait_for(&self, questions: u8) -> Duration {
        let needed = f64::from(questions).min(self.per_second.max(1.0));
        Duration::from_secs_f64(((needed - self.tokens) / self.per_second).max(0.0))
    }
}

impl LookupQueue {
    pub(super) fn new(questions_per_second: u32, max_open: usize, now: Instant) -> Self {
        let per_second = f64::from(questions_per_second);
        Self {
            entries: Vec::new(),
            waiting: BTreeSet::new(),
            due: DueNames::default(),
            open: OpenQuestions { max: max_open, prompt: 0, slow: 0 },
            budget: TokenBucket { per_second, tokens: per_second, filled_at: now },
            last_urgency: Urgency::Refresh,
        }
    }

    /// Adds a name that was never asked.
    pub(super) fn insert(&mut self, id: NameId, questions: usize, due: Instant) {
        let entry = Entry {
            due,
            wait_ms: 0,
            questions: u8::try_from(questions).unwrap_or(u8::MAX),
            phase: Phase::Waiting,
            urgency: Urgency::NeverAnswered,
            pace: Pace::Prompt,
        };
        let index = id as usize;
        if self.entries.len() <= index {
            self.entries.resize(index + 1, Entry { phase: Phase::Absent, ..entry });
        }
        self.entries[index] = entry;
        self.waiting.insert((due, id));
    }

    /// Removes a name. An open lookup of it is taken for ended.
    pub(super) fn remove(&mut self, id: NameId) {
        self.unschedule(id);
        self.entries[id as usize].phase = Phase::Absent;
    }

    /// Sets the number of questions of a name, from its next lookup on.
    pub(super) fn set_questions(&mut self, id: NameId, questions: usize) {
        let entry = &mut self.entries[id as usize];
        if entry.phase != Phase::Open {
            entry.questions = u8::try_from(questions).unwrap_or(u8::MAX);
        }
    }

    /// Returns true while a lookup of the name is open.
    pub(super) fn is_open(&self, id: NameId) -> bool {
        self.entries[id as usize].phase == Phase::Open
    }

    /// Returns when a name is due, or was due for its open lookup.
    pub(super) fn due(&self, id: NameId) -> Instant {
        self.entries[id as usize].due
    }

    /// Changes when a name is due. An open lookup stays as it is.
    pub(super) fn reschedule(&mut self, id: NameId, due: Instant, urgency: Urgency) {
        if self.is_open(id) {
            return;
        }
        self.unschedule(id);
        let entry = &mut self.entries[id as usize];
        (entry.due, entry.urgency, entry.phase) = (due, urgency, Phase::Waiting);
        self.waiting.insert((due, id));
    }

    /// Makes a name due no later than this.
    pub(super) fn advance(&mut self, id: NameId, due: Instant, urgency: Urgency) {
        let entry = self.entries[id as usize];
        if entry.due > due || entry.urgency > urgency {
            self.reschedule(id, entry.due.min(due), entry.urgency.min(urgency));
        }
    }

    /// Records the end of a lookup, and when the name is due again.
    pub(super) fn finish(&mut self, id: NameId, now: Instant, due: Instant, next: (Urgency, Pace)) {
        self.unschedule(id);
        let wait = due.saturating_duration_since(now).as_millis();
        let entry = &mut self.entries[id as usize];
        entry.wait_ms = u32::try_from(wait).unwrap_or(u32::MAX);
        (entry.urgency, entry.pace) = next;
        (entry.due, entry.phase) = (due, Phase::Waiting);
        self.waiting.insert((due, id));
    }

    /// Takes from the budget what a lookup asked beyond its share.
    pub(super) fn charge(&mut self, questions: usize) {
        self.budget.tokens -= questions as f64;
    }

    /// Returns what to do now. A name that it returns counts as open until [`Self::finish`].
    pub(super) fn next(&mut self, now: Instant) -> Next {
        self.budget.fill(now);
        self.collect_due(now);
        let Some(id) = self.first_due() else {
            let shortage = self.shortage_of_questions();
            return match self.waiting.first() {
                Some((due, _)) => Next::Wait(due.saturating_duration_since(now), shortage),
                None => Next::Idle(shortage),
            };
        };
        let entry = &mut self.entries[id as usize];
        let wait = self.budget.wait_for(entry.questions);
        if !wait.is_zero() {
            return Next::Wait(wait.max(MIN_BUDGET_WAIT), Shortage::Budget);
        }
        self.due.of(entry).remove(&(entry.due, id));
        self.last_urgency = entry.urgency;
        self.budget.tokens -= f64::from(entry.questions);
        *self.open.of(entry.pace) += usize::from(entry.questions);
        entry.phase = Phase::Open;
        let late_by = now.saturating_duration_since(entry.due);
        let tolerance =
            LATENESS_TOLERANCE.max(Duration::from_millis(u64::from(entry.wait_ms) / 10));
        let lateness = if late_by > tolerance { Lateness::By(late_by) } else { Lateness::OnTime };
        Next::Start { id, lateness }
    }

    /// Returns the first name that is due and may begin now.
    fn first_due(&self) -> Option<NameId> {
        let first = |urgency: Urgency| {
            let firsts = self.due.0[urgency as usize].iter().filter_map(BTreeSet::first);
            let is_startable = |id: NameId| self.open.have_room_for(&self.entries[id as usize]);
            firsts.filter(|(_, id)| is_startable(*id)).min().map(|(_, id)| *id)
        };
        let others = || first(Urgency::NeverAnswered).or_else(|| first(Urgency::Refresh));
        match self.last_urgency {
            Urgency::TargetFailed => others().or_else(|| first(Urgency::TargetFailed)),
            _ => first(Urgency::TargetFailed).or_else(others),
        }
    }

    /// Returns the reason why none of the names that are due may begin.
    fn shortage_of_questions(&self) -> Shortage {
        let firsts = self.due.0.iter().flatten().filter_map(BTreeSet::first);
        let mut entries = firsts.map(|(_, id)| &self.entries[*id as usize]).peekable();
        if entries.peek().is_none() {
            return Shortage::None;
        }
        if entries.all(|entry| self.open.have_room_at_all_for(entry)) {
            Shortage::SlowQuestions
        } else {
            Shortage::OpenQuestions
        }
    }

    fn collect_due(&mut self, now: Instant) {
        while let Some((due, id)) = self.waiting.first().copied().filter(|(due, _)| *due <= now) {
            self.waiting.remove(&(due, id));
            let entry = &mut self.entries[id as usize];
            entry.phase = Phase::Due;
            self.due.of(entry).insert((due, id));
        }
    }

    fn unschedule(&mut self, id: NameId) {
        let entry = &self.entries[id as usize];
        match entry.phase {
            Phase::Absent => {}
            Phase::Waiting => {
                self.waiting.remove(&(entry.due, id));
            }
            Phase::Due => {
                self.due.of(entry).remove(&(entry.due, id));
            }
            Phase::Open => *self.open.of(entry.pace) -= usize::from(entry.questions),
        }
    }
}

#[cfg(test)]
mod tests;
