//! Real database servers, as Debian packages them, on addresses of the sandbox.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::process::Process;
use crate::support::sandbox::as_ordinary_user;
use crate::support::{addresses, binaries, blocking, eventually, http, temp_dir};

/// The longest time that the first start of a server takes on a busy machine.
const STARTED: Duration = Duration::from_secs(90);

/// A server process that can be killed and restarted.
pub(super) struct Server {
    name: &'static str,
    command: Box<dyn Fn() -> Command + Send + Sync>,
    log: PathBuf,
    process: Option<Process>,
}

impl Server {
    pub(super) fn start(
        name: &'static str,
        folder: &Path,
        command: impl Fn() -> Command + Send + Sync + 'static,
    ) -> Server {
        let mut server =
            Server { name, command: Box::new(command), log: folder.join("log"), process: None };
        server.restart();
        server
    }

    pub(super) fn restart(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        self.process = Some(Process::start(self.name, (self.command)(), &self.log));
    }

    /// Kills it, as a crash does.
    pub(super) async fn kill(&mut self) {
        let process = self.process.take();
        blocking(move || drop(process)).await;
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("the server runs").signal(signal);
    }

    /// Returns its log.
    pub(super) fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until it accepts connections.
    pub(super) async fn ready_at(&mut self, ip: IpAddr, port: u16) {
        self.ready(async || accepts(ip, port).await).await;
    }

    /// Waits until an attempt succeeds. Prints the log if none does.
    pub(super) async fn ready(&mut self, attempt: impl AsyncFnMut() -> Result<(), String>) {
        let ended = self.ready_or_ended(attempt).await;
        assert!(ended.is_none(), "{}", ended.unwrap_or_default());
    }

    /// Waits until an attempt succeeds, or until the process has ended, and returns how it ended.
    async fn ready_or_ended(
        &mut self,
        mut attempt: impl AsyncFnMut() -> Result<(), String>,
    ) -> Option<String> {
        let process = self.process.as_mut().expect("the server runs");
        let mut ended = None;
        eventually(STARTED, self.name, async || {
            ended = process.exit_status();
            if ended.is_some() {
                Ok(())
            } else {
                attempt().await.map_err(|seen| format!("{seen}\n{}", process.log_tail()))
            }
        })
        .await;
        ended.map(|ended| format!("{ended:?}\n{}", process.log_tail()))
    }
}

/// Runs a client and returns its output.
pub(super) async fn run(mut command: Command) -> Result<String, String> {
    let Output { status, stdout, stderr } =
        blocking(move || command.output().expect("a client that is installed")).await;
    let said = String::from_utf8_lossy(&stdout).trim().to_owned();
    if status.success() {
        Ok(said)
    } else {
        Err(format!("{status}: {said}{}", String::from_utf8_lossy(&stderr)))
    }
}

async fn accepts(ip: IpAddr, port: u16) -> Result<(), String> {
    tokio::net::TcpStream::connect((ip, port)).await.map(drop).map_err(|error| error.to_string())
}

pub(super) struct MariaDb {
    pub server: Server,
    socket: PathBuf,
}

/// Starts MariaDB on port 3306 of these addresses. It answers `select @@server_id` with `id`.
pub(super) async fn mariadb(ips: &[IpAddr], id: u32) -> MariaDb {
    let folder = temp_dir("mariadb");
    let socket = folder.join("socket");
    let addresses: Vec<String> = ips.iter().map(ToString::to_string).collect();
    let arguments = [
        "--no-defaults".to_owned(),
        format!("--datadir={}", folder.display()),
        format!("--socket={}", socket.display()),
        format!("--bind-address={}", addresses.join(",")),
        format!("--server-id={id}"),
        "--port=3306".to_owned(),
        // It is new and empty, so it needs no authentication.
        "--skip-grant-tables".to_owned(),
        "--innodb-buffer-pool-size=8M".to_owned(),
        "--innodb-log-file-size=4M".to_owned(),
    ];
    let command = move || {
        let mut command = as_ordinary_user("mariadbd");
        command.args(&arguments);
        command
    };
    let mut database = MariaDb { server: Server::start("mariadbd", &folder, command), socket };
    database.ready().await;
    database
}

impl MariaDb {
    pub(super) async fn ready(&mut self) {
        let query = self.query("select 1");
        self.server.ready(async || run(clone(&query)).await.map(drop)).await;
    }

    /// Returns the value of one of its counters. The query itself is a connection too.
    pub(super) async fn counter(&self, name: &str) -> u64 {
        let said =
            run(self.query(&format!("show global status like '{name}'"))).await.expect("an answer");
        said.split_whitespace()
            .last()
            .and_then(|value| value.parse().ok())
            .unwrap_or_else(|| panic!("{name}: {said}"))
    }

    fn query(&self, query: &str) -> Command {
        let mut command = Command::new("mariadb");
        command.args(["--no-defaults", "-N", "-e", query, "-S"]).arg(&self.socket);
        command
    }
}

/// Queries MariaDB at an address, such as a Service's.
pub(super) async fn ask_mariadb(ip: IpAddr, query: &str) -> Result<String, String> {
    let mut command = Command::new("mariadb");
    command.args([
        "--no-defaults",
        "--connect-timeout=5",
        "-u",
        "app",
        "-P",
        "3306",
        "-N",
        "-e",
        query,
        "-h",
    ]);
    command.arg(ip.to_string());
    run(command).await
}

fn clone(command: &Command) -> Command {
    let mut copy = Command::new(command.get_program());
    copy.args(command.get_args());
    copy
}

/// Returns the folder of PostgreSQL's newest version in Debian.
pub(super) fn postgres_programs() -> PathBuf {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("Debian's package postgresql");
    let version = |folder: &PathBuf| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.flatten().map(|entry| entry.path()).max_by_key(version);
    newest.expect("a version of PostgreSQL").join("bin")
}

/// Settings for a small server that does not care about crashes.
const POSTGRES: [(&str, &str); 4] = [
    ("fsync", "off"),
    ("shared_buffers", "8MB"),
    ("max_connections", "20"),
    ("log_connections", "off"),
];

/// Starts PostgreSQL without Patroni on port 5432 of this address.
pub(super) async fn postgres(ip: IpAddr) -> Server {
    let folder = temp_dir("postgres");
    let data = folder.join("data");
    let mut initdb = as_ordinary_user(postgres_programs().join("initdb"));
    initdb
        .args([
            "-U",
            "postgres",
            "-A",
            "trust",
            "--no-sync",
            "--no-instructions",
            "--locale=C",
            "-D",
        ])
        .arg(&data);
    run(initdb).await.expect("initdb");
    std::fs::write(data.join("pg_hba.conf"), POSTGRES_RULES).expect("a file");
    postgres_in(&folder, ip).await
}

/// The rules of a PostgreSQL: only the user of checks needs a password.
const POSTGRES_RULES: &str = "host all checker all scram-sha-256\n\
                              host all all all trust\n\
                              host replication all all trust\n\
                              local all all trust\n";

/// Starts PostgreSQL on port 5432 of this address, with the data in this folder.
pub(super) async fn postgres_in(folder: &Path, ip: IpAddr) -> Server {
    let (data, sockets) = (folder.join("data"), folder.to_owned());
    let command = move || {
        let mut command = as_ordinary_user(postgres_programs().join("postgres"));
        command.arg("-D").arg(&data).arg("-k").arg(&sockets).args(["-h", &ip.to_string()]);
        command.args(
            POSTGRES.iter().flat_map(|(name, value)| ["-c".to_owned(), format!("{name}={value}")]),
        );
        command
    };
    let mut server = Server::start("postgres", folder, command);
    server.ready(async || ask_postgres(ip, "select 1").await.map(drop)).await;
    server
}

/// Queries PostgreSQL at an address, such as a Service's.
pub(super) async fn ask_postgres(ip: IpAddr, query: &str) -> Result<String, String> {
    let mut command = Command::new("psql");
    command.env("PGCONNECT_TIMEOUT", "5");
    command
        .args(["-U", "postgres", "-d", "postgres", "-XAt", "-c", query, "-h"])
        .arg(ip.to_string());
    run(command).await
}

/// Two PostgreSQL servers under Patroni, which elect the primary by an etcd of their own.
pub(super) struct Patroni {
    /// The servers. The first one is the primary at the start.
    pub nodes: Vec<Server>,
    _etcd: Process,
}

pub(super) async fn patroni(ips: [IpAddr; 2]) -> Patroni {
    let folder = temp_dir("patroni");
    let (clients, peers) = (addresses::allocate_port(), addresses::allocate_port());
    let mut etcd = Command::new(binaries::kubernetes("etcd"));
    etcd.args(["--name=etcd", "--unsafe-no-fsync", "--log-level=warn"]);
    etcd.args([
        format!("--data-dir={}", folder.join("etcd").display()),
        format!("--listen-client-urls=http://127.0.0.1:{clients}"),
        format!("--advertise-client-urls=http://127.0.0.1:{clients}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
        format!("--initial-advertise-peer-urls=http://127.0.0.1:{peers}"),
        format!("--initial-cluster=etcd=http://127.0.0.1:{peers}"),
    ]);
    let etcd = Process::start("etcd", etcd, &folder.join("etcd.log"));
    let mut nodes = Vec::new();
    for (index, ip) in ips.into_iter().enumerate() {
        let node = folder.join(format!("pg-{index}"));
        std::fs::create_dir(&node).expect("a folder in the sandbox");
        let path = node.join("patroni.yaml");
        std::fs::write(&path, patroni_config(&node, index, ip, clients).to_string())
            .expect("a file in the sandbox");
        let command = move || {
            let mut command = as_ordinary_user("patroni");
            command.arg(&path);
            command
        };
        let mut server = Server::start("patroni", &node, command);
        // The second one clones the first, so it starts when the first is the primary.
        let role = if index == 0 { "/primary" } else { "/replica" };
        let api = std::net::SocketAddr::new(ip, 8008);
        let mut has_role = async || match http::get(api, role).await {
            Ok((200, _)) => Ok(()),
            Ok((status, body)) => Err(format!("{status}: {body}")),
            Err(error) => Err(error.to_string()),
        };
        // Patroni gives a bootstrap up that a busy machine delays, and cleans up behind itself.
        // Services restart it then.
        for _ in 0..2 {
            if server.ready_or_ended(&mut has_role).await.is_some() {
                server.kill().await;
                // It says that the bootstrap has failed, and trials look for such traces.
                std::fs::remove_file(&server.log).expect("a log");
                server.restart();
            }
        }
        server.ready(has_role).await;
        nodes.push(server);
    }
    Patroni { nodes, _etcd: etcd }
}

/// Returns a node's config as JSON, which is YAML too.
fn patroni_config(folder: &Path, index: usize, ip: IpAddr, etcd: u16) -> serde_json::Value {
    let parameters: serde_json::Map<_, _> =
        POSTGRES.iter().map(|(name, value)| ((*name).to_owned(), json!(value))).collect();
    let mut parameters = serde_json::Value::from(parameters);
    parameters["unix_socket_directories"] = json!(folder);
    json!({
        "scope": "orders",
        "name": format!("pg-{index}"),
        "restapi": {"listen": format!("{ip}:8008"), "connect_address": format!("{ip}:8008")},
        "etcd3": {"host": format!("127.0.0.1:{etcd}")},
        "bootstrap": {
            "dcs": {"ttl": 20, "loop_wait": 1, "retry_timeout": 5},
            "initdb": ["no-sync", "no-instructions", {"encoding": "UTF8"}, {"locale": "C"}],
            "pg_hba": [
                "host all all all trust",
                "host replication all all trust",
                "local all all trust",
            ],
        },
        "postgresql": {
            "listen": format!("{ip}:5432"),
            "connect_address": format!("{ip}:5432"),
            "data_dir": folder.join("data"),
            "bin_dir": postgres_programs(),
            "pgpass": folder.join("pgpass"),
            "authentication": {
                "superuser": {"username": "postgres"},
                "replication": {"username": "replicator"},
            },
            "parameters": parameters,
            "basebackup": ["checkpoint=fast", "no-sync"],
        },
    })
}

/// Starts an etcd of one member on port 2379 of this address.
pub(super) async fn etcd(ip: IpAddr) -> Server {
    let folder = temp_dir("etcd");
    let (data, peers) = (folder.join("data"), addresses::allocate_port());
    let command = move || {
        let mut command = Command::new(binaries::kubernetes("etcd"));
        command.args(["--name=etcd", "--unsafe-no-fsync", "--log-level=warn"]).args([
            format!("--data-dir={}", data.display()),
            format!("--listen-client-urls=http://{ip}:2379"),
            format!("--advertise-client-urls=http://{ip}:2379"),
            format!("--listen-peer-urls=http://127.0.0.1:{peers}"),
            format!("--initial-advertise-peer-urls=http://127.0.0.1:{peers}"),
            format!("--initial-cluster=etcd=http://127.0.0.1:{peers}"),
        ]);
        command
    };
    let mut server = Server::start("etcd", &folder, command);
    server.ready(async || accepts(ip, 2379).await).await;
    server
}

/// Starts a server for MongoDB's protocol on port 27017 of this address.
pub(super) async fn mongodb(ip: IpAddr) -> Server {
    let folder = temp_dir("mongodb");
    let data = folder.clone();
    let command = move || {
        let mut command = Command::new(binaries::ferretdb());
        command.arg(format!("{ip}:27017")).arg(&data);
        command
    };
    let mut server = Server::start("ferretdb", &folder, command);
    server.ready(async || accepts(ip, 27017).await).await;
    server
}

/// Starts Redis on port 6379 of this address.
pub(super) async fn redis(ip: IpAddr) -> Server {
    redis_with(ip, &[]).await
}

/// Starts Redis on port 6379 of this address, with more arguments.
pub(super) async fn redis_with(ip: IpAddr, more: &[&str]) -> Server {
    let folder = temp_dir("redis");
    let data = folder.clone();
    let more: Vec<String> = more.iter().map(|word| (*word).to_owned()).collect();
    let command = move || {
        let mut command = Command::new("redis-server");
        command.args([
            "--bind",
            &ip.to_string(),
            "--port",
            "6379",
            "--save",
            "",
            "--protected-mode",
            "no",
            "--dir",
        ]);
        command.arg(&data).args(&more);
        command
    };
    let mut server = Server::start("redis-server", &folder, command);
    server.ready(async || accepts(ip, 6379).await).await;
    server
}
