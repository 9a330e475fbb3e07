//! The sandbox: an unprivileged user, network, process and mount namespace for a whole cluster.
//!
//! A program that calls [`enter`] becomes a chain of four processes:
//!
//! ```text
//! outside        builds the binaries and waits; the others end when it ends
//!   unshare      ends with `outside` (parent-death signal)
//!     init       process 1 of the sandbox: sets up the network, reaps orphans
//!       inside   the program itself; when it ends, the kernel kills every process of the sandbox
//! ```
//!
//! Nothing in the sandbox has to clean up: not after a panic, Ctrl-C or SIGKILL.

#![allow(
    unsafe_code,
    reason = "a signal's disposition and the code before exec have no safe interface"
)]

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio, exit};

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

use super::binaries::{Binaries, build};

/// The environment variable that holds a process's stage. It is unset outside.
pub(crate) const STAGE: &str = "EXTERNAL_ENDPOINTS_SANDBOX";

/// The node's addresses. They are on a bridge with carrier.
pub(crate) const NODE_IP: &str = "192.0.2.1";
pub(crate) const NODE_IP6: &str = "2001:db8::1";

const UNSHARE: [&str; 8] = [
    "--user",
    "--map-root-user",
    "--net",
    "--mount",
    "--fork",
    "--pid",
    "--kill-child",
    "--mount-proc",
];

/// Returns only inside the sandbox. Outside, it runs this program again in a new sandbox and exits
/// with its status.
///
/// Must be called first in `main`, before any thread starts.
pub(crate) fn enter() {
    enter_with(Binaries::All);
}

/// Enters a sandbox that has only some binaries, to avoid building the others.
pub(crate) fn enter_with(binaries: Binaries) {
    match env::var(STAGE).as_deref() {
        Ok("inside") => {}
        Ok("init") => exit(run_init()),
        _ => exit(run_outside(binaries)),
    }
}

/// Returns a folder on the sandbox's tmpfs.
pub(crate) fn scratch_dir() -> PathBuf {
    assert!(env::var(STAGE).as_deref() == Ok("inside"), "only inside the sandbox");
    scratch_mount_point()
}

/// Returns a command that runs as an ordinary user of the sandbox, for programs that refuse to run
/// as root.
///
/// The user is `nobody`. Some programs look up its name, which exists on every machine.
pub(crate) fn as_ordinary_user(program: impl AsRef<Path>) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-user=65534", "--map-group=65534", "--"]).arg(program.as_ref());
    command
}

fn scratch_mount_point() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("sandbox")
}

fn run_outside(binaries: Binaries) -> i32 {
    let mut path = env::var_os("PATH").unwrap_or_default();
    // Debian has `ip` and `nft` there, and an ordinary user's PATH does not contain it.
    path.push(OsString::from(":/usr/sbin:/sbin"));
    if let Err(problem) = preflight(&path).and_then(|()| {
        fs::create_dir_all(scratch_mount_point())
            .map_err(|error| format!("{}: {error}", scratch_mount_point().display()))
    }) {
        eprintln!("error: {problem}");
        return 1;
    }
    // The sandbox has no internet access, so everything is built before.
    let binaries = match build(binaries) {
        Ok(binaries) => binaries,
        Err(problem) => {
            eprintln!("error: {problem}");
            return 1;
        }
    };

    // Ctrl-C reaches the whole terminal group. The program inside decides what to do. This process
    // stays to pass on the exit status.
    // SAFETY: no handler runs; the signal is ignored.
    unsafe { signal(Signal::SIGINT, SigHandler::SigIgn) }.expect("SIGINT can be ignored");
    let mut command = Command::new("unshare");
    command
        .args(UNSHARE)
        .arg("--")
        .arg(env::current_exe().expect("the path of this program"))
        .args(env::args_os().skip(1))
        .envs(binaries)
        // The binaries are built. The environment names them.
        .env_remove("K8S")
        .env("PATH", path)
        .env(STAGE, "init");
    // SAFETY: both calls are async-signal-safe.
    unsafe {
        command.pre_exec(|| {
            signal(Signal::SIGINT, SigHandler::SigDfl)?;
            set_pdeathsig(Signal::SIGKILL)?;
            Ok(())
        });
    }
    match command.status() {
        Ok(status) => status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        Err(error) => {
            eprintln!("error: unshare: {error}");
            1
        }
    }
}

/// Checks what the sandbox needs, so that a missing part is reported in one line.
fn preflight(path: &OsString) -> Result<(), String> {
    for (tool, package) in
        [("unshare", "util-linux"), ("mount", "mount"), ("ip", "iproute2"), ("nft", "nftables")]
    {
        if !env::split_paths(path).any(|folder| folder.join(tool).is_file()) {
            return Err(format!(
                "`{tool}` is not installed. Install Debian's package {package}, or run \
                 `tests/control-plane/setup.sh demo`."
            ));
        }
    }
    let tried = Command::new("unshare")
        .args(UNSHARE)
        .args(["--", "true"])
        .env("PATH", path)
        .output()
        .map_err(|error| format!("unshare: {error}"))?;
    if tried.status.success() {
        return Ok(());
    }
    Err(format!(
        "the cluster needs a user namespace, and this machine does not allow one: {}\n\
         On Debian: sysctl kernel.unprivileged_userns_clone=1; \
         on Ubuntu: sysctl kernel.apparmor_restrict_unprivileged_userns=0; \
         in Docker: run the container with --privileged.",
        String::from_utf8_lossy(&tried.stderr).trim()
    ))
}

/// Runs as process 1 of the sandbox. It reaps all orphans. The kernel ignores signals that it has
/// no handler for.
fn run_init() -> i32 {
    if let Err(problem) = set_up() {
        eprintln!("error: setting up the sandbox: {problem}");
        return 1;
    }
    let program = Command::new(env::current_exe().expect("the path of this program"))
        .args(env::args_os().skip(1))
        .env(STAGE, "inside")
        .env("TMPDIR", scratch_mount_point())
        .spawn();
    let program = match program {
        Ok(child) => Pid::from_raw(child.id().cast_signed()),
        Err(error) => {
            eprintln!("error: starting the program in the sandbox: {error}");
            return 1;
        }
    };
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == program => return code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == program => {
                return 128 + signal as i32;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => return 1,
        }
    }
}

fn set_up() -> Result<(), String> {
    run(
        Command::new("mount")
            .args(["-t", "tmpfs", "-o", "mode=0755", "sandbox"])
            .arg(scratch_mount_point()),
        "",
    )?;
    // Whole networks are local by a route and not by addresses, so servers must be allowed to bind
    // addresses that no interface has.
    for family in ["ipv4", "ipv6"] {
        let knob = format!("/proc/sys/net/{family}/ip_nonlocal_bind");
        fs::write(&knob, "1").map_err(|error| format!("{knob}: {error}"))?;
    }
    // A bridge has carrier only if one of its ports has.
    run(
        Command::new("ip").args(["-4", "-batch", "-"]),
        &format!(
            "link set lo up
             link add sandbox0 type bridge
             link add veth0 type veth peer name veth1
             link set veth0 master sandbox0
             link set veth0 up
             link set veth1 up
             link set sandbox0 up
             addr add {NODE_IP}/24 dev sandbox0
             route add default dev sandbox0
             route add local 198.51.100.0/24 dev lo
             route add local 203.0.113.0/24 dev lo
             route add local 198.18.0.0/15 dev lo
            "
        ),
    )?;
    run(
        Command::new("ip").args(["-6", "-batch", "-"]),
        &format!(
            "addr add {NODE_IP6}/64 dev sandbox0 nodad
             route add default dev sandbox0
             route add local 2001:db8:1::/64 dev lo
            "
        ),
    )?;
    run(Command::new("nft").args(["-f", "-"]), super::black_hole::NFT_TABLE)
}

/// Runs a command with an input. Returns its error output if it fails.
pub(crate) fn run(command: &mut Command, input: &str) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let failed = |what: String| format!("{name}: {}", what.trim());
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| failed(error.to_string()))?;
    // A program that fails early may read nothing. Its own error is more useful than the broken
    // pipe.
    let _ = child.stdin.take().expect("a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()))
}
