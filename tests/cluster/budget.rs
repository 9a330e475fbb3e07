//! The write queue: the order and the rate of writes when there are more than the limit allows.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Endpoints;
use kube::api::{Api, Patch, PatchParams};
use libtest_mimic::Trial;
use serde_json::json;

use crate::cluster::fixture::{Fixture, TIMEOUT, config, databases_of, replace_in};
use crate::support::{ApiProxy, Daemon, case::cases, eventually, shared};

pub(crate) fn cases() -> Vec<Trial> {
    cases![
        removals_are_written_before_repairs,
        retry_after_is_respected,
        namespaces_do_not_list_in_step_after_an_outage,
    ]
}

/// The number of Services whose Endpoints are edited at the same time.
const EDITED: usize = 8;

async fn removals_are_written_before_repairs() {
    let mut fixture = Fixture::new("overtakes").await;
    let ips = fixture.ips(&[1, 2]).join(", ");
    let mut yaml = fixture.config();
    for index in 0..EDITED {
        fixture.namespace.create_service(&format!("edited-{index}"), &[("", 3306)]).await;
        let more = config(&fixture.namespace.name, &ips, "{tcp: {}, interval: 250ms}", "");
        let more = replace_in(&more, "service: mysql", &format!("service: edited-{index}"));
        yaml += databases_of(&more);
    }
    let slow = ["--api-qps", "1", "--api-burst", "1"];
    let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &slow).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    let healthy = fixture.ips(&[1, 2]);
    // Counts the Services that have their addresses.
    let good = async || {
        let mut good = 0;
        for index in 0..EDITED {
            good += usize::from(
                fixture.namespace.endpoint_ips(&format!("edited-{index}")).await == healthy,
            );
        }
        good
    };
    eventually(TIMEOUT, "all are published", async || {
        if good().await == EDITED { Ok(()) } else { Err(good().await) }
    })
    .await;

    let edited = Instant::now();
    let api: Api<Endpoints> = fixture.namespace.api();
    let edit =
        json!({"subsets": [{"addresses": [{"ip": "192.0.2.99"}], "ports": [{"port": 3306}]}]});
    for index in 0..EDITED {
        let name = format!("edited-{index}");
        api.patch(&name, &PatchParams::default(), &Patch::Merge(&edit)).await.expect("a patch");
    }
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    let (removed, still_edited) = (edited.elapsed(), EDITED - good().await);
    assert!(still_edited > 0, "the removal came last, after {removed:?}: {:#?}", daemon.lines());
    eventually(TIMEOUT, "all are repaired", async || {
        if good().await == EDITED { Ok(()) } else { Err(good().await) }
    })
    .await;
    let repaired = edited.elapsed();
    // The first repair may find a token. Each other one waits a second for it.
    assert!(repaired > Duration::from_secs(EDITED as u64 - 2), "repaired after {repaired:?}");
}

async fn retry_after_is_respected() {
    let mut fixture = Fixture::new("alone").await;
    let proxy = ApiProxy::start(shared()).await;
    let daemon = Daemon::start(&fixture.config(), &proxy.kubeconfig(), &[]).await;
    fixture.expect_endpoints(&[0, 1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
    // With `Retry-After: 3` in plain text, as the API server sends it. Three watches and a write
    // retry.
    let from = Instant::now();
    proxy.answer_in_plain_text(429, 3);
    fixture.databases[0].stop().await;
    fixture.expect_condition_with(&daemon, "ApiUnavailable", "429").await;
    eventually(TIMEOUT, "each asks again, and again", async || {
        let refusals = proxy.error_count();
        if refusals >= 12 { Ok(()) } else { Err(refusals) }
    })
    .await;
    let took = from.elapsed();
    assert!(took > Duration::from_secs(6), "three requests of each in {took:?}, 3 s apart");
    proxy.heal().await;
    fixture.expect_endpoints(&[1, 2]).await;
    fixture.expect_condition(&daemon, "Published").await;
}

/// The number of namespaces that are watched at the same time, with three watches each.
const NAMESPACES: usize = 12;

async fn namespaces_do_not_list_in_step_after_an_outage() {
    let fixture = Fixture::new("in-step").await;
    let proxy = ApiProxy::start(shared()).await;
    let ips = fixture.ips(&[0]).join(", ");
    let (mut yaml, mut namespaces) = (fixture.config(), Vec::new());
    for _ in 0..NAMESPACES {
        let namespace = shared().namespace("step").await;
        namespace.create_service("mysql", &[("", 3306)]).await;
        yaml += databases_of(&config(&namespace.name, &ips, "{tcp: {}}", ""));
        namespaces.push(namespace);
    }
    let _daemon = Daemon::start(&yaml, &proxy.kubeconfig(), &[]).await;
    for namespace in &namespaces {
        eventually(TIMEOUT, "it is published", async || {
            let found = namespace.endpoint_ips("mysql").await;
            if found == fixture.ips(&[0]) { Ok(()) } else { Err(found.join(", ")) }
        })
        .await;
    }
    // All watches end at once, and all are asked to come back after the same time.
    proxy.answer_in_plain_text(429, 2);
    let watches = 3 * (NAMESPACES + 1);
    eventually(TIMEOUT, "each has come back", async || {
        let count = proxy.error_count();
        if count >= 2 * watches { Ok(()) } else { Err(count) }
    })
    .await;
    let times = proxy.error_times();
    let second = &times[watches..2 * watches];
    let window = Duration::from_millis(200);
    let in_window = |start: &Instant| {
        second.iter().filter(|time| (*start..*start + window).contains(*time)).count()
    };
    let most = second.iter().map(in_window).max().expect("a request");
    assert!(most <= watches / 2, "{most} of {watches} requests within {window:?}");
}
