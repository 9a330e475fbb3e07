//! The page /api/v1/status: all that is known of each database, as JSON.

use std::sync::Arc;
use std::time::Instant;

use serde::Serialize;

use super::AppState;
use crate::clock;
use crate::config::{DatabaseId, RejectedAddress};
use crate::freeze::Frozen;
use crate::health::{self, Streak};
use crate::lease::{self, Role};
use crate::monitor::{DatabaseSnapshot, Snapshot, TargetState};
use crate::plan::{self, PolicyNote};
use crate::publish::{self, PublishStatus};
use crate::reload;

/// Makes the page, a database at a time: `version`, `lease`, `frozen`, `config`, `leftBehind`, and a [`DatabaseStatus`] for each
/// database.
pub(super) fn page(
    snapshot: Arc<Snapshot>,
    sources: AppState,
) -> impl Iterator<Item = String> + Send + 'static {
    let version = json(&env!("CARGO_PKG_VERSION"));
    let lease = json(&LeaseStatus::new(&sources.lease));
    let frozen = json(&snapshot.frozen.as_ref().map(FreezeStatus::new));
    let config = json(&ConfigStatus::new(&sources.config));
    let left = json(&left_behind(&sources.publish));
    let head = format!(
        "{{\"version\":{version},\"lease\":{lease},\"frozen\":{frozen},\"config\":{config},\"leftBehind\":{left},\"databases\":["
    );
    let databases = (0..snapshot.databases.len()).map(move |index| {
        let database = &snapshot.databases[index];
        let comma = if index == 0 { "" } else { "," };
        let status = DatabaseStatus::new(database, sources.publish.status(&database.id).as_ref());
        comma.to_owned() + &json(&status)
    });
    std::iter::once(head).chain(databases).chain(std::iter::once("]}".to_owned()))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

/// The config in force, and the file that it is from.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigStatus {
    file: String,
    /// When the config in force was taken.
    since: String,
    /// What is wrong with the file as it is now; while there is anything, the last good config stays in force.
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

/// Endpoints that are ours by their label, and of no database of the config.
#[derive(Serialize)]
struct LeftBehind {
    namespace: String,
    service: String,
    addresses: Vec<String>,
}

fn left_behind(publish: &publish::Handle) -> Vec<LeftBehind> {
    let leftovers = publish.orphans().into_iter();
    let left = leftovers.map(|(DatabaseId { namespace, service }, members)| {
        let addresses = ips(&members);
        LeftBehind { namespace, service, addresses }
    });
    left.collect()
}

/// Null where there is no lease.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaseStatus {
    /// NAMESPACE/NAME of the Lease.
    name: String,
    /// Who this replica is in it.
    identity: String,
    /// Whether this replica holds it, and writes.
    held: bool,
    /// Who holds it; null if nobody is known to.
    holder: Option<String>,
    /// Why it can't be had, where that is not because another holds it.
    trouble: Option<String>,
}

impl LeaseStatus {
    fn new(lease: &lease::Handle) -> Option<Self> {
        let (name, me) = lease.identity()?;
        let (holder, trouble) = match lease.role() {
            Role::Standby { holder, error: trouble } => (holder, trouble),
            _ => (Some(me.to_owned()), None),
        };
        Some(Self {
            name: name.to_string(),
            identity: me.to_owned(),
            held: lease.is_leader(),
            holder,
            trouble,
        })
    }
}

/// Null where there is no freeze.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FreezeStatus {
    since: String,
    /// When it ends at the latest.
    until: Option<String>,
    /// Of the published targets, how many fail.
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
    /// When the condition came into force.
    since: Option<String>,
    /// What the policy did to the plan, and what is wrong with the Service's annotations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policy: Vec<String>,
    split_brain: bool,
    /// When a preferred tier takes over again.
    #[serde(skip_serializing_if = "Option::is_none")]
    failback_at: Option<String>,
    /// What the cluster shall hold; null while that is undecided.
    planned: Option<Vec<String>>,
    /// What the cluster holds; null while that is unknown or not ours.
    published: Option<Vec<String>>,
    targets: Vec<TargetStatus>,
    /// Addresses of the config that may not be published, and are not checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<RefusedStatus>,
}

#[derive(Serialize)]
struct RefusedStatus {
    address: String,
    reason: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetStatus {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    /// The `priority` of the address.
    tier: u32,
    /// Why it is in maintenance, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    maintenance: Option<String>,
    /// Until when it is out for flapping, if it is and stays up.
    #[serde(skip_serializing_if = "Option::is_none")]
    flapping_until: Option<String>,
    health: &'static str,
    /// Passes or failures in a row, whichever the newest verdict was.
    passes: u32,
    failures: u32,
    /// When the target came into its health.
    since: String,
    /// Why the newest verdict was not a pass.
    reason: Option<String>,
    /// Since when all verdicts have been inconclusive, once that is for more than a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    inconclusive_since: Option<String>,
    last_check: Option<String>,
    last_duration_seconds: Option<f64>,
    published: bool,
}

impl DatabaseStatus {
    fn new(database: &DatabaseSnapshot, publication: Option<&PublishStatus>) -> Self {
        let members = publication.and_then(|publication| publication.members.as_ref());
        let planned = match &database.plan {
            plan::Plan::Publish(members) => Some(members),
            plan::Plan::Keep(_) => None,
        };
        Self {
            namespace: database.id.namespace.clone(),
            service: database.id.service.clone(),
            condition: publication.map(|publication| publication.condition.kind.to_string()),
            reason: publication.map(|publication| publication.condition.reason.clone()),
            since: publication.map(|publication| rfc3339(publication.last_transition)),
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
            refused: database.refused.iter().map(RefusedStatus::new).collect(),
        }
    }
}

impl RefusedStatus {
    fn new(refused: &RejectedAddress) -> Self {
        Self { address: refused.ip.to_string(), reason: refused.reason.clone() }
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
            tier: target.priority,
            maintenance: target.maintenance.as_deref().map(str::to_owned),
            flapping_until: target.flapping().map(rfc3339),
            health: health.state().as_str(),
            passes,
            failures,
            since: rfc3339(health.since()),
            reason: health.reason().map(str::to_owned),
            inconclusive_since: health.inconclusive_since().map(rfc3339),
            last_check: target.last.map(|(at, _)| rfc3339(at)),
            last_duration_seconds: target.last.map(|(_, duration)| duration.as_secs_f64()),
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

/// A moment in the past, or one to come.
fn rfc3339(moment: Instant) -> String {
    clock::rfc3339_millis(clock::to_wall_clock(moment))
}
