//! Figures of the kernel: clocks, a process's CPU time, memory and descriptors, and CPU affinity.

#![allow(unsafe_code, reason = "these clocks and figures of the kernel have no safe interface")]

use std::fs;
use std::io;
use std::mem::MaybeUninit;

use anyhow::{Context as _, Result, bail};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::{ClockId, Timespec, clock_gettime};

pub(crate) const MICRO: u64 = 1_000;
pub(crate) const MILLI: u64 = 1_000_000;
pub(crate) const SECOND: u64 = 1_000_000_000;

/// Returns the monotonic clock in nanoseconds.
pub(crate) fn now() -> u64 {
    nanoseconds(clock_gettime(ClockId::Monotonic))
}

/// Returns the wall clock in nanoseconds, which the kernel's packet timestamps use.
pub(crate) fn wall() -> u64 {
    nanoseconds(clock_gettime(ClockId::Realtime))
}

fn nanoseconds(time: Timespec) -> u64 {
    time.tv_sec.cast_unsigned() * SECOND + time.tv_nsec.cast_unsigned()
}

/// Returns the user and system time of a process in nanoseconds, with its ended threads and the
/// children that it has waited for.
pub(crate) fn cpu_time(pid: u32) -> Result<u64> {
    let mut clock: libc::clockid_t = 0;
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: both calls write only where they are told to, and `time` is read only if it was
    // written.
    let own = unsafe {
        if libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) != 0
            || libc::clock_gettime(clock, time.as_mut_ptr()) != 0
        {
            bail!("no CPU clock of process {pid}: {}", io::Error::last_os_error());
        }
        time.assume_init()
    };
    let own = own.tv_sec.cast_unsigned() * SECOND + own.tv_nsec.cast_unsigned();
    Ok(own + children_time(pid)?)
}

fn children_time(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    // The program's name may contain anything. The fields after its last bracket are plain. cutime
    // and cstime are fields 16 and 17.
    let after = text.rsplit_once(')').with_context(|| path.clone())?.1;
    let ticks: u64 = after
        .split_whitespace()
        .skip(13)
        .take(2)
        .map(|field| field.parse::<u64>().unwrap_or_default())
        .sum();
    // SAFETY: takes a number and returns one.
    let per_second = unsafe { libc::sysconf(libc::_SC_CLK_TCK) }.cast_unsigned();
    Ok(ticks * (SECOND / per_second))
}

/// Returns the resident memory in KiB.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let line =
        text.lines().find_map(|line| line.strip_prefix("VmRSS:")).with_context(|| path.clone())?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// Returns the number of open descriptors of a process.
pub(crate) fn descriptors(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/fd");
    Ok(fs::read_dir(&path).context(path)?.count() as u64)
}

/// Returns the number of connections of this network namespace in TIME_WAIT.
pub(crate) fn time_wait() -> Result<u64> {
    let text = fs::read_to_string("/proc/net/sockstat")?;
    let words: Vec<&str> = text
        .lines()
        .find(|line| line.starts_with("TCP:"))
        .context("sockstat")?
        .split(' ')
        .collect();
    let at = words.iter().position(|word| *word == "tw").context("sockstat")?;
    Ok(words[at + 1].parse()?)
}

/// Returns about how many processes and threads this process namespace has started: the kernel's
/// last number.
pub(crate) fn started() -> Result<u64> {
    let text = fs::read_to_string("/proc/loadavg")?;
    Ok(text.split_whitespace().last().context("loadavg")?.parse()?)
}

/// Returns the number of processes in this process namespace.
pub(crate) fn processes() -> Result<u64> {
    let numbered = |entry: io::Result<fs::DirEntry>| {
        entry.is_ok_and(|entry| entry.file_name().to_string_lossy().parse::<u32>().is_ok())
    };
    Ok(fs::read_dir("/proc")?.filter_map(|entry| numbered(entry).then_some(())).count() as u64)
}

/// One CPU for the checker and another for the targets, so that neither takes the other's time.
#[derive(Clone, Copy)]
pub(crate) struct Cpus {
    pub checker: usize,
    pub targets: usize,
}

impl Cpus {
    pub(crate) fn choose() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut allowed = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
        let checker = allowed.next().context("no CPU")?;
        let targets = allowed.next().unwrap_or_else(|| {
            eprintln!(
                "bench: there is only one CPU: checker and targets share it, so figures say little"
            );
            checker
        });
        Ok(Self { checker, targets })
    }
}

/// Keeps the calling thread and its later threads and processes on one CPU.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Raises the limit of descriptors. Ten thousand checks in flight need as many.
pub(crate) fn raise_descriptor_limit() -> Result<()> {
    let limit = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum })?)
}
