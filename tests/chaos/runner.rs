//! Runs a scenario on a real cluster, and logs the actions with their times.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Endpoints;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use super::config::Config;
use super::dns::Dns;
use super::fixture::{DATABASES, Fixture, PORT, is_named, object};
use super::record::{Fault, Flip, Kind, Record, Version};
use super::replicas::Replicas;
use super::scenario::{Action, ApiFault, ReplicaFault, Step, Victim, uses_slice};
use super::watch::{Publishes, Watch, version};
use crate::support::{ApiProxy, ControlPlane, Database, Namespace, eventually};

/// Far longer than anything takes without a fault.
const TIMEOUT: Duration = Duration::from_secs(60);

/// The log of the actions so far.
#[derive(Clone)]
pub(crate) struct ActionLog {
    pub began: Instant,
    done: Arc<std::sync::Mutex<Actions>>,
}

#[derive(Default)]
struct Actions {
    flips: Vec<Flip>,
    faults: Vec<Fault>,
    edits: Vec<Version>,
    deletions: usize,
    joins: Vec<(Duration, usize)>,
    /// The targets that are dead.
    dead: BTreeSet<IpAddr>,
    left: BTreeSet<IpAddr>,
}

impl Actions {
    fn is_up(&self, ip: IpAddr) -> bool {
        !self.dead.contains(&ip) && !self.left.contains(&ip)
    }
}

impl ActionLog {
    pub(crate) fn new(began: Instant) -> ActionLog {
        ActionLog { began, done: Arc::default() }
    }

    fn add(&self, change: impl FnOnce(&mut Actions)) {
        change(&mut self.done.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Logs what happened to a target. It is a flip unless the target is out for another reason
    /// too.
    fn flip(&self, ip: IpAddr, how: &'static str, change: impl FnOnce(&mut Actions)) {
        let at = self.began.elapsed();
        self.add(|done| {
            let before = done.is_up(ip);
            change(done);
            let up = done.is_up(ip);
            if up != before {
                done.flips.push(Flip { at, ip, up, how });
            }
        });
    }

    fn fault(&self, from: Duration, kind: Kind) {
        let until = self.began.elapsed();
        self.add(|done| done.faults.push(Fault { from, until, kind }));
    }

    async fn wait_for(&self, step: &Step) {
        tokio::time::sleep(step.at.saturating_sub(self.began.elapsed())).await;
    }

    /// Copies the actions into a record that has the API's history already.
    pub(crate) fn fill(&self, record: &mut Record) {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        record.flips.clone_from(&done.flips);
        record.joins.clone_from(&done.joins);
        record.faults.extend(done.faults.iter().cloned());
        let deleted: Vec<Version> = record
            .changes
            .iter()
            .filter(|change| change.members.is_none())
            .map(|change| change.version)
            .collect();
        assert_eq!(deleted.len(), done.deletions, "nobody else deletes Endpoints");
        record.outside = done.edits.iter().copied().chain(deleted).collect();
    }
}

/// Runs all streams of the scenario at the same time, each in its order.
pub(crate) async fn run(fixture: &mut Fixture, scenario: &[Step], log: &ActionLog) {
    let of = |wanted: fn(&Action) -> bool| {
        scenario.iter().filter(|step| wanted(&step.action)).cloned().collect::<Vec<_>>()
    };
    let targets = of(|action| {
        matches!(
            action,
            Action::KillTarget(_) | Action::BlackHoleTarget(_) | Action::RestoreTarget(_)
        )
    });
    let edits = of(|action| matches!(action, Action::Edit(_) | Action::Delete(_)));
    let configs = of(|action| {
        matches!(
            action,
            Action::RemoveTarget(_)
                | Action::AddTarget(_)
                | Action::EditComment
                | Action::CorruptConfig(_)
        )
    });
    let answers = of(|action| matches!(action, Action::Answer(..)));
    let dns_faults = of(|action| matches!(action, Action::Dns(..)));
    let api = of(|action| matches!(action, Action::Api(..)));
    let replicas = of(|action| matches!(action, Action::Replica(..)));
    // Some faults of the API are made in the proxies, so no replica is cut off at the same time.
    let way = Mutex::new(());
    let (ips, proxies, config) =
        (fixture.ips(), fixture.replicas.proxies(), fixture.replicas.config.clone());
    tokio::join!(
        run_targets(&mut fixture.databases, targets, log),
        run_edits(&fixture.namespace, &ips, edits, log),
        run_configs(&config, &ips, configs, log),
        run_answers(&fixture.dns, &ips, answers, log),
        run_dns(&fixture.dns, dns_faults, log),
        run_api(fixture.plane, &proxies, &way, api, log),
        run_replicas(&mut fixture.replicas, &fixture.watch, &way, replicas, log),
    );
}

async fn run_targets(databases: &mut [Vec<Database>], steps: Vec<Step>, log: &ActionLog) {
    for step in steps {
        log.wait_for(&step).await;
        let (Action::KillTarget((database, index))
        | Action::BlackHoleTarget((database, index))
        | Action::RestoreTarget((database, index))) = step.action
        else {
            continue;
        };
        let target = &mut databases[database][index];
        let how = match step.action {
            Action::KillTarget(_) => {
                target.stop().await;
                "died"
            }
            Action::BlackHoleTarget(_) => {
                target.black_hole().await;
                "hangs"
            }
            _ if target.in_black_hole() => {
                target.restore().await;
                "no longer hangs"
            }
            _ => {
                target.restart().await;
                "came back"
            }
        };
        let ip = target.ip;
        log.flip(ip, how, |done| match step.action {
            Action::RestoreTarget(_) => drop(done.dead.remove(&ip)),
            _ => drop(done.dead.insert(ip)),
        });
    }
}

async fn run_configs(
    config: &Mutex<Config>,
    ips: &[Vec<IpAddr>],
    steps: Vec<Step>,
    log: &ActionLog,
) {
    for step in steps {
        log.wait_for(&step).await;
        match step.action {
            Action::RemoveTarget(who) => {
                let ip = ips[who.0][who.1];
                config.lock().await.leaves(who);
                log.flip(ip, "left the config", |done| {
                    done.left.insert(ip);
                });
            }
            Action::AddTarget(who) => {
                let ip = ips[who.0][who.1];
                config.lock().await.joins(who);
                log.flip(ip, "is in the config again", |done| {
                    done.left.remove(&ip);
                    done.joins.push((log.began.elapsed(), who.0));
                });
            }
            Action::EditComment => config.lock().await.comment(),
            Action::CorruptConfig(lasts) => {
                config.lock().await.corrupt();
                tokio::time::sleep(lasts).await;
                config.lock().await.mend();
            }
            _ => {}
        }
    }
}

async fn run_answers(dns: &Dns, ips: &[Vec<IpAddr>], steps: Vec<Step>, log: &ActionLog) {
    for step in steps {
        log.wait_for(&step).await;
        let Action::Answer(database, servers, part) = step.action else { continue };
        let answer = part.of(&ips[database]).collect();
        dns.answer(log.began.elapsed(), database, servers, answer);
    }
}

async fn run_dns(dns: &Dns, steps: Vec<Step>, log: &ActionLog) {
    for step in steps {
        log.wait_for(&step).await;
        let Action::Dns(database, servers, fault, lasts) = step.action else { continue };
        let all = || (0..DATABASES).filter(|database| is_named(*database)).collect();
        let databases: Vec<usize> = database.map_or_else(all, |database| vec![database]);
        dns.begin(log.began.elapsed(), &databases, servers, fault);
        tokio::time::sleep(lasts).await;
        dns.end(log.began.elapsed(), &databases, servers);
    }
}

async fn run_edits(namespace: &Namespace, ips: &[Vec<IpAddr>], steps: Vec<Step>, log: &ActionLog) {
    let (endpoints, slices): (Api<Endpoints>, Api<EndpointSlice>) =
        (namespace.api(), namespace.api());
    for step in steps {
        log.wait_for(&step).await;
        match step.action {
            Action::Edit((database, index)) => {
                let (name, ip) = (object(database), ips[database][index]);
                let edited = if uses_slice(database) {
                    edit(&slices, &name, ip, |ips| json!({"endpoints": in_a_slice(ips)})).await
                } else {
                    edit(&endpoints, &name, ip, |ips| json!({"subsets": in_endpoints(ips)})).await
                };
                log.add(|done| done.edits.extend(edited));
            }
            Action::Delete(database) => {
                let name = object(database);
                let deleted = if uses_slice(database) {
                    delete(&slices, &name).await
                } else {
                    delete(&endpoints, &name).await
                };
                log.add(|done| done.deletions += usize::from(deleted));
            }
            _ => {}
        }
    }
}

fn in_endpoints(ips: &BTreeSet<IpAddr>) -> Value {
    if ips.is_empty() {
        return json!([]);
    }
    let addresses: Vec<_> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    json!([{"addresses": addresses, "ports": [{"port": PORT, "protocol": "TCP"}]}])
}

fn in_a_slice(ips: &BTreeSet<IpAddr>) -> Value {
    ips.iter().map(|ip| json!({"addresses": [ip], "conditions": {"ready": true}})).collect()
}

/// Deletes an object. Returns false if there is none, because nobody has created it again since the
/// last deletion.
async fn delete<K: Publishes + Clone + DeserializeOwned + Debug>(api: &Api<K>, name: &str) -> bool {
    match api.delete(name, &DeleteParams::default()).await {
        Ok(_) => true,
        Err(kube::Error::Api(status)) if status.is_not_found() => false,
        Err(error) => panic!("deleting {name}: {error}"),
    }
}

/// Edits an object as a person would: removes the address if it is there, and adds it otherwise.
/// Returns none if the edit was refused.
async fn edit<K: Publishes + Clone + DeserializeOwned + Debug>(
    api: &Api<K>,
    name: &str,
    ip: IpAddr,
    body: impl FnOnce(&BTreeSet<IpAddr>) -> Value,
) -> Option<Version> {
    let before = api.get_opt(name).await.expect("an answer")?;
    let mut ips = before.ips();
    if !ips.remove(&ip) {
        ips.insert(ip);
    }
    let mut patch = body(&ips);
    patch["metadata"] = json!({"resourceVersion": before.resource_version()});
    let person =
        PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    match api.patch(name, &person, &Patch::Merge(patch)).await {
        Ok(after) => Some(version(&after)),
        // The daemon was faster.
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_not_found() => None,
        Err(error) => panic!("editing {name}: {error}"),
    }
}

async fn run_api(
    plane: &ControlPlane,
    proxies: &[Arc<ApiProxy<'static>>],
    way: &Mutex<()>,
    steps: Vec<Step>,
    log: &ActionLog,
) {
    for step in steps {
        log.wait_for(&step).await;
        let Action::Api(fault, lasts) = step.action else { continue };
        let on_the_way = match fault {
            ApiFault::Slow(_) | ApiFault::Answers(_) => Some(way.lock().await),
            _ => None,
        };
        let from = log.began.elapsed();
        let how = match fault {
            ApiFault::Killed => {
                plane.kill_api().await;
                tokio::time::sleep(lasts).await;
                plane.start_api().await;
                "killed"
            }
            ApiFault::Stopped => {
                plane.pause_api();
                tokio::time::sleep(lasts).await;
                plane.resume_api();
                "stopped"
            }
            ApiFault::Slow(by) => {
                proxies.iter().for_each(|proxy| proxy.slow(by));
                tokio::time::sleep(lasts).await;
                "slow"
            }
            ApiFault::Answers(status) => {
                proxies.iter().for_each(|proxy| proxy.answer(status));
                tokio::time::sleep(lasts).await;
                "answering with errors"
            }
        };
        if on_the_way.is_some() {
            for proxy in proxies {
                proxy.heal().await;
            }
        }
        log.fault(from, Kind::Api(how));
    }
}

async fn run_replicas(
    replicas: &mut Replicas,
    watch: &Watch,
    way: &Mutex<()>,
    steps: Vec<Step>,
    log: &ActionLog,
) {
    for step in steps {
        log.wait_for(&step).await;
        let Action::Replica(victim, fault, lasts) = step.action else { continue };
        // One of the two replicas has to be working.
        replicas.wait_until_checked().await;
        let leader = eventually(TIMEOUT, "one of both holds the lease", async || {
            replicas.slot(&watch.holder()?)
        })
        .await;
        let slot = match victim {
            Victim::Leader => leader,
            Victim::Standby => 1 - leader,
        };
        let who = replicas.account(slot);
        let from = match fault {
            ReplicaFault::Killed => {
                let from = log.began.elapsed();
                replicas.kill(slot);
                tokio::time::sleep(lasts).await;
                replicas.restart(slot).await;
                from
            }
            ReplicaFault::Terminated => {
                let from = log.began.elapsed();
                replicas.end(slot).await;
                tokio::time::sleep(lasts).await;
                replicas.restart(slot).await;
                from
            }
            ReplicaFault::Stopped => {
                let from = log.began.elapsed();
                replicas.stop(slot);
                tokio::time::sleep(lasts).await;
                replicas.resume(slot);
                from
            }
            ReplicaFault::CutOff => {
                let _way = way.lock().await;
                let from = log.began.elapsed();
                replicas.cut_off(slot);
                tokio::time::sleep(lasts).await;
                replicas.reconnect(slot).await;
                from
            }
        };
        log.fault(from, Kind::Replica(fault, who));
    }
}
