//! Lookups of hosts and services.

use std::net::IpAddr;
use std::time::Duration;

use super::name_server::{NameServer, Reply};
use crate::config::NameKind;
use crate::names::Families;
use crate::resolve::{
    Answer, LookupOutcome, NameKey, OutcomePart, ServerSource, UnknownReason, look_up_all,
};

const SERVICE: &str = "_mysql._tcp.db.corp.example";

async fn look_up(
    server: &NameServer,
    name: &str,
    kind: NameKind,
    families: Families,
) -> LookupOutcome {
    let source = ServerSource::Fixed(vec![server.address]);
    let names = [(NameKey { name: name.into(), kind }, families)];
    look_up_all(&source, names).await.into_values().next().expect("an outcome")
}

fn addresses(ips: &[&str]) -> Answer {
    Answer::Addresses(ips.iter().map(|ip| ip.parse::<IpAddr>().expect("an IP")).collect())
}

#[tokio::test]
async fn both_families_are_asked_at_the_same_time() {
    let server = NameServer::start().await;
    let late = Duration::from_millis(300);
    let a = Reply::addresses(["10.0.0.1"], 30).late(late);
    let aaaa = Reply::addresses(["fd00::1"], 20).late(late);
    server.set("db.corp.example", Reply::ByFamily(Box::new(a), Box::new(aaaa)));
    let outcome = look_up(&server, "db.corp.example", NameKind::Host, Families::BOTH).await;
    let part =
        OutcomePart { service: None, a: addresses(&["10.0.0.1"]), aaaa: addresses(&["fd00::1"]) };
    assert_eq!((outcome.parts, outcome.ttl), (vec![part], Some(20)));
    let queries = server.take_queries();
    assert_eq!(queries.len(), 2);
    assert!(queries[1].at - queries[0].at < late, "{queries:?}");
}

#[tokio::test]
async fn a_family_that_is_not_followed_is_not_asked() {
    let server = NameServer::start().await;
    server.set("db.corp.example", Reply::addresses(["10.0.0.1", "fd00::1"], 30));
    let families = Families { ipv4: false, ipv6: true };
    let outcome = look_up(&server, "db.corp.example", NameKind::Host, families).await;
    assert_eq!(outcome.parts[0].a, Answer::NotAsked);
    assert_eq!(outcome.parts[0].aaaa, addresses(&["fd00::1"]));
    assert_eq!(server.total(), 1);
}

#[tokio::test]
async fn one_family_may_fail_alone() {
    let server = NameServer::start().await;
    let a = Reply::Alias("host.example".into(), 7);
    server.set("host.example", Reply::addresses(["10.0.0.1"], 30));
    server.set("db.corp.example", Reply::ByFamily(Box::new(a), Box::new(Reply::Code(2))));
    let outcome = look_up(&server, "db.corp.example", NameKind::Host, Families::BOTH).await;
    let reason = format!("SERVFAIL from {}", server.address);
    assert_eq!(outcome.parts[0].aaaa, Answer::Unknown(UnknownReason(reason.into())));
    assert_eq!(outcome.parts[0].a, addresses(&["10.0.0.1"]));
    assert_eq!(outcome.server, Some(server.address));
    assert_eq!((outcome.ttl, outcome.aliases), (Some(7), vec!["host.example".to_owned()]));
}

fn service(priority: u16, port: u16, target: &str) -> (u16, u16, u16, String) {
    (priority, 9, port, target.to_owned())
}

#[tokio::test]
async fn each_target_of_a_service_is_asked_once() {
    let server = NameServer::start().await;
    let records = vec![
        service(20, 3307, "B.corp.example"),
        service(10, 3306, "a.corp.example"),
        service(10, 3307, "a.corp.example"),
        service(10, 3306, "a.evil.example"),
    ];
    server.set(SERVICE, Reply::Services(records, 60));
    server.set("a.corp.example", Reply::addresses(["10.0.0.1"], 50));
    server.set("b.corp.example", Reply::NoSuchName);
    let outcome = look_up(&server, SERVICE, NameKind::Service, Families::BOTH).await;
    let parts: Vec<_> = outcome
        .parts
        .iter()
        .map(|part| {
            let service = part.service.as_ref().expect("a service");
            (service.rank, &*service.host, service.port, service.weight, part.a.clone())
        })
        .collect();
    let a = addresses(&["10.0.0.1"]);
    assert_eq!(
        parts,
        [
            (0, "a.corp.example", 3306, 9, a.clone()),
            (0, "a.corp.example", 3307, 9, a),
            (1, "b.corp.example", 3307, 9, Answer::NoSuchName),
        ]
    );
    assert_eq!(outcome.ttl, Some(50));
    assert_eq!(outcome.skipped, ["a.evil.example is not below corp.example"]);
    assert_eq!((server.count("a.corp.example"), server.count("a.evil.example")), (2, 0));
}

#[tokio::test]
async fn a_service_without_targets_is_empty_or_unknown() {
    let server = NameServer::start().await;
    let rows = [
        (Reply::Services(vec![service(0, 0, ".")], 60), Answer::NoRecords),
        (Reply::Services(vec![service(0, 1, "x.evil.example")], 60), Answer::NoRecords),
        (Reply::NoRecords, Answer::NoRecords),
        (Reply::NoSuchName, Answer::NoSuchName),
    ];
    let families = Families { ipv4: true, ipv6: false };
    for (reply, answer) in rows {
        server.set(SERVICE, reply);
        let outcome = look_up(&server, SERVICE, NameKind::Service, families).await;
        let part = OutcomePart { service: None, a: answer, aaaa: Answer::NotAsked };
        assert_eq!((outcome.parts, outcome.ttl), (vec![part], None));
    }
    server.set(SERVICE, Reply::Code(5));
    let outcome = look_up(&server, SERVICE, NameKind::Service, families).await;
    assert!(matches!(outcome.parts[0].a, Answer::Unknown(_)), "{outcome:?}");
}

#[tokio::test]
async fn many_dead_targets_of_a_service_end_after_5_s() {
    let server = NameServer::start().await;
    let records = (0..12).map(|n| service(0, 3306, &format!("h{n}.corp.example"))).collect();
    server.set(SERVICE, Reply::Services(records, 60));
    (0..12).for_each(|n| server.set(&format!("h{n}.corp.example"), Reply::Silence));
    let start = crate::clock::now();
    let families = Families { ipv4: true, ipv6: false };
    let outcome = look_up(&server, SERVICE, NameKind::Service, families).await;
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    assert_eq!(outcome.parts.len(), 12);
    assert!(outcome.parts.iter().all(|part| matches!(part.a, Answer::Unknown(_))));
}

#[tokio::test]
async fn the_addresses_of_an_outcome_are_limited() {
    let server = NameServer::start().await;
    let many = (0..1000_u16).map(|n| IpAddr::from([10, 1, (n >> 8) as u8, n as u8]));
    let many = Reply::Addresses(many.collect(), 60);
    server.set("db.corp.example", many.clone());
    let outcome = look_up(&server, "db.corp.example", NameKind::Host, Families::BOTH).await;
    let Answer::Addresses(ips) = &outcome.parts[0].a else { panic!("{outcome:?}") };
    assert_eq!((ips.len(), ips[255]), (256, IpAddr::from([10, 1, 0, 255])));
    assert_eq!(outcome.skipped, ["744 more addresses of db.corp.example"]);
    let hosts: Vec<String> = (0..4).map(|n| format!("h{n}.corp.example")).collect();
    let records = hosts.iter().map(|host| service(0, 3306, host)).collect();
    server.set(SERVICE, Reply::Services(records, 60));
    hosts.iter().for_each(|host| server.set(host, many.clone()));
    let outcome = look_up(&server, SERVICE, NameKind::Service, Families::BOTH).await;
    let count = |answer: &Answer| matches!(answer, Answer::Addresses(ips) if ips.len() == 64);
    assert!(outcome.parts.iter().all(|part| count(&part.a)), "{outcome:?}");
}
