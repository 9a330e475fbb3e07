//! The brake that keeps MySQL from blocking this host.
//!
//! A server counts the connections of a host that end between its greeting and the end of a login.
//! After `max_connect_errors` of them in a row, 100 by default, it refuses all clients of the host.
//! A login sets the count back, and so does a restart.
//!
//! | endings in a row | the server is asked                         | by checks at a time     |
//! | ---              | ---                                         | ---                     |
//! | fewer than 10    | at each probe                               | 40, less these endings  |
//! | 10, 11, 12, 13   | 1, 2, 4, 8 minutes after the last one       | 1                       |
//! | more             | 10 minutes after the last one               | 1                       |
//!
//! The probes between only connect, which the server's program never learns of, and repeat the last
//! verdict. A refused connect ends the brake, because nothing listens and what comes next counts
//! anew. So do three other failures in a row, as when another machine takes the address.
//!
//! The server counts by host, so all checks of an address share one brake. Those that are under way
//! when a server hangs all count, so only so many are at a time.
//!
//! The TLS settings of one check may be wrong, and those of another right. So a check that has
//! logged in may ask once more although the brake holds, within the 40: another login sets the
//! count back. A check that has not failed itself does not repeat the failed handshake of another.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::health::Verdict;
use crate::probe::conversation::ConnectFailure;
use crate::probe::phase::{Phase, is_of_tls};

/// The endings in a row after which the brake holds.
const MAX_ENDINGS: u32 = 10;

/// The time until a server is asked again for the first time.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The longest time until a server is asked again.
const MAX_PAUSE: Duration = Duration::from_secs(600);

/// The failed connects in a row that end the brake, if they are not refused.
const MAX_UNANSWERED: u32 = 3;

/// The most endings and attempts under way of a server that is asked at each probe. With those of
/// another replica of the daemon behind the same address, they are fewer than 100.
const MAX_ATTEMPTS: u32 = 40;

/// The time after which a server that is no longer probed is forgotten.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// The room that the brakes keep, however few there are.
const MIN_SHRUNK: usize = 256;

/// The time between two searches for servers to forget. One at each ending would take quadratic
/// time when thousands of servers hang.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);

/// The brakes of all servers that are being asked, or that have had an ending.
#[derive(Default)]
pub(super) struct Brakes {
    by_address: Mutex<HashMap<SocketAddr, Brake>>,
    swept_at: Mutex<Option<Instant>>,
}

/// The brakes of this process.
pub(super) static BRAKES: LazyLock<Arc<Brakes>> = LazyLock::new(Arc::default);

/// The brake of one server.
struct Brake {
    /// The attempts that are under way.
    attempts: u32,
    endings: u32,
    unanswered: u32,
    ended_at: Instant,
    /// The verdict of the newest attempt, if the server did not end it.
    verdict: Option<Verdict>,
}

/// The outcome of the newest attempt of one check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum LastAttempt {
    /// There was none, or the server has refused the login.
    #[default]
    Unknown,
    LoggedIn,
    /// An attempt that is under way, or has not come to an end.
    Failed,
}

/// The reason for which a check may not ask now.
enum Wait {
    For(Duration),
    /// Others ask.
    Turn,
}

impl Brake {
    fn new(now: Instant) -> Self {
        Self { attempts: 0, endings: 0, unanswered: 0, ended_at: now, verdict: None }
    }

    /// Returns the time after the last ending in which the server is not asked. None if it may be
    /// asked at any time.
    fn pause(&self) -> Option<Duration> {
        let above = self.endings.checked_sub(MAX_ENDINGS)?;
        Some(FIRST_PAUSE.saturating_mul(1 << above.min(10)).min(MAX_PAUSE))
    }

    /// Returns the time at which the server may be asked again. None if it may at any time.
    fn held_until(&self) -> Option<Instant> {
        Some(self.ended_at + self.pause()?)
    }

    /// Returns the reason for which a check may not ask. None if it may.
    fn wait(&self, last: LastAttempt, now: Instant) -> Option<Wait> {
        if last == LastAttempt::LoggedIn && self.attempts + self.endings < MAX_ATTEMPTS {
            return None;
        }
        let until = self.held_until();
        let wait = until.map_or(Duration::ZERO, |until| until.saturating_duration_since(now));
        if !wait.is_zero() {
            return Some(Wait::For(wait));
        }
        let most = if until.is_some() { 1 } else { MAX_ATTEMPTS - self.endings };
        (self.attempts >= most).then_some(Wait::Turn)
    }

    /// Returns the verdict of a check that may not ask.
    fn repeat(&self, wait: &Wait, last: LastAttempt) -> Verdict {
        let is_of_another = |verdict: &&Verdict| {
            last != LastAttempt::Failed && verdict.reason().is_some_and(is_of_tls)
        };
        let verdict = self.verdict.as_ref().filter(|verdict| !is_of_another(verdict));
        let note = |when| format!("asked {when}, as MySQL blocks hosts that do not finish");
        match verdict {
            Some(Verdict::Fail(reason)) => {
                Verdict::Fail(format!("{reason} ({})", note(self.next_attempt(wait))))
            }
            Some(Verdict::Inconclusive(reason)) => {
                Verdict::Inconclusive(format!("{reason} ({})", note(self.vague_next_attempt(wait))))
            }
            Some(Verdict::Pass) | None => {
                Phase::Greeting.inconclusive(note(self.vague_next_attempt(wait)))
            }
        }
    }

    /// Returns the time or the author of the next attempt in words.
    fn next_attempt(&self, wait: &Wait) -> String {
        match wait {
            Wait::For(wait) => {
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                format!("again in {}", humantime::format_duration(Duration::from_secs(seconds)))
            }
            Wait::Turn if self.attempts == 1 => "by another check now".to_owned(),
            Wait::Turn => format!("by {} other checks now", self.attempts),
        }
    }

    /// Returns the same in words that stay as they are from probe to probe. An inconclusive verdict
    /// with another reason is a line in the log, and later an Event.
    fn vague_next_attempt(&self, wait: &Wait) -> String {
        match (wait, self.pause()) {
            (Wait::For(_), Some(pause)) => {
                format!("again in at most {}", humantime::format_duration(pause))
            }
            _ => "by other checks now".to_owned(),
        }
    }

    /// Forgets the endings.
    fn release(&mut self) {
        (self.endings, self.unanswered, self.verdict) = (0, 0, None);
    }
}

impl Brakes {
    /// Returns whether the server may be asked now. If so, an attempt is under way.
    pub(super) fn admit(&self, address: SocketAddr, last: LastAttempt, now: Instant) -> bool {
        let mut brakes = self.lock();
        let brake = brakes.entry(address).or_insert_with(|| Brake::new(now));
        let is_admitted = brake.wait(last, now).is_none();
        brake.attempts += u32::from(is_admitted);
        is_admitted
    }

    /// Begins an attempt on a connection that was made while the server might not be asked. Returns
    /// the verdict to repeat if it still may not.
    pub(super) fn admit_late(
        self: &Arc<Self>,
        address: SocketAddr,
        last: LastAttempt,
        now: Instant,
    ) -> Result<Attempt, Verdict> {
        let mut brakes = self.lock();
        let brake = brakes.entry(address).or_insert_with(|| Brake::new(now));
        // It has been connected to, which may be in time for the brake to hold.
        brake.unanswered = 0;
        if let Some(wait) = brake.wait(last, now) {
            return Err(brake.repeat(&wait, last));
        }
        brake.attempts += 1;
        Ok(Attempt::new(self.clone(), address))
    }

    pub(super) fn on_connect_failure(&self, address: SocketAddr, failure: ConnectFailure) {
        let mut brakes = self.lock();
        let Some(brake) = brakes.get_mut(&address) else { return };
        brake.unanswered += u32::from(failure != ConnectFailure::Local);
        if failure == ConnectFailure::Refused || brake.unanswered >= MAX_UNANSWERED {
            brake.release();
            if brake.attempts == 0 {
                brakes.remove(&address);
            }
        }
    }

    /// Ends an attempt.
    fn end(&self, address: SocketAddr, outcome: Outcome) {
        let mut brakes = self.lock();
        let Some(brake) = brakes.get_mut(&address) else { return };
        brake.attempts = brake.attempts.saturating_sub(1);
        match outcome {
            Outcome::Success => brake.release(),
            Outcome::Answered if brake.endings > 0 => {}
            Outcome::Answered => brake.verdict = None,
            Outcome::Uncounted(verdict) => brake.verdict = Some(verdict),
            Outcome::Counted(verdict, now) => {
                (brake.endings, brake.unanswered) = (brake.endings.saturating_add(1), 0);
                (brake.ended_at, brake.verdict) = (now, Some(verdict));
                if self.begins_sweep(now) {
                    let is_new = |at: Instant| now.saturating_duration_since(at) < MAX_AGE;
                    brakes.retain(|_, brake| brake.attempts > 0 || is_new(brake.ended_at));
                }
            }
        }
        if brakes.get(&address).is_some_and(|brake| brake.attempts + brake.endings == 0) {
            brakes.remove(&address);
            // At the start thousands may be under way, and later few.
            if brakes.capacity() > 2 * MIN_SHRUNK && brakes.len() < brakes.capacity() / 8 {
                brakes.shrink_to(MIN_SHRUNK);
            }
        }
    }

    /// Returns whether it is time for a sweep. If so, it counts as made.
    fn begins_sweep(&self, now: Instant) -> bool {
        let mut swept_at = self.swept_at.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = swept_at.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_INTERVAL);
        if is_due {
            *swept_at = Some(now);
        }
        is_due
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Brake>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The outcome of an attempt to log in.
enum Outcome {
    /// The server has let the user log in, which sets its count back.
    Success,
    /// The server has refused the login, or it was not asked. Neither counts.
    Answered,
    /// The server has not greeted. That does not count.
    Uncounted(Verdict),
    /// The server counts the end.
    Counted(Verdict, Instant),
}

/// One admitted attempt to log in. Its end counts from the greeting on, also if the deadline drops
/// it.
pub(super) struct Attempt {
    brakes: Arc<Brakes>,
    address: SocketAddr,
    stage: Stage,
    /// The verdict with which the probe has ended. None if the deadline drops it.
    verdict: Option<Verdict>,
}

/// The stage of an attempt.
#[derive(Clone, Copy)]
enum Stage {
    Connecting,
    /// The greeting is awaited.
    Connected,
    /// An answer in this phase is awaited.
    Greeted(Phase),
    Ended,
}

impl Attempt {
    /// Returns an attempt that has been admitted.
    pub(super) fn new(brakes: Arc<Brakes>, address: SocketAddr) -> Self {
        Self { brakes, address, stage: Stage::Connecting, verdict: None }
    }

    /// Records that the connection is made.
    pub(super) fn connected(mut self) -> Self {
        self.stage = Stage::Connected;
        self
    }

    /// Begins to count, with the phase of the answer that is awaited.
    pub(super) fn open(&mut self, phase: Phase) {
        self.stage = Stage::Greeted(phase);
    }

    /// Records the verdict with which the probe has ended.
    pub(super) fn on_failure(&mut self, verdict: &Verdict) {
        if !matches!(self.stage, Stage::Ended) {
            self.verdict = Some(verdict.clone());
        }
    }

    /// Records that the server has refused the login.
    pub(super) fn close(&mut self) {
        self.end(Outcome::Answered);
    }

    /// Records a success, which sets the count of the server back.
    pub(super) fn succeed(&mut self) {
        self.end(Outcome::Success);
    }

    fn end(&mut self, outcome: Outcome) {
        if !matches!(self.stage, Stage::Ended) {
            self.stage = Stage::Ended;
            self.brakes.end(self.address, outcome);
        }
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let verdict = self.verdict.take();
        let or_none_in = |phase: Phase| verdict.unwrap_or_else(|| phase.fail("no answer"));
        self.end(match self.stage {
            Stage::Connecting | Stage::Ended => Outcome::Answered,
            Stage::Connected => Outcome::Uncounted(or_none_in(Phase::Greeting)),
            Stage::Greeted(phase) => Outcome::Counted(or_none_in(phase), clock::now()),
        });
    }
}

#[cfg(test)]
mod tests;
