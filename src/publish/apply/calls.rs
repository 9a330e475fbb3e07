//! The calls that change the cluster, each with a deadline, and what came of them.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use serde::Serialize;

use crate::api::{ApiError, Call, ErrorKind};
use crate::config::DatabaseId;
use crate::endpoints::{self, slices};
use crate::plan::Members;
use crate::publish::cache::reflector::CachedKind;

/// An API call that takes longer has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Applies under a name of its own, so that a create that arrives late can never take back what a later write set.
const CREATOR: &str = "external-endpoints-create";

/// The error of a call that writes.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The lease does not permit the call; with the reason.
    Standby(String),
    Api(ApiError),
}

impl WriteError {
    /// Returns the `result` label of the metric.
    pub(crate) fn result(&self) -> &'static str {
        match self {
            WriteError::Standby(_) => "unavailable",
            WriteError::Api(error) => match error.kind {
                ErrorKind::Conflict => "conflict",
                ErrorKind::Forbidden => "forbidden",
                ErrorKind::Invalid => "rejected",
                _ => "unavailable",
            },
        }
    }
}

impl From<ApiError> for WriteError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

/// A kind that is applied by server-side apply.
pub(crate) trait Applied: CachedKind + Serialize {
    /// Whether what the API stored says all that was `sent`.
    fn agrees(&self, sent: &Self) -> bool;

    /// Who of the database stands in this object.
    fn members(&self) -> Members;
}

impl Applied for Endpoints {
    fn agrees(&self, sent: &Self) -> bool {
        endpoints::matches_sent(self, sent)
    }

    fn members(&self) -> Members {
        endpoints::members(self)
    }
}

impl Applied for EndpointSlice {
    fn agrees(&self, sent: &Self) -> bool {
        slices::matches(self, sent)
    }

    fn members(&self) -> Members {
        slices::ready_members(self).collect()
    }
}

/// Creates an object that says nothing yet. If someone else was faster, this changes nothing of theirs.
pub(crate) async fn create<K: Applied>(api: &Api<K>, blank: &K) -> Result<K, ApiError> {
    apply(api, blank, &PatchParams::apply(CREATOR)).await
}

/// Applies the members. Forced, because whether the object is ours has been decided on this very resourceVersion.
pub(crate) async fn write<K: Applied>(api: &Api<K>, object: &K) -> Result<K, ApiError> {
    apply(api, object, &PatchParams::apply(endpoints::FIELD_MANAGER).force()).await
}

async fn apply<K: Applied>(api: &Api<K>, object: &K, params: &PatchParams) -> Result<K, ApiError> {
    let call = call_for::<K>("patch", object.meta());
    let name = call.name.unwrap_or_default();
    within_deadline(call, api.patch(name, params, &Patch::Apply(object))).await
}

/// Deletes the very object that was seen, at the version that it was seen at. That it is gone already is as good.
pub(crate) async fn delete<K: CachedKind>(api: &Api<K>, seen: &ObjectMeta) -> Result<(), ApiError> {
    let ObjectMeta { uid, resource_version, .. } = seen.clone();
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid, resource_version }),
        ..DeleteParams::default()
    };
    let call = call_for::<K>("delete", seen);
    let name = call.name.unwrap_or_default();
    let deleted = async {
        match api.delete(name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            done => done.map(drop),
        }
    };
    within_deadline(call, deleted).await
}

/// Creates a Service. If there is one of its name, this fails and changes nothing.
pub(crate) async fn create_service(
    api: &Api<Service>,
    service: &Service,
) -> Result<Service, ApiError> {
    let params = PostParams {
        field_manager: Some(endpoints::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    let call = call_for::<Service>("create", &service.metadata);
    within_deadline(call, api.create(&params, service)).await
}

/// An object as it is now; none if there is none.
pub(crate) async fn read<K: CachedKind>(api: &Api<K>, like: &K) -> Result<Option<K>, ApiError> {
    let call = call_for::<K>("get", like.meta());
    within_deadline(call, api.get_opt(call.name.unwrap_or_default())).await
}

/// The Service of the database as it is now; none if there is none.
pub(crate) async fn read_service(
    api: &Api<Service>,
    id: &DatabaseId,
) -> Result<Option<Service>, ApiError> {
    let DatabaseId { namespace, service } = id;
    let call = Call { verb: "get", plural: Service::PLURAL, namespace, name: Some(service) };
    within_deadline(call, api.get_opt(service)).await
}

/// Describes a call about one object.
fn call_for<'a, K: CachedKind>(verb: &'static str, object: &'a ObjectMeta) -> Call<'a> {
    let namespace = object.namespace.as_deref().unwrap_or_default();
    Call { verb, plural: K::PLURAL, namespace, name: object.name.as_deref() }
}

/// Makes a call, and ends it at the deadline.
async fn within_deadline<T>(
    call: Call<'_>,
    work: impl Future<Output = kube::Result<T>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(DEADLINE, work).await {
        Ok(answer) => answer.map_err(|error| ApiError::new(error, call)),
        Err(_) => Err(ApiError::timed_out(call, DEADLINE)),
    }
}
