//! The files of `config/` against real servers. Only IPs and namespaces are replaced by those of
//! the sandbox.

use std::ffi::OsString;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use libtest_mimic::Trial;
use nix::sys::signal::Signal;

use crate::cluster::fixture::replace_in;
use crate::support::{
    Behavior, Daemon, Database, Namespace, addresses, binaries, black_hole, blocking, case::cases,
    daemon, eventually, shared, temp_dir,
};

mod failover;
mod mysql;
mod names;
mod roles;
mod servers;

pub(crate) fn cases() -> Vec<Trial> {
    let own = cases![
        mongodb_replica_set,
        postgres_patroni,
        mysql_singleton,
        legacy_import,
        test_and_prod,
        every_example_is_tried,
    ];
    let others = [failover::cases(), mysql::cases(), names::cases(), roles::cases()];
    own.into_iter().chain(others.into_iter().flatten()).collect()
}

/// Time for the failures in a row that the examples require, on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(180);

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config")
}

fn example(name: &str) -> String {
    let path = examples().join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Returns an example with its IPs and namespaces replaced. Panics if one of them is not in it.
fn localised(name: &str, namespaces: &[(&str, &Namespace)], ips: &[(&str, IpAddr)]) -> String {
    let mut yaml = example(name);
    let mut replace = |from: String, to: String| {
        yaml = replace_in(&yaml, &from, &to);
    };
    for (from, to) in namespaces {
        replace(format!("namespace: {from}\n"), format!("namespace: {}\n", to.name));
    }
    for (from, to) in ips {
        replace((*from).to_owned(), to.to_string());
    }
    yaml
}

async fn start(yaml: &str) -> Daemon {
    Daemon::start(yaml, &shared().kubeconfig(), &[]).await
}

/// Waits until a Service's Endpoints have exactly these addresses.
async fn expect_published(namespace: &Namespace, service: &str, ips: &[IpAddr]) {
    let mut wanted = ips.to_vec();
    wanted.sort();
    let wanted: Vec<String> = wanted.iter().map(ToString::to_string).collect();
    eventually(TIMEOUT, &format!("{service} has {wanted:?}"), async || {
        let there = namespace.endpoints(service).await.map(|_| ());
        let ips = namespace.endpoint_ips(service).await;
        if there.is_some() && ips == wanted { Ok(()) } else { Err(format!("{ips:?}")) }
    })
    .await;
}

/// Waits until a query through a Service has this answer. kube-proxy applies the Endpoints a little
/// later than they are written.
async fn answers(what: &str, wanted: &str, ask: impl AsyncFn() -> Result<String, String>) {
    eventually(TIMEOUT, &format!("{what} is {wanted}"), async || match ask().await {
        Ok(answer) if answer == wanted => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
}

/// Returns the reasons of the targets of this address, in the order of the databases.
async fn reasons(daemon: &Daemon, ip: IpAddr) -> Vec<String> {
    let status = daemon.status().await;
    let databases = status["databases"].as_array().cloned().unwrap_or_default();
    let targets = databases
        .iter()
        .flat_map(|database| database["targets"].as_array().cloned().unwrap_or_default());
    let targets = targets.filter(|target| target["address"] == ip.to_string());
    targets.map(|target| target["reason"].as_str().unwrap_or_default().to_owned()).collect()
}

async fn every_example_is_tried() {
    let mut there: Vec<String> = std::fs::read_dir(examples())
        .expect("config/")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(".yaml"))
        .collect();
    there.sort();
    let tried = [
        "aurora-readers.yaml",
        "etcd.yaml",
        "galera.yaml",
        "legacy-import.yaml",
        "mongodb-replica-set.yaml",
        "mongodb-roles.yaml",
        "mongodb-srv.yaml",
        "mysql-roles.yaml",
        "mysql-singleton.yaml",
        "names-and-ips.yaml",
        "postgres-patroni.yaml",
        "postgres-roles.yaml",
        "rds-failover.yaml",
        "redis-sentinel.yaml",
        "test-and-prod.yaml",
    ];
    assert_eq!(there, tried);
    for name in tried {
        let mut command = Command::new(daemon::PROGRAM);
        command.arg("validate").arg(examples().join(name));
        let output = blocking(move || command.output()).await.expect("the daemon's program");
        let warned = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && warned.is_empty(), "{name}: {warned}");
    }
}

async fn mysql_singleton() {
    let namespace = shared().namespace("singleton").await;
    namespace.create_service("mysql", &[("", 3306)]).await;
    let ip = addresses::allocate_one();
    let mut mysql = servers::mariadb(&[ip], 1).await;
    let daemon =
        start(&localised("mysql-singleton.yaml", &[("prod", &namespace)], &[("10.20.0.11", ip)]))
            .await;
    expect_published(&namespace, "mysql", &[ip]).await;
    let service = namespace.cluster_ip("mysql").await;
    answers("the server behind the Service", "1", async || {
        servers::ask_mariadb(service, "select @@server_id").await
    })
    .await;

    // The server must not notice the checks.
    let passed = async || {
        daemon.metric("external_endpoints_checks_total", &[("result", "pass")]).await.unwrap_or(0.0)
    };
    let aborted = mysql.counter("Aborted_connects").await;
    let connected = mysql.counter("Connections").await;
    let before = passed().await;
    eventually(TIMEOUT, "three more checks pass", async || passed().await >= before + 3.0).await;
    // Each query of this test is two connections. On a busy machine the kernel may complete one
    // handshake of a check, but not all.
    let connected = mysql.counter("Connections").await - connected;
    let aborted = mysql.counter("Aborted_connects").await - aborted;
    assert!(connected < 1 + 3 && aborted < 3, "{connected} connections, {aborted} of them aborted");

    mysql.server.kill().await;
    expect_published(&namespace, "mysql", &[]).await;
    mysql.server.restart();
    mysql.ready().await;
    expect_published(&namespace, "mysql", &[ip]).await;
}

async fn test_and_prod() {
    let (test, prod) = (shared().namespace("test").await, shared().namespace("prod").await);
    let [in_test, first, second] = addresses::allocate(3)[..] else { panic!("three addresses") };
    let mut of_test = servers::mariadb(&[in_test], 1).await;
    let _of_prod = servers::mariadb(&[first, second], 2).await;
    for namespace in [&test, &prod] {
        namespace.create_service("mysql", &[("mysql", 3306)]).await;
    }
    let ips = [("10.30.0.11", in_test), ("10.20.0.11", first), ("10.20.0.12", second)];
    let _daemon =
        start(&localised("test-and-prod.yaml", &[("test", &test), ("prod", &prod)], &ips)).await;
    expect_published(&test, "mysql", &[in_test]).await;
    expect_published(&prod, "mysql", &[first, second]).await;
    for (namespace, id) in [(&test, "1"), (&prod, "2")] {
        let service = namespace.cluster_ip("mysql").await;
        answers("the server behind the Service", id, async || {
            servers::ask_mariadb(service, "select @@server_id").await
        })
        .await;
    }
    blocking(move || black_hole::add(first)).await;
    of_test.server.kill().await;
    expect_published(&test, "mysql", &[]).await;
    expect_published(&prod, "mysql", &[second]).await;
    let service = prod.cluster_ip("mysql").await;
    answers("the server that is left", "2", async || {
        servers::ask_mariadb(service, "select @@server_id").await
    })
    .await;
}

/// Returns a folder with a `mongosh`: MongoDB's own if npm could install it, and otherwise a script
/// that sends the same query.
fn mongosh() -> PathBuf {
    let folder = temp_dir("bin");
    let script = match binaries::mongosh() {
        Some(shell) => {
            let path = std::env::var_os("PATH").unwrap_or_default();
            let node = std::env::split_paths(&path)
                .map(|folder| folder.join("node"))
                .find(|node| node.is_file());
            format!(
                "#!/bin/sh\nexec '{}' '{}' \"$@\"\n",
                node.expect("node").display(),
                shell.display()
            )
        }
        None => {
            let script = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("tests/stand-ins/mongosh/server-status.py");
            std::fs::read_to_string(script).expect("a script in the repository")
        }
    };
    let path = folder.join("mongosh");
    std::fs::write(&path, script).expect("a file in the sandbox");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("our own file");
    folder
}

async fn mongodb_replica_set() {
    const SERVICES: [&str; 2] = ["mongo", "mongo-by-shell"];
    let namespace = shared().namespace("mongodb").await;
    for service in SERVICES {
        namespace.create_headless_service(service, &[("", 27017)]).await;
    }
    let [zero, one, two] = addresses::allocate(3)[..] else { panic!("three addresses") };
    let _zero = servers::mongodb(zero).await;
    let mut server = servers::mongodb(one).await;
    let _two = servers::mongodb(two).await;
    let ips = [("10.20.2.10", zero), ("10.20.2.11", one), ("10.20.2.12", two)];
    let yaml = localised("mongodb-replica-set.yaml", &[("prod", &namespace)], &ips);
    // The daemon finds mongosh on its own PATH.
    let mut path = OsString::from(mongosh());
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new(daemon::PROGRAM);
    command.env("PATH", path).env("KUBECONFIG", shared().kubeconfig());
    let daemon = Daemon::start_command(command, &yaml, &[]).await;

    for service in SERVICES {
        let all = [(zero, "mongo-0"), (one, "mongo-1"), (two, "mongo-2")];
        named(&namespace, service, &all).await;
    }
    server.kill().await;
    for service in SERVICES {
        named(&namespace, service, &[(zero, "mongo-0"), (two, "mongo-2")]).await;
    }
    let [native, shell] = reasons(&daemon, one).await.try_into().expect("two databases");
    assert_eq!(native, "connect: refused");
    assert!(
        shell.starts_with("exec: exit status 1: ") && shell.contains("ECONNREFUSED"),
        "{shell}"
    );
    eventually(TIMEOUT, "the slice has the two names", async || {
        let slices = namespace.slices("mongo").await;
        let endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
        let mut hostnames: Vec<_> =
            endpoints.filter_map(|endpoint| endpoint.hostname.clone()).collect();
        hostnames.sort();
        if hostnames == ["mongo-0", "mongo-2"] { Ok(()) } else { Err(format!("{hostnames:?}")) }
    })
    .await;
}

/// Waits until the Service's Endpoints have exactly these addresses with these names.
async fn named(namespace: &Namespace, service: &str, wanted: &[(IpAddr, &str)]) {
    let mut wanted: Vec<(String, Option<String>)> =
        wanted.iter().map(|(ip, name)| (ip.to_string(), Some((*name).to_owned()))).collect();
    wanted.sort();
    eventually(TIMEOUT, &format!("{service} has {wanted:?}"), async || {
        let endpoints = namespace.endpoints(service).await.unwrap_or_default();
        let subsets = endpoints.subsets.into_iter().flatten();
        let addresses = subsets.flat_map(|subset| subset.addresses.into_iter().flatten());
        let mut there: Vec<_> = addresses.map(|address| (address.ip, address.hostname)).collect();
        there.sort();
        if there == wanted { Ok(()) } else { Err(format!("{there:?}")) }
    })
    .await;
}

async fn postgres_patroni() {
    let namespace = shared().namespace("patroni").await;
    namespace.create_service("orders", &[("", 5432)]).await;
    namespace.create_service("orders-replicas", &[("", 5432)]).await;
    let [first, second] = addresses::allocate(2)[..] else { panic!("two addresses") };
    let patroni = servers::patroni([first, second]).await;
    let ips = [("10.20.1.21", first), ("10.20.1.22", second)];
    let yaml = localised("postgres-patroni.yaml", &[("prod", &namespace)], &ips);
    let _daemon = start(&yaml).await;
    expect_published(&namespace, "orders", &[first]).await;
    expect_published(&namespace, "orders-replicas", &[second]).await;
    let (orders, replicas) =
        (namespace.cluster_ip("orders").await, namespace.cluster_ip("orders-replicas").await);
    let in_recovery = "select pg_is_in_recovery()";
    answers("the primary's recovery", "f", async || {
        servers::ask_postgres(orders, in_recovery).await
    })
    .await;
    answers("a replica's recovery", "t", async || {
        servers::ask_postgres(replicas, in_recovery).await
    })
    .await;

    patroni_logs_no_traceback(&patroni, &yaml).await;

    // Patroni hands over when it is terminated.
    patroni.nodes[0].signal(Signal::SIGTERM);
    expect_published(&namespace, "orders", &[second]).await;
    expect_published(&namespace, "orders-replicas", &[]).await;
    let who = "select host(inet_server_addr()) || ' ' || pg_is_in_recovery()";
    let wanted = format!("{second} false");
    answers("the new primary", &wanted, async || servers::ask_postgres(orders, who).await).await;
}

/// Checks a thousand times, half of them with the status that Patroni returns. Patroni logs a
/// traceback for each connection that is closed while it writes.
async fn patroni_logs_no_traceback(patroni: &servers::Patroni, yaml: &str) {
    let traceless = || {
        patroni
            .nodes
            .iter()
            .for_each(|node| assert!(!node.log().contains("Traceback"), "{}", node.log()))
    };
    traceless();
    let often = replace_in(yaml, "interval: 2s", "interval: 50ms");
    let by_body = replace_in(&often, "path: /primary}", "path: /primary, expectedBody: running}");
    for yaml in [often, by_body] {
        let daemon = Daemon::start(&yaml, &shared().kubeconfig(), &["--dry-run"]).await;
        eventually(TIMEOUT, "a thousand tries", async || {
            let tried = daemon.metric("external_endpoints_checks_total", &[]).await.unwrap_or(0.0);
            if tried >= 1000.0 { Ok(()) } else { Err(format!("{tried} tries")) }
        })
        .await;
        // The end of a daemon closes the connections of its tries, so no try may be left by then.
        fs::write(daemon.config(), replace_in(&yaml, "interval: 50ms", "interval: 1h"))
            .expect("a file in the sandbox");
        eventually(TIMEOUT, "no more tries", async || {
            let tried = async || daemon.metric("external_endpoints_checks_total", &[]).await;
            let before = tried().await;
            tokio::time::sleep(Duration::from_secs(1)).await;
            before == tried().await
        })
        .await;
        traceless();
    }
}

async fn legacy_import() {
    let namespace = shared().namespace("legacy").await;
    for (service, port) in [("billing", 3306), ("crm", 5432), ("sessions", 6379)] {
        namespace.create_service(service, &[("", port)]).await;
    }
    namespace.create_service("search", &[("http", 9200), ("admin", 9990)]).await;
    let [billing, gone, crm, first, second, old, moved] = addresses::allocate(7)[..] else {
        panic!("seven addresses")
    };
    // Endpoints written by hand, which are wrong since the database moved.
    namespace.create_endpoints("crm", &[addresses::allocate_one()], &[("", 5432)]).await;
    let _mysql = servers::mariadb(&[billing], 1).await;
    let _postgres = servers::postgres(crm).await;
    let (_first, stuck) = (servers::redis(first).await, servers::redis(second).await);
    let page = |ip, port| {
        Database::start_with(ip, port, Behavior::Http(200, r#"{"status":"ok"}"#.to_owned()))
    };
    let (mut page, _moved) = (page(old, 9990).await, page(moved, 9991).await);

    let ips = [
        ("10.1.0.5", billing),
        ("10.1.0.6", gone),
        ("10.1.0.17", crm),
        ("10.1.0.30", first),
        ("10.1.0.31", second),
        ("10.1.0.40", old),
        ("10.1.0.41", moved),
    ];
    let _daemon = start(&localised("legacy-import.yaml", &[("legacy", &namespace)], &ips)).await;
    expect_published(&namespace, "billing", &[billing]).await;
    expect_published(&namespace, "crm", &[crm]).await;
    expect_published(&namespace, "sessions", &[first, second]).await;
    expect_published(&namespace, "search", &[old, moved]).await;
    let service = namespace.cluster_ip("crm").await;
    answers("the adopted database", "1", async || servers::ask_postgres(service, "select 1").await)
        .await;

    // Its kernel still accepts connections, but Redis does not answer any more.
    stuck.signal(Signal::SIGSTOP);
    page.set_behavior(Behavior::Http(200, r#"{"status":"red"}"#.to_owned())).await;
    expect_published(&namespace, "sessions", &[first]).await;
    expect_published(&namespace, "search", &[moved]).await;
}
