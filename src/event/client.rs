//! The calls that write Events and find those of a former writer, each with a deadline.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Event, Service};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt as _};
use serde::de::DeserializeOwned;

use super::aggregator::{EventKey, Pending, Recorded};
use super::object::{self, REPORTING_COMPONENT, RegardingObject};
use crate::api::{ApiError, Call};
use crate::notice::Regarding;
use crate::publish::{self, ServiceUid};

/// The time within which the API must have taken an Event. A call that hangs holds up all others.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// The number of Events that one call lists.
const LIST_LIMIT: u32 = 500;

/// The number of calls that list the Events of one namespace. What is beyond has been written by
/// others at a rate that leaves nothing to correct.
const MAX_LIST_CALLS: usize = 20;

/// The client for Events.
#[derive(Clone)]
pub(super) struct EventClient {
    pub client: Client,
    pub services: publish::Handle,
    /// The name of this replica.
    pub instance: String,
}

/// The error of an Event that is not in the cluster.
pub(super) enum EventError {
    /// There is no object that it could regard.
    NoObject,
    /// Another writer has changed the Event.
    Changed,
    Api(ApiError),
}

impl From<ApiError> for EventError {
    fn from(error: ApiError) -> Self {
        Self::Api(error)
    }
}

impl EventClient {
    /// Writes notices in the Event that exists, or in a new one of this name.
    pub(super) async fn write(
        &self,
        pending: &Pending,
        object: &RegardingObject,
        name: String,
    ) -> Result<Recorded, EventError> {
        let write = self.write_without_deadline(pending, object, name);
        tokio::time::timeout(CALL_TIMEOUT, write).await.unwrap_or_else(|_| {
            Err(ApiError::timed_out(object.event_call("create"), CALL_TIMEOUT).into())
        })
    }

    async fn write_without_deadline(
        &self,
        pending: &Pending,
        object: &RegardingObject,
        name: String,
    ) -> Result<Recorded, EventError> {
        let uid = self.uid(&pending.key.regarding, object).await?;
        let api: Api<Event> = Api::namespaced(self.client.clone(), &object.namespace);
        if let Some(existing) = pending.existing.as_ref().filter(|existing| existing.uid == uid) {
            let patch = Patch::Merge(object::patch(pending, existing, &self.instance));
            match api.patch(&existing.name, &PatchParams::default(), &patch).await {
                Ok(patched) => return Ok(object::recorded(&patched)),
                // The API deletes Events after an hour, and people may do so earlier.
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    return Err(EventError::Changed);
                }
                Err(error) => return Err(ApiError::new(error, object.event_call("patch")).into()),
            }
        }
        let event = object::event(name, pending, object, &uid, &self.instance);
        create(&api, &event, pending, &self.instance)
            .await
            .map_err(|error| ApiError::new(error, object.event_call("create")).into())
    }

    /// Lists the Events that this daemon or another replica of it has written in a namespace.
    pub(super) async fn list(
        &self,
        namespace: &str,
    ) -> Result<Vec<(EventKey, Recorded)>, ApiError> {
        let call = Call { verb: "list", plural: "events", namespace, name: None };
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let selector = format!("reportingComponent={REPORTING_COMPONENT}");
        let mut params = ListParams::default().fields(&selector).limit(LIST_LIMIT);
        let mut found = Vec::new();
        for _ in 0..MAX_LIST_CALLS {
            let list = tokio::time::timeout(CALL_TIMEOUT, api.list(&params)).await;
            let list = list.map_err(|_| ApiError::timed_out(call, CALL_TIMEOUT))?;
            let list = list.map_err(|error| ApiError::new(error, call))?;
            let events = list.items.iter();
            found.extend(
                events.filter_map(|event| Some((object::key(event)?, object::recorded(event)))),
            );
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => params.continue_token = Some(token),
                None => break,
            }
        }
        Ok(found)
    }

    /// Returns the UID of the object. Services of the config are in the cache, and all others are
    /// read from the API.
    async fn uid(
        &self,
        regarding: &Regarding,
        object: &RegardingObject,
    ) -> Result<String, EventError> {
        let uid = match regarding {
            Regarding::Database(id) => match self.services.service_uid(id) {
                ServiceUid::Known(uid) => Some(uid),
                ServiceUid::Absent => None,
                ServiceUid::NotWatched => self.read_uid::<Service>(object).await?,
            },
            Regarding::Daemon => self.read_uid::<Lease>(object).await?,
        };
        uid.ok_or(EventError::NoObject)
    }

    async fn read_uid<K>(&self, object: &RegardingObject) -> Result<Option<String>, ApiError>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + DeserializeOwned
            + Debug,
    {
        let RegardingObject { namespace, name, .. } = object;
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let plural = K::plural(&());
        let call = Call { verb: "get", plural: &plural, namespace, name: Some(name) };
        let read = api.get_opt(name).await.map_err(|error| ApiError::new(error, call))?;
        Ok(read.and_then(|object| object.uid()))
    }
}

/// Creates an Event. If it is there, an attempt before had no answer and was stored, perhaps with
/// an older note.
async fn create(
    api: &Api<Event>,
    event: &Event,
    pending: &Pending,
    instance: &str,
) -> Result<Recorded, kube::Error> {
    match api.create(&PostParams::default(), event).await {
        Ok(created) => Ok(object::recorded(&created)),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let stored = Recorded { count: 0, ..object::recorded(event) };
            let patch = Patch::Merge(object::patch(pending, &stored, instance));
            let patched = api.patch(&stored.name, &PatchParams::default(), &patch).await?;
            Ok(object::recorded(&patched))
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use hyper::{Method, Request, Response};
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::clock;
    use crate::config::DatabaseId;
    use crate::notice::{Notice, Reason};

    /// The calls that an API got.
    type Calls = Arc<Mutex<Vec<(Method, Value)>>>;

    /// Returns a client of an API that has all Events already, and the calls that it got.
    fn api() -> (Client, Calls) {
        let calls = Calls::default();
        let seen = calls.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let seen = seen.clone();
            async move {
                let (head, body) = request.into_parts();
                let sent: Value = serde_json::from_slice(&body.collect_bytes().await?)?;
                seen.lock().expect("calls").push((head.method.clone(), sent.clone()));
                let (code, answer) = match head.method {
                    Method::POST => (
                        409,
                        json!({"kind": "Status", "code": 409, "status": "Failure",
                        "reason": "AlreadyExists", "message": "events \"a\" already exists"}),
                    ),
                    _ => (
                        200,
                        json!({"metadata": {"name": "a", "resourceVersion": "7"},
                        "involvedObject": {}, "message": sent["message"]}),
                    ),
                };
                let answer = Response::builder()
                    .status(code)
                    .body(Body::from(answer.to_string().into_bytes()));
                Ok::<_, tower::BoxError>(answer?)
            }
        });
        (Client::new(service, "prod"), calls)
    }

    #[tokio::test]
    async fn an_event_that_is_there_gets_the_newest_note() {
        let (client, calls) = api();
        let id = DatabaseId { namespace: "prod".into(), service: "mysql".into() };
        let regarding = Regarding::Database(id);
        let reason = Reason::Published;
        let notice = Notice::new(regarding.clone(), reason, "10.0.0.1", clock::now());
        let key = EventKey { regarding, reason, dedup_key: String::new() };
        let pending = Pending { key, notice, count: 1, existing: None, newest: None };
        let object = RegardingObject {
            api_version: "v1",
            kind: "Service",
            namespace: "prod".into(),
            name: "mysql".into(),
        };
        let event = object::event("a".into(), &pending, &object, "uid", "pod");
        let api = Api::namespaced(client, "prod");
        let recorded = create(&api, &event, &pending, "pod").await.expect("an Event");
        assert_eq!(
            (&*recorded.note, recorded.resource_version.as_deref()),
            ("10.0.0.1", Some("7"))
        );
        let calls = calls.lock().expect("calls");
        let methods: Vec<&Method> = calls.iter().map(|(method, _)| method).collect();
        assert_eq!(methods, [Method::POST, Method::PATCH]);
        assert_eq!((&calls[1].1["message"], &calls[1].1["count"]), (&json!("10.0.0.1"), &json!(1)));
    }
}
