//! What may be done about one database: ownership first, then the difference. Pure.
//!
//! | the cluster shows                                      | step                                  |
//! | ---                                                    | ---                                   |
//! | no Service, one with a selector, ExternalName, …       | wait: never written                   |
//! | Endpoints of another manager, without `adopt`          | wait: never written                   |
//! | Endpoints with a leader-election annotation            | wait: never written, `adopt` or not   |
//! | ports without a join                                   | wait                                  |
//! | a slice of our name that is another manager's          | wait: never written                   |
//! | a Service with a selector, and slices of ours          | delete those                          |
//! | no Service, with `createService`                       | create it                             |
//! | no plan yet, or no address that may be published       | wait; but some leave (see `waiting`)  |
//! | no Endpoints, or no slice                              | create it, blank                      |
//! | Endpoints and slices that hold the members             | nothing                               |
//! | Endpoints or slices of ours that differ                | write, on their resourceVersion       |
//!
//! What clients are sent by is put in place before what it replaces is taken away:
//!
//! | `publish`   | first                         | then                                 | last                                 |
//! | ---         | ---                           | ---                                  | ---                                  |
//! | `slices`    | slices                        | Endpoints of ours: empty, unmirrored | slices that hold nothing are deleted |
//! | `both`      | slices                        | Endpoints, unmirrored                | the same                             |
//! | `endpoints` | slices, if there are any left | Endpoints, to be mirrored            | slices are deleted, once mirrored    |

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointPort, Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::config::{Database, PublishMode};
use crate::endpoints::slices::{self, Digest, IpFamily, SliceManager, SliceTemplate};
use crate::endpoints::{self, Mirror};
use crate::plan::{Members, Plan};
use crate::publish::cache::slices::SliceCache;
use crate::publish::condition::{Condition, ConditionKind};
use crate::publish::decide::waiting::{self, Published, Retained};
use crate::publish::decide::{inputs, mirroring, ports, service};

/// What is to be done next.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Nothing may be written.
    Blocked(Condition),
    /// Nothing needs to be written.
    InSync,
    /// There are no Endpoints: apply blank ones, so that the write after it has a resourceVersion to stand on.
    Create(Box<Endpoints>),
    Write(Box<Endpoints>),
    /// The same for slices.
    CreateSlice(Box<EndpointSlice>),
    WriteSlice(Box<EndpointSlice>),
    DeleteSlice(Box<EndpointSlice>),
    CreateService(Box<Service>),
}

impl Step {
    /// Whether it only makes what another step will fill.
    pub(crate) fn is_placeholder(&self) -> bool {
        matches!(self, Step::Create(_) | Step::CreateSlice(_) | Step::CreateService(_))
    }

    /// The name of what is to be written.
    pub(crate) fn object(&self) -> Option<&str> {
        let metadata = match self {
            Step::Create(endpoints) | Step::Write(endpoints) => &endpoints.metadata,
            Step::CreateSlice(slice) | Step::WriteSlice(slice) | Step::DeleteSlice(slice) => {
                &slice.metadata
            }
            Step::CreateService(service) => &service.metadata,
            Step::Blocked(_) | Step::InSync => return None,
        };
        metadata.name.as_deref()
    }
}

/// Annotations by which leader election keeps a lock in Endpoints: client-go's, and Patroni's.
pub(crate) const LEADER_ANNOTATIONS: [&str; 3] =
    ["control-plane.alpha.kubernetes.io/leader", "acquireTime", "renewTime"];

/// How Kubernetes' own controller labels the Endpoints of a Service with a selector.
const ENDPOINTS_CONTROLLER: &str = "endpoint-controller";

/// Decides the next step. `may_answer` are the addresses that may, as the monitor knows them, and `written` is the UID of
/// the Endpoints that this process has written, if it has.
pub(crate) fn next_step(
    database: &Database,
    plan: &Plan,
    service: Option<&Service>,
    endpoints: Option<&Endpoints>,
    slices: &SliceCache,
    may_answer: &[IpAddr],
    written: Option<&str>,
) -> Step {
    let step = match writable_service(database, service) {
        Ok(service) => {
            Planner { database, service, endpoints, slices, may_answer }.step(plan, written)
        }
        Err(refusal) => without_publishing(database, service, slices, refusal),
    };
    step.unwrap_or_else(Step::Blocked)
}

/// What may be done where nothing may be published.
fn without_publishing(
    database: &Database,
    service: Option<&Service>,
    slices: &SliceCache,
    refusal: Condition,
) -> Result<Step, Condition> {
    match (refusal.kind, database.create_service) {
        (ConditionKind::WaitingForService, Some(create)) if service.is_none() => {
            Ok(Step::CreateService(Box::new(service::service(database, create))))
        }
        // They would be united with those of the Service's Pods.
        (ConditionKind::ServiceHasSelector | ConditionKind::ServiceIsExternalName, _) => {
            ours(slices).next().map(delete).ok_or(refusal)
        }
        _ => Err(refusal),
    }
}

/// The slices of ours, but for those that are going already.
fn ours(slices: &SliceCache) -> impl Iterator<Item = &EndpointSlice> {
    slices.own().into_values().filter(|slice| slices::is_managed(slice) && !is_being_deleted(slice))
}

fn delete(slice: &EndpointSlice) -> Step {
    Step::DeleteSlice(Box::new(slice.clone()))
}

fn is_being_deleted(slice: &EndpointSlice) -> bool {
    slice.metadata.deletion_timestamp.is_some()
}

/// What there is to decide on, once the Service is one to publish for.
struct Planner<'a> {
    database: &'a Database,
    service: &'a Service,
    endpoints: Option<&'a Endpoints>,
    slices: &'a SliceCache,
    may_answer: &'a [IpAddr],
}

impl Planner<'_> {
    fn step(&self, plan: &Plan, written: Option<&str>) -> Result<Step, Condition> {
        let database = self.database;
        let refusal = match self
            .endpoints
            .map(|endpoints| writable_endpoints(database, endpoints, written))
        {
            Some(Err(refusal)) => Some(refusal),
            _ => None,
        };
        let blocking = refusal.as_ref().is_some_and(|refusal| self.blocks(refusal));
        if let Some(refusal) = refusal.clone().filter(|_| blocking && !self.has_slices()) {
            return Err(self.with_leftovers(refusal));
        }
        let service_ports =
            self.service.spec.as_ref().and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        let ports = ports::join(&database.ports, service_ports)
            .map_err(|why| Condition::new(ConditionKind::PortMismatch, why))?;
        let managed = self.endpoints.filter(|_| refusal.is_none());
        let (members, waiting) = &self.members(plan, managed, written)?;
        let step = match (database.publish, &refusal) {
            // SliceCache that are there are kept in step, or clients would be sent to who died meanwhile.
            (PublishMode::Endpoints, Some(_)) => self.follow(members, &ports)?,
            (PublishMode::Endpoints, None) if self.has_slices() => {
                self.leave_slices(members, &ports)?
            }
            (PublishMode::Endpoints, None) => self.endpoints(members, &ports, Mirror::Yes),
            (PublishMode::Slices | PublishMode::Both, None)
                if self.changes_beside_mirrored(members) =>
            {
                Some(self.change_mirrored(members, &ports)?)
            }
            (PublishMode::Slices | PublishMode::Both, refusal) => self
                .slices(members, &ports)?
                .or_else(|| if refusal.is_some() { None } else { self.unmirrored(members, &ports) })
                .or_else(|| self.delete_spare(members, &ports)),
        };
        match (step, refusal.filter(|_| blocking)) {
            (Some(step), _) => Ok(step),
            (None, Some(refusal)) => Err(self.with_leftovers(refusal)),
            (None, None) => waiting.clone().map_or(Ok(Step::InSync), Err),
        }
    }

    /// Returns the members that shall be published, and the condition of a database that waits for a decision. None of them
    /// is one that is not allowed, whoever published it. `managed` are the Endpoints, if they are for us to write.
    fn members(
        &self,
        plan: &Plan,
        managed: Option<&Endpoints>,
        written: Option<&str>,
    ) -> Result<(Members, Option<Condition>), Condition> {
        let database = self.database;
        let mut waiting = match plan {
            Plan::Publish(members) if !database.addresses.is_empty() => {
                let allowed =
                    members.iter().filter(|member| database.allowed_networks.allows(member.ip));
                return Ok((allowed.cloned().collect(), None));
            }
            Plan::Publish(_) => {
                let why =
                    database.rejected.first().map_or("it has none", |refused| &refused.reason);
                let why =
                    format!("none of the addresses may be published, so what was is kept: {why}");
                Condition::new(ConditionKind::AddressesRefused, why)
            }
            Plan::Keep(why) => Condition::new(ConditionKind::WaitingForVerdicts, why.to_string()),
        };
        let is_foreign =
            |held: &Endpoints| !is_ours(held, written) && !endpoints::members(held).is_empty();
        let published = Published {
            serving: &inputs::held(database.publish, managed, self.slices),
            exposed: &inputs::published(managed, self.slices),
            may_answer: self.may_answer,
            is_foreign: managed.is_some_and(is_foreign),
        };
        match waiting::retained(database, &published) {
            Retained::Only(members) => Ok((members, Some(waiting))),
            Retained::All { unconfigured } => {
                let note = waiting::describe(&unconfigured).map(|note| format!("; {note}"));
                waiting.reason.push_str(&note.unwrap_or_default());
                Err(waiting)
            }
        }
    }

    /// Whether Endpoints that are not for us to write stand in the way: beside slices not if they send nobody anywhere.
    fn blocks(&self, refusal: &Condition) -> bool {
        let idle = self.endpoints.is_some_and(|endpoints| {
            endpoints::skips_mirror(endpoints) || endpoints::members(endpoints).is_empty()
        });
        !(self.database.publish == PublishMode::Slices
            && refusal.kind == ConditionKind::NotOurs
            && idle)
    }

    fn with_leftovers(&self, mut refusal: Condition) -> Condition {
        if self.slices.ready(SliceManager::SliceController).count > 0 {
            refusal.reason =
                format!("{}; {}", refusal.reason, mirroring::left_behind(self.database));
        }
        refusal
    }

    fn endpoints(&self, members: &Members, ports: &[EndpointPort], mirror: Mirror) -> Option<Step> {
        let id = &self.database.id;
        match self.endpoints {
            None => {
                Some(Step::Create(Box::new(endpoints::placeholder(&id.namespace, &id.service))))
            }
            Some(held) if endpoints::matches(held, members, ports, mirror) => None,
            Some(held) => Some(Step::Write(Box::new(endpoints::build(
                &held.metadata,
                members,
                ports,
                mirror,
            )))),
        }
    }

    /// The Endpoints beside slices: with the members for those who read them, or empty if there are any.
    fn unmirrored(&self, members: &Members, ports: &[EndpointPort]) -> Option<Step> {
        match self.database.publish {
            PublishMode::Both => self.endpoints(members, ports, Mirror::No),
            _ => {
                self.endpoints.and_then(|_| self.endpoints(&Members::default(), ports, Mirror::No))
            }
        }
    }

    fn frame<'b>(&'b self, members: &Members, ports: &'b [EndpointPort]) -> SliceTemplate<'b> {
        let zoned = self
            .database
            .addresses
            .iter()
            .filter_map(|address| Some((address.ip, address.zone.as_deref()?)));
        // A family that no address has needs no slice, nor a right to write one.
        let configured = self.database.addresses.iter().map(|address| address.ip);
        let used: BTreeSet<IpFamily> = configured
            .chain(members.iter().map(|member| member.ip))
            .map(IpFamily::from_ip)
            .collect();
        SliceTemplate {
            families: slices::families(self.service)
                .into_iter()
                .filter(|family| used.contains(family))
                .collect(),
            namespace: &self.database.id.namespace,
            service: self.service,
            ports,
            zones: zoned.collect(),
        }
    }

    fn wanted(&self, members: &Members, ports: &[EndpointPort]) -> Vec<EndpointSlice> {
        self.frame(members, ports).slices(members, &self.own())
    }

    /// The slices of our name, but for those of someone else.
    fn own(&self) -> BTreeMap<&str, &EndpointSlice> {
        let mut own = self.slices.own();
        own.retain(|_, slice| slices::is_managed(slice));
        own
    }

    /// The slices of ours that are not among those that are wanted.
    fn spare<'b>(&'b self, wanted: &'b [EndpointSlice]) -> impl Iterator<Item = &'b EndpointSlice> {
        let needed = |slice: &EndpointSlice| {
            wanted.iter().any(|wanted| wanted.metadata.name == slice.metadata.name)
        };
        ours(self.slices).filter(move |slice| !needed(slice))
    }

    /// A slice that is not needed, and sends clients to who should get none. It is emptied at once, and deleted last.
    fn outdated(
        &self,
        wanted: &[EndpointSlice],
        members: &Members,
        ports: &[EndpointPort],
    ) -> Option<Step> {
        let leads_astray = |slice: &&EndpointSlice| {
            slices::ready_members(slice).any(|member| !members.contains(member.ip))
        };
        let slice = self.spare(wanted).find(leads_astray)?;
        Some(Step::WriteSlice(Box::new(self.frame(members, ports).without_endpoints(slice)?)))
    }

    /// The first slice that is to be created or written.
    fn slices(&self, members: &Members, ports: &[EndpointPort]) -> Result<Option<Step>, Condition> {
        // Who died is out before there is room for more.
        let missing =
            || self.missing(members, ports).map(|blank| Step::CreateSlice(Box::new(blank)));
        Ok(self.follow(members, ports)?.or_else(missing))
    }

    fn missing(&self, members: &Members, ports: &[EndpointPort]) -> Option<EndpointSlice> {
        let own = self.slices.own();
        let is_there = |slice: &EndpointSlice| {
            own.contains_key(slice.metadata.name.as_deref().unwrap_or_default())
        };
        self.wanted(members, ports).iter().find(|slice| !is_there(slice)).map(slices::placeholder)
    }

    /// The first slice that is there and is to be written. One that is not for us to write holds up no other.
    fn follow(&self, members: &Members, ports: &[EndpointPort]) -> Result<Option<Step>, Condition> {
        let own = self.slices.own();
        let mut wanted = self.wanted(members, ports);
        if let Some(step) = self.outdated(&wanted, members, ports) {
            return Ok(Some(step));
        }
        let mut refusal = None;
        if self.database.policy.exactly_one {
            // Of two IP families the old one leaves before the new one comes.
            wanted.sort_by_key(|slice| slice.endpoints.len());
        }
        for wanted in wanted {
            let Some(held) = own.get(wanted.metadata.name.as_deref().unwrap_or_default()) else {
                continue;
            };
            match writable_slice(self.database, held) {
                Err(refused) => refusal = refusal.or(Some(refused)),
                Ok(()) if slices::matches(held, &wanted) => {}
                Ok(()) => return Ok(Some(Step::WriteSlice(Box::new(wanted)))),
            }
        }
        refusal.map_or(Ok(None), Err)
    }

    /// With `exactlyOne`: whether Endpoints that are mirrored, or may be at any moment, send clients elsewhere than slices would,
    /// which must not be at once.
    fn changes_beside_mirrored(&self, members: &Members) -> bool {
        let wanted: Digest = members.iter().map(|member| member.ip).collect();
        let mirrored = self.slices.ready(SliceManager::MirroringController);
        let unlike = |endpoints: &Endpoints| {
            let held = endpoints::members(endpoints);
            !endpoints::skips_mirror(endpoints) && !held.is_empty() && held != *members
        };
        let elsewhere = mirrored.count > 0 && mirrored != wanted;
        self.database.policy.exactly_one && (elsewhere || self.endpoints.is_some_and(unlike))
    }

    /// Takes out of slices who leaves, then has mirrored who comes. SliceCache come when that has been seen.
    fn change_mirrored(
        &self,
        members: &Members,
        ports: &[EndpointPort],
    ) -> Result<Step, Condition> {
        let stays: Members =
            self.slices.members().filter(|member| members.contains(member.ip)).collect();
        let skips = self.database.publish != PublishMode::Endpoints
            && self.endpoints.is_some_and(endpoints::we_set_skip_mirror);
        let endpoints = || match skips {
            true => self.unmirrored(members, ports),
            false => self.endpoints.and_then(|_| self.endpoints(members, ports, Mirror::Yes)),
        };
        let step = self.follow(&stays, ports)?.or_else(endpoints);
        step.ok_or_else(|| {
            Condition::new(ConditionKind::NotMirrored, mirroring::waits(self.database))
        })
    }

    /// SliceCache of ours that are not needed: those that hold nothing, and those of a family that the Service no longer has.
    fn delete_spare(&self, members: &Members, ports: &[EndpointPort]) -> Option<Step> {
        let wanted = self.wanted(members, ports);
        self.spare(&wanted).next().map(delete)
    }

    /// Whether there are slices of ours, which must not be where only Endpoints are published.
    fn has_slices(&self) -> bool {
        self.slices.synced && ours(self.slices).next().is_some()
    }

    /// Deletes slices once Kubernetes is seen to have mirrored what they hold. Until then they are all that clients are sent by,
    /// and change first.
    fn leave_slices(
        &self,
        members: &Members,
        ports: &[EndpointPort],
    ) -> Result<Option<Step>, Condition> {
        if self.changes_beside_mirrored(members) {
            return self.change_mirrored(members, ports).map(Some);
        }
        let endpoints = self.endpoints(members, ports, Mirror::Yes);
        if endpoints.is_none() && mirroring::is_mirrored(self.database, self.endpoints, self.slices)
        {
            return Ok(ours(self.slices).next().map(delete));
        }
        Ok(self.follow(members, ports)?.or(endpoints))
    }
}

/// Says no to a slice of our name that is someone else's.
fn writable_slice(database: &Database, slice: &EndpointSlice) -> Result<(), Condition> {
    let name = slice.metadata.name.as_deref().unwrap_or_default();
    let namespace = &database.id.namespace;
    if is_being_deleted(slice) {
        return Err(Condition::new(
            ConditionKind::WaitingForService,
            format!("EndpointSlice {namespace}/{name} is being deleted"),
        ));
    }
    if slices::is_managed(slice) {
        return Ok(());
    }
    let whose = match slices::managed_by(slice) {
        Some(manager) => format!("belongs to {manager}"),
        None => "was written by someone else".to_owned(),
    };
    Err(Condition::new(
        ConditionKind::NotOurs,
        format!("EndpointSlice {namespace}/{name} {whose}; delete it"),
    ))
}

/// The Service, if its Endpoints are for anyone but Kubernetes to write.
fn writable_service<'a>(
    database: &Database,
    service: Option<&'a Service>,
) -> Result<&'a Service, Condition> {
    let id = &database.id;
    if id.namespace == "default" && id.service == "kubernetes" {
        let why =
            "default/kubernetes is the API server's own Service; name another one in the config";
        return Err(Condition::new(ConditionKind::ServiceIsKubernetes, why));
    }
    let Some(service) = service.filter(|service| service.metadata.deletion_timestamp.is_none())
    else {
        let why = format!("there is no Service {id}; create it, without a selector");
        return Err(Condition::new(ConditionKind::WaitingForService, why));
    };
    let spec = service.spec.as_ref();
    if spec.and_then(|spec| spec.type_.as_deref()) == Some("ExternalName") {
        let why = format!(
            "Service {id} is of type ExternalName, which has no Endpoints; make it ClusterIP, without a selector"
        );
        return Err(Condition::new(ConditionKind::ServiceIsExternalName, why));
    }
    if spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty()) {
        let why = format!(
            "Service {id} has a selector, so Kubernetes writes its Endpoints; remove spec.selector, or the database from the config"
        );
        return Err(Condition::new(ConditionKind::ServiceHasSelector, why));
    }
    Ok(service)
}

/// Says no to Endpoints that are someone else's.
fn writable_endpoints(
    database: &Database,
    endpoints: &Endpoints,
    written: Option<&str>,
) -> Result<(), Condition> {
    let id = &database.id;
    let not_ours = |why: String| Err(Condition::new(ConditionKind::NotOurs, why));
    if let Some(annotation) = leader_annotation(endpoints) {
        return not_ours(format!(
            "Endpoints {id} carry the leader-election annotation {annotation}, and are never taken over; use a Service of another name"
        ));
    }
    if endpoints.metadata.deletion_timestamp.is_some() {
        return Err(Condition::new(
            ConditionKind::WaitingForService,
            format!("Endpoints {id} are being deleted"),
        ));
    }
    if database.adopt || is_ours(endpoints, written) {
        return Ok(());
    }
    let whose = match endpoints::managed_by(endpoints) {
        Some(ENDPOINTS_CONTROLLER) => {
            "were written by Kubernetes while the Service had a selector".to_owned()
        }
        Some(manager) => format!("belong to {manager} (label {})", endpoints::MANAGED_BY),
        None => "were written by someone else".to_owned(),
    };
    not_ours(format!(
        "Endpoints {id} {whose}; set `adopt: true` on the database to take them over, or delete them"
    ))
}

pub(crate) fn leader_annotation(endpoints: &Endpoints) -> Option<&'static str> {
    let annotations = endpoints.metadata.annotations.as_ref()?;
    LEADER_ANNOTATIONS.into_iter().find(|annotation| annotations.contains_key(*annotation))
}

/// Ours by the label. Without one: by the record of who applied what, or because nobody has said anything in them since we
/// created them. Taken back from Kubernetes, which wrote them while the Service had a selector, if it is the very object that
/// this process has written.
fn is_ours(endpoints: &Endpoints, written: Option<&str>) -> bool {
    let written_by_us = written.is_some() && written == endpoints.metadata.uid.as_deref();
    match endpoints::managed_by(endpoints) {
        Some(manager) => {
            manager == endpoints::FIELD_MANAGER
                || (manager == ENDPOINTS_CONTROLLER && written_by_us)
        }
        None => {
            written_by_us
                || endpoints::applied_by_us(&endpoints.metadata)
                || endpoints::is_placeholder(endpoints)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;

#[cfg(test)]
mod slices_tests;

#[cfg(test)]
mod one_tests;

#[cfg(test)]
mod waiting_tests;
