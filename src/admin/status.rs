//! The page /api/v1/status: the state of each database as JSON.

use std::sync::Arc;

use serde::Serialize;

use super::AppState;
use crate::config::DatabaseId;
use crate::freeze::Frozen;
use crate::health::{self, Streak};
use crate::lease::{self, Role};
use crate::monitor::{DatabaseSnapshot, Snapshot, TargetState};
use crate::plan::{self, PolicyNote};
use crate::publish::{self, PublishStatus};
use crate::reload;
use names::{NameStatus, RejectedStatus, rfc3339};

mod names;

/// Returns the page in parts, one for each database: `version`, `lease`, `frozen`, `config`,
/// `leftBehind`, and a [`DatabaseStatus`] for each database.
pub(super) fn page(
    snapshot: Arc<Snapshot>,
    state: AppState,
) -> impl Iterator<Item = String> + Send + 'static {
    let version = json(&env!("CARGO_PKG_VERSION"));
    let lease = json(&LeaseStatus::new(&state.lease));
    let frozen = json(&snapshot.frozen.as_ref().map(FreezeStatus::new));
    let config = json(&ConfigStatus::new(&state.config));
    let left_behind = json(&left_behind(&state.publish));
    let head = format!(
        "{{\"version\":{version},\"lease\":{lease},\"frozen\":{frozen},\"config\":{config},\
         \"leftBehind\":{left_behind},\"databases\":["
    );
    let databases = (0..snapshot.databases.len()).map(move |index| {
        let database = &snapshot.databases[index];
        let comma = if index == 0 { "" } else { "," };
        let status = DatabaseStatus::new(database, state.publish.status(&database.id).as_ref());
        comma.to_owned() + &json(&status)
    });
    std::iter::once(head).chain(databases).chain(std::iter::once("]}".to_owned()))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

/// The config in force and its file.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigStatus {
    file: String,
    /// The time when the config in force was loaded.
    since: String,
    /// The problems of the file as it is now. While there are any, the last good config stays in
    /// force.
    problems: Vec<String>,
}

impl ConfigStatus {
    fn new(config: &reload::Handle) -> Self {
        Self {
            file: config.path().to_owned(),
            since: rfc3339(config.loaded_at()),
            problems: config.problems().to_vec(),
        }
    }
}

/// Managed Endpoints of a Service that the config does not have.
#[derive(Serialize)]
struct LeftBehind {
    namespace: String,
    service: String,
    addresses: Vec<String>,
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
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaseStatus {
    /// NAMESPACE/NAME of the Lease.
    name: String,
    /// The identity of this replica.
    identity: String,
    /// True if this replica holds the Lease, and therefore writes.
    held: bool,
    /// The identity of the holder; null if none is known.
    holder: Option<String>,
    /// The error that keeps this replica from competing; null if another holds the Lease.
    trouble: Option<String>,
}

impl LeaseStatus {
    fn new(lease: &lease::Handle) -> Option<Self> {
        let (name, identity) = lease.identity()?;
        let (holder, trouble) = match lease.role() {
            Role::Standby { holder, error: trouble } => (holder, trouble),
            _ => (Some(identity.to_owned()), None),
        };
        Some(Self {
            name: name.to_string(),
            identity: identity.to_owned(),
            held: lease.is_leader(),
            holder,
            trouble,
        })
    }
}

/// The freeze; null where there is none.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FreezeStatus {
    since: String,
    /// The latest time at which it ends.
    until: Option<String>,
    /// The number of published targets that fail.
    failed: usize,
    published: usize,
}

impl FreezeStatus {
    fn new(&Frozen { since, expires_at: until, failed, published }: &Frozen) -> Self {
        Self { since: rfc3339(since), until: until.map(rfc3339), failed, published }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DatabaseStatus {
    namespace: String,
    service: String,
    condition: Option<String>,
    reason: Option<String>,
    /// The time when the condition last changed.
    since: Option<String>,
    /// The effects of the policy on the plan, and the problems of the Service's annotations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policy: Vec<String>,
    split_brain: bool,
    /// The time when a preferred tier takes over again.
    #[serde(skip_serializing_if = "Option::is_none")]
    failback_at: Option<String>,
    /// The desired members; null while they are undecided.
    planned: Option<Vec<String>>,
    /// The existing members; null while they are unknown or foreign.
    published: Option<Vec<String>>,
    targets: Vec<TargetStatus>,
    /// The entries of the config that are a name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    names: Vec<NameStatus>,
    /// Addresses of the config that may not be published. They are not checked.
    #[serde(rename = "refused", skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<RejectedStatus>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetStatus {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    /// The name that DNS gives it for.
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// The way in which DNS stands behind it: `current`, `departing`, `released` or `adopted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    dns: Option<&'static str>,
    /// The `priority` of the address.
    tier: u32,
    /// The reason of the maintenance.
    #[serde(skip_serializing_if = "Option::is_none")]
    maintenance: Option<String>,
    /// The time at which it is published again after flapping, if it stays up.
    #[serde(skip_serializing_if = "Option::is_none")]
    flapping_until: Option<String>,
    health: &'static str,
    /// Passes in a row up to the newest verdict.
    passes: u32,
    /// Failures in a row up to the newest verdict.
    failures: u32,
    /// The time when the health last changed.
    since: String,
    /// The reason of the newest verdict, unless it is a pass.
    reason: Option<String>,
    /// The time since which all verdicts are inconclusive, once that is more than a minute ago.
    #[serde(skip_serializing_if = "Option::is_none")]
    inconclusive_since: Option<String>,
    last_check: Option<String>,
    last_duration_seconds: Option<f64>,
    published: bool,
}

impl DatabaseStatus {
    fn new(database: &DatabaseSnapshot, status: Option<&PublishStatus>) -> Self {
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
            since: status.map(|status| rfc3339(status.last_transition)),
            policy: notes(database),
            split_brain: database
                .notes
                .iter()
                .any(|note| matches!(note, PolicyNote::SplitBrain { .. })),
            failback_at: database.notes.iter().find_map(|note| match note {
                PolicyNote::FailbackWaits { until, .. } => until.map(rfc3339),
                _ => None,
            }),
            planned: planned.map(ips),
            published: members.map(ips),
            targets: database
                .targets
                .iter()
                .map(|target| TargetStatus::new(target, members))
                .collect(),
            names: database.names.iter().map(NameStatus::new).collect(),
            rejected: database.refused.iter().map(RejectedStatus::new).collect(),
        }
    }
}

impl TargetStatus {
    fn new(target: &TargetState, members: Option<&plan::Members>) -> Self {
        let health: &health::Health = &target.health;
        let (passes, failures) = match health.streak() {
            Streak::None => (0, 0),
            Streak::Passes(passes) => (passes, 0),
            Streak::Failures(failures) => (0, failures),
        };
        Self {
            address: target.member.ip.to_string(),
            hostname: target.member.hostname.clone(),
            name: target.origin.name.as_deref().map(str::to_owned),
            dns: target.origin.entry.map(|_| target.origin.backing.as_str()),
            tier: target.priority,
            maintenance: target.maintenance.as_deref().map(str::to_owned),
            flapping_until: target.flapping().map(rfc3339),
            health: health.state().as_str(),
            passes,
            failures,
            since: rfc3339(health.since()),
            reason: health.reason().map(str::to_owned),
            inconclusive_since: health.inconclusive_since().map(rfc3339),
            last_check: target.last_check.map(|(at, _)| rfc3339(at)),
            last_duration_seconds: target.last_check.map(|(_, duration)| duration.as_secs_f64()),
            published: members.is_some_and(|members| members.contains(target.member.ip)),
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
