//! SIGHUP makes the daemon read its config at once, and does nothing else.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::config;
use crate::daemon::{Daemon, eventually, program};

const SAID: &str = "SIGHUP: reading the config";

/// Less than the second between two polls of the config.
const SOONER: Duration = Duration::from_millis(900);

#[test]
fn sighup_reads_the_config_sooner_than_the_poll() {
    let folder = config(1, 1, "{tcp: {}}");
    let file = folder.path().join("config.yaml");
    let mut daemon = Daemon::start(&[], &file, &[]);
    eventually("it checks", || daemon.log().contains("checking databases").then_some(()));
    let text = fs::read_to_string(&file).unwrap();
    // On a busy machine, only some reads are fast. By the poll, none is.
    let times: Vec<Duration> = (2..8)
        .map(|addresses| {
            let more: String =
                (2..=addresses).map(|address| format!("  - 198.18.1.{address}\n")).collect();
            fs::write(&file, text.clone() + &more).unwrap();
            let start = Instant::now();
            daemon.signal(Signal::HUP);
            eventually("the config is taken", || {
                (daemon.log().matches("the new config is in force").count() == addresses - 1)
                    .then_some(())
            });
            start.elapsed()
        })
        .collect();
    assert!(times.iter().any(|time| *time < SOONER), "{times:?}");
    assert_eq!(daemon.log().matches(SAID).count(), times.len());
    assert_eq!(daemon.metric("configured_addresses", ""), 7.0);
    assert_eq!(daemon.exit_status(), None);
}

#[test]
fn sighup_without_a_change_changes_nothing() {
    let folder = config(1, 1, "{tcp: {}}");
    let mut daemon = Daemon::start(&[], &folder.path().join("config.yaml"), &[]);
    eventually("it checks", || daemon.log().contains("checking databases").then_some(()));
    daemon.signal(Signal::HUP);
    eventually("the line is on the log", || daemon.log().contains(SAID).then_some(()));
    daemon.signal(Signal::TERM);
    let status = eventually("it ends", || daemon.exit_status());
    assert_eq!(status.code(), Some(0));
    assert!(!daemon.log().contains("the config file has changed"), "{}", daemon.log());
}

#[test]
fn a_signal_without_a_use_does_not_end_the_daemon() {
    let folder = config(1, 1, "{tcp: {}}");
    let mut daemon = Daemon::start(&[], &folder.path().join("config.yaml"), &[]);
    eventually("it checks", || daemon.log().contains("checking databases").then_some(()));
    for signal in [Signal::USR1, Signal::USR2] {
        daemon.signal(signal);
        thread::sleep(Duration::from_millis(100));
        assert_eq!(daemon.exit_status(), None, "{signal:?} has ended it");
    }
    daemon.signal(Signal::TERM);
    let status = eventually("it ends", || daemon.exit_status());
    assert_eq!(status.code(), Some(0));
}

#[test]
fn sighup_while_it_starts_does_not_end_it() {
    // The start waits for its config, which comes through a pipe.
    let mut command = program(&[]);
    command.args(["run", "--dry-run", "--listen=127.0.0.1:0", "--config=/dev/stdin"]);
    let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let descriptors = format!("/proc/{}/fd", child.id());
    // The daemon opens the pipe only after its signals are handled.
    eventually("the config is being read", || {
        let stdin = fs::read_link(format!("{descriptors}/0")).ok()?;
        let all = fs::read_dir(&descriptors).ok()?.flatten();
        let opened =
            all.filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == stdin));
        (opened.count() > 1).then_some(())
    });
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, Signal::HUP).unwrap();
    thread::sleep(Duration::from_millis(100));
    assert_eq!(child.try_wait().unwrap(), None, "SIGHUP has ended it");
    let text = "databases: [{service: a, namespace: b, port: 1, \
         addresses: [198.18.0.1], check: {tcp: {}}}]";
    pipe.write_all(text.as_bytes()).unwrap();
    drop(pipe);
    let errors = std::io::BufReader::new(child.stderr.take().unwrap());
    let mut lines = std::io::BufRead::lines(errors).map_while(Result::ok);
    // The signal is remembered until the watch of the file starts.
    assert!(lines.any(|line| line.contains(SAID)));
    let _ = child.kill();
    child.wait().unwrap();
}
