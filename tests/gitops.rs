//! Tools that deliver manifests from Git, beside a running daemon: one program and one control
//! plane for all of them, with a Kubernetes namespace for each.

#![allow(clippy::disallowed_methods, reason = "these tests run in real time")]

mod support;

#[allow(dead_code, reason = "the cluster tests use the rest of the fixture")]
#[path = "cluster/fixture.rs"]
mod fixture;

mod gitops {
    pub(crate) mod manifests;
    pub(crate) mod migration;
    pub(crate) mod rounds;
    pub(crate) mod tools;
}

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let mut cases = gitops::rounds::cases();
    cases.extend(gitops::migration::cases());
    if !arguments.list && cases.iter().any(|case| !arguments.is_filtered_out(case)) {
        support::sandbox::enter_with(support::binaries::Binaries::GitOps);
        support::runtime().block_on(support::control_plane::start_shared());
        arguments.test_threads.get_or_insert(cases.len());
    }
    libtest_mimic::run(&arguments, cases).exit_code()
}
