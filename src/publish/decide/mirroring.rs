//! What may be wrong although the cluster holds what was decided: others' EndpointSlices, which kube-proxy reads beside ours. Pure.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Endpoints;

use crate::config::{Database, PublishMode};
use crate::endpoints::slices::{Digest, SliceManager};
use crate::endpoints::{self, SKIP_MIRROR};
use crate::publish::cache::slices::SliceCache;
use crate::publish::condition::{Condition, ConditionKind};

/// What is wrong if it is still so after a time: Kubernetes needs a moment to follow what is written.
#[derive(Debug)]
pub(crate) struct DelayedWarning {
    pub condition: Condition,
    pub after: Duration,
}

/// Kubernetes mirrors within milliseconds, and within seconds when its controllers move to another node.
const MIRRORED_WITHIN: Duration = Duration::from_secs(20);

/// Of a Service that gains a selector the slices may be seen first.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// Doubts that what the cluster holds is what clients get.
pub(crate) fn doubt(
    database: &Database,
    endpoints: Option<&Endpoints>,
    slices: &SliceCache,
) -> Option<DelayedWarning> {
    if !slices.synced || slices.fault.is_some() {
        return None;
    }
    if slices.ready(SliceManager::SliceController).count > 0 {
        let condition = Condition::new(ConditionKind::SlicesLeftBehind, left_behind(database));
        return Some(DelayedWarning { condition, after: SEEN_WITHIN });
    }
    if is_mirrored(database, endpoints, slices) {
        return None;
    }
    let condition = Condition::new(ConditionKind::NotMirrored, not_mirrored(database, endpoints));
    Some(DelayedWarning { condition, after: MIRRORED_WITHIN })
}

/// Whether Kubernetes has mirrored from the Endpoints what it should: all of it, or nothing.
pub(crate) fn is_mirrored(
    database: &Database,
    endpoints: Option<&Endpoints>,
    slices: &SliceCache,
) -> bool {
    let wanted: Digest = match (database.publish, endpoints) {
        (PublishMode::Endpoints, Some(endpoints)) => ips(endpoints).collect(),
        _ => Digest::default(),
    };
    slices.ready(SliceManager::MirroringController) == wanted
}

fn ips(endpoints: &Endpoints) -> impl Iterator<Item = IpAddr> {
    endpoints::members(endpoints).iter().map(|member| member.ip).collect::<Vec<_>>().into_iter()
}

/// Why a database of which exactly one is published waits for Kubernetes.
pub(crate) fn waits(database: &Database) -> String {
    let id = &database.id;
    format!(
        "exactly one is to be published, and Kubernetes has yet to mirror the change of Endpoints {id}, so that until then clients are \
         sent to the one before; see that kube-controller-manager runs endpointslice-mirroring-controller"
    )
}

fn not_mirrored(database: &Database, endpoints: Option<&Endpoints>) -> String {
    let id = &database.id;
    if database.publish != PublishMode::Endpoints {
        return format!(
            "EndpointSlices that Kubernetes has mirrored from Endpoints {id} are still there, so that clients are sent to their \
             addresses too; see that kube-controller-manager runs endpointslice-mirroring-controller, or delete them"
        );
    }
    if endpoints.is_some_and(endpoints::skips_mirror) {
        return format!(
            "Endpoints {id} carry the label {SKIP_MIRROR}, so that Kubernetes does not mirror them into EndpointSlices, which \
             clients are sent by; take it away, or set `publish: slices`"
        );
    }
    format!(
        "Kubernetes has not mirrored Endpoints {id} into EndpointSlices, which clients are sent by; see that \
         kube-controller-manager runs endpointslice-mirroring-controller, or set `publish: slices`"
    )
}

/// Why there may be slices of Pods for a Service without a selector, and how to be rid of them.
pub(crate) fn left_behind(database: &Database) -> String {
    let id = &database.id;
    format!(
        "Service {id} has no selector, but EndpointSlices from when it had one are left, so that clients are sent to those Pods \
         too; delete them: kubectl -n {} delete endpointslices -l kubernetes.io/service-name={},endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io",
        id.namespace, id.service
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::publish::cache::reflector::Store;
    use crate::publish::decide::next_step::tests::{database, ours};

    const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
    const PODS: &str = "endpointslice-controller.k8s.io";

    /// The slices of another manager.
    fn slices(manager: &str, ips: &[&str]) -> Arc<SliceCache> {
        let mut slices = Arc::new(SliceCache::default());
        slices.init();
        let labels = json!({
            "kubernetes.io/service-name": "mysql", "endpointslice.kubernetes.io/managed-by": manager,
        });
        let endpoints: Vec<_> = ips.iter().map(|ip| json!({"addresses": [ip]})).collect();
        let slice = json!({
            "metadata": {"name": "mysql-x7k2p", "labels": labels}, "addressType": "IPv4", "endpoints": endpoints,
        });
        slices.init_apply(serde_json::from_value(slice).expect("a slice"));
        slices.init_done();
        slices
    }

    #[test]
    fn the_truth_table() {
        let held = ours(&[1]);
        let mut skipped = held.clone();
        skipped.metadata.labels.as_mut().expect("labels").insert(SKIP_MIRROR.into(), "true".into());
        let (one, none) = (&["198.51.100.1"][..], &[][..]);
        let late = |words| Some((ConditionKind::NotMirrored, MIRRORED_WITHIN, words));
        let left = Some((
            ConditionKind::SlicesLeftBehind,
            SEEN_WITHIN,
            "kubectl -n prod delete endpointslices",
        ));
        let table = [
            (PublishMode::Endpoints, Some(&held), MIRROR, one, None),
            (
                PublishMode::Endpoints,
                Some(&held),
                MIRROR,
                none,
                late("has not mirrored Endpoints prod/mysql"),
            ),
            (
                PublishMode::Endpoints,
                Some(&skipped),
                MIRROR,
                none,
                late("Endpoints prod/mysql carry the label"),
            ),
            (PublishMode::Endpoints, Some(&held), PODS, one, left),
            (PublishMode::Slices, None, MIRROR, none, None),
            (
                PublishMode::Both,
                Some(&skipped),
                MIRROR,
                one,
                late("mirrored from Endpoints prod/mysql are still there"),
            ),
        ];
        for (publish, endpoints, manager, ips, expected) in table {
            let database = Database { publish, ..database(false) };
            let found = doubt(&database, endpoints, &slices(manager, ips));
            let (kind, after, words) = match (&found, expected) {
                (Some(_), Some(expected)) => expected,
                (None, None) => continue,
                _ => panic!("{publish:?} {manager} {ips:?}: {found:?}"),
            };
            let DelayedWarning { condition, after: found } = found.expect("a doubt");
            assert_eq!((condition.kind, found), (kind, after));
            assert!(condition.reason.contains(words), "{}", condition.reason);
        }
    }

    #[test]
    fn slices_that_are_not_known_are_not_doubted() {
        let held = ours(&[1]);
        assert!(doubt(&database(false), Some(&held), &SliceCache::default()).is_none());
        let mut slices = slices(PODS, &["198.51.100.9"]);
        assert!(doubt(&database(false), Some(&held), &slices).is_some());
        slices.fault().replace(Condition::new(ConditionKind::Forbidden, "no right to list"));
        assert!(doubt(&database(false), Some(&held), &slices).is_none());
    }

    #[test]
    fn who_waits_for_the_mirror_is_told_what_to_look_at() {
        let words = waits(&database(false));
        assert!(
            words.contains("Endpoints prod/mysql")
                && words.contains("endpointslice-mirroring-controller"),
            "{words}"
        );
    }
}
