//! A database with names: fed with outcomes of lookups as well.

use super::*;
use crate::config::NameKind;
use crate::monitor::ServiceFacts;
use crate::names::{Backing, Families};
use crate::resolve::{
    Answer, Command, LookupOutcome, NameKey, OutcomePart, ServiceRecord, UnknownReason,
};

pub(super) const DB: &str = "db.corp";
pub(super) const V4: Families = Families { ipv4: true, ipv6: false };

impl Scene {
    /// Applies the outcome of a lookup of the name with this index, a second later.
    pub(super) fn resolve(&mut self, name: usize, answer: Answer) {
        self.resolve_parts(
            name,
            vec![OutcomePart { service: None, a: answer, aaaa: Answer::NotAsked }],
        );
    }

    pub(super) fn resolve_parts(&mut self, name: usize, parts: Vec<OutcomePart>) {
        self.now += SECOND;
        let outcome = LookupOutcome {
            families: V4,
            parts,
            ttl: Some(5),
            aliases: Vec::new(),
            skipped: Vec::new(),
            server: None,
            at: self.now,
            next_at: self.now + SECOND,
        };
        self.database.apply_lookup(name, &Arc::new(outcome), &mut self.freeze, self.now);
    }

    pub(super) fn serve(&mut self, families: Families, cluster_ips: &[&str]) {
        let cluster_ips = cluster_ips.iter().map(|ip| ip.parse().expect("an IP")).collect();
        let facts = ServiceFacts { families: Some(families), cluster_ips };
        self.database.set_service_facts(facts, &mut self.freeze, self.now);
    }

    /// Creates a database of one name, of an IPv4 Service that has been read.
    pub(super) fn of_name(published: &[u8]) -> Self {
        Self::of_names(DB, published)
    }

    /// Creates a database of these entries, of an IPv4 Service that has been read.
    pub(super) fn of_names(addresses: &str, published: &[u8]) -> Self {
        let mut scene = Self::new(addresses, "{}");
        scene.serve(V4, &[]);
        scene.sync(published);
        scene
    }

    /// Returns the last numbers of the targets, with the first letter of what DNS says of each.
    pub(super) fn targets(&self) -> String {
        let word = |target: &TargetState| {
            let last = target.member.ip.to_string().replace("10.0.0.", "");
            match target.origin.entry {
                None => last,
                Some(_) => last + &target.origin.backing.as_str()[..1],
            }
        };
        self.database.targets.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    /// Carries the plan out.
    pub(super) fn write(&mut self) {
        let Plan::Publish(members) = self.database.plan().borrow().plan.clone() else {
            panic!("the plan is to keep")
        };
        self.database.set_published_members(members, &mut self.freeze, self.now);
    }
}

pub(super) fn at(last: &[u8]) -> Answer {
    Answer::Addresses(last.iter().map(|last| [10, 0, 0, *last].into()).collect())
}

/// Returns the answers for one target of a service, which has an address.
fn part(host: &str, port: u16, rank: u32, last: u8) -> OutcomePart {
    OutcomePart {
        service: Some(ServiceRecord { host: host.into(), port, rank, weight: 0 }),
        a: at(&[last]),
        aaaa: Answer::NotAsked,
    }
}

pub(super) fn silence() -> Answer {
    Answer::Unknown(UnknownReason("no answer in 5s".into()))
}

#[test]
fn nothing_is_decided_before_a_name_was_asked() {
    let mut scene = Scene::of_name(&[1]);
    scene.on_result("+");
    assert_eq!(scene.members(), None);
    scene.resolve(0, silence());
    scene.publishes("1");
}

#[test]
fn a_restart_without_dns_checks_what_is_published() {
    let mut scene = Scene::of_name(&[1, 2]);
    assert_eq!(scene.targets(), "1a 2a");
    scene.resolve(0, silence());
    scene.on_result("++");
    scene.publishes("1, 2");
    scene.on_result("-+");
    scene.publishes("2");
    scene.write();
    scene.on_result("++");
    scene.publishes("1, 2");
    // The first answer has one of them; the other leaves in exchange.
    scene.write();
    scene.resolve(0, at(&[2]));
    scene.publishes("2");
    scene.write();
    assert_eq!(scene.targets(), "2c");
}

#[test]
fn an_address_leaves_in_exchange_for_one_that_is_up() {
    let mut scene = Scene::of_name(&[1]);
    scene.resolve(0, at(&[1]));
    scene.on_result("+");
    scene.publishes("1");
    scene.resolve(0, at(&[2]));
    assert_eq!(scene.targets(), "1d 2c");
    scene.publishes("1");
    scene.on_result("++");
    scene.publishes("2");
    assert_eq!(scene.targets(), "1d 2c", "nothing is written yet");
    scene.write();
    assert_eq!(scene.targets(), "2c");
    scene.on_result("-");
    scene.publishes("none");
}

#[test]
fn an_address_stays_while_no_other_is_up_and_that_is_told() {
    let mut scene = Scene::of_name(&[1]);
    scene.resolve(0, at(&[1]));
    scene.on_result("+");
    scene.resolve(0, at(&[2]));
    scene.apply_for(29, "+-");
    assert_eq!(scene.events("AddressKept"), Vec::<String>::new());
    scene.now += SECOND * 2;
    scene.database.reevaluate_if_due(&mut scene.freeze, scene.now);
    scene.publishes("1");
    let told = scene.events("AddressKept");
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].contains("10.0.0.1") && told[0].contains(DB), "{told:?}");
}

#[test]
fn no_answer_and_no_address_take_nothing_away() {
    for answer in [silence(), Answer::NoSuchName, Answer::NoRecords] {
        let mut scene = Scene::of_name(&[1, 2]);
        scene.resolve(0, at(&[1, 2]));
        scene.on_result("++");
        for _ in 0..100 {
            scene.resolve(0, answer.clone());
        }
        assert_eq!(scene.targets(), "1c 2c", "{answer:?}");
        scene.on_result("+-");
        scene.publishes("1");
        scene.on_result("++");
        scene.publishes("1, 2");
    }
}

#[test]
fn ips_and_the_name_that_stands_for_them_replace_each_other() {
    let mut scene = Scene::new("10.0.0.1, 10.0.0.2", "{}");
    scene.sync(&[1, 2]);
    scene.on_result("++");
    scene.publishes("1, 2");
    scene.write();
    let checks =
        |scene: &Scene| scene.database.targets.iter().map(|it| it.counts.pass).sum::<u64>();
    scene.reload(DB, "{}");
    assert_eq!((scene.targets().as_str(), checks(&scene)), ("1a 2a", 2));
    assert_eq!(scene.members(), None, "the name was not asked yet");
    scene.resolve(0, at(&[1, 2]));
    assert_eq!((scene.targets().as_str(), checks(&scene)), ("1c 2c", 2));
    scene.publishes("1, 2");
    scene.reload("10.0.0.1, 10.0.0.2", "{}");
    assert_eq!((scene.targets().as_str(), checks(&scene)), ("1 2", 2));
    scene.publishes("1, 2");
}

#[test]
fn an_ip_that_is_taken_out_beside_a_known_name_leaves() {
    let mut scene = Scene::of_names("db.corp, 10.0.0.9", &[1, 9]);
    scene.resolve(0, at(&[1]));
    scene.on_result("++");
    scene.publishes("1, 9");
    scene.write();
    scene.resolve(0, silence());
    scene.reload(DB, "{}");
    scene.publishes("1");
}

#[test]
fn what_may_not_be_published_is_no_target() {
    let mut scene = Scene::of_name(&[1]);
    scene.serve(V4, &["10.0.0.7"]);
    let answer = ["10.0.0.1", "127.0.0.1", "169.254.169.254", "10.0.0.7"];
    let ips = answer.iter().map(|ip| ip.parse().expect("an IP")).collect();
    scene.resolve(0, Answer::Addresses(ips));
    assert_eq!(scene.targets(), "1c");
    let refused = scene.events("AddressRefused");
    assert_eq!(refused.len(), 1, "all of an answer together: {refused:?}");
    assert!(refused[0].ends_with("; also refused: 127.0.0.1, 169.254.169.254"), "{refused:?}");
    scene.resolve(0, at(&[7]));
    assert_eq!(scene.targets(), "1c", "only refused ones are no answer");
    assert_eq!(scene.events("AddressRefused"), Vec::<String>::new(), "told once");
    // An address that turns out to lead back to the Service is gone at once.
    scene.serve(V4, &["10.0.0.1", "10.0.0.7"]);
    assert_eq!(scene.targets(), "");
}

#[test]
fn a_late_address_holds_up_an_empty_decision_for_a_while() {
    let mut scene = Scene::of_name(&[1, 2]);
    scene.resolve(0, at(&[1, 2]));
    scene.on_result("++");
    scene.resolve(0, at(&[1, 2, 3]));
    scene.on_result("-+ ");
    scene.publishes("2");
    scene.write();
    scene.on_result(" - ");
    assert_eq!(scene.members(), None, "the new one may be up");
    // Other untried ones come, and the hold ends all the same.
    scene.resolve(0, at(&[2, 4]));
    scene.resolve(0, at(&[2, 5]));
    scene.now += SECOND * 10;
    scene.database.reevaluate_if_due(&mut scene.freeze, scene.now);
    scene.publishes("none");
    scene.resolve(0, at(&[2, 6]));
    scene.publishes("none");
    scene.write();
    scene.on_result(" +");
    scene.publishes("6");
}

#[test]
fn a_new_address_is_tried_often_and_one_pass_is_enough() {
    let parse = |text: &str| {
        let options = Options { own_namespace: "prod".into(), ..Options::default() };
        parse("a.yaml", text, &options).expect("a good config").spec.databases[0].clone()
    };
    let database = parse(
        "databases: [{service: a, port: 1, addresses: [db.corp], \
         check: {tcp: {}, healthyThreshold: 3}}]",
    );
    let mut scene = Scene::of_name(&[1]);
    scene.database = DatabaseMonitor::new(&database, Recorder::default(), scene.now);
    scene.serve(V4, &[]);
    scene.sync(&[1]);
    scene.resolve(0, at(&[1]));
    scene.on_result("+");
    scene.resolve(0, at(&[1, 2]));
    let pause = |scene: &mut Scene, verdict: Verdict| {
        scene.now += SECOND;
        let (started, ended) = (scene.now, scene.now);
        let report = ProbeReport { key: 1, verdict, delay: None, started, ended };
        scene.database.on_result(1, &report, &mut scene.freeze)
    };
    let fail = || Verdict::Fail("connect: refused".into());
    assert_eq!(pause(&mut scene, fail()), Pause::Recheck);
    scene.now += SECOND * 60;
    assert_eq!(pause(&mut scene, fail()), Pause::Interval, "its first minute is over");
    assert_eq!(pause(&mut scene, Verdict::Pass), Pause::Interval);
    scene.publishes("1, 2");
}

#[test]
fn a_failing_target_has_its_name_asked_at_once_until_it_passes() {
    let mut scene = Scene::new("db.corp, 10.0.0.9", "{}");
    scene.database.take_resolver_commands();
    scene.sync(&[1, 9]);
    scene.resolve(0, at(&[1]));
    scene.on_result("++");
    assert_eq!(scene.database.take_resolver_commands(), []);
    let key = || NameKey { name: DB.into(), kind: NameKind::Host };
    scene.on_result("--");
    scene.on_result("--");
    assert_eq!(scene.database.take_resolver_commands(), [Command::Hurry(key())]);
    scene.on_result("++");
    assert_eq!(scene.database.take_resolver_commands(), [Command::Calm(key())]);
}

#[test]
fn the_families_of_the_service_decide_what_is_followed() {
    let mut scene = Scene::new(DB, "{}");
    let six: IpAddr = "2001:db8::1".parse().expect("an IP");
    let both = |scene: &mut Scene| {
        let aaaa = Answer::Addresses(vec![six]);
        scene.resolve_parts(0, vec![OutcomePart { service: None, a: at(&[1]), aaaa }]);
    };
    scene.serve(V4, &[]);
    scene.sync(&[]);
    both(&mut scene);
    assert_eq!(scene.targets(), "1c");
    scene.serve(Families::BOTH, &[]);
    assert_eq!(scene.targets(), "1c 2001:db8::1c");
    let wanted = scene.database.wanted_names();
    assert_eq!(wanted[0].1.families, Some(Families::BOTH));
}

#[test]
fn srv_priorities_are_tiers_and_another_port_is_left_out() {
    let mut scene = Scene::of_names("_db._tcp.corp.example", &[]);
    let parts = vec![
        part("a.corp.example", 1, 0, 1),
        part("b.corp.example", 1, 1, 2),
        part("c.corp.example", 99, 0, 3),
    ];
    scene.resolve_parts(0, parts);
    assert_eq!(scene.targets(), "1c 2c");
    let tiers: Vec<u32> = scene.database.targets.iter().map(|target| target.priority).collect();
    assert_eq!(tiers, [0, 1]);
    let names = scene.database.targets.iter().map(|target| target.origin.name.as_deref());
    assert_eq!(names.collect::<Vec<_>>(), [Some("a.corp.example"), Some("b.corp.example")]);
    scene.on_result("++");
    scene.publishes("1");
    scene.on_result("-+");
    scene.publishes("2");
}

#[test]
fn of_two_names_with_one_address_the_first_owns_it() {
    let mut scene = Scene::of_names("a.corp, {address: b.corp, priority: 1}", &[]);
    scene.resolve(0, at(&[1]));
    scene.resolve(1, at(&[1, 2]));
    assert_eq!(scene.targets(), "1c 2c");
    assert_eq!(scene.database.targets[0].priority, 0);
    scene.on_result("++");
    scene.publishes("1");
    // The second owns it without a gap when the first moves.
    scene.resolve(0, at(&[3]));
    assert_eq!(scene.targets(), "3c 1c 2c");
    assert_eq!(scene.database.targets[1].priority, 1);
    assert_eq!(scene.database.targets[1].origin.backing, Backing::Current);
}

#[test]
fn a_name_that_never_resolves_holds_nobody_up_and_is_told() {
    let mut scene = Scene::of_names("typo.corp, 10.0.0.9", &[9]);
    scene.on_result("+");
    for _ in 0..3 {
        scene.resolve(0, Answer::NoSuchName);
        let available = crate::monitor::database::DnsService::Available;
        scene.database.announce_unresolved(0, available, scene.now);
    }
    scene.publishes("9");
    assert_eq!(
        scene.events("NameUnresolved"),
        ["NameUnresolved: typo.corp does not resolve: no such name; it has no address yet"]
    );
}

#[test]
fn a_rotating_name_keeps_what_is_published_over_a_restart() {
    let mut scene = Scene::of_names("{address: db.corp, dns: {rotating: true}}", &[1, 2, 3]);
    scene.resolve(0, at(&[2]));
    assert_eq!(scene.targets(), "1c 2c 3c");
    scene.on_result("+++");
    scene.publishes("1, 2, 3");
    // A standby adopts what the other replica writes.
    scene.follow(&[1, 2, 3, 4]);
    assert_eq!(scene.targets(), "1c 2c 3c 4c");
    scene.on_result("++++");
    scene.publishes("1, 2, 3, 4");
}

#[test]
fn a_name_in_maintenance_takes_its_later_addresses_out_too() {
    let mut scene = Scene::of_names("db.corp, _db._tcp.corp.example", &[]);
    let of_service = |last| part("a.example", 1, 0, last);
    scene.resolve(0, at(&[1]));
    scene.resolve_parts(1, vec![of_service(3)]);
    scene.on_result("++");
    scene.publishes("1, 3");
    scene.annotate(Some("DB.corp.=disk swap"), None);
    scene.resolve(0, at(&[1, 2]));
    scene.on_result("+++");
    scene.publishes("3");
    scene.annotate(Some("_db._tcp.corp.example=move"), None);
    scene.publishes("1, 2");
    scene.resolve_parts(1, vec![of_service(4)]);
    scene.on_result("++++");
    scene.publishes("1, 2");
    scene.annotate(None, None);
    scene.publishes("1, 2, 4");
}

#[test]
fn tiers_follow_the_priorities_of_srv_records() {
    let mut scene = Scene::of_names("_db._tcp.corp.example", &[]);
    scene.resolve_parts(0, vec![part("a.corp.example", 1, 0, 1), part("b.corp.example", 1, 1, 2)]);
    scene.on_result("++");
    scene.publishes("1");
    scene.resolve_parts(0, vec![part("a.corp.example", 1, 1, 1), part("b.corp.example", 1, 0, 2)]);
    let tiers: Vec<u32> = scene.database.targets.iter().map(|target| target.priority).collect();
    assert_eq!(tiers, [1, 0]);
}

#[test]
fn a_name_is_hurried_until_all_of_its_failing_targets_pass() {
    let mut scene = Scene::of_name(&[1, 2]);
    scene.resolve(0, at(&[1, 2]));
    scene.on_result("++");
    scene.reload("{address: db.corp, check: {unhealthyThreshold: 9}}", "{}");
    scene.sync(&[1, 2]);
    scene.on_result("++");
    scene.database.take_resolver_commands();
    scene.on_result("--");
    scene.on_result("-+");
    let is_calm = |command: &Command| matches!(command, Command::Calm(_));
    assert!(!scene.database.take_resolver_commands().iter().any(is_calm));
    scene.on_result("+ ");
    assert!(scene.database.take_resolver_commands().iter().any(is_calm));
}

#[test]
fn a_refused_address_is_told_once_whatever_else_is_asked() {
    let mut scene = Scene::of_name(&[1]);
    let loopback = || Answer::Addresses(vec![[127, 0, 0, 1].into()]);
    for _ in 0..10 {
        let aaaa = Answer::Unknown(UnknownReason("no answer in 5s".into()));
        scene.resolve_parts(0, vec![OutcomePart { service: None, a: loopback(), aaaa }]);
        scene.resolve(0, at(&[1]));
    }
    assert_eq!(scene.events("AddressRefused").len(), 1);
}

#[test]
fn a_narrower_within_takes_an_address_away_and_is_told() {
    let mut scene = Scene::of_name(&[1]);
    scene.resolve(0, at(&[1]));
    scene.on_result("+");
    scene.publishes("1");
    scene.reload("{address: db.corp, dns: {within: [10.0.0.128/25]}}", "{}");
    scene.publishes("none");
    assert_eq!(scene.events("AddressRefused").len(), 1);
    let refused = &scene.database.config().refused_answers;
    assert_eq!(refused.iter().map(|it| it.ip.to_string()).collect::<Vec<_>>(), ["10.0.0.1"]);
}

#[test]
fn records_that_are_left_out_have_no_tier() {
    let mut scene = Scene::of_names("_db._tcp.corp.example", &[]);
    let parts = vec![part("a.corp.example", 99, 0, 1), part("b.corp.example", 1, 1, 2)];
    scene.resolve_parts(0, parts);
    assert_eq!(scene.database.targets[0].priority, 0);
    let names = scene.snapshot().names;
    assert_eq!(names[0].foreign_ports, ["a.corp.example: the database has no port 99"]);
}
