//! The Helm chart: its templates as text, and installed on a real control plane by a real Helm.

#![allow(clippy::disallowed_methods, reason = "these tests run in real time")]

mod support;

#[allow(dead_code, reason = "the config tests use the rest of the module")]
#[path = "config/random.rs"]
mod random;

mod chart {
    pub(crate) mod derived;
    pub(crate) mod helm;
    pub(crate) mod layered;
    pub(crate) mod templates;
}

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// The number of cases that run at the same time. Cases mostly wait for checks and for the API.
const AT_ONCE: usize = 8;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let cases: Vec<Trial> =
        [chart::derived::cases(), chart::templates::cases()].into_iter().flatten().collect();
    if !arguments.list && cases.iter().any(|case| !arguments.is_filtered_out(case)) {
        support::sandbox::enter_with(support::binaries::Binaries::Helm);
        arguments.test_threads.get_or_insert(AT_ONCE);
    }
    libtest_mimic::run(&arguments, cases).exit_code()
}
