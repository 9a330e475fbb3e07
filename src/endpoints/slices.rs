//! Values of EndpointSlices: names and builds those of one database, reads members back, and
//! compares the two. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointPort as CorePort, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::packing::{SliceLayout, pack};
use super::{FIELD_MANAGER, applied_by_us};
use crate::plan::{Member, Members};

/// The label that names a slice's Service. It is the only link between the two.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// The label that names the manager of a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The controllers that mirror Endpoints, and that write the slices of a Service's Pods.
const MIRRORING_CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// The maximum of endpoints in one slice, as in Kubernetes' own controllers.
const MAX_ENDPOINTS_PER_SLICE: usize = 100;

/// A family of IPs. Each slice has IPs of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpFamily {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl IpFamily {
    const BOTH: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

    /// Returns the name that Kubernetes has for it.
    fn as_str(self) -> &'static str {
        match self {
            IpFamily::V4 => "IPv4",
            IpFamily::V6 => "IPv6",
        }
    }

    /// Returns the family of an IP.
    pub fn from_ip(ip: IpAddr) -> Self {
        if ip.is_ipv4() { IpFamily::V4 } else { IpFamily::V6 }
    }
}

/// Returns the families that a Service has.
pub fn families(service: &Service) -> Vec<IpFamily> {
    let named = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.as_ref())
        .filter(|named| !named.is_empty());
    let has = |family: &IpFamily| {
        named.is_none_or(|named| named.iter().any(|name| name == family.as_str()))
    };
    IpFamily::BOTH.into_iter().filter(has).collect()
}

/// Returns the members that a Service with these families cannot have.
pub fn outside_families(members: &Members, families: &[IpFamily]) -> Members {
    members
        .iter()
        .filter(|member| !families.contains(&IpFamily::from_ip(member.ip)))
        .cloned()
        .collect()
}

/// Returns a name such as `mysql-external-ipv4-1`. It is fixed, so that a slice is found again, and
/// can be named in a Role.
fn name(service: &str, family: IpFamily, number: u16) -> String {
    format!("{service}-external-{}-{number}", family.as_str().to_lowercase())
}

/// Returns the names of all slices of one family that a Service with this many addresses may have.
pub fn names(service: &str, family: IpFamily, addresses: usize) -> Vec<String> {
    let count = u16::try_from(addresses.div_ceil(MAX_ENDPOINTS_PER_SLICE)).unwrap_or(u16::MAX);
    (1..=count).map(|number| name(service, family, number)).collect()
}

/// Returns the Service, the family and the number in such a name.
fn parse_name(name: &str) -> Option<(&str, IpFamily, u16)> {
    let (rest, number) = name.rsplit_once('-')?;
    let (service, family) = IpFamily::BOTH.into_iter().find_map(|family| {
        let service = rest.strip_suffix(match family {
            IpFamily::V4 => "-external-ipv4",
            IpFamily::V6 => "-external-ipv6",
        })?;
        Some((service, family))
    })?;
    // The names that Kubernetes generates end in five characters.
    let ours = |parsed: &u16| (1..=9999).contains(parsed) && parsed.to_string() == number;
    let parsed = number.parse().ok().filter(ours)?;
    (!service.is_empty()).then_some((service, family, parsed))
}

/// Returns the Service whose slices have such a name.
pub fn service_by_name(name: &str) -> Option<&str> {
    parse_name(name).map(|(service, ..)| service)
}

/// The fields that all slices of one database have in common.
pub struct SliceTemplate<'a> {
    /// The namespace of the Service.
    pub namespace: &'a str,
    /// The Service that owns the slices.
    pub service: &'a Service,
    /// The families that have slices, even empty ones.
    pub families: Vec<IpFamily>,
    /// The ports of all endpoints.
    pub ports: &'a [CorePort],
    /// The topology zones of the IPs that have one.
    pub zones: BTreeMap<IpAddr, &'a str>,
}

impl SliceTemplate<'_> {
    /// Builds the slices that shall have the members, given the existing ones. They carry the
    /// version and the UID of the existing ones, as Endpoints do. A slice without these is to be
    /// created first.
    pub fn slices(
        &self,
        members: &Members,
        existing: &BTreeMap<&str, &EndpointSlice>,
    ) -> Vec<EndpointSlice> {
        self.families
            .iter()
            .flat_map(|family| self.slices_of_family(*family, members, existing))
            .collect()
    }

    /// Builds an existing slice without its endpoints.
    pub fn without_endpoints(&self, existing: &EndpointSlice) -> Option<EndpointSlice> {
        let name = existing.metadata.name.clone()?;
        let (_, family, _) = parse_name(&name)?;
        Some(self.slice(name, family, Some(&existing.metadata), Vec::new()))
    }

    fn slices_of_family(
        &self,
        family: IpFamily,
        members: &Members,
        existing: &BTreeMap<&str, &EndpointSlice>,
    ) -> Vec<EndpointSlice> {
        let service = self.service_name();
        let of_family = existing.iter().filter_map(|(name, slice)| match parse_name(name)? {
            (named, its, number) if named == service && its == family => {
                Some((number, ips(slice).collect()))
            }
            _ => None,
        });
        let layout: SliceLayout = of_family.collect();
        let members: BTreeMap<IpAddr, &Member> = members
            .iter()
            .filter(|member| IpFamily::from_ip(member.ip) == family)
            .map(|member| (member.ip, member))
            .collect();
        let desired: Vec<IpAddr> = members.keys().copied().collect();
        let slice = |(number, ips): (u16, Vec<IpAddr>)| {
            let name = name(service, family, number);
            let metadata = existing.get(name.as_str()).map(|slice| &slice.metadata);
            let endpoints = ips.iter().map(|ip| self.endpoint(members[ip])).collect();
            self.slice(name, family, metadata, endpoints)
        };
        pack(&layout, &desired, MAX_ENDPOINTS_PER_SLICE).into_iter().map(slice).collect()
    }

    fn slice(
        &self,
        name: String,
        family: IpFamily,
        existing: Option<&ObjectMeta>,
        endpoints: Vec<Endpoint>,
    ) -> EndpointSlice {
        let mut labels = labels(self.service_name());
        if is_headless(self.service) {
            labels.insert(HEADLESS.to_owned(), String::new());
        }
        let owner = OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            name: self.service_name().to_owned(),
            uid: self.service.metadata.uid.clone().unwrap_or_default(),
            // The deletion of the Service does not wait for that of its slices.
            block_owner_deletion: Some(false),
            controller: None,
        };
        let metadata = ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.to_owned()),
            uid: existing.and_then(|existing| existing.uid.clone()),
            resource_version: existing.and_then(|existing| existing.resource_version.clone()),
            labels: Some(labels),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        let ports = Some(self.ports.iter().map(port).collect());
        EndpointSlice { metadata, address_type: family.as_str().to_owned(), endpoints, ports }
    }

    fn endpoint(&self, member: &Member) -> Endpoint {
        Endpoint {
            addresses: vec![member.ip.to_string()],
            conditions: Some(EndpointConditions {
                ready: Some(true),
                serving: Some(true),
                terminating: None,
            }),
            hostname: member.hostname.clone(),
            zone: self.zones.get(&member.ip).map(|zone| (*zone).to_owned()),
            ..Endpoint::default()
        }
    }

    fn service_name(&self) -> &str {
        self.service.metadata.name.as_deref().unwrap_or_default()
    }
}

fn labels(service: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        (SERVICE_NAME.to_owned(), service.to_owned()),
        (MANAGED_BY.to_owned(), FIELD_MANAGER.to_owned()),
    ])
}

/// Converts a port. The API stores the name of an unnamed port as an empty one.
fn port(port: &CorePort) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone().unwrap_or_default()),
        port: Some(port.port),
        protocol: port.protocol.clone(),
        app_protocol: None,
    }
}

fn is_headless(service: &Service) -> bool {
    service.spec.as_ref().and_then(|spec| spec.cluster_ip.as_deref()) == Some("None")
}

/// Builds a slice without endpoints, which is applied to create one. It has no owner, because its
/// field manager would otherwise remain one of those that want it to have this owner.
pub fn placeholder(desired: &EndpointSlice) -> EndpointSlice {
    let service =
        desired.metadata.owner_references.iter().flatten().next().map(|owner| owner.name.as_str());
    let metadata = ObjectMeta {
        name: desired.metadata.name.clone(),
        namespace: desired.metadata.namespace.clone(),
        labels: Some(labels(service.unwrap_or_default())),
        ..ObjectMeta::default()
    };
    EndpointSlice {
        metadata,
        address_type: desired.address_type.clone(),
        endpoints: Vec::new(),
        ports: None,
    }
}

/// Returns whether a slice has all fields of the `desired` one, so that a write would change
/// nothing. Labels and owners that others have set do not count.
pub fn matches(existing: &EndpointSlice, desired: &EndpointSlice) -> bool {
    let label = |(key, value): (&String, &String)| {
        existing
            .metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(key))
            .is_some_and(|existing| existing == value)
    };
    let owners = |slice: &EndpointSlice| -> Vec<String> {
        let owners = slice.metadata.owner_references.iter().flatten();
        owners.filter(|owner| owner.kind == "Service").map(|owner| owner.uid.clone()).collect()
    };
    desired.metadata.labels.iter().flatten().all(label)
        && owners(existing) == owners(desired)
        && existing.address_type == desired.address_type
        && existing.endpoints == desired.endpoints
        && existing.ports.as_deref().unwrap_or_default()
            == desired.ports.as_deref().unwrap_or_default()
}

/// The manager of a slice that does not have one of the daemon's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceManager {
    /// Kubernetes' controller that mirrors Endpoints.
    MirroringController,
    /// Kubernetes' controller of the Pods that the Service selects or has selected.
    SliceController,
    /// Any other manager.
    Unknown,
}

/// Returns the manager of a slice that does not have one of the daemon's names.
pub fn manager_of(slice: &EndpointSlice) -> SliceManager {
    match managed_by(slice) {
        Some(MIRRORING_CONTROLLER) => SliceManager::MirroringController,
        Some(SLICE_CONTROLLER) => SliceManager::SliceController,
        _ => SliceManager::Unknown,
    }
}

/// Returns whether the daemon manages a slice that has one of its names: the label says so or, if
/// someone has removed that, the managed fields.
pub fn is_managed(slice: &EndpointSlice) -> bool {
    match managed_by(slice) {
        Some(manager) => manager == FIELD_MANAGER,
        None => applied_by_us(&slice.metadata),
    }
}

/// Returns the manager that the label names.
pub fn managed_by(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(MANAGED_BY).map(String::as_str)
}

/// Returns the name of the Service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME).map(String::as_str)
}

fn ips(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    slice.endpoints.iter().filter_map(|endpoint| endpoint.addresses.first()?.parse().ok())
}

/// Returns the endpoints of a slice that clients are sent to. An address that is no IP is left out.
pub fn ready_members(slice: &EndpointSlice) -> impl Iterator<Item = Member> {
    let is_ready =
        |endpoint: &&Endpoint| endpoint.conditions.as_ref().and_then(|is| is.ready) != Some(false);
    slice.endpoints.iter().filter(is_ready).filter_map(|endpoint| {
        let ip = endpoint.addresses.first()?.parse().ok()?;
        Some(Member { ip, hostname: endpoint.hostname.clone() })
    })
}

/// A digest of a set of IPs: a few bytes that tell whether two sets are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
    /// The number of IPs.
    pub count: u32,
    sum: u64,
}

impl FromIterator<IpAddr> for Digest {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(ips: I) -> Self {
        let one = |ip: IpAddr| {
            let mut hasher = DefaultHasher::new();
            ip.hash(&mut hasher);
            Digest { count: 1, sum: hasher.finish() }
        };
        ips.into_iter().map(one).sum()
    }
}

impl std::iter::Sum for Digest {
    fn sum<I: Iterator<Item = Self>>(digests: I) -> Self {
        digests.fold(Self::default(), |a, b| Self {
            count: a.count + b.count,
            sum: a.sum.wrapping_add(b.sum),
        })
    }
}

#[cfg(test)]
mod tests;
