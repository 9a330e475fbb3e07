//! What may be done about one database: ownership first, then the difference. Pure.
//!
//! | the cluster shows                                      | step                                  |
//! | ---                                                    | ---                                   |
//! | no Service, one with a selector, ExternalName, …       | wait: never written                   |
//! | Endpoints of another manager, without `adopt`          | wait: never written                   |
//! | Endpoints with a leader-election annotation            | wait: never written, `adopt` or not   |
//! | ports without a join                                   | wait                                  |
//! | no plan yet, or no address that may be published       | wait; but what is not allowed goes    |
//! | no Endpoints                                           | create them, blank                    |
//! | Endpoints that hold the members                        | nothing                               |
//! | Endpoints of ours that differ                          | write, on their resourceVersion       |

use k8s_openapi::api::core::v1::{Endpoints, Service};

use super::condition::{Condition, Kind};
use super::ports;
use crate::config::Database;
use crate::plan::{Members, Plan};
use crate::slice;

/// What is to be done next.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Nothing may be written.
    Wait(Condition),
    /// Nothing needs to be written.
    Hold,
    /// There are no Endpoints: apply blank ones, so that the write after it has a resourceVersion to stand on.
    Create(Box<Endpoints>),
    Write(Box<Endpoints>),
}

/// Annotations by which leader election keeps a lock in Endpoints: client-go's, and Patroni's.
const LEADER_ANNOTATIONS: [&str; 3] = ["control-plane.alpha.kubernetes.io/leader", "acquireTime", "renewTime"];

/// How Kubernetes' own controller labels the Endpoints of a Service with a selector.
const ENDPOINTS_CONTROLLER: &str = "endpoint-controller";

/// Decides the next step. `written` is the UID of the Endpoints that this process has written, if it has.
pub fn assess(
    database: &Database,
    plan: &Plan,
    service: Option<&Service>,
    endpoints: Option<&Endpoints>,
    written: Option<&str>,
) -> Step {
    try_assess(database, plan, service, endpoints, written).unwrap_or_else(Step::Wait)
}

fn try_assess(
    database: &Database,
    plan: &Plan,
    service: Option<&Service>,
    endpoints: Option<&Endpoints>,
    written: Option<&str>,
) -> Result<Step, Condition> {
    let service = writable_service(database, service)?;
    if let Some(endpoints) = endpoints {
        writable_endpoints(database, endpoints, written)?;
    }
    let service_ports = service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let ports = ports::join(&database.ports, service_ports).map_err(|why| Condition::new(Kind::PortMismatch, why))?;
    let members = &wanted(database, plan, endpoints)?;
    let (namespace, name) = (&database.id.namespace, &database.id.service);
    Ok(match endpoints {
        None => Step::Create(Box::new(slice::blank(namespace, name))),
        Some(held) if slice::holds(held, members, &ports) => Step::Hold,
        Some(held) => Step::Write(Box::new(slice::endpoints(&held.metadata, members, &ports))),
    })
}

/// The members that the Endpoints shall have. None of them is one that is not allowed, whoever published it.
fn wanted(database: &Database, plan: &Plan, held: Option<&Endpoints>) -> Result<Members, Condition> {
    let allowed = |members: &Members| -> Members {
        members.iter().filter(|member| database.allowed.allows(member.ip)).cloned().collect()
    };
    let why = match plan {
        Plan::Publish(members) if !database.addresses.is_empty() => return Ok(allowed(members)),
        Plan::Publish(_) => {
            let why = database.refused.first().map_or("it has none", |refused| &refused.why);
            let why = format!("none of the addresses may be published, so what was is kept: {why}");
            Condition::new(Kind::AddressesRefused, why)
        }
        Plan::Keep(why) => Condition::new(Kind::WaitingForVerdicts, why.to_string()),
    };
    let held = held.map(slice::members).unwrap_or_default();
    let rest = allowed(&held);
    if rest == held { Err(why) } else { Ok(rest) }
}

/// The Service, if its Endpoints are for anyone but Kubernetes to write.
fn writable_service<'a>(database: &Database, service: Option<&'a Service>) -> Result<&'a Service, Condition> {
    let id = &database.id;
    if id.namespace == "default" && id.service == "kubernetes" {
        let why = "default/kubernetes is the API server's own Service; name another one in the config";
        return Err(Condition::new(Kind::ServiceIsKubernetes, why));
    }
    let Some(service) = service.filter(|service| service.metadata.deletion_timestamp.is_none()) else {
        let why = format!("there is no Service {id}; create it, without a selector");
        return Err(Condition::new(Kind::WaitingForService, why));
    };
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        let why = format!(
            "Service {id} is of type ExternalName, which has no Endpoints; make it ClusterIP, without a selector"
        );
        return Err(Condition::new(Kind::ServiceIsExternalName, why));
    }
    if spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty()) {
        let why = format!(
            "Service {id} has a selector, so Kubernetes writes its Endpoints; remove spec.selector, or the database from the config"
        );
        return Err(Condition::new(Kind::ServiceHasSelector, why));
    }
    Ok(service)
}

/// Says no to Endpoints that are someone else's.
fn writable_endpoints(database: &Database, endpoints: &Endpoints, written: Option<&str>) -> Result<(), Condition> {
    let id = &database.id;
    let not_ours = |why: String| Err(Condition::new(Kind::NotOurs, why));
    if let Some(annotation) = leader_annotation(endpoints) {
        return not_ours(format!(
            "Endpoints {id} carry the leader-election annotation {annotation}, and are never taken over; use a Service of another name"
        ));
    }
    if endpoints.metadata.deletion_timestamp.is_some() {
        return Err(Condition::new(Kind::WaitingForService, format!("Endpoints {id} are being deleted")));
    }
    if database.adopt || is_ours(endpoints, written) {
        return Ok(());
    }
    let whose = match slice::managed_by(endpoints) {
        Some(ENDPOINTS_CONTROLLER) => "were written by Kubernetes while the Service had a selector".to_owned(),
        Some(manager) => format!("belong to {manager} (label {})", slice::MANAGED_BY),
        None => "were written by someone else".to_owned(),
    };
    not_ours(format!("Endpoints {id} {whose}; set `adopt: true` on the database to take them over, or delete them"))
}

pub(super) fn leader_annotation(endpoints: &Endpoints) -> Option<&'static str> {
    let annotations = endpoints.metadata.annotations.as_ref()?;
    LEADER_ANNOTATIONS.into_iter().find(|annotation| annotations.contains_key(*annotation))
}

/// Ours by the label. Without one: by the record of who applied what, or because nobody has said anything in them since we
/// created them. Taken back from Kubernetes, which wrote them while the Service had a selector, if it is the very object that
/// this process has written.
fn is_ours(endpoints: &Endpoints, written: Option<&str>) -> bool {
    let written_by_us = written.is_some() && written == endpoints.metadata.uid.as_deref();
    match slice::managed_by(endpoints) {
        Some(manager) => manager == slice::OURS || (manager == ENDPOINTS_CONTROLLER && written_by_us),
        None => {
            let applied_by_us = endpoints.metadata.managed_fields.iter().flatten().any(|entry| {
                entry.manager.as_deref() == Some(slice::OURS) && entry.operation.as_deref() == Some("Apply")
            });
            written_by_us || applied_by_us || slice::is_blank(endpoints)
        }
    }
}

#[cfg(test)]
#[path = "assess_tests.rs"]
mod tests;
