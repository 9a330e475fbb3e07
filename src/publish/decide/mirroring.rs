//! Warnings about EndpointSlices of other managers, which kube-proxy reads beside the daemon's:
//! clients may be sent elsewhere although the cluster matches the plan. Pure.

use std::net::IpAddr;
use std::time::Duration;

use k8s_openapi::api::core::v1::Endpoints;

use super::inputs::Inputs;
use crate::config::{Database, PublishMode};
use crate::endpoints::slices::{Digest, SliceManager};
use crate::endpoints::{self, SKIP_MIRROR};
use crate::publish::cache::orphans::ObjectKind;
use crate::publish::cache::slices::SliceCache;
use crate::publish::condition::{Condition, ConditionKind};

/// A condition that comes into force if its cause is still there after a delay: Kubernetes needs
/// time to react to a write.
#[derive(Debug)]
pub(crate) struct DelayedWarning {
    pub condition: Condition,
    pub delay: Duration,
}

/// The delay for mirroring. It takes milliseconds, and seconds when Kubernetes' controllers move to
/// another node.
const MIRROR_DELAY: Duration = Duration::from_secs(20);

/// The delay for slices of Pods. When a Service gains a selector, they may be seen before it.
const SELECTOR_DELAY: Duration = Duration::from_secs(5);

/// Returns the warning for a database whose clients may be sent elsewhere.
pub(crate) fn delayed_warning(inputs: &Inputs) -> Option<DelayedWarning> {
    let (database, slices) = (&inputs.database, &inputs.existing.slices);
    let watch = inputs.existing.watch(ObjectKind::Slice);
    if !watch.synced || watch.error.is_some() {
        return None;
    }
    if slices.serving_digest(SliceManager::SliceController).count > 0 {
        let condition = Condition::new(ConditionKind::SlicesLeftBehind, left_behind(database));
        return Some(DelayedWarning { condition, delay: SELECTOR_DELAY });
    }
    if is_mirrored(database, inputs.endpoints(), slices) {
        return None;
    }
    let reason = not_mirrored(database, inputs.endpoints());
    let condition = Condition::new(ConditionKind::NotMirrored, reason);
    Some(DelayedWarning { condition, delay: MIRROR_DELAY })
}

/// Returns whether Kubernetes has mirrored from the Endpoints all that it should, and nothing else.
pub(crate) fn is_mirrored(
    database: &Database,
    endpoints: Option<&Endpoints>,
    slices: &SliceCache,
) -> bool {
    let desired: Digest = match (database.publish, endpoints) {
        (PublishMode::Endpoints, Some(endpoints)) => ips(endpoints).into_iter().collect(),
        _ => Digest::default(),
    };
    slices.serving_digest(SliceManager::MirroringController) == desired
}

fn ips(endpoints: &Endpoints) -> Vec<IpAddr> {
    endpoints::members(endpoints).iter().map(|member| member.ip).collect()
}

/// Returns the reason why a database with `exactlyOne` waits for Kubernetes.
pub(crate) fn waiting_for_mirror(database: &Database) -> String {
    let id = &database.id;
    format!(
        "exactly one is to be published, and Kubernetes has yet to mirror the change of Endpoints \
         {id}, so that until then clients are sent to the one before; see that \
         kube-controller-manager runs endpointslice-mirroring-controller"
    )
}

fn not_mirrored(database: &Database, endpoints: Option<&Endpoints>) -> String {
    let id = &database.id;
    if database.publish != PublishMode::Endpoints {
        return format!(
            "EndpointSlices that Kubernetes has mirrored from Endpoints {id} are still there, so \
             that clients are sent to their addresses too; see that kube-controller-manager runs \
             endpointslice-mirroring-controller, or delete them"
        );
    }
    if endpoints.is_some_and(endpoints::skips_mirror) {
        return format!(
            "Endpoints {id} carry the label {SKIP_MIRROR}, so that Kubernetes does not mirror them \
             into EndpointSlices, which clients are sent by; take it away, or set `publish: \
             slices`"
        );
    }
    format!(
        "Kubernetes has not mirrored Endpoints {id} into EndpointSlices, which clients are sent \
         by; see that kube-controller-manager runs endpointslice-mirroring-controller, or set \
         `publish: slices`"
    )
}

/// Returns the reason why a Service without a selector has slices of Pods, and how to delete them.
pub(crate) fn left_behind(database: &Database) -> String {
    let id = &database.id;
    format!(
        "Service {id} has no selector, but EndpointSlices from when it had one are left, so that \
         clients are sent to those Pods too; delete them: kubectl -n {} delete endpointslices -l \
         kubernetes.io/service-name={},\
         endpointslice.kubernetes.io/managed-by=endpointslice-controller.k8s.io",
        id.namespace, id.service
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;
    use crate::publish::cache::object::Store;
    use crate::publish::decide::next_step::tests::{database, inputs, ours, publish};

    const MIRROR: &str = "endpointslicemirroring-controller.k8s.io";
    const PODS: &str = "endpointslice-controller.k8s.io";

    /// Returns the slices of another manager.
    fn slices(manager: &str, ips: &[&str]) -> Arc<SliceCache> {
        let labels = json!({
            "kubernetes.io/service-name": "mysql",
            "endpointslice.kubernetes.io/managed-by": manager,
        });
        let endpoints: Vec<_> = ips.iter().map(|ip| json!({"addresses": [ip]})).collect();
        let slice = json!({
            "metadata": {"name": "mysql-x7k2p", "labels": labels},
            "addressType": "IPv4",
            "endpoints": endpoints,
        });
        let mut slices = Arc::new(SliceCache::default());
        slices.init_apply(serde_json::from_value(slice).expect("a slice"), 1);
        slices
    }

    fn warning(
        database: &Database,
        endpoints: Option<&Endpoints>,
        slices: Arc<SliceCache>,
    ) -> Option<DelayedWarning> {
        delayed_warning(&inputs(database, &publish(&[1]), endpoints, slices, &[]))
    }

    #[test]
    fn the_truth_table() {
        let held = ours(&[1]);
        let mut skipped = held.clone();
        skipped.metadata.labels.as_mut().expect("labels").insert(SKIP_MIRROR.into(), "true".into());
        let (one, none) = (&["198.51.100.1"][..], &[][..]);
        let late = |words| Some((ConditionKind::NotMirrored, MIRROR_DELAY, words));
        let left = Some((
            ConditionKind::SlicesLeftBehind,
            SELECTOR_DELAY,
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
            let found = warning(&database, endpoints, slices(manager, ips));
            let (kind, after, words) = match (&found, expected) {
                (Some(_), Some(expected)) => expected,
                (None, None) => continue,
                _ => panic!("{publish:?} {manager} {ips:?}: {found:?}"),
            };
            let DelayedWarning { condition, delay: found } = found.expect("a warning");
            assert_eq!((condition.kind, found), (kind, after));
            assert!(condition.reason.contains(words), "{}", condition.reason);
        }
    }

    #[test]
    fn slices_that_are_not_known_give_no_warning() {
        let existing = ours(&[1]);
        let slices = slices(PODS, &["198.51.100.9"]);
        let mut inputs = inputs(&database(false), &publish(&[1]), Some(&existing), slices, &[]);
        let watch = ObjectKind::Slice as usize;
        inputs.existing.watches[watch].synced = false;
        assert!(delayed_warning(&inputs).is_none());
        inputs.existing.watches[watch].synced = true;
        assert!(delayed_warning(&inputs).is_some());
        let error = Condition::new(ConditionKind::Forbidden, "no right to list");
        inputs.existing.watches[watch].error = Some(error);
        assert!(delayed_warning(&inputs).is_none());
    }

    #[test]
    fn waiting_for_the_mirror_says_which_controller_must_run() {
        let reason = waiting_for_mirror(&database(false));
        assert!(
            reason.contains("Endpoints prod/mysql")
                && reason.contains("endpointslice-mirroring-controller"),
            "{reason}"
        );
    }
}
