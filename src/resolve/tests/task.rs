//! The task: when names are asked, and what is delivered.
//!
//! Tests with a server need real time. Tests without one pause it: lookups then end at once.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::time::timeout;

use super::name_server::{NameServer, Reply};
use crate::clock;
use crate::config::NameKind;
use crate::limits::DnsLimits;
use crate::names::Families;
use crate::resolve::{
    self, Answer, Command, Handle, LookupOutcome, NameKey, ResolverTask, ServerSource, Settings,
    Wanted,
};

const NAME: &str = "db.corp.example";
const IPV4: Families = Families { ipv4: true, ipv6: false };

struct Resolver {
    handle: Handle,
    outcomes: UnboundedReceiver<(NameKey, LookupOutcome)>,
    task: ResolverTask,
}

impl Resolver {
    fn start(servers: ServerSource, qps: u32) -> Self {
        let limits = DnsLimits { max_open_questions: 64, spare_sockets: 32 };
        Self::start_within(servers, qps, limits)
    }

    fn start_within(servers: ServerSource, qps: u32, limits: DnsLimits) -> Self {
        let (handle, commands) = resolve::channel();
        let (outcomes_in, outcomes) = mpsc::unbounded_channel();
        let qps = NonZeroU32::new(qps).expect("some questions");
        let settings = Settings { servers, qps, limits };
        let task = resolve::start(commands, settings, move |key, outcome| {
            let _ = outcomes_in.send((key, outcome));
            std::future::ready(())
        });
        Self { handle, outcomes, task }
    }

    fn with(server: &NameServer) -> Self {
        Self::start(ServerSource::Fixed(vec![server.address]), 500)
    }

    fn insert(&self, name: &str, families: Option<Families>) {
        let refresh = Duration::from_secs(60);
        self.handle.send(Command::Insert(key(name), Wanted { families, refresh }));
    }

    async fn next(&mut self) -> LookupOutcome {
        let next = timeout(Duration::from_secs(30), self.outcomes.recv()).await;
        next.expect("an outcome in 30 s").expect("a running resolver").1
    }

    /// Returns the time until the next outcome, in tenths of a second, rounded down.
    async fn tenths_until_next(&mut self, since: Instant) -> u128 {
        (self.next().await.at - since).as_millis() / 100
    }
}

fn key(name: &str) -> NameKey {
    NameKey { name: name.into(), kind: NameKind::Host }
}

fn is_unknown(outcome: &LookupOutcome) -> bool {
    matches!(outcome.parts[0].a, Answer::Unknown(_))
}

fn reason(outcome: &LookupOutcome) -> String {
    match &outcome.parts[0].a {
        Answer::Unknown(reason) => reason.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_name_is_asked_again_after_its_ttl() {
    let server = NameServer::start().await;
    server.set(NAME, Reply::addresses(["10.0.0.1"], 1));
    let mut resolver = Resolver::with(&server);
    resolver.insert(NAME, Some(Families::BOTH));
    let first = resolver.next().await;
    assert_eq!(first.next_at - first.at, Duration::from_secs(1));
    server.set(NAME, Reply::addresses(["10.0.0.2"], 0));
    let second = resolver.next().await;
    assert_eq!((second.at - first.at).as_millis() / 100, 10);
    assert_eq!(second.ttl, Some(0));
    assert_eq!(second.next_at - second.at, Duration::from_secs(1));
    assert_eq!(server.total(), 4);
}

#[tokio::test]
async fn a_name_without_an_answer_is_asked_less_and_less() {
    let server = NameServer::start().await;
    let mut resolver = Resolver::with(&server);
    resolver.insert(NAME, Some(IPV4));
    let mut last = resolver.next().await.at;
    for tenths in [10, 20] {
        let outcome = resolver.next().await;
        assert_eq!((outcome.at - last).as_millis() / 100, tenths);
        last = outcome.at;
    }
    server.set(NAME, Reply::addresses(["10.0.0.1"], 1));
    resolver.handle.send(Command::Hurry(key(NAME)));
    assert_eq!(resolver.next().await.ttl, Some(1));
}

#[tokio::test]
async fn a_failing_target_hurries_its_name_until_it_is_calm() {
    let server = NameServer::start().await;
    server.set(NAME, Reply::addresses(["10.0.0.1"], 60));
    let mut resolver = Resolver::with(&server);
    resolver.insert(NAME, Some(IPV4));
    let first = resolver.next().await;
    assert!(first.next_at - first.at >= Duration::from_secs(60));
    let hurried_at = clock::now();
    resolver.handle.send(Command::Hurry(key(NAME)));
    resolver.handle.send(Command::Hurry(key(NAME)));
    assert_eq!(resolver.tenths_until_next(hurried_at).await, 0);
    assert_eq!(resolver.tenths_until_next(hurried_at).await, 10);
    resolver.handle.send(Command::Calm(key(NAME)));
    let quiet = timeout(Duration::from_millis(1500), resolver.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    assert_eq!(server.total(), 3);
}

#[tokio::test]
async fn calm_does_not_delay_a_new_family() {
    let server = NameServer::start().await;
    server.set(NAME, Reply::addresses(["10.0.0.1"], 60));
    let mut resolver = Resolver::with(&server);
    resolver.insert(NAME, Some(IPV4));
    resolver.handle.send(Command::Hurry(key(NAME)));
    resolver.next().await;
    resolver.insert(NAME, Some(Families::BOTH));
    resolver.handle.send(Command::Calm(key(NAME)));
    let start = clock::now();
    let outcome = resolver.next().await;
    assert_eq!(outcome.families, Families::BOTH);
    assert!(outcome.at - start < Duration::from_millis(500), "{:?}", outcome.at - start);
}

#[tokio::test]
async fn another_answer_ends_the_hurry() {
    let server = NameServer::start().await;
    server.set(NAME, Reply::addresses(["10.0.0.1"], 60));
    let mut resolver = Resolver::with(&server);
    resolver.insert(NAME, Some(IPV4));
    resolver.next().await;
    server.set(NAME, Reply::Code(2));
    resolver.handle.send(Command::Hurry(key(NAME)));
    let unknown = resolver.next().await;
    assert!(unknown.next_at - unknown.at <= Duration::from_secs(1));
    server.set(NAME, Reply::addresses(["10.0.0.2"], 60));
    let other = resolver.next().await;
    assert!(other.next_at - other.at >= Duration::from_secs(60), "{other:?}");
}

#[tokio::test]
async fn unknown_families_are_waited_for_then_both_are_asked() {
    let server = NameServer::start().await;
    server.set(NAME, Reply::addresses(["10.0.0.1"], 60));
    let mut resolver = Resolver::with(&server);
    let start = clock::now();
    resolver.insert(NAME, None);
    let outcome = resolver.next().await;
    assert_eq!(outcome.families, Families::BOTH);
    assert_eq!((outcome.at - start).as_millis() / 100, 10);

    resolver.insert("other.example", None);
    resolver.insert("other.example", Some(IPV4));
    let start = clock::now();
    assert_eq!(resolver.tenths_until_next(start).await, 0);
    // The same again asks nothing, and what is known is not forgotten.
    resolver.insert("other.example", Some(IPV4));
    resolver.insert("other.example", None);
    resolver.insert("other.example", Some(Families::BOTH));
    assert_eq!(resolver.tenths_until_next(start).await, 0);
    assert_eq!(server.count("other.example"), 3);
}

#[tokio::test]
async fn a_family_that_is_new_during_a_lookup_is_asked_after_it() {
    let server = NameServer::start().await;
    server.set(NAME, Reply::addresses(["10.0.0.1"], 60).late(Duration::from_millis(200)));
    let mut resolver = Resolver::with(&server);
    resolver.insert(NAME, Some(IPV4));
    while server.total() == 0 {
        tokio::task::yield_now().await;
    }
    resolver.insert(NAME, Some(Families::BOTH));
    assert_eq!(resolver.next().await.families, IPV4);
    assert_eq!(resolver.next().await.families, Families::BOTH);
}

#[tokio::test]
async fn a_name_that_is_removed_is_asked_no_more() {
    let server = NameServer::start().await;
    server.set(NAME, Reply::addresses(["10.0.0.1"], 0).late(Duration::from_millis(200)));
    server.set("other.example", Reply::addresses(["10.0.0.2"], 0));
    let mut resolver = Resolver::with(&server);
    resolver.insert(NAME, Some(IPV4));
    while server.total() == 0 {
        tokio::task::yield_now().await;
    }
    resolver.handle.send(Command::Remove(key(NAME)));
    resolver.insert("other.example", Some(IPV4));
    for _ in 0..2 {
        let (key, _) = resolver.outcomes.recv().await.expect("an outcome");
        assert_eq!(&*key.name, "other.example");
    }
    assert_eq!(server.count(NAME), 1);
}

#[tokio::test]
async fn a_panic_in_one_lookup_is_its_outcome() {
    let server = NameServer::start().await;
    server.set(NAME, Reply::addresses(["10.0.0.2"], 0));
    let mut resolver = Resolver::with(&server);
    resolver.insert(resolve::lookup::PANICKING_NAME, Some(IPV4));
    let outcome = resolver.next().await;
    assert_eq!(reason(&outcome), "a fault of the daemon; the log says where");
    resolver.insert(NAME, Some(IPV4));
    assert!(!is_unknown(&resolver.next().await));
}

fn write_servers(path: &Path, server: SocketAddr) {
    // The port of DNS is not free for tests, so that the file can only name dead servers.
    std::fs::write(path, format!("nameserver {}\n", server.ip())).expect("a file");
}

#[tokio::test]
async fn a_new_server_in_resolv_conf_starts_the_backoff_over() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("resolv.conf");
    let mut resolver = Resolver::start(ServerSource::ResolvConf(path.clone()), 500);
    resolver.insert(NAME, Some(IPV4));
    assert_eq!(reason(&resolver.next().await), "no DNS server is known");
    write_servers(&path, "127.0.0.77:53".parse().expect("an address"));
    let refused = loop {
        let outcome = resolver.next().await;
        if reason(&outcome) != "no DNS server is known" {
            break outcome;
        }
    };
    assert!(reason(&refused).contains("127.0.0.77"), "{refused:?}");
    assert_eq!(refused.next_at - refused.at, Duration::from_secs(1));
}

fn without_servers(qps: u32) -> Resolver {
    Resolver::start(ServerSource::Fixed(Vec::new()), qps)
}

#[tokio::test(start_paused = true)]
async fn questions_a_second_are_limited() {
    let mut resolver = without_servers(100);
    (0..300).for_each(|n| resolver.insert(&format!("n{n}.example"), Some(Families::BOTH)));
    let start = clock::now();
    for _ in 0..300 {
        resolver.next().await;
    }
    // 600 questions, of which 100 may be asked at once.
    let took = clock::now() - start;
    assert!(took >= Duration::from_millis(4900) && took < Duration::from_secs(6), "{took:?}");
    assert_eq!(resolver.task.counts().late(), 0);
}

#[tokio::test]
async fn a_name_whose_turn_does_not_come_has_an_outcome_after_12_s() {
    let server = NameServer::start().await;
    server.fail_all(Reply::Silence);
    let limits = DnsLimits { max_open_questions: 1, spare_sockets: 0 };
    let servers = ServerSource::Fixed(vec![server.address]);
    let mut resolver = Resolver::start_within(servers, 500, limits);
    let start = clock::now();
    (0..9).for_each(|n| resolver.insert(&format!("n{n}.example"), Some(IPV4)));
    let mut not_asked = 0;
    for _ in 0..9 {
        let outcome = resolver.next().await;
        assert!(outcome.at - start <= Duration::from_secs(13), "{outcome:?}");
        not_asked += usize::from(reason(&outcome).starts_with("not asked yet: "));
    }
    // Two lookups have ended in this time.
    assert_eq!(not_asked, 7);
}

#[tokio::test(start_paused = true)]
async fn names_that_are_asked_late_are_counted() {
    let mut resolver = without_servers(1);
    (0..10).for_each(|n| resolver.insert(&format!("n{n}.example"), Some(IPV4)));
    // The first lookups are never late: they have no time at which they were due.
    for _ in 0..10 {
        resolver.next().await;
    }
    assert_eq!(resolver.task.counts().late(), 0);
    for _ in 0..20 {
        resolver.next().await;
    }
    assert!(resolver.task.counts().late() > 0);
}

#[tokio::test(start_paused = true)]
async fn a_hurry_ends_after_a_minute() {
    let mut resolver = without_servers(100);
    resolver.insert(NAME, Some(IPV4));
    let start = resolver.next().await.at;
    resolver.handle.send(Command::Hurry(key(NAME)));
    let outcome = loop {
        let outcome = resolver.next().await;
        if outcome.next_at - outcome.at > Duration::from_secs(1) {
            break outcome;
        }
    };
    let lasted = (outcome.at - start).as_secs();
    assert!((60..=62).contains(&lasted), "{lasted}");
}
