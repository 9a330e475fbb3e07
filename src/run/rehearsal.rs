//! A rehearsal: checks for real and decides as the daemon would, until every database is decided,
//! and writes nothing.

use std::time::Duration;

use kube::Client;

use super::start_checks;
use crate::config::Spec;
use crate::health::State;
use crate::lease;
use crate::limits::Limits;
use crate::monitor::Snapshot;
use crate::notice::Recorder;
use crate::publish::{self, Cluster, ConditionKind};
use crate::status::{DatabaseStatus, TargetStatus};
use crate::{clock, freeze, resolve};

/// The time between two looks at the state.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// The number of looks in a row at a decided state. The decision reaches publishing a moment after
/// the check.
const SETTLED_POLLS: u32 = 6;

/// The outcome of a rehearsal.
pub(crate) struct Rehearsal {
    pub databases: Vec<DatabaseStatus>,
    /// False if the time was over before all databases were decided.
    pub is_settled: bool,
}

/// Rehearses a config beside the cluster, for as long as `limit` at most. No freeze holds anything
/// back, so that every difference is seen.
pub(crate) async fn rehearse(
    spec: &Spec,
    client: Client,
    limits: Limits,
    dns: resolve::Settings,
    limit: Duration,
) -> anyhow::Result<Rehearsal> {
    let recorder = Recorder::default();
    let rules = freeze::Rules { max_unhealthy: 100, ..freeze::Rules::default() };
    let (monitor, checks, _resolver) = start_checks(spec, (limits, rules), dns, &recorder)?;
    let lease = lease::Handle::dry_run();
    let options = publish::Options::default();
    let cluster = Cluster::Read(client);
    let (publish, publishing) = publish::start(spec, &cluster, &monitor, &lease, &options);
    let started = clock::now();
    let mut settled_polls = 0;
    let mut databases = Vec::new();
    while settled_polls < SETTLED_POLLS && clock::now().saturating_duration_since(started) < limit {
        tokio::time::sleep(POLL_INTERVAL).await;
        let Some(snapshot) = monitor.snapshot().await else { break };
        let asked = snapshot.databases.iter().flat_map(|database| &database.names);
        let all_asked = asked.into_iter().all(|name| name.result.is_some());
        databases = statuses(&snapshot, &publish);
        let is_settled = all_asked && databases.iter().all(is_decided);
        settled_polls = if is_settled { settled_polls + 1 } else { 0 };
    }
    publishing.shutdown().await;
    checks.shutdown().await;
    Ok(Rehearsal { databases, is_settled: settled_polls >= SETTLED_POLLS })
}

fn statuses(snapshot: &Snapshot, publish: &publish::Handle) -> Vec<DatabaseStatus> {
    let status = |database| DatabaseStatus::new(database, publish.status(&database.id).as_ref());
    snapshot.databases.iter().map(status).collect()
}

/// Returns whether more checks would say nothing new.
fn is_decided(database: &DatabaseStatus) -> bool {
    let waits = ConditionKind::WaitingForCluster.to_string();
    database.condition.as_ref().is_some_and(|condition| *condition != waits)
        && database.targets.iter().all(is_target_decided)
}

/// Returns whether a target has been tried, and is not on the way to another state.
fn is_target_decided(target: &TargetStatus) -> bool {
    target.last_check.is_some()
        && match target.health {
            State::Up => target.failures == 0,
            State::Down => target.passes == 0,
            State::Unknown => true,
        }
}
