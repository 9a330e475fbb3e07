//! The check of MySQL against real servers: MariaDB, and MySQL where it can be had, in each state
//! that one can be brought into, over TLS too.

use std::time::Duration;

use external_endpoints::config::{CheckKind, MysqlCheck, Role, ValueSource};
use external_endpoints::health::Verdict;
use external_endpoints::probe::Prober;

use crate::certificates::Authority;
use crate::fixtures::*;
use crate::hostile_native::{self, Words};
use crate::mysql_servers::{Product, mariadb, mysql, sql, start, start_with_tls};
use crate::servers::Database;

pub(crate) fn check(port: u16) -> MysqlCheck {
    MysqlCheck {
        port,
        role: Role::Any,
        max_lag: None,
        user: literal("checker"),
        password: Some(literal("secret")),
        donor: true,
        fetch_public_key: false,
        tls: None,
    }
}

fn as_user(port: u16, user: &str) -> MysqlCheck {
    MysqlCheck { user: literal(user), ..check(port) }
}

fn of_role(port: u16, role: Role) -> MysqlCheck {
    MysqlCheck { role, ..check(port) }
}

pub(crate) async fn probe(check: &MysqlCheck) -> Verdict {
    probe_once(CheckKind::Mysql(check.clone()), PATIENT).await
}

pub(crate) fn prober_of(check: &MysqlCheck) -> Prober {
    prober(CheckKind::Mysql(check.clone()), PATIENT)
}

pub(crate) async fn becomes(check: &MysqlCheck, expected: Verdict) {
    expect_verdict(CheckKind::Mysql(check.clone()), expected).await;
}

pub(crate) fn shown(prober: &Prober) -> String {
    prober.observation().map(|found| found.to_string()).unwrap_or_default()
}

pub(crate) const REFUSED: &str = "auth: refused (1045): is the password right?";

pub(crate) const COLD: &str = "auth: caching_sha2_password needs TLS after a restart or a new \
                               password; add tls: {}, or fetchPublicKey: true";

#[tokio::test]
async fn each_way_of_login_passes_and_is_refused() {
    let server = start(&mariadb(), "").await;
    let port = server.port;
    let users = "INSTALL SONAME 'auth_ed25519';
         CREATE USER ed@'%' IDENTIFIED VIA ed25519 USING PASSWORD('secret');
         CREATE USER twoways@'%' IDENTIFIED VIA ed25519 USING PASSWORD('other')
             OR mysql_native_password USING PASSWORD('secret');
         CREATE USER locked@'%' IDENTIFIED BY 'secret' ACCOUNT LOCK;
         CREATE USER secure@'%' IDENTIFIED BY 'secret' REQUIRE SSL;";
    sql(&server, users);
    let prober = prober_of(&check(port));
    for _ in 0..3 {
        assert_eq!(prober.probe().await, pass());
    }
    assert!(shown(&prober).starts_with("primary, MariaDB 1"), "{}", shown(&prober));
    assert!(prober.fast_check().is_some());
    let free = MysqlCheck { password: None, ..as_user(port, "free") };
    assert_eq!(probe(&free).await, pass());
    assert_eq!(probe(&as_user(port, "twoways")).await, pass());

    let wrong = MysqlCheck { password: Some(literal("wrong")), ..check(port) };
    assert_eq!(probe(&wrong).await, inconclusive(REFUSED));
    for (user, reason) in [
        ("nobody", REFUSED),
        ("free", REFUSED),
        ("secure", REFUSED),
        ("locked", "auth: refused (4151): is the password right?"),
        ("ed", "auth: the server asks for client_ed25519, which is not spoken"),
    ] {
        assert_eq!(probe(&as_user(port, user)).await, inconclusive(reason), "{user}");
    }
    let none = MysqlCheck { password: None, ..check(port) };
    let reason = "auth: refused (1045): does the user exist, and have no password?";
    assert_eq!(probe(&none).await, inconclusive(reason));
}

#[tokio::test]
async fn a_password_is_rotated_without_a_failure() {
    let server = start(&mariadb(), "").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret\n").unwrap();
    let password = Some(ValueSource::File(file.path().to_owned()));
    let prober = prober_of(&MysqlCheck { password, ..of_role(server.port, Role::Primary) });
    for _ in 0..3 {
        assert_eq!(prober.probe().await, pass());
    }
    eventually("the file is fresh", || prober.fast_check().is_some()).await;
    sql(&server, "ALTER USER checker@'%' IDENTIFIED BY 'second'");
    assert_eq!(prober.probe().await, inconclusive(REFUSED));
    std::fs::write(file.path(), "second\n").unwrap();
    assert_eq!(prober.probe().await, pass());
    assert!(!server.log().contains("second"), "{}", server.log());
}

/// Makes one server a replica of another.
fn follow(replica: &Database, primary: &Database) {
    sql(
        primary,
        "CREATE USER IF NOT EXISTS copy@'%' IDENTIFIED BY 'copy';
         GRANT REPLICATION SLAVE ON *.* TO copy@'%'",
    );
    let (port, position) = (primary.port, sql(primary, "SELECT @@global.gtid_binlog_pos"));
    let statements = format!(
        "RESET MASTER; SET GLOBAL gtid_slave_pos='{position}';
         CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='copy',
             MASTER_PASSWORD='copy', MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos;
         START SLAVE; SET GLOBAL read_only=1"
    );
    sql(replica, &statements);
}

const PRIMARY: &str = "--log-bin=bin --server-id=1";
const REPLICA: &str = "--log-bin=bin --server-id=2 --skip-log-slave-updates";

#[tokio::test]
async fn the_role_and_its_change_are_seen() {
    let (primary, replica) = (start(&mariadb(), PRIMARY).await, start(&mariadb(), REPLICA).await);
    let of = |database: &Database, role| of_role(database.port, role);
    assert_eq!(probe(&of(&primary, Role::Primary)).await, pass());
    let writable = fail("role: writable, not replica");
    assert_eq!(probe(&of(&primary, Role::Replica)).await, writable);
    follow(&replica, &primary);
    assert_eq!(probe(&of(&replica, Role::Replica)).await, pass());
    let verdict = probe(&of(&replica, Role::Primary)).await;
    assert_eq!(verdict, fail("role: read-only, not primary"));
    let prober = prober_of(&of(&replica, Role::Any));
    assert_eq!(prober.probe().await, pass());
    assert!(shown(&prober).starts_with("replica, MariaDB 1"), "{}", shown(&prober));

    // The promotion.
    sql(&primary, "SET GLOBAL read_only=1");
    sql(&replica, "STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only=0");
    assert_eq!(probe(&of(&primary, Role::Replica)).await, pass());
    assert_eq!(probe(&of(&replica, Role::Primary)).await, pass());
    assert_eq!(probe(&of(&replica, Role::Replica)).await, writable);
}

#[tokio::test]
async fn a_replica_that_lags_fails_and_a_lost_primary_ages_it() {
    let (primary, replica) = (start(&mariadb(), PRIMARY).await, start(&mariadb(), REPLICA).await);
    follow(&replica, &primary);
    let check = MysqlCheck {
        max_lag: Some(Duration::from_secs(3)),
        ..of_role(replica.port, Role::Replica)
    };
    let right = "SLAVE MONITOR, or REPLICATION CLIENT before MariaDB 10.5";
    let no_right = inconclusive(format!("lag: the user lacks the right {right}"));
    assert_eq!(probe(&check).await, no_right);
    sql(&replica, "GRANT SLAVE MONITOR ON *.* TO checker@'%'");
    becomes(&check, pass()).await;
    let prober = prober_of(&check);
    let until = async |end: &str| {
        let mut verdict = pass();
        eventually_async("it fails", async || {
            verdict = prober.probe().await;
            verdict != pass()
        })
        .await;
        let verdict = format!("{verdict:?}");
        assert!(verdict.contains(end), "{verdict}, not {end}");
    };
    eventually_async("it is linked", async || {
        prober.probe().await == pass() && shown(&prober).starts_with("replica, 0 s behind, ")
    })
    .await;
    // A change that is received and not applied.
    let delay = |seconds: u32| {
        let change = format!("STOP SLAVE; CHANGE MASTER TO MASTER_DELAY={seconds}; START SLAVE");
        sql(&replica, &change);
    };
    delay(600);
    sql(&primary, "CREATE DATABASE a");
    until(", more than 3s").await;
    delay(0);
    eventually_async("it has caught up", async || prober.probe().await == pass()).await;

    sql(&replica, "STOP SLAVE SQL_THREAD");
    assert_eq!(prober.probe().await, fail("lag: replay is stopped"));
    sql(&replica, "START SLAVE SQL_THREAD");
    eventually_async("it runs again", async || prober.probe().await == pass()).await;
    let start = std::time::Instant::now();
    assert_eq!(prober.probe().await, pass());
    drop(primary);
    until("no link to its primary").await;
    assert!(start.elapsed() > Duration::from_secs(2), "{:?}", start.elapsed());
    assert!(shown(&prober).contains("(no link to its primary)"), "{}", shown(&prober));
}

#[tokio::test]
async fn each_primary_of_a_mariadb_counts() {
    let server = start(&mariadb(), "--server-id=2").await;
    let replicate = |name: &str, port: u16| {
        let primary = format!("MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='copy'");
        sql(&server, &format!("CHANGE MASTER '{name}' TO {primary}; START SLAVE '{name}'"));
    };
    sql(&server, "GRANT SLAVE MONITOR ON *.* TO checker@'%'; SET GLOBAL read_only=1");
    replicate("one", 1);
    let max_lag = Some(Duration::from_secs(600));
    let prober = prober_of(&MysqlCheck { max_lag, ..of_role(server.port, Role::Replica) });
    assert_eq!(prober.probe().await, pass());
    assert!(shown(&prober).contains("(no link to its primary)"), "{}", shown(&prober));
    replicate("two", 2);
    sql(&server, "STOP SLAVE 'two' SQL_THREAD");
    assert_eq!(prober.probe().await, fail("lag: replay is stopped"));
}

#[tokio::test]
async fn the_long_state_of_a_replica_is_read() {
    for product in Product::all() {
        let settings = if product.is_mariadb() { "" } else { REPLICA_OF_MYSQL };
        let server = start(&product, &format!("--server-id=2 {settings}")).await;
        let list = |item: &dyn Fn(u32) -> String| (0..8_000).map(item).collect::<Vec<_>>();
        let long = match product.is_mariadb() {
            true => {
                let tables = list(&|number| format!("a{number:05}.%")).join(",");
                format!("SET GLOBAL replicate_wild_do_table='{tables}'")
            }
            false => {
                let spans = list(&|number| format!(":{}", 1_000_000_000 + 2 * number)).concat();
                let server = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
                format!("RESET MASTER; SET GLOBAL gtid_purged='{server}{spans}'")
            }
        };
        let replicate = format!(
            "{long}; CHANGE MASTER TO MASTER_HOST='127.0.0.1', MASTER_PORT=1, MASTER_USER='copy';
             START SLAVE; SET GLOBAL read_only=1;"
        );
        sql(&server, &replicate);
        let right = if product.is_mariadb() { "SLAVE MONITOR" } else { "REPLICATION CLIENT" };
        sql(&server, &format!("GRANT {right} ON *.* TO checker@'%'"));
        assert!(sql(&server, "SHOW SLAVE STATUS").len() > 64 << 10, "{}", product.name);
        let check = MysqlCheck {
            max_lag: Some(Duration::from_secs(600)),
            fetch_public_key: true,
            ..of_role(server.port, Role::Replica)
        };
        let prober = prober_of(&check);
        assert_eq!(prober.probe().await, pass(), "{}", product.name);
        assert!(shown(&prober).contains("(no link to its primary)"), "{}", shown(&prober));
        sql(&server, "STOP SLAVE SQL_THREAD");
        assert_eq!(prober.probe().await, fail("lag: replay is stopped"), "{}", product.name);
    }
}

const REPLICA_OF_MYSQL: &str = "--gtid-mode=ON --enforce-gtid-consistency=ON --log-bin=bin \
                                --log-slave-updates=ON --master-info-repository=TABLE \
                                --relay-log-info-repository=TABLE";

#[tokio::test]
async fn a_full_server_has_its_words() {
    // One more is for a user with SUPER.
    let server = start(&mariadb(), "--max-connections=10").await;
    let prober = prober_of(&check(server.port));
    assert_eq!(prober.probe().await, pass());
    let held: Vec<_> =
        (0..11).map(|_| std::net::TcpStream::connect((LOCAL, server.port)).unwrap()).collect();
    eventually_async("it is full", async || match prober.probe().await {
        Verdict::Fail(reason) => {
            let full = "greeting: full: \"Too many connections\"";
            assert!(reason == "auth: full" || reason == full, "{reason}");
            true
        }
        verdict => panic!("{verdict:?}"),
    })
    .await;
    drop(held);
    eventually_async("it is free", async || prober.probe().await == pass()).await;
}

#[tokio::test]
async fn over_tls_the_words_are_the_same_and_the_log_is_silent() {
    let authority = Authority::new();
    let server = start_with_tls(&mariadb(), &authority, "").await;
    sql(&server, "CREATE USER secure@'%' IDENTIFIED BY 'secret' REQUIRE SSL");
    let secure = |check: MysqlCheck| MysqlCheck { tls: Some(authority.trusted()), ..check };
    let (log, aborted) = (server.log(), sql(&server, ABORTED));
    for user in ["checker", "secure"] {
        let prober = prober_of(&secure(as_user(server.port, user)));
        for _ in 0..50 {
            assert_eq!(prober.probe().await, pass(), "{user}");
        }
        assert!(shown(&prober).starts_with("primary, MariaDB 1"), "{}", shown(&prober));
    }
    let replica = secure(of_role(server.port, Role::Replica));
    assert_eq!(probe(&replica).await, fail("role: writable, not replica"));
    assert_eq!(server.log(), log);
    assert_eq!(sql(&server, ABORTED), aborted);
    let wrong = MysqlCheck { password: Some(literal("wrong")), ..check(server.port) };
    assert_eq!(probe(&secure(wrong)).await, inconclusive(REFUSED));
    let plain = start(&mariadb(), "--skip-ssl").await;
    let verdict = probe(&secure(check(plain.port))).await;
    assert_eq!(verdict, fail("tls: the server does not speak TLS"));
}

pub(crate) const ABORTED: &str = "SHOW GLOBAL STATUS LIKE 'Aborted_c%'";

#[tokio::test]
async fn caching_sha2_needs_tls_or_the_key_while_its_cache_is_cold() {
    let Some(product) = mysql("8.0.12") else { return };
    let server = start(&product, "").await;
    let port = server.port;
    assert_eq!(probe(&check(port)).await, inconclusive(COLD));
    let fetching = MysqlCheck { fetch_public_key: true, ..check(port) };
    let wrong = MysqlCheck { password: Some(literal("wrong")), ..fetching.clone() };
    assert_eq!(probe(&wrong).await, inconclusive(REFUSED));
    assert_eq!(probe(&fetching).await, pass());
    let prober = prober_of(&check(port));
    for _ in 0..3 {
        assert_eq!(prober.probe().await, pass());
    }
    assert_eq!(shown(&prober), "primary, MySQL 8.0.12");
    sql(&server, "FLUSH PRIVILEGES");
    assert_eq!(probe(&check(port)).await, inconclusive(COLD));
    let tls = external_endpoints::config::Tls { insecure_skip_verify: true, ..Default::default() };
    // This version has no ECDHE, as all modern clients want it.
    let verdict = probe(&MysqlCheck { tls: Some(tls), ..check(port) }).await;
    let reason = format!("{verdict:?}");
    assert!(reason.starts_with("Fail(\"tls: no TLS version or cipher in common"), "{reason}");
    assert_eq!(probe(&fetching).await, pass());
    let native = MysqlCheck { password: None, ..as_user(port, "free") };
    assert_eq!(probe(&native).await, pass());
    sql(&server, "SET GLOBAL super_read_only=1");
    let verdict = probe(&of_role(port, Role::Primary)).await;
    assert_eq!(verdict, fail("role: read-only, not primary"));
    sql(&server, "SET GLOBAL super_read_only=0; SET GLOBAL offline_mode=1");
    assert_eq!(probe(&check(port)).await, fail("auth: offline mode"));
    sql(&server, "SET GLOBAL offline_mode=0");
    sql(&server, "SET GLOBAL require_secure_transport=1");
    let wants_tls = inconclusive("auth: the server wants TLS; add tls: {}");
    assert_eq!(probe(&check(port)).await, wants_tls);
}

#[tokio::test]
async fn a_galera_node_passes_only_in_sync() {
    let provider = "/usr/lib/galera/libgalera_smm.so";
    let settings = format!(
        "--wsrep-on=ON --wsrep-provider={provider} --wsrep-cluster-address=gcomm:// \
         --binlog-format=ROW --innodb-autoinc-lock-mode=2 --wsrep-sst-method=rsync \
         --wsrep-provider-options=base_port={};gmcast.listen_addr=tcp://127.0.0.1:{}",
        crate::servers::free_port(),
        crate::servers::free_port(),
    );
    let server = start(&mariadb(), &settings).await;
    let strict = MysqlCheck { donor: false, ..check(server.port) };
    becomes(&strict, pass()).await;
    assert_eq!(probe(&of_role(server.port, Role::Primary)).await, pass());
    let verdict = probe(&of_role(server.port, Role::Replica)).await;
    assert_eq!(verdict, fail("role: writable, not replica"));
    sql(&server, "SET GLOBAL wsrep_desync=ON");
    becomes(&strict, fail("role: Galera node not synced (state 2, donor)")).await;
    assert_eq!(probe(&check(server.port)).await, pass());
    sql(&server, "SET GLOBAL wsrep_desync=OFF");
    becomes(&strict, pass()).await;

    // A node that takes no queries of clients.
    sql(&server, "SET GLOBAL wsrep_reject_queries=ALL");
    let rejects = fail("role: Galera node takes no queries (wsrep_reject_queries)");
    assert_eq!(probe(&check(server.port)).await, rejects);
    sql(&server, "SET GLOBAL wsrep_reject_queries=NONE");

    // A node that has lost the others answers all but writes.
    sql(&server, "SET GLOBAL wsrep_cluster_address='gcomm://127.0.0.1:1?pc.wait_prim=no'");
    for role in [Role::Any, Role::Primary, Role::Replica] {
        let lost = fail("role: Galera node not synced (state 0)");
        becomes(&of_role(server.port, role), lost).await;
    }
    assert_eq!(sql(&server, "SELECT @@global.read_only"), "0");
}

#[tokio::test]
async fn no_server_delays_or_misleads_a_probe() {
    let kind = |port, tls| CheckKind::Mysql(MysqlCheck { tls, ..check(port) });
    let words = Words {
        phase: "greeting",
        product: "MySQL",
        tls_request: 36,
        tls_grant: b"",
        tls_greeting: GREETING,
    };
    let good = [GREETING, LOGGED_IN].concat();
    hostile_native::judge(&words, &good, b"", &kind).await;
}

/// The greeting of a server with TLS.
const GREETING: &[u8] = b"\x4a\0\0\0\x0a8.0.12\0\x07\0\0\x0012345678\0\xff\xff\x21\x02\0\xff\x81\
    \x15\0\0\0\0\0\0\0\0\0\x00901234567890\0mysql_native_password\0";

/// The end of a login, and the answer to the question for the role.
const LOGGED_IN: &[u8] = b"\x07\0\0\x02\0\0\0\x02\0\0\0\x01\0\0\x01\x01\
    \x17\0\0\x02\x03def\0\0\0\x01a\0\x0c\x3f\0\x01\0\0\0\x08\x80\0\0\0\0\
    \x05\0\0\x03\xfe\0\0\x02\0\x02\0\0\x04\x010\x05\0\0\x05\xfe\0\0\x02\0";
