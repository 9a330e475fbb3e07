//! The membership of a target in words: why it is published or not, and what changes that.
//!
//! Each sentence is about the target and begins with the fact. The rule itself is
//! [`Membership`], decided by the plan. `tests` has a row for each.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Time;
use crate::annotations::MaintenanceSource;
use crate::clock;
use crate::config::Check;
use crate::health::{State, Streak};
use crate::monitor::{DatabaseSnapshot, TargetState};
use crate::names::Backing;
use crate::plan::{self, Failback, KeepReason, Membership, PolicyNote, list_ips};

/// The place of a target in the plan, and the rule that gives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MembershipStatus {
    /// True if the plan has the target, and null while nothing is decided.
    pub planned: Option<bool>,
    /// The rule, as one word.
    pub reason: Cow<'static, str>,
    /// The rule, as a sentence.
    pub why: String,
    /// The condition under which the target comes back, or leaves.
    pub until: String,
    /// The time at which that is the case without a further event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}

impl MembershipStatus {
    pub(super) fn new(database: &DatabaseSnapshot, target: &TargetState, check: &Check) -> Self {
        let case = Case { database, target, check };
        let (why, until) = case.describe();
        Self {
            planned: target.membership.is_in(),
            reason: target.membership.as_str().into(),
            why,
            until,
            at: case.at(),
        }
    }
}

impl MembershipStatus {
    /// Returns the words that come before `until`. It is what changes the plan, so it does not say
    /// when the cluster will be as planned.
    pub(crate) fn until_label(&self) -> &'static str {
        match self.planned {
            Some(true) => "leaves when",
            Some(false) => "comes back when",
            None => "is decided when",
        }
    }
}

/// A target with what its sentences depend on.
struct Case<'a> {
    database: &'a DatabaseSnapshot,
    target: &'a TargetState,
    check: &'a Check,
}

impl Case<'_> {
    /// Returns the sentences: why, and until when.
    fn describe(&self) -> (String, String) {
        let (why, until) = self.describe_rule();
        let then: Vec<String> =
            self.health_after().into_iter().chain(self.suppression()).chain(self.then()).collect();
        match self.target.membership {
            Membership::Down
            | Membership::NoVerdict
            | Membership::NotChecked
            | Membership::Flapping { .. }
            | Membership::Maintenance
                if !then.is_empty() =>
            {
                (why, format!("{until}; and then {}", then.join(", and ")))
            }
            _ => (why, until),
        }
    }

    /// Returns the passes that a target in maintenance needs besides.
    fn health_after(&self) -> Option<String> {
        let is_down = self.target.health.state() == State::Down;
        let is_asked_out = self.target.membership == Membership::Maintenance;
        (is_down && is_asked_out).then(|| self.passing_next())
    }

    /// Returns the suppression that a target will have besides. One that is down will be suppressed
    /// anew, for longer, when it comes up. `exactlyOne` suppresses none.
    fn suppression(&self) -> Option<String> {
        if self.database.policy.exactly_one {
            return None;
        }
        let until = self.target.out_until().filter(|until| *until > clock::now())?;
        let is_told = matches!(self.target.membership, Membership::Flapping { .. });
        match self.target.health.state() {
            _ if is_told => None,
            State::Up => Some(format!("it stays up until {}, as it flapped", time(until))),
            State::Down | State::Unknown => {
                Some("it stays up for some minutes, as it flapped".to_owned())
            }
        }
    }

    /// Returns the rule that would hold the target back if it were healthy.
    fn then(&self) -> Option<String> {
        let others = self.database.targets.iter().filter(|other| {
            other.member.ip != self.target.member.ip && other.membership.is_in() == Some(true)
        });
        let mut healthy = others.filter(|other| other.health.state() == State::Up);
        if self.database.policy.exactly_one {
            let writer = healthy.next()?.member.ip;
            return Some(format!("{writer} is down, as `exactlyOne` allows no second"));
        }
        let tier = self.target.priority;
        let serving = healthy.map(|other| other.priority).max()?;
        match (tier.cmp(&serving), self.database.policy.failback) {
            (Ordering::Equal, _) => None,
            (Ordering::Greater, _) => Some(format!("tier {serving} becomes too weak")),
            (Ordering::Less, Failback::Manual) => {
                Some(format!("you run `{}`", self.command("failback", "")))
            }
            (Ordering::Less, Failback::Delay(delay)) => {
                Some(format!("its tier stays healthy for {}", rounded(delay)))
            }
        }
    }

    fn describe_rule(&self) -> (String, String) {
        match self.target.membership {
            Membership::Undecided => self.undecided(),
            Membership::Healthy => (self.passing(), self.failing_next()),
            Membership::LowerTierServes { .. } | Membership::NeededDespiteFlapping { .. } => {
                self.stand_in()
            }
            Membership::NotReplaced => self.not_replaced(),
            Membership::KeptByMinHealthy { .. } | Membership::KeptByFreeze => self.kept(),
            Membership::Maintenance => self.maintenance(),
            Membership::NotChecked | Membership::NoLongerGiven | Membership::Replaced => {
                self.by_dns()
            }
            Membership::Down => (self.failing(), self.passing_next()),
            Membership::NoVerdict => (
                format!("no check has said anything about it: {}", self.reason()),
                "a check passes; the fault is on the daemon's side".to_owned(),
            ),
            Membership::SplitBrain | Membership::OtherWriter { .. } | Membership::SeveralClaim => {
                self.second_writer()
            }
            Membership::Flapping { until } => (
                format!("it is up, but {}", self.flapped()),
                format!("it stays up until {}", time(until)),
            ),
            Membership::FailbackWaits { .. }
            | Membership::TierTooWeak { .. }
            | Membership::LowerTier { .. } => self.of_other_tier(),
        }
    }

    fn at(&self) -> Option<Time> {
        match self.target.membership {
            Membership::Flapping { until } => Some(until.into()),
            Membership::FailbackWaits { until, .. } => until.map(Time::from),
            Membership::LowerTierServes { .. } => self.failback_at().map(Time::from),
            Membership::Maintenance => self.target.maintenance.as_ref()?.until.map(Time),
            _ => None,
        }
    }

    fn undecided(&self) -> (String, String) {
        let plan::Plan::Keep(reason) = &self.database.plan else {
            return ("it is new, and not decided on yet".into(), "the next decision".into());
        };
        let until = match reason {
            KeepReason::NoVerdictYet(_) => "each of them has been checked once",
            KeepReason::NoAnswerYet(_) => "DNS has answered",
            KeepReason::NamesUnresolved(_) => "DNS gives an address",
            KeepReason::AllInconclusive(_) => {
                "a check says something; the fault is on the daemon's side"
            }
            KeepReason::NotSynced => "the API server has answered",
        };
        (format!("nothing is decided yet, and the cluster stays as it is: {reason}"), until.into())
    }

    /// Says that the target is up, with all that speaks against it.
    fn passing(&self) -> String {
        let health = &self.target.health;
        let needed = self.check.thresholds.unhealthy;
        if health.inconclusive_since().is_some() {
            return format!("it was up, and its checks say nothing since: {}", self.reason());
        }
        match health.streak() {
            Streak::Failures(count) => format!(
                "it was up, and its check has failed {} in a row, of {needed} that take it out: {}",
                times(count),
                self.reason()
            ),
            Streak::Passes(count) => format!("its check passed {} in a row", times(count)),
            Streak::None => "it was published when the daemon started, and no check has failed \
                             since"
                .to_owned(),
        }
    }

    fn failing_next(&self) -> String {
        format!("{} in a row fail", checks(self.check.thresholds.unhealthy))
    }

    /// Says that the target is down.
    fn failing(&self) -> String {
        match self.target.health.streak() {
            Streak::Passes(count) => format!(
                "it was down, and its check has passed {} in a row, of {} that bring it back",
                times(count),
                self.check.thresholds.healthy
            ),
            Streak::Failures(count) => {
                format!("its check failed {} in a row: {}", times(count), self.reason())
            }
            Streak::None => "it is down".to_owned(),
        }
    }

    /// Says how many passes bring the target back, and how soon at the earliest.
    fn passing_next(&self) -> String {
        let healthy = self.check.thresholds.healthy;
        let pauses = self.check.recheck_interval.saturating_mul(healthy.saturating_sub(1));
        let first = format!("{} in a row pass", checks(healthy));
        match pauses.is_zero() {
            true => first,
            false => format!("{first}, so {} after it is well at the earliest", rounded(pauses)),
        }
    }

    /// Says in a few words how the health of the target is, for rules that stand above health.
    fn health(&self) -> String {
        match self.target.health.state() {
            State::Up => self.passing(),
            State::Down => self.failing(),
            State::Unknown => "no check has said anything about it".to_owned(),
        }
    }

    fn reason(&self) -> &str {
        self.target.health.reason().unwrap_or("no reason is known")
    }

    /// Says why a target serves that would not if others were well.
    fn stand_in(&self) -> (String, String) {
        match self.target.membership {
            Membership::NeededDespiteFlapping { until } => (
                format!("{}, but without it too few are left", self.flapped()),
                format!("another is healthy enough before {}", time(until)),
            ),
            Membership::LowerTierServes { preferred } => {
                let tier = self.target.priority;
                let why = format!(
                    "it is up, and tier {tier} serves as long as tier {preferred} does not"
                );
                (why, format!("tier {preferred} {}", self.takes_over()))
            }
            _ => (self.passing(), self.failing_next()),
        }
    }

    fn flapped(&self) -> String {
        let allowed = self.database.policy.max_flips;
        format!("its state changed more than {} in 10 minutes", times(allowed))
    }

    fn failback_at(&self) -> Option<Instant> {
        self.database.notes.iter().find_map(|note| match note {
            PolicyNote::FailbackWaits { until, .. } => *until,
            _ => None,
        })
    }

    /// Continues "tier 0 …".
    fn takes_over(&self) -> String {
        let waits = |note: &PolicyNote| matches!(note, PolicyNote::FailbackWaits { .. });
        let command = self.command("failback", "");
        match (self.failback_at(), self.database.policy.failback) {
            (Some(at), _) => {
                format!("stays healthy until {}; at once by `{command}`", time(at))
            }
            (None, Failback::Manual) if self.database.notes.iter().any(waits) => {
                format!("is healthy again and waits for `{command}`")
            }
            (None, Failback::Manual) => format!("is healthy again, and then `{command}`"),
            (None, Failback::Delay(delay)) => {
                format!("is healthy again for {}", rounded(delay))
            }
        }
    }

    fn command(&self, command: &str, rest: &str) -> String {
        format!("external-endpoints {command} {}{rest}", self.database.id)
    }

    fn not_replaced(&self) -> (String, String) {
        let word = match self.target.origin.backing {
            Backing::Adopted => "it was published before the start, and DNS has not given it since",
            _ => "DNS no longer gives it",
        };
        (
            format!("{word}, but none takes its place; {}", self.health()),
            format!("another address that DNS gives is up, or {}", self.failing_next()),
        )
    }

    fn kept(&self) -> (String, String) {
        let state = match &self.target.maintenance {
            Some(reason) => format!("it is in maintenance ({reason})"),
            None => self.health(),
        };
        match self.target.membership {
            Membership::KeptByMinHealthy { healthy, needed } => (
                format!(
                    "it stays, because {healthy} are healthy and minHealthy asks for {needed}; \
                     else it would leave: {state}"
                ),
                format!("{} more are healthy", needed.saturating_sub(healthy)),
            ),
            _ => (
                format!(
                    "a freeze holds it: so many targets fail together that the fault is probably \
                     the daemon's own; else it would leave: {state}"
                ),
                "the freeze ends".to_owned(),
            ),
        }
    }

    fn maintenance(&self) -> (String, String) {
        let Some(maintenance) = self.target.maintenance.as_deref() else {
            return ("its maintenance has just ended".into(), "the next decision".into());
        };
        let off = self.command("maintenance off", &format!(" {}", self.target.member.ip));
        let until = match (maintenance.source, maintenance.until) {
            (MaintenanceSource::Config, _) => {
                "the key `maintenance` of its entry leaves the config".to_owned()
            }
            (MaintenanceSource::Annotation, None) => format!("you run `{off}`"),
            (MaintenanceSource::Annotation, Some(until)) => {
                let until = clock::rfc3339_seconds(until);
                format!("its end comes, at {until}, or you run `{off}`")
            }
        };
        let why =
            format!("it is in maintenance: {maintenance}; apart from that, {}", self.health());
        (why, until)
    }

    fn by_dns(&self) -> (String, String) {
        match self.target.membership {
            Membership::NotChecked => (
                "DNS gives it since a moment ago, and it has not been checked yet".to_owned(),
                "its first check passes".to_owned(),
            ),
            Membership::NoLongerGiven => (
                "DNS no longer gives it, and it has not been checked yet".to_owned(),
                "DNS gives it again".to_owned(),
            ),
            _ => (
                "DNS no longer gives it, and another that is up has taken its place".to_owned(),
                "DNS gives it again".to_owned(),
            ),
        }
    }

    fn second_writer(&self) -> (String, String) {
        match self.target.membership {
            Membership::SplitBrain => {
                let passing = self.database.notes.iter().find_map(|note| match note {
                    PolicyNote::SplitBrain { passing, .. } => Some(list_ips(passing)),
                    _ => None,
                });
                let passing = passing.unwrap_or_default();
                (
                    format!("more than one passes, where `exactlyOne` allows one: {passing}"),
                    "it passes alone: find out which is the writer, and stop the others".to_owned(),
                )
            }
            Membership::OtherWriter { writer } => (
                format!("it is up, but {writer} is published, and `exactlyOne` allows no second"),
                format!("{writer} is down"),
            ),
            _ => (
                "it is up beside others, and none of them is published, as `exactlyOne` allows one"
                    .to_owned(),
                "it is up alone".to_owned(),
            ),
        }
    }

    fn of_other_tier(&self) -> (String, String) {
        let tier = self.target.priority;
        match self.target.membership {
            Membership::FailbackWaits { serving, .. } => (
                format!("it is up, but tier {serving} serves until the failback"),
                format!("tier {tier} {}", self.takes_over()),
            ),
            Membership::TierTooWeak { healthy, needed, serving } => (
                format!(
                    "it is up, but {healthy} of {needed} that are needed are healthy down to tier \
                     {tier}, so tier {serving} serves"
                ),
                format!("{} more are healthy down to tier {tier}", needed.saturating_sub(healthy)),
            ),
            Membership::LowerTier { behind } => (
                format!("it is up, and waits as tier {tier} behind tier {behind}"),
                format!("too few are healthy down to tier {behind}"),
            ),
            _ => (self.health(), self.passing_next()),
        }
    }
}

fn times(count: u32) -> String {
    match count {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        count => format!("{count} times"),
    }
}

fn checks(count: u32) -> String {
    match count {
        1 => "1 check".to_owned(),
        count => format!("{count} checks"),
    }
}

fn time(instant: Instant) -> String {
    clock::rfc3339_seconds(Time::from(instant).0)
}

/// Returns a duration in at most two units: `2m 30s`.
fn rounded(duration: Duration) -> String {
    let exact = match duration.as_secs() {
        0 => duration,
        seconds => Duration::from_secs(seconds),
    };
    let text = humantime::format_duration(exact).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests;
