//! The effect that publishing would have on objects that are at hand, without a daemon. Pure.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};

use super::cache::observed::Existing;
use super::condition::{Condition, ConditionKind};
use super::decide::inputs::Inputs;
use super::decide::next_step::next_step;
use super::decide::step::Step;
use crate::config::Database;
use crate::plan::{Member, Members, Plan};
pub(crate) use crate::publish::ownership::leader_annotation;

/// Returns the condition that keeps a database from being written while all of its addresses are
/// healthy, if there is one.
pub(crate) fn blocker(
    database: &Database,
    service: Option<&Service>,
    endpoints: Option<&Endpoints>,
) -> Option<Condition> {
    match step(database, service, endpoints) {
        // With names alone it waits for DNS.
        Step::Blocked(condition) if condition.kind != ConditionKind::AddressesRefused => {
            Some(condition)
        }
        _ => None,
    }
}

/// Tests that a database would be published, and nothing written, while all of its addresses are
/// healthy that are not in maintenance. Otherwise returns the condition that it would have.
pub(crate) fn check_unchanged(
    database: &Database,
    service: &Service,
    endpoints: &Endpoints,
) -> Result<(), Condition> {
    let changes = healthy(database).changes_from(&crate::endpoints::members(endpoints));
    match step(database, Some(service), Some(endpoints)) {
        Step::InSync => Ok(()),
        Step::Blocked(condition) => Err(condition),
        _ => {
            let changes = if changes.is_empty() { "names or ports" } else { &changes };
            let reason = format!("the daemon would change {changes} in its Endpoints at once");
            Err(Condition::new(ConditionKind::DryRun, reason))
        }
    }
}

/// Returns the members while all addresses are healthy that are not in maintenance.
fn healthy(database: &Database) -> Members {
    let addresses = database.addresses.iter().filter(|address| address.maintenance.is_none());
    addresses.map(|address| Member { ip: address.ip, hostname: address.hostname.clone() }).collect()
}

/// Returns the next step while all addresses are healthy.
fn step(database: &Database, service: Option<&Service>, endpoints: Option<&Endpoints>) -> Step {
    let inputs = Inputs {
        database: Arc::new(database.clone()),
        plan: Plan::Publish(healthy(database)),
        may_answer: Arc::default(),
        existing: Existing {
            service: service.cloned().map(Arc::new),
            endpoints: endpoints.cloned().map(Arc::new),
            ..Existing::default()
        },
    };
    next_step(&inputs, service, None)
}
