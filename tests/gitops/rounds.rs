//! Rounds of deliveries, with a database that dies or returns in each.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Service};
use kube::ResourceExt as _;
use kube::api::{Api, ObjectMeta, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::fixture::{CHECK, Fixture, TIMEOUT, config, databases_of, replace_in};
use crate::gitops::manifests::{Repository, has_extra};
use crate::gitops::tools::{Tool, succeed};
use crate::support::daemon::PROGRAM;
use crate::support::{Daemon, eventually, runtime, shared, with_timeout};

const ROUNDS: u32 = 20;

/// Far longer than the rounds of all tools take beside each other on a busy machine.
const CASE_TIMEOUT: Duration = Duration::from_secs(900);

const MAINTENANCE: &str = "external-endpoints/maintenance";

pub(crate) fn cases() -> Vec<Trial> {
    let rounds = [
        ("flux", Tool::Flux),
        ("argo_client_side", Tool::ArgoClientSide),
        ("argo_server_side", Tool::ArgoServerSide),
        ("kubectl_client_side", Tool::KubectlClientSide),
        ("kubectl_server_side", Tool::KubectlServerSide),
        ("helm_client_side", Tool::HelmClientSide),
        ("helm_server_side", Tool::HelmServerSide),
    ];
    let mut cases: Vec<Trial> = rounds
        .into_iter()
        .map(|(name, tool)| case(format!("rounds::{name}"), async move || deliver(tool).await))
        .collect();
    cases.push(case("flux_removes_what_kubectl_has_set".to_owned(), flux_and_kubectl));
    cases
}

pub(crate) fn case<F: Future<Output = ()>>(
    name: String,
    body: impl FnOnce() -> F + Send + 'static,
) -> Trial {
    let what = name.clone();
    Trial::test(name, move || {
        runtime().block_on(with_timeout(CASE_TIMEOUT, &what, body()));
        Ok(())
    })
}

/// A namespace into which a tool delivers, and a daemon that publishes in it: `mysql` by Endpoints
/// and `orders` by EndpointSlices.
struct Scene {
    fixture: Fixture,
    repository: Repository,
    tool: Tool,
    daemon: Daemon,
}

impl Scene {
    /// Delivers the Services, then starts the daemon, and takes the third address out.
    async fn new(tool: Tool) -> Scene {
        let fixture = Fixture::without_service("gitops").await;
        let name = fixture.namespace.name.clone();
        let repository = Repository::new(&name);
        repository.commit(0);
        tool.deliver(&repository, &name).await;
        let ips = fixture.ips(&[0, 1, 2]).join(", ");
        // A database that comes and goes as often as here would be kept out for flapping.
        let policy = "  policy: {maxFlips: 1000}\n";
        let slices = config(&name, &ips, CHECK, &format!("{policy}  publish: slices\n"));
        let slices = replace_in(&slices, "service: mysql", "service: orders");
        let yaml = config(&name, &ips, CHECK, policy) + databases_of(&slices);
        let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
        let scene = Scene { fixture, repository, tool, daemon };
        scene.expect_members(&[0, 1, 2]).await;
        for service in ["mysql", "orders"] {
            let id = format!("{name}/{service}");
            let address = &scene.fixture.ips(&[2])[0];
            command(&[
                "maintenance",
                "on",
                &id,
                address,
                "--reason",
                "disk swap",
                "--for",
                "2h",
                "--url",
                &scene.daemon.url(),
            ])
            .await;
            command(&["failback", &id]).await;
            scene.annotate(service, "someone", json!({"example.com/note": "keep"})).await;
        }
        scene.expect_members(&[0, 1]).await;
        scene
    }

    async fn annotate(&self, service: &str, manager: &str, annotations: Value) {
        let api: Api<Service> = self.fixture.namespace.api();
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
        let params = PatchParams { field_manager: Some(manager.to_owned()), ..<_>::default() };
        api.patch(service, &params, &patch).await.expect("a patch");
    }

    async fn deliver(&self) -> String {
        self.tool.deliver(&self.repository, &self.fixture.namespace.name).await
    }

    /// Waits until both Services have exactly these databases.
    async fn expect_members(&self, which: &[usize]) {
        self.fixture.expect_endpoints(which).await;
        let wanted = self.fixture.ips(which);
        eventually(TIMEOUT, &format!("the slices have {wanted:?}"), async || {
            let there = self.fixture.namespace.slice_ips("orders").await;
            if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
        })
        .await;
    }

    async fn annotations(&self, service: &str) -> BTreeMap<String, String> {
        let service: Service =
            self.fixture.namespace.api().get(service).await.expect("the Service");
        service.annotations().clone()
    }

    /// Returns what is not the tool's: the annotations of the Services that others have set, with
    /// their managers.
    async fn foreign(&self) -> Vec<(String, Option<String>, BTreeSet<String>)> {
        let mut foreign = Vec::new();
        for service in ["mysql", "orders"] {
            let object: Service =
                self.fixture.namespace.api().get(service).await.expect("the Service");
            for name in [MAINTENANCE, "external-endpoints/failback", "example.com/note"] {
                let value = object.annotations().get(name).cloned();
                let managers = managers(&object.metadata, name);
                foreign.push((format!("{service} {name}"), value, managers));
            }
        }
        foreign
    }

    /// Returns the metadata of what the daemon has written and of the Services.
    async fn objects(&self) -> Vec<ObjectMeta> {
        let namespace = &self.fixture.namespace;
        let mut all: Vec<ObjectMeta> = self.published().await;
        let services: Api<Service> = namespace.api();
        let services = services.list(&Default::default()).await.expect("Services").items;
        all.extend(services.into_iter().map(|service| service.metadata));
        all
    }

    /// Returns the metadata of what the daemon has written, and of what Kubernetes has mirrored.
    async fn published(&self) -> Vec<ObjectMeta> {
        let namespace = &self.fixture.namespace;
        let endpoints = namespace.endpoints("mysql").await.expect("the Endpoints");
        let mut all = vec![endpoints.metadata];
        for service in ["mysql", "orders"] {
            all.extend(namespace.slices(service).await.into_iter().map(|slice| slice.metadata));
        }
        all
    }

    async fn versions(&self) -> Vec<(Option<String>, Option<String>)> {
        let objects = self.objects().await;
        objects.into_iter().map(|it| (it.name, it.resource_version)).collect()
    }

    async fn writes(&self) -> f64 {
        self.daemon.metric("external_endpoints_writes_total", &[]).await.unwrap_or_default()
    }
}

/// Returns the managers of an annotation.
fn managers(metadata: &ObjectMeta, annotation: &str) -> BTreeSet<String> {
    let name = format!("f:{annotation}");
    let owns = |fields: &Value| fields["f:metadata"]["f:annotations"].get(&name).is_some();
    let entries = metadata.managed_fields.iter().flatten();
    entries
        .filter(|entry| entry.fields_v1.as_ref().is_some_and(|fields| owns(&fields.0)))
        .filter_map(|entry| entry.manager.clone())
        .collect()
}

async fn command(arguments: &[&str]) {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).env("KUBECONFIG", shared().kubeconfig());
    succeed(command).await;
}

/// Delivers round after round. In each, a database dies or returns while the tool is at work.
async fn deliver(tool: Tool) {
    let mut scene = Scene::new(tool).await;
    let (foreign, writes) = (scene.foreign().await, scene.writes().await);
    assert!(foreign.iter().all(|(_, value, _)| value.is_some()), "{foreign:?}");
    let history = scene.fixture.history().await;
    let mut steps = Vec::new();
    for round in 1..=ROUNDS {
        scene.repository.commit(round);
        let members: &[usize] = if round.is_multiple_of(2) { &[0, 1] } else { &[1] };
        let mut databases = std::mem::take(&mut scene.fixture.databases);
        let change = async {
            match round.is_multiple_of(2) {
                true => databases[0].restart().await,
                false => databases[0].stop().await,
            }
        };
        let (_, ()) = futures::join!(scene.deliver(), change);
        scene.fixture.databases = databases;
        scene.expect_members(members).await;
        steps.push(Some(scene.fixture.ips(members)));
        expect_delivered(&scene, round).await;

        let before = scene.versions().await;
        let printed = scene.deliver().await;
        tool.expect_no_change(&printed, &scene.repository, &scene.fixture.namespace.name).await;
        assert_eq!(scene.versions().await, before, "round {round}: a second delivery changes");
        assert_eq!(scene.foreign().await, foreign, "round {round}");
        expect_own(&scene, round).await;
    }
    // Each change of a database is one change of each object, and nothing else is one.
    history.expect_steps(&steps).await;
    let written = scene.writes().await - writes;
    assert!((written - f64::from(2 * ROUNDS)).abs() < 0.5, "{written} writes");
}

/// Panics unless the tool has delivered a round: otherwise it would prove nothing.
async fn expect_delivered(scene: &Scene, round: u32) {
    for service in ["mysql", "orders"] {
        let annotations = scene.annotations(service).await;
        let there = annotations.get("example.com/round");
        assert_eq!(there, Some(&round.to_string()), "{service}");
    }
    let maps: Api<ConfigMap> = scene.fixture.namespace.api();
    let extra = maps.get_opt("extra").await.expect("a ConfigMap or none");
    if has_extra(round) || scene.tool.prunes() {
        assert_eq!(extra.is_some(), has_extra(round), "round {round}: `extra`");
    }
}

/// Panics if something of the tool is on an object of the daemon.
async fn expect_own(scene: &Scene, round: u32) {
    for object in scene.published().await {
        let labels = object.labels.iter().flatten();
        for (name, _) in labels.chain(object.annotations.iter().flatten()) {
            let is_ours = name.starts_with("endpoints.kubernetes.io/")
                || name.starts_with("endpointslice.kubernetes.io/")
                || name == "kubernetes.io/service-name";
            assert!(is_ours, "round {round}: {:?} has {name}", object.name);
        }
    }
}

/// Shows why the commands have a field manager of their own.
async fn flux_and_kubectl() {
    let scene = Scene::new(Tool::Flux).await;
    let address = &scene.fixture.ips(&[1])[0];
    let value = scene.annotations("mysql").await[MAINTENANCE].clone();
    let other = scene.annotations("orders").await[MAINTENANCE].clone();
    let both = json!({MAINTENANCE: format!("{value}, {address}=by kubectl")});
    scene.annotate("mysql", "kubectl-annotate", both).await;
    scene.fixture.expect_endpoints(&[0]).await;
    scene.deliver().await;
    assert_eq!(scene.annotations("mysql").await.get(MAINTENANCE), None);
    scene.fixture.expect_endpoints(&[0, 1, 2]).await;
    assert_eq!(scene.annotations("orders").await[MAINTENANCE], other, "the command's own stays");
    let note = scene.annotations("mysql").await.get("example.com/note").cloned();
    assert_eq!(note.as_deref(), Some("keep"));
}
