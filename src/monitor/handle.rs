//! The handle by which the rest of the daemon reads from the monitor and sends commands to it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

use super::commands::Command;
use super::facts::Facts;
use super::snapshot::Snapshot;
use super::snapshot_channel::{self, SnapshotReader, SnapshotWriter};
use super::{COMMAND_CAPACITY, ServiceFacts};
use crate::annotations::ServiceAnnotations;
use crate::config::{Database, DatabaseId, Spec};
use crate::lease::CheckFacts;
use crate::plan::{Members, Plan};
use crate::probe::Waker;
use crate::resolve::{LookupOutcome, NameKey};

/// The decision for one database, with the config that it was made for. Both change at once, so no
/// plan is ever applied to another version of its database.
#[derive(Debug, Clone)]
pub struct DatabasePlan {
    pub database: Arc<Database>,
    pub plan: Plan,
    /// The addresses that may answer while the plan is not to publish: those of the config that are
    /// neither Down nor in maintenance, and those that were neither when they left the config.
    pub may_answer: Arc<[IpAddr]>,
}

/// The newest plan of each database.
pub(super) type Plans = BTreeMap<DatabaseId, watch::Receiver<DatabasePlan>>;

/// A cheap copy of the way to the monitor.
#[derive(Clone)]
pub struct Handle {
    commands: mpsc::Sender<Command>,
    waker: Waker,
    plans: watch::Receiver<Arc<Plans>>,
    snapshots: SnapshotReader,
    heartbeat: Arc<Heartbeat>,
    facts: Arc<Facts>,
}

/// The monitor's ends of all that a handle holds.
pub(super) struct Ends {
    pub commands: mpsc::Receiver<Command>,
    pub plans: watch::Sender<Arc<Plans>>,
    pub snapshots: SnapshotWriter,
    pub heartbeat: Arc<Heartbeat>,
    pub facts: Arc<Facts>,
}

/// Creates a handle of a monitor of `databases` databases, and the monitor's ends.
pub(super) fn channel(databases: usize, waker: Waker, now: Instant) -> (Handle, Ends) {
    let (commands_in, commands) = mpsc::channel(COMMAND_CAPACITY + databases);
    let (plans, plans_out) = watch::channel(Arc::default());
    let (snapshots, snapshots_out) = snapshot_channel::channel(waker.clone());
    let heartbeat = Arc::new(Heartbeat { origin: now, nanos: AtomicU64::new(0) });
    let facts = Arc::new(Facts::new(now));
    let handle = Handle {
        commands: commands_in,
        waker,
        plans: plans_out,
        snapshots: snapshots_out,
        heartbeat: heartbeat.clone(),
        facts: facts.clone(),
    };
    (handle, Ends { commands, plans, snapshots, heartbeat, facts })
}

impl Handle {
    /// Returns the newest plan of a database, and each newer one.
    pub fn plan(&self, id: &DatabaseId) -> Option<watch::Receiver<DatabasePlan>> {
        self.plans.borrow().get(id).cloned()
    }

    /// Replaces the config, and returns once the monitor has taken it over. Targets whose check has
    /// not changed continue as if nothing had happened.
    pub async fn reload(&self, spec: Arc<Spec>) {
        let (reply, done) = oneshot::channel();
        self.send(Command::Reload(spec, reply)).await;
        // A monitor that has ended decides nothing more.
        let _ = done.await;
    }

    /// Sends the members that the cluster holds for a database when it is first read.
    ///
    /// `own` are those of them that the daemon has written.
    pub async fn set_initial_members(&self, id: &DatabaseId, members: Members, own: Members) {
        self.send(Command::SetInitialMembers(id.clone(), members, own)).await;
    }

    /// Sends the members that the cluster holds for a database by a decision of this replica, or of
    /// the one that writes.
    pub async fn set_published_members(&self, id: &DatabaseId, members: Members) {
        self.send(Command::SetPublishedMembers(id.clone(), members)).await;
    }

    /// Sends the annotations of a database's Service.
    pub async fn set_annotations(&self, id: &DatabaseId, annotations: ServiceAnnotations) {
        self.send(Command::SetAnnotations(id.clone(), annotations)).await;
    }

    /// Sends the facts about a database's Service.
    pub async fn set_service_facts(&self, id: &DatabaseId, facts: ServiceFacts) {
        self.send(Command::SetServiceFacts(id.clone(), facts)).await;
    }

    /// Sends the outcome of a lookup.
    pub(crate) async fn apply_lookup(&self, key: NameKey, outcome: LookupOutcome) {
        self.send(Command::ApplyLookup(key, outcome)).await;
    }

    async fn send(&self, command: Command) {
        // The monitor ends only with the daemon.
        let _ = self.commands.send(command).await;
        self.waker.wake();
    }

    /// Returns a snapshot that is fresh enough; all callers of about the same time share one.
    /// Returns none if the monitor has ended.
    pub async fn snapshot(&self) -> Option<Arc<Snapshot>> {
        self.snapshots.get().await
    }

    /// Returns the time of the last turn of the loop.
    pub fn last_heartbeat(&self) -> Instant {
        self.heartbeat.last()
    }

    /// Returns the facts about the checks as a whole, also while the monitor stands still.
    pub fn check_facts(&self) -> CheckFacts {
        let (late_since, inconclusive_since) =
            (self.facts.late_since(), self.facts.inconclusive_since());
        CheckFacts { last_heartbeat: self.last_heartbeat(), late_since, inconclusive_since }
    }
}

/// The time of the last turn of the loop, for all threads to read.
pub(super) struct Heartbeat {
    origin: Instant,
    nanos: AtomicU64,
}

impl Heartbeat {
    fn last(&self) -> Instant {
        self.origin + Duration::from_nanos(self.nanos.load(Ordering::Relaxed))
    }

    /// Records a turn of the loop.
    pub(super) fn record(&self, now: Instant) {
        self.nanos
            .store(now.saturating_duration_since(self.origin).as_nanos() as u64, Ordering::Relaxed);
    }
}
