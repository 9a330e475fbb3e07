//! The log lines, Events and kept changes of a database.

use std::net::IpAddr;
use std::time::Instant;

use tracing::{debug, info, warn};

use super::DatabaseMonitor;
use super::trouble::is_well;
use crate::config::DatabaseId;
use crate::health::{State, Streak, Transition, Verdict};
use crate::monitor::{ChangeKind, TargetState};
use crate::notice::{LogLine, Notice, Reason, Regarding};
use crate::plan::{Members, PolicyNote};

/// The note of the Event, and the message of the log line, at the end of inconclusive checks.
pub(crate) const CONCLUSIVE: &str = "the checks of all published addresses are conclusive again";

/// The same, at the end of checks that could not log in. Their targets may be down by now.
const LOGINS_WORK: &str = "no check is refused its login any more";

/// Returns the note of a target's Event: its state, and the reason for which it is down.
pub(crate) fn target_note(ip: IpAddr, state: State, reason: Option<&str>) -> String {
    match reason.filter(|_| state == State::Down) {
        Some(reason) => format!("{ip} is {state}: {reason}"),
        None => format!("{ip} is {state}"),
    }
}

/// Returns the reason and the note of the Event at the end of a role that no target had.
pub(crate) fn end_of_missing_role(targets: &[TargetState]) -> (Reason, &'static str) {
    match targets.iter().any(is_well) {
        true => (Reason::RoleFound, "an address has the role that its check asks for"),
        false => (Reason::RoleUnknown, "no address is known to have another role any more"),
    }
}

impl DatabaseMonitor {
    /// Counts a transition, logs it, and emits an Event. A target that is up when it is first
    /// checked has no Event: it may have been up for years before this daemon started.
    pub(super) fn announce_transition(
        &mut self,
        index: usize,
        transition: Option<Transition>,
        now: Instant,
    ) {
        let Some(Transition { from, to }) = transition else { return };
        let target = &mut self.targets[index];
        let ip = target.member.ip;
        let line = LogLine { address: Some(ip), from: Some(from), ..LogLine::default() };
        match (from, to) {
            // It may have been up for years before this daemon started.
            (State::Unknown, State::Up) => {}
            (_, State::Up) => self.changes.record(ip, ChangeKind::Up, None, now),
            _ => self.changes.record(ip, ChangeKind::Down, target.health.reason(), now),
        }
        match to {
            State::Up => {
                target.counts.to_up += 1;
                let note = target_note(ip, to, None);
                let notice = self.notice(Reason::TargetUp, note, now);
                let notice = notice.with_dedup_key(ip.to_string());
                let line = LogLine { message: Some("target is up"), ..line };
                match from {
                    State::Unknown => self.recorder.log(&notice, &line),
                    State::Up | State::Down => self.recorder.log_and_event(notice, &line),
                }
            }
            State::Down => {
                target.counts.to_down += 1;
                let reason = self.targets[index].health.reason();
                let note = target_note(ip, to, reason);
                let notice = self.notice(Reason::TargetDown, note, now);
                let (message, reason) = (Some("target is down"), reason.unwrap_or_default());
                self.recorder.log_and_event(
                    notice.with_dedup_key(ip.to_string()),
                    &LogLine { message, reason: Some(reason), ..line },
                );
            }
            State::Unknown => unreachable!("no target becomes unknown"),
        }
    }

    /// Lets at most as many changes stay as there is room for among `databases` databases.
    pub(in crate::monitor) fn bound_changes(&mut self, databases: usize) {
        self.changes.set_databases(databases);
    }

    /// Records the addresses that came to the cluster or left it.
    pub(super) fn record_membership(
        &mut self,
        before: Option<&Members>,
        after: &Members,
        now: Instant,
    ) {
        let Some(before) = before else { return };
        let left = before.iter().filter(|member| !after.contains(member.ip));
        let came = after.iter().filter(|member| !before.contains(member.ip));
        let left = left.map(|member| (member.ip, ChangeKind::Unpublished));
        let came = came.map(|member| (member.ip, ChangeKind::Published));
        left.chain(came).for_each(|(ip, kind)| self.changes.record(ip, kind, None, now));
    }

    pub(super) fn notice(&self, reason: Reason, note: String, at: Instant) -> Notice {
        Notice::new(Regarding::Database(self.database.id.clone()), reason, note, at)
    }

    /// Announces what the policy does now and did not do before, and the end of what a person had
    /// to act on.
    pub(super) fn announce_notes(&self, before: &[PolicyNote], now: Instant) {
        let notes = &self.policy_state.notes;
        for note in notes.iter().filter(|note| !before.contains(note)) {
            self.announce_note(note, now);
        }
        let is_over = |note: &&PolicyNote| !notes.iter().any(|now| now.same_kind(note));
        for note in before.iter().filter(is_over) {
            self.announce_end_of_note(note, before, now);
        }
    }

    fn announce_note(&self, note: &PolicyNote, now: Instant) {
        let DatabaseId { namespace, service } = &self.database.id;
        let reason = match note {
            PolicyNote::SplitBrain { .. } => Reason::SplitBrain,
            PolicyNote::BelowMinHealthy { .. } => Reason::BelowMinHealthy,
            PolicyNote::Flapping { .. } => Reason::Flapping,
            PolicyNote::ChecksInconclusive { .. } => Reason::ChecksInconclusive,
            PolicyNote::LoginRefused { .. } => Reason::LoginRefused,
            PolicyNote::RoleMissing { .. } => Reason::RoleMissing,
            PolicyNote::DegradedTier { .. } | PolicyNote::FailbackWaits { .. } => {
                return info!(%namespace, %service, "{note}");
            }
            // The Event comes once it has lasted.
            PolicyNote::NotReplaced { .. } => return debug!(%namespace, %service, "{note}"),
            // The log has the freeze once, and not for each database.
            PolicyNote::KeptByFreeze { .. } => return debug!(%namespace, %service, "{note}"),
        };
        let notice = self.notice(reason, note.to_string(), now);
        self.recorder.log_and_event(notice, &LogLine::default());
    }

    fn announce_end_of_note(&self, note: &PolicyNote, before: &[PolicyNote], now: Instant) {
        let DatabaseId { namespace, service } = &self.database.id;
        match note {
            PolicyNote::SplitBrain { .. } => info!(%namespace, %service, "the split brain is over"),
            PolicyNote::BelowMinHealthy { .. } => {
                info!(%namespace, %service, "enough are healthy again");
            }
            PolicyNote::ChecksInconclusive { .. } => {
                self.announce_end_of_inconclusive(CONCLUSIVE, before, now);
            }
            PolicyNote::LoginRefused { .. } => {
                self.announce_end_of_inconclusive(LOGINS_WORK, before, now);
            }
            PolicyNote::RoleMissing { .. } => {
                let (reason, note) = end_of_missing_role(&self.targets);
                let notice = self.notice(reason, note.into(), now);
                self.recorder.log_and_event(notice, &LogLine::default());
            }
            PolicyNote::DegradedTier { .. } => {
                info!(%namespace, %service, "the preferred tier serves alone again");
            }
            PolicyNote::FailbackWaits { .. }
            | PolicyNote::NotReplaced { .. }
            | PolicyNote::Flapping { .. }
            | PolicyNote::KeptByFreeze { .. } => {}
        }
    }

    /// Announces the end of a note on inconclusive checks. If there is another note on them, that
    /// one is announced again, because only the newest Event of them counts.
    fn announce_end_of_inconclusive(&self, end: &str, before: &[PolicyNote], now: Instant) {
        let notes = self.policy_state.notes.iter();
        let mut others = notes.filter(|note| note.is_of_inconclusive_checks());
        match others.next() {
            Some(other) if before.contains(other) => self.announce_note(other, now),
            Some(_) => {}
            None => {
                let notice = self.notice(Reason::ChecksConclusive, end.into(), now);
                self.recorder.log_and_event(notice, &LogLine::default());
            }
        }
    }

    pub(super) fn log_problems(&self, problems: &[String]) {
        let DatabaseId { namespace, service } = &self.database.id;
        for problem in
            problems.iter().filter(|problem| !self.policy_state.problems.contains(problem))
        {
            warn!(%namespace, %service, problem, "an annotation of the Service is not good");
        }
    }

    /// Logs once that a target fails before the cluster has been read, when its health cannot flip
    /// yet.
    pub(super) fn log_unsynced_failure(&self, index: usize) {
        let health = &self.targets[index].health;
        let unhealthy = self.database.addresses[index].check.thresholds.unhealthy;
        if health.state() == State::Unknown && health.streak() == Streak::Failures(unhealthy) {
            let DatabaseId { namespace, service } = &self.database.id;
            let (address, reason) =
                (self.targets[index].member.ip, health.reason().unwrap_or_default());
            let message = "target fails; it will be down once the cluster has been read";
            warn!(%namespace, %service, %address, reason, "{message}");
        }
    }

    /// Logs that tries have become inconclusive: once, and not at every try.
    pub(super) fn log_inconclusive(&self, index: usize, verdict: &Verdict) {
        let target = &self.targets[index];
        if let Verdict::Inconclusive(reason) = verdict
            && target.health.reason() != Some(reason)
        {
            let DatabaseId { namespace, service } = &self.database.id;
            let (address, message) =
                (target.member.ip, "check is inconclusive; health stays as it is");
            warn!(%namespace, %service, %address, reason, "{message}");
        }
    }
}
