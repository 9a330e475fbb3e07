//! The status of the daemon as data: the JSON of /api/v1/status, from which also the page and the
//! commands `status` and `explain` are made.
//!
//! The types are public API: fields are only ever added. A reader ignores fields that it does not
//! know, and takes absent ones as empty, so that commands read the daemons of other versions.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::annotations::MaintenanceSource;
use crate::config::DatabaseId;
use crate::freeze::Frozen;
use crate::health::{self, State, Streak};
use crate::lease::{self, Role};
use crate::monitor::{DatabaseSnapshot, Snapshot, TargetCheck, TargetState};
use crate::plan::{self, PolicyNote};
use crate::publish::{self, PublishStatus};
use crate::{clock, reload};
pub use check::{CheckStatus, WriteStatus};
pub use history::{ChangeStatus, HourMinute, read_hour};
pub use mark::TargetMark;
pub use membership::MembershipStatus;
pub use names::{NameStatus, NamedAddress, RecordStatus, RejectedStatus};
pub use observation::ObservationStatus;
pub use time::Time;

mod check;
mod history;
mod mark;
mod membership;
mod names;
mod observation;
pub(crate) mod table;
pub(crate) mod text;
mod time;

/// The status of one replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DaemonStatus {
    /// The replica as a whole.
    #[serde(flatten)]
    pub replica: ReplicaStatus,
    /// The databases, in the order of the config.
    pub databases: Vec<DatabaseStatus>,
}

/// The status of one replica as a whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReplicaStatus {
    /// The version of the daemon.
    pub version: String,
    /// The time at which the status was made.
    pub now: Time,
    /// The role of this replica.
    pub role: ReplicaRole,
    /// The Lease; none for a single replica and a dry run.
    pub lease: Option<LeaseStatus>,
    /// The freeze, if there is one.
    pub frozen: Option<FreezeStatus>,
    /// The config in force.
    pub config: ConfigStatus,
    /// The addresses that are published for databases that the config does not have.
    #[serde(default)]
    pub left_behind: Vec<LeftBehind>,
}

/// The role of a replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ReplicaRole {
    /// The only replica, which always writes.
    Alone,
    /// The replica that holds the Lease.
    Leader,
    /// A replica that only checks, and is ready to take over.
    Standby,
    /// A dry run, which never writes.
    DryRun,
}

impl ReplicaRole {
    /// Returns the word for people.
    pub fn as_str(self) -> &'static str {
        match self {
            ReplicaRole::Alone => "the only replica",
            ReplicaRole::Leader => "leader",
            ReplicaRole::Standby => "standby, which does not write",
            ReplicaRole::DryRun => "dry run, which writes nothing",
        }
    }
}

impl ReplicaStatus {
    /// Returns the status now.
    pub(crate) fn new(
        snapshot: &Snapshot,
        publish: &publish::Handle,
        lease: &lease::Handle,
        config: &reload::Handle,
    ) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now: clock::now().into(),
            role: match lease.role() {
                Role::Alone => ReplicaRole::Alone,
                Role::DryRun => ReplicaRole::DryRun,
                // A leader whose permission has ended does not write.
                Role::Leader if lease.is_leader() => ReplicaRole::Leader,
                Role::Leader | Role::Standby { .. } => ReplicaRole::Standby,
            },
            lease: LeaseStatus::new(lease),
            frozen: snapshot.frozen.as_ref().map(FreezeStatus::new),
            config: ConfigStatus::new(config),
            left_behind: left_behind(publish),
        }
    }
}

/// The config in force and its file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigStatus {
    /// The path of the file.
    pub file: String,
    /// The time when the config in force was loaded.
    pub since: Time,
    /// The problems of the file as it is now. While there are any, the last good config stays in
    /// force.
    pub problems: Vec<String>,
}

impl ConfigStatus {
    fn new(config: &reload::Handle) -> Self {
        Self {
            file: config.path().to_owned(),
            since: config.loaded_at().into(),
            problems: config.problems().to_vec(),
        }
    }
}

/// Managed Endpoints of a Service that the config does not have.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeftBehind {
    /// The namespace of the Service.
    pub namespace: String,
    /// The name of the Service.
    pub service: String,
    /// The addresses that are published.
    pub addresses: Vec<String>,
}

fn left_behind(publish: &publish::Handle) -> Vec<LeftBehind> {
    let orphans = publish.orphans().into_iter();
    orphans
        .map(|(DatabaseId { namespace, service }, members)| LeftBehind {
            namespace,
            service,
            addresses: ips(&members),
        })
        .collect()
}

/// The lease; null where there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseStatus {
    /// NAMESPACE/NAME of the Lease.
    pub name: String,
    /// The identity of this replica.
    pub identity: String,
    /// True if this replica holds the Lease, and therefore writes.
    pub held: bool,
    /// The identity of the holder; null if none is known.
    pub holder: Option<String>,
    /// The error that keeps this replica from competing; null if another holds the Lease.
    pub trouble: Option<String>,
}

/// Returns the host in the identity of a replica, HOST_UID. It is the name of the Pod, or that of
/// the node with `hostNetwork`.
pub(crate) fn host_of(identity: &str) -> &str {
    identity.rsplit_once('_').map_or(identity, |(host, _)| host)
}

/// The permission of a replica to write, which ends before that of another can begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WritePermission {
    Valid,
    None,
}

impl LeaseStatus {
    fn new(lease: &lease::Handle) -> Option<Self> {
        let (name, identity) = lease.identity()?;
        let permission = match lease.is_leader() {
            true => WritePermission::Valid,
            false => WritePermission::None,
        };
        Some(Self::of(name.to_string(), identity, lease.role(), permission))
    }

    /// Returns the trouble of a standby as a sentence.
    pub(crate) fn describe_trouble(&self) -> Option<String> {
        let trouble = text::visible_sentence(self.trouble.as_deref()?);
        Some(match &self.holder {
            Some(_) => format!("this replica could not take over: {trouble}"),
            None => format!("this replica does not write, and none is known to: {trouble}"),
        })
    }

    fn of(name: String, identity: &str, role: Role, permission: WritePermission) -> Self {
        let held = permission == WritePermission::Valid;
        let (holder, trouble) = match role {
            Role::Standby { holder, error: trouble } => (holder, trouble),
            _ if held => (Some(identity.to_owned()), None),
            _ => (None, Some("it was not renewed in time".to_owned())),
        };
        Self { name, identity: identity.to_owned(), held, holder, trouble }
    }
}

/// The freeze; null where there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FreezeStatus {
    /// The time at which it began.
    pub since: Time,
    /// The latest time at which it ends.
    pub until: Option<Time>,
    /// The number of published targets that fail.
    pub failed: usize,
    /// The number of published targets.
    pub published: usize,
}

impl FreezeStatus {
    fn new(&Frozen { since, expires_at: until, failed, published }: &Frozen) -> Self {
        Self { since: since.into(), until: until.map(Time::from), failed, published }
    }
}

/// The status of a database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseStatus {
    /// The namespace of the Service.
    pub namespace: String,
    /// The name of the Service.
    pub service: String,
    /// The condition of its publishing; none before it is known.
    pub condition: Option<String>,
    /// The reason of the condition, with the step to take.
    pub reason: Option<String>,
    /// The time when the condition last changed.
    pub since: Option<Time>,
    /// The effects of the policy on the plan, and the problems of the Service's annotations.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub policy: Vec<String>,
    /// True while more than one target of an `exactlyOne` database passes.
    pub split_brain: bool,
    /// The time when a preferred tier takes over again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failback_at: Option<Time>,
    /// The desired members; null while they are undecided.
    pub planned: Option<Vec<String>>,
    /// The existing members; null while they are unknown or foreign.
    pub published: Option<Vec<String>>,
    /// The newest write of members by this process, if it made any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_write: Option<WriteStatus>,
    /// The targets, in the order of the config.
    pub targets: Vec<TargetStatus>,
    /// The entries of the config that are a name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<NameStatus>,
    /// Addresses of the config that may not be published. They are not checked.
    #[serde(rename = "refused", default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedStatus>,
    /// The newest changes, oldest first. Only the page of one database has them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<ChangeStatus>,
}

/// The status of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// The IP.
    pub address: String,
    /// The DNS label of this replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The name that DNS gives it for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The way in which DNS stands behind it: `current`, `departing`, `released` or `adopted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dns: Option<Cow<'static, str>>,
    /// The `priority` of the address.
    pub tier: u32,
    /// The reason of the maintenance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<String>,
    /// The place that asks for the maintenance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance_source: Option<MaintenanceSource>,
    /// The time at which the maintenance ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance_until: Option<Time>,
    /// The time at which it is published again after flapping, if it stays up.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flapping_until: Option<Time>,
    /// The state of its health.
    pub health: State,
    /// Passes in a row up to the newest verdict.
    pub passes: u32,
    /// Failures in a row up to the newest verdict.
    pub failures: u32,
    /// The time when the health last changed.
    pub since: Time,
    /// The reason of the newest verdict, unless it is a pass.
    pub reason: Option<String>,
    /// The time since which all verdicts are inconclusive, once that is more than a minute ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inconclusive_since: Option<Time>,
    /// The role, lag and version that the newest try has found, where the check asks for them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observation: Option<ObservationStatus>,
    /// The end of the newest try; none before the first.
    pub last_check: Option<Time>,
    /// The duration of the newest try.
    pub last_duration_seconds: Option<f64>,
    /// True if the cluster holds the address.
    pub published: bool,
    /// The place in the plan, with the rule that gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub membership: Option<MembershipStatus>,
    /// The check.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<CheckStatus>,
    /// The time at which the next try is due; none while one is in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_check: Option<Time>,
    /// A letter for each minute of the last hour, oldest first: that of [`HourMinute`].
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub last_hour: String,
}

impl DatabaseStatus {
    /// Returns the status of a database. `status` is that of its publishing.
    pub(crate) fn new(database: &DatabaseSnapshot, status: Option<&PublishStatus>) -> Self {
        let members = status.and_then(|status| status.members.as_ref());
        let planned = match &database.plan {
            plan::Plan::Publish(members) => Some(members),
            plan::Plan::Keep(_) => None,
        };
        Self {
            namespace: database.id.namespace.clone(),
            service: database.id.service.clone(),
            condition: status.map(|status| status.condition.kind.to_string()),
            reason: status.map(|status| status.condition.reason.clone()),
            since: status.map(|status| status.last_transition.into()),
            policy: notes(database),
            split_brain: database
                .notes
                .iter()
                .any(|note| matches!(note, PolicyNote::SplitBrain { .. })),
            failback_at: database.notes.iter().find_map(|note| match note {
                PolicyNote::FailbackWaits { until, .. } => until.map(Time::from),
                _ => None,
            }),
            planned: planned.map(ips),
            published: members.map(ips),
            last_write: status.and_then(|status| status.last_write.as_ref()).map(WriteStatus::new),
            targets: database
                .targets
                .iter()
                .zip(&database.checks)
                .map(|(target, check)| TargetStatus::new(database, target, check, members))
                .collect(),
            names: database.names.iter().map(NameStatus::new).collect(),
            rejected: database.refused.iter().map(RejectedStatus::new).collect(),
            changes: Vec::new(),
        }
    }
}

impl DatabaseStatus {
    /// Adds the newest changes.
    pub(crate) fn with_changes(self, database: &DatabaseSnapshot) -> Self {
        Self { changes: database.changes.iter().map(ChangeStatus::new).collect(), ..self }
    }
}

impl TargetStatus {
    fn new(
        database: &DatabaseSnapshot,
        target: &TargetState,
        TargetCheck { check, next_at }: &TargetCheck,
        members: Option<&plan::Members>,
    ) -> Self {
        let health: &health::Health = &target.health;
        let maintenance = target.maintenance.as_deref();
        let (passes, failures) = match health.streak() {
            Streak::None => (0, 0),
            Streak::Passes(passes) => (passes, 0),
            Streak::Failures(failures) => (0, failures),
        };
        Self {
            address: target.member.ip.to_string(),
            hostname: target.member.hostname.clone(),
            name: target.origin.name.as_deref().map(str::to_owned),
            dns: target.origin.entry.map(|_| target.origin.backing.as_str().into()),
            tier: target.priority,
            maintenance: maintenance.map(|it| it.reason.to_string()),
            maintenance_source: maintenance.map(|it| it.source),
            maintenance_until: maintenance.and_then(|it| it.until).map(Time),
            flapping_until: target.flapping().map(Time::from),
            health: health.state(),
            passes,
            failures,
            since: health.since().into(),
            reason: health.reason().map(str::to_owned),
            inconclusive_since: health.inconclusive_since().map(Time::from),
            observation: target.observation.as_deref().map(ObservationStatus::new),
            last_check: target.last_check.map(|(at, _)| at.into()),
            last_duration_seconds: target.last_check.map(|(_, duration)| duration.as_secs_f64()),
            published: members.is_some_and(|members| members.contains(target.member.ip)),
            membership: Some(MembershipStatus::new(database, target, check)),
            check: Some(CheckStatus::new(check, target.member.ip)),
            next_check: next_at.map(Time::from),
            last_hour: history::write_hour(target.last_hour.minutes(clock::now())),
        }
    }
}

fn notes(database: &DatabaseSnapshot) -> Vec<String> {
    database
        .notes
        .iter()
        .map(PolicyNote::to_string)
        .chain(database.problems.iter().cloned())
        .collect()
}

fn ips(members: &plan::Members) -> Vec<String> {
    members.iter().map(|member| member.ip.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_whose_permission_has_ended_holds_no_lease() {
        let lease = |it| LeaseStatus::of("ops/x".into(), "me_1", Role::Leader, it);
        let holds = lease(WritePermission::Valid);
        assert_eq!((holds.holder.as_deref(), holds.trouble), (Some("me_1"), None));
        let late = lease(WritePermission::None);
        assert!(!late.held && late.holder.is_none(), "{late:?}");
        assert_eq!(late.trouble.as_deref(), Some("it was not renewed in time"));
    }

    #[test]
    fn a_status_of_another_version_is_read() {
        let text = r#"{
            "version": "9.0.0", "now": "2026-11-28T14:00:00.000Z", "role": "leader",
            "lease": null, "frozen": null, "aFieldOfLater": {"x": 1},
            "config": {"file": "c.yaml", "since": "2026-11-28T13:00:00.000Z", "problems": []},
            "databases": [{
                "namespace": "prod", "service": "mysql", "condition": "AKindOfLater",
                "reason": "", "since": null, "splitBrain": false, "planned": null,
                "published": null, "targets": []
            }]
        }"#;
        let status: DaemonStatus = serde_json::from_str(text).expect("a status");
        assert_eq!(status.replica.role, ReplicaRole::Leader);
        assert_eq!(status.databases[0].condition.as_deref(), Some("AKindOfLater"));
        let again = serde_json::to_string(&status).expect("text");
        assert_eq!(serde_json::from_str::<DaemonStatus>(&again).expect("the same"), status);
    }
}
