use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Resource, Signal, getrlimit, kill_process_group};

use super::*;

fn words(words: &[&str]) -> Vec<CString> {
    words.iter().map(|word| CString::new(*word).expect("no NUL byte")).collect()
}

fn start(
    command: &[&str],
    directory: Option<&CStr>,
    nofile_limit: Option<Rlimit>,
) -> Result<Started, SpawnError> {
    let arguments = words(command);
    let environment = words(&["PATH=/usr/bin:/bin"]);
    spawn(&Program {
        path: &arguments[0],
        arguments: &arguments,
        environment: &environment,
        directory,
        nofile_limit,
    })
}

fn shell(script: &str, nofile_limit: Option<Rlimit>) -> Started {
    start(&["/bin/sh", "-c", script], None, nofile_limit).unwrap_or_else(|_| panic!("a shell"))
}

/// Waits until the program has ended, or something else that holds its output has.
fn read_to_end(output: &OwnedFd) -> String {
    let (mut text, mut buffer) = (Vec::new(), [0; 4096]);
    let patience = Timespec { tv_sec: 30, tv_nsec: 0 };
    loop {
        match rustix::io::read(output, &mut buffer) {
            Ok(0) => return String::from_utf8(text).expect("UTF-8"),
            Ok(read) => text.extend_from_slice(&buffer[..read]),
            Err(Errno::AGAIN) => {
                let mut readable = [PollFd::new(output, PollFlags::IN)];
                assert_eq!(poll(&mut readable, Some(&patience)), Ok(1), "no end in 30 s");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn output_of(script: &str, nofile_limit: Option<Rlimit>) -> String {
    let started = shell(script, nofile_limit);
    let output = read_to_end(&started.output);
    waitpid(Some(started.id), WaitOptions::empty()).expect("a child");
    output
}

#[test]
fn a_program_inherits_its_three_streams_and_no_file_of_ours() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let links = output_of("ls -l /proc/$$/fd", None);
    assert!(links.contains(" 0 -> /dev/null\n"), "{links}");
    assert!(links.contains(" 1 -> pipe:") && links.contains(" 2 -> pipe:"), "{links}");
    assert!(!links.contains(&file.path().display().to_string()), "{links}");
}

/// Returns a set of signals from a process's status, as a bit mask.
fn signals(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a set");
    u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a bit mask")
}

#[test]
fn a_program_starts_without_blocked_or_handled_signals() {
    // SAFETY: the sets are filled in before they are read.
    let restore = unsafe {
        let (mut blocked, mut before) = (mem::zeroed(), mem::zeroed());
        libc::sigemptyset(&mut blocked);
        libc::sigaddset(&mut blocked, libc::SIGUSR2);
        libc::pthread_sigmask(libc::SIG_BLOCK, &blocked, &mut before);
        before
    };
    let status = output_of("exec cat /proc/self/status", None);
    // SAFETY: the set was filled in above.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &restore, ptr::null_mut()) };
    assert_eq!((signals(&status, "SigBlk"), signals(&status, "SigCgt")), (0, 0), "{status}");
    let own = std::fs::read_to_string("/proc/self/status").expect("a status");
    let sigpipe = 1 << (libc::SIGPIPE - 1);
    assert_ne!(signals(&own, "SigIgn") & sigpipe, 0, "Rust ignores SIGPIPE");
    assert_eq!(signals(&status, "SigIgn"), signals(&own, "SigIgn") & !sigpipe, "{status}");
}

#[test]
fn a_program_has_the_limit_of_descriptors_it_is_given() {
    let own = getrlimit(Resource::Nofile);
    let limit = Rlimit { current: Some(77), maximum: own.maximum };
    assert_eq!(output_of("ulimit -n", Some(limit)), "77\n");
    assert_eq!(getrlimit(Resource::Nofile), own, "the daemon keeps its own");
}

#[test]
fn a_start_that_fails_says_at_which_step() {
    let missing = start(&["/no/such/program"], None, None);
    let Err(SpawnError::Program(error)) = missing else { panic!("it was started") };
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    let nowhere = start(&["/bin/true"], Some(c"/no/such/folder"), None);
    let Err(SpawnError::Directory(error)) = nowhere else { panic!("it was started") };
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    let folder = start(&["/"], None, None);
    let Err(SpawnError::Program(error)) = folder else { panic!("it was started") };
    assert_eq!(error.raw_os_error(), Some(libc::EACCES));
}

#[test]
fn the_group_is_killed_whole() {
    let started = shell("sleep 300 & sleep 300 & echo up; wait", None);
    let deadline = Timespec { tv_sec: 30, tv_nsec: 0 };
    let mut readable = [PollFd::new(&started.output, PollFlags::IN)];
    assert_eq!(poll(&mut readable, Some(&deadline)), Ok(1), "nothing printed in 30 s");
    kill_process_group(started.id, Signal::KILL).expect("a group named by its leader");
    // Each member holds the pipe open until it is gone.
    assert_eq!(read_to_end(&started.output), "up\n");
    waitpid(Some(started.id), WaitOptions::empty()).expect("a child");
}

const PROGRAM: &CStr = c"/bin/true";

/// Starts the program and waits for it as the floor of the benchmark does.
fn start_by_posix_spawn() {
    let arguments = [PROGRAM.as_ptr().cast_mut(), ptr::null_mut()];
    let environment = [ptr::null_mut()];
    let mut id = 0;
    // SAFETY: all pointers are valid until the call returns, and both lists end with a null.
    let error = unsafe {
        libc::posix_spawn(
            &raw mut id,
            PROGRAM.as_ptr(),
            ptr::null(),
            ptr::null(),
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    assert_eq!(error, 0);
    waitpid(Pid::from_raw(id), WaitOptions::empty()).expect("a child");
}

fn start_by_this_module() {
    let started = start(&["/bin/true"], None, Some(getrlimit(Resource::Nofile)));
    let started = started.unwrap_or_else(|_| panic!("a program"));
    waitpid(Some(started.id), WaitOptions::empty()).expect("a child");
}

/// Starts the program by the standard library, with the limit set by `pre_exec` if there is one.
fn start_by_command(nofile_limit: Option<Rlimit>) {
    let (_reader, writer) = io::pipe().expect("a pipe");
    let mut command = Command::new("/bin/true");
    command.env_clear().env("PATH", "/usr/bin:/bin").process_group(0).stdin(Stdio::null());
    command.stdout(writer.try_clone().expect("a pipe")).stderr(writer);
    if let Some(limit) = nofile_limit {
        let set = move || Ok(rustix::process::setrlimit(Resource::Nofile, limit)?);
        // SAFETY: setrlimit is async-signal-safe.
        unsafe { command.pre_exec(set) };
    }
    let mut child = command.spawn().expect("a program");
    let id = Pid::from_child(&child);
    rustix::process::pidfd_open(id, rustix::process::PidfdFlags::empty()).expect("a pidfd");
    child.wait().expect("a child");
}

/// Returns the CPU time of this process and of the children it has waited for, in microseconds.
fn cpu_time() -> f64 {
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .map(|who| {
            // SAFETY: the call fills in `usage`, for which all zeros are valid.
            let usage = unsafe {
                let mut usage: libc::rusage = mem::zeroed();
                libc::getrusage(who, &raw mut usage);
                usage
            };
            let micros = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
            micros(usage.ru_utime) + micros(usage.ru_stime)
        })
        .iter()
        .sum()
}

#[test]
#[ignore = "a measurement: run it alone, with --nocapture"]
fn measure_the_ways_to_start_a_program() {
    let resident = vec![1_u8; 32 << 20];
    let limit = getrlimit(Resource::Nofile);
    let ways: [(&str, &dyn Fn()); 4] = [
        ("posix_spawn", &start_by_posix_spawn),
        ("this module", &start_by_this_module),
        ("Command", &|| start_by_command(None)),
        ("Command with pre_exec", &|| start_by_command(Some(limit))),
    ];
    let mut costs = ways.map(|_| Vec::new());
    for _ in 0..9 {
        for ((_, start), costs) in ways.iter().zip(&mut costs) {
            let before = cpu_time();
            (0..100).for_each(|_| start());
            costs.push((cpu_time() - before) / 100.0);
        }
    }
    for ((name, _), costs) in ways.iter().zip(&mut costs) {
        costs.sort_by(f64::total_cmp);
        println!("{name:22} {:7.1} us at least, {:7.1} us in the median", costs[0], costs[4]);
    }
    drop(std::hint::black_box(resident));
}
