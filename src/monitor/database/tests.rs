//! A database as the monitor knows it: fed with verdicts, with what the cluster holds, and with
//! what people ask for.

use super::*;
use crate::config::{Options, parse};
use crate::freeze::Rules;
use crate::notice::{Receiver, channel};
use crate::probe::ServerRole;
use std::time::Duration;

mod adoption;
mod maintenance;
mod names;
mod trouble;

const SECOND: Duration = Duration::from_secs(1);

/// A database with these keys, at a time of its own.
struct Scene {
    database: DatabaseMonitor,
    /// There is none.
    freeze: Freeze,
    now: Instant,
    listener: Receiver,
}

impl Scene {
    /// Creates a database whose targets have thresholds of one verdict.
    fn new(addresses: &str, policy: &str) -> Self {
        let database = Self::parse(addresses, policy);
        #[expect(clippy::disallowed_methods, reason = "any instant will do as the start of a test")]
        let now = Instant::now();
        let freeze =
            Freeze::new(Rules { max_unhealthy: 100, ..Rules::default() }, std::iter::empty());
        let (teller, listener) = channel();
        Self { database: DatabaseMonitor::new(&database, teller, now), freeze, now, listener }
    }

    fn parse(addresses: &str, policy: &str) -> Arc<Database> {
        let text = format!(
            "databases: [{{service: a, port: 1, addresses: [{addresses}], policy: {policy}, \
             check: {{tcp: {{}}, healthyThreshold: 1, unhealthyThreshold: 1}}}}]"
        );
        let options =
            Options { own_namespace: "prod".into(), allow_cidr: Vec::new(), skip_rejected: false };
        parse("a.yaml", &text, &options).expect("a good config").spec.databases[0].clone()
    }

    fn reload(&mut self, addresses: &str, policy: &str) {
        self.database.reload(&Self::parse(addresses, policy), &mut self.freeze, self.now);
    }

    /// Applies verdicts to the targets, a second later: `+` passes, `-` fails, `?` is inconclusive,
    /// `l` cannot log in, `r` has another role, `n` does not say it, and a space is none.
    fn on_result(&mut self, verdicts: &str) {
        self.now += SECOND;
        for (index, verdict) in verdicts.chars().enumerate() {
            let verdict = match verdict {
                '+' => Verdict::Pass,
                '-' => Verdict::Fail("connect: refused".into()),
                '?' => Verdict::Inconclusive("connect: no route from this host".into()),
                'l' => Verdict::Inconclusive("auth: refused (28P01)".into()),
                'r' => Verdict::Fail("role: replica, not primary".into()),
                'n' => Verdict::Fail("role: no answer in 2s".into()),
                _ => continue,
            };
            let (started, ended) = (self.now, self.now);
            let is_known =
                matches!(&verdict, Verdict::Fail(reason) if reason.starts_with("role: re"));
            let role = is_known.then_some(ServerRole::Replica);
            let observation = Observation { role, ..Observation::default() };
            self.database.set_observation(index, Some(Arc::new(observation)));
            self.database.on_result(
                index,
                &ProbeReport { key: index, verdict, delay: None, started, ended },
                &mut self.freeze,
            );
        }
    }

    fn sync(&mut self, last: &[u8]) {
        let members = members(last);
        self.database.set_initial_members(&members, &members, &mut self.freeze, self.now);
    }

    fn follow(&mut self, last: &[u8]) {
        self.database.set_published_members(members(last), &mut self.freeze, self.now);
    }

    fn annotate(&mut self, maintenance: Option<&str>, failback: Option<&str>) {
        let [maintenance, failback] = [maintenance, failback].map(|text| text.map(str::to_owned));
        let annotations = ServiceAnnotations { maintenance, failback };
        self.database.set_annotations(annotations, &mut self.freeze, self.now);
    }

    /// Applies the same verdicts each second.
    fn apply_for(&mut self, seconds: u32, verdicts: &str) {
        (0..seconds).for_each(|_| self.on_result(verdicts));
    }

    /// Returns the Events whose reason begins like this, with their notes, since the last
    /// call.
    fn events(&mut self, start: &str) -> Vec<String> {
        let notices = std::iter::from_fn(|| self.listener.notices.try_recv().ok());
        let texts = notices.map(|notice| format!("{}: {}", notice.reason, notice.note));
        texts.filter(|text| text.starts_with(start)).collect()
    }

    /// Returns the last numbers of the members; none while the plan is to keep.
    fn members(&self) -> Option<String> {
        match &self.database.plan().borrow().plan {
            Plan::Publish(members) => Some(members.to_string().replace("10.0.0.", "")),
            Plan::Keep(_) => None,
        }
    }

    fn snapshot(&self) -> DatabaseSnapshot {
        self.database.snapshot(&Schedule::new(self.now))
    }

    fn has_split_brain(&self) -> bool {
        let is_split_brain = |note: &PolicyNote| matches!(note, PolicyNote::SplitBrain { .. });
        self.snapshot().notes.iter().any(is_split_brain)
    }

    #[track_caller]
    fn publishes(&self, members: &str) {
        assert_eq!(self.members().as_deref(), Some(members));
    }
}

fn members(last: &[u8]) -> Members {
    last.iter().map(|last| Member { ip: [10, 0, 0, *last].into(), hostname: None }).collect()
}

#[test]
fn addresses_that_may_answer_are_listed_while_a_plan_keeps() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2, 10.0.0.3", "{minHealthy: 3}");
    let may_answer = |scene: &Scene| {
        let decided = scene.database.plan().borrow().clone();
        decided.may_answer.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" ")
    };
    scene.sync(&[1, 2, 3]);
    scene.on_result("+--");
    assert_eq!(may_answer(&scene), "", "the plan lists all");
    // .3 has left, .4 has come.
    scene.reload("10.0.0.2, 10.0.0.4", "{minHealthy: 3}");
    scene.sync(&[1, 2, 3]);
    assert_eq!((scene.members(), may_answer(&scene).as_str()), (None, "10.0.0.1 10.0.0.4"));
    scene.reload("10.0.0.2, 10.0.0.4, 10.0.0.5", "{minHealthy: 3}");
    scene.sync(&[1, 2, 3]);
    assert_eq!(
        (scene.members(), may_answer(&scene).as_str()),
        (None, "10.0.0.1 10.0.0.4 10.0.0.5"),
        "of any config before"
    );
    scene.on_result("+--");
    assert_eq!((scene.members().is_some(), may_answer(&scene).as_str()), (true, ""));
    // The plan to publish cleared the addresses that had left before.
    scene.reload("10.0.0.2, 10.0.0.6", "{minHealthy: 3}");
    scene.sync(&[2, 3]);
    assert_eq!((scene.members(), may_answer(&scene).as_str()), (None, "10.0.0.2 10.0.0.6"));
}

const TIERS: &str = "10.0.0.1, {address: 10.0.0.2, priority: 1}";

#[test]
fn published_members_change_the_plan_but_not_health() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{minHealthy: 1}");
    scene.sync(&[1]);
    scene.on_result("--");
    scene.publishes("1");
    // Another replica wrote meanwhile: its choice is taken over, and no target becomes Up by it.
    scene.follow(&[2]);
    scene.publishes("2");
    assert_eq!(scene.database.targets[1].health.state(), State::Down);
    scene.on_result("+ ");
    scene.publishes("1");
    scene.on_result("- ");
    scene.publishes("2");
    scene.follow(&[1]);
    scene.publishes("1");
}

#[test]
fn a_replica_that_takes_over_decides_as_the_one_before() {
    let policy = "{minHealthy: 1, failback: {delay: 10s}}";
    let mut leader = Scene::new(TIERS, policy);
    let mut standby = Scene::new(TIERS, policy);
    let both = |change: &dyn Fn(&mut Scene), leader: &mut Scene, standby: &mut Scene| {
        change(leader);
        change(standby);
        assert_eq!(leader.members(), standby.members());
        // The plan of the leader is written, and both apply it.
        let plan = leader.database.plan().borrow().plan.clone();
        if let Plan::Publish(members) = plan {
            leader.database.set_published_members(members.clone(), &mut leader.freeze, leader.now);
            standby.database.set_published_members(members, &mut standby.freeze, standby.now);
        }
        assert_eq!(leader.members(), standby.members());
    };
    leader.sync(&[1]);
    standby.sync(&[1]);
    let mut shown = Vec::new();
    for verdicts in ["++", "-+", "++", "+-", "--", "-+", "+ ", "+ "] {
        both(&|scene: &mut Scene| scene.on_result(verdicts), &mut leader, &mut standby);
        shown.push(leader.members().unwrap_or_default());
    }
    assert_eq!(shown, ["1", "2", "2", "1", "1", "2", "2", "2"]);
}

#[test]
fn a_failback_comes_by_time_alone() {
    let mut scene = Scene::new(TIERS, "{failback: {delay: 1m}}");
    scene.sync(&[1]);
    scene.on_result("-+");
    scene.publishes("2");
    scene.follow(&[2]);
    assert_eq!(scene.database.take_reevaluation(), None);
    scene.on_result("+ ");
    let due = scene.now + SECOND * 60;
    assert_eq!(scene.database.take_reevaluation(), Some(due));
    assert_eq!(scene.database.take_reevaluation(), None, "returned once");
    scene.database.reevaluate_if_due(&mut scene.freeze, due - SECOND);
    scene.publishes("2");
    scene.database.reevaluate_if_due(&mut scene.freeze, due);
    scene.publishes("1");
    assert_eq!(scene.database.take_reevaluation(), None);
}

#[test]
fn a_failback_is_asked_for_by_a_change_of_the_annotation() {
    let mut scene = Scene::new(TIERS, "{failback: {manual: true}}");
    scene.annotate(None, Some("yesterday"));
    scene.sync(&[1]);
    scene.on_result("-+");
    scene.follow(&[2]);
    scene.on_result("+ ");
    scene.publishes("2");
    scene.annotate(Some("x"), Some("yesterday"));
    scene.publishes("2");
    scene.annotate(None, Some("today"));
    scene.publishes("1");
    scene.follow(&[1]);
    // The request was for that failback alone.
    scene.on_result("-+");
    scene.follow(&[2]);
    scene.on_result("++");
    scene.annotate(None, Some("today"));
    scene.publishes("2");
    scene.annotate(None, None);
    scene.publishes("2");
    scene.annotate(None, Some("today"));
    scene.publishes("1");
}

#[test]
fn the_failback_delay_counts_from_the_end_of_maintenance() {
    let mut scene = Scene::new(TIERS, "{failback: {delay: 10s}}");
    scene.sync(&[1]);
    scene.on_result("++");
    scene.annotate(Some("10.0.0.1=disk"), None);
    scene.publishes("2");
    scene.follow(&[2]);
    scene.now += SECOND * 100;
    scene.annotate(None, None);
    scene.publishes("2");
    assert_eq!(scene.database.take_reevaluation(), Some(scene.now + SECOND * 10));
}

#[test]
fn a_split_brain_is_over_as_soon_as_one_stops_to_pass() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{exactlyOne: true}");
    scene.sync(&[1]);
    scene.on_result("+-");
    let split = |scene: &Scene| !scene.snapshot().notes.is_empty();
    assert!(!split(&scene));
    scene.on_result(" +");
    assert!(split(&scene));
    scene.publishes("1");
    scene.on_result("- ");
    assert!(!split(&scene));
    scene.publishes("2");
}

#[test]
fn a_target_that_flaps_stays_out_until_it_is_up_for_a_minute() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{maxFlips: 3}");
    scene.sync(&[]);
    scene.on_result("++");
    scene.on_result("- ");
    scene.on_result("+ ");
    scene.publishes("1, 2");
    scene.on_result("- ");
    scene.on_result("+ ");
    scene.publishes("2");
    let due = scene.now + SECOND * 60;
    assert_eq!(scene.database.take_reevaluation(), Some(due));
    scene.database.reevaluate_if_due(&mut scene.freeze, due);
    scene.publishes("1, 2");
    // The last one stays in.
    scene.now = due;
    scene.on_result("- ");
    scene.on_result("+-");
    scene.publishes("1");
}

#[test]
fn a_published_inconclusive_target_is_reported_once() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{}");
    scene.sync(&[1]);
    scene.on_result("+-");
    scene.apply_for(61, "??");
    assert_eq!(scene.events("Checks"), [""; 0], "no longer than a minute");
    scene.apply_for(30, "??");
    let note = "ChecksInconclusive: the checks of 10.0.0.1 have been inconclusive for over 1m \
                (connect: no route from this host); it stays published, dead or alive; fix the \
                cause on the side of the daemon";
    assert_eq!(scene.events("Checks"), [note], "one that is not published is not reported");
    assert_eq!(scene.snapshot().notes.len(), 1);
    scene.publishes("1");
    let since = scene.database.targets[0].health.inconclusive_since();
    assert_eq!(since, Some(scene.now - SECOND * 90));
    // A failure is conclusive. An inconclusive verdict after it begins a new run.
    scene.on_result("- ");
    assert_eq!(
        scene.events("Checks"),
        ["ChecksConclusive: the checks of all published addresses are conclusive again"]
    );
    assert!(scene.snapshot().notes.is_empty());
    scene.apply_for(61, "??");
    assert_eq!(scene.events("Checks"), [""; 0]);
}

#[test]
fn an_inconclusive_target_is_reported_once_it_is_published() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{}");
    scene.sync(&[]);
    scene.on_result("++");
    scene.apply_for(90, "??");
    assert_eq!(scene.events("Checks"), [""; 0]);
    scene.follow(&[1, 2]);
    assert_eq!(
        scene.events("ChecksInconclusive: the checks of 10.0.0.1, 10.0.0.2 have been").len(),
        1
    );
    scene.follow(&[2]);
    assert_eq!(scene.events("ChecksInconclusive: the checks of 10.0.0.2 have been").len(), 1);
    scene.follow(&[]);
    assert_eq!(scene.events("ChecksConclusive").len(), 1);
}

#[test]
fn a_writer_that_cannot_be_tried_gives_way_to_its_successor() {
    // Three intervals of 5 s, and a timeout of 2 s.
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{exactlyOne: true}");
    scene.sync(&[1]);
    scene.on_result("+-");
    scene.apply_for(5, "?-");
    scene.apply_for(11, "?+");
    scene.publishes("1");
    assert!(scene.has_split_brain());
    let due = scene.now + SECOND;
    assert_eq!(scene.database.policy_state.reevaluate_at, Some(due));
    scene.database.reevaluate_if_due(&mut scene.freeze, due);
    scene.publishes("2");
    assert!(scene.snapshot().notes.is_empty(), "no split brain");
    // The old one passes again: reported at once, and it changes nothing.
    scene.follow(&[2]);
    scene.on_result("++");
    assert!(scene.has_split_brain());
    scene.publishes("2");
}

#[test]
fn a_writer_that_cannot_be_tried_stays_where_both_passed() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{exactlyOne: true}");
    scene.sync(&[1]);
    scene.apply_for(3, "++");
    scene.apply_for(60, "?+");
    scene.database.decide(&mut scene.freeze, scene.now);
    scene.publishes("1");
    assert!(scene.snapshot().notes.is_empty(), "no split brain: one of them is inconclusive");
    // It also stays when all verdicts are inconclusive. The next conclusive ones count at once.
    scene.apply_for(60, "??");
    scene.publishes("1");
    scene.on_result("+?");
    scene.apply_for(3, "-?");
    scene.publishes("2");
}

#[test]
fn changes_and_the_last_hour_are_kept_for_people() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{}");
    scene.sync(&[1, 2]);
    scene.on_result("++");
    scene.on_result("-+");
    scene.follow(&[2]);
    scene.annotate(Some("10.0.0.2=disk swap"), None);
    scene.annotate(None, None);
    scene.on_result("??");
    scene.now += 60 * SECOND;
    scene.on_result("++");
    scene.follow(&[1, 2]);
    let snapshot = scene.snapshot();
    let reason = |reason: &Option<Arc<str>>| reason.as_deref().unwrap_or("-").to_owned();
    let changes = snapshot
        .changes
        .iter()
        .map(|change| format!("{} {:?} {}", change.ip, change.kind, reason(&change.reason)));
    let expected = [
        "10.0.0.1 Down connect: refused",
        "10.0.0.1 Unpublished -",
        "10.0.0.2 MaintenanceBegan disk swap",
        "10.0.0.2 MaintenanceEnded -",
        "10.0.0.1 Up -",
        "10.0.0.1 Published -",
    ];
    assert_eq!(changes.collect::<Vec<_>>(), expected);
    let hour = |index: usize| -> Vec<Minute> {
        snapshot.targets[index].last_hour.minutes(scene.now).collect()
    };
    assert_eq!(hour(0), [Minute::Down, Minute::Passed]);
    assert_eq!(hour(1), [Minute::Passed, Minute::Passed]);
}
