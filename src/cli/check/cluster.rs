//! Findings about the cluster: its version, the rights, and the Services of a config.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::{Endpoints, Service};
use kube::Api;
use kube::api::PostParams;

use super::finding::Finding;
use crate::api::{Call, ErrorKind};
use crate::cli::args::ServiceAccountName;
use crate::cli::cluster::Cluster;
use crate::cli::rbac::{review, rules};
use crate::config::{Database, Spec};
use crate::lease;
use crate::publish::preview;

/// The oldest minor version of Kubernetes 1 that is supported.
const OLDEST_MINOR: u32 = 33;

/// The most rights that one finding names.
const MAX_NAMED: usize = 5;

/// Returns the version of the cluster. The error is the finding that ends all others about it.
pub(super) async fn version(cluster: &Cluster) -> Result<Finding, Finding> {
    let version = match cluster.version().await {
        Ok(version) => version,
        Err(error) => {
            let text = format!("the API server can't be asked: {error}");
            let hint = "check KUBECONFIG, --context and your network";
            return Err(Finding::bad("cluster-version", text, hint));
        }
    };
    let digits = |text: &str| -> u32 {
        let digits: String = text.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap_or_default()
    };
    let (major, minor) = (digits(&version.major), digits(&version.minor));
    let text = format!("Kubernetes {major}.{minor}");
    Ok(if (major, minor) >= (1, OLDEST_MINOR) {
        Finding::good("cluster-version", format!("{text} (1.{OLDEST_MINOR} or later is needed)"))
    } else {
        let hint = format!("upgrade to Kubernetes 1.{OLDEST_MINOR} or later");
        Finding::bad("cluster-version", text, hint)
    })
}

/// Returns whether the daemon's ServiceAccount has all rights that the config and the Lease need.
pub(super) async fn daemon_rights(
    cluster: &Cluster,
    spec: &Spec,
    account: &ServiceAccountName,
    chosen_lease: Option<&lease::Name>,
    file: &str,
) -> Finding {
    const CHECK: &str = "rights-daemon";
    let name = lease::DEFAULT_NAME.to_owned();
    let default_lease = lease::Name { namespace: account.namespace.clone(), name };
    let lease = chosen_lease.unwrap_or(&default_lease);
    let rights = review::rights(&rules::derive(spec, Some(lease)));
    let count = rights.len();
    match review::missing(cluster, account, rights).await {
        Ok(missing) if missing.is_empty() => {
            Finding::good(CHECK, format!("{account} has all {count} rights"))
        }
        Ok(missing) => {
            let named = missing.iter().take(MAX_NAMED);
            let named: Vec<String> =
                named.map(|right| format!("{} in {}", right.describe(), right.namespace)).collect();
            let more = match missing.len().saturating_sub(MAX_NAMED) {
                0 => String::new(),
                more => format!(", and {more} more"),
            };
            let text = format!("{account} may not {}{more}", named.join(", "));
            let lease = chosen_lease.map(|lease| format!(" --lease {lease}")).unwrap_or_default();
            let hint = format!(
                "add them: external-endpoints rbac {file} --service-account {account}{lease} | \
                 kubectl apply -f -"
            );
            Finding::bad(CHECK, text, hint)
        }
        Err(error) => {
            let hint = "let someone run this who may create subjectaccessreviews";
            Finding::warning(CHECK, error.message, hint)
        }
    }
}

/// The objects of deploy/, as `(group, resource)`.
const INSTALLED: [(&str, &str); 8] = [
    ("", "serviceaccounts"),
    ("", "configmaps"),
    ("apps", "deployments"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("policy", "poddisruptionbudgets"),
    ("networking.k8s.io", "networkpolicies"),
    ("coordination.k8s.io", "leases"),
];

/// Returns whether the caller may install the daemon in this namespace.
pub(super) async fn install_rights(cluster: &Cluster, namespace: &str) -> Finding {
    const CHECK: &str = "rights-install";
    let mut denied = Vec::new();
    for (group, resource) in INSTALLED {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(namespace.to_owned()),
                    verb: Some("create".to_owned()),
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
        let plural = "selfsubjectaccessreviews";
        let call = Call { verb: "create", plural, namespace, name: None };
        match cluster.call(call, reviews.create(&PostParams::default(), &review)).await {
            Ok(answer) => {
                if !answer.status.is_some_and(|status| status.allowed) {
                    denied.push(resource);
                }
            }
            Err(error) => {
                return Finding::warning(CHECK, error.message, "try again, or ask for the right");
            }
        }
    }
    if denied.is_empty() {
        return Finding::good(CHECK, format!("you may install it in the namespace {namespace}"));
    }
    let text = format!("you may not create {} in {namespace}", denied.join(", "));
    Finding::bad(CHECK, text, "let someone install it who may, or ask for these rights")
}

/// Returns a finding for each database whose Service or Endpoints keep the daemon from writing.
pub(super) async fn services(cluster: &Cluster, spec: &Spec) -> Vec<Finding> {
    const CHECK: &str = "config-services";
    let mut findings = Vec::new();
    for database in &spec.databases {
        findings.extend(match service(cluster, database).await {
            Ok(None) => None,
            Ok(Some((condition, reason))) => {
                let text = format!("{} {condition}: {reason}", database.id);
                let hint = format!("see troubleshooting.md#{}", condition.to_lowercase());
                Some(Finding::bad(CHECK, text, hint))
            }
            Err(message) => {
                let hint = "ask for the right to read, or let someone else run this";
                Some(Finding::warning(CHECK, message, hint))
            }
        });
    }
    if findings.is_empty() {
        let text = format!("nothing keeps {} databases from being published", spec.databases.len());
        findings.push(Finding::good(CHECK, text));
    }
    findings
}

/// Returns the condition that a database would have, if it keeps the daemon from writing.
async fn service(
    cluster: &Cluster,
    database: &Database,
) -> Result<Option<(String, String)>, String> {
    let (namespace, name) = (&*database.id.namespace, &*database.id.service);
    let get = |plural| Call { verb: "get", plural, namespace, name: Some(name) };
    let services: Api<Service> = Api::namespaced(cluster.client.clone(), namespace);
    let service = cluster.call(get("services"), services.get_opt(name)).await;
    let endpoints: Api<Endpoints> = Api::namespaced(cluster.client.clone(), namespace);
    let endpoints = cluster.call(get("endpoints"), endpoints.get_opt(name)).await;
    let (service, endpoints) = match (service, endpoints) {
        (Ok(service), Ok(endpoints)) => (service, endpoints),
        (Err(error), _) | (_, Err(error)) => match error.kind {
            ErrorKind::NamespaceNotFound => (None, None),
            _ => return Err(error.message),
        },
    };
    let blocker = preview::blocker(database, service.as_ref(), endpoints.as_ref());
    Ok(blocker.map(|condition| (condition.kind.to_string(), condition.reason)))
}
