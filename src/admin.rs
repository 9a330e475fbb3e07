//! The HTTP pages: /healthz and /readyz for Kubernetes, /metrics for Prometheus, /api/v1/status for
//! programs, and / for people.
//!
//! Every client that reaches the port is untrusted. `server` bounds the connections and `chunked`
//! the work for a page, so that a flood of requests affects neither the checks nor the probes of
//! the kubelet.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chunked::{chunked, throttled};
use encoding::Encoding;
use guarded_body::GuardedBody;
pub(crate) use state::AppState;
use state::{json, shutting_down};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::config::DatabaseId;
use crate::monitor::{HEARTBEAT_INTERVAL, Snapshot};
use crate::status::{DatabaseStatus, ReplicaStatus};
use crate::{clock, limits, log, metrics};

mod accept;
mod chunked;
mod connections;
mod database;
mod encoding;
mod guarded_body;
mod overview;
mod server;
mod state;

/// The connections for each one that may read a large page. The others are left to the small pages,
/// which the kubelet reads.
const CONNECTIONS_PER_LARGE_PAGE: usize = 4;

/// The age of the last heartbeat at which the monitor counts as hung.
const MAX_HEARTBEAT_AGE: Duration = HEARTBEAT_INTERVAL.saturating_mul(3);

/// Listens on the address of the pages.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    server::bind(address)
}

/// Serves the pages until the daemon ends.
pub(crate) async fn serve(listener: TcpListener, state: AppState) -> Infallible {
    let connections = limits::max_page_connections();
    let max_large_pages = (connections / CONNECTIONS_PER_LARGE_PAGE).max(1);
    server::serve(listener, router(state, max_large_pages), connections).await
}

fn router(state: AppState, max_large_pages: usize) -> Router {
    let permits = Arc::new(Semaphore::new(max_large_pages));
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/api/v1/status", get(status_page))
        .route("/api/v1/databases/{namespace}/{service}", get(database::json_page))
        .route("/", get(overview::page))
        .route("/databases/{namespace}/{service}", get(database::html_page))
        .route_layer(middleware::from_fn_with_state(permits, limit_large_pages))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(async || {
            let body = "try /, /healthz, /readyz, /metrics or /api/v1/status\n";
            (StatusCode::NOT_FOUND, body)
        })
        .method_not_allowed_fallback(async || {
            (StatusCode::METHOD_NOT_ALLOWED, "the pages can only be read: use GET or HEAD\n")
        })
        .layer(middleware::map_response(harden))
        .with_state(state)
}

/// Adds the headers that keep a browser from taking a page for something else, from keeping it, and
/// from showing it inside of another. A page of HTML has a policy of its own.
async fn harden(mut response: Response) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    ];
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Keeps a permit until the page has been read. Without a free permit the answer is 503.
async fn limit_large_pages(
    State(permits): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    match permits.try_acquire_owned() {
        Ok(permit) => next.run(request).await.map(|body| Body::new(GuardedBody::new(body, permit))),
        Err(_) => {
            let body = "too many clients read large pages; try again in a second\n";
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], body).into_response()
        }
    }
}

async fn healthz(State(state): State<AppState>) -> Response {
    let age = clock::now().saturating_duration_since(state.monitor.last_heartbeat());
    if age >= MAX_HEARTBEAT_AGE {
        let age = humantime::format_duration(age);
        let body = format!("the monitor has not run its loop for {age}; restart the daemon\n");
        return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
    }
    "ok\n".into_response()
}

async fn readyz(State(state): State<AppState>) -> Response {
    let unsynced = state.publish.unsynced();
    if unsynced.is_empty() {
        return "ok\n".into_response();
    }
    let names: Vec<String> = unsynced.iter().map(DatabaseId::to_string).collect();
    let body = format!("the cluster has not been read yet for {}\n", names.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn metrics_page(State(state): State<AppState>, encoding: Encoding) -> Response {
    let Some(snapshot) = state.monitor.snapshot().await else { return shutting_down() };
    let write_duration = state.publish.write_duration();
    let daemon = metrics::DaemonState {
        is_leader: state.lease.is_leader(),
        lease: state.lease.identity().map(|(name, _)| name.to_string()),
        config_is_good: state.config.problems().is_empty(),
        log_lines_dropped: log::dropped_lines(),
        orphans: state.publish.orphans(),
        dns: state.dns,
    };
    let publish = state.publish;
    let publish_status = move |id: &DatabaseId| publish.status(id);
    let page = || metrics::page(snapshot, publish_status, &write_duration, &daemon, &state.events);
    chunked(prometheus::TEXT_FORMAT, encoding, throttled(page).await)
}

async fn status_page(State(state): State<AppState>, encoding: Encoding) -> Response {
    match state.monitor.snapshot().await {
        Some(snapshot) => {
            let parts = throttled(|| status_json(snapshot, state)).await;
            chunked("application/json", encoding, parts)
        }
        None => shutting_down(),
    }
}

/// Returns the JSON of `DaemonStatus` in parts, one for each database.
fn status_json(
    snapshot: Arc<Snapshot>,
    state: AppState,
) -> impl Iterator<Item = String> + Send + 'static {
    let AppState { publish, lease, config, .. } = state;
    let mut head = json(&ReplicaStatus::new(&snapshot, &publish, &lease, &config));
    // The databases are the last field of the same object.
    head.truncate(head.len() - "}".len());
    head += ",\"databases\":[";
    let databases = (0..snapshot.databases.len()).map(move |index| {
        let database = &snapshot.databases[index];
        let comma = if index == 0 { "" } else { "," };
        let status = DatabaseStatus::new(database, publish.status(&database.id).as_ref());
        comma.to_owned() + &json(&status)
    });
    std::iter::once(head).chain(databases).chain(std::iter::once("]}".to_owned()))
}

#[cfg(test)]
mod tests {
    use tokio::signal::unix::{SignalKind, signal};

    use super::*;
    use crate::config::Spec;
    use crate::freeze::Rules;
    use crate::limits::Limits;
    use crate::notice::Recorder;
    use crate::publish::Cluster;
    use crate::{lease, monitor, publish, reload};

    #[tokio::test(start_paused = true)]
    async fn health_fails_after_three_intervals_without_a_heartbeat() {
        let spec = Spec::default();
        let limits = Limits { max_in_flight: 1, max_execs: 1 };
        let runtime = tokio::runtime::Handle::current();
        // This monitor never runs.
        let (monitor, _checks) = monitor::build(
            &spec,
            limits,
            Rules::default(),
            &Recorder::default(),
            crate::resolve::channel().0,
            (runtime.clone(), runtime),
        )
        .expect("an epoll instance");
        let lease = lease::Handle::dry_run();
        let (publish, _publishing) =
            publish::start(&spec, &Cluster::None, &monitor, &lease, &publish::Options::default());
        let hangup = signal(SignalKind::hangup()).expect("a handler");
        let file = reload::ConfigFile::missing();
        let config = reload::start(file, spec, Recorder::default(), hangup);
        let (events, dns) = Default::default();
        let state = AppState { monitor, publish, lease, config, events, dns };
        let status = async || healthz(State(state.clone())).await.status();
        tokio::time::advance(HEARTBEAT_INTERVAL).await;
        assert_eq!(status().await, StatusCode::OK);
        tokio::time::advance(2 * HEARTBEAT_INTERVAL + Duration::from_millis(1)).await;
        assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
    }
}
