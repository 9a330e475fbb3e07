//! The cluster tests: one program, one control plane with kube-proxy, a Kubernetes namespace for each trial.

// Trials measure real time.
#![allow(clippy::disallowed_methods)]

mod support;

mod cluster {
    pub(crate) mod bottle;
    pub(crate) mod budget;
    pub(crate) mod cases;
    pub(crate) mod deploy;
    pub(crate) mod events;
    pub(crate) mod examples;
    pub(crate) mod faults;
    pub(crate) mod freeze;
    pub(crate) mod hostile;
    pub(crate) mod lease;
    pub(crate) mod ownership;
    pub(crate) mod policy;
    pub(crate) mod prune;
    pub(crate) mod publish;
    pub(crate) mod refused;
    pub(crate) mod reload;
    pub(crate) mod rights;
    pub(crate) mod running;
    pub(crate) mod scene;
    pub(crate) mod services;
    pub(crate) mod slices;
    pub(crate) mod slices_modes;
    pub(crate) mod traffic;
    pub(crate) mod waiting;
}

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

/// Trials wait most of their time, for checks and for the API, so there are more at once than cores.
const AT_ONCE: usize = 12;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some(cluster::bottle::HOLD) {
        cluster::bottle::hold();
    }
    let mut arguments = Arguments::from_args();
    let mut trials: Vec<Trial> = [
        // The longest first, so that the others run beside them.
        cluster::examples::trials(),
        cluster::slices_modes::trials(),
        cluster::events::trials(),
        cluster::lease::trials(),
        cluster::prune::trials(),
        cluster::publish::trials(),
        cluster::slices::trials(),
        cluster::services::trials(),
        cluster::policy::trials(),
        cluster::freeze::trials(),
        cluster::reload::trials(),
        cluster::hostile::trials(),
        cluster::faults::trials(),
        cluster::deploy::trials(),
        cluster::rights::trials(),
        cluster::bottle::trials(),
        cluster::budget::trials(),
        cluster::ownership::trials(),
        cluster::refused::trials(),
        cluster::running::trials(),
        cluster::traffic::trials(),
        cluster::waiting::trials(),
    ]
    .into_iter()
    .flatten()
    .collect();
    trials.extend(cluster::cases::trials(&trials));
    // `cargo test NAME` runs every test program there is; one that has nothing to do starts nothing.
    if !arguments.list && trials.iter().any(|trial| !arguments.is_filtered_out(trial)) {
        support::bottle::enter();
        support::runtime().block_on(support::control_plane::start_shared());
        arguments.test_threads.get_or_insert(AT_ONCE);
    }
    libtest_mimic::run(&arguments, trials).exit_code()
}
