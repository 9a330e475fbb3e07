//! Events on the Service: brief, without secrets, and never in the way of a check or a write.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt as _;
use kube::api::Api;
use libtest_mimic::Trial;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::cluster::fixture::{
    CHECK, Fixture, TIMEOUT, config, databases_of, replace_in, wait_for_checks,
};
use crate::cluster::lease::replicas::{identity, pair, takes_over, up};
use crate::cluster::ownership::merge;
use crate::support::{Daemon, Namespace, case::cases, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        repetitions_are_counted_once_a_minute,
        targets_and_writes_have_events_on_the_service,
        refusals_have_events_with_their_reason,
        a_database_that_left_the_config_is_left_behind,
        a_split_brain_has_an_event,
        of_two_replicas_only_the_leader_emits_events,
        a_bad_config_has_an_event_on_the_lease,
        no_event_contains_a_secret,
        without_the_right_everything_else_continues,
    ]
}

/// Lists the Events with this reason, the oldest first.
pub(crate) async fn events(namespace: &Namespace, reason: &str) -> Vec<Event> {
    let api: Api<Event> = namespace.api();
    let mut events = api.list(&Default::default()).await.expect("listing Events").items;
    events.retain(|event| event.reason.as_deref() == Some(reason));
    events.sort_by_key(|event| event.event_time.as_ref().map(|time| time.0));
    events
}

/// Waits for an Event with this reason and a note that contains this text.
pub(crate) async fn expect_event(namespace: &Namespace, reason: &str, words: &str) -> Event {
    eventually(TIMEOUT, &format!("Event {reason}, {words:?}"), async || {
        let events = events(namespace, reason).await;
        let notes: Vec<_> = events.iter().filter_map(|event| event.note.clone()).collect();
        let found = events
            .into_iter()
            .find(|event| event.note.as_deref().is_some_and(|note| note.contains(words)));
        found.ok_or(format!("{notes:?}"))
    })
    .await
}

/// Waits for an Event on this Service with this reason and a note that contains this text.
pub(crate) async fn expect_event_on(
    namespace: &Namespace,
    service: &str,
    reason: &str,
    words: &str,
) {
    let regards =
        |event: &Event| event.regarding.as_ref().and_then(|it| it.name.as_deref()) == Some(service);
    eventually(TIMEOUT, &format!("Event {reason} on {service}, {words:?}"), async || {
        let events = events(namespace, reason).await;
        let notes: Vec<_> = events
            .iter()
            .filter(|event| regards(event))
            .filter_map(|event| event.note.clone())
            .collect();
        if notes.iter().any(|note| note.contains(words)) {
            Ok(())
        } else {
            Err(format!("{notes:?}"))
        }
    })
    .await;
}

async fn targets_and_writes_have_events_on_the_service() {
    let mut fixture = Fixture::new("told").await;
    let daemon = fixture.start_published().await;
    let gone = fixture.ips(&[0]).remove(0);
    fixture.databases[0].stop().await;
    let down = expect_event(
        &fixture.namespace,
        "TargetDown",
        &format!("{gone} is down: connect: refused"),
    )
    .await;
    let service = fixture.namespace.api::<Service>().get("mysql").await.expect("the Service");
    let regarding = down.regarding.clone().expect("what it regards");
    assert_eq!(regarding.uid, service.uid());
    assert_eq!(
        (regarding.kind.as_deref(), regarding.name.as_deref()),
        (Some("Service"), Some("mysql"))
    );
    assert_eq!(down.type_.as_deref(), Some("Warning"));
    assert_eq!(down.reporting_controller.as_deref(), Some("external-endpoints"));
    assert_eq!((down.action.as_deref(), down.series.as_ref()), (Some("Check"), None));
    let published =
        expect_event(&fixture.namespace, "Published", &fixture.ips(&[0, 1, 2]).join(", ")).await;
    assert_eq!(published.type_.as_deref(), Some("Normal"));
    fixture.databases[0].restart().await;
    expect_event(&fixture.namespace, "TargetUp", &format!("{gone} is up")).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;

    // Where people look.
    let shown = shared()
        .kubectl(&["describe", "service", "mysql", "--namespace", &fixture.namespace.name])
        .await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("TargetDown") && shown.contains("connect: refused"), "{shown}");
    let labels = [("result", "published")];
    assert!(
        daemon
            .metric("external_endpoints_events_total", &labels)
            .await
            .is_some_and(|count| count >= 3.0)
    );

    // A target that is up when a daemon starts has no Event.
    drop(daemon);
    let daemon = fixture.start_published().await;
    wait_for_checks(&daemon, 4).await;
    fixture.databases[1].stop().await;
    expect_event(&fixture.namespace, "TargetDown", &fixture.ips(&[1])[0]).await;
    assert_eq!(events(&fixture.namespace, "TargetUp").await.len(), 1);
}

async fn repetitions_are_counted_once_a_minute() {
    let fixture = Fixture::new("again").await;
    let _daemon = fixture.start_published().await;
    let edit =
        json!({"subsets": [{"addresses": [{"ip": "192.0.2.99"}], "ports": [{"port": 3306}]}]});
    for _ in 0..3 {
        merge(&fixture, edit.clone()).await;
        fixture.expect_endpoints(&[0, 1, 2]).await;
    }
    let first = expect_event(&fixture.namespace, "Repaired", "-192.0.2.99").await;
    assert_eq!(first.series, None);
    let begun = first.event_time.as_ref().expect("a time").0;
    let counted = eventually(Duration::from_secs(90), "the others are counted", async || {
        let events = events(&fixture.namespace, "Repaired").await;
        assert_eq!(events.len(), 1, "{events:#?}");
        events[0].series.clone()
    })
    .await;
    let now = k8s_openapi::jiff::Timestamp::now();
    assert!(now.duration_since(begun).as_secs() >= 59, "counted at {now}, begun at {begun}");
    assert_eq!(counted.count, 3);
    assert!(counted.last_observed_time.0 > begun);
}

async fn refusals_have_events_with_their_reason() {
    let fixture = Fixture::without_service("refusals").await;
    let namespace = &fixture.namespace;
    let ips = fixture.ips(&[0, 1, 2]);
    let mut yaml = "databases:\n".to_owned();
    for service in ["selector", "foreign", "ports", "outside"] {
        let all = if service == "outside" { ips.join(", ") } else { ips[..2].join(", ") };
        let one = config(&namespace.name, &all, CHECK, "");
        let one = replace_in(&one, "service: mysql", &format!("service: {service}"));
        yaml += databases_of(&one);
    }
    namespace.create_service("foreign", &[("", 3306)]).await;
    namespace.create_service("outside", &[("", 3306)]).await;
    namespace.create_service("ports", &[("a", 1), ("b", 2)]).await;
    namespace
        .create_endpoints("foreign", &["192.0.2.1".parse().expect("an IP")], &[("", 3306)])
        .await;
    let spec = json!({"ports": [{"port": 3306}], "selector": {"app": "mysql"}});
    namespace
        .create_object::<Service>(json!({"metadata": {"name": "selector"}, "spec": spec}))
        .await;
    let allow = [format!("--allow-cidr={}/32", ips[0]), format!("--allow-cidr={}/32", ips[1])];
    let _daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[&allow[0], &allow[1]]).await;
    for (reason, service, words) in [
        ("ServiceHasSelector", "selector", "remove spec.selector"),
        ("NotOurs", "foreign", "adopt: true"),
        ("PortMismatch", "ports", "3306"),
        ("AddressRefused", "outside", ips[2].as_str()),
    ] {
        let event = expect_event(namespace, reason, words).await;
        assert_eq!(
            event.regarding.and_then(|regarding| regarding.name).as_deref(),
            Some(service),
            "{reason}"
        );
        assert_eq!(event.type_.as_deref(), Some("Warning"), "{reason}");
    }
}

async fn a_database_that_left_the_config_is_left_behind() {
    let fixture = Fixture::new("left").await;
    drop(fixture.start_published().await);
    let history = fixture.history().await;
    fixture.namespace.create_service("other", &[("", 3306)]).await;
    fixture
        .namespace
        .create_endpoints("foreign", &["192.0.2.1".parse().expect("an IP")], &[("", 3306)])
        .await;
    let yaml = replace_in(&fixture.config(), "service: mysql", "service: other");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    let left = expect_event(&fixture.namespace, "LeftBehind", "stays as it is").await;
    assert_eq!(left.regarding.and_then(|regarding| regarding.name).as_deref(), Some("mysql"));
    fixture.expect_condition(&daemon, "Published").await;
    wait_for_checks(&daemon, 4).await;
    assert_eq!(events(&fixture.namespace, "LeftBehind").await.len(), 1);
    let said = daemon.lines().iter().filter(|line| line.contains("left behind")).count();
    assert_eq!(said, 1, "{:#?}", daemon.lines());
    assert_eq!(history.steps(), []);
}

async fn a_split_brain_has_an_event() {
    let fixture = Fixture::new("brains").await;
    let yaml = fixture.config_with("  policy: {exactlyOne: true}\n");
    let _daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    let event = expect_event(&fixture.namespace, "SplitBrain", "where one should").await;
    assert_eq!(event.type_.as_deref(), Some("Warning"));
}

async fn of_two_replicas_only_the_leader_emits_events() {
    let mut fixture = Fixture::new("chorus").await;
    let (mut first, second) = pair(&fixture).await;
    let who = (identity(&first).await, identity(&second).await);
    fixture.databases[0].stop().await;
    let down = expect_event(&fixture.namespace, "TargetDown", &fixture.ips(&[0])[0]).await;
    assert_eq!(down.reporting_instance, Some(who.0));
    up(&second, 2.0).await;
    wait_for_checks(&second, 4).await;
    assert_eq!(events(&fixture.namespace, "TargetDown").await.len(), 1);

    first.signal(Signal::SIGTERM);
    takes_over(&second).await;
    fixture.databases[1].stop().await;
    let down = expect_event(&fixture.namespace, "TargetDown", &fixture.ips(&[1])[0]).await;
    assert_eq!(down.reporting_instance, Some(who.1));
    assert!(first.wait().await.success());
}

async fn a_bad_config_has_an_event_on_the_lease() {
    let fixture = Fixture::new("bad-told").await;
    let (first, second) = pair(&fixture).await;
    let save = |text: &str| {
        [&first, &second]
            .into_iter()
            .for_each(|daemon| std::fs::write(daemon.config(), text).expect("a file"));
    };
    save(&replace_in(&fixture.config(), "interval: 250ms", "interval: 250"));
    let event = expect_event(&fixture.namespace, "ConfigBad", "a duration needs a unit").await;
    let lease =
        fixture.namespace.api::<Lease>().get("external-endpoints").await.expect("the Lease");
    let regarding = event.regarding.clone().expect("what it regards");
    assert_eq!((regarding.kind.as_deref(), regarding.uid), (Some("Lease"), lease.metadata.uid));
    assert_eq!(
        (event.type_.as_deref(), event.action.as_deref()),
        (Some("Warning"), Some("LoadConfig"))
    );
    save(&fixture.config());
    expect_event(&fixture.namespace, "ConfigGood", "is good again").await;
    assert_eq!(events(&fixture.namespace, "ConfigBad").await.len(), 1, "by the one that writes");
}

async fn no_event_contains_a_secret() {
    let fixture = Fixture::new("secret").await;
    let script = "echo cannot log in at https://admin:$PGPASSWORD@db with $PGPASSWORD >&2; exit 1";
    let check = format!(
        "{{exec: {{command: [/bin/sh, -c, '{script}'], env: {{PGPASSWORD: 'hunter2-of-prod'}}}}, \
         interval: 250ms, timeout: 250ms}}"
    );
    let yaml = config(&fixture.namespace.name, &fixture.ips(&[0, 1, 2]).join(", "), &check, "");
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &[]).await;
    expect_event(&fixture.namespace, "TargetDown", "cannot log in").await;
    fixture.expect_condition(&daemon, "Published").await;
    wait_for_checks(&daemon, 4).await;
    let all = fixture.namespace.api::<Event>().list(&Default::default()).await.expect("Events");
    assert!(all.items.len() >= 3, "{:#?}", all.items);
    let text = serde_json::to_string(&all.items).expect("JSON");
    assert!(!text.contains("hunter2"), "{text}");
}

async fn without_the_right_everything_else_continues() {
    let mut fixture = Fixture::new("mute").await;
    let read = ["get", "list", "watch"];
    let rules = json!([
        {"apiGroups": [""], "resources": ["services", "endpoints"], "verbs": read},
        {
            "apiGroups": [""],
            "resources": ["endpoints"],
            "resourceNames": ["mysql"],
            "verbs": ["create", "patch"],
        },
    ]);
    let token = crate::cluster::faults::account(&fixture, rules).await;
    let daemon =
        Daemon::start(&fixture.config(), &shared().kubeconfig_for_token(&token), &[]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    eventually(TIMEOUT, "they are counted", async || {
        let failed =
            daemon.metric("external_endpoints_events_total", &[("result", "failed")]).await;
        if failed >= Some(3.0) { Ok(()) } else { Err(format!("{failed:?}")) }
    })
    .await;
    let said = daemon
        .logs()
        .into_iter()
        .filter(|line| line["message"] == "Events are not published")
        .count();
    assert_eq!(said, 1, "{:#?}", daemon.lines());
}
