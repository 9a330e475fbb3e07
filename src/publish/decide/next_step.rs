//! The next step of one database: ownership first, then the difference. Pure.
//!
//! | existing objects                                  | step                                    |
//! | ---                                               | ---                                     |
//! | no Service, one with a selector, ExternalName, …  | blocked: never written                  |
//! | Endpoints of another manager, without `adopt`     | blocked: never written                  |
//! | Endpoints with a leader-election annotation       | blocked: never written, `adopt` or not  |
//! | ports that do not join                            | blocked                                 |
//! | a slice with one of our names and another manager | blocked: never written                  |
//! | a Service with a selector, and managed slices     | delete those                            |
//! | no Service, with `createService`                  | create it                               |
//! | no plan yet, or no address that may be published  | blocked; some members leave (`waiting`) |
//! | no Endpoints, or no slice                         | create a placeholder                    |
//! | Endpoints and slices that match the desired state | in sync                                 |
//! | managed Endpoints or slices that differ           | write, on their resourceVersion         |

use k8s_openapi::api::core::v1::{Endpoints, Service};

use super::desired::desired;
use super::diff::{self, EndpointsAccess};
use super::inputs::Inputs;
use super::step::Step;
use super::{mirroring, service};
use crate::config::PublishMode;
use crate::endpoints;
use crate::endpoints::slices::SliceManager;
use crate::publish::condition::{Condition, ConditionKind};
use crate::publish::ownership;

/// Decides the next step for `service`, which may be newer than the cached one.
///
/// `written_uid` is the UID of the Endpoints that this process has written, if it has.
pub(crate) fn next_step(
    inputs: &Inputs,
    service: Option<&Service>,
    written_uid: Option<&str>,
) -> Step {
    let step = match ownership::check_service(&inputs.database, service) {
        Ok(service) => to_publish(inputs, service, written_uid),
        Err(refusal) => without_publishing(inputs, service, refusal),
    };
    step.unwrap_or_else(Step::Blocked)
}

/// Decides where nothing may be published.
fn without_publishing(
    inputs: &Inputs,
    service: Option<&Service>,
    refusal: Condition,
) -> Result<Step, Condition> {
    let database = &inputs.database;
    match (refusal.kind, database.create_service) {
        (ConditionKind::WaitingForService, Some(create)) if service.is_none() => {
            Ok(Step::CreateService(Box::new(service::build(database, create))))
        }
        // kube-proxy would add their endpoints to those of the Service's Pods.
        (ConditionKind::ServiceHasSelector | ConditionKind::ServiceIsExternalName, _) => {
            let mut managed = diff::managed_slices(&inputs.existing.slices);
            managed.next().map(diff::delete).ok_or(refusal)
        }
        _ => Err(refusal),
    }
}

/// Decides where the Service is one to publish for.
fn to_publish(
    inputs: &Inputs,
    service: &Service,
    written_uid: Option<&str>,
) -> Result<Step, Condition> {
    let check = |endpoints: &Endpoints| {
        ownership::check_endpoints(&inputs.database, endpoints, written_uid).err()
    };
    let refusal = inputs.endpoints().and_then(check);
    let (access, managed) = match refusal {
        None => (EndpointsAccess::Writable, inputs.endpoints()),
        Some(_) => (EndpointsAccess::Refused, None),
    };
    let blocking = refusal.filter(|refusal| is_blocking(inputs, refusal));
    if let Some(refusal) = blocking.clone().filter(|_| !diff::has_slices(&inputs.existing)) {
        return Err(with_left_behind(inputs, refusal));
    }
    let desired = desired(inputs, service, managed, written_uid)?;
    match (diff::diff(inputs, &desired, access)?, blocking) {
        (Some(step), _) => Ok(step),
        (None, Some(refusal)) => Err(with_left_behind(inputs, refusal)),
        (None, None) => desired.waiting.map_or(Ok(Step::InSync), Err),
    }
}

/// Returns whether Endpoints that may not be written block the database. They do not beside slices
/// if they send clients nowhere.
fn is_blocking(inputs: &Inputs, refusal: &Condition) -> bool {
    let idle = inputs.endpoints().is_some_and(|endpoints| {
        endpoints::skips_mirror(endpoints) || endpoints::members(endpoints).is_empty()
    });
    !(inputs.database.publish == PublishMode::Slices
        && refusal.kind == ConditionKind::NotOurs
        && idle)
}

/// Adds to a refusal that slices of Pods are left, if there are any.
fn with_left_behind(inputs: &Inputs, mut refusal: Condition) -> Condition {
    if inputs.existing.slices.serving_digest(SliceManager::SliceController).count > 0 {
        let left_behind = mirroring::left_behind(&inputs.database);
        refusal.reason = format!("{}; {left_behind}", refusal.reason);
    }
    refusal
}

#[cfg(test)]
pub(crate) mod tests;
