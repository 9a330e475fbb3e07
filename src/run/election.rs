//! The daemon's part in the election of the replica that writes.

use std::future::ready;

use anyhow::Context as _;
use futures::FutureExt as _;

use crate::api::{ClientRole, UserAgent};
use crate::lease::{self, Callbacks, Candidate, ElectionTask, Role};
use crate::publish::Cluster;
use crate::{monitor, publish};

/// Returns the lease of this run, and the candidate for it unless this replica writes alone or not
/// at all. The `User-Agent` of the cluster's client follows the role in it.
pub(super) fn candidate(
    name: Option<lease::Name>,
    cluster: &Cluster,
    agent: &UserAgent,
) -> anyhow::Result<(lease::Handle, Option<Candidate>)> {
    let (lease, candidate) = match (cluster, name) {
        (Cluster::Write(client), Some(name)) => {
            let (lease, candidate) = lease::candidate(client.clone(), name)
                .context("can't find an identity for this replica")?;
            (lease, Some(candidate))
        }
        (Cluster::Write(_), None) => (lease::Handle::alone(), None),
        (Cluster::Read(_) | Cluster::None, _) => (lease::Handle::dry_run(), None),
    };
    let role = lease.clone();
    agent.follow(move || match role.role() {
        Role::DryRun => ClientRole::DryRun,
        _ if role.is_leader() => ClientRole::Leader,
        _ => ClientRole::Standby,
    });
    Ok((lease, candidate))
}

/// Starts to compete for the lease.
pub(super) fn start(
    candidate: Candidate,
    cluster: &Cluster,
    monitor: &monitor::Handle,
    publish: &publish::Handle,
) -> ElectionTask {
    let (monitor, publish, cluster) = (monitor.clone(), publish.clone(), cluster.clone());
    candidate.start(Callbacks {
        checks: Box::new(move || monitor.check_facts()),
        installation: Box::new(move || match &cluster {
            Cluster::Write(client) => publish.installation(client),
            Cluster::Read(_) | Cluster::None => {
                ready(Err("there is no cluster to write to".to_owned())).boxed()
            }
        }),
    })
}
