//! The brake that keeps MySQL from blocking this host.
//!
//! A server counts the connections of a host that end between its greeting and the end of a login.
//! After `max_connect_errors` of them in a row, 100 by default, it refuses all clients of the host.
//! A login sets the count back, and so does a restart.
//!
//! | endings in a row | the server is asked                                     |
//! | ---              | ---                                                     |
//! | fewer than 10    | at each probe                                           |
//! | 10, 11, 12, 13   | 1, 2, 4, 8 minutes after the last one                   |
//! | more             | 10 minutes after the last one                           |
//!
//! The probes between only connect, which the server's program never learns of, and repeat the last
//! verdict. A refused connect ends the brake, because nothing listens and what comes next counts
//! anew. So do three other failures in a row, as when another machine takes the address.
//!
//! The server counts by host, so all checks of an address share one brake, and after a pause only
//! one of them asks.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::clock;
use crate::health::Verdict;
use crate::probe::conversation::ConnectFailure;

/// The endings in a row after which the brake holds.
const MAX_ENDINGS: u32 = 10;

/// The time until a server is asked again for the first time.
const FIRST_PAUSE: Duration = Duration::from_secs(60);

/// The longest time until a server is asked again.
const MAX_PAUSE: Duration = Duration::from_secs(600);

/// The failed connects in a row that end the brake, if they are not refused.
const MAX_UNANSWERED: u32 = 3;

/// The time for which a check that asks after a pause keeps the others from it, at most.
const MAX_TURN: Duration = Duration::from_secs(60);

/// The time after which a server that is no longer probed is forgotten.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// The brakes of all servers that have had an ending.
#[derive(Default)]
pub(super) struct Brakes(Mutex<HashMap<SocketAddr, Brake>>);

/// The brakes of this process.
pub(super) static BRAKES: LazyLock<Arc<Brakes>> = LazyLock::new(Arc::default);

/// The brake of one server.
struct Brake {
    endings: u32,
    unanswered: u32,
    ended_at: Instant,
    /// The time at which a check has begun to ask after a pause. None while none asks.
    asked_at: Option<Instant>,
    verdict: Verdict,
}

impl Brake {
    /// Returns the time at which the server may be asked again. None if it may at any time.
    fn held_until(&self) -> Option<Instant> {
        let above = self.endings.checked_sub(MAX_ENDINGS)?;
        let pause = FIRST_PAUSE.saturating_mul(1 << above.min(10)).min(MAX_PAUSE);
        Some(self.ended_at + pause)
    }

    /// Returns the time until the server is asked again, or zero if another check asks now. None if
    /// it may be asked.
    fn wait(&self, now: Instant) -> Option<Duration> {
        let wait = self.held_until()?.saturating_duration_since(now);
        let is_asked = |at: Instant| now.saturating_duration_since(at) < MAX_TURN;
        (!wait.is_zero() || self.asked_at.is_some_and(is_asked)).then_some(wait)
    }
}

impl Brakes {
    /// Returns the verdict to repeat if the server must not be asked now.
    pub(super) fn held(&self, address: SocketAddr, now: Instant) -> Option<Verdict> {
        let mut brakes = self.lock();
        let brake = brakes.get_mut(&address)?;
        let wait = brake.wait(now)?;
        // It has been connected to, which may be in time for the brake to hold.
        brake.unanswered = 0;
        let wait = Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0));
        let when = match wait.is_zero() {
            true => "by another check now".to_owned(),
            false => format!("again in {}", humantime::format_duration(wait)),
        };
        let note = format!(" (asked {when}, as MySQL blocks hosts that do not finish)");
        Some(match &brake.verdict {
            Verdict::Inconclusive(reason) => Verdict::Inconclusive(reason.clone() + &note),
            verdict => Verdict::Fail(verdict.reason().unwrap_or_default().to_owned() + &note),
        })
    }

    /// Returns whether the server may be asked now. After a pause it is then the caller's turn
    /// alone, until its attempt or its connect ends.
    pub(super) fn admit(&self, address: SocketAddr, now: Instant) -> bool {
        let mut brakes = self.lock();
        let Some(brake) = brakes.get_mut(&address) else { return true };
        if brake.wait(now).is_some() {
            return false;
        }
        brake.asked_at = brake.held_until().map(|_| now);
        true
    }

    /// Ends the turn of a check that has asked after a pause.
    fn end_turn(&self, address: SocketAddr) {
        if let Some(brake) = self.lock().get_mut(&address) {
            brake.asked_at = None;
        }
    }

    /// Records the end of a login by the server, which sets its count back if it was a success.
    pub(super) fn release(&self, address: SocketAddr) {
        let mut brakes = self.lock();
        if !brakes.is_empty() {
            brakes.remove(&address);
        }
    }

    pub(super) fn on_connect_failure(&self, address: SocketAddr, failure: ConnectFailure) {
        let mut brakes = self.lock();
        let Some(brake) = brakes.get_mut(&address) else { return };
        brake.asked_at = None;
        brake.unanswered += u32::from(failure != ConnectFailure::Local);
        if failure == ConnectFailure::Refused || brake.unanswered >= MAX_UNANSWERED {
            brakes.remove(&address);
        }
    }

    /// Records an ending that the server counts.
    fn record(&self, address: SocketAddr, verdict: Verdict, now: Instant) {
        let mut brakes = self.lock();
        brakes.retain(|_, brake| now.saturating_duration_since(brake.ended_at) < MAX_AGE);
        let endings = brakes.get(&address).map_or(0, |brake| brake.endings).saturating_add(1);
        let brake = Brake { endings, unanswered: 0, ended_at: now, asked_at: None, verdict };
        brakes.insert(address, brake);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Brake>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One login. Its end counts towards the block while it is open, also if the deadline drops it.
pub(super) struct Attempt {
    brakes: Arc<Brakes>,
    address: SocketAddr,
    /// The verdict if the attempt ends now. None while its end does not count.
    verdict: Option<Verdict>,
}

impl Attempt {
    pub(super) fn new(brakes: Arc<Brakes>, address: SocketAddr) -> Self {
        Self { brakes, address, verdict: None }
    }

    /// Begins to count, with the verdict if the probe is dropped.
    pub(super) fn open(&mut self, verdict: Verdict) {
        self.verdict = Some(verdict);
    }

    /// Ends the count, because the server has ended the login.
    pub(super) fn close(&mut self) {
        self.verdict = None;
    }

    /// Records the verdict with which the login has ended.
    pub(super) fn on_failure(&mut self, verdict: &Verdict) {
        if self.verdict.is_some() {
            self.verdict = Some(verdict.clone());
        }
    }

    /// Records a success, which sets the count of the server back.
    pub(super) fn succeed(&mut self) {
        self.close();
        self.brakes.release(self.address);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        match self.verdict.take() {
            Some(verdict) => self.brakes.record(self.address, verdict, clock::now()),
            None => self.brakes.end_turn(self.address),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 3306).into()
    }

    fn late() -> Verdict {
        Verdict::Fail("auth: no answer in 2s".into())
    }

    /// Returns brakes after so many endings, one at each second from `start` on, and the last time.
    fn after(endings: u32, start: Instant) -> (Brakes, Instant) {
        let brakes = Brakes::default();
        let last = start + endings * SECOND;
        (0..endings).for_each(|second| brakes.record(address(1), late(), start + second * SECOND));
        brakes.lock().values_mut().for_each(|brake| brake.ended_at = last);
        (brakes, last)
    }

    fn is_held(brakes: &Brakes, last: u8, now: Instant) -> bool {
        brakes.lock().get(&address(last)).is_some_and(|brake| brake.wait(now).is_some())
    }

    #[test]
    fn the_pauses_are_those_of_the_table() {
        for (endings, seconds) in
            [(0, 0), (9, 0), (10, 60), (11, 120), (12, 240), (13, 480), (14, 600), (99, 600)]
        {
            let (brakes, last) = after(endings, clock::now());
            let held = |after: u64| is_held(&brakes, 1, last + Duration::from_secs(after));
            assert_eq!(held(0), seconds > 0, "{endings}");
            assert!(seconds == 0 || held(seconds - 1), "{endings}");
            assert!(!held(seconds) && !is_held(&brakes, 2, last), "{endings}");
        }
    }

    #[test]
    fn the_last_verdict_is_repeated_with_the_time() {
        let (brakes, last) = after(10, clock::now());
        let held = |after| brakes.held(address(1), last + after).unwrap();
        let note = "(asked again in 20s, as MySQL blocks hosts that do not finish)";
        let reason = format!("auth: no answer in 2s {note}");
        assert_eq!(held(40 * SECOND), Verdict::Fail(reason.clone()));
        assert_eq!(held(40 * SECOND + SECOND / 2), Verdict::Fail(reason));
        assert!(brakes.held(address(1), last + 60 * SECOND).is_none());
        let refused = Verdict::Inconclusive("tls: a file is missing".into());
        brakes.record(address(1), refused, last);
        let verdict = brakes.held(address(1), last + SECOND).unwrap();
        let reason = format!("tls: a file is missing {}", note.replace("20s", "1m 59s"));
        assert_eq!(verdict, Verdict::Inconclusive(reason));
    }

    #[test]
    fn a_login_or_a_restart_ends_the_brake() {
        let start = clock::now();
        let is_held = |end: &dyn Fn(&Brakes)| {
            let (brakes, last) = after(12, start);
            end(&brakes);
            self::is_held(&brakes, 1, last)
        };
        let fail = |brakes: &Brakes, failure| brakes.on_connect_failure(address(1), failure);
        assert!(is_held(&|_| {}));
        assert!(!is_held(&|brakes| brakes.release(address(1))));
        assert!(!is_held(&|brakes| fail(brakes, ConnectFailure::Refused)));
        let lost = |brakes: &Brakes| fail(brakes, ConnectFailure::Other);
        assert!(is_held(&|brakes| (0..2).for_each(|_| lost(brakes))));
        assert!(!is_held(&|brakes| (0..3).for_each(|_| lost(brakes))));
        // A fault of this host says nothing of the server.
        let local = |brakes: &Brakes| fail(brakes, ConnectFailure::Local);
        assert!(is_held(&|brakes| (0..3).for_each(|_| local(brakes))));
        assert!(is_held(&|brakes| {
            (0..2).for_each(|_| lost(brakes));
            assert!(brakes.held(address(1), start + 12 * SECOND).is_some());
            (0..2).for_each(|_| lost(brakes));
        }));
    }

    #[test]
    fn after_a_pause_one_check_asks_at_a_time() {
        let (brakes, last) = after(10, clock::now());
        let (brakes, over) = (Arc::new(brakes), last + 60 * SECOND);
        let admit = |after| brakes.admit(address(1), over + after);
        let no_wait = Duration::ZERO;
        assert!(!brakes.admit(address(1), over - SECOND));
        assert!(admit(no_wait) && !admit(no_wait) && !admit(SECOND));
        let Some(Verdict::Fail(reason)) = brakes.held(address(1), over) else { panic!("a turn") };
        assert!(reason.contains(" (asked by another check now, as MySQL"), "{reason}");
        // An answer that is no login ends the turn, and so does a failed connect.
        drop(Attempt::new(brakes.clone(), address(1)));
        assert!(admit(SECOND) && !admit(SECOND));
        brakes.on_connect_failure(address(1), ConnectFailure::Local);
        assert!(admit(SECOND) && !admit(SECOND));
        assert!(admit(SECOND + MAX_TURN), "a turn that is lost ends too");
        brakes.record(address(1), late(), over + SECOND);
        assert!(!admit(120 * SECOND) && admit(121 * SECOND));
        brakes.release(address(1));
        assert!(admit(SECOND) && admit(SECOND));
    }

    #[test]
    fn only_an_open_attempt_counts() {
        let brakes = Arc::new(Brakes::default());
        let endings = || brakes.lock().get(&address(1)).map_or(0, |brake| brake.endings);
        let attempt = || Attempt::new(brakes.clone(), address(1));
        drop(attempt());
        assert_eq!(endings(), 0);
        let mut dropped = attempt();
        dropped.open(late());
        drop(dropped);
        assert_eq!(endings(), 1);
        let mut refused = attempt();
        refused.open(late());
        refused.close();
        refused.on_failure(&late());
        drop(refused);
        assert_eq!(endings(), 1, "an error of the server neither counts nor sets back");
        let mut reset = attempt();
        reset.open(late());
        reset.on_failure(&Verdict::Fail("auth: connection reset".into()));
        drop(reset);
        assert_eq!(endings(), 2);
        let reason = |brake: &Brake| brake.verdict.reason().map(str::to_owned);
        assert_eq!(brakes.lock().values().find_map(reason).unwrap(), "auth: connection reset");
        let mut passed = attempt();
        passed.open(late());
        passed.succeed();
        drop(passed);
        assert_eq!(endings(), 0);
    }

    #[test]
    fn servers_that_are_gone_are_forgotten() {
        let (brakes, last) = after(12, clock::now());
        brakes.record(address(2), late(), last + MAX_AGE);
        assert_eq!(brakes.lock().len(), 1);
    }
}
