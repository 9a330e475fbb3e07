//! The decision for one database: which of its targets its Service shall have. Pure, and no clock of its own.
//!
//! | targets                                              | plan                                     |
//! | ---                                                  | ---                                      |
//! | any of them Unknown and not tried yet                | keep: an early guess could take a good address away |
//! | none Up, and any of them Unknown for all its tries   | keep: not knowing is no reason to take the last address away |
//! | all others                                           | publish those that are Up, be they none  |

use std::fmt;
use std::net::IpAddr;

use crate::health::State;

/// A target as the cluster shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    pub ip: IpAddr,
    /// The DNS label of this replica in a headless Service.
    pub hostname: Option<String>,
}

/// The targets that a Service has or shall have: sorted, none twice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Members(Vec<Member>);

impl Members {
    pub fn iter(&self) -> std::slice::Iter<'_, Member> {
        self.0.iter()
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.0.binary_search_by(|member| member.ip.cmp(&ip)).is_ok()
    }
}

impl Members {
    /// What makes these of `held`: `+10.0.0.3, -10.0.0.2`; empty if the addresses are the same.
    pub fn changes_from(&self, held: &Members) -> String {
        let added = self.iter().filter(|member| !held.contains(member.ip)).map(|member| format!("+{}", member.ip));
        let removed = held.iter().filter(|member| !self.contains(member.ip)).map(|member| format!("-{}", member.ip));
        added.chain(removed).collect::<Vec<_>>().join(", ")
    }
}

impl FromIterator<Member> for Members {
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Self {
        let mut members: Vec<Member> = members.into_iter().collect();
        members.sort();
        members.dedup_by(|b, a| a.ip == b.ip);
        Self(members)
    }
}

/// `10.0.0.1, 10.0.0.2`, or `none`.
impl fmt::Display for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (i, member) in self.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{}", member.ip)?;
        }
        Ok(())
    }
}

/// What shall be done about one database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Leave the cluster as it is.
    Keep(Why),
    /// The Service shall have exactly these members.
    Publish(Members),
}

/// Why the cluster is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Why {
    /// These targets have had no verdict yet, and the cluster did not show them at start.
    NoVerdictYet(Vec<IpAddr>),
    /// No target is up, and of these all verdicts have been inconclusive, for the reasons given.
    NoneKnown(Vec<(IpAddr, String)>),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, targets): (_, Vec<String>) = match self {
            Why::NoVerdictYet(targets) => ("no verdict yet for", targets.iter().map(IpAddr::to_string).collect()),
            Why::NoneKnown(targets) => (
                "no target is up, and all verdicts are inconclusive for",
                targets.iter().map(|(ip, reason)| format!("{ip} ({reason})")).collect(),
            ),
        };
        write!(f, "{what} {}", targets[..targets.len().min(SHOWN)].join(", "))?;
        match targets.len().checked_sub(SHOWN) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

/// Targets that a reason names.
const SHOWN: usize = 3;

/// One target of a database, as far as the decision goes.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub member: &'a Member,
    pub state: State,
    /// Whether there has been any verdict.
    pub tried: bool,
    /// Why the newest verdict was not a Pass.
    pub reason: Option<&'a str>,
}

/// Decides for one database, from all of its targets.
pub fn decide<'a>(pool: impl Iterator<Item = Candidate<'a>> + Clone) -> Plan {
    let unknown =
        |tried: bool| pool.clone().filter(move |target| target.state == State::Unknown && target.tried == tried);
    let untried: Vec<IpAddr> = unknown(false).map(|target| target.member.ip).collect();
    if !untried.is_empty() {
        return Plan::Keep(Why::NoVerdictYet(untried));
    }
    let up = pool.clone().filter(|target| target.state == State::Up);
    let members: Members = up.map(|target| target.member.clone()).collect();
    let inconclusive: Vec<_> =
        unknown(true).map(|target| (target.member.ip, target.reason.unwrap_or_default().to_owned())).collect();
    if members.is_empty() && !inconclusive.is_empty() {
        return Plan::Keep(Why::NoneKnown(inconclusive));
    }
    Plan::Publish(members)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn member(last: u8) -> Member {
        Member { ip: IpAddr::from([198, 51, 100, last]), hostname: None }
    }

    /// The plan for targets of which those that are Unknown have not been tried.
    fn decided(pool: &[(u8, State)]) -> Plan {
        decided_with(pool, false)
    }

    fn decided_with(pool: &[(u8, State)], tried: bool) -> Plan {
        let pool: Vec<_> = pool.iter().map(|(last, state)| (member(*last), *state)).collect();
        let candidate = |(member, state)| Candidate { member, state, tried, reason: Some("exec: no program") };
        decide(pool.iter().map(|(member, state)| candidate((member, *state))))
    }

    #[test]
    fn the_up_ones_are_published_in_order() {
        let plan = decided(&[(9, State::Up), (2, State::Down), (1, State::Up)]);
        assert_eq!(plan, Plan::Publish([member(1), member(9)].into_iter().collect()));
    }

    #[test]
    fn none_up_is_published_as_none() {
        assert_eq!(decided(&[(1, State::Down), (2, State::Down)]), Plan::Publish(Members::default()));
    }

    #[test]
    fn one_unknown_target_keeps_what_is_there_and_is_named() {
        let Plan::Keep(why) = decided(&[(1, State::Up), (2, State::Unknown), (3, State::Down)]) else {
            panic!("decided too early")
        };
        assert_eq!(why.to_string(), "no verdict yet for 198.51.100.2");
        let many: Vec<_> = (1..=5).map(|n| (n, State::Unknown)).collect();
        let Plan::Keep(why) = decided(&many) else { panic!("decided too early") };
        assert_eq!(why.to_string(), "no verdict yet for 198.51.100.1, 198.51.100.2, 198.51.100.3 and 2 more");
    }

    #[test]
    fn a_target_whose_tries_say_nothing_holds_nobody_up_and_takes_nobody_s_last_address() {
        let plan = decided_with(&[(1, State::Up), (2, State::Unknown), (3, State::Down)], true);
        assert_eq!(plan, Plan::Publish([member(1)].into_iter().collect()));
        let Plan::Keep(why) = decided_with(&[(2, State::Unknown), (3, State::Down)], true) else {
            panic!("took the last address away")
        };
        assert_eq!(
            why.to_string(),
            "no target is up, and all verdicts are inconclusive for 198.51.100.2 (exec: no program)"
        );
    }

    #[test]
    fn members_show_as_a_list() {
        assert_eq!(Members::default().to_string(), "none");
        assert_eq!(
            [member(2), member(1), member(2)].into_iter().collect::<Members>().to_string(),
            "198.51.100.1, 198.51.100.2"
        );
    }

    #[test]
    fn changes_show_as_what_comes_and_what_goes() {
        let members = |last: &[u8]| last.iter().map(|last| member(*last)).collect::<Members>();
        assert_eq!(members(&[1, 3]).changes_from(&members(&[1, 2])), "+198.51.100.3, -198.51.100.2");
        assert_eq!(members(&[1]).changes_from(&members(&[1])), "");
    }

    proptest! {
        #[test]
        fn members_are_sorted_unique_and_exactly_the_up_ones(states in prop::collection::vec((any::<u8>(), 1u8..3), 0..40)) {
            let pool: std::collections::BTreeMap<u8, State> =
                states.into_iter().map(|(n, s)| (n, if s == 1 { State::Up } else { State::Down })).collect();
            let shuffled: Vec<_> = pool.iter().rev().map(|(n, s)| (*n, *s)).collect();
            let Plan::Publish(members) = decided(&shuffled) else { panic!("all are known") };
            let ips: Vec<IpAddr> = members.iter().map(|m| m.ip).collect();
            prop_assert!(ips.is_sorted_by(|a, b| a < b));
            for (n, state) in pool {
                prop_assert_eq!(members.contains(member(n).ip), state == State::Up);
            }
        }
    }
}
