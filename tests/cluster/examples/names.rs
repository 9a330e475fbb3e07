//! The examples with names, against a name server that moves them.

use std::net::IpAddr;

use libtest_mimic::Trial;

use super::{answers, expect_published, localised, named, servers};
use crate::cluster::fixture::replace_in;
use crate::cluster::names::fixture::{name_server, start};
use crate::support::name_server::Reply;
use crate::support::{Namespace, addresses, case::cases, shared};

pub(super) fn cases() -> Vec<Trial> {
    cases![in examples: rds_failover, aurora_readers, names_and_ips, mongodb_srv]
}

/// Returns an example with its namespace and the network of its databases replaced.
fn localised_within(name: &str, namespace: &Namespace, within: &str, ips: &[IpAddr]) -> String {
    let networks: Vec<String> = ips.iter().map(|ip| format!("{ip}/32")).collect();
    let yaml = localised(name, &[("prod", namespace)], &[]);
    replace_in(&yaml, within, &networks.join(", "))
}

/// The TTL of RDS' and Aurora's names, in seconds.
const TTL: u32 = 5;

fn at(ip: IpAddr) -> Reply {
    Reply::Addresses(vec![ip], TTL)
}

async fn rds_failover() {
    let namespace = shared().namespace("rds").await;
    namespace.create_service("orders", &[("", 5432)]).await;
    let [first, second] = addresses::allocate(2)[..] else { panic!("two addresses") };
    let mut primary = servers::postgres(first).await;
    let _standby = servers::postgres(second).await;
    let dns = name_server().await;
    let instance = "ip-10-20-0-11.eu-west-1.compute.internal";
    dns.set("orders.abc123.eu-west-1.rds.amazonaws.com", Reply::Alias(instance.to_owned(), TTL));
    dns.set(instance, at(first));
    let yaml = localised_within("rds-failover.yaml", &namespace, "10.20.0.0/16", &[first, second]);
    let _daemon = start(&dns, &yaml).await;
    expect_published(&namespace, "orders", &[first]).await;
    let service = namespace.cluster_ip("orders").await;
    let who = "select host(inet_server_addr())";
    let primary_is = async |ip: IpAddr| {
        let what = "the server behind the Service";
        answers(what, &ip.to_string(), async || servers::ask_postgres(service, who).await).await;
    };
    primary_is(first).await;
    // RDS moves the name while the old primary still answers.
    dns.set(instance, at(second));
    expect_published(&namespace, "orders", &[second]).await;
    primary_is(second).await;
    // The zone is lost for a while, and nothing changes. Then the name moves back.
    dns.set(instance, Reply::NoSuchName);
    primary_is(second).await;
    dns.set(instance, at(first));
    expect_published(&namespace, "orders", &[first]).await;
    // It dies before DNS moves.
    primary.kill().await;
    expect_published(&namespace, "orders", &[]).await;
    dns.set(instance, at(second));
    expect_published(&namespace, "orders", &[second]).await;
}

async fn aurora_readers() {
    let namespace = shared().namespace("aurora").await;
    namespace.create_service("shop-ro", &[("", 3306)]).await;
    let [writer, one, two] = addresses::allocate(3)[..] else { panic!("three addresses") };
    let _writer = servers::mariadb(&[writer], 1).await;
    let mut first = servers::mariadb(&[one], 2).await;
    let mut second = servers::mariadb(&[two], 3).await;
    let dns = name_server().await;
    let readers = Reply::Turns(vec![vec![one], vec![two]], TTL);
    dns.set("shop.cluster-ro-abc123.eu-west-1.rds.amazonaws.com", readers);
    dns.set("shop.cluster-abc123.eu-west-1.rds.amazonaws.com", at(writer));
    let all = [writer, one, two];
    let yaml = localised_within("aurora-readers.yaml", &namespace, "10.20.0.0/16", &all);
    let _daemon = start(&dns, &yaml).await;
    expect_published(&namespace, "shop-ro", &[one, two]).await;
    first.server.kill().await;
    expect_published(&namespace, "shop-ro", &[two]).await;
    second.server.kill().await;
    expect_published(&namespace, "shop-ro", &[writer]).await;
    let service = namespace.cluster_ip("shop-ro").await;
    answers("the server behind the Service", "1", async || {
        servers::ask_mariadb(service, "select @@server_id").await
    })
    .await;
}

async fn names_and_ips() {
    let namespace = shared().namespace("mixed").await;
    namespace.create_headless_service("pg", &[("", 5432)]).await;
    let [one, two, three, elsewhere] = addresses::allocate(4)[..] else { panic!("addresses") };
    let _one = servers::postgres(one).await;
    let mut second = servers::postgres(two).await;
    let _three = servers::postgres(three).await;
    let _elsewhere = servers::postgres(elsewhere).await;
    let dns = name_server().await;
    dns.set("pg-1.corp.example", Reply::Addresses(vec![one], 1));
    dns.set("pg-2.corp.example", Reply::Addresses(vec![two], 1));
    let of_names = [one, two, elsewhere];
    let yaml = localised_within("names-and-ips.yaml", &namespace, "10.20.1.0/24", &of_names);
    let yaml = replace_in(&yaml, "10.20.9.9", &three.to_string());
    let _daemon = start(&dns, &yaml).await;
    named(&namespace, "pg", &[(one, "pg-1"), (two, "pg-2"), (three, "pg-3")]).await;
    second.kill().await;
    named(&namespace, "pg", &[(one, "pg-1"), (three, "pg-3")]).await;
    dns.set("pg-1.corp.example", Reply::Addresses(vec![elsewhere], 1));
    named(&namespace, "pg", &[(elsewhere, "pg-1"), (three, "pg-3")]).await;
}

async fn mongodb_srv() {
    let namespace = shared().namespace("mongo-srv").await;
    namespace.create_service("mongo", &[("", 27017)]).await;
    let [a, b, c] = addresses::allocate(3)[..] else { panic!("three addresses") };
    let mut first = servers::mongodb(a).await;
    let mut second = servers::mongodb(b).await;
    let _third = servers::mongodb(c).await;
    let dns = name_server().await;
    let host = |letter: &str| format!("mongo-{letter}.mongo.corp.example");
    let record = |priority: u16, letter: &str| (priority, 0, 27017, host(letter));
    let records = vec![record(10, "a"), record(10, "b"), record(20, "c")];
    dns.set("_mongodb._tcp.mongo.corp.example", Reply::Services(records, TTL));
    for (letter, ip) in [("a", a), ("b", b), ("c", c)] {
        dns.set(&host(letter), at(ip));
    }
    let yaml = localised_within("mongodb-srv.yaml", &namespace, "10.20.2.0/24", &[a, b, c]);
    let _daemon = start(&dns, &yaml).await;
    expect_published(&namespace, "mongo", &[a, b]).await;
    first.kill().await;
    expect_published(&namespace, "mongo", &[b]).await;
    second.kill().await;
    expect_published(&namespace, "mongo", &[c]).await;
}
