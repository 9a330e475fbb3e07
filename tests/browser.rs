//! The status page in a real browser: headless Chromium, with axe-core to find what keeps people
//! from reading it.
//!
//! The browser, the daemon and the databases run in a network namespace of their own, where all of
//! 198.18.0.0/15 is local. Without a Chromium the cases are skipped with a message, except in CI.

#![allow(clippy::disallowed_methods, reason = "these tests run in real time")]

mod browser {
    pub(crate) mod axe;
    pub(crate) mod chromium;
    pub(crate) mod hostile;
    pub(crate) mod large;
    pub(crate) mod sample;
    pub(crate) mod use_of_page;

    #[allow(dead_code, reason = "the tests of limits use the rest")]
    #[path = "../limits/daemon.rs"]
    pub(crate) mod daemon;

    use serde_json::Value;

    use daemon::Daemon;

    /// Starts a daemon without a cluster. Its config is in a folder that stays until the end.
    pub(crate) fn daemon_of(config: &str) -> Daemon {
        let folder = tempfile::tempdir().expect("a folder").keep();
        let file = folder.join("config.yaml");
        std::fs::write(&file, config).expect("a file");
        Daemon::start(&[], &file, &[])
    }

    /// Returns the URL of a page of the daemon.
    pub(crate) fn url(daemon: &Daemon, path: &str) -> String {
        format!("http://{}{path}", daemon.pages())
    }

    /// Returns a page of JSON.
    pub(crate) fn json_of(daemon: &Daemon, path: &str) -> Value {
        let answer = daemon.get(path);
        let start = answer.find('{').unwrap_or_else(|| panic!("no JSON at {path}: {answer}"));
        let end = answer.rfind('}').expect("the end of an object");
        // A long page comes in chunks, whose sizes are lines between its bytes.
        let body = &answer[start..=end];
        serde_json::from_str(&unchunked(body)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn unchunked(body: &str) -> String {
        let mut lines = body.split("\r\n");
        let mut text = lines.next().unwrap_or_default().to_owned();
        while let (Some(_empty_or_size), Some(chunk)) = (lines.next(), lines.next()) {
            text += chunk;
        }
        text
    }
}

use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode};

use browser::{axe, chromium, hostile, large, use_of_page};
use libtest_mimic::{Arguments, Failed, Trial};

/// The environment variable that marks the process in the namespace.
const INSIDE: &str = "EXTERNAL_ENDPOINTS_BROWSER_TESTS";

/// The cases.
const CASES: [(&str, fn()); 6] = [
    (
        "nothing_that_a_database_says_runs_or_breaks_the_page",
        hostile::nothing_that_a_database_says_runs_or_breaks_the_page,
    ),
    (
        "nothing_in_a_query_runs_or_breaks_the_page",
        hostile::nothing_in_a_query_runs_or_breaks_the_page,
    ),
    ("every_state_can_be_read_by_everybody", use_of_page::every_state_can_be_read_by_everybody),
    ("people_search_filter_and_pause", use_of_page::people_search_filter_and_pause),
    ("the_page_is_served_as_it_should_be", use_of_page::the_page_is_served_as_it_should_be),
    ("ten_thousand_targets_load_within_a_second", large::ten_thousand_targets_load_in_a_second),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    if !arguments.list && std::env::var_os(INSIDE).is_none() {
        if let Some(reason) = missing() {
            eprintln!("the tests in a browser are skipped: {reason}");
            return if std::env::var_os("CI").is_some() {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            };
        }
        let network = "ip link set lo up && ip route add local 198.18.0.0/15 dev lo && exec \"$@\"";
        let error = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "sh", "-c", network, "sh"])
            .arg(std::env::current_exe().expect("a path"))
            .args(std::env::args_os().skip(1))
            .env(INSIDE, "1")
            .exec();
        panic!("unshare does not run: {error}");
    }
    // One browser at a time: each needs a processor and a good deal of memory.
    arguments.test_threads = Some(1);
    let trial = |(name, case): (&str, fn())| {
        Trial::test(name, move || {
            case();
            Ok::<(), Failed>(())
        })
    };
    libtest_mimic::run(&arguments, CASES.into_iter().map(trial).collect()).exit_code()
}

/// Returns what these tests lack, and how to get it.
fn missing() -> Option<String> {
    if chromium::find().is_none() {
        return Some("there is no Chromium; apt-get install chromium-headless-shell".to_owned());
    }
    axe::install().err()
}
