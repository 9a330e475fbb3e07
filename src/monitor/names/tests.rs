//! The names of several databases, in a monitor whose turns the test makes.

use std::time::Duration;

use super::*;
use crate::clock;
use crate::config::{NameKind, Options, Spec, parse};
use crate::freeze::Rules;
use crate::health::{State, Verdict};
use crate::limits::Limits;
use crate::monitor::{ProbeReport, ServiceFacts, build};
use crate::notice::{Receiver, channel};
use crate::plan::{Member, Members};
use crate::resolve::{self, Answer, OutcomePart, UnknownReason};
use crate::schedule::Next;

struct Scene {
    monitor: Monitor,
    commands: tokio::sync::mpsc::UnboundedReceiver<Command>,
    notices: Receiver,
    now: Instant,
}

impl Scene {
    fn new(databases: &[(&str, &str)]) -> Self {
        let (resolver, commands) = resolve::channel();
        let (recorder, notices) = channel();
        let limits = Limits { max_in_flight: 8, max_execs: 8 };
        let runtime = tokio::runtime::Handle::current();
        let runtimes = (runtime.clone(), runtime);
        let rules = Rules::default();
        let (_, monitor) = build(&spec(databases), limits, rules, &recorder, resolver, runtimes)
            .expect("an epoll instance");
        Self { monitor, commands, notices, now: clock::now() }
    }

    fn reload(&mut self, databases: &[(&str, &str)]) {
        self.monitor.reload(&spec(databases), self.now);
    }

    /// Applies a lookup of a name, a second later.
    fn resolve(&mut self, name: &str, a: Answer) {
        self.now += Duration::from_secs(1);
        let outcome = LookupOutcome {
            families: Families::BOTH,
            parts: vec![OutcomePart { service: None, a, aaaa: Answer::NoRecords }],
            ttl: Some(5),
            aliases: Vec::new(),
            skipped: Vec::new(),
            server: None,
            at: self.now,
            next_at: self.now,
        };
        self.monitor.apply_lookup(&key(name), &outcome, self.now);
    }

    /// Returns the commands to the resolver since the last call, sorted.
    fn commands(&mut self) -> Vec<String> {
        let commands = std::iter::from_fn(|| self.commands.try_recv().ok());
        let mut texts: Vec<String> = commands
            .map(|command| match command {
                Command::Insert(key, wanted) => {
                    let families = wanted.families.map_or("?".into(), |it| {
                        format!("{}{}", u8::from(it.ipv4), u8::from(it.ipv6))
                    });
                    format!("insert {} {families} {:?}", key.name, wanted.refresh)
                }
                Command::Remove(key) => format!("remove {}", key.name),
                Command::Hurry(key) => format!("hurry {}", key.name),
                Command::Calm(key) => format!("calm {}", key.name),
            })
            .collect();
        texts.sort();
        texts
    }

    fn serve(&mut self, service: &str, families: Families) {
        let id = DatabaseId { namespace: "prod".into(), service: service.into() };
        let facts = ServiceFacts { families: Some(families), cluster_ips: Vec::new() };
        self.monitor.set_service_facts(&id, facts, self.now);
    }

    fn sync_all(&mut self) {
        let none = Members::default();
        let Monitor { databases, freeze, .. } = &mut self.monitor;
        for database in databases {
            database.set_initial_members(&none, &none, freeze, self.now);
        }
    }

    fn addresses(&self, index: usize) -> String {
        let config = self.monitor.databases[index].config();
        let ips = config.addresses.iter().map(|address| address.ip.to_string());
        ips.collect::<Vec<_>>().join(" ")
    }

    fn reasons(&mut self) -> Vec<Reason> {
        std::iter::from_fn(|| self.notices.notices.try_recv().ok()).map(|it| it.reason).collect()
    }
}

fn spec(databases: &[(&str, &str)]) -> Spec {
    let entry = |(service, addresses): &(&str, &str)| {
        format!("{{service: {service}, port: 1, addresses: [{addresses}], check: {{tcp: {{}}}}}}")
    };
    let text =
        format!("databases: [{}]", databases.iter().map(entry).collect::<Vec<_>>().join(", "));
    let options = Options { own_namespace: "prod".into(), ..Options::default() };
    parse("a.yaml", &text, &options).expect("a good config").spec
}

fn key(name: &str) -> NameKey {
    NameKey { name: name.into(), kind: NameKind::Host }
}

fn at(last: u8) -> Answer {
    Answer::Addresses(vec![[10, 0, 0, last].into()])
}

#[tokio::test]
async fn entries_of_several_databases_share_a_lookup() {
    let mut scene = Scene::new(&[
        ("a", "db.corp"),
        ("b", "{address: DB.corp., dns: {refresh: 9s}}"),
        ("c", "10.0.0.9"),
    ]);
    assert_eq!(scene.commands(), ["insert db.corp ? 9s"]);
    scene.resolve("db.corp", at(1));
    assert_eq!([0, 1, 2].map(|index| scene.addresses(index)), ["10.0.0.1", "10.0.0.1", "10.0.0.9"]);
    let (v4, v6) = (Families { ipv4: true, ipv6: false }, Families { ipv4: false, ipv6: true });
    scene.serve("a", v4);
    assert_eq!(scene.commands(), ["insert db.corp 10 9s"]);
    scene.serve("b", v6);
    assert_eq!(scene.commands(), ["insert db.corp 11 9s"]);
    assert_eq!(scene.addresses(1), "10.0.0.1", "it stays until there is another");
}

#[tokio::test]
async fn a_reload_asks_for_new_names_and_uses_known_answers() {
    let mut scene = Scene::new(&[("a", "a.corp"), ("b", "b.corp")]);
    scene.commands();
    scene.resolve("a.corp", at(1));
    scene.reload(&[("c", "a.corp, c.corp"), ("a", "a.corp")]);
    assert_eq!(scene.commands(), ["insert c.corp ? 60s", "remove b.corp"]);
    assert_eq!([0, 1].map(|index| scene.addresses(index)), ["10.0.0.1", "10.0.0.1"]);
    // The outcome of a lookup that was under way is dropped.
    scene.resolve("b.corp", at(2));
    assert_eq!([0, 1].map(|index| scene.addresses(index)), ["10.0.0.1", "10.0.0.1"]);
}

#[tokio::test]
async fn an_address_that_an_answer_brings_is_tried_at_once() {
    let many: Vec<String> = (10..30).map(|last| format!("10.0.0.{last}")).collect();
    let many = many.join(", ");
    let mut scene = Scene::new(&[("a", "db.corp"), ("b", &many)]);
    while let Next::Start { .. } = scene.monitor.schedule.next(scene.now + Duration::from_secs(2)) {
    }
    let before = clock::now();
    scene.resolve("db.corp", at(1));
    let next = scene.monitor.schedule.next(scene.now + Duration::from_secs(5));
    let Next::Start { key, due } = next else { panic!("{next:?}") };
    assert!((before..=clock::now()).contains(&due), "{:?} late", due - before);
    assert_eq!(scene.monitor.scheduled[key].location, Some((0, 0)));
    // It leaves the schedule with the answer that no longer has it.
    scene.sync_all();
    scene.resolve("db.corp", at(2));
    assert_eq!(scene.addresses(0), "10.0.0.2");
    assert_eq!(scene.monitor.scheduled[key].location, None);
    assert_eq!(scene.monitor.inconclusive.targets(), 21);
}

#[tokio::test]
async fn an_outage_of_dns_is_told_once_and_not_for_each_name() {
    let names: Vec<String> = (0..10).map(|number| format!("n{number}.corp")).collect();
    let mut scene = Scene::new(&[("a", &names.join(", "))]);
    let silence = || Answer::Unknown(UnknownReason("no answer in 5s".into()));
    for round in 0..30 {
        for name in &names {
            scene.resolve(name, silence());
        }
        assert_eq!(scene.reasons(), if round == 0 { vec![Reason::DnsUnavailable] } else { vec![] });
    }
    for name in &names {
        scene.resolve(name, at(1));
    }
    let told = scene.reasons();
    assert_eq!(told, [Reason::DnsAvailable]);
}

#[tokio::test]
async fn a_failure_that_a_guessed_name_may_cause_takes_nothing_out() {
    let check = "{tcp: {tls: {}}, unhealthyThreshold: 1}";
    let addresses =
        format!("{{address: a.corp, check: {check}}}, {{address: b.corp, check: {check}}}");
    let mut scene = Scene::new(&[("a", &addresses)]);
    let published: Members =
        [Member { ip: [10, 0, 0, 1].into(), hostname: None }].into_iter().collect();
    scene.serve("a", Families { ipv4: true, ipv6: false });
    let Monitor { databases, freeze, .. } = &mut scene.monitor;
    databases[0].set_initial_members(&published, &published, freeze, scene.now);
    scene.monitor.after_change(0);
    for name in ["a.corp", "b.corp"] {
        scene.resolve(name, Answer::Unknown(UnknownReason("no answer in 5s".into())));
    }
    let key = scene.monitor.databases[0].scheduled.keys[0];
    let fail = |scene: &mut Scene, reason: &str| {
        let verdict = Verdict::Fail(reason.into());
        let (started, ended) = (scene.now, scene.now);
        scene.monitor.on_result(&ProbeReport { key, verdict, delay: None, started, ended });
        scene.monitor.databases[0].snapshot(&scene.monitor.schedule).targets[0].health.state()
    };
    assert_eq!(fail(&mut scene, "tls: the certificate is for other names"), State::Up);
    assert_eq!(fail(&mut scene, "connect: connection refused"), State::Down);
}
