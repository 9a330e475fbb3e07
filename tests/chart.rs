//! The Helm chart: its templates as text, and installed on a real control plane by a real Helm.

#![allow(clippy::disallowed_methods, reason = "these tests run in real time")]

mod support;

#[allow(dead_code, reason = "the config tests use the rest of the module")]
#[path = "config/random.rs"]
mod random;

mod chart {
    pub(crate) mod derived;
    pub(crate) mod helm;
    pub(crate) mod installed;
    pub(crate) mod layered;
    pub(crate) mod minimal;
    pub(crate) mod templates;
}

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// The number of cases that run at the same time. Cases mostly wait for checks and for the API.
const AT_ONCE: usize = 10;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let of_cluster: Vec<Trial> =
        [chart::minimal::cases(), chart::installed::cases()].into_iter().flatten().collect();
    let of_templates: Vec<Trial> =
        [chart::derived::cases(), chart::templates::cases()].into_iter().flatten().collect();
    let runs = |cases: &[Trial]| cases.iter().any(|case| !arguments.is_filtered_out(case));
    let needs_cluster = runs(&of_cluster);
    if !arguments.list && (needs_cluster || runs(&of_templates)) {
        support::sandbox::enter_with(support::binaries::Binaries::Helm);
        if needs_cluster {
            support::runtime().block_on(support::control_plane::start_shared());
        }
        arguments.test_threads.get_or_insert(AT_ONCE);
    }
    let cases = of_cluster.into_iter().chain(of_templates).collect();
    libtest_mimic::run(&arguments, cases).exit_code()
}
