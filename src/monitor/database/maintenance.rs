//! The maintenance of a database's targets: by the annotation of its Service, by the config, and
//! its end by time.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tracing::info;

use super::DatabaseMonitor;
use crate::annotations::{self, Maintenance, MaintenanceAnnotation, MaintenanceEntry, Subject};
use crate::clock;
use crate::config::DatabaseId;
use crate::monitor::{ChangeKind, TargetState};
use crate::notice::{Notice, Reason};

/// The longest time until an end is compared with the calendar again. The calendar may be set, and
/// the clock of the schedule stands still while the machine is suspended.
const MAX_CALENDAR_AGE: Duration = Duration::from_secs(30);

impl DatabaseMonitor {
    /// Stores the annotation for maintenance and applies it.
    pub(super) fn set_maintenance_annotation(&mut self, value: Option<String>, now: Instant) {
        let value = value.map(String::into_boxed_str);
        let before = std::mem::replace(&mut self.policy_state.maintenance, value);
        if before != self.policy_state.maintenance {
            self.announce_late_entries(before.as_deref(), now);
        }
        self.update_maintenance(now);
    }

    /// Puts the targets in maintenance that the annotation and the config name.
    pub(super) fn update_maintenance(&mut self, now: Instant) {
        let wall_now = clock::to_wall_clock(now);
        let mut annotation = self.parse(self.policy_state.maintenance.as_deref());
        let mut problems = std::mem::take(&mut annotation.problems);
        problems.extend(annotations::failback_problem(self.policy_state.failback.as_deref()));
        self.log_problems(&problems);
        self.policy_state.problems = problems;
        self.policy_state.maintenance_due_at = annotation.next_end(wall_now).map(|end| {
            let remaining = end.duration_since(wall_now).unwrap_or_default();
            now + remaining.min(MAX_CALENDAR_AGE)
        });
        for index in 0..self.targets.len() {
            let maintenance = self.maintenance_of(index, &annotation, wall_now);
            self.set_maintenance(index, maintenance, now);
        }
    }

    fn parse(&self, annotation: Option<&str>) -> MaintenanceAnnotation {
        let known = |subject: &Subject| match subject {
            Subject::Ip(ip) => self.targets.iter().any(|target| target.member.ip == *ip),
            Subject::Name(name) => self.database.names.iter().any(|entry| entry.name == *name),
        };
        annotations::parse_maintenance(annotation.unwrap_or_default(), known)
    }

    /// Returns the maintenance that is desired for a target. The annotation comes before the
    /// config.
    fn maintenance_of(
        &self,
        index: usize,
        annotation: &MaintenanceAnnotation,
        wall_now: SystemTime,
    ) -> Option<Maintenance> {
        let TargetState { member, origin, .. } = &self.targets[index];
        let entry = origin.entry.filter(|_| !origin.is_guess);
        let entry = entry.and_then(|entry| self.database.names.get(entry));
        let has_name = |name: &str| entry.is_some_and(|entry| *entry.name == *name);
        let by_config = || {
            let reason = self.database.addresses[index].maintenance.as_ref();
            reason.map(Maintenance::by_config)
        };
        let by_annotation = annotation.find(member.ip, has_name, wall_now);
        by_annotation.map(MaintenanceEntry::maintenance).or_else(by_config)
    }

    fn set_maintenance(&mut self, index: usize, desired: Option<Maintenance>, now: Instant) {
        let target = &mut self.targets[index];
        if target.maintenance.as_deref() == desired.as_ref() {
            return;
        }
        let address = target.member.ip;
        let (kind, reason) = match &desired {
            Some(maintenance) => (ChangeKind::MaintenanceBegan, Some(&*maintenance.reason)),
            None => (ChangeKind::MaintenanceEnded, None),
        };
        self.changes.record(address, kind, reason, now);
        let before = std::mem::replace(&mut target.maintenance, desired.map(Arc::new));
        let DatabaseId { namespace, service } = &self.database.id;
        match (&target.maintenance, &before) {
            (Some(maintenance), _) => {
                let Maintenance { reason, source, until } = &**maintenance;
                let until = until.map(clock::rfc3339_seconds);
                info!(
                    %namespace, %service, %address, %reason, %source, until,
                    "target is in maintenance"
                );
                let note = format!("{address} is in maintenance: {maintenance}");
                self.announce_maintenance(Reason::MaintenanceBegan, address, note, now);
            }
            (None, Some(before)) => {
                target.maintenance_ended_at = Some(now);
                let cause = match before.is_over(clock::to_wall_clock(now)) {
                    true => "its time is over".to_owned(),
                    false => format!("it is no longer in the {}", before.source),
                };
                info!(%namespace, %service, %address, cause, "maintenance of target is over");
                let note = format!("the maintenance of {address} has ended, {cause}: {before}");
                self.announce_maintenance(Reason::MaintenanceEnded, address, note, now);
            }
            (None, None) => {}
        }
    }

    /// Announces entries that were over when they were written: a mistake in the end would else
    /// leave an address published, and nobody would know why.
    fn announce_late_entries(&self, before: Option<&str>, now: Instant) {
        let wall_now = clock::to_wall_clock(now);
        let before = self.parse(before).entries;
        let entries = self.parse(self.policy_state.maintenance.as_deref()).entries;
        let is_late = |entry: &&MaintenanceEntry| entry.is_over(wall_now);
        for entry in entries.iter().filter(is_late).filter(|entry| !before.contains(entry)) {
            let (subject, maintenance) = (&entry.subject, entry.maintenance());
            let note =
                format!("the maintenance of {subject} had ended when it was set: {maintenance}");
            let DatabaseId { namespace, service } = &self.database.id;
            info!(%namespace, %service, "{note}");
            self.announce_maintenance(Reason::MaintenanceEnded, subject, note, now);
        }
    }

    /// Emits an Event, except for what was there when the daemon started.
    fn announce_maintenance(
        &self,
        reason: Reason,
        subject: impl ToString,
        note: String,
        now: Instant,
    ) {
        if self.has_decided {
            let notice: Notice = self.notice(reason, note, now);
            self.recorder.event(|| notice.with_dedup_key(subject.to_string()));
        }
    }
}
