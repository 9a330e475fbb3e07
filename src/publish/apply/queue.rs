//! What all writes share: so many under way at once, so many a second, and the most urgent first.
//!
//! One bucket holds tokens. A repair takes one whole token, a write that changes the members a tenth: what traffic depends on
//! is not held up at a rate that is meant for upkeep, and still has a bound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::clock;

/// Writes under way at once: enough for many Services to change in one second, few enough not to crowd the API.
const AT_ONCE: usize = 32;

/// The part of a token that a write takes which changes members.
const CHANGE: f64 = 0.1;

/// How much a write matters; the first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// Clients are led to an address that must not be there.
    Removal,
    /// Addresses come.
    Change,
    /// What was decided is put back, after someone else changed it.
    Repair,
}

impl Urgency {
    fn cost(self) -> f64 {
        match self {
            Urgency::Removal | Urgency::Change => CHANGE,
            Urgency::Repair => 1.0,
        }
    }
}

/// How many writes the API gets from this daemon. Both are at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Tokens that come in a second.
    pub qps: u32,
    /// Tokens that there are at most.
    pub burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { qps: 50, burst: 100 }
    }
}

struct Bucket {
    rate: RateLimit,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: RateLimit, now: Instant) -> Self {
        Self { rate, tokens: rate.burst.into(), filled: now }
    }

    /// Takes what a write costs, or says how long it takes until that is there.
    fn take(&mut self, urgency: Urgency, now: Instant) -> Result<(), Duration> {
        let qps = f64::from(self.rate.qps);
        let come = now.saturating_duration_since(self.filled).as_secs_f64() * qps;
        self.tokens = (self.tokens + come).min(self.rate.burst.into());
        self.filled = now;
        let missing = urgency.cost() - self.tokens;
        // No timer counts less than a nanosecond.
        if missing > qps * 1e-9 {
            return Err(Duration::from_secs_f64(missing / qps) + Duration::from_nanos(1));
        }
        self.tokens -= urgency.cost();
        Ok(())
    }
}

/// The right to carry out one step, until it is dropped.
pub(crate) type WritePermit = OwnedSemaphorePermit;

/// Those that wait, in the order in which they get their turns.
#[derive(Default)]
struct Waiting {
    line: BTreeMap<(Urgency, u64), oneshot::Sender<WritePermit>>,
    came: u64,
}

/// Gives out turns while [`WriteQueue::run`] runs.
pub(crate) struct WriteQueue {
    rate: RateLimit,
    under_way: Arc<Semaphore>,
    waiting: Mutex<Waiting>,
    news: Notify,
}

impl WriteQueue {
    pub(crate) fn new(rate: RateLimit) -> Self {
        Self {
            rate,
            under_way: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Mutex::default(),
            news: Notify::new(),
        }
    }

    /// Waits for a turn to write. Whoever has waited should look again at what is to be written.
    pub(crate) async fn turn(&self, urgency: Urgency) -> WritePermit {
        let (sender, turn) = oneshot::channel();
        {
            let mut waiting = self.waiting();
            let place = (urgency, waiting.came);
            waiting.came += 1;
            waiting.line.insert(place, sender);
        }
        self.news.notify_one();
        match turn.await {
            Ok(turn) => turn,
            // Turns are given out no more: the daemon is ending, and so is this.
            Err(_) => std::future::pending().await,
        }
    }

    /// Gives turns, for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut bucket = Bucket::new(self.rate, clock::now());
        loop {
            let Ok(turn) = self.under_way.clone().acquire_owned().await else { return };
            let next = self.next(&mut bucket).await;
            // Who does not want it any more gives it back by that.
            let _ = next.send(turn);
        }
    }

    /// Waits for the most urgent of those that wait, and for its tokens.
    async fn next(&self, bucket: &mut Bucket) -> oneshot::Sender<WritePermit> {
        loop {
            let pause = match self.first(bucket) {
                Ok(next) => return next,
                Err(pause) => pause,
            };
            tokio::select! {
                () = self.news.notified() => {}
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    /// The first in line, if its tokens are there; else how long they take, if anyone is in line.
    fn first(&self, bucket: &mut Bucket) -> Result<oneshot::Sender<WritePermit>, Option<Duration>> {
        let mut waiting = self.waiting();
        while let Some(first) = waiting.line.first_entry() {
            if first.get().is_closed() {
                first.remove();
                continue;
            }
            return match bucket.take(first.key().0, clock::now()) {
                Ok(()) => Ok(first.remove()),
                Err(pause) => Err(Some(pause)),
            };
        }
        Err(None)
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::task::JoinSet;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn running(qps: u32, burst: u32) -> (Arc<WriteQueue>, JoinSet<()>) {
        let budget = Arc::new(WriteQueue::new(RateLimit { qps, burst }));
        let mut tasks = JoinSet::new();
        tasks.spawn(budget.clone().run());
        (budget, tasks)
    }

    /// Takes so many turns one after the other, and says how long that took.
    async fn spent(budget: &WriteQueue, turns: u32, urgency: Urgency) -> Duration {
        let begun = clock::now();
        for _ in 0..turns {
            drop(budget.turn(urgency).await);
        }
        clock::now() - begun
    }

    #[tokio::test(start_paused = true)]
    async fn repairs_come_at_the_rate_after_a_burst() {
        let (budget, _tasks) = running(50, 100);
        assert_eq!(spent(&budget, 100, Urgency::Repair).await, ms(0));
        let took = spent(&budget, 50, Urgency::Repair).await;
        assert!(took.abs_diff(ms(1000)) < ms(60), "{took:?}");
        // What was not used is there later, up to the burst.
        tokio::time::sleep(ms(60_000)).await;
        assert_eq!(spent(&budget, 100, Urgency::Repair).await, ms(0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_changes_wait_for_nothing_and_more_come_at_ten_times_the_rate() {
        let (budget, _tasks) = running(50, 100);
        assert_eq!(spent(&budget, 999, Urgency::Removal).await, ms(0));
        let took = spent(&budget, 500, Urgency::Change).await;
        assert!(took.abs_diff(ms(1000)) < ms(520), "{took:?}");
    }

    /// The order in which those that wait get their turns, while there are no tokens.
    #[tokio::test(start_paused = true)]
    async fn removals_go_first_and_equals_in_the_order_they_came() {
        let (budget, _tasks) = running(1, 1);
        drop(budget.turn(Urgency::Repair).await);
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut waiting = JoinSet::new();
        for (name, urgency) in [
            ("repair 1", Urgency::Repair),
            ("change", Urgency::Change),
            ("repair 2", Urgency::Repair),
            ("removal", Urgency::Removal),
        ] {
            let (budget, done) = (budget.clone(), done.clone());
            waiting.spawn(async move {
                let _turn = budget.turn(urgency).await;
                done.send(name).expect("a listener");
            });
            tokio::task::yield_now().await;
        }
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(order.recv().await.expect("a turn"));
        }
        assert_eq!(seen, ["removal", "change", "repair 1", "repair 2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_under_way_than_may_be() {
        let (budget, _tasks) = running(1000, 1000);
        let mut turns = Vec::new();
        for _ in 0..AT_ONCE {
            turns.push(budget.turn(Urgency::Removal).await);
        }
        let more = tokio::time::timeout(ms(60_000), budget.turn(Urgency::Removal));
        assert!(more.await.is_err(), "one more than may be under way");
        turns.pop();
        // The one that gave up waiting does not get it.
        drop(budget.turn(Urgency::Repair).await);
    }
}
