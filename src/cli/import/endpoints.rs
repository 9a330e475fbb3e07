//! Databases from Services without a selector and the Endpoints that someone wrote for them. Pure.
//!
//! | a Service without a selector | becomes |
//! | --- | --- |
//! | with Endpoints that serve addresses on the same ports | a database with `adopt: true` |
//! | whose Endpoints the daemon would change at once | left out, as a draft |
//! | with EndpointSlices that someone wrote, and no Endpoints | left out, as a draft |
//! | whose Endpoints have a leader-election annotation, or are the daemon's own | left out |
//! | without any address, or the API server's own | left out |
//!
//! So a daemon with the imported config writes nothing while all addresses are healthy.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value, json};

use super::entry::{Entry, Found, PortEntry, tcp_check};
use crate::endpoints::slices::{self, SliceManager};
use crate::endpoints::{FIELD_MANAGER, applied_by_us, managed_by};
use crate::publish::preview::{check_unchanged, leader_annotation};

/// The objects that are read.
#[derive(Debug, Default)]
pub(super) struct Objects {
    pub(super) services: Vec<Service>,
    pub(super) endpoints: Vec<Endpoints>,
    pub(super) slices: Vec<EndpointSlice>,
}

/// The namespace and name of an object.
type Key = (String, String);

fn key(metadata: &ObjectMeta) -> Key {
    (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default())
}

/// Returns what became of each Service without a selector, in the order of their names.
pub(super) fn databases(objects: &Objects) -> Vec<Found> {
    let endpoints: BTreeMap<Key, &Endpoints> =
        objects.endpoints.iter().map(|endpoints| (key(&endpoints.metadata), endpoints)).collect();
    let mut slices: BTreeMap<Key, Vec<&EndpointSlice>> = BTreeMap::new();
    for slice in objects.slices.iter().filter(|slice| is_foreign(slice)) {
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        let service = slices::service_of(slice).unwrap_or_default().to_owned();
        slices.entry((namespace, service)).or_default().push(slice);
    }
    let services: BTreeMap<Key, &Service> = objects
        .services
        .iter()
        .filter(|service| has_no_selector(service))
        .map(|service| (key(&service.metadata), service))
        .collect();
    let found = services.iter().map(|(key, service)| {
        let slices = slices.get(key).map(Vec::as_slice).unwrap_or_default();
        database(key, service, endpoints.get(key).copied(), slices)
    });
    found.collect()
}

/// Returns whether Kubernetes writes no Endpoints for a Service that could have some.
fn has_no_selector(service: &Service) -> bool {
    let spec = service.spec.as_ref();
    let has_selector =
        spec.and_then(|spec| spec.selector.as_ref()).is_some_and(|selector| !selector.is_empty());
    let type_ = spec.and_then(|spec| spec.type_.as_deref());
    !has_selector && type_ != Some("ExternalName")
}

/// Returns whether a slice is neither the daemon's nor one of Kubernetes' controllers'.
fn is_foreign(slice: &EndpointSlice) -> bool {
    !slices::is_managed(slice)
        && slices::manager_of(slice) == SliceManager::Unknown
        && !slice.endpoints.is_empty()
}

fn database(
    (namespace, name): &Key,
    service: &Service,
    endpoints: Option<&Endpoints>,
    slices: &[&EndpointSlice],
) -> Found {
    let what = format!("{namespace}/{name}");
    if namespace == "default" && name == "kubernetes" {
        return Found::left_out(what, "the API server's own Service");
    }
    let Some(endpoints) = endpoints.filter(|endpoints| !addresses(endpoints).is_empty()) else {
        return without_endpoints(&what, (namespace, name), slices);
    };
    if let Some(annotation) = leader_annotation(endpoints) {
        return Found::left_out(what, format!("a lock of leader election ({annotation})"));
    }
    if managed_by(endpoints) == Some(FIELD_MANAGER) || applied_by_us(&endpoints.metadata) {
        return Found::left_out(what, "its Endpoints are this daemon's already");
    }
    let serving = match Serving::read(endpoints) {
        Ok(serving) => serving,
        Err(why) => return Found::left_out(what, why),
    };
    let entry = serving.entry(namespace, name, &writer(endpoints), slices);
    let found = Found::checked(&what, entry.clone());
    let Found::Database(_) = &found else { return found };
    match entry.compile().map(|(database, _)| check_unchanged(&database, service, endpoints)) {
        Ok(Err(condition)) => Found::LeftOut { what, why: condition.reason, draft: Some(entry) },
        _ => found,
    }
}

/// Returns a Service to which no Endpoints send clients.
fn without_endpoints(
    what: &str,
    (namespace, name): (&str, &str),
    slices: &[&EndpointSlice],
) -> Found {
    let Some(first) = slices.first() else {
        return Found::left_out(what, "it has no addresses");
    };
    let names: Vec<&str> =
        slices.iter().filter_map(|slice| slice.metadata.name.as_deref()).collect();
    let names = names.join(" ");
    let why = format!(
        "its addresses are in EndpointSlices that someone wrote ({names}), which the daemon never \
         takes over; add the database below, wait until it is Published, then delete those: \
         kubectl -n {namespace} delete endpointslices {names}"
    );
    let port = |port: &k8s_openapi::api::discovery::v1::EndpointPort| {
        let number = port.port.and_then(|number| u16::try_from(number).ok())?;
        let name = port.name.clone().filter(|name| !name.is_empty());
        let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".to_owned());
        Some(PortEntry { name, number, protocol })
    };
    let ports: Vec<PortEntry> = first.ports.iter().flatten().filter_map(port).collect();
    let ips: BTreeSet<String> = slices
        .iter()
        .flat_map(|slice| slices::ready_members(slice).map(|member| member.ip.to_string()))
        .collect();
    let draft = Entry::new(name, Some(namespace))
        .ports(&ports)
        .key("addresses", json!(ips))
        .key("publish", json!("slices"))
        .key("check", tcp_check(&ports));
    Found::LeftOut { what: what.to_owned(), why, draft: Some(draft) }
}

/// Returns all addresses, also those that are not ready.
fn addresses(endpoints: &Endpoints) -> BTreeSet<&str> {
    let subsets = endpoints.subsets.iter().flatten();
    subsets
        .flat_map(|subset| {
            let not_ready = subset.not_ready_addresses.iter().flatten();
            subset.addresses.iter().flatten().chain(not_ready)
        })
        .map(|address| address.ip.as_str())
        .collect()
}

/// The addresses and ports of Endpoints, where all addresses have the same ports.
struct Serving {
    /// The DNS label of each address.
    ready: BTreeMap<String, Option<String>>,
    /// The addresses that are never ready.
    not_ready: BTreeSet<String>,
    ports: Vec<PortEntry>,
    has_nodes: bool,
}

impl Serving {
    fn read(endpoints: &Endpoints) -> Result<Self, String> {
        let mut ports: BTreeMap<&str, BTreeSet<PortEntry>> = BTreeMap::new();
        let (mut ready, mut not_ready) = (BTreeMap::new(), BTreeSet::new());
        let mut has_nodes = false;
        for subset in endpoints.subsets.iter().flatten() {
            let of_subset: BTreeSet<PortEntry> = subset
                .ports
                .iter()
                .flatten()
                .filter_map(|port| {
                    Some(PortEntry {
                        name: port.name.clone().filter(|name| !name.is_empty()),
                        number: u16::try_from(port.port).ok()?,
                        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
                    })
                })
                .collect();
            for address in subset.addresses.iter().flatten() {
                ports.entry(&address.ip).or_default().extend(of_subset.iter().cloned());
                ready.insert(address.ip.clone(), address.hostname.clone());
                has_nodes |= address.node_name.is_some();
            }
            for address in subset.not_ready_addresses.iter().flatten() {
                not_ready.insert(address.ip.clone());
                ports.entry(&address.ip).or_default().extend(of_subset.iter().cloned());
            }
        }
        not_ready.retain(|ip| !ready.contains_key(ip));
        let different: BTreeSet<&BTreeSet<PortEntry>> = ports.values().collect();
        let Some(first) = different.first().filter(|_| different.len() == 1) else {
            return Err("its addresses have different ports; give those with the same ports a \
                        Service and a database of their own"
                .to_owned());
        };
        if first.is_empty() {
            return Err("its Endpoints have no ports; add the port of the database".to_owned());
        }
        let ports = first.iter().cloned().collect();
        Ok(Self { ready, not_ready, ports, has_nodes })
    }

    fn entry(
        &self,
        namespace: &str,
        service: &str,
        writer: &str,
        slices: &[&EndpointSlice],
    ) -> Entry {
        const NOT_READY: &str = "not ready in the Endpoints that were imported";
        let address = |(ip, label): (&String, &Option<String>)| match label {
            Some(label) => json!({"address": ip, "hostname": label}),
            None => json!(ip),
        };
        let not_ready = self.not_ready.iter().map(|ip| {
            let keys = [("address", ip.as_str()), ("maintenance", NOT_READY)];
            Value::Object(Map::from_iter(keys.map(|(k, v)| (k.to_owned(), json!(v)))))
        });
        let addresses: Vec<Value> = self.ready.iter().map(address).chain(not_ready).collect();
        // A single port takes its name from the Service, as kube-proxy joins it.
        let ports: Vec<PortEntry> = match &self.ports[..] {
            [port] => vec![PortEntry { name: None, ..port.clone() }],
            ports => ports.to_vec(),
        };
        let adopt = format!("written by {writer}; nothing is written until an address fails");
        let check = check_hint(&ports);
        let mut entry = Entry::new(service, Some(namespace))
            .ports(&ports)
            .key("addresses", json!(addresses))
            .commented_key("adopt", json!(true), &adopt)
            .commented_key("check", tcp_check(&ports), check);
        for slice in slices {
            let name = slice.metadata.name.as_deref().unwrap_or_default();
            entry = entry.remark(format!(
                "EndpointSlice {name} sends clients to {} addresses too, checked or not; delete it",
                slice.endpoints.len()
            ));
        }
        if self.has_nodes {
            entry = entry.remark("its addresses have a nodeName, which the first change drops");
        }
        entry
    }
}

/// Returns advice on a check that asks more than a connection, for ports of well-known databases.
fn check_hint(ports: &[PortEntry]) -> &'static str {
    match ports.first().map(|port| port.number) {
        Some(5432) => "5432 is PostgreSQL's: {postgres: {}} asks more",
        Some(3306) => "3306 is MySQL's: {mysql: {user: NAME}} asks more",
        Some(6379) => "6379 is Redis': {redis: {}} asks more",
        Some(27017) => "27017 is MongoDB's: {mongodb: {}} asks more",
        Some(9200) => "9200 is Elasticsearch's: an http check of /_cluster/health asks more",
        _ => "",
    }
}

/// Returns the manager that wrote the addresses, as far as the managed fields or a label tell.
fn writer(endpoints: &Endpoints) -> String {
    let entries = endpoints.metadata.managed_fields.iter().flatten();
    let has_subsets = |fields: &Value| fields.get("f:subsets").is_some();
    let mut owners = entries
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| has_subsets(&fields.0)));
    let owner = owners.next_back().and_then(|entry| entry.manager.clone());
    owner.or_else(|| managed_by(endpoints).map(str::to_owned)).unwrap_or_else(|| "someone".into())
}

#[cfg(test)]
mod tests;
