//! Tests of the aggregation: what is counted, what is written at once, and in which Event.

use super::*;
use crate::clock;
use crate::config::DatabaseId;

const MINUTE: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

fn of(reason: Reason, dedup_key: &str, note: &str, at: Instant) -> Notice {
    let id = DatabaseId { namespace: "prod".into(), service: "mysql".into() };
    Notice::new(Regarding::Database(id), reason, note, at).with_dedup_key(dedup_key)
}

fn notice(dedup_key: &str, note: &str, at: Instant) -> Notice {
    of(Reason::TargetDown, dedup_key, note, at)
}

fn next(aggregator: &EventAggregator, now: Instant) -> Next {
    aggregator.next(|_| None, now)
}

fn due(aggregator: &EventAggregator, now: Instant) -> Pending {
    match next(aggregator, now) {
        Next::Due(pending) => *pending,
        next => panic!("nothing is due: {next:?}"),
    }
}

fn recorded(note: &str, count: u32, at: Instant) -> Recorded {
    Recorded {
        name: "mysql.1".into(),
        uid: "uid".into(),
        resource_version: Some("1".into()),
        count,
        note: note.into(),
        shown_at: clock::to_wall_clock(at),
    }
}

/// Publishes what is due. Returns its note, its count, and the count of the Event before it.
fn publish(aggregator: &mut EventAggregator, now: Instant) -> (String, u32, Option<u32>) {
    let pending = due(aggregator, now);
    let existing = pending.existing.as_ref().map(|recorded| recorded.count);
    let (note, new) = (pending.notice.note.clone(), pending.count);
    let recorded = recorded(&note, new + existing.unwrap_or_default(), now);
    aggregator.on_published(pending, recorded, now);
    (note, new, existing)
}

fn has_pending(aggregator: &EventAggregator) -> bool {
    aggregator.entries.values().any(|entry| entry.pending.is_some())
}

#[test]
fn repetitions_are_counted_once_a_minute() {
    let now = clock::now();
    let mut aggregator = EventAggregator::default();
    aggregator.add(notice("a", "refused", now), now);
    assert_eq!(publish(&mut aggregator, now), ("refused".into(), 1, None));
    for _ in 0..3 {
        aggregator.add(notice("a", "refused", now), now);
    }
    assert_eq!(next(&aggregator, now), Next::Wait(MINUTE));
    assert_eq!(publish(&mut aggregator, now + MINUTE), ("refused".into(), 3, Some(1)));
    assert_eq!(next(&aggregator, now + 3 * MINUTE), Next::Idle);
}

#[test]
fn a_newer_truth_is_written_at_once_in_the_same_event() {
    let now = clock::now();
    let mut aggregator = EventAggregator::default();
    let published = |note, at| of(Reason::Published, "", note, at);
    aggregator.add(published("A, B, C", now), now);
    assert_eq!(publish(&mut aggregator, now), ("A, B, C".into(), 1, None));
    aggregator.add(published("A, B", now), now);
    // No more than once a second.
    assert_eq!(next(&aggregator, now), Next::Wait(SECOND));
    aggregator.add(published("A", now), now);
    assert_eq!(publish(&mut aggregator, now + SECOND), ("A".into(), 2, Some(1)));
    aggregator.add(published("A, B", now + 6 * SECOND), now);
    assert_eq!(publish(&mut aggregator, now + 6 * SECOND), ("A, B".into(), 1, Some(3)));
    // Later it is another story.
    let later = now + 6 * SECOND + MINUTE;
    aggregator.add(published("A", later), later);
    assert_eq!(publish(&mut aggregator, later), ("A".into(), 1, None));
}

#[test]
fn no_pause_keeps_a_target_up_that_is_down_again() {
    let now = clock::now();
    let mut aggregator = EventAggregator::default();
    let up = |at| of(Reason::TargetUp, "a", "a is up", at);
    aggregator.add(notice("a", "a is down", now), now);
    publish(&mut aggregator, now);
    aggregator.add(up(now + 5 * SECOND), now);
    publish(&mut aggregator, now + 5 * SECOND);
    let again = now + 10 * SECOND;
    aggregator.add(notice("a", "a is down", again), again);
    aggregator.add(notice("b", "b is down", again), again);
    assert_eq!(publish(&mut aggregator, again), ("a is down".into(), 1, Some(1)));
    assert_eq!(publish(&mut aggregator, again), ("b is down".into(), 1, None));
    // Now it is the newest, and repetitions wait.
    aggregator.add(notice("a", "a is down", again), again);
    assert_eq!(next(&aggregator, again), Next::Wait(MINUTE));
}

#[test]
fn members_go_first_then_the_oldest() {
    let now = clock::now();
    let mut aggregator = EventAggregator::default();
    let later = now + Duration::from_millis(1);
    aggregator.add(notice("b", "b", later), later);
    aggregator.add(notice("a", "a", now), later);
    aggregator.add(of(Reason::Published, "", "A", later), later);
    assert_eq!(publish(&mut aggregator, later).0, "A");
    assert_eq!(publish(&mut aggregator, later).0, "a");
    assert_eq!(publish(&mut aggregator, later).0, "b");
}

#[test]
fn notices_that_come_during_a_call_are_not_lost() {
    let now = clock::now();
    let mut aggregator = EventAggregator::default();
    let published = |note| of(Reason::Published, "", note, now);
    aggregator.add(published("A, B"), now);
    let in_flight = due(&aggregator, now);
    aggregator.add(published("A"), now);
    assert_eq!(aggregator.statements().count(), 0);
    aggregator.on_published(in_flight, recorded("A, B", 1, now), now);
    assert_eq!(aggregator.statements().count(), 0, "the newest waits");
    assert_eq!(publish(&mut aggregator, now + SECOND), ("A".into(), 1, Some(1)));
    let notes: Vec<_> = aggregator.statements().map(|statement| statement.note).collect();
    assert_eq!(notes, ["A"]);
}

#[test]
fn the_event_of_a_former_leader_is_patched() {
    let now = clock::now();
    let mut aggregator = EventAggregator::default();
    let key = |reason| EventKey::of(&of(reason, "", "", now));
    let ahead = now + 5 * SECOND;
    aggregator.on_found(key(Reason::Published), recorded("A, B", 3, ahead), now);
    aggregator.on_found(key(Reason::NotOurs), recorded("not ours", 1, now), now);
    let newest: Vec<_> = aggregator.statements().map(|statement| statement.note).collect();
    assert_eq!(newest, ["A, B"]);
    aggregator.add(of(Reason::Published, "", "A", now), now);
    let pending = due(&aggregator, now + SECOND);
    assert_eq!(pending.existing.as_ref().map(|existing| existing.count), Some(3));
    // The other clock was ahead, and this Event must still be the newest.
    assert_eq!(pending.newest.map(|at| at > clock::to_wall_clock(now + 4 * SECOND)), Some(true));
    aggregator.forget_events();
    assert_eq!(aggregator.statements().count(), 0);
    assert_eq!(due(&aggregator, now + SECOND).existing, None);
}

#[test]
fn a_repetition_after_the_window_starts_a_new_event() {
    let now = clock::now();
    let mut aggregator = EventAggregator::default();
    aggregator.add(notice("a", "refused", now), now);
    publish(&mut aggregator, now);
    let later = now + SERIES_WINDOW;
    aggregator.add(notice("a", "refused", later), later);
    assert_eq!(publish(&mut aggregator, later), ("refused".into(), 1, None));
}

#[test]
fn the_capacity_is_limited_and_old_events_make_room() {
    let now = clock::now();
    let mut aggregator = EventAggregator::default();
    for index in 0..CAPACITY {
        assert!(aggregator.add(notice(&index.to_string(), "x", now), now));
    }
    assert!(!aggregator.add(notice("one more", "x", now), now));
    assert!(aggregator.add(notice("0", "x", now), now), "a known key has room");
    while let Next::Due(pending) = next(&aggregator, now) {
        aggregator.on_published(*pending, recorded("x", 1, now), now);
    }
    // Whatever is in the cluster already is worth less than what is not.
    assert!(aggregator.add(notice("one more", "x", now), now));
    assert_eq!(aggregator.entries.len(), CAPACITY - CAPACITY / 8 + 1);
    let key = EventKey::of(&notice("two more", "x", now));
    for index in 0..CAPACITY {
        aggregator.add(notice(&format!("{index}th more"), "x", now), now);
    }
    aggregator.on_found(key, recorded("x", 1, now), now);
    assert_eq!(aggregator.entries.len(), CAPACITY, "what is found is no exception");
}

#[test]
fn old_notices_are_discarded_and_counted() {
    let now = clock::now();
    let mut aggregator = EventAggregator::default();
    aggregator.add(notice("a", "x", now), now);
    aggregator.add(notice("a", "x", now), now);
    aggregator.add(notice("b", "x", now + MINUTE), now);
    assert_eq!(aggregator.expire(MINUTE, now + MINUTE), 0);
    assert_eq!(aggregator.entries.len(), 2);
    assert_eq!(aggregator.expire(MINUTE, now + MINUTE + SECOND), 2);
    assert_eq!(due(&aggregator, now).key.dedup_key, "b");
    assert_eq!(aggregator.expire(MINUTE, now + MINUTE * 3), 1);
    assert!(!has_pending(&aggregator) && aggregator.entries.is_empty());
}

#[test]
fn a_discarded_notice_may_come_again_at_once() {
    let now = clock::now();
    let mut aggregator = EventAggregator::default();
    aggregator.add(notice("a", "x", now), now);
    let pending = due(&aggregator, now);
    aggregator.discard(&pending.key);
    assert_eq!(next(&aggregator, now), Next::Idle);
    aggregator.add(notice("a", "x", now), now);
    assert!(matches!(next(&aggregator, now), Next::Due(_)));
}

#[test]
fn an_object_that_is_held_waits_and_others_do_not() {
    let now = clock::now();
    let mut aggregator = EventAggregator::default();
    aggregator.add(notice("a", "x", now), now);
    let held = |regarding: &Regarding| {
        matches!(regarding, Regarding::Database(_)).then_some(now + 4 * SECOND)
    };
    assert_eq!(aggregator.next(held, now), Next::Wait(4 * SECOND));
    let config = Notice::new(Regarding::Daemon, Reason::ConfigBad, "x", now + SECOND);
    aggregator.add(config, now);
    assert!(matches!(aggregator.next(held, now), Next::Due(pending) if pending.notice.note == "x"));
    assert_eq!(aggregator.discard_all(|it| *it == Regarding::Daemon), 1);
    assert_eq!(aggregator.next(held, now), Next::Wait(4 * SECOND));
}
