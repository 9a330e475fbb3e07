//! One question to one or several servers.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr as _;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use super::name_server::{Mismatch, NameServer, Reply, Transport};
use crate::clock;
use crate::resolve::counts::Counts;
use crate::resolve::exchange::{Answer, Answered, Client, Failure, FailureKind};
use crate::resolve::servers::Servers;
use crate::resolve::wire::{Question, RecordKind, Records, ServerFailure, WireName};

const NAME: &str = "db.corp.example";

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn at(last: u8) -> Reply {
    Reply::Addresses(vec![ip(last)], 60)
}

fn records(last: u8, ttl: u32) -> Answer {
    Answer::Records { records: Records::Addresses(vec![ip(last)]), ttl }
}

struct Asked {
    answered: Answered,
    took: Duration,
    counts: Counts,
    queries: usize,
}

async fn ask_with(servers: &Arc<Servers>, spare_sockets: usize) -> Asked {
    let counts = Counts::default();
    let client = Client::new(spare_sockets, counts.clone());
    let name = WireName::from_str(NAME).expect("a name");
    let start = clock::now();
    let queries = AtomicUsize::new(0);
    let answered = client.resolve(servers, Question { name, kind: RecordKind::A }, &queries).await;
    Asked { answered, took: start.elapsed(), counts, queries: queries.into_inner() }
}

fn servers(servers: &[&NameServer]) -> Arc<Servers> {
    Arc::new(Servers::new(servers.iter().map(|server| server.address).collect()))
}

async fn ask(list: &[&NameServer]) -> (Answer, Duration) {
    let Asked { answered, took, .. } = ask_with(&servers(list), 32).await;
    (answered.answer, took)
}

/// Asks a server with this reply.
async fn reply(reply: Reply) -> (Answer, NameServer) {
    let server = NameServer::start().await;
    server.set(NAME, reply);
    (ask(&[&server]).await.0, server)
}

/// Returns the kind of a failure, or the answer.
fn failure(answer: Answer) -> Result<FailureKind, Answer> {
    match answer {
        Answer::Unknown(Failure { kind, .. }) => Ok(kind),
        other => Err(other),
    }
}

fn failed(failure: ServerFailure) -> Result<FailureKind, Answer> {
    Ok(FailureKind::Server(failure))
}

#[tokio::test]
async fn each_reply_of_a_server_has_its_answer() {
    let rows = [
        (at(1), records(1, 60)),
        (Reply::Addresses(vec![ip(1)], u32::MAX), records(1, i32::MAX as u32)),
        (Reply::addresses(["fd00::1"], 5), Answer::NoRecords),
        (Reply::NoRecords, Answer::NoRecords),
        (Reply::NoSuchName, Answer::NoSuchName),
        (Reply::NoSuchNameWithSoa(900), Answer::NoSuchName),
        (Reply::WithoutEdns(Box::new(at(2))), records(2, 60)),
        (Reply::After(Mismatch::Id, Box::new(at(3))), records(3, 60)),
        (Reply::After(Mismatch::Question, Box::new(at(3))), records(3, 60)),
        (Reply::After(Mismatch::Port, Box::new(at(3))), records(3, 60)),
        (Reply::Capitals(Box::new(at(3))), records(3, 60)),
        (Reply::Truncated(Box::new(at(4))), records(4, 60)),
        (at(5).late(Duration::from_millis(100)), records(5, 60)),
    ];
    for (given, expected) in rows {
        let about = format!("{given:?}");
        assert_eq!(reply(given).await.0, expected, "{about}");
    }
}

#[tokio::test]
async fn each_failure_has_its_text() {
    let rows = [
        (Reply::Code(2), ServerFailure::ServFail, "SERVFAIL from "),
        (Reply::Code(5), ServerFailure::Refused, "REFUSED from "),
        (Reply::Code(9), ServerFailure::Code(9), "response code 9 from "),
    ];
    for (given, kind, text) in rows {
        let (answer, server) = reply(given).await;
        let Answer::Unknown(failure) = answer else { panic!("{answer:?}") };
        assert_eq!(failure.kind, FailureKind::Server(kind));
        assert_eq!(failure.to_string(), format!("{text}{}", server.address));
    }
}

#[tokio::test]
async fn a_truncated_reply_is_asked_for_over_tcp() {
    let ip = |n: u16| IpAddr::from([10, 1, (n >> 8) as u8, n as u8]);
    let many: Vec<IpAddr> = (0..500_u16).map(ip).collect();
    let (answer, server) = reply(Reply::Addresses(many.clone(), 60)).await;
    assert_eq!(answer, Answer::Records { records: Records::Addresses(many), ttl: 60 });
    let transports: Vec<Transport> =
        server.take_queries().iter().map(|query| query.transport).collect();
    assert_eq!(transports, [Transport::Udp, Transport::Tcp]);
    let (answer, _) = reply(Reply::TruncatedWithoutTcp).await;
    assert_eq!(failure(answer), Ok(FailureKind::TruncatedOnly));
}

#[tokio::test]
async fn aliases_are_followed_and_the_smallest_ttl_counts() {
    let server = NameServer::start().await;
    server.set("writer.example", Reply::Alias("host.example".into(), 300));
    server.set("host.example", at(7));
    let alias = || "writer.example".to_owned();
    for (first, ttl) in [(Reply::Alias(alias(), 1), 1), (Reply::BareAlias(alias(), 30), 30)] {
        server.set(NAME, first);
        let Answered { answer, aliases, .. } = ask_with(&servers(&[&server]), 0).await.answered;
        assert_eq!(answer, records(7, ttl));
        let aliases: Vec<String> = aliases.iter().map(ToString::to_string).collect();
        assert_eq!(aliases, ["writer.example", "host.example"]);
    }
}

/// Makes a chain of this many aliases from the name to an address.
fn set_chain(server: &NameServer, length: usize, alias: fn(String, u32) -> Reply) {
    let name = |n: usize| if n == 0 { NAME.to_owned() } else { format!("a{n}.example") };
    (0..length).for_each(|n| server.set(&name(n), alias(name(n + 1), 60)));
    server.set(&name(length), at(9));
}

#[tokio::test]
async fn eight_aliases_are_followed_and_no_more() {
    let server = NameServer::start().await;
    for alias in [Reply::Alias, Reply::BareAlias] {
        set_chain(&server, 8, alias);
        assert_eq!(ask(&[&server]).await.0, records(9, 60));
        set_chain(&server, 9, alias);
        let answer = ask(&[&server]).await.0;
        assert_eq!(failure(answer), failed(ServerFailure::TooManyAliases));
        server.set(NAME, alias("b.example".into(), 1));
        server.set("b.example", alias(NAME.into(), 1));
        let answer = ask(&[&server]).await.0;
        assert_eq!(failure(answer), failed(ServerFailure::TooManyAliases));
    }
    assert!(server.total() <= 40);
}

#[tokio::test]
async fn a_failing_server_does_not_hide_the_next_ones_answer() {
    for code in [2, 5] {
        let (bad, good) = (NameServer::start().await, NameServer::start().await);
        bad.set(NAME, Reply::Code(code));
        good.set(NAME, at(1).late(Duration::from_millis(20)));
        let (answer, took) = ask(&[&bad, &good]).await;
        assert_eq!(answer, records(1, 60));
        assert!(took < Duration::from_millis(450), "{took:?}");
    }
}

#[tokio::test]
async fn of_servers_that_all_fail_the_first_ones_failure_counts() {
    let (a, b) = (NameServer::start().await, NameServer::start().await);
    a.set(NAME, Reply::Code(5).late(Duration::from_millis(50)));
    b.set(NAME, Reply::Code(2));
    assert_eq!(failure(ask(&[&a, &b]).await.0), failed(ServerFailure::Refused));
}

#[tokio::test]
async fn a_dead_server_costs_half_a_second_once() {
    for spare_sockets in [0, 32] {
        let (dead, good) = (NameServer::start().await, NameServer::start().await);
        dead.set(NAME, Reply::Silence);
        good.set(NAME, at(1));
        let servers = servers(&[&dead, &good]);
        let Asked { answered, took, .. } = ask_with(&servers, spare_sockets).await;
        assert_eq!((answered.answer, answered.server), (records(1, 60), Some(good.address)));
        assert!(took >= Duration::from_millis(500), "{took:?}");
        dead.take_queries();
        assert_eq!(ask_with(&servers, spare_sockets).await.answered.answer, records(1, 60));
        assert_eq!(dead.take_queries(), []);
    }
}

#[tokio::test]
async fn a_server_that_fails_for_one_zone_keeps_its_place() {
    let (first, second) = (NameServer::start().await, NameServer::start().await);
    let servers = servers(&[&first, &second]);
    for reply in [Reply::Code(2), Reply::Code(5), Reply::TruncatedWithoutTcp] {
        first.set(NAME, reply);
        second.take_queries();
        assert_eq!(ask_with(&servers, 0).await.answered.answer, Answer::NoSuchName);
        assert_eq!(second.take_queries().len(), 1, "it is asked after the first");
        first.set(NAME, at(1));
        assert_eq!(ask_with(&servers, 0).await.answered.answer, records(1, 60));
        assert_eq!(second.take_queries(), []);
    }
}

#[tokio::test]
async fn everything_that_is_sent_is_counted() {
    let server = NameServer::start().await;
    let servers = servers(&[&server]);
    server.set("host.example", at(1));
    let rows = [
        (at(1), 1),
        (Reply::BareAlias("host.example".into(), 1), 2),
        (Reply::Truncated(Box::new(at(1))), 2),
        (Reply::WithoutEdns(Box::new(at(1))), 2),
        (at(1).late(Duration::from_millis(700)), 2),
    ];
    for (reply, queries) in rows {
        let about = format!("{reply:?}");
        server.set(NAME, reply);
        assert_eq!(ask_with(&servers, 32).await.queries, queries, "{about}");
    }
}

#[tokio::test]
async fn a_late_reply_counts_while_there_are_spare_sockets() {
    // Without one, the first server is asked once more, 1.5 s after the question.
    for (spare_sockets, expected) in [(32, 800..1400), (0, 2300..4000)] {
        let (late, dead) = (NameServer::start().await, NameServer::start().await);
        late.set(NAME, at(1).late(Duration::from_millis(800)));
        dead.set(NAME, Reply::Silence);
        let Asked { answered, took, .. } = ask_with(&servers(&[&late, &dead]), spare_sockets).await;
        assert_eq!(answered.answer, records(1, 60));
        assert!(expected.contains(&took.as_millis()), "{spare_sockets}: {took:?}");
    }
}

#[tokio::test]
async fn silence_ends_after_five_seconds_and_four_tries() {
    let (answer, server) = reply(Reply::Silence).await;
    let Answer::Unknown(failure) = answer else { panic!("{answer:?}") };
    assert_eq!(failure.to_string(), format!("no answer in 5s from {}", server.address));
    assert_eq!(server.total(), 4);
}

#[tokio::test]
async fn a_closed_port_is_known_at_once() {
    let mut server = NameServer::start().await;
    server.close().await;
    let (answer, took) = ask(&[&server]).await;
    let refused = std::io::ErrorKind::ConnectionRefused;
    assert_eq!(failure(answer), Ok(FailureKind::Unreachable(refused)));
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(failure(ask(&[]).await.0), Ok(FailureKind::NoServer));
}

#[tokio::test]
async fn garbage_is_no_answer_and_ends_at_once() {
    // The header of a reply with our ID whose records are not there, or point in circles.
    let question = [&[2, b'd', b'b', 4][..], b"corp", &[7], b"example", &[0, 0, 1, 0, 1]].concat();
    assert_eq!(question.len(), 21);
    let circle = [0xc0, 33, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 1, 2, 3, 4];
    let header = [0x81, 0x80, 0, 1, 0xff, 0xff, 0, 0, 0, 0];
    for tail in [
        [&header[..], &question].concat(),
        [&header[..], &question, &circle].concat(),
        [&header[..], &question, &[0xff; 1000]].concat(),
    ] {
        let server = NameServer::start().await;
        server.set(NAME, Reply::Garbage(tail));
        let (answer, took) = ask(&[&server]).await;
        assert_eq!(failure(answer), failed(ServerFailure::Garbage));
        assert!(took < Duration::from_millis(450), "{took:?}");
    }
}

#[tokio::test]
async fn what_is_no_reply_is_counted_and_does_not_last() {
    let server = NameServer::start().await;
    server.set(NAME, Reply::After(Mismatch::Id, Box::new(at(1))));
    let Asked { counts, .. } = ask_with(&servers(&[&server]), 0).await;
    assert_eq!(counts.unrelated(), 1);
    assert!(counts.by_result().any(|it| it == ("answer", 1)));

    // A server that floods the socket of a question with other messages.
    let flood = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address: SocketAddr = flood.local_addr().expect("an address");
    let servers = Arc::new(Servers::new(vec![address]));
    let serve = async {
        let mut buffer = [0; 512];
        let (_, client) = flood.recv_from(&mut buffer).await.expect("a query");
        loop {
            let _ = flood.send_to(&[0; 100], client).await;
            tokio::task::yield_now().await;
        }
    };
    let asked = tokio::select! {
        asked = ask_with(&servers, 0) => asked,
        () = serve => unreachable!("it never ends"),
    };
    let Answer::Unknown(failure) = asked.answered.answer else { panic!("no answer is in a flood") };
    let text = format!("too many replies to other questions from {address}");
    assert_eq!(failure.to_string(), text);
    assert!(asked.counts.by_result().any(|it| it == ("garbage", 1)));
    assert!(asked.took < Duration::from_secs(2), "{:?}", asked.took);
}
