//! What a database has to say: log lines, and Events for those who do not read the log.

use std::time::Instant;

use tracing::{debug, error, info, warn};

use super::Watched;
use crate::config::DatabaseId;
use crate::health::{State, Streak, Transition, Verdict};
use crate::notice::{Notice, Regarding};
use crate::plan::Note;

/// The end of a time in which nothing was learnt of a published target.
const CONCLUSIVE: &str = "the checks of all published addresses say something again";

impl Watched {
    /// Counts a transition, and tells it.
    pub(super) fn tell(&mut self, index: usize, transition: Option<Transition>) {
        let Some(transition) = transition else { return };
        let target = &mut self.targets[index];
        let DatabaseId { namespace, service } = &self.database.id;
        let address = target.member.ip;
        match transition.to {
            State::Up => {
                target.counts.to_up += 1;
                info!(%namespace, %service, %address, from = %transition.from, "target is up");
            }
            State::Down => {
                target.counts.to_down += 1;
                let reason = target.health.reason().unwrap_or_default();
                warn!(%namespace, %service, %address, from = %transition.from, reason, "target is down");
            }
            State::Unknown => unreachable!("no target becomes unknown"),
        }
    }

    /// Tells a transition to those who do not read the log. That a target is up which nobody knew to be down is no news to
    /// them: it may have been so for years before this daemon came.
    pub(super) fn tell_people(&self, index: usize, transition: Option<Transition>, now: Instant) {
        let Some(Transition { from, to }) = transition else { return };
        if (from, to) == (State::Unknown, State::Up) {
            return;
        }
        let target = &self.targets[index];
        let ip = target.member.ip;
        let (reason, warning) =
            if to == State::Up { ("TargetUp", false) } else { ("TargetDown", true) };
        self.announce(reason, "Check", warning, ip.to_string(), now, || {
            match target.health.reason() {
                Some(reason) if to == State::Down => format!("{ip} is down: {reason}"),
                _ => format!("{ip} is {to}"),
            }
        });
    }

    pub(super) fn announce(
        &self,
        reason: &str,
        action: &'static str,
        warning: bool,
        subject: String,
        at: Instant,
        note: impl FnOnce() -> String,
    ) {
        let about = || Regarding::Database(self.database.id.clone());
        self.recorder.record(|| Notice {
            regarding: about(),
            reason: reason.into(),
            action,
            warning,
            dedup_key: subject,
            note: note(),
            at,
        });
    }

    /// Tells what the policy does now and did not do before, and the end of what a person should have looked at.
    pub(super) fn tell_of_notes(&self, before: &[Note]) {
        let DatabaseId { namespace, service } = &self.database.id;
        let notes = &self.policing.notes;
        for note in notes.iter().filter(|note| !before.contains(note)) {
            match note {
                Note::SplitBrain { .. } => error!(%namespace, %service, "{note}"),
                Note::BelowMinHealthy { .. } | Note::ChecksInconclusive { .. } => {
                    warn!(%namespace, %service, "{note}");
                }
                Note::LowerTier { .. } | Note::FailbackWaits { .. } | Note::Flapping { .. } => {
                    info!(%namespace, %service, "{note}");
                }
                // That there is a freeze is told once, and not for each database.
                Note::Held { .. } => debug!(%namespace, %service, "{note}"),
            }
        }
        for note in before.iter().filter(|note| !notes.iter().any(|now| now.is_like(note))) {
            match note {
                Note::SplitBrain { .. } => info!(%namespace, %service, "the split brain is over"),
                Note::BelowMinHealthy { .. } => {
                    info!(%namespace, %service, "enough are healthy again")
                }
                Note::ChecksInconclusive { .. } => info!(%namespace, %service, "{CONCLUSIVE}"),
                Note::LowerTier { .. } => {
                    info!(%namespace, %service, "the preferred tier serves alone again")
                }
                Note::FailbackWaits { .. } | Note::Flapping { .. } | Note::Held { .. } => {}
            }
        }
    }

    /// Tells what a person should look at to those who do not read the log.
    pub(super) fn announce_notes(&self, before: &[Note], now: Instant) {
        for note in self.policing.notes.iter().filter(|note| !before.contains(note)) {
            let reason = match note {
                Note::SplitBrain { .. } => "SplitBrain",
                Note::BelowMinHealthy { .. } => "BelowMinHealthy",
                Note::Flapping { .. } => "Flapping",
                Note::ChecksInconclusive { .. } => "ChecksInconclusive",
                // A freeze is told for each database once.
                Note::LowerTier { .. } | Note::FailbackWaits { .. } | Note::Held { .. } => continue,
            };
            self.announce(reason, "Decide", true, String::new(), now, || note.to_string());
        }
        let is_inconclusive = |note: &Note| matches!(note, Note::ChecksInconclusive { .. });
        if before.iter().any(is_inconclusive) && !self.policing.notes.iter().any(is_inconclusive) {
            self.announce("ChecksConclusive", "Check", false, String::new(), now, || {
                CONCLUSIVE.to_owned()
            });
        }
    }

    pub(super) fn tell_of_problems(&self, problems: &[String]) {
        let DatabaseId { namespace, service } = &self.database.id;
        for problem in problems.iter().filter(|problem| !self.policing.problems.contains(problem)) {
            warn!(%namespace, %service, problem, "an annotation of the Service is not good");
        }
    }

    /// Tells once that a target fails, where its health can't: it has none before the cluster has been seen.
    pub(super) fn tell_of_unseen(&self, index: usize) {
        let health = &self.targets[index].health;
        let unhealthy = self.database.addresses[index].check.thresholds.unhealthy;
        if health.state() == State::Unknown && health.streak() == Streak::Failures(unhealthy) {
            let DatabaseId { namespace, service } = &self.database.id;
            let (address, reason) =
                (self.targets[index].member.ip, health.reason().unwrap_or_default());
            warn!(%namespace, %service, %address, reason, "target fails; it will be down once the cluster has been read");
        }
    }

    /// Tells once that tries have become inconclusive, not at every try.
    pub(super) fn tell_of_inconclusive(&self, index: usize, verdict: &Verdict) {
        let target = &self.targets[index];
        if let Verdict::Inconclusive(reason) = verdict
            && target.health.reason() != Some(reason)
        {
            let DatabaseId { namespace, service } = &self.database.id;
            warn!(%namespace, %service, address = %target.member.ip, reason, "check is inconclusive; health stays as it is");
        }
    }
}
