//! The page of all databases, for people.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::accept::MediaType;
use super::chunked::{chunked, throttled};
use super::encoding::Encoding;
use super::state::{AppState, shutting_down};
use crate::monitor::Snapshot;
use crate::page::{self, CONTENT_SECURITY_POLICY, Query, Survey};

/// The databases that are surveyed at once, between which other work can run.
const SURVEY_STEP: usize = 64;

/// Returns the page of all databases.
pub(super) async fn page(
    State(state): State<AppState>,
    query: Query,
    encoding: Encoding,
    media_type: MediaType,
) -> Response {
    let Some(snapshot) = state.monitor.snapshot().await else { return shutting_down() };
    let survey = survey(&state, &snapshot, &query).await;
    let interval = page::refresh_interval(&query, survey.shown_targets());
    let replica = state.replica(&snapshot);
    let database = move |index: usize| state.database(&snapshot.databases[index]);
    match media_type {
        MediaType::Html => {
            let parts = page::overview(replica, query, survey, database);
            as_html(chunked(page::CONTENT_TYPE, encoding, parts), interval)
        }
        MediaType::Text => {
            let page = move || page::plain_overview(&replica, survey, database);
            as_text(chunked(page::PLAIN_CONTENT_TYPE, encoding, std::iter::once_with(page)))
        }
    }
}

/// Looks at all databases once, so that the page can begin with the counts and with trouble.
async fn survey(state: &AppState, snapshot: &Arc<Snapshot>, query: &Query) -> Survey {
    let mut survey = Survey::default();
    for (step, databases) in snapshot.databases.chunks(SURVEY_STEP).enumerate() {
        let look = || {
            for (index, database) in (step * SURVEY_STEP..).zip(databases) {
                survey.add(query, index, &state.database(database));
            }
        };
        throttled(look).await;
        tokio::task::yield_now().await;
    }
    survey
}

/// Adds the headers of a page of HTML. `Refresh` loads it again after `interval` seconds.
pub(super) fn as_html(mut response: Response, interval: Option<u32>) -> Response {
    let headers = response.headers_mut();
    let policy = HeaderValue::from_str(&CONTENT_SECURITY_POLICY).expect("ASCII");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.append(header::VARY, HeaderValue::from_static("accept"));
    if let Some(interval) = interval {
        headers.insert(header::REFRESH, interval.into());
    }
    response
}

/// Adds the headers of a page of text.
pub(super) fn as_text(mut response: Response) -> Response {
    response.headers_mut().append(header::VARY, HeaderValue::from_static("accept"));
    response
}

/// Returns the answer to a query that cannot be understood.
fn bad_query(error: &str) -> Response {
    (StatusCode::BAD_REQUEST, format!("the query is wrong: {error}\n")).into_response()
}

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Response> {
        Query::parse(parts.uri.query().unwrap_or_default()).map_err(|error| bad_query(&error))
    }
}
