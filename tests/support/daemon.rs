//! The real daemon as a child process, with access to its log, status and metrics.

use std::fs;
use std::io::{BufRead as _, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::process::kill_group;
use super::{eventually, http, temp_dir};

/// The path of the daemon's program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_external-endpoints");

/// A placeholder argument for "no argument about the Lease": the daemon uses its default Lease.
pub(crate) const DEFAULT_LEASE: &str = "the Lease of its own namespace";

/// A daemon that is killed when it is dropped. If the test panics, the end of its log is printed.
pub(crate) struct Daemon {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
    config: PathBuf,
    admin: Option<SocketAddr>,
}

impl Daemon {
    /// Starts the daemon and waits until its admin port listens.
    pub(crate) async fn start(config: &str, kubeconfig: &Path, extra: &[&str]) -> Daemon {
        Daemon::spawn(config, Some(kubeconfig), extra).wait_until_listening().await
    }

    /// Starts the daemon by a command that prepares its environment, and waits until its admin port
    /// listens. The daemon's arguments are appended to the command.
    pub(crate) async fn start_command(command: Command, config: &str, extra: &[&str]) -> Daemon {
        Daemon::spawn_command(command, config, extra).wait_until_listening().await
    }

    /// Waits until its admin port listens.
    async fn wait_until_listening(mut self) -> Daemon {
        let daemon = &mut self;
        let address =
            eventually(Duration::from_secs(30), "the daemon's admin port listens", async || {
                if let Some(status) = daemon.exit_status() {
                    return Some(Err(status));
                }
                daemon.admin_address().map(Ok)
            })
            .await;
        match address {
            Ok(address) => daemon.admin = Some(address),
            Err(status) => panic!("the daemon ended at its start: {status}"),
        }
        self
    }

    /// Starts the daemon without waiting, for one that may refuse to run. Without a kubeconfig it
    /// finds no cluster.
    pub(crate) fn spawn(config: &str, kubeconfig: Option<&Path>, extra: &[&str]) -> Daemon {
        let mut command = Command::new(PROGRAM);
        command.env("KUBECONFIG", kubeconfig.unwrap_or(Path::new("/nowhere/kubeconfig")));
        Daemon::spawn_command(command, config, extra)
    }

    /// Starts the daemon without leader election, unless `extra` says something about a Lease. Most
    /// tests run one daemon and restart it at will.
    fn spawn_command(mut command: Command, config: &str, extra: &[&str]) -> Daemon {
        let path = temp_dir("daemon").join("config.yaml");
        fs::write(&path, config).expect("a file in the sandbox");
        let of_lease =
            |argument: &&str| argument.starts_with("--lease") || **argument == *DEFAULT_LEASE;
        let alone = if extra.iter().any(of_lease) { None } else { Some("--no-leader-election") };
        let listen: &[&str] = match extra.contains(&"--listen") {
            true => &[],
            false => &["--listen", "127.0.0.1:0"],
        };
        let extra =
            extra.iter().copied().filter(|argument| *argument != DEFAULT_LEASE).chain(alone);
        command
            .arg("run")
            .arg("--config")
            .arg(&path)
            .args(listen)
            .args(["--log-format", "json"])
            .args(extra)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().expect("the daemon's program");
        let lines = Arc::new(Mutex::new(Vec::new()));
        collect(child.stdout.take().expect("a pipe"), lines.clone());
        collect(child.stderr.take().expect("a pipe"), lines.clone());
        Daemon { child, lines, config: path, admin: None }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Returns the path of its config file, which tests may edit.
    pub(crate) fn config(&self) -> &Path {
        &self.config
    }

    /// Returns the address of its admin port.
    pub(crate) fn admin(&self) -> SocketAddr {
        self.admin.expect("a daemon that was started")
    }

    /// Returns the URL of its pages.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.admin())
    }

    /// Fetches a page of its admin port and returns the status and the body.
    pub(crate) async fn get(&self, path: &str) -> (u16, String) {
        let admin = self.admin();
        http::get(admin, path).await.unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// Fetches a page of its admin port as a browser does.
    pub(crate) async fn get_html(&self, path: &str) -> String {
        let admin = self.admin.expect("a daemon that was started");
        let page = http::get_as(admin, path, "text/html").await;
        page.unwrap_or_else(|error| panic!("GET {path}: {error}")).1
    }

    /// Fetches `/api/v1/status`.
    pub(crate) async fn status(&self) -> Value {
        let (status, body) = self.get("/api/v1/status").await;
        assert_eq!(status, 200, "/api/v1/status: {body}");
        serde_json::from_str(&body).expect("a status in JSON")
    }

    pub(crate) async fn metrics(&self) -> String {
        let (status, body) = self.get("/metrics").await;
        assert_eq!(status, 200, "/metrics: {body}");
        body
    }

    /// Returns the sum of all series of a metric that have these labels, or none if there are none.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        metric_in(&self.metrics().await, name, labels)
    }

    /// Returns all lines of its output so far that are JSON.
    pub(crate) fn logs(&self) -> Vec<Value> {
        let lines = lock(&self.lines);
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Returns all lines of its output so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        lock(&self.lines).clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("the daemon runs");
    }

    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("our own child can be waited for")
    }

    /// Waits until it has exited by itself and all of its output is read.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        let status =
            eventually(Duration::from_secs(30), "the daemon ends", async || self.exit_status())
                .await;
        // The reading threads own a reference to the lines until the output ends.
        let read = async || (Arc::strong_count(&self.lines) == 1).then_some(());
        eventually(Duration::from_secs(30), "its output ends", read).await;
        status
    }

    /// Sends SIGTERM and returns its exit status with the time that it took to exit.
    pub(crate) async fn terminate(&mut self) -> (ExitStatus, Duration) {
        let signalled = Instant::now();
        self.signal(Signal::SIGTERM);
        (self.wait().await, signalled.elapsed())
    }

    /// Kills it with all of its child processes.
    pub(crate) fn kill(&mut self) {
        kill_group(&mut self.child);
    }

    fn admin_address(&self) -> Option<SocketAddr> {
        let logs = self.logs();
        let line =
            logs.iter().find(|line| log_field(line, "message") == Some("admin listening"))?;
        log_field(line, "address")?.parse().ok()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let lines = self.lines();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!("--- the daemon's log ends with\n{}", last.join("\n"));
        }
    }
}

/// Returns a field of a JSON log line, at the top level or in `fields`.
pub(crate) fn log_field<'a>(line: &'a Value, name: &str) -> Option<&'a str> {
    line.get(name).or_else(|| line.get("fields")?.get(name))?.as_str()
}

/// Returns the sum of all series of a metric that have these labels, from text in Prometheus'
/// format.
pub(crate) fn metric_in(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: Vec<String> =
        labels.iter().map(|(key, value)| format!("{key}=\"{value}\"")).collect();
    let values = text.lines().filter_map(|line| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        let has = |wanted: &String| {
            labels
                .split("\",")
                .any(|label| label.trim_end_matches('"') == wanted.trim_end_matches('"'))
        };
        wanted.iter().all(has).then(|| value.trim().parse::<f64>().ok()).flatten()
    });
    values.reduce(|sum, value| sum + value)
}

fn collect(output: impl Read + Send + 'static, lines: Arc<Mutex<Vec<String>>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(output).split(b'\n').map_while(Result::ok) {
            lock(&lines).push(String::from_utf8_lossy(&line).into_owned());
        }
    });
}

fn lock(lines: &Mutex<Vec<String>>) -> std::sync::MutexGuard<'_, Vec<String>> {
    lines.lock().unwrap_or_else(PoisonError::into_inner)
}
