//! Findings about the daemon and its databases, from its status. Pure.

use super::finding::Finding;
use crate::publish::ConditionKind;
use crate::status::{DaemonStatus, DatabaseStatus, ReplicaRole};

/// The most objects that one finding names.
const MAX_NAMED: usize = 5;

/// Returns the findings. `ready_replicas` is the number of Pods that are ready, if it is known.
pub(super) fn findings(status: &DaemonStatus, ready_replicas: Option<usize>) -> Vec<Finding> {
    let replica = &status.replica;
    let mut findings = vec![Finding::good("daemon-answers", "the daemon answers")];
    let own = env!("CARGO_PKG_VERSION");
    findings.push(match replica.version == own {
        true => Finding::good("daemon-version", format!("its version is {own}, as this one")),
        false => Finding::warning(
            "daemon-version",
            format!("its version is {}, and this one is {own}", replica.version),
            "use the same version, so that this command knows all that the daemon says",
        ),
    });
    findings.extend(ready_replicas.map(replicas));
    findings.push(leader(status));
    findings.push(match &replica.config.problems[..] {
        [] => Finding::good("daemon-config", "the config in force is that of the file"),
        [first, ..] => Finding::bad(
            "daemon-config",
            format!("the file is bad, so an older config is in force: {first}"),
            "correct the file; the daemon loads it by itself",
        ),
    });
    if let Some(frozen) = &replica.frozen {
        let (failed, published) = (frozen.failed, frozen.published);
        findings.push(Finding::warning(
            "daemon-freeze",
            format!("removals are frozen: {failed} of {published} addresses fail together"),
            "find out if the databases or the daemon's own network are at fault",
        ));
    }
    findings.extend(databases(&status.databases));
    findings.extend(reach(&status.databases));
    findings
}

fn replicas(ready: usize) -> Finding {
    match ready {
        0 => Finding::bad(
            "daemon-replicas",
            "no replica is ready",
            "look at the Pods: kubectl get pods -l app.kubernetes.io/name=external-endpoints",
        ),
        1 => Finding::warning(
            "daemon-replicas",
            "1 replica is ready",
            "run two, so that another one takes over within 15 s when a node dies",
        ),
        ready => Finding::good("daemon-replicas", format!("{ready} replicas are ready")),
    }
}

fn leader(status: &DaemonStatus) -> Finding {
    let replica = &status.replica;
    if replica.role == ReplicaRole::Alone {
        let hint = "make sure that it is the only replica";
        return Finding::warning("daemon-leader", "it writes without a Lease", hint);
    }
    match replica.lease.as_ref().and_then(|lease| lease.holder.as_ref()) {
        Some(holder) => Finding::good("daemon-leader", format!("{holder} leads")),
        None => {
            let trouble = replica.lease.as_ref().and_then(|lease| lease.trouble.clone());
            let trouble = trouble.unwrap_or_else(|| "nobody holds the Lease".to_owned());
            let hint = "nothing is written until a replica holds the Lease";
            Finding::bad("daemon-leader", trouble, hint)
        }
    }
}

/// Returns a finding for each database in trouble, or one for all.
fn databases(databases: &[DatabaseStatus]) -> Vec<Finding> {
    let is_trouble = |database: &&DatabaseStatus| {
        let condition = database.condition.as_deref().unwrap_or_default();
        ConditionKind::ALL
            .into_iter()
            .any(|kind| kind.is_trouble() && kind.to_string() == condition)
    };
    let in_trouble: Vec<&DatabaseStatus> = databases.iter().filter(is_trouble).collect();
    if in_trouble.is_empty() {
        let text = format!("none of {} databases is in trouble", databases.len());
        return vec![Finding::good("daemon-databases", text)];
    }
    let finding = |database: &&DatabaseStatus| {
        let DatabaseStatus { namespace, service, condition, reason, .. } = database;
        let condition = condition.as_deref().unwrap_or_default();
        let reason = reason.as_deref().unwrap_or_default();
        let text = format!("{namespace}/{service} {condition}: {reason}");
        let section = condition.to_lowercase();
        Finding::bad("daemon-databases", text, format!("see troubleshooting.md#{section}"))
    };
    in_trouble.iter().map(finding).collect()
}

/// Returns whether the addresses answer the daemon's Pods: a check that fails later than at its
/// connection has reached the database.
fn reach(databases: &[DatabaseStatus]) -> Option<Finding> {
    let targets: Vec<_> = databases
        .iter()
        .flat_map(|database| database.targets.iter().map(move |target| (database, target)))
        .filter(|(_, target)| target.last_check.is_some())
        .collect();
    let total = targets.len();
    let unreached: Vec<String> = targets
        .iter()
        .filter(|(_, target)| {
            target.reason.as_deref().is_some_and(|reason| reason.starts_with("connect"))
        })
        .map(|(database, target)| format!("{} of {}", target.address, database.service))
        .collect();
    let reached = total - unreached.len();
    let text = format!("from the Pods, {reached} of {total} addresses can be connected to");
    match (total, unreached.len()) {
        (0, _) => None,
        (_, 0) => Some(Finding::good("network-reach", text)),
        (_, count) => {
            let named = unreached.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
            let more = match count.saturating_sub(MAX_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            let hint = format!("look at firewalls, NetworkPolicies and the hosts: {named}{more}");
            Some(Finding::warning("network-reach", text, hint))
        }
    }
}

#[cfg(test)]
mod tests;
