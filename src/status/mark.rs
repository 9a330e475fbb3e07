//! The state of a target and of a database in one word, for people. The page and the commands use
//! the same words.

use std::collections::HashSet;

use super::text::address_list;
use super::{DatabaseStatus, LeaseStatus, ReplicaRole, ReplicaStatus, TargetStatus};
use crate::health::State;
use crate::publish::ConditionKind;

/// The state of a target, as a shape and a word. A colour alone would not do for all people.
///
/// | maintenance | health | flapping | mark |
/// | --- | --- | --- | --- |
/// | yes | any | any | Maintenance |
/// | no | down | any | Down |
/// | no | unknown | any | Unknown |
/// | no | up | yes | Flapping |
/// | no | up | no | Up |
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetMark {
    /// Checks fail.
    Down,
    /// The health is up, but the target is out because it flapped.
    Flapping,
    /// Nothing is known of it yet.
    Unknown,
    /// A person has taken it out.
    Maintenance,
    /// Checks pass.
    Up,
}

impl TargetMark {
    /// Every mark, the worst first.
    pub const ALL: [TargetMark; 5] = [
        TargetMark::Down,
        TargetMark::Flapping,
        TargetMark::Unknown,
        TargetMark::Maintenance,
        TargetMark::Up,
    ];

    /// Returns the shape.
    pub fn symbol(self) -> char {
        match self {
            TargetMark::Up => '▲',
            TargetMark::Down => '▼',
            TargetMark::Flapping => '◆',
            TargetMark::Maintenance => '■',
            TargetMark::Unknown => '?',
        }
    }

    /// Returns the word.
    pub fn word(self) -> &'static str {
        match self {
            TargetMark::Up => "up",
            TargetMark::Down => "down",
            TargetMark::Flapping => "flapping",
            TargetMark::Maintenance => "maintenance",
            TargetMark::Unknown => "unknown",
        }
    }
}

impl TargetStatus {
    /// Returns whether the plan has the target; none while that is undecided.
    pub(crate) fn planned(&self) -> Option<bool> {
        self.membership.as_ref().and_then(|membership| membership.planned)
    }

    /// Returns the mark.
    pub fn mark(&self) -> TargetMark {
        match self.health {
            _ if self.maintenance.is_some() => TargetMark::Maintenance,
            State::Down => TargetMark::Down,
            State::Unknown => TargetMark::Unknown,
            State::Up if self.flapping_until.is_some() => TargetMark::Flapping,
            State::Up => TargetMark::Up,
        }
    }
}

impl ReplicaStatus {
    /// Returns whether no replica is known to write.
    pub(crate) fn has_no_writer(&self) -> bool {
        let has_holder = |lease: &LeaseStatus| lease.held || lease.holder.is_some();
        self.role == ReplicaRole::Standby && !self.lease.as_ref().is_some_and(has_holder)
    }

    /// Returns whether anything about the replica needs a person.
    pub(crate) fn is_in_trouble(&self) -> bool {
        self.has_no_writer()
            || self.frozen.is_some()
            || !self.config.problems.is_empty()
            || !self.left_behind.is_empty()
    }
}

impl DatabaseStatus {
    /// Returns whether a person should look at the database: at its condition, at a target that is
    /// down and not in maintenance, at checks that say nothing, at a split brain, or at a name that
    /// does not resolve.
    pub fn is_in_trouble(&self) -> bool {
        let is_bad = |target: &TargetStatus| {
            target.mark() == TargetMark::Down || target.inconclusive_since.is_some()
        };
        self.has_condition_of_trouble()
            || self.split_brain
            || self.targets.iter().any(is_bad)
            || self.names.iter().any(|name| name.failing_since.is_some())
    }

    /// Returns the number of targets that the cluster holds.
    pub(crate) fn published_targets(&self) -> usize {
        self.targets.iter().filter(|target| target.published).count()
    }

    /// Returns the addresses that the cluster holds although they are no targets, as a list; none
    /// if there are none. They have left the config or DNS, and no plan could be carried out since.
    pub(crate) fn other_published(&self) -> Option<String> {
        let published = self.published.as_deref().unwrap_or_default();
        if published.len() == self.published_targets() {
            return None;
        }
        let targets: HashSet<&str> = self.targets.iter().map(|target| &*target.address).collect();
        let others = published.iter().filter(|ip| !targets.contains(&***ip)).cloned();
        let others: Vec<String> = others.collect();
        (!others.is_empty()).then(|| address_list(&others))
    }

    /// Returns whether a person should look at the condition. One of a later version counts.
    pub(crate) fn has_condition_of_trouble(&self) -> bool {
        let Some(condition) = &self.condition else { return false };
        let known = ConditionKind::ALL.into_iter().find(|kind| kind.to_string() == *condition);
        known.is_none_or(ConditionKind::is_trouble)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::Time;

    fn target(health: State) -> TargetStatus {
        let text = r#"{"address": "10.0.0.1", "tier": 0, "health": "up", "passes": 1,
            "failures": 0, "since": "2026-11-28T14:00:00.000Z", "reason": null,
            "lastCheck": null, "lastDurationSeconds": null, "published": true}"#;
        TargetStatus { health, ..serde_json::from_str(text).expect("a target") }
    }

    fn database(condition: &str, target: TargetStatus) -> DatabaseStatus {
        let text = format!(
            r#"{{"namespace": "prod", "service": "mysql", "condition": "{condition}",
            "reason": "", "since": null, "splitBrain": false, "planned": null,
            "published": null, "targets": []}}"#
        );
        let targets = vec![target];
        DatabaseStatus { targets, ..serde_json::from_str(&text).expect("a database") }
    }

    #[test]
    fn a_mark_is_the_worst_that_a_person_can_act_on() {
        let later = Some(Time(std::time::SystemTime::UNIX_EPOCH));
        let maintenance = Some("disk".to_owned());
        for (health, plain, flapping) in [
            (State::Up, TargetMark::Up, TargetMark::Flapping),
            (State::Down, TargetMark::Down, TargetMark::Down),
            (State::Unknown, TargetMark::Unknown, TargetMark::Unknown),
        ] {
            let target = target(health);
            assert_eq!(target.mark(), plain);
            let target = TargetStatus { flapping_until: later, ..target };
            assert_eq!(target.mark(), flapping);
            let target = TargetStatus { maintenance: maintenance.clone(), ..target };
            assert_eq!(target.mark(), TargetMark::Maintenance);
        }
    }

    #[test]
    fn trouble_is_what_needs_a_person() {
        let is_in_trouble = |condition, target| database(condition, target).is_in_trouble();
        let maintenance = Some("disk".to_owned());
        assert!(!is_in_trouble("Published", target(State::Up)));
        assert!(!is_in_trouble("Standby", target(State::Unknown)));
        assert!(is_in_trouble("Published", target(State::Down)));
        assert!(!is_in_trouble("Published", TargetStatus { maintenance, ..target(State::Down) }));
        assert!(is_in_trouble("NotOurs", target(State::Up)));
        assert!(is_in_trouble("AKindOfLater", target(State::Up)));
        let split_brain = database("Published", target(State::Up));
        assert!(DatabaseStatus { split_brain: true, ..split_brain }.is_in_trouble());
    }
}
