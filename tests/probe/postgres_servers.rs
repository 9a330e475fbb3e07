//! Servers of PostgreSQL: that of the distribution, and versions that are fetched. A test skips one
//! that can't be had, and says so.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use external_endpoints::config::{CheckKind, PostgresCheck, Role};
use external_endpoints::health::Verdict;

use crate::certificates::Pair;
use crate::fixtures::*;
use crate::servers::{Database, as_user, fetched, find, folder_for};

/// The programs of one version.
#[derive(Debug, Clone)]
pub(crate) struct Product {
    folder: PathBuf,
    /// The version that a server of it reports.
    pub version: String,
}

impl Product {
    /// Returns the version of the distribution.
    pub(crate) fn debian() -> Self {
        Self::in_folder(find("initdb").parent().unwrap().into()).unwrap()
    }

    /// Returns the oldest and the newest version that can be fetched, and that of the distribution.
    pub(crate) fn all() -> Vec<Self> {
        static FETCHED: OnceLock<Vec<Product>> = OnceLock::new();
        let fetched =
            FETCHED.get_or_init(|| ["9.6", "18"].into_iter().filter_map(Self::fetch).collect());
        [&[Self::debian()], &fetched[..]].concat()
    }

    fn fetch(version: &str) -> Option<Self> {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand-ins/postgres/fetch.sh");
        let folder = fetched(script, &[version])?;
        let product = Self::in_folder(folder.join("bin"));
        if product.is_none() {
            eprintln!(
                "skipped: the user postgres can't run PostgreSQL {version} in {}; set \
                 XDG_CACHE_HOME to a folder that all may read",
                folder.display()
            );
        }
        product
    }

    fn in_folder(folder: PathBuf) -> Option<Self> {
        let mut command = as_user("postgres", &folder.join("postgres"));
        let output = command.arg("--version").current_dir("/tmp").output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let version = text.split_whitespace().nth(2).map(str::to_owned);
        version.map(|version| Self { folder, version })
    }

    pub(crate) fn major(&self) -> u32 {
        self.version.split('.').next().unwrap().parse().unwrap()
    }

    /// Returns the command of one of its programs, as the user of the servers.
    fn program(&self, name: &str) -> Command {
        as_user("postgres", &self.folder.join(name))
    }

    /// Returns the rules of the servers: the superuser over the socket, replicas, and users of each
    /// method.
    fn rules(&self) -> String {
        let method = if self.major() < 10 { "md5" } else { "scram-sha-256" };
        format!(
            "local all all trust\n\
             local replication all trust\n\
             host replication all 127.0.0.1/32 trust\n\
             host all trusted 127.0.0.1/32 trust\n\
             host all md5user 127.0.0.1/32 md5\n\
             host all clear 127.0.0.1/32 password\n\
             host all rejected 127.0.0.1/32 reject\n\
             host all all 127.0.0.1/32 {method}\n"
        )
    }

    /// Makes the data of a server.
    pub(crate) fn new_data(&self) -> tempfile::TempDir {
        let folder = folder_for("postgres");
        let data = folder.path().join("data");
        let mut initdb = self.program("initdb");
        initdb.args(["-A", "trust", "-N", "-U", "postgres", "--locale=C", "-D"]).arg(&data);
        run(initdb);
        std::fs::write(data.join("pg_hba.conf"), self.rules()).unwrap();
        folder
    }

    pub(crate) async fn start_in(&self, folder: tempfile::TempDir, settings: &str) -> Database {
        let settings = format!("{SETTINGS} {settings}");
        Database::start(&self.folder.join("postgres"), "postgres", folder, |folder, port| {
            let folder = folder.display();
            let place =
                format!("-D {folder}/data -k {folder} -p {port} -h 127.0.0.1 -F {settings}");
            place.split_whitespace().map(str::to_owned).collect()
        })
        .await
    }

    /// Starts a primary with a user for each way of login.
    pub(crate) async fn primary(&self, settings: &str) -> Database {
        self.primary_in(self.new_data(), settings).await
    }

    pub(crate) async fn primary_in(&self, folder: tempfile::TempDir, settings: &str) -> Database {
        let server = self.start_in(folder, settings).await;
        becomes(&postgres(server.port), pass()).await;
        let md5 = if self.major() < 10 { "on" } else { "'md5'" };
        sql(&server, &USERS.replace("'md5'", md5));
        server
    }

    /// Starts a standby of a primary.
    pub(crate) async fn standby(&self, primary: &Database, settings: &str) -> Database {
        let conninfo = format!("host=127.0.0.1 port={} user=postgres", primary.port);
        let recovery = format!("primary_conninfo = '{conninfo}'\n");
        self.start_in(self.standby_data(primary, &recovery), settings).await
    }

    /// Makes the data of a standby with settings of its recovery. It is a copy of the primary's,
    /// which must be idle, and one commit behind it before it has started.
    pub(crate) fn standby_data(&self, primary: &Database, recovery: &str) -> tempfile::TempDir {
        let folder = folder_for("postgres");
        let data = folder.path().join("data");
        sql(primary, "CHECKPOINT");
        sql(primary, "CREATE TABLE copied (at timestamptz); DROP TABLE copied");
        let mut copy = Command::new("cp");
        copy.arg("-a").arg(primary.folder.path().join("data")).arg(&data);
        run(copy);
        std::fs::remove_file(data.join("postmaster.pid")).unwrap();
        if self.major() < 12 {
            let file = data.join("recovery.conf");
            std::fs::write(&file, format!("standby_mode = on\n{recovery}")).unwrap();
            own(&file);
        } else {
            std::fs::write(data.join("standby.signal"), "").unwrap();
            std::fs::write(data.join("postgresql.auto.conf"), recovery).unwrap();
        }
        folder
    }
}

const SETTINGS: &str = "-c max_connections=20 -c shared_buffers=8MB -c wal_level=replica \
                        -c max_wal_senders=4 -c hot_standby=on -c autovacuum=off";

const USERS: &str = "CREATE ROLE checker LOGIN PASSWORD 'secret'; CREATE ROLE trusted LOGIN; \
                     CREATE ROLE clear LOGIN PASSWORD 'secret'; \
                     CREATE ROLE rejected LOGIN PASSWORD 'secret'; \
                     SET password_encryption = 'md5'; \
                     CREATE ROLE md5user LOGIN PASSWORD 'secret'";

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

pub(crate) fn login(port: u16, user: &str, password: &str) -> PostgresCheck {
    PostgresCheck { user: Some(literal(user)), password: Some(literal(password)), ..postgres(port) }
}

pub(crate) async fn probe(check: &PostgresCheck) -> Verdict {
    probe_once(CheckKind::Postgres(check.clone()), PATIENT).await
}

pub(crate) async fn becomes(check: &PostgresCheck, expected: Verdict) {
    expect_verdict(CheckKind::Postgres(check.clone()), expected).await;
}

fn run(mut command: Command) -> String {
    let output = command.current_dir("/tmp").output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the command of a client as the superuser, over the socket in the folder.
pub(crate) fn client(database: &Database) -> Command {
    let mut command = as_user("postgres", &find("psql"));
    let port = database.port.to_string();
    command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres", "-p", &port]);
    command.arg("-h").arg(database.folder.path());
    command
}

/// Runs statements as the superuser.
pub(crate) fn sql(database: &Database, statements: &str) -> String {
    let mut command = client(database);
    command.args(["-c", statements]);
    run(command).trim().to_owned()
}

/// Makes a standby a primary, as `pg_ctl promote` does it.
pub(crate) fn promote(standby: &Database) {
    std::fs::write(standby.folder.path().join("data/promote"), "").unwrap();
    standby.signal(rustix::process::Signal::USR1);
}

/// Gives the data of a server this certificate.
pub(crate) fn set_certificate(folder: &Path, pair: &Pair) {
    for (from, name) in [(&pair.cert, "server.crt"), (&pair.key, "server.key")] {
        let path = folder.join("data").join(name);
        std::fs::copy(from, &path).unwrap();
        own(&path);
    }
}

/// Makes a file one that the server takes as a key.
pub(crate) fn own(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    if rustix::process::geteuid().is_root() {
        let status = Command::new("chown").arg("postgres").arg(path).status().unwrap();
        assert!(status.success());
    }
}
