//! The part of an answer that a database follows: without the addresses that may not be published,
//! the families that its Service has not, and the SRV records of other ports.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::config::{Database, NameEntry, NameKind};
use crate::names::{Families, FamilyAnswer, Lookup, LookupPart, ServiceTarget};
use crate::resolve::{Answer, LookupOutcome, OutcomePart};

/// The facts about a Service that decide which answers of DNS are followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceFacts {
    /// The families of the Service; none while it is not known.
    pub families: Option<Families>,
    /// The IPs of the Service itself, which lead back to it.
    pub cluster_ips: Vec<IpAddr>,
}

/// Returns the reason why an IP that DNS gives may not be published, if there is one.
pub(super) fn rejection(
    entry: &NameEntry,
    file: &Database,
    service: &ServiceFacts,
    ip: IpAddr,
) -> Option<String> {
    if service.cluster_ips.contains(&ip) {
        return Some(format!(
            "{ip} is this Service's own address, which leads back to it; write the name of the \
             database itself"
        ));
    }
    entry.rejection(ip, &file.allowed_networks)
}

/// Returns the lookup without the addresses that may not be published, which go to `refused`.
pub(super) fn filter(
    outcome: &LookupOutcome,
    entry: &NameEntry,
    file: &Database,
    families: Families,
    rejection: impl Fn(IpAddr) -> Option<String>,
    refused: &mut BTreeMap<IpAddr, String>,
) -> Lookup {
    let mut answer = |answer: &Answer, is_followed: Followed| match (answer, is_followed) {
        (_, Followed::No) => FamilyAnswer::NotAsked,
        (Answer::Addresses(ips), Followed::Yes) => {
            let mut good = Vec::new();
            for ip in ips {
                match rejection(*ip) {
                    Some(reason) => drop(refused.insert(*ip, reason)),
                    None => good.push(*ip),
                }
            }
            if good.is_empty() { FamilyAnswer::NoAddress } else { FamilyAnswer::Good(good) }
        }
        (Answer::NoRecords | Answer::NoSuchName, Followed::Yes) => FamilyAnswer::NoAddress,
        // A family that is to be followed and was not asked for yet is not known.
        (Answer::Unknown(_) | Answer::NotAsked, Followed::Yes) => FamilyAnswer::Unknown,
    };
    let fitting: Vec<&OutcomePart> = outcome
        .parts
        .iter()
        .filter(|part| part.service.as_ref().is_none_or(|record| has_port(file, record.port)))
        .collect();
    // Records that are left out have no tier.
    let ranks: BTreeSet<u32> =
        fitting.iter().filter_map(|part| Some(part.service.as_ref()?.rank)).collect();
    let tier = |rank: u32| ranks.range(..rank).count() as u32;
    let part = |part: &OutcomePart| LookupPart {
        service_target: part.service.as_ref().map(|record| {
            let (name, rank, weight) = (record.host.clone(), tier(record.rank), record.weight);
            Arc::new(ServiceTarget { name, rank, weight })
        }),
        a: answer(&part.a, Followed::from(families.ipv4)),
        aaaa: answer(&part.aaaa, Followed::from(families.ipv6)),
    };
    let parts: Vec<LookupPart> = fitting.into_iter().map(part).collect();
    if parts.is_empty() {
        debug_assert_eq!(entry.kind, NameKind::Service);
        return Lookup::of_host(FamilyAnswer::NoAddress, FamilyAnswer::NoAddress);
    }
    Lookup { parts }
}

/// The families that are followed, for one of them.
#[derive(Clone, Copy)]
enum Followed {
    Yes,
    No,
}

impl From<bool> for Followed {
    fn from(is_followed: bool) -> Self {
        if is_followed { Self::Yes } else { Self::No }
    }
}

/// Returns whether an SRV record with this port is one of the database.
pub(super) fn has_port(file: &Database, port: u16) -> bool {
    file.ports.iter().any(|it| it.number == port)
}
