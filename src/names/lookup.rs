//! The outcome of one lookup: the answers for both families of a host, or of each target of a
//! service.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// The answer for one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FamilyAnswer {
    /// At least one address that may be published.
    Good(Vec<IpAddr>),
    /// No such name, no record of the family, or only addresses that may not be published.
    NoAddress,
    /// No server said whether there is one.
    Unknown,
    /// The family is not followed.
    NotAsked,
}

/// One lookup of a name, with at least one part. A host name has one; a service has one for each
/// target of its SRV records, or a single one without a target if there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// The answers.
    pub parts: Vec<LookupPart>,
}

/// The answers for one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LookupPart {
    /// The SRV target that the answers are of; none for a host name.
    pub service_target: Option<Arc<ServiceTarget>>,
    /// The IPv4 addresses.
    pub a: FamilyAnswer,
    /// The IPv6 addresses.
    pub aaaa: FamilyAnswer,
}

/// The target of an SRV record, with the tier of its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceTarget {
    /// The host name.
    pub name: Arc<str>,
    /// The rank of its priority among those of all records; 0 is preferred.
    pub rank: u32,
    /// The weight, which is only shown.
    pub weight: u16,
}

/// The result of a lookup for the name as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupResult {
    /// At least one address.
    Good,
    /// No address in either family.
    Empty,
    /// No server said whether there is an address.
    Unknown,
}

impl Lookup {
    /// Creates the lookup of a host name.
    pub fn of_host(a: FamilyAnswer, aaaa: FamilyAnswer) -> Self {
        Self { parts: vec![LookupPart { service_target: None, a, aaaa }] }
    }

    /// Returns the result for the name as a whole.
    pub fn result(&self) -> LookupResult {
        let answers = || self.parts.iter().flat_map(|part| [&part.a, &part.aaaa]);
        if answers().any(|answer| matches!(answer, FamilyAnswer::Good(_))) {
            LookupResult::Good
        } else if answers().any(|answer| *answer == FamilyAnswer::Unknown) {
            LookupResult::Unknown
        } else {
            LookupResult::Empty
        }
    }

    /// Returns whether the lookup does not say if a known address is still one of the name.
    pub(super) fn leaves_open(&self, ip: IpAddr, known: Option<&ServiceTarget>) -> bool {
        let known = known.map(|target| &target.name);
        let of_known = self
            .parts
            .iter()
            .filter(|part| part.service_target.as_ref().map(|target| &target.name) == known);
        let mut answers = of_known.map(|part| match ip {
            IpAddr::V4(_) => &part.a,
            IpAddr::V6(_) => &part.aaaa,
        });
        answers.any(|answer| *answer == FamilyAnswer::Unknown)
    }

    /// Returns whether the family of an address is not followed.
    pub(super) fn does_not_follow(&self, ip: IpAddr) -> bool {
        self.parts.iter().all(|part| match ip {
            IpAddr::V4(_) => part.a == FamilyAnswer::NotAsked,
            IpAddr::V6(_) => part.aaaa == FamilyAnswer::NotAsked,
        })
    }

    /// Returns all addresses with the SRV target of each. An address of several targets comes with
    /// that of the best rank.
    pub(super) fn addresses(&self) -> BTreeMap<IpAddr, Option<Arc<ServiceTarget>>> {
        let mut addresses = BTreeMap::new();
        let mut parts: Vec<&LookupPart> = self.parts.iter().collect();
        parts.sort_by_key(|part| part.service_target.as_ref().map(|target| target.rank));
        for part in parts {
            for answer in [&part.a, &part.aaaa] {
                let FamilyAnswer::Good(ips) = answer else { continue };
                for ip in ips {
                    addresses.entry(*ip).or_insert_with(|| part.service_target.clone());
                }
            }
        }
        addresses
    }
}
