//! The burst figure: the time to write a thousand Services that lose an address in the same second.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use axum::http::Request;
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Endpoints;
use kube::ResourceExt as _;
use kube::api::{WatchEvent, WatchParams};
use tokio::task::JoinHandle;

use super::fixture::{self, Fixture, TIMEOUT};
use super::report::Row;
use crate::Scale;
use crate::support::daemon::metric_in;
use crate::support::{Database, Namespace, addresses, eventually, runtime};

const PORT: u16 = 3306;
/// The port of the addresses that will be lost.
const LOST_PORT: u16 = 3307;
const EVERYWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

pub(crate) async fn measure(fixture: &Fixture, scale: Scale) -> Vec<Row> {
    let services = if scale == Scale::Smoke { 50 } else { 1000 };
    let (namespace, token) = fixture.services("burst", services, PORT).await;
    // Each listens on every address of the sandbox, so one of them takes an address from each
    // Service.
    let _steady = Database::start(EVERYWHERE, PORT).await;
    let mut doomed = Database::start(EVERYWHERE, LOST_PORT).await;
    let kubeconfig = fixture.plane.kubeconfig_for_token(&token);
    let started = Instant::now();
    let daemon = fixture.daemon(&config(&namespace.name, services), &kubeconfig, &[]).await;
    fixture::all_have(&namespace, services, 3).await;
    let filled = started.elapsed();

    let refused_before = refusals(fixture).await;
    let arrivals = ArrivalTimes::watch(&namespace, 2).await;
    let cut = Instant::now();
    doomed.stop().await;
    let seen = arrivals.all(services).await;
    let metrics = daemon.metrics().await;
    let refused = refusals(fixture).await - refused_before;

    let after =
        |moment: Option<Instant>| moment.map(|at| (at - cut).as_secs_f64()).unwrap_or_default();
    let (first, last) = (after(seen.first().copied()), after(seen.last().copied()));
    let writes = metric_in(&metrics, "external_endpoints_writes_total", &[("result", "success")])
        .unwrap_or_default();
    let wrong = fixture::failed_writes(&metrics)
        .or_else(|| (refused > 0.0).then(|| format!("the API server refused {refused} requests")));
    let clean = if wrong.is_none() { ", no error from the API" } else { "" };
    let detail = format!(
        "{services} Services of 3 addresses; from the cut, with detection (threshold 3 at 1 s), to \
         a watch that shows the last; first shown at {first:.2} s; {writes} writes since the \
         start{clean}"
    );
    let goal = (scale == Scale::Full).then_some(5.0);
    let mut rows = vec![
        Row::at_most(goal, "Services lose an address at once: last one written", last, "s", detail)
            .invalid_if(wrong),
        Row::without_goal(
            "… from the first write seen to the last",
            last - first,
            "s",
            rate(services, last - first),
        ),
        Row::without_goal(
            "… all Services filled, from the daemon's start",
            filled.as_secs_f64(),
            "s",
            "two writes each: created blank, then filled".to_owned(),
        ),
    ];
    let resident = super::memory::resident(daemon.pid());
    rows.push(Row::without_goal(
        format!("memory of the daemon that publishes these {services} Services"),
        resident,
        "MiB",
        "VmRSS after the burst, and a scrape of /metrics".to_owned(),
    ));
    rows
}

fn rate(services: usize, seconds: f64) -> String {
    format!("{:.0} writes a second", services as f64 / seconds.max(0.001))
}

fn config(namespace: &str, services: usize) -> String {
    let mut config = format!(
        "defaults:
  namespace: {namespace}
  check: {{tcp: {{}}, interval: 1s, timeout: 1s, unhealthyThreshold: 3}}
databases:
"
    );
    for index in 0..services {
        let ips = addresses::allocate(3);
        config += &format!(
            "- service: {}
  port: {PORT}
  addresses: [{}, {}, {{address: {}, check: {{tcp: {{port: {LOST_PORT}}}}}}}]
",
            fixture::service(index),
            ips[0],
            ips[1],
            ips[2]
        );
    }
    config
}

/// Returns the number of requests that the API server has refused, by its own metrics.
async fn refusals(fixture: &Fixture) -> f64 {
    let request = Request::get("/metrics").body(Vec::new()).expect("a request");
    let page =
        fixture.plane.client().request_text(request).await.expect("the API server's metrics");
    let rejected = metric_in(&page, "apiserver_flowcontrol_rejected_requests_total", &[]);
    let too_many = metric_in(&page, "apiserver_request_total", &[("code", "429")]);
    rejected.unwrap_or_default() + too_many.unwrap_or_default()
}

/// The times when each Service first had a number of addresses, as any client of the API sees it.
struct ArrivalTimes {
    seen: Arc<Mutex<BTreeMap<String, Instant>>>,
    task: JoinHandle<()>,
}

impl ArrivalTimes {
    async fn watch(namespace: &Namespace, addresses: usize) -> ArrivalTimes {
        let api = namespace.api::<Endpoints>();
        let version = api
            .list(&Default::default())
            .await
            .expect("listing Endpoints")
            .metadata
            .resource_version;
        let params = WatchParams::default().timeout(290);
        let events = api
            .watch(&params, &version.expect("a list has a version"))
            .await
            .expect("watching Endpoints");
        let seen: Arc<Mutex<BTreeMap<String, Instant>>> = Arc::default();
        let written = seen.clone();
        let task = runtime().spawn(async move {
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event.expect("a watch without errors") {
                    WatchEvent::Added(endpoints) | WatchEvent::Modified(endpoints)
                        if fixture::ready(&endpoints) == addresses =>
                    {
                        let mut seen = written.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.entry(endpoints.name_any()).or_insert_with(Instant::now);
                    }
                    _ => {}
                }
            }
        });
        ArrivalTimes { seen, task }
    }

    /// Returns the times in order, once there are this many.
    async fn all(self, count: usize) -> Vec<Instant> {
        eventually(TIMEOUT, "each Service is seen to change", async || {
            assert!(!self.task.is_finished(), "the watch has ended");
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).len();
            if seen == count { Ok(()) } else { Err(seen.to_string()) }
        })
        .await;
        let mut moments: Vec<Instant> =
            self.seen.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect();
        moments.sort();
        moments
    }
}

impl Drop for ArrivalTimes {
    fn drop(&mut self) {
        self.task.abort();
    }
}
