//! Members to and from EndpointSlices: names and builds those of one database, and says whether two agree. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{EndpointPort as CorePort, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::packing::{SliceLayout, pack};
use super::{FIELD_MANAGER, applied_by_us};
use crate::plan::{Member, Members};

/// The only link from a slice to its Service.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// Who mirrors Endpoints, and who makes slices of the Pods that a Service selects.
const MIRRORING_CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";

/// Endpoints in one slice, as Kubernetes' own controllers have it.
const MAX_ENDPOINTS_PER_SLICE: usize = 100;

/// A family of IPs. A slice has those of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpFamily {
    V4,
    V6,
}

impl IpFamily {
    const BOTH: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

    /// As Kubernetes spells it.
    fn as_str(self) -> &'static str {
        match self {
            IpFamily::V4 => "IPv4",
            IpFamily::V6 => "IPv6",
        }
    }

    pub fn from_ip(ip: IpAddr) -> Self {
        if ip.is_ipv4() { IpFamily::V4 } else { IpFamily::V6 }
    }
}

/// The families that a Service has.
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

/// The members that a Service without their family can't have.
pub fn outside_families(members: &Members, families: &[IpFamily]) -> Members {
    members
        .iter()
        .filter(|member| !families.contains(&IpFamily::from_ip(member.ip)))
        .cloned()
        .collect()
}

/// `mysql-external-ipv4-1`: fixed, so that a slice is found again, and can be named in a Role.
fn name(service: &str, family: IpFamily, number: u16) -> String {
    format!("{service}-external-{}-{number}", family.as_str().to_lowercase())
}

/// The Service, the family and the number in such a name.
fn parse_name(name: &str) -> Option<(&str, IpFamily, u16)> {
    let (rest, number) = name.rsplit_once('-')?;
    let (service, family) = IpFamily::BOTH.into_iter().find_map(|family| {
        let service = rest.strip_suffix(match family {
            IpFamily::V4 => "-external-ipv4",
            IpFamily::V6 => "-external-ipv6",
        })?;
        Some((service, family))
    })?;
    // The names that Kubernetes makes up end in five characters.
    let ours = |parsed: &u16| (1..=9999).contains(parsed) && parsed.to_string() == number;
    let parsed = number.parse().ok().filter(ours)?;
    (!service.is_empty()).then_some((service, family, parsed))
}

/// The Service whose own slices have such a name.
pub fn service_by_name(name: &str) -> Option<&str> {
    parse_name(name).map(|(service, ..)| service)
}

/// What the slices of one database have in common.
pub struct SliceTemplate<'a> {
    pub namespace: &'a str,
    pub service: &'a Service,
    /// The families that have slices, be they empty.
    pub families: Vec<IpFamily>,
    pub ports: &'a [CorePort],
    /// The topology zones of the IPs that have one.
    pub zones: BTreeMap<IpAddr, &'a str>,
}

impl SliceTemplate<'_> {
    /// The slices that shall hold the members, given those that are there. They carry version and UID of what they are to be
    /// applied on, as Endpoints do; one without is to be created first.
    pub fn slices(
        &self,
        members: &Members,
        held: &BTreeMap<&str, &EndpointSlice>,
    ) -> Vec<EndpointSlice> {
        self.families
            .iter()
            .flat_map(|family| self.slices_of_family(*family, members, held))
            .collect()
    }

    /// A slice that is there, without its endpoints.
    pub fn without_endpoints(&self, held: &EndpointSlice) -> Option<EndpointSlice> {
        let name = held.metadata.name.clone()?;
        let (_, family, _) = parse_name(&name)?;
        Some(self.slice(name, family, Some(&held.metadata), Vec::new()))
    }

    fn slices_of_family(
        &self,
        family: IpFamily,
        members: &Members,
        held: &BTreeMap<&str, &EndpointSlice>,
    ) -> Vec<EndpointSlice> {
        let service = self.service_name();
        let of_family = held.iter().filter_map(|(name, slice)| match parse_name(name)? {
            (named, its, number) if named == service && its == family => {
                Some((number, ips(slice).collect()))
            }
            _ => None,
        });
        let filled: SliceLayout = of_family.collect();
        let members: BTreeMap<IpAddr, &Member> = members
            .iter()
            .filter(|member| IpFamily::from_ip(member.ip) == family)
            .map(|member| (member.ip, member))
            .collect();
        let wanted: Vec<IpAddr> = members.keys().copied().collect();
        let slice = |(number, ips): (u16, Vec<IpAddr>)| {
            let name = name(service, family, number);
            let metadata = held.get(name.as_str()).map(|slice| &slice.metadata);
            let endpoints = ips.iter().map(|ip| self.endpoint(members[ip])).collect();
            self.slice(name, family, metadata, endpoints)
        };
        pack(&filled, &wanted, MAX_ENDPOINTS_PER_SLICE).into_iter().map(slice).collect()
    }

    fn slice(
        &self,
        name: String,
        family: IpFamily,
        held: Option<&ObjectMeta>,
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
            // Whoever deletes the Service need not wait for its slices.
            block_owner_deletion: Some(false),
            controller: None,
        };
        let metadata = ObjectMeta {
            name: Some(name),
            namespace: Some(self.namespace.to_owned()),
            uid: held.and_then(|held| held.uid.clone()),
            resource_version: held.and_then(|held| held.resource_version.clone()),
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

/// The API stores the name of an unnamed port as an empty one.
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

/// A slice without endpoints: what is applied to create one. It has no owner yet, as whoever creates it would be counted among
/// those who want it to have this one.
pub fn placeholder(wanted: &EndpointSlice) -> EndpointSlice {
    let service =
        wanted.metadata.owner_references.iter().flatten().next().map(|owner| owner.name.as_str());
    let metadata = ObjectMeta {
        name: wanted.metadata.name.clone(),
        namespace: wanted.metadata.namespace.clone(),
        labels: Some(labels(service.unwrap_or_default())),
        ..ObjectMeta::default()
    };
    EndpointSlice {
        metadata,
        address_type: wanted.address_type.clone(),
        endpoints: Vec::new(),
        ports: None,
    }
}

/// Whether a slice says all that is `wanted`, so that a write would change nothing. Labels and owners of others are theirs.
pub fn matches(held: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let label = |(key, value): (&String, &String)| {
        held.metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(key))
            .is_some_and(|held| held == value)
    };
    let owners = |slice: &EndpointSlice| -> Vec<String> {
        let owners = slice.metadata.owner_references.iter().flatten();
        owners.filter(|owner| owner.kind == "Service").map(|owner| owner.uid.clone()).collect()
    };
    wanted.metadata.labels.iter().flatten().all(label)
        && owners(held) == owners(wanted)
        && held.address_type == wanted.address_type
        && held.endpoints == wanted.endpoints
        && held.ports.as_deref().unwrap_or_default() == wanted.ports.as_deref().unwrap_or_default()
}

/// Whose slices there are beside ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceManager {
    /// Kubernetes', mirrored from Endpoints.
    MirroringController,
    /// Kubernetes', of the Pods that the Service selects or has selected.
    SliceController,
    /// Anyone else's.
    Unknown,
}

/// Whose a slice is that has not our name.
pub fn manager_of(slice: &EndpointSlice) -> SliceManager {
    match managed_by(slice) {
        Some(MIRRORING_CONTROLLER) => SliceManager::MirroringController,
        Some(SLICE_CONTROLLER) => SliceManager::SliceController,
        _ => SliceManager::Unknown,
    }
}

/// Whether a slice that has our name is ours: by its label or, if someone took that away, by the record of who applied what.
pub fn is_managed(slice: &EndpointSlice) -> bool {
    match managed_by(slice) {
        Some(manager) => manager == FIELD_MANAGER,
        None => applied_by_us(&slice.metadata),
    }
}

/// The value of the label that says whose slice this is.
pub fn managed_by(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(MANAGED_BY).map(String::as_str)
}

/// The name of the Service that a slice belongs to.
pub fn service_of(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.as_ref()?.get(SERVICE_NAME).map(String::as_str)
}

fn ips(slice: &EndpointSlice) -> impl Iterator<Item = IpAddr> {
    slice.endpoints.iter().filter_map(|endpoint| endpoint.addresses.first()?.parse().ok())
}

/// The endpoints of a slice that clients are sent to. One that is no IP is left out.
pub fn ready_members(slice: &EndpointSlice) -> impl Iterator<Item = Member> {
    let is_ready =
        |endpoint: &&Endpoint| endpoint.conditions.as_ref().and_then(|is| is.ready) != Some(false);
    slice.endpoints.iter().filter(is_ready).filter_map(|endpoint| {
        let ip = endpoint.addresses.first()?.parse().ok()?;
        Some(Member { ip, hostname: endpoint.hostname.clone() })
    })
}

/// A set of IPs in few bytes: enough to tell whether two are the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Digest {
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
