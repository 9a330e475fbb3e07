//! The check of PostgreSQL against a real server, in each state that one can be brought into, over
//! TLS too, and the traces that it leaves: none.

use std::time::{Duration, Instant};

use external_endpoints::config::{CheckKind, PostgresCheck, Role, ValueSource};
use external_endpoints::probe::Prober;
use futures::future::join_all;

use crate::fixtures::*;
use crate::hostile_native::{self, Words};
use crate::postgres_servers::*;
use crate::servers::{Database, time_waits};

#[tokio::test]
async fn without_a_login_a_running_server_passes() {
    for product in Product::all() {
        let server = product.primary("").await;
        without_a_login(&server).await;
    }
}

async fn without_a_login(server: &Database) {
    let quiet = postgres(server.port);
    assert_eq!(probe(&quiet).await, pass());
    let observed = prober(CheckKind::Postgres(quiet.clone()), PATIENT);
    assert_eq!(observed.probe().await, pass());
    assert_eq!(observed.observation(), None);
    // The user may exist, and it may need no password.
    for user in ["checker", "md5user", "clear", "trusted"] {
        let check = PostgresCheck { user: Some(literal(user)), ..quiet.clone() };
        assert_eq!(probe(&check).await, pass(), "{user}");
    }
    // Without a rule each probe is logged, and people are told.
    let rejected = PostgresCheck { user: Some(literal("rejected")), ..quiet.clone() };
    let observed = prober(CheckKind::Postgres(rejected), PATIENT);
    assert_eq!(observed.probe().await, pass());
    assert!(observed.observation().unwrap().note.unwrap().contains("logs each check"));

    let asks = PostgresCheck { role: Role::Primary, ..quiet };
    let reason = "auth: the server asks for a password, and none is given";
    assert_eq!(probe(&asks).await, inconclusive(reason));
    let trusted = PostgresCheck { user: Some(literal("trusted")), ..asks };
    assert_eq!(probe(&trusted).await, pass());
}

#[tokio::test]
async fn each_way_of_login_passes_and_is_refused() {
    for product in Product::all() {
        let server = product.primary("").await;
        log_in_and_fail(server.port, &product.version).await;
    }
}

async fn log_in_and_fail(port: u16, version: &str) {
    for user in ["checker", "md5user", "trusted"] {
        let check = PostgresCheck { role: Role::Primary, ..login(port, user, "secret") };
        let prober = prober(CheckKind::Postgres(check), PATIENT);
        for _ in 0..4 {
            assert_eq!(prober.probe().await, pass(), "{user}");
        }
        let observed = prober.observation().unwrap().to_string();
        assert_eq!(observed, format!("primary, PostgreSQL {version}"));
        assert!(prober.fast_check().is_some(), "{user}");
    }
    let refused = inconclusive("auth: refused (28P01): is the password right?");
    for user in ["checker", "md5user", "nobody"] {
        assert_eq!(probe(&login(port, user, "wrong")).await, refused, "{user}");
    }
    let clear = inconclusive("auth: the server asks for the password in clear; add tls: {}");
    assert_eq!(probe(&login(port, "clear", "secret")).await, clear);
    let no_rule =
        "auth: refused (28000): does pg_hba.conf let the user in from this host, without TLS?";
    let no_rule = inconclusive(no_rule);
    assert_eq!(probe(&login(port, "rejected", "secret")).await, no_rule);
    let missing = PostgresCheck { database: "gone".into(), ..login(port, "checker", "secret") };
    assert_eq!(probe(&missing).await, fail("auth: no such database (3D000)"));
}

#[tokio::test]
async fn a_right_that_was_revoked_is_inconclusive() {
    let server = Product::debian().primary("").await;
    let check = PostgresCheck { role: Role::Primary, ..login(server.port, "checker", "secret") };
    assert_eq!(probe(&check).await, pass());
    sql(&server, "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC");
    let reason = "auth: refused (42501): may the user connect to the database?";
    assert_eq!(probe(&check).await, inconclusive(reason));
    sql(&server, "GRANT CONNECT ON DATABASE postgres TO checker");
    assert_eq!(probe(&check).await, pass());
    sql(&server, "REVOKE EXECUTE ON FUNCTION pg_is_in_recovery() FROM PUBLIC");
    let reason = "role: the user lacks a right (42501): \"permission denied for function \
                  pg_is_in_recovery\"";
    assert_eq!(probe(&check).await, inconclusive(reason));
}

#[tokio::test]
async fn a_password_is_rotated_without_a_failure() {
    let server = Product::debian().primary("").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret\n").unwrap();
    let password = Some(ValueSource::File(file.path().to_owned()));
    let check =
        PostgresCheck { role: Role::Primary, password, ..login(server.port, "checker", "") };
    let prober = prober(CheckKind::Postgres(check), PATIENT);
    for _ in 0..3 {
        assert_eq!(prober.probe().await, pass());
    }
    eventually("the file is fresh", || prober.fast_check().is_some()).await;
    sql(&server, "ALTER ROLE checker PASSWORD 'second'");
    let refused = inconclusive("auth: refused (28P01): is the password right?");
    assert_eq!(prober.probe().await, refused);
    std::fs::write(file.path(), "second\n").unwrap();
    assert_eq!(prober.probe().await, pass());
    // The same password with a new salt, as after a dump and a restore.
    sql(&server, "ALTER ROLE checker PASSWORD 'second'");
    for _ in 0..3 {
        assert_eq!(prober.probe().await, pass());
    }
}

#[tokio::test]
async fn the_role_and_its_change_are_seen() {
    for product in Product::all() {
        let primary = product.primary("").await;
        let replica = product.standby(&primary, "").await;
        promote_replica(&primary, &replica).await;
    }
}

async fn promote_replica(primary: &Database, replica: &Database) {
    let check = |database: &Database, role, max_lag| PostgresCheck {
        role,
        max_lag,
        ..login(database.port, "checker", "secret")
    };
    let fresh = check(replica, Role::Replica, Some(Duration::from_secs(30)));
    becomes(&fresh, pass()).await;
    let verdict = probe(&check(replica, Role::Primary, None)).await;
    assert_eq!(verdict, fail("role: replica, not primary"));
    let verdict = probe(&check(primary, Role::Replica, None)).await;
    assert_eq!(verdict, fail("role: primary, not replica"));
    assert_eq!(probe(&check(primary, Role::Primary, None)).await, pass());
    sql(primary, "ALTER ROLE checker SET default_transaction_read_only = on");
    let verdict = probe(&check(primary, Role::Primary, None)).await;
    assert_eq!(verdict, fail("role: primary, but read-only"));
    sql(primary, "ALTER ROLE checker RESET default_transaction_read_only");
    let settings = "SELECT count(*) FROM pg_db_role_setting";
    eventually("the replica has no setting either", || sql(replica, settings) == "0").await;

    let prober = prober(CheckKind::Postgres(fresh.clone()), PATIENT);
    assert_eq!(prober.probe().await, pass());
    let words = prober.observation().unwrap().to_string();
    assert!(words.starts_with("replica, ") && words.contains(" s behind, PostgreSQL "), "{words}");

    promote(replica);
    becomes(&check(replica, Role::Primary, None), pass()).await;
    assert_eq!(probe(&fresh).await, fail("role: primary, not replica"));
}

#[tokio::test]
async fn a_replica_that_lags_fails_and_a_lost_primary_ages_it() {
    for product in Product::all() {
        let primary = product.primary("").await;
        let replica = product.standby(&primary, "").await;
        let log = if product.major() < 10 { "xlog" } else { "wal" };
        lag_and_lose(primary, &replica, log).await;
    }
}

/// Returns a prober of a replica that may be two seconds behind.
fn prober_of_lag(replica: &Database) -> Prober {
    let max_lag = Some(Duration::from_secs(2));
    let check = login(replica.port, "checker", "secret");
    let check = PostgresCheck { role: Role::Replica, max_lag, ..check };
    prober(CheckKind::Postgres(check), PATIENT)
}

/// Probes until it does not pass. Returns the verdict.
async fn until_fail(prober: &Prober) -> String {
    let mut verdict = pass();
    eventually_async("it fails", async || {
        verdict = prober.probe().await;
        verdict != pass()
    })
    .await;
    format!("{verdict:?}")
}

async fn passes_again(prober: &Prober) {
    eventually_async("it passes", async || prober.probe().await == pass()).await;
}

async fn lag_and_lose(primary: Database, replica: &Database, log: &str) {
    let prober = prober_of_lag(replica);
    passes_again(&prober).await;
    sql(replica, &format!("SELECT pg_{log}_replay_pause()"));
    sql(&primary, "CREATE TABLE a (b int)");
    let reason = until_fail(&prober).await;
    assert!(reason.starts_with("Fail(\"lag: ") && reason.contains(", more than 2s"), "{reason}");
    sql(replica, &format!("SELECT pg_{log}_replay_resume()"));
    passes_again(&prober).await;

    // Idle, it is not behind, however long nothing is written.
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        assert_eq!(prober.probe().await, pass());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let start = Instant::now();
    assert_eq!(prober.probe().await, pass());
    drop(primary);
    let reason = until_fail(&prober).await;
    assert!(reason.contains("no link to its primary"), "{reason}");
    assert!(start.elapsed() > Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_replica_of_an_archive_is_as_old_as_its_newest_commit() {
    for product in Product::all() {
        let primary = product.primary("").await;
        let folder = product.standby_data(&primary, "restore_command = 'false'\n");
        let replica = product.start_in(folder, "").await;
        let prober = prober_of_lag(&replica);
        let mut reason = String::new();
        eventually_async("it lags", async || {
            reason = format!("{:?}", prober.probe().await);
            reason.starts_with("Fail(\"lag: ")
        })
        .await;
        assert!(reason.ends_with("s, more than 2s\")"), "{reason}");
    }
}

#[tokio::test]
async fn each_state_of_a_server_has_its_words() {
    for product in Product::all() {
        let server = product.primary("").await;
        closed_and_starting(&product, &server).await;
        full_and_stopping(server).await;
    }
}

async fn closed_and_starting(product: &Product, primary: &Database) {
    let closed = product.standby(primary, "-c hot_standby=off").await;
    let words = match product.major() {
        14.. => "the database system is not accepting connections",
        _ => "the database system is starting up",
    };
    becomes(&postgres(closed.port), fail(format!("startup: not ready: \"{words}\""))).await;

    // Before all else it asks the archive for a newer timeline.
    let recovery = "restore_command = 'sleep 60'\nrecovery_target_timeline = 'latest'\n";
    let starting = product.start_in(product.standby_data(primary, recovery), "").await;
    let words = "startup: not ready: \"the database system is starting up\"";
    becomes(&postgres(starting.port), fail(words)).await;
}

async fn full_and_stopping(server: Database) {
    let quiet = postgres(server.port);
    let mut held = Vec::new();
    let mut hold = || {
        let stream = std::net::TcpStream::connect((LOCAL, server.port)).unwrap();
        let mut start = b"\0\0\0\0\0\x03\0\0user\0a\0database\0postgres\0\0".to_vec();
        start[3] = start.len() as u8;
        std::io::Write::write_all(&mut &stream, &start).unwrap();
        held.push(stream);
    };
    // The last three are reserved for superusers, which the server finds in a login.
    let reserved = login(server.port, "checker", "secret");
    eventually_async("only reserved ones are left", async || {
        hold();
        probe(&reserved).await == fail("auth: full")
    })
    .await;
    assert_eq!(probe(&quiet).await, pass());
    let full = fail("startup: full: \"sorry, too many clients already\"");
    eventually_async("none is left", async || {
        hold();
        probe(&quiet).await == full
    })
    .await;
    drop(held);
    becomes(&quiet, pass()).await;

    // A session keeps the server from ending.
    let mut session = client(&server).args(["-c", "SELECT pg_sleep(600)"]).spawn().unwrap();
    eventually("the session runs", || sql(&server, SESSIONS) == "1").await;
    server.signal(rustix::process::Signal::TERM);
    becomes(&quiet, fail("startup: not ready: \"the database system is shutting down\"")).await;
    session.kill().unwrap();
    session.wait().unwrap();
}

const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";

#[tokio::test]
async fn a_thousand_probes_leave_no_trace() {
    for product in Product::all() {
        let server = product.primary("-c max_connections=100").await;
        let statistics = "SELECT sessions_abandoned + sessions_fatal FROM pg_stat_database \
                          WHERE datname = 'postgres'";
        let abandoned =
            || if product.major() < 14 { String::new() } else { sql(&server, statistics) };
        let (log, before) = (server.log(), abandoned());
        // By 16 probers, so that there are 1008 probes of each way of login, or 256.
        let rounds = if product.version == Product::debian().version { 63 } else { 16 };
        probe_in_each_way(&server, &log, rounds).await;
        let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres'";
        eventually("no session is left", || sql(&server, sessions) == "1").await;
        assert_eq!(abandoned(), before);
        assert_eq!(server.log(), log);
    }
}

async fn probe_in_each_way(server: &Database, log: &str, rounds: usize) {
    let primary =
        |user| PostgresCheck { role: Role::Primary, ..login(server.port, user, "secret") };
    let trusted = PostgresCheck { user: Some(literal("trusted")), ..postgres(server.port) };
    let asks = PostgresCheck { role: Role::Primary, ..postgres(server.port) };
    for (check, expected) in [
        (postgres(server.port), true),
        (trusted.clone(), true),
        (PostgresCheck { role: Role::Primary, ..trusted }, true),
        (primary("checker"), true),
        (primary("md5user"), true),
        (asks, false),
    ] {
        let probers: Vec<Prober> =
            (0..16).map(|_| prober(CheckKind::Postgres(check.clone()), PATIENT)).collect();
        for _ in 0..rounds {
            let verdicts = join_all(probers.iter().map(Prober::probe)).await;
            let all = verdicts.iter().all(|verdict| (*verdict == pass()) == expected);
            assert!(all, "{check:?}: {verdicts:?}");
        }
        assert_eq!(server.log(), log, "{check:?}");
    }
    let waits = time_waits(server.port);
    // Without the resets nearly all stay.
    assert_eq!(waits, 0, "connections in TIME_WAIT");
}

#[tokio::test]
async fn no_server_delays_or_misleads_a_probe() {
    let kind = |port, tls| CheckKind::Postgres(PostgresCheck { tls, ..postgres(port) });
    let good = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
    let words = Words {
        phase: "startup",
        product: "PostgreSQL",
        tls_request: 8,
        tls_grant: b"S",
        tls_greeting: b"",
    };
    hostile_native::judge(&words, good, b"", &kind).await;
}
