//! The check of Redis against real servers, in each state that one can be brought into, over TLS
//! too, and the traces that it leaves: none.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use external_endpoints::config::{CheckKind, RedisCheck, Role, Tls, ValueSource};
use external_endpoints::health::Verdict;
use external_endpoints::probe::Prober;
use futures::future::join_all;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::certificates::Authority;
use crate::fixtures::*;
use crate::hostile_native::{self, Words};
use crate::servers::{Database, as_user, fetched, find, folder_for, time_waits};

pub(crate) fn redis(port: u16) -> RedisCheck {
    RedisCheck { port, role: Role::Any, max_lag: None, user: None, password: None, tls: None }
}

fn of_role(port: u16, role: Role) -> RedisCheck {
    RedisCheck { role, ..redis(port) }
}

fn with_password(port: u16, password: &str) -> RedisCheck {
    RedisCheck { password: Some(literal(password)), ..redis(port) }
}

async fn probe(check: &RedisCheck) -> Verdict {
    probe_once(CheckKind::Redis(check.clone()), PATIENT).await
}

/// A server program that speaks the protocol.
struct Product {
    program: PathBuf,
}

impl Product {
    fn redis() -> Self {
        Self { program: find("redis-server") }
    }

    /// Returns the Redis of the distribution, and a Valkey if it can be had.
    fn all() -> Vec<Self> {
        static VALKEY: OnceLock<Option<PathBuf>> = OnceLock::new();
        let valkey = VALKEY.get_or_init(fetch_valkey).clone().map(|program| Self { program });
        std::iter::once(Self::redis()).chain(valkey).collect()
    }

    /// Starts a server with these settings, in the form of its command line.
    async fn start(&self, settings: &str) -> Database {
        self.start_in(folder_for("redis"), settings).await
    }

    async fn start_in(&self, folder: TempDir, settings: &str) -> Database {
        let server = self.launch(folder, settings).await;
        eventually("the server has started", || server.log().contains("Ready to accept")).await;
        server
    }

    /// Starts a server that need not become ready.
    async fn launch(&self, folder: TempDir, settings: &str) -> Database {
        let settings: Vec<String> = settings.split_whitespace().map(str::to_owned).collect();
        Database::start(&self.program, "redis", folder, move |_, port| {
            let port = port.to_string();
            let common =
                ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
            common.map(str::to_owned).into_iter().chain(settings.clone()).collect()
        })
        .await
    }
}

fn fetch_valkey() -> Option<PathBuf> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand-ins/valkey/fetch.sh");
    let program = fetched(script, &[])?.join("valkey-server");
    let mut command = as_user("redis", &program);
    let runs = command.arg("--version").current_dir("/tmp").output().unwrap().status;
    if !runs.success() {
        eprintln!(
            "skipped: the user redis can't run {}; set XDG_CACHE_HOME to a folder for all",
            program.display()
        );
    }
    runs.success().then_some(program)
}

/// Sends a line to a server and returns what it answers within a read.
async fn say(port: u16, line: &str) -> String {
    let mut stream = TcpStream::connect((LOCAL, port)).await.unwrap();
    stream.write_all(format!("{line}\r\n").as_bytes()).await.unwrap();
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

/// Waits until a check has this verdict.
async fn becomes(check: &RedisCheck, expected: Verdict) {
    expect_verdict(CheckKind::Redis(check.clone()), expected).await;
}

#[tokio::test]
async fn the_role_and_its_change_are_seen() {
    for product in Product::all() {
        promote_replica(&product).await;
    }
}

async fn promote_replica(product: &Product) {
    let (primary, replica) =
        (product.start("--repl-ping-replica-period 1").await, product.start("").await);
    let of = |database: &Database, role| of_role(database.port, role);
    assert_eq!(probe(&redis(primary.port)).await, pass());
    assert_eq!(probe(&of(&primary, Role::Primary)).await, pass());
    let verdict = probe(&of(&primary, Role::Replica)).await;
    assert_eq!(verdict, fail("role: primary, not replica"));

    say(replica.port, &format!("REPLICAOF 127.0.0.1 {}", primary.port)).await;
    let fresh =
        RedisCheck { max_lag: Some(Duration::from_secs(11)), ..of(&replica, Role::Replica) };
    becomes(&fresh, pass()).await;
    let verdict = probe(&of(&replica, Role::Primary)).await;
    assert_eq!(verdict, fail("role: replica, not primary"));

    // The promotion, as Sentinel does it.
    say(replica.port, "REPLICAOF NO ONE").await;
    becomes(&of(&replica, Role::Primary), pass()).await;
    assert_eq!(probe(&fresh).await, fail("role: primary, not replica"));
}

#[tokio::test]
async fn a_replica_outlives_its_primary_by_the_lag() {
    for product in Product::all() {
        lose_primary(&product).await;
    }
}

async fn lose_primary(product: &Product) {
    let (primary, replica) =
        (product.start("--repl-ping-replica-period 1").await, product.start("").await);
    say(replica.port, &format!("REPLICAOF 127.0.0.1 {}", primary.port)).await;
    let max_lag = Some(Duration::from_secs(3));
    let check = RedisCheck { max_lag, ..of_role(replica.port, Role::Replica) };
    let prober = prober(CheckKind::Redis(check), PATIENT);
    eventually_async("the replica is linked", async || {
        prober.probe().await == pass()
            && say(replica.port, "INFO replication").await.contains("status:up")
    })
    .await;
    assert_eq!(prober.probe().await, pass());
    assert!(prober.observation().unwrap().to_string().starts_with("replica, "));
    drop(primary);
    let start = std::time::Instant::now();
    let mut passes = 0;
    let reason = loop {
        match prober.probe().await {
            Verdict::Pass => passes += 1,
            verdict => break format!("{verdict:?}"),
        }
        assert!(start.elapsed() < Duration::from_secs(30), "it never fails");
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert!(passes > 5, "{reason}");
    let expected = "Fail(\"lag: unknown for 4s, more than 3s: no link to its primary\")";
    assert_eq!(reason, expected);
}

#[tokio::test]
async fn a_password_is_asked_refused_and_rotated() {
    for product in Product::all() {
        rotate_password(&product).await;
    }
}

async fn rotate_password(product: &Product) {
    let server = product.start("--requirepass first").await;
    let port = server.port;
    assert_eq!(probe(&redis(port)).await, pass());
    let none_given = "auth: the server asks for a password, and none is given";
    assert_eq!(probe(&of_role(port, Role::Primary)).await, inconclusive(none_given));
    let right = with_password(port, "first");
    let as_primary = RedisCheck { role: Role::Primary, ..right.clone() };
    assert_eq!(probe(&right).await, pass());
    assert_eq!(probe(&as_primary).await, pass());
    let refused = inconclusive("auth: refused (WRONGPASS): is the password right?");
    assert_eq!(probe(&with_password(port, "wrong")).await, refused);

    // The password changes on the server first, and in the file later.
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "first\n").unwrap();
    let password = Some(ValueSource::File(file.path().to_owned()));
    let prober = prober(CheckKind::Redis(RedisCheck { password, ..as_primary }), PATIENT);
    assert_eq!(prober.probe().await, pass());
    eventually("the file has been read", || prober.fast_check().is_some()).await;
    say(port, "AUTH first\r\nCONFIG SET requirepass second").await;
    assert_eq!(prober.probe().await, refused);
    assert!(prober.fast_check().is_none(), "the file is read again");
    std::fs::write(file.path(), "second\n").unwrap();
    assert_eq!(prober.probe().await, pass());
    assert_eq!(prober.observation().unwrap().to_string(), "primary");
    assert!(!server.log().contains("second"), "{}", server.log());
}

#[tokio::test]
async fn a_user_needs_few_rights() {
    for product in Product::all() {
        give_rights(&product).await;
    }
}

async fn give_rights(product: &Product) {
    let server = product.start("").await;
    let login = |role, max_lag| RedisCheck {
        user: Some(literal("checker")),
        password: Some(literal("secret")),
        role,
        max_lag,
        ..redis(server.port)
    };
    let check = login(Role::Primary, None);
    let refused = inconclusive("auth: refused (WRONGPASS): is the password right?");
    assert_eq!(probe(&check).await, refused);
    say(server.port, "ACL SETUSER checker on >secret +ping").await;
    assert_eq!(probe(&login(Role::Any, None)).await, pass());
    assert_eq!(probe(&check).await, inconclusive("role: the user may not run ROLE"));
    say(server.port, "ACL SETUSER checker +role").await;
    assert_eq!(probe(&check).await, pass());
    let lag = login(Role::Any, Some(Duration::from_secs(30)));
    assert_eq!(probe(&lag).await, inconclusive("lag: the user may not run INFO"));
    say(server.port, "ACL SETUSER checker +info").await;
    assert_eq!(probe(&lag).await, pass());
    let needless = with_password(server.port, "needless");
    let reason = "auth: the server has no password; remove `password`";
    assert_eq!(probe(&needless).await, inconclusive(reason));
}

#[tokio::test]
async fn each_state_of_a_server_has_its_words() {
    for product in Product::all() {
        bring_into_states(&product).await;
    }
}

async fn bring_into_states(product: &Product) {
    let full = product.start("--maxclients 1").await;
    let _held = TcpStream::connect((LOCAL, full.port)).await.unwrap();
    becomes(&redis(full.port), fail("ping: full")).await;

    let stale = product.start("--replicaof 127.0.0.1 1 --replica-serve-stale-data no").await;
    assert_eq!(probe(&redis(stale.port)).await, fail("ping: no link to its primary"));

    let busy = product.start("--busy-reply-threshold 20").await;
    let mut script = TcpStream::connect((LOCAL, busy.port)).await.unwrap();
    script.write_all(b"EVAL \"while true do end\" 0\r\n").await.unwrap();
    becomes(&of_role(busy.port, Role::Primary), fail("ping: busy with a script")).await;

    let folder = folder_for("redis");
    let lost = folder.path().join("lost");
    std::fs::create_dir(&lost).unwrap();
    std::fs::set_permissions(&lost, std::fs::Permissions::from_mode(0o777)).unwrap();
    let unsaved = product.start_in(folder, &format!("--dir {}", lost.display())).await;
    std::fs::remove_dir(&lost).unwrap();
    say(unsaved.port, "CONFIG SET save \"3600 1\"").await;
    say(unsaved.port, "SET a b").await;
    say(unsaved.port, "BGSAVE").await;
    let reason = "ping: can't save, and takes no writes";
    becomes(&of_role(unsaved.port, Role::Primary), fail(reason)).await;

    pass_in_other_states(product).await;
    load(product).await;
    let protected = Server::says("-DENIED Redis is running in protected mode\r\n").await;
    let reason = "ping: protected mode: Redis takes no clients from other hosts";
    assert_eq!(probe(&redis(protected.port)).await, inconclusive(reason));
}

/// Brings servers into the states that are no concern of a check.
async fn pass_in_other_states(product: &Product) {
    let stale = product.start("--replicaof 127.0.0.1 1").await;
    assert_eq!(probe(&of_role(stale.port, Role::Replica)).await, pass());
    let alone = product.start("--min-replicas-to-write 1").await;
    assert_eq!(probe(&of_role(alone.port, Role::Primary)).await, pass());
    let bus = crate::servers::free_port();
    let cluster = product.start(&format!("--cluster-enabled yes --cluster-port {bus}")).await;
    assert!(say(cluster.port, "GET a").await.starts_with("-CLUSTERDOWN"));
    assert_eq!(probe(&of_role(cluster.port, Role::Primary)).await, pass());
}

/// Starts a server that loads its data for a long time.
async fn load(product: &Product) {
    let folder = folder_for("redis");
    let data = format!("--dir {} --rdbcompression no", folder.path().display());
    let filled = product.start(&data).await;
    for key in 0..60 {
        let set = say(filled.port, &format!("SET {key} {}", "x".repeat(2000))).await;
        assert!(set.starts_with("+OK"), "{set}");
    }
    assert!(say(filled.port, "SAVE").await.starts_with("+OK"));
    let slow = "--key-load-delay 500000 --loading-process-events-interval-bytes 1024";
    let settings = format!("{data} {slow} --requirepass first");
    let loading = product.launch(folder_for("redis"), &settings).await;
    assert_eq!(probe(&with_password(loading.port, "first")).await, fail("ping: loading"));
    let primary = RedisCheck { role: Role::Primary, ..with_password(loading.port, "first") };
    assert_eq!(probe(&primary).await, fail("ping: loading"));
    // Without the password it says no more than that it runs.
    assert_eq!(probe(&redis(loading.port)).await, pass());
    assert!(!loading.log().contains("Ready to accept"), "{}", loading.log());
}

#[tokio::test]
async fn a_sentinel_is_neither_primary_nor_replica() {
    for product in Product::all() {
        ask_sentinel(&product).await;
    }
}

async fn ask_sentinel(product: &Product) {
    let folder = folder_for("redis");
    let config = folder.path().join("sentinel.conf");
    std::fs::write(&config, "").unwrap();
    std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o666)).unwrap();
    let sentinel = Database::start(&product.program, "redis", folder, |folder: &Path, port| {
        let config = folder.join("sentinel.conf").display().to_string();
        let port = port.to_string();
        [&config, "--sentinel", "--port", &port, "--bind", "127.0.0.1"].map(str::to_owned).into()
    })
    .await;
    assert_eq!(probe(&redis(sentinel.port)).await, pass());
    let verdict = probe(&of_role(sentinel.port, Role::Primary)).await;
    assert_eq!(verdict, fail("role: sentinel, not primary"));
}

#[tokio::test]
async fn a_thousand_probes_leave_no_trace() {
    for product in Product::all() {
        probe_thousands(&product).await;
    }
}

async fn probe_thousands(product: &Product) {
    let server = product.start("--requirepass first").await;
    let checks = [
        redis(server.port),
        with_password(server.port, "first"),
        with_password(server.port, "wrong"),
        RedisCheck {
            max_lag: Some(Duration::from_secs(11)),
            ..with_password(server.port, "first")
        },
    ];
    let log = server.log();
    for check in checks {
        let probers: Vec<Prober> =
            (0..16).map(|_| prober(CheckKind::Redis(check.clone()), PATIENT)).collect();
        for _ in 0..63 {
            join_all(probers.iter().map(Prober::probe)).await;
        }
    }
    assert_eq!(server.log(), log);
    assert_eq!(time_waits(server.port), 0);
    eventually_async("no connection is left", async || clients(server.port).await == 1).await;
}

/// Returns the number of clients of a server, this one included.
async fn clients(port: u16) -> usize {
    let mut stream = TcpStream::connect((LOCAL, port)).await.unwrap();
    stream.write_all(b"AUTH first\r\nINFO clients\r\n").await.unwrap();
    let mut answer = String::new();
    while !answer.contains("connected_clients:") || !answer.ends_with('\n') {
        let mut buffer = vec![0; 4096];
        let read = stream.read(&mut buffer).await.unwrap();
        answer += &String::from_utf8_lossy(&buffer[..read]);
    }
    let count = answer.split("connected_clients:").nth(1).unwrap();
    count.lines().next().unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn over_tls_the_words_are_the_same_and_the_log_is_silent() {
    let folder = folder_for("redis");
    let authority = Authority::new();
    let pair = authority.sign(&["127.0.0.1"]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::copy(&pair.cert, path("cert.pem")).unwrap();
    std::fs::copy(&pair.key, path("key.pem")).unwrap();
    let settings = format!(
        "--tls-cert-file {} --tls-key-file {} --tls-auth-clients no --requirepass first",
        path("cert.pem"),
        path("key.pem")
    );
    let readable = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(path("key.pem"), readable).unwrap();
    let server = Product::redis().start_in(folder, &settings).await;
    let tls_port = crate::servers::free_port();
    say(server.port, &format!("AUTH first\r\nCONFIG SET tls-port {tls_port}")).await;
    let tls = Some(authority.trusted());
    let secure = |check: RedisCheck| RedisCheck { tls: tls.clone(), port: tls_port, ..check };
    becomes(&secure(with_password(0, "first")), pass()).await;
    let log = server.log();
    let primary = RedisCheck { role: Role::Primary, ..with_password(0, "first") };
    let kind = CheckKind::Redis(secure(primary.clone()));
    let probers: Vec<Prober> = (0..16).map(|_| prober(kind.clone(), PATIENT)).collect();
    for _ in 0..63 {
        let verdicts = join_all(probers.iter().map(Prober::probe)).await;
        assert!(verdicts.iter().all(|verdict| *verdict == pass()), "{verdicts:?}");
    }
    assert_eq!(time_waits(tls_port), 0);
    assert_eq!(probers[0].observation().unwrap().to_string(), "primary");
    let refused = inconclusive("auth: refused (WRONGPASS): is the password right?");
    assert_eq!(probe(&secure(with_password(0, "wrong"))).await, refused);
    let role = RedisCheck { role: Role::Replica, ..primary };
    assert_eq!(probe(&secure(role)).await, fail("role: primary, not replica"));
    assert_eq!(server.log(), log);

    // A certificate that the check does not trust is a line each time.
    let untrusted = RedisCheck { tls: Some(Tls::default()), ..redis(tls_port) };
    let reason = "tls: certificate signed by an unknown authority";
    assert_eq!(probe(&untrusted).await, fail(reason));
    eventually("it is logged", || server.log().lines().count() == log.lines().count() + 1).await;

    let plain = RedisCheck { tls: Some(Tls::default()), ..redis(server.port) };
    let verdict = probe(&plain).await;
    assert!(format!("{verdict:?}").starts_with("Fail(\"tls: "), "{verdict:?}");
}

#[tokio::test]
async fn no_server_delays_or_misleads_a_probe() {
    let login = |port| RedisCheck { role: Role::Primary, ..with_password(port, "secret") };
    let good = "+OK\r\n+PONG\r\n*3\r\n$6\r\nmaster\r\n:0\r\n*0\r\n";
    let kind = |port, tls| CheckKind::Redis(RedisCheck { tls, ..login(port) });
    let words = Words {
        phase: "auth",
        product: "Redis",
        tls_request: 0,
        tls_grant: b"",
        tls_greeting: b"",
    };
    hostile_native::judge(&words, good.as_bytes(), b":0\r\n*0\r\n", &kind).await;
}
