//! The difference between the desired and the existing objects, as ordered steps. Pure.
//!
//! Objects that clients are to be sent by are written before those that they replace are removed:
//!
//! | `publish`   | first                 | then                             | last             |
//! | ---         | ---                   | ---                              | ---              |
//! | `slices`    | slices                | our Endpoints: empty, unmirrored | surplus slices   |
//! | `both`      | slices                | Endpoints, unmirrored            | surplus slices   |
//! | `endpoints` | slices, while any are | Endpoints, to be mirrored        | slices, mirrored |
//!
//! The slices in the last column are deleted.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::desired::Desired;
use super::inputs::Inputs;
use super::mirroring;
use super::step::Step;
use crate::config::{Database, PublishMode};
use crate::endpoints::slices::{self, Digest, IpFamily, SliceManager, SliceTemplate};
use crate::endpoints::{self, Mirror};
use crate::plan::Members;
use crate::publish::cache::observed::Existing;
use crate::publish::cache::orphans::ObjectKind;
use crate::publish::cache::slices::SliceCache;
use crate::publish::condition::{Condition, ConditionKind};
use crate::publish::ownership;

/// The right to write the Endpoints of a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EndpointsAccess {
    /// They are missing, managed or to be adopted.
    Writable,
    /// They have another manager.
    Refused,
}

/// Returns the first step from the existing to the desired state; none if there is no difference.
pub(crate) fn diff(
    inputs: &Inputs,
    desired: &Desired,
    access: EndpointsAccess,
) -> Result<Option<Step>, Condition> {
    let diff = Diff {
        database: &inputs.database,
        existing: &inputs.existing,
        endpoints: inputs.endpoints(),
        desired,
    };
    match (inputs.database.publish, access) {
        // Existing slices are kept up to date, or clients would be sent to members that have died.
        (PublishMode::Endpoints, EndpointsAccess::Refused) => diff.update_slices(&desired.members),
        (PublishMode::Endpoints, EndpointsAccess::Writable) if has_slices(&inputs.existing) => {
            diff.leave_slices()
        }
        (PublishMode::Endpoints, EndpointsAccess::Writable) => {
            Ok(diff.write_endpoints(&desired.members, Mirror::Yes))
        }
        (PublishMode::Slices | PublishMode::Both, EndpointsAccess::Writable)
            if diff.conflicts_with_mirrored() =>
        {
            diff.change_mirrored().map(Some)
        }
        (PublishMode::Slices | PublishMode::Both, access) => Ok(diff
            .write_slices()?
            .or_else(|| match access {
                EndpointsAccess::Refused => None,
                EndpointsAccess::Writable => diff.unmirror_endpoints(),
            })
            .or_else(|| diff.delete_surplus())),
    }
}

/// Returns whether managed slices exist, which must not where only Endpoints are published.
pub(crate) fn has_slices(existing: &Existing) -> bool {
    existing.watch(ObjectKind::Slice).synced && managed_slices(&existing.slices).next().is_some()
}

/// Returns the managed slices, except for those that are being deleted.
pub(crate) fn managed_slices(slices: &SliceCache) -> impl Iterator<Item = &EndpointSlice> {
    slices
        .named()
        .into_values()
        .filter(|slice| slices::is_managed(slice) && !ownership::is_being_deleted(slice))
}

/// Returns the step that deletes a slice.
pub(crate) fn delete(slice: &EndpointSlice) -> Step {
    Step::DeleteSlice(Box::new(slice.clone()))
}

/// The desired state beside the existing one.
struct Diff<'a> {
    database: &'a Database,
    existing: &'a Existing,
    endpoints: Option<&'a Endpoints>,
    desired: &'a Desired<'a>,
}

impl Diff<'_> {
    /// Creates the Endpoints or writes these members into them.
    fn write_endpoints(&self, members: &Members, mirror: Mirror) -> Option<Step> {
        let id = &self.database.id;
        let ports = &self.desired.ports;
        match self.endpoints {
            None => {
                Some(Step::Create(Box::new(endpoints::placeholder(&id.namespace, &id.service))))
            }
            Some(existing) if endpoints::matches(existing, members, ports, mirror) => None,
            // Nothing is written only to take them over.
            Some(existing)
                if mirror == Mirror::Yes
                    && ownership::may_stay_foreign(self.database, existing)
                    && endpoints::serves(existing, members, ports) =>
            {
                None
            }
            Some(existing) => Some(Step::Write(Box::new(endpoints::build(
                &existing.metadata,
                members,
                ports,
                mirror,
            )))),
        }
    }

    /// Writes the Endpoints beside slices, which Kubernetes must not mirror: with the members for
    /// clients that read Endpoints, or empty if there are any.
    fn unmirror_endpoints(&self) -> Option<Step> {
        match self.database.publish {
            PublishMode::Both => self.write_endpoints(&self.desired.members, Mirror::No),
            _ => self.endpoints.and_then(|_| self.write_endpoints(&Members::default(), Mirror::No)),
        }
    }

    /// Returns the parts that all slices have in common which hold these members.
    fn template(&self, members: &Members) -> SliceTemplate<'_> {
        let zones = self
            .database
            .addresses
            .iter()
            .filter_map(|address| Some((address.ip, address.zone.as_deref()?)));
        // A family without an address needs no slice, nor the right to write one.
        let configured = self.database.addresses.iter().map(|address| address.ip);
        let used: BTreeSet<IpFamily> = configured
            .chain(members.iter().map(|member| member.ip))
            .map(IpFamily::from_ip)
            .collect();
        SliceTemplate {
            families: slices::families(self.desired.service)
                .into_iter()
                .filter(|family| used.contains(family))
                .collect(),
            namespace: &self.database.id.namespace,
            service: self.desired.service,
            ports: &self.desired.ports,
            zones: zones.collect(),
        }
    }

    /// Returns the slices that shall hold these members.
    fn desired_slices(&self, members: &Members) -> Vec<EndpointSlice> {
        let mut managed: BTreeMap<&str, &EndpointSlice> = self.existing.slices.named();
        managed.retain(|_, slice| slices::is_managed(slice));
        self.template(members).slices(members, &managed)
    }

    /// Returns the managed slices that are not among the desired ones.
    fn surplus<'b>(
        &'b self,
        desired: &'b [EndpointSlice],
    ) -> impl Iterator<Item = &'b EndpointSlice> {
        let is_desired = |slice: &EndpointSlice| {
            desired.iter().any(|desired| desired.metadata.name == slice.metadata.name)
        };
        managed_slices(&self.existing.slices).filter(move |slice| !is_desired(slice))
    }

    /// Empties a surplus slice that sends clients to anyone but these members. It is emptied at
    /// once, and deleted last.
    fn empty_stale(&self, desired: &[EndpointSlice], members: &Members) -> Option<Step> {
        let is_stale = |slice: &&EndpointSlice| {
            slices::ready_members(slice).any(|member| !members.contains(member.ip))
        };
        let slice = self.surplus(desired).find(is_stale)?;
        Some(Step::WriteSlice(Box::new(self.template(members).without_endpoints(slice)?)))
    }

    /// Writes existing slices, then creates missing ones: members that died leave before there is
    /// room for more.
    fn write_slices(&self) -> Result<Option<Step>, Condition> {
        let members = &self.desired.members;
        Ok(self.update_slices(members)?.or_else(|| self.create_missing(members)))
    }

    fn create_missing(&self, members: &Members) -> Option<Step> {
        let existing = self.existing.slices.named();
        let exists = |slice: &EndpointSlice| {
            existing.contains_key(slice.metadata.name.as_deref().unwrap_or_default())
        };
        let missing = self.desired_slices(members).into_iter().find(|slice| !exists(slice))?;
        Some(Step::CreateSlice(Box::new(slices::placeholder(&missing))))
    }

    /// Writes the first existing slice that differs. A slice that may not be written holds up no
    /// other.
    fn update_slices(&self, members: &Members) -> Result<Option<Step>, Condition> {
        let existing = self.existing.slices.named();
        let mut desired = self.desired_slices(members);
        if let Some(step) = self.empty_stale(&desired, members) {
            return Ok(Some(step));
        }
        if self.database.policy.exactly_one {
            // Between two IP families the old member leaves before the new one comes.
            desired.sort_by_key(|slice| slice.endpoints.len());
        }
        let mut refusal = None;
        for desired in desired {
            let name = desired.metadata.name.as_deref().unwrap_or_default();
            let Some(existing) = existing.get(name) else { continue };
            match ownership::check_slice(self.database, existing) {
                Err(refused) => refusal = refusal.or(Some(refused)),
                Ok(()) if slices::matches(existing, &desired) => {}
                Ok(()) => return Ok(Some(Step::WriteSlice(Box::new(desired)))),
            }
        }
        refusal.map_or(Ok(None), Err)
    }

    /// Returns whether, with `exactlyOne`, clients would be sent to two members: by slices, and by
    /// Endpoints that are mirrored, or may be at any moment.
    fn conflicts_with_mirrored(&self) -> bool {
        let members = &self.desired.members;
        let desired: Digest = members.iter().map(|member| member.ip).collect();
        let mirrored = self.existing.slices.serving_digest(SliceManager::MirroringController);
        let differs = |endpoints: &Endpoints| {
            let existing = endpoints::members(endpoints);
            !endpoints::skips_mirror(endpoints) && !existing.is_empty() && existing != *members
        };
        let mirrored_differ = mirrored.count > 0 && mirrored != desired;
        self.database.policy.exactly_one && (mirrored_differ || self.endpoints.is_some_and(differs))
    }

    /// Removes members that leave from the slices, then writes the Endpoints and waits until
    /// Kubernetes has mirrored them. Members that come are added to slices after that.
    fn change_mirrored(&self) -> Result<Step, Condition> {
        let members = &self.desired.members;
        let staying: Members =
            self.existing.slices.members().filter(|member| members.contains(member.ip)).collect();
        let unmirrors = self.database.publish != PublishMode::Endpoints
            && self.endpoints.is_some_and(endpoints::we_set_skip_mirror);
        let write_endpoints = || match unmirrors {
            true => self.unmirror_endpoints(),
            false => self.endpoints.and_then(|_| self.write_endpoints(members, Mirror::Yes)),
        };
        let step = self.update_slices(&staying)?.or_else(write_endpoints);
        step.ok_or_else(|| {
            Condition::new(ConditionKind::NotMirrored, mirroring::waiting_for_mirror(self.database))
        })
    }

    /// Deletes surplus slices: empty ones, and those of a family that the Service no longer has.
    fn delete_surplus(&self) -> Option<Step> {
        let desired = self.desired_slices(&self.desired.members);
        self.surplus(&desired).next().map(delete)
    }

    /// Deletes slices once Kubernetes has mirrored their members from the Endpoints. Until then
    /// they are all that clients are sent by, and are written first.
    fn leave_slices(&self) -> Result<Option<Step>, Condition> {
        if self.conflicts_with_mirrored() {
            return self.change_mirrored().map(Some);
        }
        let members = &self.desired.members;
        let write_endpoints = self.write_endpoints(members, Mirror::Yes);
        if write_endpoints.is_none()
            && mirroring::is_mirrored(self.database, self.endpoints, &self.existing.slices)
        {
            return Ok(managed_slices(&self.existing.slices).next().map(delete));
        }
        Ok(self.update_slices(members)?.or(write_endpoints))
    }
}
