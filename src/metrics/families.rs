//! The metrics that have series for each database: their names, their help, and their values.

use super::encoder::Encoder;
use super::{names, policy};
use crate::health::State;
use crate::monitor::DatabaseSnapshot;
use crate::publish::PublishStatus;

/// One metric that has series for each database.
pub(super) struct Family {
    pub name: &'static str,
    pub kind: &'static str,
    pub help: &'static str,
    pub source: Source,
}

/// The part of the daemon that knows the values, with the function that encodes those of one
/// database.
pub(super) enum Source {
    Monitor(fn(&DatabaseSnapshot, &mut Encoder)),
    Publisher(fn(&PublishStatus, &mut Encoder)),
}

/// All of them, in the order of the page.
pub(super) const FAMILIES: [Family; 23] = [
    Family {
        name: "external_endpoints_target_healthy",
        kind: "gauge",
        help: "1 if the target is up, 0 if it is down; absent while unknown.",
        source: Source::Monitor(target_healthy),
    },
    Family {
        name: "external_endpoints_target_role",
        kind: "gauge",
        help: "1 for the role that the target's newest try has found; absent for all others.",
        source: Source::Monitor(target_role),
    },
    Family {
        name: "external_endpoints_target_lag_seconds",
        kind: "gauge",
        help: "The time by which a replica is behind its primary, by the newest try of a check \
               with maxLag or of MongoDB. While the replica can't say, the most that it can be.",
        source: Source::Monitor(target_lag),
    },
    Family {
        name: "external_endpoints_checks_total",
        kind: "counter",
        help: "Tries of a target's check, by their verdict.",
        source: Source::Monitor(checks),
    },
    Family {
        name: "external_endpoints_transitions_total",
        kind: "counter",
        help: "Flips of a target's health, by the state it came to.",
        source: Source::Monitor(transitions),
    },
    Family {
        name: "external_endpoints_configured_addresses",
        kind: "gauge",
        help: "Addresses that the config lists; a name counts as one.",
        source: Source::Monitor(names::configured_addresses),
    },
    Family {
        name: "external_endpoints_targets",
        kind: "gauge",
        help: "IPs that are checked: those of the config, and those that DNS gives for its names.",
        source: Source::Monitor(|database, encoder| encoder.sample(&[], database.targets.len())),
    },
    Family {
        name: "external_endpoints_name_resolved",
        kind: "gauge",
        help: "1 if the newest lookup of the name gave addresses that may be published, else 0.",
        source: Source::Monitor(names::resolved),
    },
    Family {
        name: "external_endpoints_name_kept_addresses",
        kind: "gauge",
        help: "Addresses that stay although DNS does not give them; absent when none does.",
        source: Source::Monitor(names::kept_addresses),
    },
    Family {
        name: "external_endpoints_name_changes_total",
        kind: "counter",
        help: "Answers that had other addresses than the one before; absent until one had.",
        source: Source::Monitor(names::changes),
    },
    Family {
        name: "external_endpoints_refused_addresses",
        kind: "gauge",
        help: "Addresses of the config, and of the answers for its names, that may not be \
         published and are not checked.",
        source: Source::Monitor(names::refused_addresses),
    },
    Family {
        name: "external_endpoints_target_in_maintenance",
        kind: "gauge",
        help: "1 for a target that is in maintenance; absent for others.",
        source: Source::Monitor(policy::in_maintenance),
    },
    Family {
        name: "external_endpoints_target_flapping",
        kind: "gauge",
        help: "1 for a target that is up, but out because it flapped; absent for others.",
        source: Source::Monitor(policy::flapping),
    },
    Family {
        name: "external_endpoints_target_inconclusive",
        kind: "gauge",
        help: "1 for a published target whose checks have been inconclusive for more than a \
         minute; absent for others.",
        source: Source::Monitor(policy::inconclusive),
    },
    Family {
        name: "external_endpoints_target_login_refused",
        kind: "gauge",
        help: "1 for a target that does not let its check log in; absent for others.",
        source: Source::Monitor(policy::login_refused),
    },
    Family {
        name: "external_endpoints_role_missing",
        kind: "gauge",
        help: "1 while no target is well, and one or more have another role than their check asks \
               for; else absent.",
        source: Source::Monitor(policy::role_missing),
    },
    Family {
        name: "external_endpoints_unhealthy_kept_addresses",
        kind: "gauge",
        help: "Addresses that stay published although they are not healthy, because minHealthy \
         asks for it.",
        source: Source::Monitor(policy::kept),
    },
    Family {
        name: "external_endpoints_split_brain",
        kind: "gauge",
        help: "1 if more than one target of a database with exactlyOne passes, else 0.",
        source: Source::Monitor(policy::split_brain),
    },
    Family {
        name: "external_endpoints_serving_tier",
        kind: "gauge",
        help: "The lowest tier that serves, as its priority number; absent while none does, and \
         without several tiers.",
        source: Source::Monitor(policy::serving_tier),
    },
    Family {
        name: "external_endpoints_failback_waiting",
        kind: "gauge",
        help: "1 if preferred tiers are healthy again and wait to take over, else 0; absent \
         without several tiers.",
        source: Source::Monitor(policy::failback_waiting),
    },
    Family {
        name: "external_endpoints_published_addresses",
        kind: "gauge",
        help: "Addresses that the cluster holds; absent while that is unknown.",
        source: Source::Publisher(published_addresses),
    },
    Family {
        name: "external_endpoints_database_condition",
        kind: "gauge",
        help: "1 for the condition in force; absent for all others.",
        source: Source::Publisher(database_condition),
    },
    Family {
        name: "external_endpoints_writes_total",
        kind: "counter",
        help: "API calls that write, by their result.",
        source: Source::Publisher(writes),
    },
];

fn target_healthy(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    for target in &database.targets {
        let state = target.health.state();
        if state != State::Unknown {
            encoder.set_target(target.member.ip);
            encoder.sample(&[], u8::from(state == State::Up));
        }
    }
}

fn target_role(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    for target in &database.targets {
        if let Some(role) = target.observation.as_ref().and_then(|observation| observation.role) {
            encoder.set_target(target.member.ip);
            encoder.sample(&[("role", role.as_str())], 1);
        }
    }
}

fn target_lag(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    for target in &database.targets {
        if let Some(lag) = target.observation.as_ref().and_then(|observation| observation.lag) {
            encoder.set_target(target.member.ip);
            encoder.sample(&[], lag.as_secs_f64());
        }
    }
}

fn checks(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    for target in &database.targets {
        encoder.set_target(target.member.ip);
        let counts = target.counts;
        for (result, count) in
            [("pass", counts.pass), ("fail", counts.fail), ("inconclusive", counts.inconclusive)]
        {
            encoder.sample(&[("result", result)], count);
        }
    }
}

fn transitions(database: &DatabaseSnapshot, encoder: &mut Encoder) {
    for target in &database.targets {
        encoder.set_target(target.member.ip);
        let counts = target.counts;
        for (to, count) in [(State::Up, counts.to_up), (State::Down, counts.to_down)] {
            encoder.sample(&[("to", to.as_str())], count);
        }
    }
}

fn published_addresses(status: &PublishStatus, encoder: &mut Encoder) {
    if let Some(members) = &status.members {
        encoder.sample(&[], members.len());
    }
}

fn database_condition(status: &PublishStatus, encoder: &mut Encoder) {
    // Series for the other conditions as well would be a third of the page.
    encoder.sample(&[("condition", &status.condition.kind.to_string())], 1);
}

fn writes(status: &PublishStatus, encoder: &mut Encoder) {
    for (result, number) in &status.writes {
        encoder.sample(&[("result", result)], number);
    }
}
