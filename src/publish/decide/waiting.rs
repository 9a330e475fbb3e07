//! Published members that stay while a database waits for a decision. Pure.
//!
//! | a published member                              | while the database waits               |
//! | ---                                             | ---                                    |
//! | is not allowed by `--allow-cidr`                | leaves, whoever published it           |
//! | is in the config                                | stays                                  |
//! | is not in the config, and others of them are    | leaves: nobody checks it any more      |
//! | … but these are all Down, and it was not when   | stays: it may be the only one that     |
//! | it left the config                              | answers                                |
//! | is not in the config, and none of them is       | stays until one of the config has a    |
//! |                                                 | verdict: an empty Service is an outage |
//! | is not in the config, in Endpoints to be taken  | stays until the decision with which    |
//! | over                                            | they are taken over                    |
//!
//! Nothing is added, so an `exactlyOne` database never has a second member for this.

use std::net::IpAddr;

use crate::config::Database;
use crate::plan::{KeepReason, Members};
use crate::publish::condition::{Condition, ConditionKind};

/// Returns the condition of a database whose plan is to keep what is published.
pub(crate) fn condition(reason: &KeepReason) -> Condition {
    let kind = match reason {
        KeepReason::NamesUnresolved(_) => ConditionKind::WaitingForNames,
        _ => ConditionKind::WaitingForVerdicts,
    };
    Condition::new(kind, reason.to_string())
}

/// The published members of one database.
pub(crate) struct Published<'a> {
    /// The members that clients are sent to.
    pub serving: Members,
    /// All members that clients may be sent to, between Endpoints and slices too.
    pub exposed: Members,
    /// The addresses that may answer, of the config and of one before it.
    pub may_answer: &'a [IpAddr],
    /// True if they are in Endpoints of another manager, which `adopt` takes over.
    pub is_foreign: bool,
}

/// The members that stay while a database waits.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Retained {
    /// All of them. The ones that the config does not have are named in the condition.
    All { unconfigured: Members },
    /// These members. The others leave.
    Only(Members),
}

/// Returns the members that stay.
pub(crate) fn retained(database: &Database, published: &Published) -> Retained {
    let Published { serving, exposed, may_answer, is_foreign } = published;
    let allowed = |ip: IpAddr| database.allowed_networks.allows(ip);
    let configured = |ip: IpAddr| database.addresses.iter().any(|address| address.ip == ip);
    let stays = |ip: IpAddr| allowed(ip) && configured(ip);
    // Between Endpoints and slices all serving members may leave while others stay.
    let may_replace = !serving.is_empty() && !database.policy.exactly_one;
    let filtered = |stays: &dyn Fn(IpAddr) -> bool| match only(serving, stays) {
        none if none.is_empty() && may_replace => only(exposed, stays),
        some => some,
    };
    let staying = if *is_foreign { Members::default() } else { filtered(&stays) };
    let may_answer = |ip: IpAddr| allowed(ip) && may_answer.contains(&ip);
    let stays: &dyn Fn(IpAddr) -> bool = match staying.is_empty() {
        true => &allowed,
        false if staying.iter().any(|member| may_answer(member.ip)) => &stays,
        false => &|ip| stays(ip) || may_answer(ip),
    };
    let (staying, unchanged) = (filtered(stays), exposed.iter().all(|member| stays(member.ip)));
    match unchanged {
        true => Retained::All { unconfigured: only(exposed, &|ip| !configured(ip)) },
        false => Retained::Only(staying),
    }
}

fn only(members: &Members, keeps: &dyn Fn(IpAddr) -> bool) -> Members {
    members.iter().filter(|member| keeps(member.ip)).cloned().collect()
}

/// Names the members that stay although the config does not have them, if there are any.
pub(crate) fn describe(unconfigured: &Members) -> Option<String> {
    const MAX_NAMED: usize = 3;
    if unconfigured.is_empty() {
        return None;
    }
    let named: Vec<String> =
        unconfigured.iter().take(MAX_NAMED).map(|member| member.ip.to_string()).collect();
    let more = match unconfigured.len().saturating_sub(MAX_NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    Some(format!(
        "published although the config does not have it, and unchecked, until an address of the \
         config has a verdict: {}{more}",
        named.join(", ")
    ))
}

#[cfg(test)]
mod tests;
