//! The calls that change the cluster, each with a deadline, and what came of them.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Endpoints, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use serde::Serialize;

use crate::config::DatabaseId;
use crate::endpoints::{self, slices};
use crate::plan::Members;
use crate::publish::cache::reflector::CachedKind;
use crate::publish::condition::{Condition, ConditionKind};
use crate::publish::error;

/// An API call that takes longer has failed.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// Applies under a name of its own, so that a create that arrives late can never take back what a later write set.
const CREATOR: &str = "external-endpoints-create";

/// Why a call changed nothing.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The object is not, or no longer, what the step was decided on; with what the API says of it.
    Conflict(String),
    /// Another try may help, after at least this pause.
    Fault(Condition, Duration),
}

impl Failure {
    /// One word for the metric.
    pub(crate) fn result(&self) -> &'static str {
        match self {
            Failure::Conflict(_) => "conflict",
            Failure::Fault(condition, _) => match condition.kind {
                ConditionKind::Forbidden => "forbidden",
                ConditionKind::Rejected => "rejected",
                _ => "unavailable",
            },
        }
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
pub(crate) async fn create<K: Applied>(api: &Api<K>, blank: &K) -> Result<K, Failure> {
    apply(api, blank, &PatchParams::apply(CREATOR)).await
}

/// Applies the members. Forced, because whether the object is ours has been decided on this very resourceVersion.
pub(crate) async fn write<K: Applied>(api: &Api<K>, object: &K) -> Result<K, Failure> {
    apply(api, object, &PatchParams::apply(endpoints::FIELD_MANAGER).force()).await
}

async fn apply<K: Applied>(api: &Api<K>, object: &K, params: &PatchParams) -> Result<K, Failure> {
    let call = Call::of::<K>("patch", object.meta());
    call.within_deadline(api.patch(call.name, params, &Patch::Apply(object))).await
}

/// Deletes the very object that was seen, at the version that it was seen at. That it is gone already is as good.
pub(crate) async fn delete<K: CachedKind>(api: &Api<K>, seen: &ObjectMeta) -> Result<(), Failure> {
    let ObjectMeta { uid, resource_version, .. } = seen.clone();
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid, resource_version }),
        ..DeleteParams::default()
    };
    let call = Call::of::<K>("delete", seen);
    let deleted = async {
        match api.delete(call.name, &params).await {
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            done => done.map(drop),
        }
    };
    call.within_deadline(deleted).await
}

/// Creates a Service. If there is one of its name, this fails and changes nothing.
pub(crate) async fn create_service(
    api: &Api<Service>,
    service: &Service,
) -> Result<Service, Failure> {
    let params = PostParams {
        field_manager: Some(endpoints::FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    Call::of::<Service>("create", &service.metadata)
        .within_deadline(api.create(&params, service))
        .await
}

/// An object as it is now; none if there is none.
pub(crate) async fn read<K: CachedKind>(api: &Api<K>, like: &K) -> Result<Option<K>, Failure> {
    let call = Call::of::<K>("get", like.meta());
    call.within_deadline(api.get_opt(call.name)).await
}

/// The Service of the database as it is now; none if there is none.
pub(crate) async fn read_service(
    api: &Api<Service>,
    id: &DatabaseId,
) -> Result<Option<Service>, Failure> {
    let DatabaseId { namespace, service } = id;
    let call = Call { verb: "get", plural: Service::PLURAL, namespace, name: service };
    call.within_deadline(api.get_opt(service)).await
}

/// What is asked of the API, for the words in which it fails.
struct Call<'a> {
    verb: &'static str,
    plural: &'static str,
    namespace: &'a str,
    name: &'a str,
}

impl<'a> Call<'a> {
    fn of<K: CachedKind>(verb: &'static str, object: &'a ObjectMeta) -> Self {
        let said = |given: &'a Option<String>| given.as_deref().unwrap_or_default();
        Self {
            verb,
            plural: K::PLURAL,
            namespace: said(&object.namespace),
            name: said(&object.name),
        }
    }

    async fn within_deadline<T>(
        &self,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, Failure> {
        let Call { verb, plural, namespace, name } = self;
        let error = match tokio::time::timeout(DEADLINE, call).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(error)) => error,
            Err(_) => {
                let why = format!(
                    "{verb} {plural} in {namespace}: no answer in {}",
                    humantime::format_duration(DEADLINE)
                );
                return Err(Failure::Fault(
                    Condition::new(ConditionKind::ApiUnavailable, why),
                    Duration::ZERO,
                ));
            }
        };
        if let kube::Error::Api(status) = &error
            && status.code == 409
        {
            return Err(Failure::Conflict(status.message.clone()));
        }
        let condition = error::of(&error, verb, plural, namespace, Some(name));
        Err(Failure::Fault(condition, error::retry_after(&error)))
    }
}
