//! The flip figure: the time from the deciding verdict to the API's answer to the write.
//!
//! Neither time is the daemon's own. The first is when the target's server starts the answer that
//! reaches the threshold, a little before the daemon has a verdict. The second is when the API
//! server's answer to the PATCH passes a proxy.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use super::bare::BareClient;
use super::figures::Times;
use super::fixture::{self, Fixture, TIMEOUT};
use super::report::Row;
use super::targets::{Health, Targets};
use super::write_recorder::{Write, WriteRecorder};
use crate::Scale;
use crate::support::{addresses, eventually};

const PORT: u16 = 8080;
const UNHEALTHY: u32 = 3;
const HEALTHY: u32 = 2;

/// The time between two changes. It does not divide the checks' interval, so that writes come in
/// any phase.
const TURN_INTERVAL: Duration = Duration::from_millis(170);

pub(crate) async fn measure(fixture: &Fixture, scale: Scale) -> Vec<Row> {
    // Each goes down and comes back.
    let services = if scale == Scale::Smoke { 10 } else { 100 };
    let (namespace, token) = fixture.services("flips", services, PORT).await;
    let targets = Targets::start(PORT).await;
    let recorder = WriteRecorder::start(&fixture.plane).await;
    let ips: Vec<Vec<IpAddr>> = (0..services).map(|_| addresses::allocate(3)).collect();
    let kubeconfig = fixture.plane.kubeconfig_at(&recorder.url, &token);
    let daemon = fixture.daemon(&config(&namespace.name, &ips), &kubeconfig, &[]).await;
    fixture::all_have(&namespace, services, 3).await;
    let bare = BareClient::start(fixture, &targets, &ips, PORT).await;
    recorder.take();

    let victims: Vec<IpAddr> = ips.iter().map(|ips| ips[1]).collect();
    let both = [&recorder, &bare.recorder];
    let [mut flips, mut floor] = turn(&targets, both, &victims, Health::Down).await;
    fixture::all_have(&namespace, services, 2).await;
    let [more, floor_more] = turn(&targets, both, &victims, Health::Up).await;
    flips.extend(more);
    floor.extend(floor_more);
    fixture::all_have(&namespace, services, 3).await;

    let whole = Times::of(flips.iter().map(|flip| flip.whole));
    let ours = Times::of(flips.iter().map(|flip| flip.asked));
    let theirs = Times::of(flips.iter().map(|flip| flip.whole - flip.asked));
    let detail = format!(
        "{} transitions of {services} Services, {}; of it until the API had the request: {}; the \
         API's own: {}",
        whole.count(),
        whole.words(),
        ours.words(),
        theirs.words()
    );
    let goal = (scale == Scale::Full).then_some(10.0);
    let row = Row::at_most(
        goal,
        "decisive verdict to the API's answer, p99",
        whole.percentile(99),
        "ms",
        detail,
    );
    let mut rows = vec![row.invalid_if(fixture::failed_writes(&daemon.metrics().await))];
    let floor_whole = Times::of(floor.iter().map(|flip| flip.whole));
    let floor_asked = Times::of(floor.iter().map(|flip| flip.asked));
    for percent in [50, 99] {
        let (of_daemon, of_bare) = (whole.percentile(percent), floor_whole.percentile(percent));
        let detail = format!(
            "{of_daemon:.1} and {of_bare:.1} ms; of the bare client's until the API had the \
             request: {}; of the daemon's: {}",
            floor_asked.words(),
            ours.words()
        );
        rows.push(Row::at_most(
            (scale == Scale::Full).then_some(1.3),
            format!("decisive verdict to the API's answer / a bare client's, p{percent}"),
            of_daemon / of_bare,
            "x",
            detail,
        ));
    }
    rows
}

fn config(namespace: &str, ips: &[Vec<IpAddr>]) -> String {
    let mut config = format!(
        "defaults:
  namespace: {namespace}
  check:
    http: {{}}
    interval: 1s
    timeout: 1s
    healthyThreshold: {HEALTHY}
    unhealthyThreshold: {UNHEALTHY}
databases:
"
    );
    for (index, ips) in ips.iter().enumerate() {
        let ips: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
        config += &format!(
            "- {{service: {}, port: {PORT}, addresses: [{}]}}\n",
            fixture::service(index),
            ips.join(", ")
        );
    }
    config
}

/// The durations of one transition, from the deciding answer on.
struct Flip {
    /// The time until the request for the write passed the proxy.
    asked: Duration,
    /// The time until its answer passed the proxy.
    whole: Duration,
}

/// Changes one address of each Service after the other, and waits for a write for each.
async fn turn(
    targets: &Targets,
    recorders: [&WriteRecorder; 2],
    victims: &[IpAddr],
    to: Health,
) -> [Vec<Flip>; 2] {
    let mut pace = tokio::time::interval(TURN_INTERVAL);
    for ip in victims {
        pace.tick().await;
        let threshold = match to {
            Health::Up => HEALTHY,
            Health::Down => UNHEALTHY,
        };
        targets.turn(*ip, to, threshold);
    }
    eventually(TIMEOUT, "a write for each Service", async || {
        let count = recorders.map(WriteRecorder::count).into_iter().min().unwrap_or_default();
        if count >= victims.len() { Ok(()) } else { Err(count.to_string()) }
    })
    .await;
    recorders.map(|recorder| flips(targets, recorder, victims))
}

/// Returns the durations of each transition, by the writes that a recorder has seen.
fn flips(targets: &Targets, recorder: &WriteRecorder, victims: &[IpAddr]) -> Vec<Flip> {
    let mut writes: HashMap<String, Vec<Write>> = HashMap::new();
    for write in recorder.take() {
        writes.entry(write.service.clone()).or_default().push(write);
    }
    let of_service = |(index, ip): (usize, &IpAddr)| {
        let writes = writes.get(&fixture::service(index)).map(Vec::as_slice).unwrap_or_default();
        let [write] = writes else { panic!("one write for one transition, not {writes:?}") };
        assert_eq!(write.status, 200, "{write:?}");
        let decisive = targets.decisive(*ip).expect("a write has a reason");
        let since = |moment| {
            std::time::Instant::checked_duration_since(&moment, decisive)
                .expect("a write comes after its reason")
        };
        Flip { asked: since(write.asked), whole: since(write.answered) }
    };
    victims.iter().enumerate().map(of_service).collect()
}
