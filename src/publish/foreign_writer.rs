//! The writer of an outside change, from the managed fields of an object, and the way to stop it.
//! Pure.

use std::time::{Duration, Instant};

use kube::core::ObjectMeta;

use crate::endpoints::FIELD_MANAGER;

/// The number of repairs in a row of changes by the same writer after which a person has to know.
const MIN_REPORTED_REPAIRS: u32 = 3;

/// The time without a repair after which the count begins again. GitOps tools apply once an hour or
/// more often.
const REPAIR_WINDOW: Duration = Duration::from_secs(3 * 3600);

/// Returns the field manager of the newest change that is not the daemon's. Returns none if the
/// daemon has written later: then the change took the object away, and nothing names its writer.
///
/// Managed fields have times in whole seconds, so that a change in the second of the daemon's write
/// counts.
pub(crate) fn last_writer(metadata: &ObjectMeta) -> Option<&str> {
    let entries = metadata.managed_fields.iter().flatten();
    let is_ours = |manager: &str| manager.starts_with(FIELD_MANAGER);
    let timed = entries.filter_map(|entry| {
        let manager = entry.manager.as_deref().filter(|manager| !manager.is_empty())?;
        Some((entry.time.as_ref().map(|time| time.0), manager))
    });
    let (ours, foreign): (Vec<_>, Vec<_>) = timed.partition(|(_, manager)| is_ours(manager));
    let newest = foreign.into_iter().max_by_key(|(time, _)| *time)?;
    let ours = ours.into_iter().map(|(time, _)| time).max().flatten();
    (newest.0 >= ours).then_some(newest.1)
}

/// Returns the tool behind a field manager, with the step that stops it.
fn advice(manager: &str) -> String {
    let take_out = |tool: &str| {
        format!("{tool} (field manager {manager}); take these Endpoints out of what it applies")
    };
    match manager {
        "kustomize-controller" | "helm-controller" => take_out("Flux"),
        "argocd-controller" | "argocd-application-controller" => take_out("Argo CD"),
        "helm" => take_out("Helm"),
        "kube-controller-manager" => format!(
            "Kubernetes itself (field manager {manager}); remove spec.selector from the Service"
        ),
        _ if manager.starts_with("kubectl") => {
            format!("kubectl (field manager {manager}); stop the script or the person that runs it")
        }
        _ => format!("field manager {manager}; stop it, or make it leave these Endpoints alone"),
    }
}

/// The repairs in a row of changes by the same writer.
#[derive(Debug, Default)]
pub(crate) struct Repairs {
    writer: Option<String>,
    count: u32,
    last: Option<Instant>,
}

impl Repairs {
    /// Counts a repair of a change by this writer. Returns the text that a person has to read, once
    /// for each writer.
    pub(crate) fn record(&mut self, writer: Option<&str>, now: Instant) -> Option<String> {
        let old = self.last.is_some_and(|last| now - last > REPAIR_WINDOW);
        if self.writer.as_deref() != writer || old {
            *self = Self { writer: writer.map(str::to_owned), count: 0, last: None };
        }
        self.last = Some(now);
        self.count = self.count.saturating_add(1);
        if self.count != MIN_REPORTED_REPAIRS {
            return None;
        }
        let writer = match writer {
            Some(manager) => advice(manager),
            None => "a writer that leaves no name, or deletes; the audit log of the API server \
                     names it"
                .to_owned(),
        };
        Some(writer)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::clock;

    fn writer(entries: &Value) -> Option<String> {
        let metadata: ObjectMeta =
            serde_json::from_value(json!({"managedFields": entries})).expect("metadata");
        last_writer(&metadata).map(str::to_owned)
    }

    fn entry(manager: &str, second: u32) -> Value {
        let time = format!("2026-11-28T10:00:{second:02}Z");
        json!({"manager": manager, "operation": "Update", "time": time})
    }

    #[test]
    fn the_writer_is_the_newest_that_is_not_the_daemon() {
        let ours = || entry("external-endpoints", 10);
        let table = [
            (json!([ours(), entry("kubectl-edit", 11)]), Some("kubectl-edit")),
            (
                json!([ours(), entry("helm", 10), entry("kustomize-controller", 12)]),
                Some("kustomize-controller"),
            ),
            (json!([ours(), entry("argocd-controller", 10)]), Some("argocd-controller")),
            // It wrote once, and someone else has deleted the object since.
            (json!([ours(), entry("kubectl-create", 9)]), None),
            (json!([ours(), entry("external-endpoints-create", 12)]), None),
            (json!([ours(), {"operation": "Update", "time": "2026-11-28T10:00:11Z"}]), None),
            (json!([{"manager": "curl", "operation": "Update"}]), Some("curl")),
            (json!([]), None),
        ];
        for (entries, expected) in table {
            assert_eq!(writer(&entries).as_deref(), expected, "{entries}");
        }
    }

    #[test]
    fn the_third_repair_in_a_row_says_once_what_to_stop() {
        let mut repairs = Repairs::default();
        let now = clock::now();
        let mut said = |writer| repairs.record(writer, now);
        assert_eq!(said(Some("kubectl-edit")), None);
        for _ in 0..2 {
            assert_eq!(said(Some("kustomize-controller")), None);
        }
        let text = said(Some("kustomize-controller")).expect("a text");
        assert!(text.starts_with("Flux (field manager kustomize-controller); take"), "{text}");
        assert_eq!(said(Some("kustomize-controller")), None, "once");
        assert_eq!((said(None), said(None)), (None, None));
        assert!(said(None).expect("a text").contains("audit log"));
        for hour in 2..8 {
            let at = now + Duration::from_secs(3600) * hour;
            assert_eq!(repairs.record(None, at), None, "said once");
        }
        let later = now + REPAIR_WINDOW * 4;
        let said: Vec<bool> = (0..3).map(|_| repairs.record(None, later).is_some()).collect();
        assert_eq!(said, [false, false, true]);
    }

    #[test]
    fn each_known_tool_has_its_name() {
        for (manager, tool) in [
            ("argocd-controller", "Argo CD"),
            ("helm", "Helm"),
            ("kubectl-client-side-apply", "kubectl"),
            ("kube-controller-manager", "Kubernetes"),
            ("python-requests", "field manager python-requests"),
        ] {
            assert!(advice(manager).starts_with(tool), "{manager}");
        }
    }
}
