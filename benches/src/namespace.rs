//! The benchmark's own network.
//!
//! This program runs itself again in new user, network, process and mount namespaces. A whole
//! network is local there, and no packet leaves it. When the program ends, everything that it
//! started ends too.

#![allow(unsafe_code, reason = "code that runs before exec has no safe interface")]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions, set_parent_process_death_signal, wait};

const STAGE: &str = "EXTERNAL_ENDPOINTS_BENCH";

/// The network that RFC 2544 reserves for benchmarks.
const NETWORK: &str = "198.18.0.0/15";

/// Settings of the new network. A busy machine must not drop SYNs.
const SYSCTLS: [(&str, &str); 3] = [
    ("/proc/sys/net/core/somaxconn", "65535"),
    ("/proc/sys/net/ipv4/tcp_max_syn_backlog", "65535"),
    ("/proc/sys/net/ipv4/tcp_syncookies", "0"),
];

/// The position of this process in the chain.
#[derive(PartialEq, Eq)]
pub(crate) enum Stage {
    Outside,
    /// Process 1, the parent of all orphans.
    Init,
    Inside,
}

pub(crate) fn stage() -> Stage {
    match env::var(STAGE).as_deref() {
        Ok("init") => Stage::Init,
        Ok(_) => Stage::Inside,
        Err(_) => Stage::Outside,
    }
}

/// Runs this program with the same arguments inside, and returns its exit status.
pub(crate) fn run_inside() -> Result<i32> {
    fs::create_dir_all(mount_point()?)?;
    let mut path = env::var_os("PATH").unwrap_or_default();
    // Debian has `ip`, `nft` and `haproxy` there, and an ordinary user's PATH does not contain it.
    path.push(OsString::from(":/usr/sbin:/sbin"));
    let mut command = Command::new("unshare");
    command
        .args([
            "--user",
            "--map-root-user",
            "--net",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "--",
        ])
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env("PATH", path)
        .env(STAGE, "init");
    // SAFETY: one system call, which a new process may make.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    let status = command.status().context("unshare (Debian's package util-linux)")?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default()))
}

/// Runs this program with the same arguments once more, and reaps all processes. An orphan that
/// nobody reaps would look like one that the daemon left behind.
pub(crate) fn init() -> Result<i32> {
    let mut command = Command::new(env::current_exe()?);
    let program =
        command.args(env::args_os().skip(1)).env(STAGE, "inside").spawn()?.id().cast_signed();
    loop {
        match wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid.as_raw_nonzero().get() == program => {
                return Ok(status
                    .exit_status()
                    .unwrap_or_else(|| 128 + status.terminating_signal().unwrap_or_default()));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("wait"),
        }
    }
}

/// Sets up the new network. Must be called once, first inside.
pub(crate) fn set_up() -> Result<()> {
    let point = mount_point()?;
    run(Command::new("mount").args(["-t", "tmpfs", "bench"]).arg(&point))?;
    run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
    run(Command::new("ip").args(["route", "add", "local", NETWORK, "dev", "lo"]))?;
    for (knob, value) in SYSCTLS {
        fs::write(knob, value).with_context(|| knob.to_owned())?;
    }
    Ok(())
}

/// Disables TIME_WAIT. Some checkers leave thousands of connections a second in this state at the
/// targets, which would slow down the next subject.
pub(crate) fn disable_time_wait() -> Result<()> {
    const KNOB: &str = "/proc/sys/net/ipv4/tcp_max_tw_buckets";
    fs::write(KNOB, "0").context(KNOB)
}

/// Returns a folder that only the inside sees, and that disappears with it.
pub(crate) fn scratch() -> Result<PathBuf> {
    ensure!(stage() == Stage::Inside, "only inside");
    mount_point()
}

fn mount_point() -> Result<PathBuf> {
    let program = env::current_exe()?;
    Ok(program.parent().unwrap_or(Path::new("/")).join("scratch"))
}

/// Runs a short command and returns its output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.stdin(Stdio::null()).output().with_context(|| name.clone())?;
    if !output.status.success() {
        bail!("{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
