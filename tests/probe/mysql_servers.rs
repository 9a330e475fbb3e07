//! Servers of MySQL: MariaDB of the distribution, and versions of MySQL that are fetched. A test
//! skips one that can't be had, and says so.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use crate::certificates::Authority;
use crate::servers::{Database, as_user, fetched, find, folder_for};

/// The server program of one version.
#[derive(Clone)]
pub(crate) struct Product {
    pub name: &'static str,
    daemon: PathBuf,
    /// The folder of a MySQL that was fetched.
    base: Option<PathBuf>,
}

pub(crate) fn mariadb() -> Product {
    Product { name: "MariaDB", daemon: find("mariadbd"), base: None }
}

/// Returns a version of MySQL, or none if it can't be had.
pub(crate) fn mysql(version: &'static str) -> Option<Product> {
    static FETCHED: [OnceLock<Option<PathBuf>>; 2] = [OnceLock::new(), OnceLock::new()];
    let slot = usize::from(version.starts_with('8'));
    let base = FETCHED[slot].get_or_init(|| fetch(version)).clone()?;
    Some(Product { name: version, daemon: base.join("bin/mysqld"), base: Some(base) })
}

fn fetch(version: &str) -> Option<PathBuf> {
    fetched(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand-ins/mysql/fetch.sh"), &[version])
}

impl Product {
    /// Returns all that can be had.
    pub(crate) fn all() -> Vec<Self> {
        [Some(mariadb()), mysql("5.7.22"), mysql("8.0.12")].into_iter().flatten().collect()
    }

    pub(crate) fn is_mariadb(&self) -> bool {
        self.base.is_none()
    }

    /// Makes the data of a new server in a folder.
    fn initialise(&self, folder: &tempfile::TempDir) {
        let data = format!("--datadir={}", folder.path().join("data").display());
        let mut command = match &self.base {
            None => {
                let mut command = as_user("root", &find("mariadb-install-db"));
                command.args(["--no-defaults", "--auth-root-authentication-method=normal"]);
                command.args(["--skip-test-db", "--innodb-log-file-size=4M"]);
                command
            }
            Some(base) => {
                let mut command = as_user("root", &self.daemon);
                command.args(["--no-defaults", "--initialize-insecure"]);
                command.args(["--innodb-log-file-size=4M"]);
                command.arg(format!("--basedir={}", base.display()));
                command
            }
        };
        // A server removes the temporary files of others in the same folder.
        command.env("TMPDIR", folder.path());
        let output = command.args(["--user=root", &data]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

pub(crate) async fn start(product: &Product, settings: &str) -> Database {
    start_in(product, folder_for("root"), settings).await
}

/// Starts a new server with a certificate of this authority.
pub(crate) async fn start_with_tls(
    product: &Product,
    authority: &Authority,
    settings: &str,
) -> Database {
    let folder = folder_for("root");
    let pair = authority.sign(&["127.0.0.1"]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::copy(&pair.cert, path("cert.pem")).unwrap();
    std::fs::copy(&pair.key, path("key.pem")).unwrap();
    let (cert, key) = (path("cert.pem"), path("key.pem"));
    let settings = format!("--ssl-cert={cert} --ssl-key={key} {settings}");
    start_in(product, folder, &settings).await
}

/// Starts a new server in a folder, with a user for the checks and one without a password.
pub(crate) async fn start_in(
    product: &Product,
    folder: tempfile::TempDir,
    settings: &str,
) -> Database {
    product.initialise(&folder);
    let server = run_in(product, folder, settings).await;
    let anonymous =
        if product.is_mariadb() { "DELETE FROM mysql.global_priv WHERE User='';" } else { "" };
    let free = if product.name.starts_with('8') { "WITH mysql_native_password" } else { "" };
    let free = if free.is_empty() { String::new() } else { format!("IDENTIFIED {free}") };
    sql(
        &server,
        &format!(
            "{anonymous} FLUSH PRIVILEGES; CREATE USER checker@'%' IDENTIFIED BY 'secret';
             CREATE USER free@'%' {free}"
        ),
    );
    server
}

/// Starts a server with the data in a folder.
pub(crate) async fn run_in(
    product: &Product,
    folder: tempfile::TempDir,
    settings: &str,
) -> Database {
    let settings: Vec<String> = settings.split_whitespace().map(str::to_owned).collect();
    let base = product.base.clone();
    let server = Database::start(&product.daemon, "root", folder, move |folder, port| {
        let folder = folder.display();
        let base = base.iter().map(|base| format!("--basedir={}", base.display()));
        let common = [
            "--no-defaults".to_owned(),
            "--user=root".to_owned(),
            format!("--datadir={folder}/data"),
            format!("--socket={folder}/socket"),
            format!("--pid-file={folder}/pid"),
            format!("--tmpdir={folder}"),
            format!("--port={port}"),
            "--innodb-buffer-pool-size=8M".to_owned(),
            "--innodb-log-file-size=4M".to_owned(),
            "--loose-mysqlx=OFF".to_owned(),
        ];
        common.into_iter().chain(base).chain(settings.clone()).collect()
    })
    .await;
    crate::fixtures::eventually_async("the server is ready", async || {
        client(&server).args(["-e", "SELECT 1"]).output().unwrap().status.success()
    })
    .await;
    server
}

/// Returns the command of a client as root, over the socket in the folder.
pub(crate) fn client(server: &Database) -> Command {
    let mut command = as_user("root", &find("mariadb"));
    command.args(["--no-defaults", "-u", "root", "-N", "-S"]);
    command.arg(server.folder.path().join("socket"));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    command
}

/// Runs statements as root.
pub(crate) fn sql(server: &Database, statements: &str) -> String {
    let output = client(server).args(["-e", statements]).output().unwrap();
    assert!(output.status.success(), "{statements}: {output:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}
