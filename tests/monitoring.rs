//! A real Prometheus that scrapes real replicas: each alert fires by a real cause and resolves, the
//! commands of its runbook run meanwhile, and each query of the dashboard returns data.

#![allow(clippy::disallowed_methods, reason = "these tests run in real time")]

mod support;

#[allow(dead_code, reason = "the cluster tests use the rest of the fixture")]
#[path = "cluster/fixture.rs"]
mod fixture;

mod monitoring {
    pub(crate) mod dashboard;
    pub(crate) mod prometheus;
    pub(crate) mod quiet;
    pub(crate) mod runbook;
    pub(crate) mod scene;
    pub(crate) mod story;
}

use std::process::ExitCode;
use std::time::Duration;

use libtest_mimic::{Arguments, Trial};
use support::{runtime, with_timeout};

/// Far longer than any of them takes on a busy machine.
const CASE_TIMEOUT: Duration = Duration::from_secs(480);

fn case<F: Future<Output = ()>>(
    name: &'static str,
    body: impl FnOnce() -> F + Send + 'static,
) -> Trial {
    Trial::test(name, move || {
        runtime().block_on(with_timeout(CASE_TIMEOUT, name, body()));
        Ok(())
    })
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let cases = vec![
        case("each_alert_fires_and_resolves", monitoring::story::each_alert_fires_and_resolves),
        case("no_alert_fires_when_nothing_is_wrong", monitoring::quiet::nothing_is_wrong),
    ];
    if !arguments.list && cases.iter().any(|case| !arguments.is_filtered_out(case)) {
        support::sandbox::enter_with(support::binaries::Binaries::ControlPlane);
        runtime().block_on(support::control_plane::start_shared());
        arguments.test_threads.get_or_insert(cases.len());
    }
    libtest_mimic::run(&arguments, cases).exit_code()
}
