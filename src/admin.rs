//! The HTTP pages for Kubernetes, Prometheus and people: /healthz, /readyz, /metrics and /api/v1/status.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::Mutex;

use crate::clock;
use crate::config::{DatabaseId, Refused};
use crate::freeze::Frozen;
use crate::health::Streak;
use crate::lease::{self, Standing};
use crate::monitor::{self, DatabaseSnapshot, Snapshot, TargetSnapshot, WATCHDOG};
use crate::plan::Note;
use crate::publish::{self, Publication};
use crate::{event, health, log, metrics, plan, reload};

/// What the pages are made from.
#[derive(Clone)]
pub struct Sources {
    pub monitor: monitor::Handle,
    pub publish: publish::Handle,
    pub lease: lease::Handle,
    pub config: reload::Handle,
    pub events: event::Counts,
}

/// Serves the pages until the daemon ends.
pub async fn serve(listener: TcpListener, sources: Sources) -> std::io::Result<()> {
    let router = Router::new()
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics_page))
        .route("/api/v1/status", get(status))
        .fallback(async || (StatusCode::NOT_FOUND, "try /healthz, /readyz, /metrics or /api/v1/status\n"))
        .with_state(sources);
    axum::serve(listener, router).await
}

/// Binds the address of the admin pages.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

async fn healthz(State(sources): State<Sources>) -> Response {
    let still = clock::now().saturating_duration_since(sources.monitor.turned());
    if still >= 3 * WATCHDOG {
        let body = format!("the monitor has not turned its loop for {}\n", humantime::format_duration(still));
        return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
    }
    "ok\n".into_response()
}

async fn readyz(State(sources): State<Sources>) -> Response {
    let unlisted = sources.publish.unlisted();
    if unlisted.is_empty() {
        return "ok\n".into_response();
    }
    let names: Vec<String> = unlisted.iter().map(DatabaseId::to_string).collect();
    let body = format!("the cluster has not been read yet for {}\n", names.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn metrics_page(State(sources): State<Sources>) -> Response {
    let Some(snapshot) = sources.monitor.snapshot().await else { return ending() };
    let write_duration = sources.publish.write_duration();
    let standing = metrics::Standing {
        leads: sources.lease.leads(),
        config_is_good: sources.config.problems().is_empty(),
        log_lines_dropped: log::dropped_lines(),
        leftovers: sources.publish.leftovers(),
    };
    let publish = sources.publish;
    let publication = move |id: &DatabaseId| publish.publication(id);
    match metrics::page(snapshot, publication, &write_duration, &standing, &sources.events) {
        Ok(page) => in_pieces(prometheus::TEXT_FORMAT, page),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn status(State(sources): State<Sources>) -> Response {
    let Some(snapshot) = sources.monitor.snapshot().await else { return ending() };
    let head = [
        json(&env!("CARGO_PKG_VERSION")),
        json(&LeaseStatus::new(&sources.lease)),
        json(&snapshot.frozen.as_ref().map(FreezeStatus::new)),
        json(&ConfigStatus::new(&sources.config)),
        json(&left_behind(&sources.publish)),
    ];
    in_pieces("application/json", status_pieces(snapshot, sources.publish, head))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

/// The body of /api/v1/status: `version`, `lease`, `frozen`, `config`, `leftBehind`, and a [`DatabaseStatus`] for each database.
fn status_pieces(
    snapshot: Arc<Snapshot>,
    publish: publish::Handle,
    [version, lease, frozen, config, left]: [String; 5],
) -> impl Iterator<Item = String> + Send + 'static {
    let head = format!(
        "{{\"version\":{version},\"lease\":{lease},\"frozen\":{frozen},\"config\":{config},\"leftBehind\":{left},\"databases\":["
    );
    let databases = (0..snapshot.databases.len()).map(move |index| {
        let database = &snapshot.databases[index];
        let comma = if index == 0 { "" } else { "," };
        let status = DatabaseStatus::new(database, publish.publication(&database.id).as_ref());
        comma.to_owned() + &json(&status)
    });
    std::iter::once(head).chain(databases).chain(std::iter::once("]}".to_owned()))
}

/// How much of a long page is made at once.
const PIECE: usize = 32 << 10;

/// Held while a piece is made: however many pages are asked for, they take one processor at a time, and leave the others to
/// the checks.
static MAKING: Mutex<()> = Mutex::const_new(());

/// A page of any length, made as its reader takes it. Other work has its turn between the pieces.
fn in_pieces(content_type: &'static str, mut parts: impl Iterator<Item = String> + Send + 'static) -> Response {
    let pieces = std::iter::from_fn(move || {
        let mut piece = parts.next()?;
        if piece.len() < PIECE {
            piece.reserve(PIECE);
        }
        while piece.len() < PIECE
            && let Some(part) = parts.next()
        {
            piece.push_str(&part);
        }
        Some(piece)
    });
    let stream = futures::stream::unfold(pieces, async |mut pieces| {
        tokio::task::yield_now().await;
        let _making = MAKING.lock().await;
        Some((Ok::<_, Infallible>(pieces.next()?), pieces))
    });
    ([(header::CONTENT_TYPE, content_type)], Body::from_stream(stream)).into_response()
}

fn ending() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending\n").into_response()
}

/// The config in force, and the file that it is from.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConfigStatus {
    file: String,
    /// When the config in force was taken.
    since: String,
    /// What is wrong with the file as it is now; while there is anything, the last good config stays in force.
    problems: Vec<String>,
}

impl ConfigStatus {
    fn new(config: &reload::Handle) -> Self {
        Self { file: config.file(), since: calendar(config.since()), problems: config.problems().to_vec() }
    }
}

/// Endpoints that are ours by their label, and of no database of the config.
#[derive(Serialize)]
struct LeftBehind {
    namespace: String,
    service: String,
    addresses: Vec<String>,
}

fn left_behind(publish: &publish::Handle) -> Vec<LeftBehind> {
    let leftovers = publish.leftovers().into_iter();
    let left = leftovers.map(|(DatabaseId { namespace, service }, members)| {
        let addresses = ips(&members);
        LeftBehind { namespace, service, addresses }
    });
    left.collect()
}

/// Null where there is no lease.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LeaseStatus {
    /// NAMESPACE/NAME of the Lease.
    name: String,
    /// Who this replica is in it.
    identity: String,
    /// Whether this replica holds it, and writes.
    held: bool,
    /// Who holds it; null if nobody is known to.
    holder: Option<String>,
    /// Why it can't be had, where that is not because another holds it.
    trouble: Option<String>,
}

impl LeaseStatus {
    fn new(lease: &lease::Handle) -> Option<Self> {
        let (name, me) = lease.identity()?;
        let (holder, trouble) = match lease.standing() {
            Standing::Standby { holder, trouble } => (holder, trouble),
            _ => (Some(me.to_owned()), None),
        };
        Some(Self { name: name.to_string(), identity: me.to_owned(), held: lease.leads(), holder, trouble })
    }
}

/// Null where there is no freeze.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct FreezeStatus {
    since: String,
    /// When it ends at the latest.
    until: Option<String>,
    /// Of the published targets, how many fail.
    failed: usize,
    published: usize,
}

impl FreezeStatus {
    fn new(&Frozen { since, until, failed, published }: &Frozen) -> Self {
        Self { since: calendar(since), until: until.map(calendar), failed, published }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct DatabaseStatus {
    namespace: String,
    service: String,
    condition: Option<String>,
    reason: Option<String>,
    /// When the condition came into force.
    since: Option<String>,
    /// What the policy did to the plan, and what is wrong with the Service's annotations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policy: Vec<String>,
    split_brain: bool,
    /// When a preferred tier takes over again.
    #[serde(skip_serializing_if = "Option::is_none")]
    failback_at: Option<String>,
    /// What the cluster shall hold; null while that is undecided.
    planned: Option<Vec<String>>,
    /// What the cluster holds; null while that is unknown or not ours.
    published: Option<Vec<String>>,
    targets: Vec<TargetStatus>,
    /// Addresses of the config that may not be published, and are not checked.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    refused: Vec<RefusedStatus>,
}

#[derive(Serialize)]
struct RefusedStatus {
    address: String,
    reason: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetStatus {
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hostname: Option<String>,
    /// The `priority` of the address.
    tier: u32,
    /// Why it is in maintenance, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    maintenance: Option<String>,
    /// Until when it is out for flapping, if it is and stays up.
    #[serde(skip_serializing_if = "Option::is_none")]
    flapping_until: Option<String>,
    health: &'static str,
    /// Passes or failures in a row, whichever the newest verdict was.
    passes: u32,
    failures: u32,
    /// When the target came into its health.
    since: String,
    /// Why the newest verdict was not a pass.
    reason: Option<String>,
    /// Since when all verdicts have been inconclusive, once that is for more than a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    inconclusive_since: Option<String>,
    last_check: Option<String>,
    last_duration_seconds: Option<f64>,
    published: bool,
}

impl DatabaseStatus {
    fn new(database: &DatabaseSnapshot, publication: Option<&Publication>) -> Self {
        let members = publication.and_then(|publication| publication.members.as_ref());
        let planned = match &database.plan {
            plan::Plan::Publish(members) => Some(members),
            plan::Plan::Keep(_) => None,
        };
        Self {
            namespace: database.id.namespace.clone(),
            service: database.id.service.clone(),
            condition: publication.map(|publication| publication.condition.kind.to_string()),
            reason: publication.map(|publication| publication.condition.reason.clone()),
            since: publication.map(|publication| calendar(publication.since)),
            policy: notes(database),
            split_brain: database.notes.iter().any(|note| matches!(note, Note::SplitBrain { .. })),
            failback_at: database.notes.iter().find_map(|note| match note {
                Note::FailbackWaits { until, .. } => until.map(calendar),
                _ => None,
            }),
            planned: planned.map(ips),
            published: members.map(ips),
            targets: database.targets.iter().map(|target| TargetStatus::new(target, members)).collect(),
            refused: database.refused.iter().map(RefusedStatus::new).collect(),
        }
    }
}

impl RefusedStatus {
    fn new(refused: &Refused) -> Self {
        Self { address: refused.ip.to_string(), reason: refused.why.clone() }
    }
}

impl TargetStatus {
    fn new(target: &TargetSnapshot, members: Option<&plan::Members>) -> Self {
        let health: &health::Health = &target.health;
        let (passes, failures) = match health.streak() {
            Streak::None => (0, 0),
            Streak::Passes(passes) => (passes, 0),
            Streak::Failures(failures) => (0, failures),
        };
        Self {
            address: target.member.ip.to_string(),
            hostname: target.member.hostname.clone(),
            tier: target.priority,
            maintenance: target.maintenance.as_deref().map(str::to_owned),
            flapping_until: target.flapping().map(calendar),
            health: health.state().as_str(),
            passes,
            failures,
            since: calendar(health.since()),
            reason: health.reason().map(str::to_owned),
            inconclusive_since: health.inconclusive_since().map(calendar),
            last_check: target.last.map(|(at, _)| calendar(at)),
            last_duration_seconds: target.last.map(|(_, duration)| duration.as_secs_f64()),
            published: members.is_some_and(|members| members.contains(target.member.ip)),
        }
    }
}

fn notes(database: &DatabaseSnapshot) -> Vec<String> {
    let problems =
        database.problems.iter().map(|problem| format!("annotation external-endpoints/maintenance: {problem}"));
    database.notes.iter().map(Note::to_string).chain(problems).collect()
}

fn ips(members: &plan::Members) -> Vec<String> {
    members.iter().map(|member| member.ip.to_string()).collect()
}

/// A moment in the past, or one to come.
fn calendar(moment: Instant) -> String {
    humantime::format_rfc3339_millis(clock::wall(moment)).to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::signal::unix::{SignalKind, signal};

    use super::*;
    use crate::config::{self, Spec};
    use crate::freeze::Rules;
    use crate::limits::Limits;
    use crate::news::Teller;
    use crate::publish::Cluster;

    #[tokio::test(start_paused = true)]
    async fn health_fails_when_the_monitor_has_not_turned_for_three_intervals_and_not_before() {
        let spec = Spec::default();
        let limits = Limits { checks_in_flight: 1, exec_at_once: 1 };
        let runtime = tokio::runtime::Handle::current();
        // One that never runs.
        let (monitor, _checks) =
            monitor::prepare(&spec, limits, Rules::default(), &Teller::default(), runtime.clone(), runtime)
                .expect("an epoll instance");
        let lease = lease::Handle::dry_run();
        let (publish, _publishing) =
            publish::start(&spec, &Cluster::None, &monitor, &lease, &publish::Options::default());
        let (source, _) = reload::Source::read("config.yaml".into(), config::Options::default()).expect("descriptors");
        let hangup = signal(SignalKind::hangup()).expect("a handler");
        let config = reload::start(source, spec, Teller::default(), hangup);
        let sources = Sources { monitor, publish, lease, config, events: event::Counts::default() };
        let status = async || healthz(State(sources.clone())).await.status();
        tokio::time::advance(WATCHDOG).await;
        assert_eq!(status().await, StatusCode::OK);
        tokio::time::advance(2 * WATCHDOG + Duration::from_millis(1)).await;
        assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
    }
}
