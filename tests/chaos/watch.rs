//! The API's own history of a run: every change of Endpoints, EndpointSlices and the Lease, once
//! each, from an API server without faults.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Endpoints, Event};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, WatchEvent, WatchParams};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::fixture::{DATABASES, service};
use super::record::{Change, LeaseState, Statement, Time, Version};
use crate::support::{Namespace, runtime};

/// A watch that runs until it is dropped.
pub(crate) struct Watch {
    seen: Arc<Mutex<Seen>>,
    tasks: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    changes: Vec<Change>,
    leases: Vec<LeaseState>,
    statements: Vec<Statement>,
}

/// The reasons of Events on the members of a database. The note of the first two names them.
const MEMBER_REASONS: [&str; 12] = [
    "Published",
    "Repaired",
    "LeftBehind",
    "WaitingForService",
    "ServiceHasSelector",
    "ServiceIsExternalName",
    "NotOurs",
    "PortMismatch",
    "SlicesLeftBehind",
    "AddressesRefused",
    "Forbidden",
    "Rejected",
];

impl Watch {
    /// Watches changes from now on. Objects with other names are ignored.
    pub(crate) async fn start(namespace: &Namespace, names: Vec<String>, began: Instant) -> Watch {
        let seen: Arc<Mutex<Seen>> = Arc::default();
        let endpoints = follow::<Endpoints>(namespace, changes(&seen, &names, began)).await;
        let slices = follow::<EndpointSlice>(namespace, changes(&seen, &names, began)).await;
        let fill = seen.clone();
        let first: Vec<Lease> =
            namespace.api().list(&Default::default()).await.expect("listing Leases").items;
        let leases = follow::<Lease>(namespace, move |lease, kind| {
            lock(&fill).leases.push(lease_state(&lease, kind, began.elapsed()));
        })
        .await;
        lock(&seen).leases.splice(
            0..0,
            first.iter().map(|lease| lease_state(lease, ObjectChange::Applied, Time::ZERO)),
        );
        let first: Vec<Event> =
            namespace.api().list(&Default::default()).await.expect("listing Events").items;
        let fill = seen.clone();
        let events = follow::<Event>(namespace, move |event, kind| {
            let statement = statement(&event, began.elapsed());
            if kind == ObjectChange::Applied {
                lock(&fill).statements.extend(statement);
            }
        })
        .await;
        let first = first.iter().filter_map(|event| statement(event, Time::ZERO));
        lock(&seen).statements.splice(0..0, first);
        Watch { seen, tasks: vec![endpoints, slices, leases, events] }
    }

    /// Returns the holder of the Lease.
    pub(crate) fn holder(&self) -> Option<String> {
        lock(&self.seen).leases.last().and_then(|lease| lease.holder.clone())
    }

    /// Returns everything seen so far. Panics if a watch has ended, as changes may be missing then.
    pub(crate) fn history(&self) -> (Vec<Change>, Vec<LeaseState>, Vec<Statement>) {
        assert!(self.tasks.iter().all(|task| !task.is_finished()), "a watch has ended");
        let seen = lock(&self.seen);
        (seen.changes.clone(), seen.leases.clone(), seen.statements.clone())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Returns what an Event says of the members of a database; none if it is about something else.
fn statement(event: &Event, at: Time) -> Option<Statement> {
    let reason = event.reason.as_deref()?;
    let name = event.involved_object.name.as_deref()?;
    let database = (0..DATABASES).find(|database| service(*database) == name)?;
    if !MEMBER_REASONS.contains(&reason) {
        return None;
    }
    let note = event.message.clone().unwrap_or_default();
    let names_members = ["Published", "Repaired"].contains(&reason);
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref());
    let shown = series.or(event.event_time.as_ref())?.0.as_nanosecond();
    Some(Statement {
        at,
        event: event.name_any(),
        database,
        shown: Duration::from_nanos(shown.try_into().ok()?),
        members: names_members.then(|| named_members(&note)),
        note: format!("{reason}: {note}"),
    })
}

/// Returns the addresses that a note names before its changes.
fn named_members(note: &str) -> BTreeSet<IpAddr> {
    let note = note.rsplit_once("repaired: ").map_or(note, |(_, members)| members);
    let members = note.split(" (").next().unwrap_or_default();
    members.split(", ").filter_map(|ip| ip.parse().ok()).collect()
}

/// A change of an object that a watch reports.
#[derive(Clone, Copy, PartialEq)]
enum ObjectChange {
    Applied,
    Deleted,
}

/// Returns a function that records changes of the objects with these names. The index of a name is
/// its database.
fn changes<K: Publishes>(
    seen: &Arc<Mutex<Seen>>,
    names: &[String],
    began: Instant,
) -> impl FnMut(K, ObjectChange) + use<K> {
    let (seen, names) = (seen.clone(), names.to_vec());
    move |object, kind| {
        let Some(database) = names.iter().position(|name| *name == object.name_any()) else {
            return;
        };
        let change = Change {
            at: began.elapsed(),
            version: version(&object),
            database,
            members: (kind == ObjectChange::Applied).then(|| object.ips()),
            managers: managers(&object),
        };
        lock(&seen).changes.push(change);
    }
}

/// A kind of object that directs clients to addresses.
pub(crate) trait Publishes: kube::ResourceExt {
    fn ips(&self) -> BTreeSet<IpAddr>;
}

impl Publishes for Endpoints {
    fn ips(&self) -> BTreeSet<IpAddr> {
        let addresses =
            self.subsets.iter().flatten().flat_map(|subset| subset.addresses.iter().flatten());
        addresses.map(|address| address.ip.parse().expect("an IP")).collect()
    }
}

impl Publishes for EndpointSlice {
    fn ips(&self) -> BTreeSet<IpAddr> {
        let addresses = self.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        addresses.map(|address| address.parse().expect("an IP")).collect()
    }
}

/// Records each change from now on. A watch that ends is restarted after the last change, so none
/// is missed.
async fn follow<K>(
    namespace: &Namespace,
    mut record: impl FnMut(K, ObjectChange) + Send + 'static,
) -> JoinHandle<()>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + 'static,
{
    let api: Api<K> = namespace.api();
    let list = api.list(&Default::default()).await.expect("a list");
    let mut version = list.metadata.resource_version.expect("a list has a version");
    runtime().spawn(async move {
        loop {
            let params = WatchParams::default().timeout(290);
            let events = api.watch(&params, &version).await.expect("a watch");
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                let (object, kind) = match event.expect("a watch without errors") {
                    WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                        (object, ObjectChange::Applied)
                    }
                    WatchEvent::Deleted(object) => (object, ObjectChange::Deleted),
                    WatchEvent::Bookmark(mark) => {
                        version = mark.metadata.resource_version;
                        continue;
                    }
                    WatchEvent::Error(status) => panic!("a watch: {status}"),
                };
                version = object.resource_version().expect("an object has a version");
                record(object, kind);
            }
        }
    })
}

/// Returns the state of the Lease after a change. A deleted Lease has no holder.
fn lease_state(lease: &Lease, kind: ObjectChange, at: Time) -> LeaseState {
    let holder = lease
        .spec
        .as_ref()
        .and_then(|spec| spec.holder_identity.clone())
        .filter(|holder| !holder.is_empty());
    LeaseState {
        at,
        version: version(lease),
        holder: holder.filter(|_| kind == ObjectChange::Applied),
    }
}

pub(crate) fn version(object: &impl kube::ResourceExt) -> Version {
    object
        .resource_version()
        .and_then(|version| version.parse().ok())
        .expect("a version that is a number")
}

fn managers(object: &impl kube::ResourceExt) -> BTreeSet<String> {
    object.managed_fields().iter().filter_map(|entry| entry.manager.clone()).collect()
}

/// Returns the ServiceAccount that made each version of Endpoints and EndpointSlices, from the
/// audit log.
pub(crate) fn writers(audit_log: &Path) -> BTreeMap<Version, String> {
    let text = fs::read_to_string(audit_log).expect("an audit log");
    // A kill may have cut off the last line.
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter_map(|line| writer(&line)).collect()
}

fn writer(line: &Value) -> Option<(Version, String)> {
    let done = line["responseStatus"]["code"].as_u64().is_some_and(|code| code < 300);
    let kind = line["objectRef"]["resource"].as_str()?;
    if !done || !["endpoints", "endpointslices"].contains(&kind) {
        return None;
    }
    let version = line["responseObject"]["metadata"]["resourceVersion"].as_str()?.parse().ok()?;
    let agent = line["userAgent"].as_str().unwrap_or_default();
    let account = line["user"]["username"].as_str()?.strip_prefix("system:serviceaccount:")?;
    let is_ours = agent.starts_with("external-endpoints/") && agent.ends_with("; leader)");
    // Controllers of Kubernetes mirror the Endpoints.
    let is_replica = !account.starts_with("kube-system:");
    assert!(is_ours || !is_replica, "a replica wrote with the User-Agent {agent:?}");
    Some((version, account.rsplit(':').next()?.to_owned()))
}

/// Detects when this machine runs no program for so long that none can keep its times.
pub(crate) struct Stalls {
    seen: Arc<Mutex<Vec<(Time, Time)>>>,
    task: JoinHandle<()>,
}

/// A sleep that ends this late counts as a stall.
const MIN_STALL: Duration = Duration::from_millis(500);

impl Stalls {
    pub(crate) fn start(began: Instant) -> Stalls {
        let seen: Arc<Mutex<Vec<(Time, Time)>>> = Arc::default();
        let fill = seen.clone();
        let task = runtime().spawn(async move {
            loop {
                let from = began.elapsed();
                tokio::time::sleep(Duration::from_millis(20)).await;
                let until = began.elapsed();
                if until > from + MIN_STALL {
                    fill.lock().unwrap_or_else(PoisonError::into_inner).push((from, until));
                }
            }
        });
        Stalls { seen, task }
    }

    pub(crate) fn all(&self) -> Vec<(Time, Time)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(seen: &Mutex<Seen>) -> MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}
