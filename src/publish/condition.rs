//! The condition of a database's publishing: one word for machines, and one sentence for people.

use std::fmt;

use crate::api::{ApiError, ErrorKind};
use crate::notice::Reason;

/// The kind of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConditionKind {
    /// The cluster has not been read yet.
    WaitingForCluster,
    /// Some targets have had no verdict yet, or none is up and some have had only inconclusive
    /// ones.
    WaitingForVerdicts,
    /// None of the database's names has resolved yet, and it has no other address.
    WaitingForNames,
    /// There is no Service of that name.
    WaitingForService,
    /// The Service has a selector: Kubernetes writes its Endpoints.
    ServiceHasSelector,
    /// The Service is of type ExternalName, which has no Endpoints.
    ServiceIsExternalName,
    /// The API server's own Service.
    ServiceIsKubernetes,
    /// The Endpoints have another manager.
    NotOurs,
    /// The database's ports can't be joined to the Service's.
    PortMismatch,
    /// Kubernetes does not mirror the Endpoints into EndpointSlices as they are.
    NotMirrored,
    /// EndpointSlices of Pods that the Service no longer selects are still there.
    SlicesLeftBehind,
    /// None of the database's addresses may be published.
    AddressesRefused,
    /// The cluster's access control (RBAC) refuses a call.
    Forbidden,
    /// The API does not answer, or answers with an error of its own.
    ApiUnavailable,
    /// The API says that the written object is not valid.
    Rejected,
    /// Another replica holds the lease, and writes.
    Standby,
    /// Nothing is written, because the daemon was asked not to.
    DryRun,
    /// The cluster matches the plan.
    Published,
}

impl ConditionKind {
    /// Every kind. docs/reference/conditions.md has a line for each.
    pub const ALL: [ConditionKind; 18] = [
        ConditionKind::WaitingForCluster,
        ConditionKind::WaitingForVerdicts,
        ConditionKind::WaitingForNames,
        ConditionKind::WaitingForService,
        ConditionKind::ServiceHasSelector,
        ConditionKind::ServiceIsExternalName,
        ConditionKind::ServiceIsKubernetes,
        ConditionKind::NotOurs,
        ConditionKind::PortMismatch,
        ConditionKind::NotMirrored,
        ConditionKind::SlicesLeftBehind,
        ConditionKind::AddressesRefused,
        ConditionKind::Forbidden,
        ConditionKind::ApiUnavailable,
        ConditionKind::Rejected,
        ConditionKind::Standby,
        ConditionKind::DryRun,
        ConditionKind::Published,
    ];

    /// Returns whether a person should look at it. Conditions that pass by themselves at a start,
    /// or that were asked for, need nobody.
    pub fn is_trouble(self) -> bool {
        !matches!(
            self,
            ConditionKind::WaitingForCluster
                | ConditionKind::WaitingForVerdicts
                | ConditionKind::Standby
                | ConditionKind::DryRun
                | ConditionKind::Published
        )
    }
}

impl ConditionKind {
    /// Returns the reason of the Event that a condition has when it comes into force.
    ///
    /// Trouble has one, except for `ApiUnavailable`: an API that is away takes no Events, and the
    /// work that it delayed has an Event when it is done.
    pub(crate) fn event_reason(self) -> Option<Reason> {
        match self {
            ConditionKind::WaitingForCluster
            | ConditionKind::WaitingForVerdicts
            | ConditionKind::ApiUnavailable
            | ConditionKind::Standby
            | ConditionKind::DryRun
            | ConditionKind::Published => None,
            ConditionKind::WaitingForNames => Some(Reason::WaitingForNames),
            ConditionKind::WaitingForService => Some(Reason::WaitingForService),
            ConditionKind::ServiceHasSelector => Some(Reason::ServiceHasSelector),
            ConditionKind::ServiceIsExternalName => Some(Reason::ServiceIsExternalName),
            ConditionKind::ServiceIsKubernetes => Some(Reason::ServiceIsKubernetes),
            ConditionKind::NotOurs => Some(Reason::NotOurs),
            ConditionKind::PortMismatch => Some(Reason::PortMismatch),
            ConditionKind::NotMirrored => Some(Reason::NotMirrored),
            ConditionKind::SlicesLeftBehind => Some(Reason::SlicesLeftBehind),
            ConditionKind::AddressesRefused => Some(Reason::AddressesRefused),
            ConditionKind::Forbidden => Some(Reason::Forbidden),
            ConditionKind::Rejected => Some(Reason::Rejected),
        }
    }
}

impl fmt::Display for ConditionKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// The condition of a database's publishing, with its reason in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// The kind, which is also the name in the status API.
    pub kind: ConditionKind,
    /// The explanation for people, with the step to take.
    pub reason: String,
}

impl Condition {
    /// Returns a condition of this kind.
    pub fn new(kind: ConditionKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }

    /// Returns the condition that each database begins with.
    pub fn waiting_for_cluster() -> Self {
        Self::new(ConditionKind::WaitingForCluster, "the cluster has not been read yet")
    }
}

/// The condition that a failed call puts a database in.
impl From<ApiError> for Condition {
    fn from(error: ApiError) -> Self {
        let kind = match error.kind {
            ErrorKind::NamespaceNotFound | ErrorKind::NamespaceTerminating => {
                ConditionKind::WaitingForService
            }
            ErrorKind::Forbidden => ConditionKind::Forbidden,
            ErrorKind::Invalid => ConditionKind::Rejected,
            ErrorKind::Conflict
            | ErrorKind::NotFound
            | ErrorKind::Unauthorized
            | ErrorKind::Unavailable => ConditionKind::ApiUnavailable,
        };
        Self::new(kind, error.message)
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;
    use crate::api::Call;

    #[test]
    fn conditions_that_pass_by_themselves_are_no_trouble() {
        let calm = ConditionKind::ALL.into_iter().filter(|kind| !kind.is_trouble());
        let names: Vec<String> = calm.map(|kind| kind.to_string()).collect();
        assert_eq!(
            names,
            ["WaitingForCluster", "WaitingForVerdicts", "Standby", "DryRun", "Published"]
        );
    }

    #[test]
    fn trouble_has_an_event_of_its_name_unless_the_api_is_away() {
        for kind in ConditionKind::ALL {
            let reason = kind.event_reason().map(Reason::as_str);
            let has_event = kind.is_trouble() && kind != ConditionKind::ApiUnavailable;
            assert_eq!(reason, has_event.then(|| kind.to_string()).as_deref());
        }
    }

    #[test]
    fn each_answer_of_the_api_has_its_condition() {
        let kind = |code, message| {
            let status = Status::failure(message, "Reason").with_code(code);
            let call =
                Call { verb: "patch", plural: "endpoints", namespace: "prod", name: Some("mysql") };
            Condition::from(ApiError::new(kube::Error::Api(status.boxed()), call)).kind
        };
        assert_eq!(kind(403, "x"), ConditionKind::Forbidden);
        assert_eq!(kind(422, "x"), ConditionKind::Rejected);
        for code in [401, 404, 410, 429, 500, 503, 504] {
            assert_eq!(kind(code, "x"), ConditionKind::ApiUnavailable, "{code}");
        }
        let terminating =
            "unable to create new content in namespace prod because it is being terminated";
        assert_eq!(kind(403, terminating), ConditionKind::WaitingForService);
        assert_eq!(kind(404, "namespaces \"prod\" not found"), ConditionKind::WaitingForService);
    }
}
