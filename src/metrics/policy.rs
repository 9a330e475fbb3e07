//! What policies do, as metrics: who is out though healthy, who is in though not, and which tier serves.

use super::Samples;
use crate::monitor::{DatabaseSnapshot, TargetState};
use crate::plan::{MinHealthy, Plan, PolicyNote};

pub(super) fn in_maintenance(database: &DatabaseSnapshot, samples: &mut Samples) {
    each(database, samples, |target| target.maintenance.is_some());
}

pub(super) fn flapping(database: &DatabaseSnapshot, samples: &mut Samples) {
    each(database, samples, |target| target.flapping().is_some());
}

pub(super) fn inconclusive(database: &DatabaseSnapshot, samples: &mut Samples) {
    let listed = |target: &TargetState| {
        database
            .notes
            .iter()
            .any(|note| matches!(note, PolicyNote::ChecksInconclusive { ips, .. } if ips.contains(&target.member.ip)))
    };
    each(database, samples, listed);
}

/// 1 for the targets of which this is so.
fn each(database: &DatabaseSnapshot, samples: &mut Samples, is_so: impl Fn(&TargetState) -> bool) {
    for target in database.targets.iter().filter(|target| is_so(target)) {
        samples.add("", &[("address", &target.member.ip.to_string())], 1);
    }
}

pub(super) fn kept(database: &DatabaseSnapshot, samples: &mut Samples) {
    if database.policy.min_healthy != MinHealthy::Number(0) {
        let kept = database.notes.iter().map(|note| match note {
            PolicyNote::BelowMinHealthy { kept, .. } => kept.len(),
            _ => 0,
        });
        samples.add("", &[], kept.sum::<usize>());
    }
}

pub(super) fn split_brain(database: &DatabaseSnapshot, samples: &mut Samples) {
    if database.policy.exactly_one {
        let split = database.notes.iter().any(|note| matches!(note, PolicyNote::SplitBrain { .. }));
        samples.add("", &[], u8::from(split));
    }
}

pub(super) fn serving_tier(database: &DatabaseSnapshot, samples: &mut Samples) {
    let Plan::Publish(members) = &database.plan else { return };
    let serving = database.targets.iter().filter(|target| members.contains(target.member.ip));
    if let (true, Some(tier)) = (has_tiers(database), serving.map(|target| target.priority).max()) {
        samples.add("", &[], tier);
    }
}

pub(super) fn failback_waiting(database: &DatabaseSnapshot, samples: &mut Samples) {
    if has_tiers(database) {
        let waiting =
            database.notes.iter().any(|note| matches!(note, PolicyNote::FailbackWaits { .. }));
        samples.add("", &[], u8::from(waiting));
    }
}

fn has_tiers(database: &DatabaseSnapshot) -> bool {
    database.targets.iter().any(|target| target.priority != database.targets[0].priority)
}
