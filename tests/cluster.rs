//! The cluster tests: one program and one control plane for all cases, with a Kubernetes namespace
//! for each case.

#![allow(clippy::disallowed_methods, reason = "these tests run in real time")]

mod support;

mod cluster {
    pub(crate) mod budget;
    pub(crate) mod check;
    pub(crate) mod commands;
    pub(crate) mod coverage;
    pub(crate) mod deploy;
    pub(crate) mod diagnosis;
    pub(crate) mod diff;
    pub(crate) mod events;
    pub(crate) mod events_repaired;
    pub(crate) mod events_truth;
    pub(crate) mod examples;
    pub(crate) mod faults;
    pub(crate) mod fixture;
    pub(crate) mod freeze;
    pub(crate) mod hostile;
    pub(crate) mod import;
    pub(crate) mod lease;
    pub(crate) mod maintenance;
    pub(crate) mod names;
    pub(crate) mod ownership;
    pub(crate) mod page;
    pub(crate) mod policy;
    pub(crate) mod prune;
    pub(crate) mod publish;
    pub(crate) mod refused;
    pub(crate) mod reload;
    pub(crate) mod rights;
    pub(crate) mod running;
    pub(crate) mod sandbox;
    pub(crate) mod services;
    pub(crate) mod slices;
    pub(crate) mod slices_modes;
    pub(crate) mod traffic;
    pub(crate) mod upgrade;
    pub(crate) mod waiting;
}

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// The number of cases that run at the same time. There are more than cores, as cases mostly wait
/// for checks and for the API.
const AT_ONCE: usize = 12;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(cluster::sandbox::HOLD) {
        cluster::sandbox::hold();
    }
    let mut arguments = Arguments::from_args();
    let mut cases: Vec<Trial> = [
        // The longest first, so that the others run beside them.
        cluster::examples::cases(),
        cluster::slices_modes::cases(),
        cluster::names::cases(),
        cluster::events::cases(),
        cluster::events_truth::cases(),
        cluster::events_repaired::cases(),
        cluster::lease::cases(),
        cluster::commands::cases(),
        cluster::prune::cases(),
        cluster::publish::cases(),
        cluster::slices::cases(),
        cluster::services::cases(),
        cluster::policy::cases(),
        cluster::maintenance::cases(),
        cluster::page::cases(),
        cluster::freeze::cases(),
        cluster::reload::cases(),
        cluster::hostile::cases(),
        cluster::import::cases(),
        cluster::faults::cases(),
        cluster::check::cases(),
        cluster::deploy::cases(),
        cluster::diagnosis::cases(),
        cluster::diff::cases(),
        cluster::rights::cases(),
        cluster::sandbox::cases(),
        cluster::budget::cases(),
        cluster::ownership::cases(),
        cluster::refused::cases(),
        cluster::running::cases(),
        cluster::traffic::cases(),
        cluster::upgrade::cases(),
        cluster::waiting::cases(),
    ]
    .into_iter()
    .flatten()
    .collect();
    cases.extend(cluster::coverage::cases(&cases));
    // `cargo test NAME` runs every test program. One without a matching case starts no cluster.
    if !arguments.list && cases.iter().any(|case| !arguments.is_filtered_out(case)) {
        support::sandbox::enter();
        support::runtime().block_on(support::control_plane::start_shared());
        arguments.test_threads.get_or_insert(AT_ONCE);
    }
    libtest_mimic::run(&arguments, cases).exit_code()
}
