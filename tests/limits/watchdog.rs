//! All external influences hostile at once: the checks of friendly targets stay on time.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::daemon::{Daemon, eventually};
use crate::in_own_network;

/// The number of friendly targets, each probed once a second.
const FRIENDLY: usize = 200;

/// The numbers of targets that all fail and recover together, that each config checks in another
/// way, and that only enlarge the state.
const FLAPPING: usize = 200;
const CHANGING: usize = 50;
const IDLE: usize = 5000;

/// The duration of the hostile phase.
const HOSTILE_PHASE: Duration = Duration::from_secs(10);

/// The share of probes of friendly targets that must be made, and the latest start of nearly all of
/// them. Both have a wide margin, because other tests may keep the machine busy.
const MIN_SHARE: f64 = 0.95;
const MAX_START_DELAY: f64 = 0.25;

/// The least share of time in which the thread of the checks must get a processor that it asks for.
/// With less, no probe can be in time, and only the cost of each is tested.
const MIN_CPU_SHARE: f64 = 0.6;

/// The most processor time of a probe in the hostile phase. A build without optimisation takes a
/// quarter of it.
const MAX_CPU_TIME: Duration = Duration::from_millis(1);

#[test]
fn all_hostility_at_once_delays_no_check() {
    in_own_network("watchdog::hostile_at_once_here");
}

#[test]
#[ignore = "run by all_hostility_at_once_delays_no_check"]
fn hostile_at_once_here() {
    let friendly = TcpListener::bind("0.0.0.0:0").unwrap();
    let good = friendly.local_addr().unwrap().port();
    let flapping = TcpListener::bind("0.0.0.0:0").unwrap();
    let bad = flapping.local_addr().unwrap().port();
    drop(flapping);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    fs::write(&file, config(good, bad, 60)).unwrap();
    // The log has no reader.
    let (_unread, log) = io::pipe().unwrap();
    let daemon = Daemon::start_unread(&[], &file, &[], log.into());
    // The config in force, and the time it was loaded.
    let in_force = || daemon.get("/api/v1/status").split(['{', '}']).nth(2).unwrap().to_owned();
    let first = in_force();
    // A start probes all of them in a second, which may take longer.
    let all = FRIENDLY + FLAPPING + CHANGING + IDLE;
    eventually("each is tried", || {
        (daemon.series("target_healthy", "").len() == all).then_some(())
    });
    eventually("probes start in time", || {
        let before = Tries::of(&daemon);
        thread::sleep(Duration::from_millis(500));
        (before.late_until(&Tries::of(&daemon)) == 0.0).then_some(())
    });

    let done = AtomicBool::new(false);
    let (flips, aborted) = (AtomicU64::new(0), AtomicU64::new(0));
    let (before, start) = (Tries::of(&daemon), Instant::now());
    thread::scope(|scope| {
        scope.spawn(|| flap(bad, &done, &flips));
        scope.spawn(|| rewrite(&file, good, bad, &done));
        for path in ["/metrics", "/api/v1/status", "/metrics"] {
            let (daemon, done, aborted) = (&daemon, &done, &aborted);
            scope.spawn(move || abort(daemon, path, done, aborted));
        }
        let _done = SetAtEnd(&done);
        while start.elapsed() < HOSTILE_PHASE {
            let answer = daemon.get("/healthz");
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
            thread::sleep(Duration::from_millis(100));
        }
    });
    let (after, time) = (Tries::of(&daemon), start.elapsed());
    let share = (after.friendly - before.friendly) / (FRIENDLY as f64 * time.as_secs_f64());
    let late = before.late_until(&after);
    let effort = (after.ran - before.ran).div_f64(after.all - before.all);
    let processor = 1.0 - (after.waited - before.waited).div_duration_f64(time);
    let (flips, aborted) = (flips.into_inner(), aborted.into_inner());
    let figures = format!(
        "{share:.3} of the probes, {late:.4} of them late, {effort:?} for each, \
         {processor:.2} of a processor; {aborted} aborted requests, {flips} flips"
    );
    println!("{figures}");
    assert!(flips >= 6 && aborted >= 500 && in_force() != first, "too tame: {figures}");
    assert!(effort <= MAX_CPU_TIME, "{figures}");
    assert!(share >= MIN_SHARE && late <= 0.01 || processor < MIN_CPU_SHARE, "{figures}");
}

/// A guard that ends the hostile phase, even if an assertion ends the test.
struct SetAtEnd<'a>(&'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The probes since the start of the daemon.
struct Tries {
    friendly: f64,
    all: f64,
    /// The number of probes that started in time.
    in_time: f64,
    /// The time that the thread of the checks has run, and the time it has waited for a processor.
    ran: Duration,
    waited: Duration,
}

impl Tries {
    fn of(daemon: &Daemon) -> Self {
        // The page may show earlier values for a moment.
        thread::sleep(Duration::from_millis(300));
        let page = daemon.get("/metrics");
        let [ran, waited] = processor_of_checks(daemon.id());
        let sum = |name: &str, label: &str| Daemon::series_on(&page, name, label).iter().sum();
        Self {
            friendly: sum("checks_total", "service=\"friendly\""),
            all: sum("check_start_delay_seconds_count", ""),
            in_time: sum("check_start_delay_seconds_bucket", &format!("le=\"{MAX_START_DELAY}\"")),
            ran,
            waited,
        }
    }

    /// Returns the share of late probes between this moment and a later one.
    fn late_until(&self, later: &Self) -> f64 {
        1.0 - (later.in_time - self.in_time) / (later.all - self.all)
    }
}

/// Returns the time that the thread of the checks has run, and the time it has waited for a
/// processor.
fn processor_of_checks(daemon: u32) -> [Duration; 2] {
    let mut tasks =
        fs::read_dir(format!("/proc/{daemon}/task")).unwrap().map(|task| task.unwrap().path());
    let name = |task: &Path| fs::read_to_string(task.join("comm")).unwrap_or_default();
    let checks = tasks.find(|task| name(task).trim() == "checks").unwrap();
    let figures = fs::read_to_string(checks.join("schedstat")).unwrap();
    let mut figures =
        figures.split_whitespace().map(|nanos| Duration::from_nanos(nanos.parse().unwrap()));
    [(); 2].map(|()| figures.next().unwrap())
}

fn config(good: u16, bad: u16, changing: u64) -> String {
    let mut text = String::from("databases:\n");
    let mut next = 0;
    let mut database = |name: &str, port: u16, check: &str, targets: usize| {
        writeln!(text, "- service: {name}\n  namespace: b\n  port: {port}\n  check: {check}")
            .unwrap();
        text += "  publish: slices\n  policy: {maxFlips: 1000}\n  addresses:\n";
        for index in next..next + targets {
            writeln!(text, "  - 198.18.{}.{}", index / 250, index % 250 + 1).unwrap();
        }
        next += targets;
    };
    database("friendly", good, "{tcp: {}, interval: 1s, timeout: 500ms}", FRIENDLY);
    let check =
        "{tcp: {}, interval: 1s, timeout: 500ms, healthyThreshold: 1, unhealthyThreshold: 1}";
    (0..FLAPPING / 100).for_each(|number| database(&format!("flapping-{number}"), bad, check, 100));
    // This many new targets are all probed within a second.
    database("changing", good, &format!("{{tcp: {{}}, interval: {changing}s}}"), CHANGING);
    (0..IDLE / 100).for_each(|number| {
        database(&format!("idle-{number}"), good, "{tcp: {}, interval: 60s}", 100)
    });
    text
}

/// Makes a port of all addresses listen for a second, and not for the next, and so on.
fn flap(port: u16, done: &AtomicBool, flips: &AtomicU64) {
    let mut listener = None;
    while !done.load(Ordering::Relaxed) {
        listener = match listener {
            None => Some(TcpListener::bind(("0.0.0.0", port)).unwrap()),
            Some(_) => None,
        };
        flips.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_secs(1));
    }
}

/// Changes the check of some targets as often as the daemon loads a config.
fn rewrite(file: &Path, good: u16, bad: u16, done: &AtomicBool) {
    let new = file.with_extension("new");
    let mut interval = 60;
    while !done.load(Ordering::Relaxed) {
        interval += 1;
        fs::write(&new, config(good, bad, interval)).unwrap();
        fs::rename(&new, file).unwrap();
        thread::sleep(Duration::from_secs(2));
    }
}

/// Requests a page some hundred times a second, and never reads it.
fn abort(daemon: &Daemon, path: &str, done: &AtomicBool, aborted: &AtomicU64) {
    while !done.load(Ordering::Relaxed) {
        if let Ok(mut stream) = TcpStream::connect(daemon.pages()) {
            let _ = write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            // Long enough for the request to be read.
            thread::sleep(Duration::from_millis(4));
            let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            aborted.fetch_add(1, Ordering::Relaxed);
        }
    }
}
