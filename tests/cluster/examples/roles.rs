//! The examples whose checks ask servers for their role, against real servers and a failover.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use super::servers::{self, Server};
use super::{TIMEOUT, expect_published, localised, start};
use crate::cluster::fixture::replace_in;
use crate::support::{addresses, case::cases, eventually, shared, temp_dir};

pub(super) fn cases() -> Vec<Trial> {
    cases![redis_sentinel, postgres_roles]
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
