//! What went wrong with an API call, as a condition in words that say what to do.

use std::time::Duration;

use crate::api::error_message;
use crate::publish::condition::{Condition, ConditionKind};

/// The condition that a failed call puts a database in. `name` is the object's, where the call was for one.
pub(crate) fn of(
    error: &kube::Error,
    verb: &str,
    plural: &str,
    namespace: &str,
    name: Option<&str>,
) -> Condition {
    let kube::Error::Api(status) = error else {
        return Condition::new(
            ConditionKind::ApiUnavailable,
            format!("{verb} {plural} in {namespace}: {}", error_message(error)),
        );
    };
    let said = if status.message.is_empty() { &status.reason } else { &status.message };
    match status.code {
        403 if said.contains("being terminated") => Condition::new(
            ConditionKind::WaitingForService,
            format!("namespace {namespace} is being deleted"),
        ),
        404 if said.starts_with("namespaces ") => {
            let why =
                format!("there is no namespace {namespace}; create it, and the Service in it");
            Condition::new(ConditionKind::WaitingForService, why)
        }
        403 => {
            Condition::new(ConditionKind::Forbidden, forbidden(verb, plural, namespace, name, said))
        }
        400 | 422 => Condition::new(
            ConditionKind::Rejected,
            format!("the API refuses to {verb} {plural} in {namespace}: {said}"),
        ),
        401 => Condition::new(
            ConditionKind::ApiUnavailable,
            format!(
                "{verb} {plural} in {namespace}: the API does not accept our credentials, those of the ServiceAccount or the kubeconfig: {said}"
            ),
        ),
        code => Condition::new(
            ConditionKind::ApiUnavailable,
            format!("{verb} {plural} in {namespace}: the API answered {code}: {said}"),
        ),
    }
}

/// Names what is not allowed, and the Role that would allow it.
fn forbidden(verb: &str, plural: &str, namespace: &str, name: Option<&str>, said: &str) -> String {
    let group = if plural == "endpointslices" { "discovery.k8s.io" } else { "" };
    let rule = match (name, plural, verb) {
        // Of these the right can't be limited by a name.
        (_, _, "create") => format!("resources: [{plural}], verbs: [create]"),
        (Some(name), "endpoints" | "services", "delete") => {
            format!("resources: [{plural}], resourceNames: [{name}], verbs: [delete]")
        }
        (Some(name), "endpoints", _) => {
            format!("resources: [{plural}], resourceNames: [{name}], verbs: [get, create, patch]")
        }
        (Some(name), "endpointslices", _) => {
            format!(
                "resources: [{plural}], resourceNames: [{name}], verbs: [get, create, patch, delete]"
            )
        }
        _ => format!("resources: [{plural}], verbs: [get, list, watch]"),
    };
    let object = name.map(|name| format!(" {name}")).unwrap_or_default();
    format!(
        "may not {verb} {plural}{object} in namespace {namespace}; allow it there with a Role whose rules have \
         {{apiGroups: [\"{group}\"], {rule}}}, bound to this daemon's ServiceAccount (the API says: {said})"
    )
}

/// The longest that we let the API tell us to wait: a dead address is published meanwhile.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How long the API asks to be left alone; zero if it does not say.
pub(crate) fn retry_after(error: &kube::Error) -> Duration {
    let seconds = match error {
        kube::Error::Api(status) => {
            status.details.as_ref().map_or(0, |details| details.retry_after_seconds)
        }
        _ => 0,
    };
    Duration::from_secs(seconds.into()).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Status::failure(message, "Reason").with_code(code).boxed())
    }

    #[test]
    fn forbidden_names_verb_resource_namespace_and_role() {
        let condition = of(&api(403, "no way"), "patch", "endpoints", "prod", Some("mysql"));
        assert_eq!(condition.kind, ConditionKind::Forbidden);
        assert_eq!(
            condition.reason,
            "may not patch endpoints mysql in namespace prod; allow it there with a Role whose rules have \
             {apiGroups: [\"\"], resources: [endpoints], resourceNames: [mysql], verbs: [get, create, patch]}, \
             bound to this daemon's ServiceAccount (the API says: no way)"
        );
        for plural in ["endpoints", "services"] {
            let condition = of(&api(403, "no way"), "delete", plural, "prod", Some("mysql"));
            let rule = format!("resources: [{plural}], resourceNames: [mysql], verbs: [delete]");
            assert!(condition.reason.contains(&rule), "{}", condition.reason);
        }
        let condition = of(&api(403, "no way"), "list", "services", "prod", None);
        assert!(condition.reason.contains("resources: [services], verbs: [get, list, watch]"));
    }

    #[test]
    fn each_answer_has_its_condition() {
        let kind = |code| of(&api(code, "x"), "patch", "endpoints", "prod", Some("mysql")).kind;
        assert_eq!(kind(422), ConditionKind::Rejected);
        for code in [401, 404, 410, 429, 500, 503, 504] {
            assert_eq!(kind(code), ConditionKind::ApiUnavailable, "{code}");
        }
        let terminating = api(
            403,
            "unable to create new content in namespace prod because it is being terminated",
        );
        assert_eq!(
            of(&terminating, "patch", "endpoints", "prod", None).kind,
            ConditionKind::WaitingForService
        );
        let gone = api(404, "namespaces \"prod\" not found");
        assert_eq!(
            of(&gone, "create", "services", "prod", None).kind,
            ConditionKind::WaitingForService
        );
    }
}
