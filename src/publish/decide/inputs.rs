//! The inputs of a decision: everything that is known of one database at one moment.

use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Endpoints, Service};

use super::serving;
use crate::config::{Database, PublishMode};
use crate::endpoints;
use crate::plan::{Members, Plan};
use crate::publish::cache::observed::Existing;
use crate::publish::cache::orphans::ObjectKind;
use crate::publish::ownership;

/// The inputs of a decision.
pub(crate) struct Inputs {
    /// The database as it was when the plan was decided.
    pub database: Arc<Database>,
    pub plan: Plan,
    /// The addresses that may answer, while the plan is to keep what is published.
    pub may_answer: Arc<[IpAddr]>,
    pub existing: Existing,
}

impl Inputs {
    /// Returns the same inputs with other objects.
    pub(crate) fn with_existing(&self, existing: Existing) -> Self {
        Self {
            database: self.database.clone(),
            plan: self.plan.clone(),
            may_answer: self.may_answer.clone(),
            existing,
        }
    }

    /// Returns the Service, if it exists.
    pub(crate) fn service(&self) -> Option<&Service> {
        self.existing.service.as_deref()
    }

    /// Returns the Endpoints, if they exist.
    pub(crate) fn endpoints(&self) -> Option<&Endpoints> {
        self.existing.endpoints.as_deref()
    }

    /// Returns whether everything that a decision needs has been listed.
    ///
    /// Slices are needed even where only Endpoints are to be published, because they may have been
    /// published before. Where the right to list them is missing, they cannot have been.
    pub(crate) fn is_synced(&self) -> bool {
        let synced = |kind| self.existing.watch(kind).synced;
        let endpoints_only = self.database.publish == PublishMode::Endpoints
            && !self.endpoints().is_some_and(endpoints::we_set_skip_mirror);
        let slices_fail = self.existing.watch(ObjectKind::Slice).error.is_some();
        synced(ObjectKind::Service)
            && synced(ObjectKind::Endpoints)
            && (synced(ObjectKind::Slice) || endpoints_only && slices_fail)
    }

    /// Returns the members that clients are sent to, by Endpoints or by slices.
    pub(crate) fn serving(&self) -> Members {
        serving::serving(self.database.publish, self.endpoints(), &self.existing.slices)
    }

    /// Returns those of the exposed members that the daemon has written.
    pub(crate) fn own(&self, written_uid: Option<&str>) -> Members {
        let is_managed = |it: &&Endpoints| ownership::is_managed(it, written_uid);
        serving::exposed(self.endpoints().filter(is_managed), &self.existing.slices)
    }

    /// Returns all members that clients may be sent to, wherever they are published.
    pub(crate) fn exposed(&self) -> Members {
        serving::exposed(self.endpoints(), &self.existing.slices)
    }
}
