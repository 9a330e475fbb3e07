//! The check of PostgreSQL against a real server, in each state that one can be brought into, over
//! TLS too, and the traces that it leaves: none.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use external_endpoints::config::{CheckKind, PostgresCheck, Role, ValueSource};
use external_endpoints::health::Verdict;
use external_endpoints::probe::Prober;
use futures::future::join_all;

use crate::certificates::Authority;
use crate::fixtures::*;
use crate::hostile_native::{self, Words};
use crate::servers::{Database, as_user, find, folder_for, time_waits};

pub(crate) fn postgres(port: u16) -> PostgresCheck {
    PostgresCheck {
        port,
        role: Role::Any,
        max_lag: None,
        user: None,
        password: None,
        database: "postgres".into(),
        tls: None,
    }
}

fn login(port: u16, user: &str, password: &str) -> PostgresCheck {
    PostgresCheck { user: Some(literal(user)), password: Some(literal(password)), ..postgres(port) }
}

async fn probe(check: &PostgresCheck) -> Verdict {
    probe_once(CheckKind::Postgres(check.clone()), PATIENT).await
}

async fn becomes(check: &PostgresCheck, expected: Verdict) {
    expect_verdict(CheckKind::Postgres(check.clone()), expected).await;
}

/// Returns the command of a program of PostgreSQL, as the user of the servers.
fn program(name: &str) -> Command {
    as_user("postgres", &find(name))
}

fn run(mut command: Command) -> String {
    let output = command.current_dir("/tmp").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs statements as the superuser, over the socket in the folder.
fn sql(database: &Database, statements: &str) -> String {
    let mut command = program("psql");
    let port = database.port.to_string();
    command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-p", &port]);
    command.arg("-h").arg(database.folder.path()).args(["-c", statements]);
    run(command).trim().to_owned()
}

/// The rules of the servers: the superuser over the socket, replicas, and users of each method.
const RULES: &str = "local all all trust\n\
                     local replication all trust\n\
                     host replication all 127.0.0.1/32 trust\n\
                     host all trusted 127.0.0.1/32 trust\n\
                     host all md5user 127.0.0.1/32 md5\n\
                     host all clear 127.0.0.1/32 password\n\
                     host all rejected 127.0.0.1/32 reject\n\
                     host all all 127.0.0.1/32 scram-sha-256\n";

/// Makes the data of a server with a user for each way of login.
fn new_data() -> tempfile::TempDir {
    let folder = folder_for("postgres");
    let data = folder.path().join("data");
    let mut initdb = program("initdb");
    initdb.args(["-A", "trust", "-N", "-U", "postgres", "--no-instructions", "--locale=C", "-D"]);
    initdb.arg(&data);
    run(initdb);
    std::fs::write(data.join("pg_hba.conf"), RULES).unwrap();
    folder
}

const SETTINGS: &str = "-c max_connections=20 -c shared_buffers=8MB -c wal_level=replica";

async fn start_in(folder: tempfile::TempDir, settings: &str) -> Database {
    let settings = format!("{SETTINGS} {settings}");
    Database::start(&find("postgres"), "postgres", folder, |folder, port| {
        let folder = folder.display();
        let place = format!("-D {folder}/data -k {folder} -p {port} -h 127.0.0.1 -F {settings}");
        place.split_whitespace().map(str::to_owned).collect()
    })
    .await
}

const USERS: &str = "CREATE ROLE checker LOGIN PASSWORD 'secret'; CREATE ROLE trusted LOGIN; \
                     CREATE ROLE clear LOGIN PASSWORD 'secret'; \
                     CREATE ROLE rejected LOGIN PASSWORD 'secret'; \
                     SET password_encryption = 'md5'; \
                     CREATE ROLE md5user LOGIN PASSWORD 'secret'";

/// Starts a primary with a user for each way of login.
async fn primary(settings: &str) -> Database {
    let server = start_in(new_data(), settings).await;
    becomes(&postgres(server.port), pass()).await;
    sql(&server, USERS);
    server
}

/// Starts a standby of a primary.
async fn standby(primary: &Database, settings: &str) -> Database {
    let folder = folder_for("postgres");
    let mut backup = program("pg_basebackup");
    backup.arg("-h").arg(primary.folder.path()).args(["-p", &primary.port.to_string()]);
    backup.args(["-U", "postgres", "-c", "fast", "-N", "-R", "-D"]).arg(folder.path().join("data"));
    run(backup);
    let conninfo = format!("host=127.0.0.1 port={} user=postgres", primary.port);
    let auto = folder.path().join("data/postgresql.auto.conf");
    std::fs::write(auto, format!("primary_conninfo = '{conninfo}'\n")).unwrap();
    start_in(folder, settings).await
}

#[tokio::test]
async fn without_a_login_a_running_server_passes() {
    let server = primary("").await;
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
    let server = primary("").await;
    let port = server.port;
    for user in ["checker", "md5user", "trusted"] {
        let check = PostgresCheck { role: Role::Primary, ..login(port, user, "secret") };
        let prober = prober(CheckKind::Postgres(check), PATIENT);
        for _ in 0..4 {
            assert_eq!(prober.probe().await, pass(), "{user}");
        }
        assert_eq!(
            prober.observation().unwrap().to_string(),
            format!("primary, PostgreSQL {}", version())
        );
        assert!(prober.fast_check().is_some(), "{user}");
    }
    let refused = inconclusive("auth: refused (28P01): is the password right?");
    for user in ["checker", "md5user", "nobody"] {
        assert_eq!(probe(&login(port, user, "wrong")).await, refused, "{user}");
    }
    let clear = inconclusive("auth: the server asks for the password in clear; add tls: {}");
    assert_eq!(probe(&login(port, "clear", "secret")).await, clear);
    let no_rule = inconclusive("auth: refused (28000): is the password right?");
    assert_eq!(probe(&login(port, "rejected", "secret")).await, no_rule);
    let missing = PostgresCheck { database: "gone".into(), ..login(port, "checker", "secret") };
    assert_eq!(probe(&missing).await, fail("auth: no such database (3D000)"));
}

#[tokio::test]
async fn a_right_that_was_revoked_is_inconclusive() {
    let server = primary("").await;
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

fn version() -> String {
    let mut command = program("postgres");
    command.arg("--version");
    run(command).split(' ').nth(2).unwrap().trim().to_owned()
}

#[tokio::test]
async fn a_password_is_rotated_without_a_failure() {
    let server = primary("").await;
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
    let primary = primary("").await;
    let replica = standby(&primary, "").await;
    let check = |database: &Database, role, max_lag| PostgresCheck {
        role,
        max_lag,
        ..login(database.port, "checker", "secret")
    };
    let fresh = check(&replica, Role::Replica, Some(Duration::from_secs(30)));
    becomes(&fresh, pass()).await;
    let verdict = probe(&check(&replica, Role::Primary, None)).await;
    assert_eq!(verdict, fail("role: replica, not primary"));
    let verdict = probe(&check(&primary, Role::Replica, None)).await;
    assert_eq!(verdict, fail("role: primary, not replica"));
    assert_eq!(probe(&check(&primary, Role::Primary, None)).await, pass());
    sql(&primary, "ALTER ROLE checker SET default_transaction_read_only = on");
    let verdict = probe(&check(&primary, Role::Primary, None)).await;
    assert_eq!(verdict, fail("role: primary, but read-only"));
    sql(&primary, "ALTER ROLE checker RESET default_transaction_read_only");

    let prober = prober(CheckKind::Postgres(fresh.clone()), PATIENT);
    assert_eq!(prober.probe().await, pass());
    let words = prober.observation().unwrap().to_string();
    assert!(words.starts_with("replica, ") && words.contains(" s behind, PostgreSQL "), "{words}");

    sql(&replica, "SELECT pg_promote()");
    becomes(&check(&replica, Role::Primary, None), pass()).await;
    assert_eq!(probe(&fresh).await, fail("role: primary, not replica"));
}

#[tokio::test]
async fn a_replica_that_lags_fails_and_a_lost_primary_ages_it() {
    let primary = primary("").await;
    let replica = standby(&primary, "").await;
    let check = PostgresCheck {
        role: Role::Replica,
        max_lag: Some(Duration::from_secs(2)),
        ..login(replica.port, "checker", "secret")
    };
    becomes(&check, pass()).await;
    let prober = prober(CheckKind::Postgres(check), PATIENT);
    let until_fail = async || {
        let mut verdict = pass();
        eventually_async("it fails", async || {
            verdict = prober.probe().await;
            verdict != pass()
        })
        .await;
        format!("{verdict:?}")
    };
    sql(&replica, "SELECT pg_wal_replay_pause()");
    sql(&primary, "CREATE TABLE a (b int)");
    let reason = until_fail().await;
    assert!(reason.starts_with("Fail(\"lag: ") && reason.contains(", more than 2s"), "{reason}");
    sql(&replica, "SELECT pg_wal_replay_resume()");
    eventually_async("it has caught up", async || prober.probe().await == pass()).await;

    // Idle, it is not behind, however long nothing is written.
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_secs(3) {
        assert_eq!(prober.probe().await, pass());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let start = std::time::Instant::now();
    assert_eq!(prober.probe().await, pass());
    drop(primary);
    let reason = until_fail().await;
    assert!(reason.contains("no link to its primary"), "{reason}");
    assert!(start.elapsed() > Duration::from_secs(2), "{:?}", start.elapsed());
}

#[tokio::test]
async fn each_state_of_a_server_has_its_words() {
    let server = primary("").await;
    let closed = standby(&server, "-c hot_standby=off").await;
    let verdict = probe(&postgres(closed.port)).await;
    let reason = format!("{verdict:?}");
    assert!(reason.starts_with("Fail(\"startup: not ready: "), "{reason}");

    let mut held = Vec::new();
    for _ in 0..20 {
        let stream = std::net::TcpStream::connect((LOCAL, server.port)).unwrap();
        let start = b"\0\0\0\x20\0\x03\0\0user\0a\0database\0postgres\0\0";
        let mut start = start.to_vec();
        start[3] = start.len() as u8;
        std::io::Write::write_all(&mut &stream, &start).unwrap();
        held.push(stream);
    }
    let quiet = postgres(server.port);
    let full = "startup: full: \"sorry, too many clients already\"";
    becomes(&quiet, fail(full)).await;
    drop(held);
    becomes(&quiet, pass()).await;

    // A session keeps the server from ending.
    let mut session = program("psql");
    session.arg("-h").arg(server.folder.path()).args(["-p", &server.port.to_string()]);
    session.args(["-d", "postgres", "-c", "SELECT pg_sleep(600)"]);
    let mut session = session.spawn().unwrap();
    eventually("the session runs", || sql(&server, SESSIONS) == "1").await;
    server.signal(rustix::process::Signal::TERM);
    becomes(&quiet, fail("startup: not ready: \"the database system is shutting down\"")).await;
    session.kill().unwrap();
    session.wait().unwrap();
}

const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%'";

#[tokio::test]
async fn a_thousand_probes_leave_no_trace() {
    let server = primary("-c max_connections=100").await;
    let primary =
        |user| PostgresCheck { role: Role::Primary, ..login(server.port, user, "secret") };
    let trusted = PostgresCheck { user: Some(literal("trusted")), ..postgres(server.port) };
    let asks = PostgresCheck { role: Role::Primary, ..postgres(server.port) };
    let statistics = "SELECT sessions_abandoned + sessions_fatal FROM pg_stat_database \
                      WHERE datname = 'postgres'";
    let (log, abandoned) = (server.log(), sql(&server, statistics));
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
        for _ in 0..63 {
            let verdicts = join_all(probers.iter().map(Prober::probe)).await;
            let all = verdicts.iter().all(|verdict| (*verdict == pass()) == expected);
            assert!(all, "{check:?}: {verdicts:?}");
        }
        assert_eq!(server.log(), log, "{check:?}");
    }
    let waits = time_waits(server.port);
    // Without the resets nearly all of the 6,000 stay.
    assert_eq!(waits, 0, "connections in TIME_WAIT");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'";
    eventually("no session is left", || sql(&server, sessions) == "1").await;
    assert_eq!(sql(&server, statistics), abandoned);
    assert_eq!(server.log(), log);
}

#[tokio::test]
async fn over_tls_the_words_are_the_same_and_the_log_is_silent() {
    let folder = new_data();
    let (authority, data) = (Authority::new(), folder.path().join("data"));
    let pair = authority.sign(&["127.0.0.1"]);
    std::fs::copy(&pair.cert, data.join("server.crt")).unwrap();
    std::fs::copy(&pair.key, data.join("server.key")).unwrap();
    own(&data.join("server.key"));
    own(&data.join("server.crt"));
    let server = start_in(folder, "-c ssl=on").await;
    becomes(&postgres(server.port), pass()).await;
    sql(&server, USERS);
    let tls = Some(authority.trusted());
    let secure = |check: PostgresCheck| PostgresCheck { tls: tls.clone(), ..check };
    let log = server.log();
    for user in ["checker", "md5user", "clear", "trusted"] {
        let check = PostgresCheck { role: Role::Primary, ..login(server.port, user, "secret") };
        let prober = prober(CheckKind::Postgres(secure(check)), PATIENT);
        for _ in 0..100 {
            assert_eq!(prober.probe().await, pass(), "{user}");
        }
    }
    for _ in 0..100 {
        assert_eq!(probe(&secure(postgres(server.port))).await, pass());
    }
    let replica = PostgresCheck { role: Role::Replica, ..login(server.port, "checker", "secret") };
    assert_eq!(probe(&secure(replica)).await, fail("role: primary, not replica"));
    assert_eq!(server.log(), log);
    let wrong = secure(login(server.port, "checker", "wrong"));
    let refused = inconclusive("auth: refused (28P01): is the password right?");
    assert_eq!(probe(&wrong).await, refused);

    let plain = primary("").await;
    let verdict = probe(&secure(postgres(plain.port))).await;
    assert_eq!(verdict, fail("tls: the server does not speak TLS"));
}

/// Makes a file one that the server takes as a key.
fn own(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    if rustix::process::geteuid().is_root() {
        let status = Command::new("chown").arg("postgres").arg(path).status().unwrap();
        assert!(status.success());
    }
}

#[tokio::test]
async fn plain_text_behind_the_request_for_tls_is_refused() {
    let authority = Authority::new();
    let tls = Some(authority.trusted());
    for (answer, reason) in [
        ("S\x16\x03\x03", "tls: bytes before the handshake"),
        ("N", "tls: the server does not speak TLS"),
        ("E\0\0\0\x08", "tls: the server answered neither yes nor no to the request for TLS"),
        ("HTTP/1.1 400", "tls: the server answered neither yes nor no to the request for TLS"),
    ] {
        let server = Server::says(answer).await;
        let check = PostgresCheck { tls: tls.clone(), ..postgres(server.port) };
        assert_eq!(probe(&check).await, fail(reason), "{answer:?}");
    }
    let closes = Server::closes().await;
    let check = PostgresCheck { tls, ..postgres(closes.port) };
    let verdict = probe(&check).await;
    assert_eq!(verdict, fail("tls: connection closed in the handshake"));
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
