//! The parts of a release: the images of `make image`, run on the tests' cluster, and the files of
//! `make release`.

#![allow(clippy::disallowed_methods, reason = "these tests run in real time")]

mod support;

#[allow(dead_code, reason = "the cluster tests use the rest of the fixture")]
#[path = "cluster/fixture.rs"]
mod fixture;

mod package {
    pub(crate) mod container;
    pub(crate) mod image;
    pub(crate) mod release;
}

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    let mut cases = package::image::cases();
    let running = package::container::cases();
    let runs = |arguments: &Arguments| {
        running.iter().any(|case| !arguments.is_filtered_out(case)) && !arguments.list
    };
    if runs(&arguments) {
        support::sandbox::enter_with(support::binaries::Binaries::ControlPlane);
        support::runtime().block_on(support::control_plane::start_shared());
        arguments.test_threads.get_or_insert(running.len());
    }
    cases.extend(running);
    cases.extend(package::release::cases());
    libtest_mimic::run(&arguments, cases).exit_code()
}
