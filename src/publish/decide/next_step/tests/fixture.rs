//! A cluster in memory, in which steps are carried out one after the other.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::endpoints::slices::{self, SliceManager};
use crate::publish::cache::object::Store;

pub(crate) fn database(publish: PublishMode) -> Database {
    Database { publish, ..super::database(false) }
}

pub(crate) fn known() -> Service {
    let mut service = service();
    service.metadata.name = Some("mysql".into());
    service.metadata.uid = Some("service-1".into());
    let spec = service.spec.as_mut().unwrap();
    spec.ip_families = Some(vec!["IPv4".into()]);
    service
}

pub(crate) fn selecting() -> Service {
    let mut service = known();
    service.spec.as_mut().unwrap().selector = Some([("app".to_owned(), "mysql".to_owned())].into());
    service
}

/// The epoch of the only list.
pub(crate) const EPOCH: u64 = 1;

/// A cluster that does as it is told.
#[derive(Clone)]
pub(crate) struct Cluster {
    pub service: Option<Service>,
    pub endpoints: Option<Endpoints>,
    pub slices: Arc<SliceCache>,
    /// The members in the slices of Kubernetes' mirroring controller.
    pub mirrored: Members,
    pub version: u64,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let slices = Arc::new(SliceCache::default());
        Self {
            service: Some(known()),
            endpoints: None,
            slices,
            mirrored: Members::default(),
            version: 10,
        }
    }

    pub(crate) fn next_step(&self, database: &Database, plan: &Plan) -> Step {
        let (endpoints, slices) = (self.endpoints.as_ref(), self.slices.clone());
        let inputs = inputs(database, plan, endpoints, slices, &[]);
        super::super::next_step(&inputs, self.service.as_ref(), None)
    }

    /// Carries out a step, and describes it in a few words.
    pub(crate) fn take(&mut self, step: Step) -> String {
        self.version += 1;
        let version = Some(self.version.to_string());
        let uid = |held: Option<&String>| held.cloned().or(Some("uid".to_owned()));
        match step {
            Step::Create(mut endpoints) | Step::Write(mut endpoints) => {
                endpoints.metadata.resource_version = version;
                endpoints.metadata.uid = uid(endpoints.metadata.uid.as_ref());
                if endpoints::skips_mirror(&endpoints) {
                    let labels = json!({"f:endpointslice.kubernetes.io/skip-mirror": {}});
                    let entry = json!({"manager": endpoints::FIELD_MANAGER, "operation": "Apply",
                        "fieldsV1": {"f:metadata": {"f:labels": labels}}});
                    endpoints.metadata.managed_fields =
                        Some(vec![serde_json::from_value(entry).unwrap()]);
                }
                let said = endpoints::members(&endpoints).to_string();
                let mirror =
                    if endpoints::skips_mirror(&endpoints) { "unmirrored" } else { "mirrored" };
                self.endpoints = Some(*endpoints);
                format!("endpoints {said} {mirror}")
            }
            Step::CreateSlice(mut slice) | Step::WriteSlice(mut slice) => {
                slice.metadata.resource_version = version;
                slice.metadata.uid = uid(slice.metadata.uid.as_ref());
                let said = slices::ready_members(&slice).collect::<Members>();
                let name = slice.metadata.name.clone().unwrap();
                assert!(self.slices.apply(*slice, EPOCH));
                format!("{name} {said}")
            }
            Step::DeleteSlice(mut slice) => {
                slice.metadata.resource_version = version;
                let name = slice.metadata.name.clone().unwrap();
                assert!(self.slices.delete(*slice, EPOCH));
                format!("delete {name}")
            }
            Step::CreateService(service) => {
                self.service = Some(*service);
                "service".to_owned()
            }
            Step::InSync => "hold".to_owned(),
            Step::Blocked(condition) => format!("wait {}", condition.kind),
        }
    }

    /// Carries out steps until there is nothing more to do.
    pub(crate) fn settle(&mut self, publish: PublishMode, plan: &Plan) -> Vec<String> {
        let mut said = Vec::new();
        while said.len() < 50 {
            let step = self.next_step(&database(publish), plan);
            if matches!(step, Step::InSync | Step::Blocked(_)) {
                return said;
            }
            said.push(self.take(step));
        }
        panic!("never settles: {said:?}");
    }

    /// Mirrors the Endpoints, or removes the mirrored slices, as Kubernetes does.
    pub(crate) fn mirror(&mut self) {
        let endpoints =
            self.endpoints.clone().filter(|endpoints| !endpoints::skips_mirror(endpoints));
        let members = endpoints.map(|endpoints| endpoints::members(&endpoints)).unwrap_or_default();
        self.others("endpointslicemirroring-controller.k8s.io", &members);
        self.mirrored = members;
    }

    pub(crate) fn others(&mut self, manager: &str, members: &Members) {
        let endpoints: Vec<_> =
            members.iter().map(|member| json!({"addresses": [member.ip]})).collect();
        let labels = json!({
            "kubernetes.io/service-name": "mysql",
            "endpointslice.kubernetes.io/managed-by": manager,
        });
        let metadata = json!({"name": format!("mysql-{manager}"), "labels": labels});
        let slice = json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints});
        let slice = serde_json::from_value(slice).unwrap();
        match members.is_empty() {
            true => self.slices.delete(slice, EPOCH),
            false => self.slices.apply(slice, EPOCH),
        };
    }

    /// Returns the IPs that clients are sent to, by whatever slices.
    pub(crate) fn ips(&self) -> std::collections::BTreeSet<String> {
        let own = self.slices.members().map(|member| member.ip.to_string());
        own.chain(self.mirrored.iter().map(|member| member.ip.to_string())).collect()
    }

    /// Returns the IPs of our slices, and the number of those that are mirrored.
    pub(crate) fn served(&self) -> Vec<String> {
        let mirrored = self.slices.serving_digest(SliceManager::MirroringController);
        let own = self.slices.members().map(|member| member.ip.to_string());
        let mut served: Vec<String> = own.collect();
        if mirrored.count > 0 {
            served.push(format!("{} mirrored", mirrored.count));
        }
        served
    }
}
