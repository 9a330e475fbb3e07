//! The chart on a real API server: installed where Pod Security enforces `restricted`, changed,
//! taken over from the manifests, and removed.

use std::fs;
use std::process::Output;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::Role;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::chart::helm::{RELEASE, chart, helm, values_file};
use crate::support::{
    Daemon, Database, Namespace, addresses, blocking, case::cases, eventually, shared, temp_dir,
};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        with_its_own_token_the_daemon_does_the_main_job,
        an_upgrade_keeps_what_the_config_before_needs,
        a_namespace_that_is_gone_does_not_stop_an_upgrade,
        the_manifests_are_taken_over,
        every_object_is_accepted,
    ]
}

const TIMEOUT: Duration = Duration::from_secs(60);

/// A release in a namespace of its own that enforces `restricted`, and a namespace for databases.
struct Site {
    home: Namespace,
    watched: Namespace,
}

impl Site {
    async fn new() -> Site {
        let home = shared().namespace("chart").await;
        let labels = json!({"pod-security.kubernetes.io/enforce": "restricted",
                            "pod-security.kubernetes.io/warn": "restricted"});
        let namespaces: Api<KubeNamespace> = Api::all(shared().client());
        let patch = Patch::Merge(json!({"metadata": {"labels": labels}}));
        namespaces.patch(&home.name, &PatchParams::default(), &patch).await.expect("a patch");
        let watched = shared().namespace("prod").await;
        watched.create_service("mysql", &[("", 3306)]).await;
        Site { home, watched }
    }

    /// Installs or upgrades the release. Helm says nothing about a Pod that is refused, but warns.
    async fn deliver(&self, values: &Value, arguments: &[&str]) {
        let output = self.helm(values, arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && !said.contains("would violate"), "{said}");
    }

    async fn helm(&self, values: &Value, arguments: &[&str]) -> Output {
        let mut command = helm();
        command.args(["upgrade", "--install", RELEASE]).arg(chart());
        command.args(["--namespace", &self.home.name]).env("KUBECONFIG", shared().kubeconfig());
        command.arg("--values").arg(values_file(values)).args(arguments);
        blocking(move || command.output().expect("Helm runs")).await
    }

    fn config(&self, services: &[(&str, &str, Vec<String>)]) -> Value {
        let database = |(namespace, service, ips): &(&str, &str, Vec<String>)| {
            json!({"service": service, "namespace": namespace, "port": 3306, "addresses": ips,
                   "check": {"tcp": {}, "interval": "250ms", "timeout": "1s"}})
        };
        json!({"databases": services.iter().map(database).collect::<Vec<_>>()})
    }

    async fn expect_published(&self, wanted: &[String]) {
        eventually(TIMEOUT, &format!("{wanted:?} is published"), async || {
            let there = self.watched.endpoint_ips("mysql").await;
            if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
    }
}

/// Returns the names in the rules of a Role of the chart, or none if there is no Role.
async fn named(namespace: &Namespace) -> Option<Vec<String>> {
    let role: Option<Role> = namespace.api().get_opt(RELEASE).await.expect("a read");
    let rules = role?.rules.unwrap_or_default();
    Some(rules.into_iter().flat_map(|rule| rule.resource_names.unwrap_or_default()).collect())
}

async fn with_its_own_token_the_daemon_does_the_main_job() {
    let site = Site::new().await;
    let mut databases = Vec::new();
    for ip in addresses::allocate(2) {
        databases.push(Database::start(ip, 3306).await);
    }
    let mut ips: Vec<_> = databases.iter().map(|database| database.ip).collect();
    ips.sort();
    let ips: Vec<String> = ips.iter().map(ToString::to_string).collect();
    let config = site.config(&[(&site.watched.name, "mysql", ips.clone())]);
    site.deliver(&json!({"config": config}), &[]).await;
    let pods: Api<Pod> = site.home.api();
    let selected = ListParams::default().labels("app.kubernetes.io/name=external-endpoints");
    eventually(TIMEOUT, "both Pods are admitted", async || {
        pods.list(&selected).await.is_ok_and(|pods| pods.items.len() == 2)
    })
    .await;
    // The daemon as its Pods run it, but for paths and ports.
    let deployment: Deployment = site.home.api().get(RELEASE).await.expect("the Deployment");
    let container = deployment.spec.and_then(|spec| spec.template.spec).expect("a Pod");
    let arguments = container.containers[0].args.clone().expect("args");
    let kept: Vec<&str> = arguments
        .iter()
        .map(String::as_str)
        .filter(|argument| {
            let replaced = ["run", "--config=", "--listen=", "--log-format="];
            !replaced.iter().any(|prefix| argument.starts_with(prefix))
        })
        .collect();
    assert_eq!(kept.len() + 4, arguments.len(), "{arguments:?}");
    let map: k8s_openapi::api::core::v1::ConfigMap =
        site.home.api().get(&format!("{RELEASE}-config")).await.expect("the ConfigMap");
    let text = map.data.and_then(|mut data| data.remove("config.yaml")).expect("a config");
    let kubeconfig = shared().kubeconfig_for_token(&site.home.token(RELEASE).await);
    let daemon = Daemon::start(&text, &kubeconfig, &kept).await;
    site.expect_published(&ips).await;
    let first = databases[0].ip.to_string();
    databases[0].stop().await;
    let rest: Vec<String> = ips.iter().filter(|ip| **ip != first).cloned().collect();
    site.expect_published(&rest).await;
    databases[0].restart().await;
    site.expect_published(&ips).await;
    assert_eq!(daemon.status().await["lease"]["held"], true);
    drop(daemon);
    // What is published outlives the release.
    let mut command = helm();
    command.args(["uninstall", RELEASE, "--namespace", &site.home.name]);
    command.env("KUBECONFIG", shared().kubeconfig());
    let output = blocking(move || command.output().expect("Helm runs")).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(named(&site.watched).await, None);
    assert_eq!(site.watched.endpoint_ips("mysql").await, ips);
}

async fn an_upgrade_keeps_what_the_config_before_needs() {
    let site = Site::new().await;
    let config = |service: &str, ip: &str| {
        site.config(&[(&site.watched.name, service, vec![ip.to_owned()])])
    };
    let egress = async || {
        let policy: NetworkPolicy = site.home.api().get(RELEASE).await.expect("the policy");
        serde_json::to_string(&policy.spec).expect("JSON")
    };
    site.deliver(&json!({"config": config("old", "192.0.2.1")}), &[]).await;
    assert_eq!(named(&site.watched).await, Some(vec!["old".to_owned()]));
    // Running Pods work by the old config for a moment more.
    let new = json!({"config": config("new", "192.0.2.2")});
    site.deliver(&new, &[]).await;
    assert_eq!(named(&site.watched).await, Some(vec!["new".to_owned(), "old".to_owned()]));
    let both = egress().await;
    assert!(both.contains("192.0.2.1/32") && both.contains("192.0.2.2/32"), "{both}");
    site.deliver(&new, &[]).await;
    assert_eq!(named(&site.watched).await, Some(vec!["new".to_owned()]));
    assert!(!egress().await.contains("192.0.2.1/32"));
    let last = json!({"config": config("last", "192.0.2.3"), "retainPrevious": false});
    site.deliver(&last, &[]).await;
    assert_eq!(named(&site.watched).await, Some(vec!["last".to_owned()]));
    // A config with mistakes in the cluster does not stop the upgrade that corrects it.
    let bad = "databases: [{service: a, port: 1, addresses: [b], check: {tcp: 3}, no: such}]";
    let bad = json!({"config": bad});
    site.deliver(&bad, &[]).await;
    let portless = "databases: [{service: a, addresses: [b], dns: {within: [c]}}]";
    for broken in ["databases: 3\n", "a: [\n", "", portless] {
        let data = Patch::Merge(json!({"data": {"config.yaml": broken}}));
        let maps: Api<k8s_openapi::api::core::v1::ConfigMap> = site.home.api();
        let name = format!("{RELEASE}-config");
        maps.patch(&name, &PatchParams::default(), &data).await.expect("a patch");
        site.deliver(&new, &["--force-conflicts"]).await;
    }
}

async fn a_namespace_that_is_gone_does_not_stop_an_upgrade() {
    let site = Site::new().await;
    let other = shared().namespace("gone").await;
    let ips = vec!["192.0.2.1".to_owned()];
    let both = [(&*site.watched.name, "mysql", ips.clone()), (&*other.name, "orders", ips.clone())];
    site.deliver(&json!({"config": site.config(&both)}), &[]).await;
    let namespaces: Api<KubeNamespace> = Api::all(shared().client());
    namespaces.delete(&other.name, &DeleteParams::default()).await.expect("a deletion");
    eventually(TIMEOUT, "the namespace is gone", async || {
        namespaces.get_opt(&other.name).await.is_ok_and(|namespace| namespace.is_none())
    })
    .await;
    let one = site.config(&both[..1]);
    site.deliver(&json!({"config": one}), &[]).await;
    assert_eq!(named(&site.watched).await, Some(vec!["mysql".to_owned()]));
}

/// Installs over `kubectl apply -k deploy/`, by the commands of docs/guides/helm.md.
async fn the_manifests_are_taken_over() {
    let client = shared().client();
    let folder = format!("{}/deploy", env!("CARGO_MANIFEST_DIR"));
    let applied = shared().kubectl(&["apply", "-k", &folder]).await;
    assert!(applied.status.success(), "{applied:?}");
    let home = Namespace { name: RELEASE.to_owned(), client: client.clone() };
    let watched = Namespace { name: "external-endpoints-example".to_owned(), client };
    let deleted =
        shared().kubectl(&["-n", RELEASE, "delete", "deployment", "external-endpoints"]).await;
    assert!(deleted.status.success(), "{deleted:?}");
    let site = Site { home, watched };
    let path = temp_dir("config").join("databases.yaml");
    fs::copy(format!("{folder}/example/config.yaml"), &path).expect("a copy");
    let file = format!("config={}", path.display());
    let flags = ["--take-ownership", "--force-conflicts", "--set-file", &file];
    site.deliver(&json!({}), &flags).await;
    assert_eq!(named(&site.watched).await, Some(vec!["mysql".to_owned()]));
    let deployment: Deployment = site.home.api().get(RELEASE).await.expect("the Deployment");
    assert!(deployment.metadata.labels.is_some_and(|labels| labels.contains_key("helm.sh/chart")));
    // Later upgrades need no flag.
    site.deliver(&json!({}), &["--reuse-values"]).await;
}

/// Lets the API server judge objects that no other trial installs.
async fn every_object_is_accepted() {
    let site = Site::new().await;
    let mut values = json!({
        "service": {"enabled": true}, "grafanaDashboard": {"enabled": true},
        "statusPage": {"ingress": {"enabled": true, "hosts": ["a.example"], "className": "nginx",
                                   "tls": [{"hosts": ["a.example"], "secretName": "tls"}]}},
        "rbac": {"readerGroup": "ops"}, "podDisruptionBudget": {"minAvailable": 1},
        "networkPolicy": {"ingress": {"from": []}, "egress": {
            "apiServerCidrs": ["10.9.8.7/8", "2001:db8::7/64"],
            "dnsTo": [{"namespaceSelector": {"matchLabels": {"a": "b"}}}],
        }},
        "priorityClassName": "system-cluster-critical",
        "dnsConfig": {"options": [{"name": "ndots"}]},
        "hostAliases": [{"ip": "192.0.2.7", "hostnames": ["a"]}], "tolerations": [{"key": "a"}],
        "extraVolumes": [{"name": "v", "secret": {"secretName": "s"}}],
        "extraVolumeMounts": [{"name": "v", "mountPath": "/etc/checker"}],
        "extraEnv": [{"name": "A", "value": "b"}], "log": {"level": "debug"},
        "commonLabels": {"team": "storage"}, "revisionHistoryLimit": 3,
    });
    let network = json!({"within": ["10.1.2.3/9", "2001:db8:1:2:3:4:5:6/77", "::1:2:3/112"]});
    values["config"] = json!({"databases": [{
        "service": "mysql", "namespace": site.watched.name, "port": 3306, "dns": network,
        "addresses": ["a.example", "2001:DB8::1"], "check": {"tcp": {}},
    }]});
    site.deliver(&values, &[]).await;
    let policy: NetworkPolicy = site.home.api().get(RELEASE).await.expect("the policy");
    let text = serde_json::to_string(&policy.spec).expect("JSON");
    assert!(text.contains("10.0.0.0/9"), "{text}");
}
