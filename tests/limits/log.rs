//! A log that can't be written, or whose reader is gone or stalled, loses lines and has no other
//! effect.

use std::cell::Cell;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use crate::daemon::{Daemon, eventually, program};
use crate::{config, in_own_network};

/// Starts a server whose answers alternate between good and bad, so that each is a line of the log.
fn flapping_server() -> u16 {
    static ANSWERS: AtomicUsize = AtomicUsize::new(0);
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 4096]);
            let status =
                if ANSWERS.fetch_add(1, Ordering::Relaxed).is_multiple_of(2) { 200 } else { 500 };
            let _ = write!(stream, "HTTP/1.1 {status} A\r\nContent-Length: 0\r\n\r\n");
        }
    });
    port
}

/// A config whose checks log all the time. Its path has the maximum length, so that each mistake in
/// it is a long line.
struct Talkative {
    _folder: TempDir,
    file: PathBuf,
    versions: Cell<usize>,
}

impl Talkative {
    fn new() -> Self {
        let check = "{http: {}, interval: 100ms, timeout: 100ms, \
             healthyThreshold: 1, unhealthyThreshold: 1}";
        let folder = config(10, flapping_server(), check);
        let deep = (0..15).fold(folder.path().to_owned(), |path, _| path.join("a".repeat(200)));
        fs::create_dir_all(&deep).unwrap();
        fs::rename(folder.path().join("config.yaml"), deep.join("config.yaml")).unwrap();
        Self { file: deep.join("config.yaml"), _folder: folder, versions: Cell::new(0) }
    }

    fn start(&self, within: &[&str], more: &[&str], stderr: impl Into<Stdio>) -> Daemon {
        Daemon::start_unread(within, &self.file, more, stderr.into())
    }

    /// Makes the daemon log until lines are lost, which takes more than its queue and a pipe hold.
    fn until_lines_are_lost(&self, daemon: &Daemon) {
        eventually("lines are lost", || {
            self.versions.set(self.versions.get() + 1);
            let mistakes: String =
                (0..100).map(|key| format!("mistake-{key}: {}\n", self.versions.get())).collect();
            fs::write(&self.file, mistakes).unwrap();
            daemon.signal(Signal::HUP);
            thread::sleep(Duration::from_millis(200));
            (daemon.metric("log_lines_dropped_total", "") > 0.0).then_some(())
        });
    }

    /// Makes lines get lost, checks that everything else continues, and ends the daemon.
    fn expect_work_without_log_lines(&self, mut daemon: Daemon) {
        self.until_lines_are_lost(&daemon);
        let probes = daemon.metric("checks_total", "");
        eventually("probes go on", || {
            (daemon.metric("checks_total", "") > probes + 300.0).then_some(())
        });
        assert!(daemon.get("/healthz").contains("200 OK"));
        let start = Instant::now();
        daemon.signal(Signal::TERM);
        let status = eventually("it ends", || daemon.exit_status());
        assert_eq!(status.code(), Some(0), "{status}");
        assert!(start.elapsed() < Duration::from_secs(10), "it ended after {:?}", start.elapsed());
    }
}

#[test]
fn a_full_log_stops_nothing() {
    in_own_network("log::a_full_log_here");
}

#[test]
#[ignore = "run by a_full_log_stops_nothing"]
fn a_full_log_here() {
    let talkative = Talkative::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    talkative.expect_work_without_log_lines(talkative.start(&[], &[], full));
    // A file that may not grow.
    let talkative = Talkative::new();
    let log = tempfile::tempfile().unwrap();
    talkative.expect_work_without_log_lines(talkative.start(
        &["prlimit", "--fsize=5000"],
        &[],
        log,
    ));
}

#[test]
fn a_closed_log_stops_nothing() {
    in_own_network("log::a_closed_log_here");
}

#[test]
#[ignore = "run by a_closed_log_stops_nothing"]
fn a_closed_log_here() {
    let talkative = Talkative::new();
    // Rust opens /dev/null for a stream that is closed at the start, and no line is lost there.
    let closed = talkative.start(&["sh", "-c", "exec \"$@\" 2>&-", "sh"], &[], Stdio::null());
    eventually("probes are made", || (closed.metric("checks_total", "") > 100.0).then_some(()));
    drop(closed);
    // A reader that closes the pipe.
    let (reader, writer) = io::pipe().unwrap();
    let daemon = talkative.start(&[], &["--log-format=json"], writer);
    assert!(BufReader::new(reader).lines().next().is_some());
    talkative.expect_work_without_log_lines(daemon);
}

#[test]
fn a_log_whose_reader_sleeps_stops_nothing() {
    in_own_network("log::a_log_whose_reader_sleeps_here");
}

#[test]
#[ignore = "run by a_log_whose_reader_sleeps_stops_nothing"]
fn a_log_whose_reader_sleeps_here() {
    let talkative = Talkative::new();
    let (reader, writer) = io::pipe().unwrap();
    talkative.expect_work_without_log_lines(talkative.start(&[], &[], writer));
    drop(reader);
}

#[test]
fn a_reader_that_wakes_up_learns_how_much_it_missed() {
    in_own_network("log::a_reader_that_wakes_up_here");
}

#[test]
#[ignore = "run by a_reader_that_wakes_up_learns_how_much_it_missed"]
fn a_reader_that_wakes_up_here() {
    let talkative = Talkative::new();
    let (reader, writer) = io::pipe().unwrap();
    let daemon = talkative.start(&[], &[], writer);
    talkative.until_lines_are_lost(&daemon);
    let mut lines = BufReader::new(reader).lines();
    let lost = lines
        .find(|line| line.as_ref().unwrap().contains("lines of the log were lost"))
        .unwrap()
        .unwrap();
    assert!(lost.contains(" WARN ") && lost.contains("lines="), "{lost}");
    // The last lines still come.
    daemon.signal(Signal::TERM);
    let last = lines
        .map_while(Result::ok)
        .any(|line| line.contains("ending; what is published stays as it is"));
    assert!(last, "the log does not say why the daemon has ended");
}

/// Runs the program with this standard error, and this standard output.
fn run(arguments: &[&str], output: Stdio, errors: Stdio) -> Output {
    program(&[])
        .args(arguments)
        .stdout(output)
        .stderr(errors)
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap()
}

#[test]
fn commands_that_cannot_print_fail() {
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let gone = || {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.yaml"), folder.path().join("bad.yaml"));
    let text = "databases: [{service: a, namespace: b, port: 1, \
         addresses: [198.18.0.1], check: {tcp: {}}}]";
    fs::write(&good, text).unwrap();
    fs::write(&bad, "databases: 1").unwrap();
    let (good, bad) = (good.to_str().unwrap(), bad.to_str().unwrap());
    for arguments in [
        vec!["validate", good],
        vec!["validate", "--explain", good],
        vec!["schema"],
        vec!["--help"],
    ] {
        let output = run(&arguments, full(), Stdio::piped());
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(
            errors.contains("standard output: No space left on device"),
            "{arguments:?}: {errors}"
        );
        // As with `| head`: no reader is left.
        let output = run(&arguments, gone(), Stdio::piped());
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{arguments:?}");
        for neither in [full, gone] {
            assert_eq!(
                run(&arguments, neither(), neither()).status.code(),
                Some(1),
                "{arguments:?}"
            );
        }
    }
    for (arguments, status) in [
        (vec!["validate", bad], 78),
        (vec!["probe", bad], 78),
        (vec!["run", "--config", bad], 78),
        (vec!["run", "--config", bad, "--log-format=json"], 78),
        (vec!["run", "--config", good, "--dry-run", "--listen=192.0.2.1:1"], 1),
        (vec!["bad"], 2),
    ] {
        for errors in [full(), gone()] {
            assert_eq!(
                run(&arguments, Stdio::null(), errors).status.code(),
                Some(status),
                "{arguments:?}"
            );
        }
    }
}
