//! Real databases from the distribution's packages: the verdicts on them, and their logs about the
//! checks. A test skips a database that is not installed, and says so.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use external_endpoints::config::{CheckKind, TcpCheck};

use crate::fixtures::*;

/// A server that ends with its test, in a folder of its own.
pub(crate) struct Database {
    child: Child,
    pub folder: tempfile::TempDir,
    pub port: u16,
}

impl Drop for Database {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Database {
    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Starts the server as this user, if the tests run as root, and waits until its port answers.
    pub(crate) async fn start(
        program: &Path,
        user: &str,
        folder: tempfile::TempDir,
        arguments: impl Fn(&Path, u16) -> Vec<String>,
    ) -> Self {
        let port = free_port();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let mut command = as_user(user, program);
        command.args(arguments(folder.path(), port)).current_dir(folder.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut database = Self { child: command.spawn().unwrap(), folder, port };
        let prober = prober(CheckKind::Tcp(tcp(port)), PATIENT);
        let start = std::time::Instant::now();
        while prober.probe().await != pass() {
            let ended = database.child.try_wait().unwrap();
            let waited = start.elapsed() > std::time::Duration::from_secs(30);
            assert!(ended.is_none() && !waited, "{ended:?}: {}", database.log());
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        database
    }
}

/// Returns a port that the kernel does not assign by itself, so that no other test gets it first.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    loop {
        let next = TAKEN.fetch_add(1, Ordering::Relaxed) + (std::process::id() % 5000) as u16;
        if std::net::TcpListener::bind((LOCAL, 20_000 + next)).is_ok() {
            return 20_000 + next;
        }
    }
}

/// Finds a program in the folders where packages put servers.
pub(crate) fn find(name: &str) -> PathBuf {
    let mut folders: Vec<PathBuf> =
        ["/usr/sbin", "/usr/bin", "/usr/local/bin"].map(PathBuf::from).into();
    if let Ok(versions) = std::fs::read_dir("/usr/lib/postgresql") {
        folders.extend(versions.flatten().map(|version| version.path().join("bin")));
    }
    let found = folders.into_iter().map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{name} is not installed; `make setup` installs it"))
}

/// Returns the folder that a script has fetched, or none if it says that it can't be had.
pub(crate) fn fetched(script: &str, arguments: &[&str]) -> Option<PathBuf> {
    let output = Command::new(script).args(arguments).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 2)), "{output:?}");
    if output.status.success() {
        return Some(String::from_utf8(output.stdout).unwrap().trim().into());
    }
    eprintln!("skipped: {}", String::from_utf8_lossy(&output.stderr).trim());
    None
}

/// Returns the command as another user, as most servers refuse to run as root. It ends with the
/// test.
pub(crate) fn as_user(user: &str, program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if rustix::process::geteuid().is_root() && user != "root" {
        command.args(["--reuid", user, "--regid", user, "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

/// Creates a folder that the user may write to.
pub(crate) fn folder_for(user: &str) -> tempfile::TempDir {
    let folder = tempfile::Builder::new().prefix("probe-").tempdir_in("/tmp").unwrap();
    if rustix::process::geteuid().is_root() {
        let status = Command::new("chown").arg(user).arg(folder.path()).status().unwrap();
        assert!(status.success());
    }
    folder
}

#[tokio::test]
async fn redis_answers_ping() {
    let program = find("redis-server");
    let redis = Database::start(&program, "redis", folder_for("redis"), |_, port| {
        ["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
            .map(str::to_owned)
            .into()
    })
    .await;
    let ping = |expect: &str| {
        CheckKind::Tcp(TcpCheck {
            send: Some(literal("PING\r\n")),
            expect: Some(expect.into()),
            ..tcp(redis.port)
        })
    };
    assert_eq!(probe_once(ping("+PONG"), PATIENT).await, pass());
    let verdict = probe_once(ping("+OK"), SHORT).await;
    assert_eq!(verdict, fail("expect: the expected text did not arrive in 500ms"));
}

#[tokio::test]
async fn mariadb_counts_no_aborted_connect() {
    let (program, client) = (find("mariadbd"), find("mariadb"));
    let mariadb = Database::start(&program, "mysql", folder_for("mysql"), |folder, port| {
        vec![
            "--no-defaults".into(),
            format!("--datadir={}", folder.display()),
            format!("--socket={}/socket", folder.display()),
            format!("--port={port}"),
            "--bind-address=127.0.0.1".into(),
            "--skip-grant-tables".into(),
        ]
    })
    .await;
    let status = |name: &str| -> u64 {
        let query = format!("SHOW GLOBAL STATUS LIKE '{name}'");
        let mut command = Command::new(&client);
        command
            .arg("--no-defaults")
            .arg("-S")
            .arg(mariadb.folder.path().join("socket"))
            .args(["-N", "-e", &query]);
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split_whitespace().last().and_then(|word| word.parse().ok()).expect(&text)
    };
    let quiet = prober(CheckKind::Tcp(tcp(mariadb.port)), PATIENT);
    let before = status("Aborted_connects");
    for _ in 0..1000 {
        assert_eq!(quiet.probe().await, pass());
    }
    // Full handshakes are counted, which proves that half-open ones would have been.
    let loud = prober(CheckKind::Tcp(TcpCheck { accept: true, ..tcp(mariadb.port) }), PATIENT);
    for _ in 0..100 {
        assert_eq!(loud.probe().await, pass());
    }
    eventually("the loud ones are counted", || status("Aborted_connects") >= before + 100).await;
    let quiet = status("Aborted_connects") - before - 100;
    assert!(quiet <= late(1000) as u64, "{quiet} of 1000 quiet probes were counted");
    let banner = TcpCheck { expect: Some("MariaDB".into()), ..tcp(mariadb.port) };
    assert_eq!(probe_once(CheckKind::Tcp(banner), PATIENT).await, pass());
    // A server that speaks first is no web server.
    let verdict = probe_once(CheckKind::Http(http(mariadb.port)), PATIENT).await;
    assert!(format!("{verdict:?}").starts_with("Fail(\"http: not HTTP: "), "{verdict:?}");
}

/// Starts a PostgreSQL that logs connections.
async fn postgresql() -> Database {
    let (program, initdb) = (find("postgres"), find("initdb"));
    let folder = folder_for("postgres");
    let data = folder.path().join("data");
    let mut command = as_user("postgres", &initdb);
    command.arg("-D").arg(&data).args(["-A", "trust", "-N", "-U", "postgres", "--no-instructions"]);
    let output = command.current_dir(folder.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Database::start(&program, "postgres", folder, |folder, port| {
        let folder = folder.display();
        let settings =
            format!("-D {folder}/data -k {folder} -p {port} -h 127.0.0.1 -F -c log_connections=on");
        settings.split(' ').map(str::to_owned).collect()
    })
    .await
}

/// The message that asks a PostgreSQL for TLS, which it answers before authentication.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

#[tokio::test]
async fn postgresql_logs_nothing_about_an_answered_question() {
    let postgres = postgresql().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), SSL_REQUEST).unwrap();
    let asking = |expect: &str| {
        let send = Some(external_endpoints::config::ValueSource::File(file.path().to_owned()));
        CheckKind::Tcp(TcpCheck { send, expect: Some(expect.into()), ..tcp(postgres.port) })
    };
    let prober = prober(asking("N"), PATIENT);
    let logged = |words: &str| postgres.log().matches(words).count();
    for _ in 0..500 {
        assert_eq!(prober.probe().await, pass());
    }
    // A connection that is cut off, which the server logs.
    assert_eq!(
        probe_once(asking("S"), SHORT).await,
        fail("expect: the expected text did not arrive in 500ms")
    );
    eventually("all are logged as received", || logged("connection received") > 500).await;
    eventually("a reset is logged", || logged("Connection reset by peer") > 0).await;
    // The probes during the start may be logged too, and end with a reset.
    let others = logged("connection received") - 500;
    assert!(logged("could not") <= others, "{}", postgres.log());
    assert_eq!(time_waits(postgres.port), 0);
}

/// Returns the number of connections to this port in TIME_WAIT.
pub(crate) fn time_waits(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    // State 06 is TIME_WAIT.
    table
        .lines()
        .filter(|line| line.contains(&format!(":{port:04X} ")) && line.contains(" 06 "))
        .count()
}

#[tokio::test]
async fn postgresql_logs_no_connection() {
    let (postgres, ready) = (postgresql().await, find("pg_isready"));
    let quiet = prober(CheckKind::Tcp(tcp(postgres.port)), PATIENT);
    for _ in 0..200 {
        assert_eq!(quiet.probe().await, pass());
    }
    let loud = prober(CheckKind::Tcp(TcpCheck { accept: true, ..tcp(postgres.port) }), PATIENT);
    for _ in 0..20 {
        assert_eq!(loud.probe().await, pass());
    }
    let logged = || postgres.log().matches("connection received").count();
    eventually("the loud ones are logged", || logged() >= 20).await;
    assert!(logged() <= 20 + late(200), "{}", postgres.log());
    // A real client as an exec check, with the target in its arguments.
    let mut isready =
        exec(&[ready.to_str().unwrap(), "-h", "$(TARGET_IP)", "-p", "$(TARGET_PORT)", "-t", "5"]);
    isready.env.push(("PGUSER".into(), literal("postgres")));
    let mut target = target(LOCAL);
    target.port = postgres.port;
    let prober = prober_for(CheckKind::Exec(isready), PATIENT, target);
    // The port answers a little before the server has started.
    let start = std::time::Instant::now();
    let mut verdict = prober.probe().await;
    while verdict != pass() && start.elapsed() < PATIENT {
        verdict = prober.probe().await;
    }
    assert_eq!(verdict, pass());
}
