//! Events that stay true: within two seconds the newest one says what the cluster holds, whoever
//! wrote the one before.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Service};
use k8s_openapi::jiff::{Timestamp, ToSpan as _};
use kube::ResourceExt as _;
use kube::api::Api;
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::cluster::events::{events, expect_event};
use crate::cluster::fixture::{Fixture, TIMEOUT};
use crate::cluster::lease::replicas::{pair, takes_over, up};
use crate::support::{ApiProxy, Daemon, Namespace, case::cases, consistently, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        the_newest_event_follows_each_change,
        a_target_that_is_down_again_is_said_to_be_down,
        a_new_leader_corrects_what_the_last_one_said,
        a_restart_corrects_what_is_no_longer_so,
        what_strangers_and_skewed_clocks_wrote_is_superseded,
        an_outage_of_the_api_delays_the_truth_only,
    ]
}

/// The time within which what is seen must be true.
const LIMIT: Duration = Duration::from_secs(2);

/// Lists the Events on the Service, in the order in which `kubectl describe` shows them.
async fn on_service(namespace: &Namespace) -> Vec<Event> {
    let api: Api<Event> = namespace.api();
    let mut events = api.list(&Default::default()).await.expect("listing Events").items;
    events.retain(|event| event.involved_object.kind.as_deref() == Some("Service"));
    events.sort_by_key(|event| event.last_timestamp.as_ref().map(|time| time.0));
    events
}

/// Returns the newest Event on the members of the database: its reason and its note.
async fn newest_on_members(namespace: &Namespace) -> Option<(String, String)> {
    let reasons = ["Published", "Repaired", "NotOurs", "LeftBehind"];
    let mut events = on_service(namespace).await;
    events.retain(|event| reasons.contains(&event.reason.as_deref().unwrap_or_default()));
    let newest = events.into_iter().max_by_key(|event| {
        let series = event.series.as_ref().and_then(|series| series.last_observed_time.clone());
        series.or(event.event_time.clone()).map(|time| time.0)
    })?;
    Some((newest.reason?, newest.message?))
}

/// Waits until the newest Event names these databases, and returns how long that took.
async fn expect_members(fixture: &Fixture, which: &[usize]) -> Duration {
    let began = Instant::now();
    let wanted = fixture.ips(which).join(", ");
    eventually(TIMEOUT, &format!("the newest Event names {wanted}"), async || {
        let newest = newest_on_members(&fixture.namespace).await;
        let (reason, note) = newest.clone().unwrap_or_default();
        let named = note.split(" (").next().unwrap_or_default().to_owned();
        if reason == "Published" && named == wanted { Ok(()) } else { Err(format!("{newest:?}")) }
    })
    .await;
    began.elapsed()
}

async fn the_newest_event_follows_each_change() {
    let mut fixture = Fixture::new("truth").await;
    let _daemon = fixture.start_published().await;
    expect_members(&fixture, &[0, 1, 2]).await;
    for (gone, left) in [(0, &[1, 2][..]), (1, &[2][..])] {
        fixture.databases[gone].stop().await;
        fixture.expect_endpoints(left).await;
        let took = expect_members(&fixture, left).await;
        assert!(took < LIMIT, "{took:?}");
    }
    fixture.databases[0].restart().await;
    fixture.expect_endpoints(&[0, 2]).await;
    assert!(expect_members(&fixture, &[0, 2]).await < LIMIT);

    // All within a minute: there is one Event, with the newest note.
    let published = events(&fixture.namespace, "Published").await;
    assert_eq!(published.len(), 1, "{published:#?}");
    let series = published[0].series.as_ref().expect("a series");
    assert!(series.count >= 4, "{series:?}");
    let shown = shared()
        .kubectl(&["describe", "service", "mysql", "--namespace", &fixture.namespace.name])
        .await;
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    let lines: Vec<&str> = shown.lines().filter(|line| line.contains(" Published ")).collect();
    let members = fixture.ips(&[0, 2]).join(", ");
    assert!(lines.len() == 1 && lines[0].contains(&members), "{shown}");
    assert!(lines[0].contains("(x4 over"), "{shown}");
}

async fn a_target_that_is_down_again_is_said_to_be_down() {
    let mut fixture = Fixture::new("again-down").await;
    let _daemon = fixture.start_published().await;
    let ip = fixture.ips(&[0]).remove(0);
    let newest = async || {
        let mut events = on_service(&fixture.namespace).await;
        events.retain(|event| {
            event.message.as_deref().is_some_and(|note| note.starts_with(&format!("{ip} is ")))
        });
        let time = |event: &Event| {
            let series = event.series.as_ref().and_then(|it| it.last_observed_time.clone());
            series.or(event.event_time.clone()).map(|time| time.0)
        };
        events.into_iter().max_by_key(time).and_then(|event| event.reason)
    };
    for _ in 0..2 {
        for reason in ["TargetDown", "TargetUp"] {
            if reason == "TargetDown" {
                fixture.databases[0].stop().await;
                fixture.expect_endpoints(&[1, 2]).await;
            } else {
                fixture.databases[0].restart().await;
                fixture.expect_endpoints(&[0, 1, 2]).await;
            }
            let began = Instant::now();
            eventually(TIMEOUT, &format!("the newest is {reason}"), async || {
                let newest = newest().await;
                if newest.as_deref() == Some(reason) { Ok(()) } else { Err(format!("{newest:?}")) }
            })
            .await;
            assert!(began.elapsed() < LIMIT, "{reason}: {:?}", began.elapsed());
        }
    }
    for reason in ["TargetDown", "TargetUp"] {
        let events = events(&fixture.namespace, reason).await;
        assert_eq!(events.len(), 1, "{events:#?}");
    }
}

async fn a_new_leader_corrects_what_the_last_one_said() {
    let mut fixture = Fixture::new("heir").await;
    let (mut first, second) = pair(&fixture).await;
    expect_members(&fixture, &[0, 1, 2]).await;
    // A leader that is killed says nothing of what it did last.
    first.kill();
    fixture.databases[0].stop().await;
    up(&second, 2.0).await;
    takes_over(&second).await;
    fixture.expect_endpoints(&[1, 2]).await;
    let took = expect_members(&fixture, &[1, 2]).await;
    assert!(took < LIMIT, "{took:?}");
    let ip = fixture.ips(&[0]).remove(0);
    expect_event(&fixture.namespace, "TargetDown", &ip).await;
    // An Event of the first of the last minute is patched. An older one has a newer one beside it.
    let all = events(&fixture.namespace, "Published").await;
    let stale = fixture.ips(&[0, 1, 2]).join(", ");
    let recent = |event: &&k8s_openapi::api::events::v1::Event| {
        let age = Timestamp::now().duration_since(event.event_time.as_ref().expect("a time").0);
        event.note.as_deref().is_some_and(|note| note.starts_with(&stale)) && age.as_secs() < 55
    };
    assert_eq!(all.iter().filter(recent).count(), 0, "{all:#?}");
}

async fn a_restart_corrects_what_is_no_longer_so() {
    let mut fixture = Fixture::new("reborn").await;
    let mut daemon = fixture.start_published().await;
    fixture.databases[0].stop().await;
    let ip = fixture.ips(&[0]).remove(0);
    expect_event(&fixture.namespace, "TargetDown", &ip).await;
    fixture.expect_endpoints(&[1, 2]).await;
    expect_members(&fixture, &[1, 2]).await;
    daemon.kill();
    fixture.databases[0].restart().await;
    // A target that is up when a daemon starts has an Event if another says that it is down.
    let daemon = fixture.start().await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    expect_event(&fixture.namespace, "TargetUp", &format!("{ip} is up")).await;
    expect_members(&fixture, &[0, 1, 2]).await;
    drop(daemon);
    // Where nothing is wrong, a restart says nothing.
    let _daemon = fixture.start_published().await;
    consistently(Duration::from_secs(2), "no Event is added", async || {
        let count = events(&fixture.namespace, "TargetUp").await.len();
        if count == 1 { Ok(()) } else { Err(count) }
    })
    .await;
}

/// Creates an Event on the Service, as another replica would.
async fn forge(namespace: &Namespace, name: &str, change: Value) {
    let service = namespace.api::<Service>().get("mysql").await.expect("the Service");
    let mut event = json!({
        "metadata": {"name": name},
        "involvedObject": {
            "apiVersion": "v1", "kind": "Service", "namespace": namespace.name, "name": "mysql",
            "uid": service.uid(),
        },
        "action": "Publish", "type": "Warning", "count": 1,
        "reportingComponent": "external-endpoints", "reportingInstance": "a_former_one",
    });
    for (key, value) in change.as_object().expect("an object") {
        event[key] = value.clone();
    }
    namespace.create_object::<Event>(event).await;
}

async fn what_strangers_and_skewed_clocks_wrote_is_superseded() {
    let fixture = Fixture::new("forged").await;
    let ip = fixture.ips(&[0]).remove(0);
    // The clock of the former leader was 90 s ahead.
    let ahead = Timestamp::now() + 90.seconds();
    let micro = json!(k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(ahead));
    let second = json!(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(ahead));
    let times = |mut event: Value| {
        event["eventTime"] = micro.clone();
        event["lastTimestamp"] = second.clone();
        event["firstTimestamp"] = second.clone();
        event
    };
    let not_ours = json!({"reason": "NotOurs", "message": "not published: were written by x"});
    forge(&fixture.namespace, "mysql.1", times(not_ours)).await;
    let down = json!({
        "metadata": {"name": "mysql.2", "annotations": {"external-endpoints/event-key": ip}},
        "reason": "TargetDown", "message": format!("{ip} is down: a story"),
    });
    forge(&fixture.namespace, "mysql.2", times(down)).await;
    let frozen = json!({"reason": "Frozen", "message": "frozen: a story"});
    forge(&fixture.namespace, "mysql.3", times(frozen)).await;
    // One of the year 9999 is not followed, and one of a foreign component is no matter.
    let far = json!({
        "reason": "NotOurs", "message": "a story", "eventTime": "9999-01-01T00:00:00.000000Z",
        "reportingComponent": "someone",
    });
    forge(&fixture.namespace, "mysql.4", far).await;

    let _daemon = fixture.start_published().await;
    expect_event(&fixture.namespace, "TargetUp", &format!("{ip} is up")).await;
    expect_event(&fixture.namespace, "Thawed", "the freeze is over").await;
    let members = fixture.ips(&[0, 1, 2]).join(", ");
    let newest = eventually(TIMEOUT, "Published is the newest", async || {
        let mut events = on_service(&fixture.namespace).await;
        events.retain(|event| event.name_any() != "mysql.4");
        let published = events.iter().find(|event| event.reason.as_deref() == Some("Published"));
        let published = published.ok_or(format!("{events:?}"))?;
        let at = published.event_time.as_ref().map(|time| time.0);
        if at > Some(ahead) { Ok(published.clone()) } else { Err(format!("{published:?}")) }
    })
    .await;
    assert!(newest.message.is_some_and(|note| note.starts_with(&members)));
}

async fn an_outage_of_the_api_delays_the_truth_only() {
    let mut fixture = Fixture::new("delayed").await;
    let proxy = ApiProxy::start(shared()).await;
    let daemon = Daemon::start(&fixture.config(), &proxy.kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    expect_members(&fixture, &[0, 1, 2]).await;
    proxy.answer(503);
    for (gone, left) in [(0, 2.0), (1, 1.0)] {
        fixture.databases[gone].stop().await;
        up(&daemon, left).await;
    }
    fixture.databases[1].restart().await;
    up(&daemon, 2.0).await;
    proxy.heal().await;
    fixture.expect_endpoints(&[1, 2]).await;
    expect_members(&fixture, &[1, 2]).await;
    for index in [0, 1] {
        let ip = fixture.ips(&[index]).remove(0);
        expect_event(&fixture.namespace, "TargetDown", &format!("{ip} is down")).await;
    }
    expect_event(&fixture.namespace, "TargetUp", &fixture.ips(&[1])[0]).await;
    let labels = [("result", "failed")];
    let failed = daemon.metric("external_endpoints_events_total", &labels).await;
    assert_eq!(failed, Some(0.0), "none is lost");
}
