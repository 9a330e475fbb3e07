//! The ways to install the daemon, by the very commands of the documentation: each on a fresh
//! cluster of its own, with a stopwatch.

#![allow(clippy::disallowed_methods, reason = "these tests run in real time")]

mod support;

mod install {
    pub(crate) mod doors;
    pub(crate) mod playground;
}

use std::process::ExitCode;

use libtest_mimic::Arguments;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("--database") => return install::playground::database(&arguments[2]),
        Some("--playground") => {
            support::sandbox::enter_with(support::binaries::Binaries::GitOps);
            return install::playground::run();
        }
        _ => {}
    }
    let mut arguments = Arguments::from_args();
    let cases = install::doors::cases();
    if !arguments.list && cases.iter().any(|case| !arguments.is_filtered_out(case)) {
        support::sandbox::enter_with(support::binaries::Binaries::GitOps);
        // Each has a control plane of its own, and a stopwatch.
        arguments.test_threads.get_or_insert(1);
    }
    libtest_mimic::run(&arguments, cases).exit_code()
}
