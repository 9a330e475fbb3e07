//! Failovers of pairs whose checks ask for the role: how fast both Services follow, and that a
//! Service for writes never has two addresses.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::servers::{self, Server, ask_postgres, postgres, postgres_programs, run};
use super::{TIMEOUT, expect_published, start};
use crate::cluster::events::expect_event_on;
use crate::cluster::fixture::{History, wait_for_checks};
use crate::support::sandbox::as_ordinary_user;
use crate::support::{Daemon, Namespace, addresses, case::cases, eventually, shared, temp_dir};

pub(super) fn cases() -> Vec<Trial> {
    cases![
        a_postgres_pair_fails_over_also_through_pgbouncer,
        a_redis_pair_swaps_its_roles,
        a_rotated_password_takes_nothing_out,
        a_role_that_nobody_has_is_explained,
    ]
}

/// The interval of the checks. Both Services are right after two of them.
const INTERVAL: Duration = Duration::from_secs(5);

/// A Service for writes and one for reads, with the same addresses.
struct Pair {
    writer: &'static str,
    reader: &'static str,
    history: History,
}

impl Pair {
    async fn new(namespace: &Namespace, names: [&'static str; 2], port: u16) -> Pair {
        for name in names {
            namespace.create_service(name, &[("", port)]).await;
        }
        let [writer, reader] = names;
        Pair { writer, reader, history: History::start(namespace, writer).await }
    }

    /// Waits until both Services have these addresses.
    async fn expect(&self, namespace: &Namespace, writers: &[IpAddr], readers: &[IpAddr]) {
        expect_published(namespace, self.writer, writers).await;
        expect_published(namespace, self.reader, readers).await;
    }

    /// Checks that the Service for writes never had two addresses.
    fn assert_one_writer(&self) {
        let steps = self.history.steps();
        let most = steps.iter().flatten().map(Vec::len).max();
        assert_eq!(most, Some(1), "{}: {steps:?}", self.writer);
    }

    /// Returns the entries of the config.
    fn config(&self, ips: [IpAddr; 2], port: u16, kind: &str, more: &str) -> String {
        let [first, second] = ips;
        let entry = |service: &str, role: &str, policy: &str| {
            format!(
                "- service: {service}
  port: {port}
  addresses: [{first}, {second}]
  check: {{{kind}: {{role: {role}{more}}}}}
  policy: {policy}
"
            )
        };
        entry(self.writer, "primary", "{exactlyOne: true}") + &entry(self.reader, "replica", "{}")
    }
}

fn config(namespace: &Namespace, databases: &str) -> String {
    format!(
        "defaults:
  namespace: {}
  check: {{interval: {}s, timeout: 3s, healthyThreshold: 1, unhealthyThreshold: 1}}
databases:
{databases}",
        namespace.name,
        INTERVAL.as_secs()
    )
}

async fn a_postgres_pair_fails_over_also_through_pgbouncer() {
    let namespace = shared().namespace("failover").await;
    let direct = Pair::new(&namespace, ["orders", "orders-replicas"], 5432).await;
    let pooled = Pair::new(&namespace, ["pooled", "pooled-replicas"], 6432).await;
    let [first, second] = addresses::allocate(2)[..] else { panic!("two addresses") };
    let mut old = postgres(first).await;
    let role = format!("create role checker login password '{PASSWORD}'");
    ask_postgres(first, &role).await.expect("a role");
    let _new = standby(first, second).await;
    let _poolers = [pgbouncer(first).await, pgbouncer(second).await];
    let login = format!(", user: checker, password: {PASSWORD}");
    let ips = [first, second];
    let databases = direct.config(ips, 5432, "postgres", &login)
        + &pooled.config(ips, 6432, "postgres", &login);
    let daemon = start(&config(&namespace, &databases)).await;
    for pair in [&direct, &pooled] {
        pair.expect(&namespace, &[first], &[second]).await;
    }
    assert_role(&daemon, first, "primary").await;
    assert_role(&daemon, second, "replica").await;

    old.kill().await;
    assert_eq!(ask_postgres(second, "select pg_promote()").await.as_deref(), Ok("t"));
    let promoted_at = Instant::now();
    for pair in [&direct, &pooled] {
        pair.expect(&namespace, &[second], &[]).await;
    }
    assert!(promoted_at.elapsed() <= 2 * INTERVAL, "after {:?}", promoted_at.elapsed());
    assert_role(&daemon, second, "primary").await;
    let name = "external_endpoints_target_role";
    let dead = daemon.metric(name, &[("service", "orders"), ("address", &first.to_string())]).await;
    assert_eq!(dead, None, "nobody knows the role of a server that does not answer");

    // It comes back and does not know that there is another: both say that they take writes.
    old.restart();
    expect_event_on(&namespace, "orders", "SplitBrain", "split brain").await;
    wait_for_checks(&daemon, 2).await;
    for pair in [&direct, &pooled] {
        pair.expect(&namespace, &[second], &[]).await;
        pair.assert_one_writer();
    }
    let pages = format!("{}{}", daemon.lines().join("\n"), daemon.status().await);
    assert!(!pages.contains(PASSWORD), "{pages}");
}

const PASSWORD: &str = "a-password-that-no-page-shows";

async fn assert_role(daemon: &Daemon, ip: IpAddr, role: &str) {
    let ip = ip.to_string();
    let labels = [("service", "orders"), ("address", &*ip), ("role", role)];
    eventually(TIMEOUT, &format!("{ip} is a {role}"), async || {
        match daemon.metric("external_endpoints_target_role", &labels).await {
            Some(1.0) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

/// Starts a standby of the PostgreSQL at another address.
async fn standby(primary: IpAddr, ip: IpAddr) -> Server {
    let folder = temp_dir("standby");
    let data = folder.join("data");
    let mut backup = as_ordinary_user(postgres_programs().join("pg_basebackup"));
    backup.args(["-h", &primary.to_string(), "-U", "postgres", "-c", "fast", "-N", "-R", "-D"]);
    backup.arg(&data);
    run(backup).await.expect("a copy of the primary");
    servers::postgres_in(&folder, ip).await
}

/// Starts a PgBouncer on port 6432 of an address, for the PostgreSQL of the same address. It asks
/// for the password with another salt at each login.
async fn pgbouncer(ip: IpAddr) -> Server {
    let folder = temp_dir("pgbouncer");
    let (users, file) = (folder.join("users.txt"), folder.join("pgbouncer.ini"));
    std::fs::write(&users, format!("\"checker\" \"{PASSWORD}\"\n")).expect("a file");
    let settings = format!(
        "[databases]\npostgres = host={ip} port=5432\n[pgbouncer]\nlisten_addr = {ip}\n\
         listen_port = 6432\nunix_socket_dir = {}\nauth_type = scram-sha-256\nauth_file = {}\n\
         pool_mode = transaction\n",
        folder.display(),
        users.display()
    );
    std::fs::write(&file, settings).expect("a file");
    let mut server = Server::start("pgbouncer", &folder, move || {
        let mut command = as_ordinary_user("pgbouncer");
        command.arg(&file);
        command
    });
    server.ready_at(ip, 6432).await;
    server
}

async fn a_redis_pair_swaps_its_roles() {
    let namespace = shared().namespace("swap").await;
    let pair = Pair::new(&namespace, ["sessions", "sessions-replicas"], 6379).await;
    let [first, second] = addresses::allocate(2)[..] else { panic!("two addresses") };
    let _primary = servers::redis(first).await;
    let _replica = servers::redis(second).await;
    say(second, &format!("REPLICAOF {first} 6379")).await;
    let yaml = config(&namespace, &pair.config([first, second], 6379, "redis", ""));
    let _daemon = start(&yaml).await;
    pair.expect(&namespace, &[first], &[second]).await;

    // For a moment both are primaries.
    say(second, "REPLICAOF NO ONE").await;
    say(first, &format!("REPLICAOF {second} 6379")).await;
    let swapped_at = Instant::now();
    pair.expect(&namespace, &[second], &[first]).await;
    assert!(swapped_at.elapsed() <= 2 * INTERVAL, "after {:?}", swapped_at.elapsed());
    pair.assert_one_writer();
}

/// Sends a line to the Redis at an address, which answers that it has done it.
async fn say(ip: IpAddr, line: &str) {
    let mut stream = TcpStream::connect((ip, 6379)).await.expect("a connection");
    stream.write_all(format!("{line}\r\n").as_bytes()).await.expect("it reads");
    let mut answer = [0; 64];
    let read = stream.read(&mut answer).await.expect("an answer");
    assert!(answer[..read].starts_with(b"+OK"), "{line}: {:?}", &answer[..read]);
}

async fn a_rotated_password_takes_nothing_out() {
    let namespace = shared().namespace("rotation").await;
    namespace.create_service("orders", &[("", 5432)]).await;
    let ip = addresses::allocate_one();
    let _server = postgres(ip).await;
    let change = async |password: &str| {
        let change = format!("alter role checker password '{password}'");
        ask_postgres(ip, &change).await.expect("another password");
    };
    ask_postgres(ip, "create role checker login").await.expect("a role");
    change("first-secret").await;
    let file = temp_dir("password").join("password");
    std::fs::write(&file, "first-secret\n").expect("a file");
    let yaml = format!(
        "databases:
- service: orders
  namespace: {}
  port: 5432
  addresses: [{ip}]
  check:
    postgres: {{role: primary, user: checker, password: {{file: {}}}}}
    interval: 500ms
    timeout: 2s
",
        namespace.name,
        file.display()
    );
    let daemon = start(&yaml).await;
    expect_published(&namespace, "orders", &[ip]).await;
    let history = History::start(&namespace, "orders").await;

    // The password changes on the server first.
    change("second-secret").await;
    expect_event_on(&namespace, "orders", "LoginRefused", &format!("{ip} cannot log in")).await;
    let refused = "external_endpoints_target_login_refused";
    assert_eq!(daemon.metric(refused, &[]).await, Some(1.0));
    wait_for_checks(&daemon, 3).await;
    let status = daemon.status().await["databases"][0].clone();
    assert_eq!(status["targets"][0]["health"], "up");
    let notes = status["policy"].to_string();
    assert!(notes.contains("auth: refused (") && notes.contains("is the password right?"));

    // Then in the file.
    std::fs::write(&file, "second-secret\n").expect("a file");
    expect_event_on(&namespace, "orders", "ChecksConclusive", "no check is refused its login")
        .await;
    assert_eq!(daemon.metric(refused, &[]).await, None);
    assert_eq!(history.steps(), [], "nothing was published anew");
    let pages = format!("{}{status}{notes}", daemon.lines().join("\n"));
    assert!(!pages.contains("secret"), "{pages}");
}

async fn a_role_that_nobody_has_is_explained() {
    let namespace = shared().namespace("no-primary").await;
    namespace.create_service("sessions", &[("", 6379)]).await;
    let [first, second] = addresses::allocate(2)[..] else { panic!("two addresses") };
    let mut primary = servers::redis(first).await;
    let _replica = servers::redis(second).await;
    say(second, &format!("REPLICAOF {first} 6379")).await;
    let yaml = format!(
        "databases:
- service: sessions
  namespace: {}
  port: 6379
  addresses: [{first}, {second}]
  check: {{redis: {{role: primary}}, interval: 500ms, timeout: 2s}}
",
        namespace.name
    );
    let daemon = start(&yaml).await;
    expect_published(&namespace, "sessions", &[first]).await;
    let missing = "external_endpoints_role_missing";
    assert_eq!(daemon.metric(missing, &[]).await, None);
    primary.kill().await;
    expect_published(&namespace, "sessions", &[]).await;
    let words = format!("{second} (role: replica, not primary)");
    expect_event_on(&namespace, "sessions", "RoleMissing", &words).await;
    assert_eq!(daemon.metric(missing, &[]).await, Some(1.0));
    assert!(daemon.status().await["databases"][0]["policy"].to_string().contains(&words));

    say(second, "REPLICAOF NO ONE").await;
    expect_published(&namespace, "sessions", &[second]).await;
    let words = "an address has the role";
    expect_event_on(&namespace, "sessions", "RoleFound", words).await;
    assert_eq!(daemon.metric(missing, &[]).await, None);
}
