//! Commands that hang or leave children behind, and their effect on the checks of others.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::daemon::{Daemon, eventually};

/// Writes a config of several databases: each with its name, its number of addresses, and its
/// check.
fn config(databases: &[(&str, usize, String)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::from("databases:\n");
    for (index, (name, addresses, check)) in databases.iter().enumerate() {
        let addresses: Vec<String> =
            (1..=*addresses).map(|last| format!("198.18.{index}.{last}")).collect();
        text += &format!(
            "- {{service: {name}, namespace: b, port: 1, addresses: [{}], check: {check}}}\n",
            addresses.join(", ")
        );
    }
    fs::write(folder.path().join("config.yaml"), text).unwrap();
    folder
}

fn exec(script: &str, timing: &str) -> String {
    format!(
        "{{exec: {{command: [/bin/sh, -c, '{script}'], env: {{PATH: /usr/bin:/bin}}}}, {timing}}}"
    )
}

/// Returns the number of probes of a database so far.
fn probes(daemon: &Daemon, service: &str) -> f64 {
    daemon.metric("checks_total", &format!("service=\"{service}\""))
}

#[test]
fn hanging_commands_of_one_database_delay_no_other() {
    let folder = config(&[
        ("hangs", 20, exec("exec sleep 600", "interval: 5s, timeout: 5s")),
        ("hangs-too", 20, exec("exec sleep 600", "interval: 5s, timeout: 5s")),
        ("lives", 1, exec("exit 0", "interval: 1s, timeout: 1s")),
    ]);
    let daemon = Daemon::start(&[], &folder.path().join("config.yaml"), &["--max-exec", "8"]);
    eventually("all commands hang", || (probes(&daemon, "hangs") >= 1.0).then_some(()));
    let (start, before) = (Instant::now(), probes(&daemon, "lives"));
    let hung = probes(&daemon, "hangs") + probes(&daemon, "hangs-too");
    eventually("the other is probed ten times", || {
        (probes(&daemon, "lives") - before >= 10.0).then_some(())
    });
    assert!(
        start.elapsed() < Duration::from_secs(15),
        "{:?} for ten probes of one a second",
        start.elapsed()
    );
    eventually("those that hang have their turns too", || {
        (probes(&daemon, "hangs") + probes(&daemon, "hangs-too") > hung).then_some(())
    });
    assert_eq!(
        daemon.metric("checks_total", "result=\"inconclusive\""),
        0.0,
        "{}",
        daemon.get("/api/v1/status")
    );
}

#[test]
fn several_hanging_databases_stop_no_other_and_are_reported() {
    let folder = tempfile::tempdir().unwrap();
    let begun = folder.path().join("begun");
    fs::write(&begun, "").unwrap();
    let hang = format!("echo >> {}; exec sleep 600", begun.display());
    let names = |kind: &str, count: usize| {
        (0..count).map(|index| format!("{kind}-{index}")).collect::<Vec<_>>()
    };
    let (hanging, friendly) = (names("hangs", 4), names("lives", 10));
    let hanging =
        hanging.iter().map(|name| (name.as_str(), 6, exec(&hang, "interval: 5s, timeout: 60s")));
    let lives = friendly
        .iter()
        .map(|name| (name.as_str(), 1, exec("exit 0", "interval: 1s, timeout: 10s")));
    let config = config(&hanging.chain(lives).collect::<Vec<_>>());
    let daemon = Daemon::start(&[], &config.path().join("config.yaml"), &["--max-exec", "8"]);
    eventually("each of the four hangs", || (fs::read(&begun).unwrap().len() >= 4).then_some(()));
    let before: Vec<f64> = friendly.iter().map(|name| probes(&daemon, name)).collect();
    eventually("each of the others is probed ten times", || {
        let mut now = friendly.iter().zip(&before);
        now.all(|(name, before)| probes(&daemon, name) - before >= 10.0).then_some(())
    });
    eventually("what waits counts as late", || {
        (daemon.metric("checks_late_total", "") > 0.0).then_some(())
    });
    eventually("the log says what is short", || {
        let log = daemon.log();
        (log.contains("checks start late") && log.contains("--max-exec")).then_some(())
    });
}

/// Starts the daemon as process 1 of a process namespace, as the first process of a container.
fn as_process_1(config: &Path) -> Daemon {
    Daemon::start(
        &["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"],
        config,
        &[],
    )
}

/// Returns parent and state of each process of this host.
fn processes() -> BTreeMap<u32, (u32, char)> {
    let of = |id: u32| {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        let mut words = stat.rsplit_once(')')?.1.split_whitespace();
        Some((
            id,
            (words.next().map(|parent| parent.chars().next())??, words.next()?.parse().ok()?),
        ))
    };
    let ids = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    ids.filter_map(of).map(|(id, (state, parent))| (id, (parent, state))).collect()
}

/// Returns the number of zombies among the descendants of a process.
fn zombies_below(ancestor: u32) -> usize {
    let processes = processes();
    let is_below = |mut id: u32| {
        while let Some(&(parent, _)) = processes.get(&id) {
            if parent == ancestor {
                return true;
            }
            id = parent;
        }
        false
    };
    processes.iter().filter(|(id, (_, state))| *state == 'Z' && is_below(**id)).count()
}

#[test]
fn process_1_reaps_the_orphans_of_commands() {
    // Ten helpers leave the group of each command and end after it, so process 1 adopts them.
    let storm = "for i in 1 2 3 4 5 6 7 8 9 10; do setsid sleep 0.$$i & done; exit 7";
    let folder = config(&[
        ("storm", 10, exec(storm, "interval: 250ms, recheckInterval: 250ms, timeout: 10s")),
        ("plain", 5, exec("exit 0", "interval: 250ms, timeout: 10s")),
    ]);
    let daemon = as_process_1(&folder.path().join("config.yaml"));
    eventually("a storm of helpers has gone by", || {
        (probes(&daemon, "storm") >= 100.0).then_some(())
    });
    eventually("the others are checked", || (probes(&daemon, "plain") >= 20.0).then_some(()));
    // A thousand have ended by now. One that has just ended may be a zombie for a moment.
    eventually("nearly all are reaped", || (zombies_below(daemon.id()) < 20).then_some(()));
    let page = daemon.get("/api/v1/status");
    assert_eq!(
        daemon.metric("checks_total", "result=\"inconclusive\""),
        0.0,
        "a status got lost: {page}"
    );
    let failed =
        daemon.series("checks_total", "service=\"plain\",address=\"198.18.1.1\",result=\"fail\"");
    assert_eq!(failed.into_iter().sum::<f64>(), 0.0, "{page}");
    assert_eq!(page.matches("\"reason\":\"exec: exit status 7\"").count(), 10, "{page}");
}

#[test]
fn process_1_ends_on_a_signal_with_the_status_of_the_daemon() {
    let folder = config(&[("plain", 1, exec("exit 0", "interval: 1s, timeout: 1s"))]);
    let config = folder.path().join("config.yaml");
    let daemon = as_process_1(&config);
    let started = Instant::now();
    let id = daemon.main_id().unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    let (status, log) = daemon.ended();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("ending") && log.contains("signal=\"SIGTERM\""), "{log}");
    assert!(started.elapsed() < Duration::from_secs(20));

    // A bad config is reported to the parent, too.
    fs::write(&config, "databases: 5\n").unwrap();
    let within = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"];
    let output = crate::daemon::program(&within)
        .args(["run", "--dry-run", "--config"])
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn process_1_ends_when_the_daemon_is_killed() {
    let folder = config(&[("plain", 1, exec("sleep 600", "interval: 1s, timeout: 1s"))]);
    let daemon = as_process_1(&folder.path().join("config.yaml"));
    let first = daemon.main_id().unwrap().as_raw_nonzero().get() as u32;
    eventually("a command runs", || (probes(&daemon, "plain") >= 1.0).then_some(()));
    let child =
        processes().into_iter().find(|(_, (parent, _))| *parent == first).map(|(id, _)| id as i32);
    let child = child.and_then(rustix::process::Pid::from_raw).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
    let (status, log) = daemon.ended();
    assert_eq!(status.code(), Some(137), "{log}");
}
