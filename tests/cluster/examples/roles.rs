//! The examples whose checks ask servers for their role, against real servers and a failover.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use super::servers::{self, Server};
use super::{TIMEOUT, expect_published, localised, reasons, start};
use crate::cluster::fixture::replace_in;
use crate::support::{Behavior, Database, addresses, case::cases, eventually, shared, temp_dir};

pub(super) fn cases() -> Vec<Trial> {
    cases![redis_sentinel, postgres_roles, mongodb_roles, etcd]
}

async fn redis_sentinel() {
    let namespace = shared().namespace("sentinel").await;
    namespace.create_service("sessions", &[("", 6379)]).await;
    namespace.create_service("sessions-replicas", &[("", 6379)]).await;
    let [first, second] = addresses::allocate(2)[..] else { panic!("two addresses") };
    // On one machine a connection may come from any address, so each server says its own.
    let own = [first, second].map(|ip| ip.to_string());
    let common = ["--requirepass", PASSWORD, "--masterauth", PASSWORD, "--replica-announce-ip"];
    let mut primary = servers::redis_with(first, &[&common[..], &[&own[0]]].concat()).await;
    let replica_of = format!("{first} 6379");
    let replica = [&common[..], &[&own[1], "--replicaof", &replica_of]].concat();
    let _replica = servers::redis_with(second, &replica).await;
    let (sentinel, file) = (sentinel(first), temp_dir("password").join("password"));
    eventually(TIMEOUT, "Sentinel knows the replica", async || {
        let log = sentinel.log();
        if log.contains(&format!("+slave slave {second}:")) { Ok(()) } else { Err(log) }
    })
    .await;
    std::fs::write(&file, format!("{PASSWORD}\n")).expect("a file");

    let ips = [("10.20.4.11", first), ("10.20.4.12", second)];
    let yaml = localised("redis-sentinel.yaml", &[("prod", &namespace)], &ips);
    let path = file.display().to_string();
    let yaml = replace_in(&yaml, "/etc/redis/password", &path);
    let daemon = start(&yaml).await;
    expect_published(&namespace, "sessions", &[first]).await;
    expect_published(&namespace, "sessions-replicas", &[second]).await;

    primary.kill().await;
    expect_published(&namespace, "sessions", &[second]).await;
    expect_published(&namespace, "sessions-replicas", &[]).await;

    // It comes back as a primary, until Sentinel makes it a replica of the new one.
    primary.restart();
    expect_published(&namespace, "sessions-replicas", &[first]).await;
    expect_published(&namespace, "sessions", &[second]).await;
    let log = daemon.lines().join("\n");
    let pages = format!("{log}{}{}", daemon.status().await, daemon.metrics().await);
    assert!(!pages.contains(PASSWORD), "{pages}");
}

const PASSWORD: &str = "a-password-that-no-log-shows";

async fn postgres_roles() {
    let namespace = shared().namespace("roles").await;
    namespace.create_service("orders", &[("", 5432)]).await;
    namespace.create_service("orders-replicas", &[("", 5432)]).await;
    let [first, second] = addresses::allocate(2)[..] else { panic!("two addresses") };
    let patroni = servers::patroni([first, second]).await;
    let role = format!("create role checker login password '{PASSWORD}'");
    servers::ask_postgres(first, &role).await.expect("a role");
    let file = temp_dir("password").join("password");
    std::fs::write(&file, format!("{PASSWORD}\n")).expect("a file");

    let ips = [("10.20.5.11", first), ("10.20.5.12", second)];
    let yaml = localised("postgres-roles.yaml", &[("prod", &namespace)], &ips);
    let yaml = replace_in(&yaml, "/etc/checker/password", &file.display().to_string());
    let daemon = start(&yaml).await;
    expect_published(&namespace, "orders", &[first]).await;
    expect_published(&namespace, "orders-replicas", &[second]).await;

    // Patroni hands over when it is terminated.
    patroni.nodes[0].signal(Signal::SIGTERM);
    expect_published(&namespace, "orders", &[second]).await;
    expect_published(&namespace, "orders-replicas", &[]).await;
    let pages = format!("{}{}", daemon.lines().join("\n"), daemon.status().await);
    assert!(!pages.contains(PASSWORD), "{pages}");
}

// The members of this replica set only say what a mongod would: none can be had from a registry.
async fn mongodb_roles() {
    let namespace = shared().namespace("mongodb-roles").await;
    namespace.create_service("catalog", &[("", 27017)]).await;
    namespace.create_service("catalog-replicas", &[("", 27017)]).await;
    let [first, second, third] = addresses::allocate(3)[..] else { panic!("three addresses") };
    let start = |ip, state: &[u8]| Database::start_with(ip, 27017, hello(state));
    let mut primary = start(first, PRIMARY).await;
    let mut secondary = start(second, SECONDARY).await;
    let _arbiter = start(third, ARBITER).await;

    let ips = [("10.20.6.11", first), ("10.20.6.12", second), ("10.20.6.13", third)];
    let daemon = self::start(&localised("mongodb-roles.yaml", &[("prod", &namespace)], &ips)).await;
    expect_published(&namespace, "catalog", &[first]).await;
    expect_published(&namespace, "catalog-replicas", &[second]).await;

    primary.stop().await;
    secondary.set_behavior(hello(PRIMARY)).await;
    expect_published(&namespace, "catalog", &[second]).await;
    expect_published(&namespace, "catalog-replicas", &[]).await;
    // It is back, and takes no reads before it has what it has missed.
    let mut primary = start(first, RECOVERING).await;
    eventually(TIMEOUT, "the recovering member is told apart", async || {
        let said = reasons(&daemon, first).await;
        let recovering = "role: neither primary nor secondary";
        if said.iter().all(|reason| reason == recovering) { Ok(()) } else { Err(said.join(" ")) }
    })
    .await;
    primary.set_behavior(hello(SECONDARY)).await;
    expect_published(&namespace, "catalog-replicas", &[first]).await;
    expect_published(&namespace, "catalog", &[second]).await;
}

const PRIMARY: &[u8] = b"\x08ismaster\0\x01\x08secondary\0\0";
const SECONDARY: &[u8] = b"\x08ismaster\0\0\x08secondary\0\x01";
const ARBITER: &[u8] = b"\x08ismaster\0\0\x08arbiterOnly\0\x01";
const RECOVERING: &[u8] = b"\x08ismaster\0\0\x08secondary\0\0";

/// Returns a server that answers `hello` with these fields and the times of an idle set.
fn hello(state: &[u8]) -> Behavior {
    let now = 1_700_000_000_000_i64;
    let date = [b"\x09lastWriteDate\0", &(now - 9_000).to_le_bytes()[..]].concat();
    let inner = [&(date.len() as i32 + 5).to_le_bytes()[..], &date, &[0]].concat();
    let times = [b"\x09localTime\0", &now.to_le_bytes()[..], b"\x03lastWrite\0", &inner].concat();
    let fields = [state, &times, b"\x01ok\0\0\0\0\0\0\0\xf0\x3f"].concat();
    let document = [&(fields.len() as i32 + 5).to_le_bytes()[..], &fields, &[0]].concat();
    let header = [document.len() as i32 + 21, 7, 1, 2013, 0];
    let header = header.iter().flat_map(|word| word.to_le_bytes());
    Behavior::Reply(header.chain([0]).chain(document).collect())
}

async fn etcd() {
    let namespace = shared().namespace("etcd").await;
    namespace.create_service("etcd", &[("", 2379)]).await;
    let [first, second, gone] = addresses::allocate(3)[..] else { panic!("three addresses") };
    let _first = servers::etcd(first).await;
    let mut stopped = servers::etcd(second).await;
    let ips = [("10.20.7.11", first), ("10.20.7.12", second), ("10.20.7.13", gone)];
    let daemon = start(&localised("etcd.yaml", &[("prod", &namespace)], &ips)).await;
    expect_published(&namespace, "etcd", &[first, second]).await;

    // Its kernel still accepts connections.
    stopped.signal(Signal::SIGSTOP);
    expect_published(&namespace, "etcd", &[first]).await;
    assert_eq!(reasons(&daemon, second).await, ["grpc: no answer in 1s"]);
    stopped.signal(Signal::SIGCONT);
    expect_published(&namespace, "etcd", &[first, second]).await;
    stopped.kill().await;
    expect_published(&namespace, "etcd", &[first]).await;
}

/// Starts a Sentinel that watches the primary.
fn sentinel(primary: IpAddr) -> Server {
    let folder = temp_dir("sentinel");
    let port = addresses::allocate_port();
    let config = sentinel_config(&folder, primary, port);
    Server::start("redis-sentinel", &folder, move || {
        let mut command = Command::new("redis-server");
        command.arg(&config).arg("--sentinel");
        command
    })
}

/// Writes the config, which Sentinel itself changes.
fn sentinel_config(folder: &Path, primary: IpAddr, port: u16) -> PathBuf {
    let path = folder.join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor sessions {primary} 6379 1\n\
         sentinel auth-pass sessions {PASSWORD}\n\
         sentinel down-after-milliseconds sessions 2000\n\
         sentinel failover-timeout sessions 10000\n",
        folder.display()
    );
    std::fs::write(&path, text).expect("a file");
    path
}
