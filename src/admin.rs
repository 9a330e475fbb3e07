//! The HTTP pages for Kubernetes, Prometheus and people: /healthz, /readyz, /metrics and /api/v1/status.
//!
//! Whoever reaches the port may do what they like to it: `server` bounds the connections, and `chunked` the work for a page,
//! so that neither the checks nor the probes of the kubelet suffer.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use chunked::{chunked, throttled};
use guarded_body::GuardedBody;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::config::DatabaseId;
use crate::monitor::{self, HEARTBEAT_INTERVAL};
use crate::{clock, event, lease, limits, log, metrics, publish, reload};

mod chunked;
mod connections;
mod guarded_body;
mod server;
mod status;

/// How many of the connections may read large pages at once: one of so many. The small pages, which Kubernetes asks for, have
/// all the others.
const LARGE_PAGES_SHARE: usize = 4;

/// What the pages are made from.
#[derive(Clone)]
pub(crate) struct AppState {
    pub monitor: monitor::Handle,
    pub publish: publish::Handle,
    pub lease: lease::Handle,
    pub config: reload::Handle,
    pub events: event::Counts,
}

/// Binds the address of the admin pages.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    server::bind(address)
}

/// Serves the pages until the daemon ends.
pub(crate) async fn serve(listener: TcpListener, sources: AppState) -> Infallible {
    let connections = limits::max_page_connections();
    let large_pages = (connections / LARGE_PAGES_SHARE).max(1);
    server::serve(listener, router(sources, large_pages), connections).await
}

fn router(sources: AppState, large_pages: usize) -> Router {
    let permits = Arc::new(Semaphore::new(large_pages));
    Router::new()
        .route("/metrics", get(metrics_page))
        .route("/api/v1/status", get(status_page))
        .route_layer(middleware::from_fn_with_state(permits, limit_large_pages))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .fallback(async || {
            (StatusCode::NOT_FOUND, "try /healthz, /readyz, /metrics or /api/v1/status\n")
        })
        .with_state(sources)
}

/// Holds a place for as long as a page is read, or says that there is none.
async fn limit_large_pages(
    State(places): State<Arc<Semaphore>>,
    request: Request,
    next: Next,
) -> Response {
    match places.try_acquire_owned() {
        Ok(place) => next.run(request).await.map(|body| Body::new(GuardedBody::new(body, place))),
        Err(_) => {
            let body = "too many read large pages already; try again in a second\n";
            (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], body).into_response()
        }
    }
}

async fn healthz(State(sources): State<AppState>) -> Response {
    let still = clock::now().saturating_duration_since(sources.monitor.last_heartbeat());
    if still >= 3 * HEARTBEAT_INTERVAL {
        let body = format!(
            "the monitor has not turned its loop for {}\n",
            humantime::format_duration(still)
        );
        return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
    }
    "ok\n".into_response()
}

async fn readyz(State(sources): State<AppState>) -> Response {
    let unlisted = sources.publish.unsynced();
    if unlisted.is_empty() {
        return "ok\n".into_response();
    }
    let names: Vec<String> = unlisted.iter().map(DatabaseId::to_string).collect();
    let body = format!("the cluster has not been read yet for {}\n", names.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, body).into_response()
}

async fn metrics_page(State(sources): State<AppState>) -> Response {
    let Some(snapshot) = sources.monitor.snapshot().await else { return shutting_down() };
    let write_duration = sources.publish.write_duration();
    let state = metrics::DaemonState {
        is_leader: sources.lease.is_leader(),
        config_is_good: sources.config.problems().is_empty(),
        log_lines_dropped: log::dropped_lines(),
        orphans: sources.publish.orphans(),
    };
    let publish = sources.publish;
    let publication = move |id: &DatabaseId| publish.status(id);
    let page = || metrics::page(snapshot, publication, &write_duration, &state, &sources.events);
    chunked(prometheus::TEXT_FORMAT, throttled(page).await)
}

async fn status_page(State(sources): State<AppState>) -> Response {
    match sources.monitor.snapshot().await {
        Some(snapshot) => {
            chunked("application/json", throttled(|| status::page(snapshot, sources)).await)
        }
        None => shutting_down(),
    }
}

fn shutting_down() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending\n").into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::StatusCode;
    use tokio::signal::unix::{SignalKind, signal};

    use super::*;
    use crate::config::Spec;
    use crate::freeze::Rules;
    use crate::limits::Limits;
    use crate::notice::Recorder;
    use crate::publish::Cluster;

    #[tokio::test(start_paused = true)]
    async fn health_fails_when_the_monitor_has_not_turned_for_three_intervals_and_not_before() {
        let spec = Spec::default();
        let limits = Limits { max_in_flight: 1, max_execs: 1 };
        let runtime = tokio::runtime::Handle::current();
        // One that never runs.
        let (monitor, _checks) = monitor::build(
            &spec,
            limits,
            Rules::default(),
            &Recorder::default(),
            runtime.clone(),
            runtime,
        )
        .expect("an epoll instance");
        let lease = lease::Handle::dry_run();
        let (publish, _publishing) =
            publish::start(&spec, &Cluster::None, &monitor, &lease, &publish::Options::default());
        let hangup = signal(SignalKind::hangup()).expect("a handler");
        let file = reload::ConfigFile::missing();
        let config = reload::start(file, spec, Recorder::default(), hangup);
        let sources =
            AppState { monitor, publish, lease, config, events: event::Counts::default() };
        let status = async || healthz(State(sources.clone())).await.status();
        tokio::time::advance(HEARTBEAT_INTERVAL).await;
        assert_eq!(status().await, StatusCode::OK);
        tokio::time::advance(2 * HEARTBEAT_INTERVAL + Duration::from_millis(1)).await;
        assert_eq!(status().await, StatusCode::SERVICE_UNAVAILABLE);
    }
}
