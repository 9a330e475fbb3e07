//! The examples whose checks ask MySQL servers for their role and state, against MariaDB with
//! replication and with Galera.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use libtest_mimic::Trial;

use super::servers::{Server, run};
use super::{TIMEOUT, expect_published, localised, start};
use crate::cluster::fixture::replace_in;
use crate::support::sandbox::as_ordinary_user;
use crate::support::{Namespace, addresses, case::cases, eventually, shared, temp_dir};

pub(super) fn cases() -> Vec<Trial> {
    cases![mysql_roles, galera]
}

const PASSWORD: &str = "a-password-that-no-log-shows";

/// A MariaDB with users and rights.
struct Node {
    server: Server,
    folder: PathBuf,
}

/// Makes the data of a server in a new folder.
async fn new_data() -> PathBuf {
    let folder = temp_dir("mariadb");
    let mut command = as_ordinary_user("mariadb-install-db");
    command.args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"]);
    command.arg("--innodb-log-file-size=4M");
    command.arg(format!("--datadir={}", folder.join("data").display()));
    // A server removes the temporary files of others in the same folder.
    command.env("TMPDIR", &folder);
    run(command).await.expect("mariadb-install-db");
    folder
}

/// Returns a command that runs statements as root, over the socket in a folder.
fn query(folder: &Path, statements: &str) -> Command {
    let mut command = Command::new("mariadb");
    command.args(["--no-defaults", "-u", "root", "-N", "-e", statements, "-S"]);
    command.arg(folder.join("socket"));
    command
}

impl Node {
    /// Starts a server with the data in a folder.
    async fn start(folder: PathBuf, ip: IpAddr, settings: &[String]) -> Self {
        let place = folder.display();
        let common = [
            "--no-defaults".to_owned(),
            format!("--datadir={place}/data"),
            format!("--socket={place}/socket"),
            format!("--pid-file={place}/pid"),
            format!("--tmpdir={place}"),
            format!("--bind-address={ip}"),
            "--port=3306".to_owned(),
            // There is no name server, and a greeting would wait for it.
            "--skip-name-resolve".to_owned(),
            "--innodb-buffer-pool-size=8M".to_owned(),
            "--innodb-log-file-size=4M".to_owned(),
        ];
        let arguments = [&common, settings].concat();
        let server = Server::start("mariadbd", &folder, move || {
            let mut command = as_ordinary_user("mariadbd");
            command.args(&arguments);
            command
        });
        let mut node = Node { server, folder };
        node.ready().await;
        node
    }

    async fn ready(&mut self) {
        let query = || run(self::query(&self.folder, "SELECT 1"));
        self.server.ready(async || query().await.map(drop)).await;
    }

    /// Runs statements as root.
    async fn apply(&self, statements: &str) -> String {
        let result = run(query(&self.folder, statements)).await;
        result.unwrap_or_else(|error| panic!("{statements}: {error}"))
    }

    /// Creates the user of the check, as the examples say.
    async fn create_user(&self) {
        let user = format!("CREATE USER checker@'%' IDENTIFIED BY '{PASSWORD}'");
        self.apply("DELETE FROM mysql.global_priv WHERE User=''; FLUSH PRIVILEGES").await;
        self.apply(&format!("{user}; GRANT SLAVE MONITOR ON *.* TO checker@'%'")).await;
    }

    /// Makes it a replica.
    async fn follow(&self, primary: IpAddr, position: &str) {
        self.apply(&format!(
            "SET GLOBAL gtid_slave_pos='{position}';
             CHANGE MASTER TO MASTER_HOST='{primary}', MASTER_USER='copy', MASTER_PASSWORD='copy',
                 MASTER_CONNECT_RETRY=1, MASTER_USE_GTID=slave_pos;
             START SLAVE; SET GLOBAL read_only=1"
        ))
        .await;
    }
}

/// Returns an example with these addresses and a file with the password.
fn with_password(file: &str, namespace: &Namespace, ips: &[(&str, IpAddr)]) -> String {
    let path = temp_dir("password").join("password");
    std::fs::write(&path, format!("{PASSWORD}\n")).expect("a file");
    let yaml = localised(file, &[("prod", namespace)], ips);
    replace_in(&yaml, "/etc/checker/password", &path.display().to_string())
}

async fn mysql_roles() {
    let namespace = shared().namespace("mysql-roles").await;
    namespace.create_service("billing", &[("", 3306)]).await;
    namespace.create_service("billing-replicas", &[("", 3306)]).await;
    let [first, second] = addresses::allocate(2)[..] else { panic!("two addresses") };
    let settings = |id: u32| [format!("--server-id={id}"), "--log-bin=bin".to_owned()];
    let mut primary = Node::start(new_data().await, first, &settings(1)).await;
    let replica = Node::start(new_data().await, second, &settings(2)).await;
    for node in [&primary, &replica] {
        node.create_user().await;
        node.apply("CREATE USER copy@'%' IDENTIFIED BY 'copy'").await;
        node.apply("GRANT REPLICATION SLAVE ON *.* TO copy@'%'; RESET MASTER").await;
    }
    replica.follow(first, "").await;

    let ips = [("10.20.8.11", first), ("10.20.8.12", second)];
    let daemon = start(&with_password("mysql-roles.yaml", &namespace, &ips)).await;
    expect_published(&namespace, "billing", &[first]).await;
    expect_published(&namespace, "billing-replicas", &[second]).await;

    primary.server.kill().await;
    expect_published(&namespace, "billing", &[]).await;
    replica.apply("STOP SLAVE; RESET SLAVE ALL; SET GLOBAL read_only=0").await;
    expect_published(&namespace, "billing", &[second]).await;
    expect_published(&namespace, "billing-replicas", &[]).await;

    // It comes back writable, until someone makes it a replica of the new one.
    primary.server.restart();
    primary.ready().await;
    eventually(TIMEOUT, "both are writers", async || {
        let status = daemon.status().await.to_string();
        if status.matches("\"primary\"").count() > 1 { Ok(()) } else { Err(status) }
    })
    .await;
    expect_published(&namespace, "billing", &[second]).await;
    let position = replica.apply("SELECT @@global.gtid_binlog_pos").await;
    primary.follow(second, &position).await;
    expect_published(&namespace, "billing-replicas", &[first]).await;
    expect_published(&namespace, "billing", &[second]).await;
    let aborted = replica.apply("SHOW GLOBAL STATUS LIKE 'Aborted_connects'").await;
    assert!(aborted.ends_with("\t0"), "{aborted}");
    let pages = format!("{}{}", daemon.lines().join("\n"), daemon.status().await);
    assert!(!pages.contains(PASSWORD), "{pages}");
}

/// Returns the settings of a node that joins these others.
fn galera_settings(ip: IpAddr, others: &str) -> Vec<String> {
    [
        "--wsrep-on=ON".to_owned(),
        "--wsrep-provider=/usr/lib/galera/libgalera_smm.so".to_owned(),
        format!("--wsrep-cluster-address=gcomm://{others}"),
        format!("--wsrep-node-address={ip}"),
        format!(
            "--wsrep-provider-options=gmcast.listen_addr=tcp://{ip}:4567;ist.recv_addr={ip}:4568;\
             evs.keepalive_period=PT0.5S;\
             evs.suspect_timeout=PT2S;evs.inactive_timeout=PT4S;gcache.size=4M;gcache.page_size=4M"
        ),
        "--binlog-format=ROW".to_owned(),
        "--innodb-autoinc-lock-mode=2".to_owned(),
    ]
    .into()
}

async fn galera() {
    let namespace = shared().namespace("galera").await;
    namespace.create_service("shop", &[("", 3306)]).await;
    namespace.create_service("shop-writer", &[("", 3306)]).await;
    let [first, second, third] = addresses::allocate(3)[..] else { panic!("three addresses") };
    // All nodes begin with the data of the first one, so that none needs a copy over the network.
    let data = new_data().await;
    let mut node = Node::start(data.clone(), first, &galera_settings(first, "")).await;
    node.create_user().await;
    node.apply("SHUTDOWN").await;
    eventually(TIMEOUT, "it has written its state", async || {
        let log = node.server.log();
        if log.contains("Shutdown complete") { Ok(()) } else { Err(log) }
    })
    .await;
    node.server.kill().await;
    let others = [temp_dir("mariadb"), temp_dir("mariadb")];
    for other in &others {
        let mut command = Command::new("cp");
        command.arg("-a").arg(data.join("data")).arg(other);
        run(command).await.expect("a copy");
    }
    let one = Node::start(data, first, &galera_settings(first, "")).await;
    let [at_second, at_third] = others;
    let mut two = join(at_second, second, first).await;
    let mut three = join(at_third, third, first).await;

    let ips = [("10.20.10.11", first), ("10.20.10.12", second), ("10.20.10.13", third)];
    let daemon = start(&with_password("galera.yaml", &namespace, &ips)).await;
    expect_published(&namespace, "shop", &[first, second, third]).await;
    expect_published(&namespace, "shop-writer", &[first]).await;

    one.apply("SET GLOBAL wsrep_desync=ON").await;
    expect_published(&namespace, "shop", &[second, third]).await;
    expect_published(&namespace, "shop-writer", &[first]).await;
    one.apply("SET GLOBAL wsrep_desync=OFF").await;
    expect_published(&namespace, "shop", &[first, second, third]).await;

    // Without the other two, a node answers logins and reads, and takes no writes.
    two.server.kill().await;
    three.server.kill().await;
    expect_published(&namespace, "shop", &[]).await;
    expect_published(&namespace, "shop-writer", &[]).await;
    let status = daemon.status().await.to_string();
    assert!(status.contains("role: Galera node not synced (state 0)"), "{status}");
    assert!(!status.contains(PASSWORD), "{status}");
}

/// Starts a node that joins another.
async fn join(folder: PathBuf, ip: IpAddr, other: IpAddr) -> Node {
    Node::start(folder, ip, &galera_settings(ip, &other.to_string())).await
}
