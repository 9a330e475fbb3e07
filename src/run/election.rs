//! The daemon's part in the election of the replica that writes.

use std::future::ready;

use anyhow::Context as _;
use futures::FutureExt as _;

use crate::lease::{self, Callbacks, Candidate, ElectionTask};
use crate::publish::Cluster;
use crate::{monitor, publish};

/// Returns the lease of this run, and the candidate for it unless this replica writes alone or not
/// at all.
pub(super) fn candidate(
    name: Option<lease::Name>,
    cluster: &Cluster,
) -> anyhow::Result<(lease::Handle, Option<Candidate>)> {
    Ok(match (cluster, name) {
        (Cluster::Write(client), Some(name)) => {
            let (lease, candidate) = lease::candidate(client.clone(), name)
                .context("can't find an identity for this replica")?;
            (lease, Some(candidate))
        }
        (Cluster::Write(_), None) => (lease::Handle::alone(), None),
        (Cluster::Read(_) | Cluster::None, _) => (lease::Handle::dry_run(), None),
    })
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
