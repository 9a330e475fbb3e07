//! Permissions and roles, in sequences of calls.

use std::time::Duration;

use futures::FutureExt;

use super::*;
use crate::api::Deadline;

const HOUR: Duration = Duration::from_secs(3600);

fn lease() -> Handle {
    Handle::for_lease(Name { namespace: "home".into(), name: "lease".into() }, "me".into())
}

#[tokio::test]
async fn only_the_leader_may_write_and_only_until_its_deadline() {
    let lease = lease();
    assert!(lease.permission().await.is_none());
    lease.become_leader(clock::boot_now() + HOUR);
    assert!(lease.permission().await.is_some() && lease.is_leader());
    // As in a process that was stopped, before it notices that the lease is lost.
    lease.become_leader(clock::boot_now());
    assert_eq!(lease.role(), Role::Leader);
    assert!(lease.permission().await.is_none() && !lease.is_leader());
    assert_eq!(lease.standby_reason().as_deref(), Some("lease home/lease was not renewed in time"));
    lease.become_leader(clock::boot_now() + HOUR);
    lease.step_down(Some("another".into()), None);
    assert!(lease.permission().await.is_none() && !lease.is_leader());
    assert_eq!(lease.standby_reason().as_deref(), Some("lease home/lease is held by another"));
}

#[tokio::test]
async fn without_a_lease_a_sole_replica_may_write_and_a_dry_run_not() {
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
async fn a_call_has_the_deadline_of_its_permission() {
    let lease = lease();
    lease.become_leader(clock::boot_now() + HOUR);
    let permission = lease.permission().await.expect("the holder");
    let call = async {
        let deadline = Deadline::current().expect("a deadline");
        assert!(deadline.may_send() && deadline.remaining() <= HOUR);
        deadline
    };
    let deadline = permission.run(Duration::from_secs(5), call).await.expect("an answer");
    assert!(!deadline.may_send(), "nobody waits for it any more");
}

#[tokio::test]
async fn a_call_that_times_out_at_its_limit_may_still_arrive() {
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
async fn a_call_that_took_as_long_as_its_limit_may_still_arrive() {
    let lease = lease();
    lease.become_leader(clock::boot_now() + HOUR);
    let (limit, instant) = (Duration::from_secs(3), Duration::from_millis(1));
    let table = [
        (limit - instant, Some(()), false),
        (limit, Some(()), true),
        (limit + instant, None, true),
    ];
    for (time, answer, may_arrive) in table {
        lease.0.last_unacknowledged.set(None);
        let permission = lease.permission().await.expect("the holder");
        assert_eq!(permission.run(limit, tokio::time::sleep(time)).await, answer, "after {time:?}");
        assert_eq!(lease.has_unacknowledged_write(), may_arrive, "after {time:?}");
    }
}

#[test]
fn a_change_of_the_role_is_reported_and_a_renewal_is_not() {
    let lease = lease();
    let mut changes = lease.subscribe();
    let mut is_reported = || {
        let changed = changes.has_changed().expect("a handle");
        assert_eq!(*changes.borrow_and_update(), lease.role());
        changed
    };
    let another = || Some("another".to_owned());
    assert!(lease.become_leader(clock::boot_now() + HOUR) && is_reported());
    assert!(!lease.become_leader(clock::boot_now() + HOUR) && !is_reported());
    assert!(lease.step_down(another(), None) && is_reported());
    assert!(!lease.step_down(another(), None) && !is_reported());
    assert!(lease.step_down(another(), Some("forbidden".into())) && is_reported());
}

#[test]
fn a_replica_that_does_not_write_has_a_reason() {
    let lease = lease();
    assert_eq!(lease.standby_reason().as_deref(), Some("lease home/lease is not ours yet"));
    lease.step_down(Some("another".into()), Some("forbidden".into()));
    assert_eq!(lease.standby_reason().as_deref(), Some("lease home/lease: forbidden"));
    lease.become_leader(clock::boot_now() + HOUR);
    assert_eq!(lease.standby_reason(), None);
}

#[tokio::test]
async fn a_permission_that_was_never_used_has_sent_nothing() {
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
async fn draining_waits_for_the_last_write_and_lets_none_begin() {
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
