//! The sources of the pages, and answers that several pages give.

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::config::DatabaseId;
use crate::monitor::{self, DatabaseSnapshot, Snapshot};
use crate::status::{DatabaseStatus, ReplicaStatus};
use crate::{event, lease, publish, reload, resolve};

/// The sources of the pages.
#[derive(Clone)]
pub(crate) struct AppState {
    pub monitor: monitor::Handle,
    pub publish: publish::Handle,
    pub lease: lease::Handle,
    pub config: reload::Handle,
    pub events: event::Counts,
    pub dns: resolve::Counts,
}

impl AppState {
    /// Returns the status of this replica.
    pub(super) fn replica(&self, snapshot: &Snapshot) -> ReplicaStatus {
        ReplicaStatus::new(snapshot, &self.publish, &self.lease, &self.config)
    }

    /// Returns the status of a database.
    pub(super) fn database(&self, database: &DatabaseSnapshot) -> DatabaseStatus {
        DatabaseStatus::new(database, self.publish.status(&database.id).as_ref())
    }

    /// Returns the status of the database with this name, and its newest changes; none if the
    /// config has no such database.
    pub(super) fn find(&self, snapshot: &Snapshot, id: &DatabaseId) -> Option<DatabaseStatus> {
        let database = snapshot.databases.iter().find(|database| database.id == *id)?;
        Some(self.database(database).with_changes(database))
    }
}

/// Returns the JSON of plain data.
pub(super) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("plain data")
}

/// Returns the answer while the daemon ends.
pub(super) fn shutting_down() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "the daemon is ending\n").into_response()
}

/// Returns the answer for a database that the config does not have.
pub(super) fn no_such_database() -> Response {
    let body = "the config has no such database; / and /api/v1/status list all\n";
    (StatusCode::NOT_FOUND, body).into_response()
}
