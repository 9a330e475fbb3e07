//! Pruning: with `prune: true`, the objects of removed databases are deleted after a delay. More
//! than half of all are deleted only after a second confirmation.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::cluster::events;
use crate::cluster::fixture::{Fixture, TIMEOUT, replace_in, wait_for_checks};
use crate::cluster::reload::{
    database, databases, edit, expect_left_behind, expect_published, logged,
};
use crate::support::{Daemon, case::cases, consistently, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        objects_of_removed_databases_are_deleted_with_prune,
        an_unchanged_created_service_is_deleted_after_its_slices,
        a_config_that_is_written_in_two_halves_deletes_nothing,
    ]
}

/// Longer than the delay of a deletion, on a busy machine.
const LONG_TIMEOUT: Duration = Duration::from_secs(75);

async fn objects_of_removed_databases_are_deleted_with_prune() {
    let fixture = Fixture::new("prune").await;
    for service in ["orders", "taken"] {
        fixture.namespace.create_service(service, &[("", 3306)]).await;
    }
    let all = fixture.config()
        + &database(&fixture, "orders", 1)
        + &database(&fixture, "taken", 2)
        + "prune: true\n";
    let daemon = Daemon::start(&all, &shared().kubeconfig(), &[]).await;
    expect_published(&fixture, "orders", &[1]).await;
    expect_published(&fixture, "taken", &[2]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let history = fixture.history().await;
    // Another manager claims these Endpoints.
    let api: Api<Endpoints> = fixture.namespace.api();
    let label = Patch::Merge(
        json!({"metadata": {"labels": {"endpoints.kubernetes.io/managed-by": "someone"}}}),
    );
    api.patch("taken", &PatchParams::default(), &label).await.expect("a patch");
    edit(&daemon, &(fixture.config() + "prune: true\n"));
    let edited = Instant::now();
    databases(&daemon, &["mysql"]).await;
    eventually(LONG_TIMEOUT, "the Endpoints are gone", async || {
        fixture.namespace.endpoints("orders").await.is_none()
    })
    .await;
    assert!(edited.elapsed() > Duration::from_secs(29), "deleted after {:?}", edited.elapsed());
    expect_left_behind(&daemon, &[]).await;
    assert_eq!(logged(&daemon, "deleted: its database has left the config"), 1);
    wait_for_checks(&daemon, 3).await;
    assert_eq!(fixture.namespace.endpoint_ips("taken").await, fixture.ips(&[2]));
    assert!(fixture.namespace.api::<Service>().get_opt("orders").await.expect("a read").is_some());
    assert_eq!(history.steps(), []);
}

async fn an_unchanged_created_service_is_deleted_after_its_slices() {
    let fixture = Fixture::new("departs").await;
    let created = |service: &str, which: usize| {
        let plain = database(&fixture, service, which);
        let keys = "  createService: {}\n  publish: slices\n  addresses:";
        replace_in(&plain, "  addresses:", keys)
    };
    fixture.namespace.create_service("stays", &[("", 3306)]).await;
    let stay = fixture.config() + &database(&fixture, "stays", 0);
    let all = format!("{stay}{}{}prune: true\n", created("orders", 1), created("taken", 2));
    let daemon = Daemon::start(&all, &shared().kubeconfig(), &[]).await;
    let slices: Api<EndpointSlice> = fixture.namespace.api();
    let services: Api<Service> = fixture.namespace.api();
    for service in ["orders", "taken"] {
        let slice = format!("{service}-external-ipv4-1");
        eventually(TIMEOUT, "published in a slice", async || {
            slices
                .get_opt(&slice)
                .await
                .expect("a read")
                .is_some_and(|slice| slice.endpoints.len() == 1)
        })
        .await;
    }
    let label = Patch::Merge(json!({"metadata": {"labels": {"team": "payments"}}}));
    services.patch("taken", &PatchParams::default(), &label).await.expect("a patch");
    expect_published(&fixture, "stays", &[0]).await;
    edit(&daemon, &(stay + "prune: true\n"));
    databases(&daemon, &["mysql", "stays"]).await;
    eventually(LONG_TIMEOUT, "its Service is gone", async || {
        services.get_opt("orders").await.expect("a read").is_none()
    })
    .await;
    expect_left_behind(&daemon, &[]).await;
    let at = |words: &str| {
        daemon.lines().iter().position(|line| line.contains(words) && line.contains("orders"))
    };
    let deleted = async || at(r#""kind":"EndpointSlice""#).zip(at(r#""kind":"Service""#));
    let (slice, service) = eventually(TIMEOUT, "both deletions are on the log", deleted).await;
    assert!(slice < service, "{:#?}", daemon.lines());
    wait_for_checks(&daemon, 4).await;
    assert!(
        services.get_opt("taken").await.expect("a read").is_some(),
        "someone else has changed it"
    );
    assert!(slices.get_opt("taken-external-ipv4-1").await.expect("a read").is_none());
}

async fn a_config_that_is_written_in_two_halves_deletes_nothing() {
    let fixture = Fixture::new("prune-halves").await;
    let names = ["orders", "users"];
    for service in names {
        fixture.namespace.create_service(service, &[("", 3306)]).await;
    }
    let first = fixture.config() + "prune: true\n";
    let whole = format!(
        "prune: true\n{}{}",
        fixture.config(),
        names.map(|name| database(&fixture, name, 1)).concat()
    );
    let daemon = Daemon::start(&whole, &shared().kubeconfig(), &[]).await;
    for service in names {
        expect_published(&fixture, service, &[1]).await;
    }
    let there = async || {
        let endpoints = [
            fixture.namespace.endpoints("orders").await,
            fixture.namespace.endpoints("users").await,
        ];
        if endpoints.iter().all(Option::is_some) { Ok(()) } else { Err(format!("{endpoints:?}")) }
    };
    // Two of three leave at once. After the delay of a single one, this is logged, and nothing is
    // deleted.
    edit(&daemon, &first);
    expect_left_behind(&daemon, &names).await;
    let words = "2 of 3 published databases have left the config at once";
    eventually(LONG_TIMEOUT, "it is on the log", async || logged(&daemon, words) == 1).await;
    for service in names {
        events::expect_event_on(&fixture.namespace, service, "LeftBehind", words).await;
    }
    consistently(Duration::from_secs(3), "nothing is deleted", there).await;
    edit(&daemon, &whole);
    databases(&daemon, &["mysql", "orders", "users"]).await;
    expect_left_behind(&daemon, &[]).await;
    assert_eq!(logged(&daemon, "deleted: its database has left the config"), 0);
    assert_eq!(there().await, Ok(()));
}
