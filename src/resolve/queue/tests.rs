//! The order of lookups and their limits.

use super::*;
use crate::clock;

const SECOND: Duration = Duration::from_secs(1);
const MAX_OPEN: usize = 64;
const AGAIN: (Urgency, Pace) = (Urgency::Refresh, Pace::Prompt);

fn queue(questions_per_second: u32) -> (LookupQueue, Instant) {
    let now = clock::now();
    (LookupQueue::new(questions_per_second, MAX_OPEN, now), now)
}

/// Starts all names that may begin, and returns them.
fn started(queue: &mut LookupQueue, now: Instant) -> Vec<NameId> {
    let mut ids = Vec::new();
    while let Next::Start { id, .. } = queue.next(now) {
        ids.push(id);
    }
    ids
}

#[test]
fn urgent_names_come_first_then_unanswered_then_by_due_time() {
    let (mut queue, now) = queue(500);
    (1..=4).for_each(|id| queue.insert(id, 2, now));
    assert_eq!(started(&mut queue, now), [1, 2, 3, 4]);
    queue.finish(1, now, now + 2 * SECOND, AGAIN);
    queue.finish(2, now, now + SECOND, AGAIN);
    queue.finish(3, now, now + 3 * SECOND, (Urgency::NeverAnswered, Pace::Prompt));
    queue.finish(4, now, now + 9 * SECOND, AGAIN);
    queue.advance(4, now + 3 * SECOND, Urgency::TargetFailed);
    assert_eq!(started(&mut queue, now + 3 * SECOND), [4, 3, 2, 1]);
}

#[test]
fn urgent_names_take_turns_with_others() {
    let (mut queue, now) = queue(500);
    (1..=6).for_each(|id| queue.insert(id, 1, now));
    started(&mut queue, now);
    (1..=3).for_each(|id| queue.finish(id, now, now, (Urgency::TargetFailed, Pace::Prompt)));
    (4..=6).for_each(|id| queue.finish(id, now, now, AGAIN));
    assert_eq!(started(&mut queue, now), [1, 4, 2, 5, 3, 6]);
}

#[test]
fn questions_in_the_air_are_limited() {
    let (mut queue, now) = queue(500);
    (0..100).for_each(|id| queue.insert(id, 2, now));
    assert_eq!(started(&mut queue, now).len(), MAX_OPEN / 2);
    assert_eq!(queue.next(now), Next::Idle(Shortage::OpenQuestions));
    queue.remove(0);
    queue.finish(1, now, now + SECOND, AGAIN);
    assert_eq!(started(&mut queue, now).len(), 2);
}

#[test]
fn names_without_answers_leave_room_for_others() {
    let (mut queue, now) = queue(500);
    // The slow ones are due first.
    let rounds = [(0..64, Pace::Slow, SECOND / 4), (64..128, Pace::Prompt, SECOND / 2)];
    for (ids, pace, wait) in rounds {
        ids.clone().for_each(|id| queue.insert(id, 1, now));
        assert_eq!(started(&mut queue, now).len(), MAX_OPEN);
        ids.for_each(|id| queue.finish(id, now, now + wait, (Urgency::Refresh, pace)));
    }
    let ids = started(&mut queue, now + SECOND);
    assert_eq!(ids.len(), MAX_OPEN);
    assert_eq!(ids.iter().filter(|id| **id < 64).count(), MAX_OPEN / 2);
}

#[test]
fn names_that_wait_for_the_half_of_the_slow_lack_nothing_else() {
    let (mut queue, now) = queue(500);
    // 20 names of a silent DNS, with both families.
    (0..20).for_each(|id| queue.insert(id, 2, now));
    assert_eq!(started(&mut queue, now).len(), 20);
    (0..20).for_each(|id| queue.finish(id, now, now, (Urgency::Refresh, Pace::Slow)));
    assert_eq!(started(&mut queue, now).len(), MAX_OPEN / 4);
    assert_eq!(queue.next(now), Next::Idle(Shortage::SlowQuestions));
    // Others then take all that is left.
    (20..40).for_each(|id| queue.insert(id, 2, now));
    assert_eq!(started(&mut queue, now).len(), MAX_OPEN / 4);
    assert_eq!(queue.next(now), Next::Idle(Shortage::OpenQuestions));
}

#[test]
fn the_budget_is_kept_over_time() {
    let (mut queue, mut now) = queue(10);
    (0..1000).for_each(|id| queue.insert(id, 1, now));
    let mut total = 0;
    for _ in 0..100 {
        for id in started(&mut queue, now) {
            total += 1;
            queue.finish(id, now, now + SECOND, AGAIN);
        }
        let Next::Wait(wait, Shortage::Budget) = queue.next(now) else { panic!("no wait") };
        assert!(wait <= SECOND / 10, "{wait:?}");
        now += SECOND / 10;
    }
    // Ten at once, then one in each of the 99 tenths that follow.
    assert_eq!(total, 109);
    queue.charge(10);
    assert_eq!(started(&mut queue, now + SECOND / 2), [0_u32; 0]);
}

#[test]
fn a_lookup_larger_than_the_limits_begins_alone() {
    let now = clock::now();
    let mut queue = LookupQueue::new(1, 1, now);
    queue.insert(1, 8, now);
    queue.insert(2, 1, now);
    assert_eq!(started(&mut queue, now), [1]);
    assert_eq!(started(&mut queue, now + 9 * SECOND), [0_u32; 0]);
    queue.remove(1);
    assert_eq!(started(&mut queue, now + 9 * SECOND), [2]);
}

#[test]
fn a_wait_ends_when_the_next_name_is_due() {
    let (mut queue, now) = queue(500);
    assert_eq!(queue.next(now), Next::Idle(Shortage::None));
    queue.insert(1, 1, now);
    assert_eq!(started(&mut queue, now), [1]);
    queue.finish(1, now, now + 5 * SECOND, AGAIN);
    assert_eq!(queue.next(now + SECOND), Next::Wait(4 * SECOND, Shortage::None));
    queue.advance(1, now + SECOND, Urgency::TargetFailed);
    assert_eq!(started(&mut queue, now + SECOND), [1]);
    queue.advance(1, now + SECOND, Urgency::TargetFailed);
    assert_eq!(queue.next(now + SECOND), Next::Idle(Shortage::None));
    queue.remove(1);
    assert_eq!(queue.next(now + SECOND), Next::Idle(Shortage::None));
}

#[test]
fn late_is_a_second_and_a_tenth_of_the_wait() {
    let (mut queue, now) = queue(500);
    let due = now + 60 * SECOND;
    for (late_by, lateness) in [(6, Lateness::OnTime), (7, Lateness::By(7 * SECOND))] {
        queue.insert(1, 1, now);
        started(&mut queue, now);
        queue.finish(1, now, due, AGAIN);
        assert_eq!(queue.next(due + late_by * SECOND), Next::Start { id: 1, lateness });
        queue.remove(1);
    }
}
