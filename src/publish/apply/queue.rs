//! The queue of all writes: limits those in flight and those a second, and lets the most urgent go
//! first.
//!
//! One token bucket limits the rate. A repair costs a token, a write that changes members a tenth
//! of one: the writes that traffic depends on are not held up at a rate that is meant for upkeep,
//! and are limited all the same.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot};

use crate::clock;

/// The number of writes in flight: enough for many Services to change within a second, few enough
/// not to crowd the API.
const MAX_CONCURRENT: usize = 32;

/// The cost in tokens of a write that changes members.
const CHANGE_COST: f64 = 0.1;

/// The urgency of a write. The first goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// Clients are sent to an address that must not be there.
    Removal,
    /// Addresses are added.
    Change,
    /// Someone else's change is undone.
    Repair,
}

impl Urgency {
    /// Returns the cost of the write in tokens.
    fn cost(self) -> f64 {
        match self {
            Urgency::Removal | Urgency::Change => CHANGE_COST,
            Urgency::Repair => 1.0,
        }
    }
}

/// The limit of writes to the API. Both numbers are at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// The number of tokens that are added in a second.
    pub qps: u32,
    /// The greatest number of tokens.
    pub burst: u32,
}

impl Default for RateLimit {
    fn default() -> Self {
        Self { qps: 50, burst: 100 }
    }
}

struct TokenBucket {
    limit: RateLimit,
    tokens: f64,
    filled_at: Instant,
}

impl TokenBucket {
    fn new(limit: RateLimit, now: Instant) -> Self {
        Self { limit, tokens: limit.burst.into(), filled_at: now }
    }

    /// Takes the tokens for a write. Returns the delay until there are enough; none if they were
    /// taken.
    fn take(&mut self, urgency: Urgency, now: Instant) -> Option<Duration> {
        let qps = f64::from(self.limit.qps);
        let added = now.saturating_duration_since(self.filled_at).as_secs_f64() * qps;
        self.tokens = (self.tokens + added).min(self.limit.burst.into());
        self.filled_at = now;
        let missing = urgency.cost() - self.tokens;
        // A timer cannot wait for less than a nanosecond.
        if missing > qps * 1e-9 {
            return Some(Duration::from_secs_f64(missing / qps) + Duration::from_nanos(1));
        }
        self.tokens -= urgency.cost();
        None
    }
}

/// The right to carry out one step, until it is dropped.
pub(crate) type WritePermit = OwnedSemaphorePermit;

/// The waiters, in the order in which they get their permits.
#[derive(Default)]
struct Waiters {
    by_urgency: BTreeMap<(Urgency, u64), oneshot::Sender<WritePermit>>,
    next_seq: u64,
}

/// The waiter that is next.
enum Next {
    Permitted(oneshot::Sender<WritePermit>),
    /// The delay until its tokens are there.
    After(Duration),
    /// Nobody waits.
    None,
}

/// The queue of all writes. It gives out permits while [`WriteQueue::run`] runs.
pub(crate) struct WriteQueue {
    limit: RateLimit,
    in_flight: Arc<Semaphore>,
    waiters: Mutex<Waiters>,
    joined: Notify,
}

impl WriteQueue {
    /// Creates a queue in which nobody waits.
    pub(crate) fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            in_flight: Arc::new(Semaphore::new(MAX_CONCURRENT)),
            waiters: Mutex::default(),
            joined: Notify::new(),
        }
    }

    /// Waits for a permit to write. The caller then decides again, as time has passed.
    pub(crate) async fn acquire(&self, urgency: Urgency) -> WritePermit {
        let (sender, permit) = oneshot::channel();
        {
            let mut waiters = self.waiters();
            let place = (urgency, waiters.next_seq);
            waiters.next_seq += 1;
            waiters.by_urgency.insert(place, sender);
        }
        self.joined.notify_one();
        match permit.await {
            Ok(permit) => permit,
            // The queue has ended, because the daemon is ending. So is the caller.
            Err(_) => std::future::pending().await,
        }
    }

    /// Gives out permits for ever.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut bucket = TokenBucket::new(self.limit, clock::now());
        loop {
            let Ok(permit) = self.in_flight.clone().acquire_owned().await else { return };
            let next = self.next(&mut bucket).await;
            // A waiter that is gone gives the permit back by that.
            let _ = next.send(permit);
        }
    }

    /// Waits for the most urgent waiter, and for its tokens.
    async fn next(&self, bucket: &mut TokenBucket) -> oneshot::Sender<WritePermit> {
        loop {
            let delay = match self.first(bucket) {
                Next::Permitted(next) => return next,
                Next::After(delay) => Some(delay),
                Next::None => None,
            };
            tokio::select! {
                () = self.joined.notified() => {}
                () = tokio::time::sleep(delay.unwrap_or_default()), if delay.is_some() => {}
            }
        }
    }

    /// Removes the first waiter, if its tokens are there.
    fn first(&self, bucket: &mut TokenBucket) -> Next {
        let mut waiters = self.waiters();
        while let Some(first) = waiters.by_urgency.first_entry() {
            if first.get().is_closed() {
                first.remove();
                continue;
            }
            return match bucket.take(first.key().0, clock::now()) {
                None => Next::Permitted(first.remove()),
                Some(delay) => Next::After(delay),
            };
        }
        Next::None
    }

    fn waiters(&self) -> MutexGuard<'_, Waiters> {
        self.waiters.lock().unwrap_or_else(PoisonError::into_inner)
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
        let queue = Arc::new(WriteQueue::new(RateLimit { qps, burst }));
        let mut tasks = JoinSet::new();
        tasks.spawn(queue.clone().run());
        (queue, tasks)
    }

    /// Acquires so many permits one after the other. Returns how long that took.
    async fn time_to_acquire(queue: &WriteQueue, writes: u32, urgency: Urgency) -> Duration {
        let started = clock::now();
        for _ in 0..writes {
            drop(queue.acquire(urgency).await);
        }
        clock::now() - started
    }

    #[tokio::test(start_paused = true)]
    async fn repairs_come_at_the_rate_after_a_burst() {
        let (queue, _tasks) = running(50, 100);
        assert_eq!(time_to_acquire(&queue, 100, Urgency::Repair).await, ms(0));
        let took = time_to_acquire(&queue, 50, Urgency::Repair).await;
        assert!(took.abs_diff(ms(1000)) < ms(60), "{took:?}");
        // Unused tokens add up, as far as the burst.
        tokio::time::sleep(ms(60_000)).await;
        assert_eq!(time_to_acquire(&queue, 100, Urgency::Repair).await, ms(0));
    }

    #[tokio::test(start_paused = true)]
    async fn changes_come_at_ten_times_the_rate_after_a_thousand() {
        let (queue, _tasks) = running(50, 100);
        assert_eq!(time_to_acquire(&queue, 999, Urgency::Removal).await, ms(0));
        let took = time_to_acquire(&queue, 500, Urgency::Change).await;
        assert!(took.abs_diff(ms(1000)) < ms(520), "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn removals_go_first_and_equals_in_order() {
        let (queue, _tasks) = running(1, 1);
        drop(queue.acquire(Urgency::Repair).await);
        let (done, mut order) = tokio::sync::mpsc::unbounded_channel();
        let mut waiting = JoinSet::new();
        for (name, urgency) in [
            ("repair 1", Urgency::Repair),
            ("change", Urgency::Change),
            ("repair 2", Urgency::Repair),
            ("removal", Urgency::Removal),
        ] {
            let (queue, done) = (queue.clone(), done.clone());
            waiting.spawn(async move {
                let _permit = queue.acquire(urgency).await;
                done.send(name).expect("a receiver");
            });
            tokio::task::yield_now().await;
        }
        let mut permitted = Vec::new();
        for _ in 0..4 {
            permitted.push(order.recv().await.expect("a permit"));
        }
        assert_eq!(permitted, ["removal", "change", "repair 1", "repair 2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn writes_in_flight_are_limited() {
        let (queue, _tasks) = running(1000, 1000);
        let mut permits = Vec::new();
        for _ in 0..MAX_CONCURRENT {
            permits.push(queue.acquire(Urgency::Removal).await);
        }
        let more = tokio::time::timeout(ms(60_000), queue.acquire(Urgency::Removal));
        assert!(more.await.is_err(), "one more than may be in flight");
        permits.pop();
        // The waiter that was dropped does not get the permit.
        drop(queue.acquire(Urgency::Repair).await);
    }
}
