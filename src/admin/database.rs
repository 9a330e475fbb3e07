//! The page of one database, for people and as JSON.

use axum::extract::{Path, State};
use axum::response::Response;

use super::accept::MediaType;
use super::chunked::{chunked, throttled};
use super::encoding::Encoding;
use super::overview::{as_html, as_text};
use super::state::{AppState, json, no_such_database, shutting_down};
use crate::config::DatabaseId;
use crate::page::{self, Query};

/// Returns the status of one database as JSON, with its newest changes.
pub(super) async fn json_page(
    State(state): State<AppState>,
    Path((namespace, service)): Path<(String, String)>,
    encoding: Encoding,
) -> Response {
    let Some(snapshot) = state.monitor.snapshot().await else { return shutting_down() };
    let id = DatabaseId { namespace, service };
    match throttled(|| state.find(&snapshot, &id)).await {
        Some(status) => {
            let parts = std::iter::once_with(move || json(&status));
            chunked("application/json", encoding, parts)
        }
        None => no_such_database(),
    }
}

/// Returns the page of one database.
pub(super) async fn html_page(
    State(state): State<AppState>,
    Path((namespace, service)): Path<(String, String)>,
    query: Query,
    encoding: Encoding,
    media_type: MediaType,
) -> Response {
    let Some(snapshot) = state.monitor.snapshot().await else { return shutting_down() };
    let id = DatabaseId { namespace, service };
    let Some(status) = throttled(|| state.find(&snapshot, &id)).await else {
        return no_such_database();
    };
    let replica = state.replica(&snapshot);
    let interval = page::refresh_interval(&query, status.targets.len());
    match media_type {
        MediaType::Html => {
            let page = page::database(&replica, &query, status);
            as_html(chunked(page::CONTENT_TYPE, encoding, page), interval)
        }
        MediaType::Text => {
            let page = std::iter::once_with(move || page::plain_database(replica.now, &status));
            as_text(chunked(page::PLAIN_CONTENT_TYPE, encoding, page))
        }
    }
}
