//! The effects of policies as metrics: healthy targets that are out, others that are in, and the
//! tier that serves.

use super::encoder::Encoder;
use crate::monitor::{DatabaseSnapshot, TargetState};
use crate::plan::{MinHealthy, Plan, PolicyNote};

pub(super) fn in_maintenance(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    each(database, encoder, |target| target.maintenance.is_some());
}

pub(super) fn flapping(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    each(database, encoder, |target| target.flapping().is_some());
}

pub(super) fn inconclusive(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    let listed = |target: &TargetState| {
        database.notes.iter().any(|note| match note {
            PolicyNote::ChecksInconclusive { ips, .. } => ips.contains(&target.member.ip),
            _ => false,
        })
    };
    each(database, encoder, listed);
}

pub(super) fn login_refused(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    let listed = |target: &TargetState| {
        database.notes.iter().any(|note| match note {
            PolicyNote::LoginRefused { ips, .. } => ips.contains(&target.member.ip),
            _ => false,
        })
    };
    each(database, encoder, listed);
}

pub(super) fn role_missing(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    if database.notes.iter().any(|note| matches!(note, PolicyNote::RoleMissing { .. })) {
        encoder.sample(&[], 1);
    }
}

/// Encodes a 1 for each target for which `applies` returns true.
fn each(
    database: &DatabaseSnapshot,
    encoder: &mut Encoder,
    applies: impl Fn(&TargetState) -> bool,
) {
    for target in database.targets.iter().filter(|target| applies(target)) {
        encoder.set_target(target.member.ip);
        encoder.sample(&[], 1);
    }
}

pub(super) fn kept(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    if database.policy.min_healthy != MinHealthy::Number(0) {
        let kept = database.notes.iter().map(|note| match note {
            PolicyNote::BelowMinHealthy { kept, .. } => kept.len(),
            _ => 0,
        });
        encoder.sample(&[], kept.sum::<usize>());
    }
}

pub(super) fn split_brain(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    if database.policy.exactly_one {
        let split = database.notes.iter().any(|note| matches!(note, PolicyNote::SplitBrain { .. }));
        encoder.sample(&[], u8::from(split));
    }
}

pub(super) fn serving_tier(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    let Plan::Publish(members) = &database.plan else { return };
    let serving = database.targets.iter().filter(|target| members.contains(target.member.ip));
    if let (true, Some(tier)) = (has_tiers(database), serving.map(|target| target.priority).max()) {
        encoder.sample(&[], tier);
    }
}

pub(super) fn failback_waiting(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    if has_tiers(database) {
        let waiting =
            database.notes.iter().any(|note| matches!(note, PolicyNote::FailbackWaits { .. }));
        encoder.sample(&[], u8::from(waiting));
    }
}

fn has_tiers(database: &DatabaseSnapshot) -> bool {
    database.targets.iter().any(|target| target.priority != database.targets[0].priority)
}
