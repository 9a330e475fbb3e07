//! The desired state of one database: from its config, its plan and its Service. Pure.

use k8s_openapi::api::core::v1::{EndpointPort, Endpoints, Service};

use super::inputs::Inputs;
use super::waiting::{self, Published, Retained};
use super::{ports, serving};
use crate::config::{Database, PublishMode};
use crate::endpoints::{self, MAX_MIRRORED_ADDRESSES};
use crate::plan::{Members, Plan};
use crate::publish::condition::{Condition, ConditionKind};
use crate::publish::ownership;

/// The members and ports that a Service shall have.
pub(crate) struct Desired<'a> {
    pub service: &'a Service,
    pub members: Members,
    pub ports: Vec<EndpointPort>,
    /// The reason why the database waits for a decision. The members are then the existing ones
    /// that may stay.
    pub waiting: Option<Condition>,
}

/// Computes the desired state, or returns the condition that keeps everything as it is.
///
/// `managed` are the Endpoints, if the daemon may write them. `written_uid` is the UID of the
/// Endpoints that this process has written.
pub(crate) fn desired<'a>(
    inputs: &Inputs,
    service: &'a Service,
    managed: Option<&Endpoints>,
    written_uid: Option<&str>,
) -> Result<Desired<'a>, Condition> {
    let database = &*inputs.database;
    let service_ports =
        service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
    let ports = ports::join(&database.ports, service_ports)
        .map_err(|reason| Condition::new(ConditionKind::PortMismatch, reason))?;
    let mut waiting = match &inputs.plan {
        Plan::Publish(members) if !(database.addresses.is_empty() && database.names.is_empty()) => {
            let is_allowed = |ip| database.allowed_networks.allows(ip);
            let members: Members =
                members.iter().filter(|member| is_allowed(member.ip)).cloned().collect();
            let members = match database.publish {
                PublishMode::Endpoints => mirrored(members, &inputs.serving()),
                PublishMode::Slices | PublishMode::Both => members,
            };
            return Ok(Desired { service, members, ports, waiting: None });
        }
        Plan::Publish(_) => addresses_refused(database),
        Plan::Keep(reason) => waiting::condition(reason),
    };
    match waiting::retained(database, &published(inputs, managed, written_uid)) {
        Retained::Only(members) => Ok(Desired { service, members, ports, waiting: Some(waiting) }),
        Retained::All { unconfigured } => {
            let note = waiting::describe(&unconfigured).map(|note| format!("; {note}"));
            waiting.reason.push_str(&note.unwrap_or_default());
            Err(waiting)
        }
    }
}

/// Returns as many members as Kubernetes mirrors: those that serve already, then the lowest.
fn mirrored(members: Members, serving: &Members) -> Members {
    if members.len() <= MAX_MIRRORED_ADDRESSES {
        return members;
    }
    let mut members: Vec<_> = members.iter().cloned().collect();
    members.sort_by_key(|member| (!serving.contains(member.ip), member.ip));
    members.truncate(MAX_MIRRORED_ADDRESSES);
    members.into_iter().collect()
}

/// Returns the condition of a database none of whose addresses may be published.
fn addresses_refused(database: &Database) -> Condition {
    let reason = database.rejected.first().map_or("it has none", |address| &address.reason);
    Condition::new(
        ConditionKind::AddressesRefused,
        format!("none of the addresses may be published, so what was is kept: {reason}"),
    )
}

/// Returns the members that are published now.
fn published<'a>(
    inputs: &'a Inputs,
    managed: Option<&Endpoints>,
    written_uid: Option<&str>,
) -> Published<'a> {
    let slices = &inputs.existing.slices;
    let is_foreign = |existing: &Endpoints| {
        !ownership::is_managed(existing, written_uid) && !endpoints::members(existing).is_empty()
    };
    Published {
        serving: serving::serving(inputs.database.publish, managed, slices),
        exposed: serving::exposed(managed, slices),
        may_answer: &inputs.may_answer,
        is_foreign: managed.is_some_and(is_foreign),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Member;

    #[test]
    fn endpoints_have_what_serves_and_no_more_than_is_mirrored() {
        let member = |number: u32| Member {
            ip: std::net::Ipv4Addr::from_bits(0x0A00_0000 + number).into(),
            hostname: None,
        };
        let all: Members = (1..=1001).map(member).collect();
        let serving: Members = [member(1001)].into_iter().collect();
        let limited = mirrored(all.clone(), &serving);
        assert_eq!(limited.len(), MAX_MIRRORED_ADDRESSES);
        assert!(limited.contains(member(1001).ip) && !limited.contains(member(1000).ip));
        let fitting: Members = all.iter().take(1000).cloned().collect();
        assert_eq!(mirrored(fitting.clone(), &serving), fitting);
    }
}
