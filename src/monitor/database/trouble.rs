//! The trouble of checks that a person must mend: a login that does not work, a server of another
//! role, and checks that say nothing for too long.
//!
//! | newest verdict | of the phase | role that was found | trouble |
//! | --- | --- | --- | --- |
//! | inconclusive | `auth` | | the login does not work |
//! | inconclusive | any other | | the login does not work, if it did not before; else none |
//! | failure | `role` | any | the server has another role |
//! | failure | `role` | none | none: the server has not said its role |
//! | any other | | | none |

use std::net::IpAddr;
use std::time::Instant;

use super::DatabaseMonitor;
use crate::health::State;
use crate::monitor::{TargetState, Trouble};
use crate::plan::PolicyNote;
use crate::probe::{is_of_login, is_of_role};

/// Returns the trouble of a target by its newest try, and by its trouble before that. A login that
/// did not work is not known to work before a try is conclusive.
pub(super) fn trouble_of(target: &TargetState) -> Trouble {
    let role = target.observation.as_ref().and_then(|observation| observation.role);
    match (target.health.reason(), target.health.is_inconclusive()) {
        (Some(reason), true) if is_of_login(reason) => Trouble::Login,
        (Some(_), true) if target.trouble == Trouble::Login => Trouble::Login,
        (Some(reason), false) if is_of_role(reason) && role.is_some() => Trouble::Role,
        _ => Trouble::None,
    }
}

/// Returns the trouble of a target for which there is a note, and the time since which its verdicts
/// have been inconclusive, if that is too long.
pub(super) fn noted_trouble(target: &TargetState) -> (Trouble, Option<Instant>) {
    (target.trouble, target.health.inconclusive_since())
}

/// Returns whether a target does what its check asks for, as far as is known.
pub(super) fn is_well(target: &TargetState) -> bool {
    target.passing() || target.health.state() == State::Up
}

impl DatabaseMonitor {
    /// Returns the notes on the trouble of checks.
    pub(super) fn trouble_notes(&self) -> impl Iterator<Item = PolicyNote> {
        [self.role_note(), self.login_note(), self.inconclusive_note()].into_iter().flatten()
    }

    /// Returns a note on a role that no address has, although one or more would be well otherwise.
    /// A target of which nothing is known yet may have it.
    fn role_note(&self) -> Option<PolicyNote> {
        let may_have_it =
            |target: &TargetState| is_well(target) || target.health.state() == State::Unknown;
        if self.targets.iter().any(may_have_it) {
            return None;
        }
        let others = self.of_trouble(|target| target.trouble == Trouble::Role);
        let reason = |target: &&TargetState| target.health.reason().unwrap_or_default().to_owned();
        let others = others.iter().map(|target| (target.member.ip, reason(target)));
        let others: Vec<(IpAddr, String)> = others.collect();
        (!others.is_empty()).then_some(PolicyNote::RoleMissing { others })
    }

    /// Returns a note on targets that do not let their checks log in.
    fn login_note(&self) -> Option<PolicyNote> {
        let targets = self.of_trouble(|target| target.trouble == Trouble::Login);
        let (ips, reason) = summary(&targets)?;
        Some(PolicyNote::LoginRefused { ips, reason })
    }

    /// Returns a note on published targets whose verdicts have been inconclusive for too long.
    fn inconclusive_note(&self) -> Option<PolicyNote> {
        let published = self.policy_state.published.as_ref()?;
        let targets = self.of_trouble(|target| {
            published.contains(target.member.ip) && target.health.inconclusive_since().is_some()
        });
        let (ips, reason) = summary(&targets)?;
        Some(PolicyNote::ChecksInconclusive { ips, reason })
    }

    /// Returns the targets that a note is about, in the order of their addresses.
    fn of_trouble(&self, applies: impl Fn(&TargetState) -> bool) -> Vec<&TargetState> {
        let mut targets: Vec<&TargetState> =
            self.targets.iter().filter(|target| applies(target)).collect();
        targets.sort_by_key(|target| target.member.ip);
        targets
    }
}

/// Returns the addresses of targets, and the reason of the first. None if there is no target.
fn summary(targets: &[&TargetState]) -> Option<(Vec<IpAddr>, String)> {
    let reason = targets.first()?.health.reason().unwrap_or_default().to_owned();
    Some((targets.iter().map(|target| target.member.ip).collect(), reason))
}
