//! The calls that change the cluster, each with a deadline.

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
use crate::publish::cache::observed::CachedKind;

/// The deadline of a call to the API.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// The field manager that creates placeholders. It has a name of its own, so that a create that
/// arrives late cannot remove fields that a later write has set.
const CREATE_FIELD_MANAGER: &str = "external-endpoints-create";

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
    /// Returns whether the object as stored has all fields of the one that was `sent`.
    fn matches(&self, sent: &Self) -> bool;

    /// Returns the members that the object has.
    fn members(&self) -> Members;
}

impl Applied for Endpoints {
    fn matches(&self, sent: &Self) -> bool {
        endpoints::matches_sent(self, sent)
    }

    fn members(&self) -> Members {
        endpoints::members(self)
    }
}

impl Applied for EndpointSlice {
    fn matches(&self, sent: &Self) -> bool {
        slices::matches(self, sent)
    }

    fn members(&self) -> Members {
        slices::ready_members(self).collect()
    }
}

/// Creates a placeholder. If someone else has created the object first, nothing of theirs changes.
pub(crate) async fn create<K: Applied>(api: &Api<K>, placeholder: &K) -> Result<K, ApiError> {
    apply(api, placeholder, &PatchParams::apply(CREATE_FIELD_MANAGER)).await
}

/// Applies an object. The apply is forced, because ownership has been decided for this very
/// resourceVersion.
pub(crate) async fn write<K: Applied>(api: &Api<K>, object: &K) -> Result<K, ApiError> {
    apply(api, object, &PatchParams::apply(endpoints::FIELD_MANAGER).force()).await
}

async fn apply<K: Applied>(api: &Api<K>, object: &K, params: &PatchParams) -> Result<K, ApiError> {
    let call = call_for::<K>("patch", object.meta());
    let name = call.name.unwrap_or_default();
    within_deadline(call, api.patch(name, params, &Patch::Apply(object))).await
}

/// Deletes an object, if it is still the existing one, at its version. It is no error if the object
/// is gone already.
pub(crate) async fn delete<K: CachedKind>(
    api: &Api<K>,
    existing: &ObjectMeta,
) -> Result<(), ApiError> {
    let ObjectMeta { uid, resource_version, .. } = existing.clone();
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid, resource_version }),
        ..DeleteParams::default()
    };
    let call = call_for::<K>("delete", existing);
    let name = call.name.unwrap_or_default();
    let deleted = async {
        match api.delete(name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            done => done.map(drop),
        }
    };
    within_deadline(call, deleted).await
}

/// Creates a Service. If it exists, this fails and changes nothing.
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

/// Reads the object that has the name of `object`; none if it does not exist.
pub(crate) async fn read<K: CachedKind>(api: &Api<K>, object: &K) -> Result<Option<K>, ApiError> {
    let call = call_for::<K>("get", object.meta());
    within_deadline(call, api.get_opt(call.name.unwrap_or_default())).await
}

/// Reads the Service of a database; none if it does not exist.
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
