//! The rights that deploy/ grants: they are sufficient, and they allow nothing else.

use std::collections::BTreeSet;

use futures::StreamExt as _;
use k8s_openapi::api::authorization::v1::{SelfSubjectAccessReview, SelfSubjectRulesReview};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Secret, Service};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::cluster::fixture::{Fixture, database};
use crate::support::{Daemon, Namespace, eventually, shared};

use super::{ACCOUNT, HOME, LEASE, SERVICE, TIMEOUT, WATCHED, applied, namespace};

const VERBS: [&str; 8] =
    ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"];

/// Resources with their groups, including subresources.
const RESOURCES: [(&str, &str); 22] = [
    ("", "endpoints"),
    ("", "services"),
    ("", "services/status"),
    ("", "secrets"),
    ("", "configmaps"),
    ("", "pods"),
    ("", "pods/exec"),
    ("", "nodes"),
    ("", "namespaces"),
    ("", "events"),
    ("", "serviceaccounts"),
    ("", "serviceaccounts/token"),
    ("discovery.k8s.io", "endpointslices"),
    ("discovery.k8s.io", "endpointslices/restricted"),
    ("events.k8s.io", "events"),
    ("coordination.k8s.io", "leases"),
    ("apps", "deployments"),
    ("networking.k8s.io", "ingresses"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("*", "*"),
];

/// Returns true if the daemon may do this. This is all that it may do.
fn may(verb: &str, resource: (&str, &str), namespace: &str, name: &str) -> bool {
    let read = ["get", "list", "watch"].contains(&verb);
    match (namespace, resource) {
        (WATCHED, ("", "services")) => read,
        (WATCHED, ("discovery.k8s.io", "endpointslices")) => ["list", "watch"].contains(&verb),
        (WATCHED, ("", "endpoints")) => {
            ["list", "watch"].contains(&verb)
                || name == SERVICE && ["get", "create", "patch"].contains(&verb)
        }
        (WATCHED | HOME, ("", "events")) => ["list", "create", "patch"].contains(&verb),
        (HOME, ("coordination.k8s.io", "leases")) => {
            name == LEASE && ["get", "create", "update"].contains(&verb)
        }
        _ => false,
    }
}

pub(super) async fn nothing_else_is_allowed() {
    let client = shared().client_with_token(applied().await).await;
    let mut questions = Vec::new();
    for verb in VERBS {
        for resource in RESOURCES {
            // An empty namespace means all namespaces.
            for namespace in [WATCHED, HOME, "default", "kube-system", ""] {
                let named =
                    ["endpoints", "endpointslices", "services", "leases"].contains(&resource.1);
                for name in if named { &["", SERVICE, LEASE, "other"][..] } else { &[""] } {
                    questions.push((verb, resource, namespace, *name));
                }
            }
        }
    }
    let asked = questions.len();
    let wrong: Vec<String> = futures::stream::iter(questions)
        .map(|(verb, resource, namespace, name)| {
            let client = client.clone();
            async move {
                let allowed = allowed(client, verb, resource, namespace, name).await;
                (allowed != may(verb, resource, namespace, name)).then(|| {
                    format!("{verb} {resource:?} {name:?} in {namespace:?}: allowed is {allowed}")
                })
            }
        })
        .buffer_unordered(16)
        .filter_map(std::future::ready)
        .collect()
        .await;
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(asked > 1000, "{asked}");
    only_the_role_is_added(client).await;
}

async fn allowed(
    client: kube::Client,
    verb: &str,
    (group, resource): (&str, &str),
    namespace: &str,
    name: &str,
) -> bool {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = json!({"spec": {"resourceAttributes": {
        "verb": verb, "group": group, "resource": resource, "subresource": subresource,
        "namespace": namespace, "name": name,
    }}});
    let review: SelfSubjectAccessReview = serde_json::from_value(review).expect("a review");
    let answer = Api::all(client).create(&PostParams::default(), &review).await.expect("an answer");
    answer.status.expect("a status").allowed
}

/// Returns the rights of the Role that is shipped for this namespace.
async fn shipped(name: &str) -> BTreeSet<String> {
    let role: Role = namespace(name).api().get(ACCOUNT).await.expect("the shipped Role");
    atoms(&role.rules.unwrap_or_default())
}

/// Checks the rules of each namespace for rights that the table does not list: they are those of
/// any ServiceAccount, and in two namespaces those of a Role.
async fn only_the_role_is_added(client: kube::Client) {
    let other = shared().namespace("nobody").await;
    other.create_service_account("nobody").await;
    let nobody = shared().client_with_token(&other.token("nobody").await).await;
    for namespace in [WATCHED, HOME, "default", "kube-system", &other.name] {
        let ours = rules(client.clone(), namespace).await;
        let theirs = rules(nobody.clone(), namespace).await;
        let more: BTreeSet<String> = ours.difference(&theirs).cloned().collect();
        let role = if [WATCHED, HOME].contains(&namespace) {
            shipped(namespace).await
        } else {
            BTreeSet::new()
        };
        assert_eq!(more, role, "in {namespace}");
    }
}

async fn rules(client: kube::Client, namespace: &str) -> BTreeSet<String> {
    let review = json!({"spec": {"namespace": namespace}});
    let review: SelfSubjectRulesReview = serde_json::from_value(review).expect("a review");
    let answer = Api::all(client).create(&PostParams::default(), &review).await.expect("an answer");
    let rules = answer.status.expect("a status").resource_rules;
    let rules = rules.into_iter().map(|rule| PolicyRule {
        api_groups: rule.api_groups,
        resources: rule.resources,
        resource_names: rule.resource_names,
        verbs: rule.verbs,
        ..PolicyRule::default()
    });
    atoms(&rules.collect::<Vec<_>>())
}

/// Splits rules into single rights.
pub(crate) fn atoms(rules: &[PolicyRule]) -> BTreeSet<String> {
    let mut atoms = BTreeSet::new();
    for rule in rules {
        let names = rule.resource_names.clone().filter(|names| !names.is_empty());
        for name in names.unwrap_or_else(|| vec!["any".to_owned()]) {
            for group in rule.api_groups.iter().flatten() {
                for resource in rule.resources.iter().flatten() {
                    atoms.extend(
                        rule.verbs.iter().map(|verb| format!("{verb} {group}/{resource} {name}")),
                    );
                }
            }
        }
    }
    atoms
}

/// Checks the same with real calls on real objects.
pub(super) async fn nothing_else_is_done() {
    let client = shared().client_with_token(applied().await).await;
    let endpoints: Api<Endpoints> = Api::namespaced(client.clone(), WATCHED);
    // Applied with the daemon's field manager for creating, so that the objects look as if they had
    // existed before.
    let apply = PatchParams::apply("external-endpoints-create");
    let blank = |name: &str| {
        Patch::Apply(json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name}}))
    };
    // It may create its own Service's Endpoints by name.
    endpoints.patch(SERVICE, &apply, &blank(SERVICE)).await.expect("its own Endpoints");
    let mut held = endpoints.get(SERVICE).await.expect("its own Endpoints");
    held.metadata.managed_fields = None;
    denied("another's Endpoints", endpoints.patch("other", &apply, &blank("other")).await);
    denied("create", endpoints.create(&PostParams::default(), &held).await);
    denied("replace", endpoints.replace(SERVICE, &PostParams::default(), &held).await);
    denied("delete", endpoints.delete(SERVICE, &DeleteParams::default()).await);
    let services: Api<Service> = Api::namespaced(client.clone(), WATCHED);
    services.get(SERVICE).await.expect("its own Service");
    let selector = Patch::Merge(json!({"spec": {"selector": {"app": "mine"}}}));
    denied("change a Service", services.patch(SERVICE, &PatchParams::default(), &selector).await);
    for namespace in [WATCHED, HOME, "default"] {
        let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
        denied("list Secrets", secrets.list(&ListParams::default()).await);
    }
    let elsewhere: Api<Endpoints> = Api::namespaced(client.clone(), "default");
    denied("read elsewhere", elsewhere.get("kubernetes").await);
    denied("write elsewhere", elsewhere.patch(SERVICE, &apply, &blank(SERVICE)).await);
    let lease = |name: &str| {
        serde_json::from_value::<Lease>(json!({"metadata": {"name": name}})).expect("a Lease")
    };
    let leases: Api<Lease> = Api::namespaced(client.clone(), HOME);
    denied("another Lease", leases.replace("other", &PostParams::default(), &lease("other")).await);
    denied("a Lease without its name", leases.create(&PostParams::default(), &lease(LEASE)).await);
    denied("delete its Lease", leases.delete(LEASE, &DeleteParams::default()).await);
    denied("list Leases", leases.list(&ListParams::default()).await);
    let elsewhere: Api<Lease> = Api::namespaced(client.clone(), WATCHED);
    denied(
        "a Lease elsewhere",
        elsewhere.replace(LEASE, &PostParams::default(), &lease(LEASE)).await,
    );
    let maps: Api<ConfigMap> = Api::namespaced(client, HOME);
    denied("read its own config", maps.list(&ListParams::default()).await);
}

pub(crate) fn denied<T: std::fmt::Debug>(what: &str, answer: Result<T, kube::Error>) {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 403 => {}
        other => panic!("{what}: {other:?}"),
    }
}

/// Binds `daemon`, without rights, in the fixture's namespace. Returns its token.
pub(crate) async fn without_rights(namespace: &Namespace) -> String {
    namespace.create_service_account("daemon").await;
    namespace.create_object::<Role>(json!({"metadata": {"name": "daemon"}, "rules": []})).await;
    let binding = json!({
        "metadata": {"name": "daemon"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "daemon"},
        "subjects": [{"kind": "ServiceAccount", "name": "daemon", "namespace": namespace.name}],
    });
    namespace.create_object::<RoleBinding>(binding).await;
    namespace.token("daemon").await
}

pub(crate) async fn grant(namespace: &Namespace, rules: &Value) {
    let roles: Api<Role> = namespace.api();
    roles
        .patch("daemon", &PatchParams::default(), &Patch::Merge(json!({"rules": rules})))
        .await
        .expect("a patch");
}

/// Checks that granting each right that the daemon asks for ends with the Role that is shipped.
pub(super) async fn the_role_is_what_forbidden_asks_for() {
    applied().await;
    let fixture = Fixture::new("asks").await;
    let token = without_rights(&fixture.namespace).await;
    let lease = ["--lease", &format!("{}/{LEASE}", fixture.namespace.name)];
    let daemon =
        Daemon::start(&fixture.config(), &shared().kubeconfig_for_token(&token), &lease).await;
    let mut granted: Vec<PolicyRule> = Vec::new();
    loop {
        let asked = eventually(TIMEOUT, "it is published, or asks for more", async || {
            let database = database(&daemon.status().await);
            match database["condition"].as_str() {
                Some("Published") => Ok(None),
                Some("Forbidden" | "Standby") => {
                    let Some(rule) = rule_in(database["reason"].as_str().unwrap_or_default())
                    else {
                        return Err(database.to_string());
                    };
                    if granted.contains(&rule) {
                        Err(format!("still {database}"))
                    } else {
                        Ok(Some(rule))
                    }
                }
                _ => Err(database.to_string()),
            }
        })
        .await;
        let Some(rule) = asked else { break };
        granted.push(rule);
        grant(&fixture.namespace, &json!(granted)).await;
    }
    fixture.expect_endpoints(&[0, 1, 2]).await;
    // Without the right to create Events it works, so only the log asks for it.
    let events = eventually(TIMEOUT, "it asks for Events", async || {
        let logs = daemon.logs();
        let line = logs.iter().find(|line| line["message"] == "Events are not published")?;
        line["reason"].as_str().and_then(rule_in)
    })
    .await;
    granted.push(events);
    let shipped = [shipped(WATCHED).await, shipped(HOME).await];
    assert_eq!(atoms(&granted), shipped.into_iter().flatten().collect());
}

/// Returns the rule that a reason quotes, if it quotes one.
pub(crate) fn rule_in(reason: &str) -> Option<PolicyRule> {
    let rule = reason[reason.find("{apiGroups")?..].split_inclusive('}').next().unwrap_or_default();
    let rule: Value =
        serde_saphyr::from_str(rule).unwrap_or_else(|error| panic!("{rule}: {error}"));
    Some(serde_json::from_value(rule).expect("a rule"))
}
