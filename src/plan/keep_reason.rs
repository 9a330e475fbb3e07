//! The reason for which a decision leaves the cluster as it is, as a sentence for people.

use std::fmt;
use std::net::IpAddr;

/// The reason for which the cluster is left as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeepReason {
    /// These targets have had no verdict yet.
    NoVerdictYet(Vec<IpAddr>),
    /// The first lookup of these names has not ended yet.
    NoAnswerYet(Vec<String>),
    /// None of these names has resolved yet. The database has no other address, and nothing is
    /// published.
    NamesUnresolved(Vec<String>),
    /// No target is up, and all verdicts of these targets were inconclusive, for these reasons.
    AllInconclusive(Vec<(IpAddr, String)>),
    /// The cluster has not been read yet.
    NotSynced,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, items): (_, Vec<String>) = match self {
            KeepReason::NoVerdictYet(targets) => {
                ("no verdict yet for", targets.iter().map(IpAddr::to_string).collect())
            }
            KeepReason::NoAnswerYet(names) => ("DNS has not been asked yet for", names.clone()),
            KeepReason::NamesUnresolved(names) => ("DNS has given no address for", names.clone()),
            KeepReason::AllInconclusive(targets) => (
                "no target is up, and all verdicts are inconclusive for",
                targets.iter().map(|(ip, reason)| format!("{ip} ({reason})")).collect(),
            ),
            KeepReason::NotSynced => return f.write_str("the cluster has not been read yet"),
        };
        write!(f, "{what} {}", items[..items.len().min(MAX_LISTED)].join(", "))?;
        match items.len().checked_sub(MAX_LISTED) {
            None | Some(0) => Ok(()),
            Some(more) => write!(f, " and {more} more"),
        }
    }
}

/// Items that a reason lists.
const MAX_LISTED: usize = 3;
