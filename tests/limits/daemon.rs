//! The daemon of these tests: without a cluster, within limits, and observed through its pages.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Pid;

/// Returns the command of the daemon, run by another program that limits it.
pub(crate) fn program(within: &[&str]) -> Command {
    let mut words = within.iter().copied().chain([env!("CARGO_BIN_EXE_external-endpoints")]);
    let mut command = Command::new(words.next().unwrap());
    // The kubeconfig of the person who runs the tests must not be used.
    command.args(words).env_remove("KUBECONFIG").env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

pub(crate) struct Daemon {
    child: Child,
    /// True if the other program stays and waits for the daemon.
    is_grandchild: bool,
    pages: SocketAddr,
    log: Arc<Mutex<String>>,
}

impl Daemon {
    pub(crate) fn start(within: &[&str], config: &Path, more: &[&str]) -> Self {
        let mut child = program(within)
            .args(["run", "--dry-run", "--listen", "127.0.0.1:0", "--config"])
            .arg(config)
            .args(more)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut before = Vec::new();
        let pages = loop {
            let Some(line) = log.next() else { panic!("ended: {before:#?}") };
            let line = line.unwrap();
            if let Some((_, address)) = line.split_once("admin listening address=") {
                break address.trim().parse().unwrap();
            }
            before.push(line);
        };
        let kept = Arc::new(Mutex::new(String::new()));
        let keep = kept.clone();
        thread::spawn(move || {
            log.map_while(Result::ok).for_each(|line| *keep.lock().unwrap() += &(line + "\n"))
        });
        Self { child, is_grandchild: within.contains(&"--fork"), pages, log: kept }
    }

    /// Starts the daemon with a standard error that these tests do not read. So the address of the
    /// pages is given to it.
    pub(crate) fn start_unread(
        within: &[&str],
        config: &Path,
        more: &[&str],
        stderr: Stdio,
    ) -> Self {
        let pages =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        let mut command = program(within);
        command
            .args(["run", "--dry-run", "--listen", &pages.to_string(), "--config"])
            .arg(config)
            .args(more);
        let child = command.stderr(stderr).spawn().unwrap();
        eventually("its pages are there", || TcpStream::connect(pages).ok());
        Self { child, is_grandchild: false, pages, log: Arc::default() }
    }

    /// Returns the address of the pages.
    pub(crate) fn pages(&self) -> SocketAddr {
        self.pages
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }

    /// Returns the exit status, or `None` while it runs.
    pub(crate) fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// Returns the peak of resident memory, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.id())).unwrap().count()
    }

    /// Returns the number of the process that was started.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns the number of the daemon's process, unless it has ended.
    pub(crate) fn main_id(&self) -> Option<Pid> {
        let id = self.child.id();
        if !self.is_grandchild {
            return Some(Pid::from_child(&self.child));
        }
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
        Pid::from_raw(children.split_whitespace().next()?.parse().ok()?)
    }

    /// Waits for the end of the daemon, which must have been asked to end. Returns its exit status
    /// and its log.
    pub(crate) fn ended(mut self) -> (ExitStatus, String) {
        let status = eventually("the daemon has ended", || self.child.try_wait().unwrap());
        let log = eventually("its log has ended", || {
            let readers = Arc::strong_count(&self.log);
            (readers == 1).then(|| self.log())
        });
        (status, log)
    }

    /// Returns the log since the pages were served.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub(crate) fn get(&self, path: &str) -> String {
        // On a busy machine, a request may come too late and be reset.
        let answer = (0..3).find_map(|_| self.try_get(path).ok());
        answer.unwrap_or_else(|| panic!("no answer from {path}: {}", self.log()))
    }

    fn try_get(&self, path: &str) -> std::io::Result<String> {
        let mut stream = TcpStream::connect(self.pages)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Returns the sum of a metric over all series whose labels contain this text.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        self.series(name, label).into_iter().sum()
    }

    pub(crate) fn series(&self, name: &str, label: &str) -> Vec<f64> {
        Self::series_on(&self.get("/metrics"), name, label)
    }

    /// Returns the values of a metric's series, from a page that was read before.
    pub(crate) fn series_on(page: &str, name: &str, label: &str) -> Vec<f64> {
        let wanted = |line: &&str| {
            let series =
                line.strip_prefix("external_endpoints_").and_then(|line| line.strip_prefix(name));
            series.is_some_and(|rest| rest.starts_with([' ', '{']) && rest.contains(label))
        };
        page.lines()
            .filter(wanted)
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .collect()
    }

    /// Sends SIGTERM. Returns the time until the end, or `None` after half a minute.
    pub(crate) fn terminate(&mut self) -> Option<Duration> {
        let start = Instant::now();
        if let Ok(None) = self.child.try_wait() {
            let _ = self
                .main_id()
                .map(|id| rustix::process::kill_process(id, rustix::process::Signal::TERM));
        }
        while start.elapsed() < Duration::from_secs(30) {
            if self.child.try_wait().unwrap().is_some() {
                return Some(start.elapsed());
            }
            thread::sleep(Duration::from_millis(5));
        }
        None
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.terminate().is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Waits until there is a value, as long as a busy machine may take.
pub(crate) fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "not so after 60 s: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}
