//! Permission to write: a value with a deadline, asked for right before each call, and what the rest of the daemon may know of
//! the Lease.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, watch};

use super::{LEASE_DURATION, Name};
use crate::api::Deadline;
use crate::clock::{self, BootInstant};

/// What this replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
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
        error: Option<String>,
    },
}

/// What the rest of the daemon holds of the lease.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

struct Shared {
    /// The Lease and who we are in it.
    identity: Option<(Name, String)>,
    role: watch::Sender<Role>,
    /// Until when we may write, while we hold the Lease.
    expires_at: Mutex<Option<BootInstant>>,
    /// Held for reading by each call that writes, and for writing by whoever wants to see the last of them end. Those who
    /// come after that wait for ever.
    writes: Arc<RwLock<()>>,
    /// When a call that writes last ended without an answer.
    last_unacknowledged: Mutex<Option<BootInstant>>,
}

impl Handle {
    /// For the only replica.
    pub fn alone() -> Self {
        Self::new(None, Role::Alone)
    }

    pub fn dry_run() -> Self {
        Self::new(None, Role::DryRun)
    }

    pub(super) fn of(name: Name, me: String) -> Self {
        Self::new(Some((name, me)), Role::Standby { holder: None, error: None })
    }

    fn new(identity: Option<(Name, String)>, standing: Role) -> Self {
        Self(Arc::new(Shared {
            identity,
            role: watch::Sender::new(standing),
            expires_at: Mutex::default(),
            writes: Arc::default(),
            last_unacknowledged: Mutex::default(),
        }))
    }

    /// The Lease and who we are in it; none without a Lease.
    pub fn identity(&self) -> Option<(&Name, &str)> {
        self.0.identity.as_ref().map(|(name, me)| (name, me.as_str()))
    }

    pub fn role(&self) -> Role {
        self.0.role.borrow().clone()
    }

    /// Tells when the standing changes.
    pub fn subscribe(&self) -> watch::Receiver<Role> {
        self.0.role.subscribe()
    }

    /// Whether this replica is the one that writes.
    pub fn is_leader(&self) -> bool {
        match *self.0.role.borrow() {
            Role::Alone => true,
            Role::Holder => self.expires_at().is_some_and(|until| clock::boot_now() < until),
            Role::DryRun | Role::Standby { .. } => false,
        }
    }

    /// Why this replica does not write, if it does not because of the lease.
    pub fn standby_reason(&self) -> Option<String> {
        let (name, _) = self.identity()?;
        match &*self.0.role.borrow() {
            Role::Standby { error: Some(trouble), .. } => Some(format!("lease {name}: {trouble}")),
            Role::Standby { holder: Some(holder), .. } => {
                Some(format!("lease {name} is held by {holder}"))
            }
            Role::Standby { .. } => Some(format!("lease {name} is not ours yet")),
            Role::Holder if !self.is_leader() => {
                Some(format!("lease {name} was not renewed in time"))
            }
            Role::Holder | Role::Alone | Role::DryRun => None,
        }
    }

    /// Permission for one call that writes, to be asked for right before it; none if this replica does not hold the lease.
    /// Waits for ever once the daemon is ending.
    pub async fn permission(&self) -> Option<Permission> {
        let writing = self.0.writes.clone().read_owned().await;
        let until = match *self.0.role.borrow() {
            Role::Alone => None,
            _ => Some(self.expires_at().filter(|until| clock::boot_now() < *until)?),
        };
        Some(Permission {
            deadline: Deadline::new(until),
            lease: self.clone(),
            unacknowledged: false,
            _writing: writing,
        })
    }

    /// Waits until no call that writes is under way. While the answer is kept, none begins.
    pub(super) async fn drain_writes(&self) -> OwnedRwLockWriteGuard<()> {
        self.0.writes.clone().write_owned().await
    }

    /// Whether a write had no answer so lately that it may still arrive.
    pub(super) fn has_unacknowledged_write(&self) -> bool {
        let last = *lock(&self.0.last_unacknowledged);
        last.is_some_and(|last| clock::boot_now() < last + LEASE_DURATION)
    }

    pub(super) fn expires_at(&self) -> Option<BootInstant> {
        *lock(&self.0.expires_at)
    }

    /// Makes this replica the holder until then. Says whether it was not before.
    pub(super) fn become_leader(&self, until: BootInstant) -> bool {
        *lock(&self.0.expires_at) = Some(until);
        self.set_role(Role::Holder)
    }

    /// Makes this replica one that only checks. Says whether that is news.
    pub(super) fn step_down(&self, holder: Option<String>, trouble: Option<String>) -> bool {
        *lock(&self.0.expires_at) = None;
        self.set_role(Role::Standby { holder, error: trouble })
    }

    fn set_role(&self, standing: Role) -> bool {
        self.0.role.send_if_modified(|held| {
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
    unacknowledged: bool,
    _writing: OwnedRwLockReadGuard<()>,
}

impl Permission {
    /// Makes the call, which ends by itself within `limit`; ends it sooner if the permission does, and has no answer then.
    pub async fn run<T>(mut self, limit: Duration, call: impl Future<Output = T>) -> Option<T> {
        self.unacknowledged = true;
        let begun = clock::now();
        let left = self.deadline.remaining().min(limit);
        let answer = tokio::time::timeout(left, self.deadline.clone().scope(call)).await.ok();
        // What took as long as it may has ended by its time-out.
        self.unacknowledged =
            answer.is_none() || clock::now().saturating_duration_since(begun) >= limit;
        answer
    }
}

impl Drop for Permission {
    fn drop(&mut self) {
        // From here on nothing more is sent for it.
        self.deadline.end();
        if self.unacknowledged {
            *lock(&self.lease.0.last_unacknowledged) = Some(clock::boot_now());
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
        lease.become_leader(clock::boot_now() + HOUR);
        assert!(lease.permission().await.is_some() && lease.is_leader());
        // As after a process that was stopped: nobody has told yet that the lease is lost.
        lease.become_leader(clock::boot_now());
        assert_eq!(lease.role(), Role::Holder);
        assert!(lease.permission().await.is_none() && !lease.is_leader());
        assert_eq!(
            lease.standby_reason().as_deref(),
            Some("lease home/lease was not renewed in time")
        );
        lease.become_leader(clock::boot_now() + HOUR);
        lease.step_down(Some("another".into()), None);
        assert!(lease.permission().await.is_none() && !lease.is_leader());
        assert_eq!(lease.standby_reason().as_deref(), Some("lease home/lease is held by another"));
    }

    #[tokio::test]
    async fn without_a_lease_the_only_replica_may_write_and_a_dry_run_may_not() {
        assert!(Handle::alone().permission().await.is_some() && Handle::alone().is_leader());
        assert!(Handle::dry_run().permission().await.is_none() && !Handle::dry_run().is_leader());
        assert_eq!(
            (Handle::alone().standby_reason(), Handle::dry_run().standby_reason()),
            (None, None)
        );
    }

    #[tokio::test]
    async fn a_call_ends_with_the_permission_and_may_then_still_arrive() {
        let lease = lease();
        lease.become_leader(clock::boot_now() + HOUR);
        let permission = lease.permission().await.expect("the holder");
        assert_eq!(permission.run(HOUR, async { 7 }).await, Some(7));
        assert!(!lease.has_unacknowledged_write());
        lease.become_leader(clock::boot_now() + Duration::from_millis(30));
        let permission = lease.permission().await.expect("still the holder");
        assert_eq!(permission.run(HOUR, std::future::pending::<()>()).await, None);
        assert!(clock::boot_now() >= lease.expires_at().expect("a deadline"));
        assert!(lease.has_unacknowledged_write());
    }

    #[tokio::test]
    async fn a_call_stands_on_the_permission_and_is_not_sent_after_it() {
        let lease = lease();
        lease.become_leader(clock::boot_now() + HOUR);
        let permission = lease.permission().await.expect("the holder");
        let call = async {
            let basis = Deadline::current().expect("a deadline");
            assert!(basis.may_send() && basis.remaining() <= HOUR);
            basis
        };
        let basis = permission.run(Duration::from_secs(5), call).await.expect("an answer");
        assert!(!basis.may_send(), "nobody waits for it any more");
    }

    #[tokio::test]
    async fn a_call_that_ends_by_its_own_time_out_may_still_arrive() {
        let lease = lease();
        lease.become_leader(clock::boot_now() + HOUR);
        let limit = Duration::from_millis(30);
        let permission = lease.permission().await.expect("the holder");
        permission.run(HOUR, tokio::time::timeout(limit, std::future::pending::<()>())).await;
        assert!(!lease.has_unacknowledged_write(), "it was not as long as it may be");
        let permission = lease.permission().await.expect("the holder");
        permission.run(limit, tokio::time::timeout(limit, std::future::pending::<()>())).await;
        assert!(lease.has_unacknowledged_write());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_took_all_of_its_limit_may_still_arrive() {
        let lease = lease();
        lease.become_leader(clock::boot_now() + HOUR);
        let (limit, moment) = (Duration::from_secs(3), Duration::from_millis(1));
        let table = [
            (limit - moment, Some(()), false),
            (limit, Some(()), true),
            (limit + moment, None, true),
        ];
        for (time, answer, may_arrive) in table {
            *lock(&lease.0.last_unacknowledged) = None;
            let permission = lease.permission().await.expect("the holder");
            assert_eq!(
                permission.run(limit, tokio::time::sleep(time)).await,
                answer,
                "after {time:?}"
            );
            assert_eq!(lease.has_unacknowledged_write(), may_arrive, "after {time:?}");
        }
    }

    #[test]
    fn a_change_of_the_standing_is_news_and_a_renewal_is_none() {
        let lease = lease();
        let mut changes = lease.subscribe();
        let mut is_told = || {
            let told = changes.has_changed().expect("the lease is there");
            assert_eq!(*changes.borrow_and_update(), lease.role());
            told
        };
        let another = || Some("another".to_owned());
        assert!(lease.become_leader(clock::boot_now() + HOUR) && is_told());
        assert!(!lease.become_leader(clock::boot_now() + HOUR) && !is_told());
        assert!(lease.step_down(another(), None) && is_told());
        assert!(!lease.step_down(another(), None) && !is_told());
        assert!(lease.step_down(another(), Some("forbidden".into())) && is_told());
    }

    #[test]
    fn a_replica_that_does_not_write_says_why() {
        let lease = lease();
        assert_eq!(lease.standby_reason().as_deref(), Some("lease home/lease is not ours yet"));
        lease.step_down(Some("another".into()), Some("forbidden".into()));
        assert_eq!(lease.standby_reason().as_deref(), Some("lease home/lease: forbidden"));
        lease.become_leader(clock::boot_now() + HOUR);
        assert_eq!(lease.standby_reason(), None);
    }

    #[tokio::test]
    async fn a_permission_that_was_never_used_sends_nothing() {
        let lease = lease();
        lease.become_leader(clock::boot_now() + HOUR);
        drop(lease.permission().await.expect("the holder"));
        drop(lease.permission().await.expect("the holder").run(HOUR, std::future::pending::<()>()));
        assert!(!lease.has_unacknowledged_write(), "no call had begun");
        let mut begun = Box::pin(
            lease.permission().await.expect("the holder").run(HOUR, std::future::pending::<()>()),
        );
        assert!(begun.as_mut().now_or_never().is_none());
        drop(begun);
        assert!(lease.has_unacknowledged_write(), "a call was cut off");
    }

    #[tokio::test]
    async fn who_ends_waits_for_the_last_write_and_lets_none_begin() {
        let lease = lease();
        lease.become_leader(clock::boot_now() + HOUR);
        let writing = lease.permission().await.expect("the holder");
        let mut ending = std::pin::pin!(lease.drain_writes());
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
