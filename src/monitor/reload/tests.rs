//! Reloads of a monitor whose turns the test makes: tries that continue, begin and end.

use std::time::Duration;

use super::*;
use crate::clock;
use crate::config::{Options, parse};
use crate::health::{State, Streak, Verdict};
use crate::limits::Limits;
use crate::monitor::{DatabasePlan, ProbeReport, TargetState, build};
use crate::plan::{Member, Members, Plan};
use crate::schedule::Next;

const A: &str = "{service: a, port: 1, addresses: [10.0.0.1, 10.0.0.2], \
                 check: {tcp: {port: 9}, interval: 10s}}";
const B: &str = "{service: b, port: 1, addresses: [10.0.1.1, 10.0.1.2], \
                 check: {exec: {command: [/bin/true]}, interval: 10s}}";

fn spec(databases: &[&str]) -> Spec {
    let text = format!("databases: [{}]", databases.join(", "));
    let options = Options { own_namespace: "prod".into(), ..Options::default() };
    parse("a.yaml", &text, &options).expect("a good config").spec
}

fn id(service: &str) -> DatabaseId {
    DatabaseId { namespace: "prod".into(), service: service.into() }
}

fn members(ips: &[[u8; 4]]) -> Members {
    ips.iter().map(|ip| Member { ip: (*ip).into(), hostname: None }).collect()
}

/// A monitor whose tries are started and ended by the test.
struct Scene {
    monitor: Monitor,
    now: Instant,
}

impl Scene {
    fn new(databases: &[&str]) -> Self {
        let limits = Limits { max_in_flight: 8, max_execs: 8 };
        let (rules, recorder) =
            (crate::freeze::Rules::default(), crate::notice::Recorder::default());
        let runtime = tokio::runtime::Handle::current();
        let (_, monitor) = build(
            &spec(databases),
            limits,
            rules,
            &recorder,
            crate::resolve::channel().0,
            (runtime.clone(), runtime),
        )
        .expect("an epoll instance");
        Self { monitor, now: clock::now() }
    }

    fn reload(&mut self, databases: &[&str]) {
        self.monitor.reload(&spec(databases), self.now);
    }

    /// Returns the targets whose tries start within this time; none of them ends.
    fn started_within(&mut self, time: Duration) -> Vec<TargetKey> {
        let end = self.now + time;
        let mut keys = Vec::new();
        loop {
            match self.monitor.schedule.next(self.now) {
                Next::Start { key, .. } => keys.push(key),
                Next::Wait(at) if at <= end => self.now = self.now.max(at),
                _ => break,
            }
        }
        self.now = end;
        keys
    }

    /// Ends a try, as it has a place.
    fn end(&mut self, key: TargetKey, pass: bool) {
        let verdict = if pass { Verdict::Pass } else { Verdict::Fail("connect: refused".into()) };
        let report = ProbeReport { key, verdict, delay: None, started: self.now, ended: self.now };
        // A place that was never taken does no harm when it is given back.
        self.monitor.on_result(&report);
    }

    /// Tries all targets for this time, and returns when each was started.
    fn run(&mut self, time: Duration) -> Vec<(IpAddr, Instant)> {
        let end = self.now + time;
        let mut starts = Vec::new();
        loop {
            match self.monitor.schedule.next(self.now) {
                Next::Start { key, .. } => {
                    starts.push((self.ip(key), self.now));
                    self.end(key, true);
                }
                Next::Wait(at) if at <= end => self.now = self.now.max(at),
                _ => break,
            }
        }
        self.now = end;
        starts
    }

    fn ip(&self, key: TargetKey) -> IpAddr {
        let (database, target) = self.monitor.scheduled[key].location.expect("it is in the config");
        self.monitor.databases[database].config().addresses[target].ip
    }

    fn key(&self, ip: &str) -> Option<TargetKey> {
        let ip: IpAddr = ip.parse().expect("an IP");
        (0..self.monitor.scheduled.len())
            .find(|&key| self.monitor.scheduled[key].location.is_some() && self.ip(key) == ip)
    }

    fn sync(&mut self, service: &str, last: &[[u8; 4]]) {
        let (members, now) = (members(last), self.now);
        self.monitor.update_database(&id(service), |database, freeze| {
            database.set_initial_members(&members, &members, freeze, now)
        });
    }

    fn target(&self, ip: &str) -> TargetState {
        let mut targets = self
            .monitor
            .databases
            .iter()
            .flat_map(|database| database.snapshot(&self.monitor.schedule).targets);
        targets.find(|target| target.member.ip.to_string() == ip).expect("a target")
    }

    fn database_plan(&self, service: &str) -> DatabasePlan {
        self.monitor.plans.borrow()[&id(service)].borrow().clone()
    }

    fn members(&self, service: &str) -> Option<String> {
        match self.database_plan(service).plan {
            Plan::Publish(members) => Some(members.to_string()),
            Plan::Keep(_) => None,
        }
    }
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn unchanged_targets_keep_their_health_counters_and_phase() {
    let mut scene = Scene::new(&[A, B]);
    scene.sync("a", &[]);
    scene.sync("b", &[]);
    let before = scene.run(MINUTE);
    let phase = |starts: &[(IpAddr, Instant)], ip: &str| {
        starts.iter().rfind(|(of, _)| of.to_string() == ip).expect("it was tried").1
    };
    let known = scene.target("10.0.0.1");
    assert!(known.counts.pass >= 5, "{:?}", known.counts);
    // Another order, an address less and one more, another policy, other ports, another name for
    // the replica.
    let changed = "{service: a, port: 2, \
                   addresses: [10.0.0.3, {address: 10.0.0.1, hostname: a-1}], \
                   policy: {minHealthy: 1}, check: {tcp: {port: 9}, interval: 10s}}";
    scene.reload(&[B, changed]);
    let after = scene.target("10.0.0.1");
    assert_eq!((after.health.clone(), after.counts.pass), (known.health, known.counts.pass));
    assert_eq!(after.member.hostname.as_deref(), Some("a-1"));
    assert_eq!(scene.target("10.0.0.3").health.state(), State::Unknown);
    assert_eq!(scene.key("10.0.0.2"), None);
    let later = scene.run(MINUTE);
    for ip in ["10.0.0.1", "10.0.1.1", "10.0.1.2"] {
        let between = phase(&later, ip) - phase(&before, ip);
        let off = between.as_millis() % 10_000;
        assert!(off.min(10_000 - off) < 100, "{ip}: {between:?}");
    }
    assert!(!later.iter().any(|(ip, _)| ip.to_string() == "10.0.0.2"));
}

#[tokio::test]
async fn a_config_that_says_the_same_changes_nothing() {
    let mut scene = Scene::new(&[A, B]);
    scene.sync("a", &[]);
    scene.run(MINUTE);
    let mut plan = scene.monitor.plans.borrow()[&id("a")].clone();
    plan.mark_unchanged();
    let keys = [scene.key("10.0.0.1"), scene.key("10.0.1.2")];
    scene.reload(&[B, A]);
    assert!(!plan.has_changed().expect("it goes on"));
    assert_eq!([scene.key("10.0.0.1"), scene.key("10.0.1.2")], keys);
}

#[tokio::test]
async fn an_added_address_removes_nothing_and_waits_for_its_verdict() {
    let mut scene = Scene::new(&[A]);
    scene.sync("a", &[]);
    scene.run(MINUTE);
    assert_eq!(scene.members("a").as_deref(), Some("10.0.0.1, 10.0.0.2"));
    scene.reload(&[&A.replace("10.0.0.2", "10.0.0.2, 10.0.0.3")]);
    assert_eq!(scene.members("a"), None, "nothing is decided");
    let key = scene.key("10.0.0.3").expect("a target");
    assert!(scene.started_within(MINUTE).contains(&key));
    scene.end(key, true);
    assert_eq!(scene.members("a"), None, "still nothing before the cluster was read for it");
    scene.sync("a", &[[10, 0, 0, 1], [10, 0, 0, 2]]);
    assert_eq!(scene.members("a").as_deref(), Some("10.0.0.1, 10.0.0.2, 10.0.0.3"));
}

#[tokio::test]
async fn a_changed_check_begins_as_at_a_start() {
    let mut scene = Scene::new(&[A]);
    scene.sync("a", &[]);
    scene.run(MINUTE);
    let counts = scene.target("10.0.0.1").counts.pass;
    scene.reload(&[&A.replace("port: 9", "port: 8")]);
    assert_eq!(scene.target("10.0.0.1").health.state(), State::Unknown);
    assert_eq!(scene.members("a"), None);
    scene.sync("a", &[[10, 0, 0, 1]]);
    assert_eq!(scene.target("10.0.0.1").health.state(), State::Up, "until disproved");
    assert_eq!(scene.target("10.0.0.1").health.streak(), Streak::None);
    assert_eq!(scene.target("10.0.0.1").counts.pass, counts);
    assert_eq!(scene.target("10.0.0.2").health.state(), State::Unknown);
}

#[tokio::test]
async fn a_plan_comes_with_the_database_that_it_is_for() {
    let mut scene = Scene::new(&[A]);
    scene.sync("a", &[]);
    scene.run(MINUTE);
    let mut decided = scene.monitor.plans.borrow()[&id("a")].clone();
    decided.mark_unchanged();
    scene.reload(&[&A.replace("port: 1,", "port: 7,")]);
    assert!(decided.has_changed().expect("it goes on"), "the same members on another port");
    let DatabasePlan { database, plan, .. } = decided.borrow().clone();
    assert_eq!((database.ports[0].number, plan), (7, scene.database_plan("a").plan));
}

#[tokio::test]
async fn a_policy_that_comes_goes_by_what_is_published() {
    let mut scene = Scene::new(&[A]);
    scene.sync("a", &[]);
    scene.run(MINUTE);
    let (published, now) = (members(&[[10, 0, 0, 2]]), scene.now);
    scene.monitor.update_database(&id("a"), |database, freeze| {
        database.set_published_members(published, freeze, now)
    });
    scene.reload(&[&A.replace("check:", "policy: {exactlyOne: true}, check:")]);
    assert_eq!(scene.members("a").as_deref(), Some("10.0.0.2"));
}

#[tokio::test]
async fn only_maintenance_by_annotation_outlasts_a_new_config() {
    let mut scene = Scene::new(&[&A.replace("10.0.0.2", "{address: 10.0.0.2, maintenance: disk}")]);
    scene.sync("a", &[]);
    let annotations = crate::annotations::ServiceAnnotations {
        maintenance: Some("10.0.0.1=kernel".into()),
        failback: None,
    };
    let now = scene.now;
    scene.monitor.update_database(&id("a"), |database, freeze| {
        database.set_annotations(annotations, freeze, now)
    });
    scene.reload(&[A]);
    assert!(scene.target("10.0.0.1").maintenance.is_some_and(|it| *it.reason == *"kernel"));
    assert_eq!(scene.target("10.0.0.2").maintenance, None);
    scene.reload(&[&A.replace("10.0.0.2", "10.0.0.1").replacen("10.0.0.1, ", "", 1)]);
    assert!(scene.target("10.0.0.1").maintenance.is_some_and(|it| *it.reason == *"kernel"));
}

#[tokio::test]
async fn a_result_of_a_removed_target_is_dropped_and_frees_its_key() {
    let mut scene = Scene::new(&[A, B]);
    scene.sync("a", &[]);
    let started = scene.started_within(MINUTE);
    let (first, second) =
        (scene.key("10.0.0.1").expect("a key"), scene.key("10.0.0.2").expect("a key"));
    assert!(started.contains(&first) && started.contains(&second));
    let left = scene.monitor.plans.borrow()[&id("a")].clone();
    scene.reload(&[B]);
    assert!(left.has_changed().is_err(), "it has no more plans");
    scene.reload(&[B, A]);
    assert!(![first, second].contains(&scene.key("10.0.0.1").expect("a new key")));
    scene.end(first, true);
    assert_eq!(scene.target("10.0.0.1").counts.pass, 0, "a verdict of the one that left");
    scene.reload(&[B, A, &A.replace("service: a", "service: c").replace("10.0.0", "10.0.2")]);
    assert!([scene.key("10.0.2.1"), scene.key("10.0.2.2")].contains(&Some(first)));
}

#[tokio::test]
async fn a_target_removed_while_its_try_waits_is_not_started() {
    let mut scene = Scene::new(&[A]);
    let started = scene.started_within(MINUTE);
    assert_eq!(started.len(), 2);
    for key in started {
        let now = scene.now;
        let owner = scene.monitor.scheduled[key].owner;
        scene.monitor.queue_for(key).enqueue(owner, key, now);
    }
    scene.reload(&[B]);
    scene.monitor.start_admitted(scene.now);
    assert!(scene.monitor.reactor.is_empty());
    assert!(!scene.monitor.network_queue.is_saturated());
    scene.reload(&[B, A]);
    let keys = [scene.key("10.0.0.1"), scene.key("10.0.0.2")];
    assert!(
        keys.iter().all(|key| key.is_some_and(|key| key < 4)),
        "their keys were free: {keys:?}"
    );
}

#[tokio::test]
async fn a_new_database_does_not_inherit_hanging_tries() {
    let mut scene = Scene::new(&[A, B]);
    let started = scene.started_within(MINUTE);
    let (waits, hangs) =
        (scene.key("10.0.0.1").expect("a key"), scene.key("10.0.1.1").expect("a key"));
    assert!(started.contains(&waits) && started.contains(&hangs));
    let now = scene.now;
    let (command, network) =
        (scene.monitor.scheduled[hangs].owner, scene.monitor.scheduled[waits].owner);
    scene.monitor.exec_queue.enqueue(command, hangs, now);
    assert!(scene.monitor.exec_queue.try_admit().is_some());
    scene.monitor.network_queue.enqueue(network, waits, now);
    let renamed =
        |database: &str| database.replace("service: ", "service: new-").replace("10.0.", "10.1.");
    let (new_a, new_b) = (renamed(A), renamed(B));
    let owners = |scene: &Scene| {
        ["10.1.0.1", "10.1.1.1"]
            .map(|ip| scene.monitor.scheduled[scene.key(ip).expect("a key")].owner)
    };
    scene.reload(&[&new_a, &new_b]);
    assert!(
        owners(&scene).iter().all(|owner| ![command, network].contains(owner)),
        "{:?}",
        owners(&scene)
    );
    scene.end(hangs, true);
    scene.monitor.start_admitted(now);
    scene.reload(&[B]);
    let owner = scene.monitor.scheduled[scene.key("10.0.1.1").expect("a key")].owner;
    assert_eq!(owner, 0, "a number whose tries have ended is used again");
}
