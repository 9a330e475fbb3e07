//! The Roles and RoleBindings as text: manifests, a folder for kustomize, or values for Helm. Pure.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::{Value, json};

use super::rules::RulesByNamespace;
use crate::cli::args::ServiceAccountName;

/// The first lines of each output.
pub(super) const HEAD: &str =
    "# The rights that the config needs, and no others. Made by `external-endpoints rbac`.\n";

/// Returns a Role and a RoleBinding for each namespace. Both have the name of the ServiceAccount.
fn objects(rules: RulesByNamespace, account: &ServiceAccountName) -> Vec<(String, [Value; 2])> {
    let both = |(namespace, rules): (String, Vec<PolicyRule>)| {
        let metadata = ObjectMeta {
            name: Some(account.name.clone()),
            namespace: Some(namespace.clone()),
            ..ObjectMeta::default()
        };
        let role = Role { metadata: metadata.clone(), rules: Some(rules) };
        let binding = RoleBinding {
            metadata,
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".to_owned(),
                kind: "Role".to_owned(),
                name: account.name.clone(),
            },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".to_owned(),
                name: account.name.clone(),
                namespace: Some(account.namespace.clone()),
                ..Subject::default()
            }]),
        };
        (namespace, [json!(role), json!(binding)])
    };
    rules.into_iter().map(both).collect()
}

fn yaml(value: &impl Serialize) -> String {
    let options = serde_saphyr::ser_options! { prefer_block_scalars: false };
    // Nothing in a tree of texts and lists can fail to be written.
    serde_saphyr::to_string_with_options(value, options)
        .unwrap_or_else(|error| unreachable!("{error}"))
}

fn documents<'a>(objects: impl Iterator<Item = &'a Value>) -> String {
    let documents: Vec<String> = objects.map(yaml).collect();
    format!("{HEAD}{}", documents.join("---\n"))
}

/// Returns the manifests, to be piped into `kubectl apply -f -`.
pub(super) fn manifests(rules: RulesByNamespace, account: &ServiceAccountName) -> String {
    let objects = objects(rules, account);
    documents(objects.iter().flat_map(|(_, both)| both))
}

/// Returns the values of a Helm chart that takes further objects as `extraObjects`.
pub(super) fn values(rules: RulesByNamespace, account: &ServiceAccountName) -> String {
    let objects: Vec<Value> =
        objects(rules, account).into_iter().flat_map(|(_, both)| both).collect();
    format!("{HEAD}{}", yaml(&json!({"extraObjects": objects})))
}

/// Returns the files of a folder for kustomize, with their names.
pub(super) fn kustomize(
    rules: RulesByNamespace,
    account: &ServiceAccountName,
) -> Vec<(String, String)> {
    let mut files: Vec<(String, String)> = objects(rules, account)
        .into_iter()
        .map(|(namespace, both)| (format!("role-{namespace}.yaml"), documents(both.iter())))
        .collect();
    let resources: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    let kustomization = json!({
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": resources,
    });
    let text = format!("{HEAD}{}", yaml(&kustomization));
    files.push(("kustomization.yaml".to_owned(), text));
    files
}
