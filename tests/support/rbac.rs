//! Rules of Roles in the form of the API.

use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde_json::{Value, json};

use super::Namespace;

/// The verbs of everything that the daemon caches.
pub(crate) const READ: &[&str] = &["get", "list", "watch"];

/// Returns a rule for all objects of a resource, such as `leases.coordination.k8s.io`.
pub(crate) fn rule(resource: &str, verbs: &[&str]) -> Value {
    let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
    json!({"apiGroups": [group], "resources": [resource], "verbs": verbs})
}

/// Returns a rule for the objects of a resource that have these names.
pub(crate) fn rule_for_names<N: AsRef<str>>(resource: &str, names: &[N], verbs: &[&str]) -> Value {
    let mut rule = rule(resource, verbs);
    rule["resourceNames"] = names.iter().map(AsRef::as_ref).collect();
    rule
}

/// Creates a Role with these rules, and binds it to a ServiceAccount of the namespace. Both have
/// the ServiceAccount's name.
pub(crate) async fn grant(namespace: &Namespace, service_account: &str, rules: Value) {
    let metadata = json!({"name": service_account});
    namespace.create_object::<Role>(json!({"metadata": metadata, "rules": rules})).await;
    let subject = json!({
        "kind": "ServiceAccount", "name": service_account, "namespace": namespace.name,
    });
    let role = json!({
        "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": service_account,
    });
    let binding = json!({"metadata": metadata, "roleRef": role, "subjects": [subject]});
    namespace.create_object::<RoleBinding>(binding).await;
}
