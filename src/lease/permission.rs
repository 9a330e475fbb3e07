//! Permission to write: a value with a deadline, asked for right before each call, and what the rest of the daemon may know of
//! the Lease.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

use super::{DURATION, Name};
use crate::api::Deadline;
use crate::clock::{self, Moment};

/// What this replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The only one, by the word of who started it: it may always write.
    Alone,
    /// A dry run, which never writes and has nobody to wait for.
    DryRun,
    /// The one that holds the Lease.
    Holder,
    /// One that only checks, ready to take over.
    Standby {
        /// Who holds the Lease, if that is known.
        holder: Option<String>,
        /// Why the Lease can't be had, where that is not because another holds it.
        trouble: Option<String>,
    },
}

/// What the rest of the daemon holds of the lease.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

struct Shared {
    /// The Lease and who we are in it.
    identity: Option<(Name, String)>,
    standing: watch::Sender<Standing>,
    /// Until when we may write, while we hold the Lease.
    until: Mutex<Option<Moment>>,
    /// Held for reading by each call that writes, and for writing by whoever wants to see the last of them end. Those who
    /// come after that wait for ever.
    writes: Arc<RwLock<()>>,
    /// When a call that writes last ended without an answer.
    unanswered: Mutex<Option<Moment>>,
}

impl Handle {
    /// For the only replica.
    pub fn alone() -> Self {
        Self::new(None, Standing::Alone)
    }

    pub fn dry_run() -> Self {
        Self::new(None, Standing::DryRun)
    }

    pub(super) fn of(name: Name, me: String) -> Self {
        Self::new(Some((name, me)), Standing::Standby { holder: None, trouble: None })
    }

    fn new(identity: Option<(Name, String)>, standing: Standing) -> Self {
        Self(Arc::new(Shared {
            identity,
            standing: watch::Sender::new(standing),
            until: Mutex::default(),
            writes: Arc::default(),
            unanswered: Mutex::default(),
        }))
    }

    /// The Lease and who we are in it; none without a Lease.
    pub fn identity(&self) -> Option<(&Name, &str)> {
        self.0.identity.as_ref().map(|(name, me)| (name, me.as_str()))
    }

    pub fn standing(&self) -> Standing {
        self.0.standing.borrow().clone()
    }

    /// Tells when the standing changes.
    pub fn changes(&self) -> watch::Receiver<Standing> {
        self.0.standing.subscribe()
    }

    /// Whether this replica is the one that writes.
    pub fn leads(&self) -> bool {
        match *self.0.standing.borrow() {
            Standing::Alone => true,
            Standing::Holder => self.until().is_some_and(|until| clock::moment() < until),
            Standing::DryRun | Standing::Standby { .. } => false,
        }
    }

    /// Why this replica does not write, if it does not because of the lease.
    pub fn standby(&self) -> Option<String> {
        let (name, _) = self.identity()?;
        match &*self.0.standing.borrow() {
            Standing::Standby { trouble: Some(trouble), .. } => {
                Some(format!("lease {name}: {trouble}"))
            }
            Standing::Standby { holder: Some(holder), .. } => {
                Some(format!("lease {name} is held by {holder}"))
            }
            Standing::Standby { .. } => Some(format!("lease {name} is not ours yet")),
            Standing::Holder if !self.leads() => {
                Some(format!("lease {name} was not renewed in time"))
            }
            Standing::Holder | Standing::Alone | Standing::DryRun => None,
        }
    }

    /// Permission for one call that writes, to be asked for right before it; none if this replica does not hold the lease.
    /// Waits for ever once the daemon is ending.
    pub async fn permission(&self) -> Option<Permission> {
        let writing = self.0.writes.clone().read_owned().await;
        let until = match *self.0.standing.borrow() {
            Standing::Alone => None,
            _ => Some(self.until().filter(|until| clock::moment() < *until)?),
        };
        Some(Permission {
            deadline: Deadline::new(until),
            lease: self.clone(),
            unanswered: false,
            _writing: writing,
        })
    }

    /// Waits until no call that writes is under way. While the answer is kept, none begins.
    pub(super) async fn no_more_writes(&self) -> OwnedRwLockWriteGuard<()> {
        self.0.writes.clone().write_owned().await
    }

    /// Whether a write had no answer so lately that it may still arrive.
    pub(super) fn may_still_arrive(&self) -> bool {
        let last = *lock(&self.0.unanswered);
        last.is_some_and(|last| clock::moment() < last + DURATION)
    }

    pub(super) fn until(&self) -> Option<Moment> {
        *lock(&self.0.until)
    }

    /// Makes this replica the holder until then. Says whether it was not before.
    pub(super) fn hold(&self, until: Moment) -> bool {
        *lock(&self.0.until) = Some(until);
        self.turn_into(Standing::Holder)
    }

    /// Makes this replica one that only checks. Says whether that is news.
    pub(super) fn stand_by(&self, holder: Option<String>, trouble: Option<String>) -> bool {
        *lock(&self.0.until) = None;
        self.turn_into(Standing::Standby { holder, trouble })
    }

    fn turn_into(&self, standing: Standing) -> bool {
        self.0.standing.send_if_modified(|held| {
            let news = *held != standing;
            *held = standing;
            news
        })
    }
}

/// Permission for one call that writes.
pub struct Permission {
    deadline: Deadline,
    lease: Handle,
    /// Whether a call has begun and not ended with an answer. An unused permission sends nothing.
    unanswered: bool,
    _writing: OwnedRwLockReadGuard<()>,
}

impl Permission {
    /// Makes the call, which ends by itself within `limit`; ends it sooner if the permission does, and has no answer then.
    pub async fn make<T>(mut self, limit: Duration, call: impl Future<Output = T>) -> Option<T> {
        self.unanswered = true;
        let begun = clock::now();
        let left = self.deadline.left().min(limit);
        let answer = tokio::time::timeout(left, self.deadline.clone().bears(call)).await.ok();
        // What took as long as it may has ended by its time-out.
        self.unanswered =
            answer.is_none() || clock::now().saturating_duration_since(begun) >= limit;
        answer
    }
}

impl Drop for Permission {
    fn drop(&mut self) {
        // From here on nothing more is sent for it.
        self.deadline.end();
        if self.unanswered {
            *lock(&self.lease.0.unanswered) = Some(clock::moment());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    const HOUR: Duration = Duration::from_secs(3600);

    fn lease() -> Handle {
        Handle::of(Name { namespace: "home".into(), name: "lease".into() }, "me".into())
    }

    #[tokio::test]
    async fn only_the_holder_may_write_and_only_until_its_time_is_over() {
        let lease = lease();
        assert!(lease.permission().await.is_none());
        lease.hold(clock::moment() + HOUR);
        assert!(lease.permission().await.is_some() && lease.leads());
        // As after a process that was stopped: nobody has told yet that the lease is lost.
        lease.hold(clock::moment());
        assert_eq!(lease.standing(), Standing::Holder);
        assert!(lease.permission().await.is_none() && !lease.leads());
        assert_eq!(lease.standby().as_deref(), Some("lease home/lease was not renewed in time"));
        lease.hold(clock::moment() + HOUR);
        lease.stand_by(Some("another".into()), None);
        assert!(lease.permission().await.is_none() && !lease.leads());
        assert_eq!(lease.standby().as_deref(), Some("lease home/lease is held by another"));
    }

    #[tokio::test]
    async fn without_a_lease_the_only_replica_may_write_and_a_dry_run_may_not() {
        assert!(Handle::alone().permission().await.is_some() && Handle::alone().leads());
        assert!(Handle::dry_run().permission().await.is_none() && !Handle::dry_run().leads());
        assert_eq!((Handle::alone().standby(), Handle::dry_run().standby()), (None, None));
    }

    #[tokio::test]
    async fn a_call_ends_with_the_permission_and_may_then_still_arrive() {
        let lease = lease();
        lease.hold(clock::moment() + HOUR);
        let permission = lease.permission().await.expect("the holder");
        assert_eq!(permission.make(HOUR, async { 7 }).await, Some(7));
        assert!(!lease.may_still_arrive());
        lease.hold(clock::moment() + Duration::from_millis(30));
        let permission = lease.permission().await.expect("still the holder");
        assert_eq!(permission.make(HOUR, std::future::pending::<()>()).await, None);
        assert!(clock::moment() >= lease.until().expect("a deadline"));
        assert!(lease.may_still_arrive());
    }

    #[tokio::test]
    async fn a_call_stands_on_the_permission_and_is_not_sent_after_it() {
        let lease = lease();
        lease.hold(clock::moment() + HOUR);
        let permission = lease.permission().await.expect("the holder");
        let call = async {
            let basis = Deadline::of_this_task().expect("a deadline");
            assert!(basis.holds() && basis.left() <= HOUR);
            basis
        };
        let basis = permission.make(Duration::from_secs(5), call).await.expect("an answer");
        assert!(!basis.holds(), "nobody waits for it any more");
    }

    #[tokio::test]
    async fn a_call_that_ends_by_its_own_time_out_may_still_arrive() {
        let lease = lease();
        lease.hold(clock::moment() + HOUR);
        let limit = Duration::from_millis(30);
        let permission = lease.permission().await.expect("the holder");
        permission.make(HOUR, tokio::time::timeout(limit, std::future::pending::<()>())).await;
        assert!(!lease.may_still_arrive(), "it was not as long as it may be");
        let permission = lease.permission().await.expect("the holder");
        permission.make(limit, tokio::time::timeout(limit, std::future::pending::<()>())).await;
        assert!(lease.may_still_arrive());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_took_all_of_its_limit_may_still_arrive() {
        let lease = lease();
        lease.hold(clock::moment() + HOUR);
        let (limit, moment) = (Duration::from_secs(3), Duration::from_millis(1));
        let table = [
            (limit - moment, Some(()), false),
            (limit, Some(()), true),
            (limit + moment, None, true),
        ];
        for (time, answer, may_arrive) in table {
            *lock(&lease.0.unanswered) = None;
            let permission = lease.permission().await.expect("the holder");
            assert_eq!(
                permission.make(limit, tokio::time::sleep(time)).await,
                answer,
                "after {time:?}"
            );
            assert_eq!(lease.may_still_arrive(), may_arrive, "after {time:?}");
        }
    }

    #[test]
    fn a_change_of_the_standing_is_news_and_a_renewal_is_none() {
        let lease = lease();
        let mut changes = lease.changes();
        let mut is_told = || {
            let told = changes.has_changed().expect("the lease is there");
            assert_eq!(*changes.borrow_and_update(), lease.standing());
            told
        };
        let another = || Some("another".to_owned());
        assert!(lease.hold(clock::moment() + HOUR) && is_told());
        assert!(!lease.hold(clock::moment() + HOUR) && !is_told());
        assert!(lease.stand_by(another(), None) && is_told());
        assert!(!lease.stand_by(another(), None) && !is_told());
        assert!(lease.stand_by(another(), Some("forbidden".into())) && is_told());
    }

    #[test]
    fn a_replica_that_does_not_write_says_why() {
        let lease = lease();
        assert_eq!(lease.standby().as_deref(), Some("lease home/lease is not ours yet"));
        lease.stand_by(Some("another".into()), Some("forbidden".into()));
        assert_eq!(lease.standby().as_deref(), Some("lease home/lease: forbidden"));
        lease.hold(clock::moment() + HOUR);
        assert_eq!(lease.standby(), None);
    }

    #[tokio::test]
    async fn a_permission_that_was_never_used_sends_nothing() {
        let lease = lease();
        lease.hold(clock::moment() + HOUR);
        drop(lease.permission().await.expect("the holder"));
        drop(
            lease.permission().await.expect("the holder").make(HOUR, std::future::pending::<()>()),
        );
        assert!(!lease.may_still_arrive(), "no call had begun");
        let mut begun = Box::pin(
            lease.permission().await.expect("the holder").make(HOUR, std::future::pending::<()>()),
        );
        assert!(begun.as_mut().now_or_never().is_none());
        drop(begun);
        assert!(lease.may_still_arrive(), "a call was cut off");
    }

    #[tokio::test]
    async fn who_ends_waits_for_the_last_write_and_lets_none_begin() {
        let lease = lease();
        lease.hold(clock::moment() + HOUR);
        let writing = lease.permission().await.expect("the holder");
        let mut ending = std::pin::pin!(lease.no_more_writes());
        assert!(ending.as_mut().now_or_never().is_none(), "a write is under way");
        let mut late = std::pin::pin!(lease.permission());
        assert!(late.as_mut().now_or_never().is_none());
        drop(writing);
        let ended = ending.await;
        assert!(late.as_mut().now_or_never().is_none(), "not while it is kept");
        drop(ended);
        assert!(late.await.is_some());
    }
}
