//! The plans of a whole monitor while targets of several databases fail together. The test supplies
//! the verdicts.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::annotations::ServiceAnnotations;
use crate::clock;
use crate::config::{Options, parse};
use crate::freeze::{FAILURE_WINDOW, Rules};
use crate::health::Verdict;
use crate::limits::Limits;
use crate::monitor::database::DatabaseMonitor;
use crate::monitor::{ProbeReport, build};
use crate::notice::Recorder;
use crate::plan::{Member, Members, Plan};

const SECOND: Duration = Duration::from_secs(1);

/// Three databases with two targets each: 10.0.0.1 and 2, 3 and 4, 5 and 6. A target is Down by its
/// second failure.
struct Scene {
    monitor: Monitor,
    now: Instant,
}

fn members(last: &[u8]) -> Members {
    last.iter().map(|last| Member { ip: IpAddr::from([10, 0, 0, *last]), hostname: None }).collect()
}

impl Scene {
    /// Creates three databases, of which the last one has this policy.
    async fn new(policy: &str) -> Self {
        let database = |service: &str, one: u8, policy: &str| {
            let other = one + 1;
            format!(
                "{{service: {service}, port: 1, addresses: [10.0.0.{one}, 10.0.0.{other}], \
                 policy: {policy}}}"
            )
        };
        let text = format!(
            "defaults: {{check: {{tcp: {{}}, healthyThreshold: 1, unhealthyThreshold: 2}}}}\n\
             databases: [{}, {}, {}]",
            database("a", 1, "{}"),
            database("b", 3, "{}"),
            database("c", 5, policy)
        );
        let options =
            Options { own_namespace: "prod".into(), allow_cidr: Vec::new(), skip_rejected: false };
        let spec = parse("a.yaml", &text, &options).expect("a good config").spec;
        let limits = Limits { max_in_flight: 1, max_execs: 1 };
        let runtime = tokio::runtime::Handle::current();
        let prepared = build(
            &spec,
            limits,
            Rules::default(),
            &Recorder::default(),
            crate::resolve::channel().0,
            (runtime.clone(), runtime),
        );
        Self { monitor: prepared.expect("an epoll instance").1, now: clock::now() }
    }

    /// Creates them with all targets, or all but the last one, published and Up.
    async fn published(policy: &str) -> Self {
        let mut scene = Self::new(policy).await;
        scene.sync(["1, 2", "3, 4", if policy == "{}" { "5, 6" } else { "5" }]);
        scene.on_result(if policy == "{}" { "++++++" } else { "+++++-" });
        scene
    }

    fn sync(&mut self, published: [&str; 3]) {
        for (index, published) in published.into_iter().enumerate() {
            let published: Vec<u8> =
                published.split(", ").filter_map(|last| last.parse().ok()).collect();
            let Monitor { databases, freeze, .. } = &mut self.monitor;
            let members = members(&published);
            databases[index].set_initial_members(&members, &members, freeze, self.now);
        }
        self.monitor.update_freeze(self.now);
    }

    /// Applies verdicts to the targets, a second later: `+` passes, `-` fails, and a space is none.
    /// The plans are published at once.
    fn on_result(&mut self, verdicts: &str) {
        self.now += SECOND;
        for (index, verdict) in verdicts.chars().enumerate() {
            let verdict = match verdict {
                '+' => Verdict::Pass,
                '-' => Verdict::Fail("connect: refused".into()),
                _ => continue,
            };
            let report = ProbeReport {
                key: index,
                verdict,
                delay: None,
                started: self.now,
                ended: self.now,
            };
            let Monitor { databases, freeze, .. } = &mut self.monitor;
            databases[index / 2].on_result(index % 2, &report, freeze);
            self.publish();
        }
        self.later(Duration::ZERO);
    }

    fn publish(&mut self) {
        let Monitor { databases, freeze, .. } = &mut self.monitor;
        for database in databases {
            let plan = database.plan().borrow().plan.clone();
            if let Plan::Publish(members) = plan {
                database.set_published_members(members, freeze, self.now);
            }
        }
    }

    /// Reevaluates after this time.
    fn later(&mut self, time: Duration) {
        self.now += time;
        self.monitor.update_freeze(self.now);
        let Monitor { databases, freeze, .. } = &mut self.monitor;
        databases.iter_mut().for_each(|database| database.reevaluate_if_due(freeze, self.now));
        self.publish();
    }

    fn set_maintenance(&mut self, index: usize, maintenance: Option<&str>) {
        let annotations =
            ServiceAnnotations { maintenance: maintenance.map(str::to_owned), failback: None };
        let Monitor { databases, freeze, .. } = &mut self.monitor;
        databases[index].set_annotations(annotations, freeze, self.now);
        self.publish();
    }

    /// Asserts the last numbers of the members of all databases, and whether there is a freeze.
    #[track_caller]
    fn is(&self, expected: [&str; 3], frozen: bool) {
        let plans: Vec<String> = self
            .monitor
            .databases
            .iter()
            .map(|database| match &database.plan().borrow().plan {
                Plan::Publish(members) => members.to_string().replace("10.0.0.", ""),
                Plan::Keep(why) => why.to_string(),
            })
            .collect();
        assert_eq!(
            (plans, self.monitor.freeze.frozen().is_some()),
            (expected.map(str::to_owned).to_vec(), frozen)
        );
    }
}

const ALL: [&str; 3] = ["1, 2", "3, 4", "5, 6"];

#[tokio::test]
async fn what_fails_together_stays_until_the_others_are_back() {
    let mut scene = Scene::published("{}").await;
    scene.on_result("----++");
    scene.is(ALL, false);
    scene.on_result("----++");
    scene.is(ALL, true);
    scene.on_result("------");
    scene.on_result("------");
    scene.is(ALL, true);
    // Three of six is not too many; but the last ones have yet to be tried.
    scene.on_result("+++   ");
    scene.is(ALL, true);
    scene.on_result("   -- ");
    scene.is(ALL, true);
    scene.on_result("     -");
    scene.is(["1, 2", "3", "none"], false);
    // Targets that have left do not count for the next freeze.
    scene.on_result("---   ");
    scene.on_result("-- +++");
    scene.is(["none", "3, 4", "5, 6"], false);
}

#[tokio::test]
async fn only_what_left_within_the_window_comes_back() {
    let mut scene = Scene::published("{}").await;
    scene.on_result("-     ");
    scene.on_result("-     ");
    scene.is(["2", "3, 4", "5, 6"], false);
    scene.later(30 * SECOND);
    // Five are left, of which four are too many; three alone are not.
    for _ in 0..2 {
        scene.on_result(" --   ");
    }
    scene.is(["none", "4", "5, 6"], false);
    for _ in 0..2 {
        scene.on_result("   -  ");
    }
    scene.is(["none", "none", "5, 6"], false);
    for _ in 0..2 {
        scene.on_result("    - ");
    }
    scene.is(["2", "3, 4", "5, 6"], true);
    // Targets that are Up still come.
    scene.on_result("+     ");
    scene.is(ALL, true);
}

#[tokio::test]
async fn failures_spread_over_more_than_the_window_are_no_freeze() {
    let mut scene = Scene::published("{}").await;
    for verdicts in ["-     ", "  -   ", "    - ", " -    "] {
        scene.on_result(verdicts);
        scene.on_result(verdicts);
        scene.later(15 * SECOND);
    }
    scene.is(["none", "4", "6"], false);
}

#[tokio::test]
async fn doubt_alone_takes_nothing_out_and_makes_no_freeze() {
    let mut scene = Scene::published("{}").await;
    scene.on_result("----  ");
    scene.on_result("-   ++");
    scene.is(ALL, false);
    // The others are healthy again, so it leaves.
    scene.on_result(" +++  ");
    scene.is(["2", "3, 4", "5, 6"], false);
}

#[tokio::test]
async fn a_freeze_times_out() {
    let mut scene = Scene::published("{}").await;
    scene.on_result("------");
    scene.on_result("------");
    scene.later(599 * SECOND);
    scene.is(ALL, true);
    scene.later(SECOND);
    scene.is(["none", "none", "none"], false);
    scene.later(SECOND);
    scene.is(["none", "none", "none"], false);
}

#[tokio::test]
async fn a_first_round_of_failures_empties_nothing_until_synced() {
    for early in [false, true] {
        let mut scene = Scene::new("{}").await;
        let rounds = |scene: &mut Scene| (0..3).for_each(|_| scene.on_result("------"));
        if early {
            rounds(&mut scene);
        }
        scene.sync(ALL);
        scene.is(ALL, early);
        rounds(&mut scene);
        scene.is(ALL, true);
        scene.on_result("++++++");
        scene.on_result("++++++");
        scene.is(ALL, false);
    }
    // It does not publish targets that were not published.
    let mut scene = Scene::new("{}").await;
    scene.sync(["1", "3, 4", "5, 6"]);
    scene.on_result("------");
    scene.on_result("------");
    scene.is(["1", "3, 4", "5, 6"], true);
}

#[tokio::test]
async fn a_writer_is_kept_in_a_freeze_until_it_is_replaced() {
    let mut scene = Scene::published("{exactlyOne: true}").await;
    scene.is(["1, 2", "3, 4", "5"], false);
    scene.on_result("----- ");
    scene.on_result("----- ");
    scene.is(["1, 2", "3, 4", "5"], true);
    scene.on_result("-----+");
    scene.is(["1, 2", "3, 4", "6"], true);
    scene.on_result("------");
    scene.on_result("------");
    scene.is(["1, 2", "3, 4", "6"], true);
}

#[tokio::test]
async fn maintenance_takes_out_in_a_freeze_and_is_no_failure() {
    let mut scene = Scene::published("{}").await;
    for index in 0..3 {
        scene.set_maintenance(
            index,
            Some(["10.0.0.1=x, 10.0.0.2=x", "10.0.0.3=x, 10.0.0.4=x", ""][index]),
        );
    }
    scene.on_result("------");
    scene.on_result("------");
    scene.is(["none", "none", "none"], false);

    let mut scene = Scene::published("{}").await;
    scene.on_result("------");
    scene.on_result("------");
    scene.set_maintenance(1, Some("10.0.0.3=disk"));
    scene.is(["1, 2", "4", "5, 6"], true);
}

#[tokio::test]
async fn what_a_policy_keeps_counts_and_stays_after_the_freeze() {
    let mut scene = Scene::published("{minHealthy: 1}").await;
    scene.on_result("     +");
    scene.on_result("------");
    scene.on_result("------");
    scene.is(ALL, true);
    scene.on_result("++++--");
    scene.on_result("++++--");
    scene.is(["1, 2", "3, 4", "5"], false);
}

#[tokio::test]
async fn a_database_that_leaves_the_config_takes_its_failures_along() {
    let mut scene = Scene::published("{}").await;
    scene.on_result("--++++");
    scene.on_result("----++");
    scene.on_result("  --  ");
    scene.is(ALL, true);
    // The other two stay, with another policy and so in another order of addresses for one of them.
    let text = "defaults: {check: {tcp: {}, healthyThreshold: 1, unhealthyThreshold: 2}}\n\
        databases: [\
        {service: b, port: 1, addresses: [10.0.0.4, 10.0.0.3], policy: {maxFlips: 9}}, \
        {service: c, port: 1, addresses: [10.0.0.5, 10.0.0.6]}]";
    let options =
        Options { own_namespace: "prod".into(), allow_cidr: Vec::new(), skip_rejected: false };
    let spec = parse("a.yaml", text, &options).expect("a good config").spec;
    scene.monitor.reload(&spec, scene.now);
    let plan =
        |scene: &Scene, index: usize| scene.monitor.databases[index].plan().borrow().plan.clone();
    assert!(scene.monitor.freeze.frozen().is_some(), "until what failed has been tried again");
    assert_eq!(plan(&scene, 0), Plan::Publish(members(&[3, 4])));
    scene.on_result("--++");
    assert!(scene.monitor.freeze.frozen().is_none(), "four targets in two databases are too few");
    assert_eq!(
        (plan(&scene, 0), plan(&scene, 1)),
        (Plan::Publish(members(&[])), Plan::Publish(members(&[5, 6])))
    );
}

#[tokio::test(start_paused = true)]
async fn what_a_freeze_left_to_decide_is_due_in_time() {
    let mut scene = Scene::published("{}").await;
    scene.on_result("-");
    scene.on_result("-");
    // The failure counts for a window, and then the database is decided anew.
    let (down_at, now) = (scene.now, scene.now + SECOND);
    scene.monitor.reevaluations.clear();
    scene.monitor.databases.iter_mut().for_each(DatabaseMonitor::reset_reevaluation);
    scene.monitor.undecided = Some(0);
    assert_eq!(scene.monitor.reevaluate_due(now), Some(down_at + FAILURE_WINDOW));
}

#[tokio::test(start_paused = true)]
async fn a_freeze_that_has_just_begun_leaves_a_backlog() {
    let mut scene = Scene::published("{}").await;
    assert!(!scene.monitor.has_backlog());
    let Monitor { databases, freeze, .. } = &mut scene.monitor;
    for (index, _) in "------------".chars().enumerate() {
        let verdict = Verdict::Fail("connect: refused".into());
        let report = ProbeReport {
            key: index % 6,
            verdict,
            delay: None,
            started: scene.now,
            ended: scene.now,
        };
        databases[index % 6 / 2].on_result(index % 2, &report, freeze);
    }
    assert!(scene.monitor.has_backlog(), "all databases are to be decided anew");
    scene.monitor.update_freeze(scene.now);
    assert!(!scene.monitor.has_backlog());
}
