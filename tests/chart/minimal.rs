//! The least rights: with the Roles of the chart the daemon does its whole job, and with any one
//! verb or name less it does not. The real authorizer decides.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{Endpoints, Event, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::chart::helm::{RELEASE, all, documents, rendered, rules};
use crate::support::daemon::PROGRAM;
use crate::support::{
    ApiProxy, Daemon, Database, Namespace, addresses, blocking, eventually, runtime, shared,
    with_timeout,
};

/// Far longer than a whole job takes on a busy machine.
const CASE_TIMEOUT: Duration = Duration::from_secs(400);

/// The longest time for one part of the job. Pruning waits for 30 s.
const PART_TIMEOUT: Duration = Duration::from_secs(100);

/// The delay of each piece of data while writes shall conflict.
const DELAY: Duration = Duration::from_millis(400);

/// The names of the namespaces in the config, and so of the trials.
const HOME: &str = "home";
const WATCHED: &str = "watched";

/// One right of one Role.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    namespace: String,
    verb: String,
    group: String,
    resource: String,
    /// The name of the object; empty for all.
    name: String,
}

impl Right {
    fn test_name(&self) -> String {
        let Right { namespace, verb, resource, name, .. } = self;
        let name = name.replace('-', "_");
        let object = if name.is_empty() { resource.clone() } else { format!("{resource}_{name}") };
        format!("minimal::without_{verb}_{object}_in_{namespace}")
    }

    fn rule(&self) -> Value {
        let Right { verb, group, resource, name, .. } = self;
        let mut rule = json!({"apiGroups": [group], "resources": [resource], "verbs": [verb]});
        if !name.is_empty() {
            rule["resourceNames"] = json!([name]);
        }
        rule
    }
}

/// Returns the rights of Roles, each once.
fn rights(objects: &[Value]) -> Vec<Right> {
    let mut rights = Vec::new();
    for role in all(objects, "Role") {
        let namespace = role["metadata"]["namespace"].as_str().expect("a namespace");
        for rule in rules(role) {
            let names = rule.resource_names.unwrap_or_else(|| vec![String::new()]);
            for name in &names {
                for group in rule.api_groups.iter().flatten() {
                    for resource in rule.resources.iter().flatten() {
                        rights.extend(rule.verbs.iter().map(|verb| Right {
                            namespace: namespace.to_owned(),
                            verb: verb.clone(),
                            group: group.clone(),
                            resource: resource.clone(),
                            name: name.clone(),
                        }));
                    }
                }
            }
        }
    }
    rights.sort();
    rights
}

/// Returns a config that needs every kind of right.
fn config(watched: &str, ips: &[String; 3]) -> Value {
    let database = |service: &str, ips: &[String]| {
        json!({
            "service": service, "namespace": watched, "port": 3306, "addresses": ips,
            "policy": {"maxFlips": 1000},
            "check": {"tcp": {}, "interval": "250ms", "timeout": "1s"},
        })
    };
    let mut mysql = database("mysql", &ips[..2]);
    mysql["publish"] = json!("both");
    mysql["createService"] = json!({});
    json!({"databases": [mysql, database("orders", &ips[2..])], "prune": true})
}

/// Returns the rights for this config as `external-endpoints rbac` prints them. The chart's are the
/// same; the trials of `derived` and the one below hold that.
fn expected_rights() -> Vec<Right> {
    let config = config(WATCHED, &["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(str::to_owned));
    // The trials run beside each other: each has a file of its own.
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(&file, config.to_string()).expect("a temporary file");
    let account = format!("{HOME}/{RELEASE}");
    let output = Command::new(PROGRAM)
        .args(["rbac", "--service-account", &account])
        .arg(file.path())
        .output()
        .expect("the daemon's program");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    rights(&documents(&String::from_utf8(output.stdout).expect("UTF-8")))
}

pub(crate) fn cases() -> Vec<Trial> {
    let rights = expected_rights();
    let mut cases: Vec<Trial> = rights
        .iter()
        .cloned()
        .map(|right| trial(right.test_name(), async move || fails_without(right).await))
        .collect();
    cases.push(trial("minimal::all_rights_are_enough".to_owned(), async move || {
        let done = Job::start(None, &rights).await.run("mysql").await;
        done.unwrap_or_else(|error| panic!("{error}"));
    }));
    cases
}

fn trial<F: Future<Output = ()>>(name: String, body: impl FnOnce() -> F + Send + 'static) -> Trial {
    let what = name.clone();
    Trial::test(name, move || {
        runtime().block_on(with_timeout(CASE_TIMEOUT, &what, body()));
        Ok(())
    })
}

/// Checks that the job fails without this right, and that the daemon says so.
async fn fails_without(right: Right) {
    // The names of a database are used when it leaves.
    let leaves = if right.name == "orders" { "orders" } else { "mysql" };
    let done = Job::start(Some(&right), &expected_rights()).await.run(leaves).await;
    let Err(refusal) = done else { panic!("the job is done without {right:?}") };
    let words = ["may not", &right.resource];
    assert!(words.iter().all(|words| refusal.contains(words)), "{right:?}: {refusal}");
}

/// A daemon with the rights of the chart, perhaps without one of them.
struct Job {
    home: Namespace,
    watched: Namespace,
    databases: Vec<Database>,
    config: Value,
    proxy: ApiProxy<'static>,
    daemon: Daemon,
}

impl Job {
    async fn start(without: Option<&Right>, expected: &[Right]) -> Job {
        let home = shared().namespace(HOME).await;
        let watched = shared().namespace(WATCHED).await;
        let mut databases = Vec::new();
        for ip in addresses::allocate(3) {
            databases.push(Database::start(ip, 3306).await);
        }
        let ips = [0, 1, 2].map(|index: usize| databases[index].ip.to_string());
        let config = config(&watched.name, &ips);
        watched.create_service("orders", &[("", 3306)]).await;
        home.create_service_account(RELEASE).await;
        let values = json!({"config": config, "namespaceOverride": home.name});
        let objects = blocking(move || rendered(&values)).await;
        let named = |right: &Right| {
            let is_home = right.namespace == HOME;
            Right {
                namespace: if is_home { &home } else { &watched }.name.clone(),
                ..right.clone()
            }
        };
        let rights = rights(&objects);
        let mut expected: Vec<Right> = expected.iter().map(named).collect();
        expected.sort();
        assert_eq!(rights, expected, "each right of the chart has its trial");
        let without = without.map(named);
        for namespace in [&home, &watched] {
            let of_namespace = rights.iter().filter(|right| right.namespace == namespace.name);
            let kept = of_namespace.filter(|right| Some(*right) != without.as_ref());
            let kept: Vec<Value> = kept.map(Right::rule).collect();
            let metadata = json!({"name": RELEASE});
            namespace.create_object::<Role>(json!({"metadata": metadata, "rules": kept})).await;
        }
        for binding in all(&objects, "RoleBinding") {
            let is_home = binding["metadata"]["namespace"] == home.name.as_str();
            let namespace = if is_home { &home } else { &watched };
            namespace.create_object::<RoleBinding>(binding.clone()).await;
        }
        let token = home.token(RELEASE).await;
        let kept: Vec<&Right> =
            rights.iter().filter(|right| Some(*right) != without.as_ref()).collect();
        wait_for_rights(&token, &kept).await;
        let proxy = ApiProxy::start(shared()).await;
        let lease = ["--lease", &format!("{}/{RELEASE}", home.name)];
        let kubeconfig = proxy.kubeconfig_for_token(&token);
        let daemon = Daemon::start(&config.to_string(), &kubeconfig, &lease).await;
        Job { home, watched, databases, config, proxy, daemon }
    }

    /// Does everything that needs a right. Returns the first refusal.
    async fn run(mut self, leaves: &str) -> Result<(), String> {
        self.published().await?;
        self.repeated_events().await?;
        for (object, address) in [("endpoints", 1), ("slice", 1), ("orders", 2)] {
            self.conflict(object, address).await?;
        }
        self.bad_configs().await?;
        self.prune(leaves).await
    }

    /// Returns what the daemon was refused.
    async fn refusal(&self) -> Option<String> {
        let status = self.daemon.status().await.to_string();
        let lines = self.daemon.lines();
        let texts = lines.iter().chain([&status]);
        let mut refusals = texts.filter_map(|text| {
            let said = &text[text.find("may not ")?..];
            Some(said.split(';').next().unwrap_or_default().to_owned())
        });
        refusals.next_back()
    }

    /// Waits until an attempt succeeds. Fails as soon as the daemon is refused something.
    async fn until(&self, what: &str, attempt: impl AsyncFn() -> bool) -> Result<(), String> {
        let began = Instant::now();
        while !attempt().await {
            if let Some(refusal) = self.refusal().await {
                return Err(refusal);
            }
            if began.elapsed() > PART_TIMEOUT {
                return Err(format!("not within {PART_TIMEOUT:?}: {what}"));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.refusal().await.map_or(Ok(()), Err)
    }

    fn ips(&self, which: &[usize]) -> Vec<String> {
        let mut ips: Vec<_> = which.iter().map(|index| self.databases[*index].ip).collect();
        ips.sort();
        ips.iter().map(ToString::to_string).collect()
    }

    /// Waits until both databases are published with all of their addresses.
    async fn published(&self) -> Result<(), String> {
        let (mysql, orders) = (self.ips(&[0, 1]), self.ips(&[2]));
        self.until("all is published", async || {
            let slices: Option<EndpointSlice> =
                self.watched.api().get_opt("mysql-external-ipv4-1").await.expect("a read");
            let ready = slices.map_or(0, |slice| slice.endpoints.len());
            let status = self.daemon.status().await;
            let all = status["databases"].as_array().expect("databases").iter();
            self.watched.endpoint_ips("mysql").await == mysql
                && self.watched.endpoint_ips("orders").await == orders
                && ready == 2
                && all.clone().all(|database| database["condition"] == "Published")
        })
        .await
    }

    /// Lets an address die and return until an Event is repeated.
    async fn repeated_events(&mut self) -> Result<(), String> {
        for _ in 0..8 {
            self.databases[1].stop().await;
            let rest = self.ips(&[0]);
            self.until("it is gone", async || self.watched.endpoint_ips("mysql").await == rest)
                .await?;
            self.databases[1].restart().await;
            self.published().await?;
            if count(&self.watched).await > 1 {
                return Ok(());
            }
        }
        self.until("an Event is repeated", async || count(&self.watched).await > 1).await
    }

    /// Edits an object while the daemon writes it, until a write conflicts.
    async fn conflict(&mut self, object: &str, address: usize) -> Result<(), String> {
        let service = if object == "orders" { "orders" } else { "mysql" };
        let conflicts = async |job: &Job| {
            let labels = [("service", service), ("result", "conflict")];
            job.daemon.metric("external_endpoints_writes_total", &labels).await.unwrap_or(0.0)
        };
        let before = conflicts(self).await;
        self.proxy.slow(DELAY);
        self.databases[address].stop().await;
        let edited = self
            .until("a write conflicts", async || {
                match object {
                    "slice" => touch::<EndpointSlice>(&self.watched, "mysql-external-ipv4-1").await,
                    _ => touch::<Endpoints>(&self.watched, service).await,
                }
                conflicts(self).await > before
            })
            .await;
        self.proxy.heal().await;
        self.databases[address].restart().await;
        edited?;
        self.published().await
    }

    /// Gives the daemon bad configs until an Event about them is repeated.
    async fn bad_configs(&self) -> Result<(), String> {
        for wanted in [1, 2] {
            self.write_config("databases: 1\n");
            self.until("an Event about the config", async || count(&self.home).await >= wanted)
                .await?;
            self.write_config(&self.config.to_string());
            self.until("the config is good again", async || {
                self.daemon.status().await["config"]["error"].is_null()
                    && self.daemon.metric(LOADED, &[]).await == Some(1.0)
            })
            .await?;
        }
        Ok(())
    }

    fn write_config(&self, text: &str) {
        fs::write(self.daemon.config(), text).expect("our own file");
    }

    /// Takes a database out of the config, and waits until its objects are gone.
    async fn prune(&self, leaves: &str) -> Result<(), String> {
        let mut config = self.config.clone();
        let databases = config["databases"].as_array_mut().expect("databases");
        databases.retain(|database| database["service"] != leaves);
        self.write_config(&config.to_string());
        self.until("it is pruned", async || {
            let api: Api<Service> = self.watched.api();
            let slice: Option<EndpointSlice> =
                self.watched.api().get_opt("mysql-external-ipv4-1").await.expect("a read");
            let service = api.get_opt(leaves).await.expect("a read").is_some();
            self.watched.endpoints(leaves).await.is_none()
                && (leaves == "orders" || slice.is_none() && !service)
        })
        .await
    }
}

const LOADED: &str = "external_endpoints_config_last_load_successful";

/// Returns the highest count of an Event in a namespace.
async fn count(namespace: &Namespace) -> i32 {
    let events = namespace.api::<Event>().list(&ListParams::default()).await.expect("Events");
    events.items.iter().filter_map(|event| event.count).max().unwrap_or(0)
}

/// Changes an object so that writes for its version before conflict.
async fn touch<K>(namespace: &Namespace, name: &str)
where
    K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + serde::de::DeserializeOwned
        + std::fmt::Debug,
{
    let now = format!("{:?}", Instant::now());
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"example.com/touched": now}}}));
    let api: Api<K> = namespace.api();
    api.patch(name, &PatchParams::default(), &patch).await.expect("a patch");
}

/// Waits until the authorizer knows these rights.
async fn wait_for_rights(token: &str, rights: &[&Right]) {
    let client = shared().client_with_token(token).await;
    for right in rights {
        let Right { namespace, verb, group, resource, name } = right;
        let review = json!({"spec": {"resourceAttributes": {
            "namespace": namespace, "verb": verb, "group": group, "resource": resource,
            "name": name,
        }}});
        let review: SelfSubjectAccessReview = serde_json::from_value(review).expect("a review");
        eventually(Duration::from_secs(30), "the rights are known", async || {
            let api: Api<SelfSubjectAccessReview> = Api::all(client.clone());
            let answer = api.create(&PostParams::default(), &review).await;
            answer.is_ok_and(|answer| answer.status.is_some_and(|status| status.allowed))
        })
        .await;
    }
}
