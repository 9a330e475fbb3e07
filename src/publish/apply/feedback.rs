//! Feedback to the monitor: the members that the cluster had at the start, those that it has by
//! decision, and the annotations of the Service.

use crate::annotations::ServiceAnnotations;
use crate::config::DatabaseId;
use crate::monitor::{self, ServiceFacts};
use crate::plan::Members;

/// Feedback about one database, which is sent only when it changes.
pub(crate) struct Feedback {
    monitor: monitor::Handle,
    id: DatabaseId,
    initial_members_sent: bool,
    service_facts: ServiceFacts,
    published_members: Option<Members>,
    /// The annotations that were sent last; none stands for no annotations.
    annotations: Option<Box<ServiceAnnotations>>,
}

impl Feedback {
    /// Creates feedback of which nothing has been sent.
    pub(crate) fn new(monitor: monitor::Handle, id: DatabaseId) -> Self {
        Self {
            monitor,
            id,
            initial_members_sent: false,
            service_facts: ServiceFacts::default(),
            published_members: None,
            annotations: None,
        }
    }

    /// Forgets the members that were sent: the monitor needs them again for a new version of the
    /// database, which may have other addresses and another policy.
    pub(crate) fn reset_members(&mut self) {
        self.initial_members_sent = false;
        self.published_members = None;
        // A database that had no names does not know them.
        self.service_facts = ServiceFacts::default();
    }

    /// Sends the members that the cluster has when the database is first reconciled. `own` are
    /// those of them that the daemon has written.
    pub(crate) async fn send_initial_members(&mut self, members: Members, own: Members) {
        if !std::mem::replace(&mut self.initial_members_sent, true) {
            self.monitor.set_initial_members(&self.id, members, own).await;
        }
    }

    /// Sends the facts about the Service that decide which answers of DNS are followed.
    pub(crate) async fn send_service_facts(&mut self, facts: ServiceFacts) {
        if self.service_facts != facts {
            self.service_facts = facts.clone();
            self.monitor.set_service_facts(&self.id, facts).await;
        }
    }

    /// Sends the members that the cluster has by decision: this replica's, or that of the replica
    /// that writes. An outside edit that is about to be repaired must not be sent, because the
    /// policy would take it for its own decision.
    pub(crate) async fn send_published_members(&mut self, members: &Members) {
        if self.published_members.as_ref() != Some(members) {
            self.published_members = Some(members.clone());
            self.monitor.set_published_members(&self.id, members.clone()).await;
        }
    }

    /// Sends the annotations of the Service.
    pub(crate) async fn send_annotations(&mut self, annotations: ServiceAnnotations) {
        let changed = match &self.annotations {
            Some(sent) => **sent != annotations,
            None => annotations != ServiceAnnotations::default(),
        };
        if changed {
            self.annotations = Some(Box::new(annotations.clone()));
            self.monitor.set_annotations(&self.id, annotations).await;
        }
    }
}
