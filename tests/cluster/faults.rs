//! Faults of the API: checks go on, and the newest decision is written when the API is back.

use std::time::Duration;

use external_endpoints::endpoints::{self, Mirror};
use external_endpoints::plan::{Member, Members};
use k8s_openapi::api::core::v1::{
    ConfigMap, EndpointPort, Endpoints, Namespace as KubeNamespace, Service,
};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::cluster::fixture::{Fixture, TIMEOUT, databases_of, wait_for_checks};
use crate::support::{
    ApiProxy, ControlPlane, Daemon, Options, addresses, case::cases, consistently, eventually,
    rbac, shared,
};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        the_api_server_is_killed_while_a_database_dies,
        the_api_server_is_paused_for_ten_seconds,
        the_api_is_refused_hanging_and_cut_off,
        the_api_answers_with_errors,
        the_api_hangs_at_startup,
        the_api_is_unreachable_at_startup,
        a_namespace_that_is_being_deleted_takes_no_writes,
        endpoints_deleted_with_their_service_do_not_come_back,
        an_apply_on_deleted_endpoints_is_refused,
        a_forbidden_watch_is_logged_once,
        forbidden_names_the_role,
        a_missing_right_affects_only_its_namespace,
    ]
}

/// Waits until the daemon has found this many targets up.
async fn up(daemon: &Daemon, targets: f64) {
    eventually(TIMEOUT, &format!("{targets} targets are up"), async || {
        let up = daemon.metric("external_endpoints_target_healthy", &[]).await;
        if up == Some(targets) { Ok(()) } else { Err(format!("{up:?}")) }
    })
    .await;
}

async fn the_api_server_is_killed_while_a_database_dies() {
    let plane = ControlPlane::start(Options::default()).await;
    let mut fixture = Fixture::on(plane.namespace("killed").await).await;
    fixture.namespace.create_service("mysql", &[("", 3306)]).await;
    let daemon = Daemon::start(&fixture.config(), &plane.kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    plane.kill_api().await;
    fixture.databases[0].stop().await;
    up(&daemon, 2.0).await;
    fixture.expect_condition(&daemon, "ApiUnavailable").await;
    plane.start_api().await;
    fixture.expect_endpoints(&[1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

async fn the_api_server_is_paused_for_ten_seconds() {
    let plane = ControlPlane::start(Options::default()).await;
    let mut fixture = Fixture::on(plane.namespace("paused").await).await;
    fixture.namespace.create_service("mysql", &[("", 3306)]).await;
    let daemon = Daemon::start(&fixture.config(), &plane.kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
    let history = fixture.history().await;
    plane.pause_api();
    fixture.databases[0].stop().await;
    up(&daemon, 2.0).await;
    let before = daemon.metric("external_endpoints_checks_total", &[]).await;
    // The write of a first decision hangs. A second decision overtakes it.
    fixture.databases[1].stop().await;
    up(&daemon, 1.0).await;
    fixture.expect_condition(&daemon, "ApiUnavailable").await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let after = daemon.metric("external_endpoints_checks_total", &[]).await;
    assert!(after >= before.map(|n| n + 40.0), "checking goes on: {before:?} to {after:?}");
    plane.resume_api();
    fixture.expect_endpoints(&[2]).await;
    fixture.expect_condition(&daemon, "Published").await;
    // The write that hung may arrive first, but nothing older may follow the newest decision.
    consistently(Duration::from_secs(3), "the newest decision stays", async || {
        let steps = history.steps();
        if steps.last() == Some(&Some(fixture.ips(&[2]))) && steps.len() <= 2 {
            Ok(())
        } else {
            Err(format!("{steps:?}"))
        }
    })
    .await;
}

async fn the_api_is_refused_hanging_and_cut_off() {
    let mut fixture = Fixture::new("proxied").await;
    let proxy = ApiProxy::start(shared()).await;
    let daemon = Daemon::start(&fixture.config(), &proxy.kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;

    proxy.refuse().await;
    fixture.databases[0].stop().await;
    fixture.expect_condition(&daemon, "ApiUnavailable").await;
    up(&daemon, 2.0).await;
    proxy.heal().await;
    fixture.expect_endpoints(&[1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;

    proxy.hang();
    fixture.databases[1].stop().await;
    fixture.expect_condition_with(&daemon, "ApiUnavailable", "patch endpoints").await;
    fixture.databases[0].restart().await;
    up(&daemon, 2.0).await;
    proxy.heal().await;
    fixture.expect_endpoints(&[0, 2]).await;

    proxy.cut();
    fixture.databases[1].restart().await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

async fn the_api_answers_with_errors() {
    let mut fixture = Fixture::new("errors").await;
    let proxy = ApiProxy::start(shared()).await;
    let daemon = Daemon::start(&fixture.config(), &proxy.kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    for (down, status) in [(0, 429), (1, 500), (2, 503)] {
        proxy.answer(status);
        fixture.databases[down].stop().await;
        fixture.expect_condition_with(&daemon, "ApiUnavailable", &status.to_string()).await;
        up(&daemon, 2.0).await;
        proxy.heal().await;
        let rest: Vec<usize> = (0..3).filter(|index| *index != down).collect();
        fixture.expect_endpoints(&rest).await;
        fixture.databases[down].restart().await;
        fixture.expect_endpoints(&[0, 1, 2]).await;
    }
    // Every write conflicts.
    proxy.answer(409);
    fixture.databases[1].stop().await;
    fixture.expect_condition_with(&daemon, "ApiUnavailable", "409").await;
    proxy.heal().await;
    fixture.expect_endpoints(&[0, 2]).await;
    fixture.databases[1].restart().await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    // A write waits already when every call begins to conflict, also that which reads the Service
    // before the write.
    proxy.refuse().await;
    fixture.databases[2].stop().await;
    up(&daemon, 2.0).await;
    fixture.expect_condition_with(&daemon, "ApiUnavailable", "get services").await;
    proxy.answer(409);
    fixture.expect_condition_with(&daemon, "ApiUnavailable", "409").await;
    proxy.heal().await;
    fixture.expect_endpoints(&[0, 1]).await;
    fixture.databases[2].restart().await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    // A version that a watch asks for may be gone (410), which leads to a new list.
    proxy.answer(410);
    fixture.databases[0].stop().await;
    up(&daemon, 2.0).await;
    proxy.heal().await;
    fixture.expect_endpoints(&[1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

async fn the_api_hangs_at_startup() {
    let fixture = Fixture::new("hanging").await;
    let proxy = ApiProxy::start(shared()).await;
    // First it accepts requests and answers none, then it does not even complete a TLS handshake.
    proxy.ignore_requests();
    let daemon = Daemon::start(&fixture.config(), &proxy.kubeconfig(), &[]).await;
    fixture.expect_condition_with(&daemon, "ApiUnavailable", "no answer in 10s").await;
    proxy.hang();
    fixture.expect_condition_with(&daemon, "ApiUnavailable", "no connection").await;
    assert_eq!(daemon.get("/readyz").await.0, 503);
    proxy.heal().await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

async fn a_namespace_that_is_being_deleted_takes_no_writes() {
    let fixture = Fixture::without_service("terminated").await;
    let daemon = fixture.start_with("  createService: {}\n").await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    // A finalizer keeps the namespace from being deleted.
    let held = json!({"metadata": {"name": "held", "finalizers": ["example.com/wait"]}});
    fixture.namespace.create_object::<ConfigMap>(held).await;
    let namespaces: Api<KubeNamespace> = Api::all(fixture.namespace.client.clone());
    let name = &fixture.namespace.name;
    namespaces.delete(name, &DeleteParams::default()).await.expect("a deletion");
    fixture.expect_condition_with(&daemon, "WaitingForService", "is being deleted").await;
    wait_for_checks(&daemon, 8).await;
    fixture.expect_condition(&daemon, "WaitingForService").await;
    assert!(fixture.namespace.endpoints("mysql").await.is_none());
    let release = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    let held: Api<ConfigMap> = fixture.namespace.api();
    held.patch("held", &PatchParams::default(), &release).await.expect("a patch");
    eventually(TIMEOUT, "it is gone", async || {
        namespaces.get_opt(name).await.expect("a read").is_none()
    })
    .await;
    // A Service cannot be created in it.
    fixture.expect_condition_with(&daemon, "WaitingForService", "there is no namespace").await;
    assert!(
        daemon.logs().iter().all(|line| line["condition"] != "Forbidden"),
        "{:#?}",
        daemon.lines()
    );
}

async fn endpoints_deleted_with_their_service_do_not_come_back() {
    let mut fixture = Fixture::new("gone").await;
    let proxy = ApiProxy::start(shared()).await;
    let daemon = Daemon::start(&fixture.config(), &proxy.kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    proxy.refuse().await;
    // A write is pending when the object that it is based on is deleted.
    fixture.databases[0].stop().await;
    up(&daemon, 2.0).await;
    fixture.expect_condition(&daemon, "ApiUnavailable").await;
    fixture.namespace.delete::<Service>("mysql").await;
    eventually(TIMEOUT, "Kubernetes deletes the Endpoints", async || {
        fixture.namespace.endpoints("mysql").await.is_none()
    })
    .await;
    let history = fixture.history().await;
    proxy.heal().await;
    fixture.expect_condition(&daemon, "WaitingForService").await;
    wait_for_checks(&daemon, 8).await;
    assert_eq!(history.steps(), [], "no Endpoints without a Service");
}

/// Checks on a real API that the placeholder and the UID are necessary: an apply alone would create
/// a deleted object again.
async fn an_apply_on_deleted_endpoints_is_refused() {
    let namespace = shared().namespace("facts").await;
    let api: Api<Endpoints> = namespace.api();
    let apply = async |endpoints: &Endpoints| {
        api.patch(
            "mysql",
            &PatchParams::apply("external-endpoints").force(),
            &Patch::Apply(endpoints),
        )
        .await
    };
    let blank = apply(&endpoints::placeholder(&namespace.name, "mysql")).await.expect("created");
    assert!(endpoints::is_placeholder(&blank), "nobody has said anything in it: {blank:?}");
    let member = Member { ip: addresses::allocate_one(), hostname: None };
    let port = EndpointPort { port: 3306, protocol: Some("TCP".into()), ..Default::default() };
    let members: Members = [member].into_iter().collect();
    let filled =
        endpoints::build(&blank.metadata, &members, std::slice::from_ref(&port), Mirror::Yes);
    let held = apply(&filled).await.expect("filled");
    assert!(
        endpoints::matches(&held, &members, &[port], Mirror::Yes),
        "as it was written: {held:?}"
    );

    let conflict = |answer: kube::Result<Endpoints>| match answer {
        Err(kube::Error::Api(status)) => assert_eq!(status.code, 409, "{status}"),
        other => panic!("not refused: {other:?}"),
    };
    conflict(apply(&filled).await);
    namespace.delete::<Endpoints>("mysql").await;
    conflict(apply(&filled).await);
    apply(&endpoints::placeholder(&namespace.name, "mysql")).await.expect("created again");
    conflict(apply(&filled).await);
}

async fn the_api_is_unreachable_at_startup() {
    let mut fixture = Fixture::new("late").await;
    let daemon = fixture.start_published().await;
    drop(daemon);
    fixture.databases[2].stop().await;
    let history = fixture.history().await;
    let proxy = ApiProxy::start(shared()).await;
    proxy.refuse().await;
    let daemon = Daemon::start(&fixture.config(), &proxy.kubeconfig(), &[]).await;
    fixture.expect_condition(&daemon, "ApiUnavailable").await;
    assert_eq!(daemon.get("/readyz").await.0, 503);
    assert_eq!(daemon.get("/healthz").await.0, 200);
    wait_for_checks(&daemon, 6).await;
    let is_that_line = |line: &serde_json::Value| {
        line["message"] == "target fails; it will be down once the cluster has been read"
    };
    assert_eq!(
        daemon.logs().iter().filter(|line| is_that_line(line)).count(),
        1,
        "{:#?}",
        daemon.lines()
    );
    proxy.heal().await;
    fixture.expect_endpoints(&[0, 1]).await;
    history.expect_steps(&[Some(fixture.ips(&[0, 1]))]).await;
    assert_eq!(daemon.get("/readyz").await.0, 200);
}

/// Grants rights to a ServiceAccount `daemon` in the fixture's namespace. Returns its token.
pub(crate) async fn account(fixture: &Fixture, rules: serde_json::Value) -> String {
    fixture.namespace.create_service_account("daemon").await;
    rbac::grant(&fixture.namespace, "daemon", rules).await;
    fixture.namespace.token("daemon").await
}

async fn forbidden_names_the_role() {
    let fixture = Fixture::new("forbidden").await;
    let rules = json!([
        rbac::rule("services", rbac::READ),
        rbac::rule("endpoints", rbac::READ),
        rbac::rule("endpointslices.discovery.k8s.io", rbac::READ),
    ]);
    let token = account(&fixture, rules).await;
    let daemon =
        Daemon::start(&fixture.config(), &shared().kubeconfig_for_token(&token), &[]).await;
    let reason = fixture.expect_condition(&daemon, "Forbidden").await;
    let namespace = &fixture.namespace.name;
    assert!(
        reason.starts_with(&format!(
            "may not patch endpoints mysql in namespace {namespace}; allow it there with a Role"
        )),
        "{reason}"
    );
    // The rule that the daemon names is sufficient.
    let role = json!({"rules": [
        rbac::rule("services", rbac::READ),
        rbac::rule("endpoints", rbac::READ),
        rbac::rule("endpointslices.discovery.k8s.io", rbac::READ),
        rbac::rule_for_names("endpoints", &["mysql"], &["get", "create", "patch"]),
    ]});
    let api: kube::Api<k8s_openapi::api::rbac::v1::Role> = fixture.namespace.api();
    api.patch("daemon", &Default::default(), &kube::api::Patch::Merge(role))
        .await
        .expect("a patch");
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

async fn a_missing_right_affects_only_its_namespace() {
    let fixture = Fixture::new("allowed").await;
    let other = Fixture::new("closed").await;
    let rules = json!([
        rbac::rule("services", rbac::READ),
        rbac::rule("endpoints", rbac::READ),
        rbac::rule("endpointslices.discovery.k8s.io", rbac::READ),
        rbac::rule_for_names("endpoints", &["mysql"], &["create", "patch"]),
    ]);
    let token = account(&fixture, rules).await;
    let both = fixture.config() + databases_of(&other.config());
    let daemon = Daemon::start(&both, &shared().kubeconfig_for_token(&token), &[]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
    let status = daemon.status().await;
    let closed = &status["databases"][1];
    assert_eq!(closed["condition"], "Forbidden", "{closed}");
    let reason = closed["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("may not list "), "{reason}");
    assert!(other.namespace.endpoints("mysql").await.is_none());
}

async fn a_forbidden_watch_is_logged_once() {
    let mut fixture = Fixture::new("blind").await;
    let rules = json!([
        rbac::rule("services", &["get", "list"]),
        rbac::rule("endpoints", &["get", "list"]),
        rbac::rule("endpointslices.discovery.k8s.io", &["get", "list"]),
        rbac::rule_for_names("endpoints", &["mysql"], &["create", "patch"]),
    ]);
    let token = account(&fixture, rules).await;
    let daemon =
        Daemon::start(&fixture.config(), &shared().kubeconfig_for_token(&token), &[]).await;
    let reason = fixture.expect_condition(&daemon, "Forbidden").await;
    assert!(reason.starts_with("may not watch "), "{reason}");
    // Lists are allowed, so publishing works nevertheless.
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    wait_for_checks(&daemon, 20).await;
    let logged = daemon.logs().iter().filter(|line| line["condition"] == "Forbidden").count();
    // At most once for each kind, in any order, and again after a write.
    assert!(logged <= 9, "logged {logged} times: {:#?}", daemon.lines());
}
