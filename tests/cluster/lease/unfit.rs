//! A leader that can't check leaves the Lease to a replica that can.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use libtest_mimic::Trial;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

use super::replicas::{
    LONG_TIMEOUT, identity, leads, lease, never_two, pair, published, replica, takes_over,
    terms_of_leading,
};
use crate::cluster::fixture::{Fixture, TIMEOUT};
use crate::support::daemon::log_field;
use crate::support::{Daemon, case::cases, eventually};

pub(super) fn cases() -> Vec<Trial> {
    cases![
        a_leader_with_a_stalled_monitor_is_replaced,
        a_leader_without_descriptors_steps_down,
        a_single_leader_that_cannot_check_continues,
    ]
}

/// A thread of a process that is stopped until this is dropped, while all others run.
struct StoppedThread {
    resume: Option<mpsc::Sender<()>>,
    tracer: Option<JoinHandle<()>>,
}

impl StoppedThread {
    fn stop(daemon: &Daemon, name: &str) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.pid())).expect("a process");
        let mut tasks = tasks.map(|task| task.expect("a task").path());
        let is_named = |task: &std::path::PathBuf| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let task = tasks.find(is_named).expect("a thread of this name");
        let id = task.file_name().and_then(|id| id.to_str()?.parse().ok()).expect("a number");
        let (resume, resumed) = mpsc::channel();
        let (stopped, is_stopped) = mpsc::channel();
        // Only the thread that traces it may resume it.
        let tracer = thread::spawn(move || {
            let thread = Pid::from_raw(id);
            ptrace::seize(thread, ptrace::Options::empty())
                .expect("a thread of a child can be traced");
            ptrace::interrupt(thread).expect("it is traced");
            waitpid(thread, Some(WaitPidFlag::__WALL)).expect("it stops");
            stopped.send(()).expect("someone waits");
            let _ = resumed.recv();
            let _ = ptrace::detach(thread, None);
        });
        is_stopped.recv().expect("it stops");
        Self { resume: Some(resume), tracer: Some(tracer) }
    }
}

impl Drop for StoppedThread {
    fn drop(&mut self) {
        self.resume.take();
        let _ = self.tracer.take().expect("a tracer").join();
    }
}

/// Limits the number of descriptors that a process may have open.
fn limit_descriptors(daemon: &Daemon, most: u64) {
    let pid = rustix::process::Pid::from_raw(daemon.pid().cast_signed());
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current: Some(most), maximum })
        .expect("a child may be limited");
}

async fn steps_down(daemon: &Daemon) {
    let steps = |line: &serde_json::Value| log_field(line, "message") == Some("stepping down");
    eventually(LONG_TIMEOUT, "it steps down", async || daemon.logs().iter().any(steps)).await;
}

async fn a_leader_with_a_stalled_monitor_is_replaced() {
    let mut fixture = Fixture::new("standstill").await;
    let (first, second) = pair(&fixture).await;
    let stopped = StoppedThread::stop(&first, "checks");
    let since = Instant::now();
    fixture.databases[0].stop().await;
    eventually(LONG_TIMEOUT, "the other replica publishes what it found", async || {
        fixture.namespace.endpoint_ips("mysql").await == fixture.ips(&[1, 2])
    })
    .await;
    let took = since.elapsed();
    assert!(took < Duration::from_secs(27), "took {took:?}");
    never_two(&[&first, &second]);

    drop(stopped);
    fixture.expect_condition_with(&first, "Standby", "is held by").await;
    assert!(leads(&second).await && !leads(&first).await);
}

async fn a_leader_without_descriptors_steps_down() {
    let mut fixture = Fixture::new("descriptors").await;
    let (first, second) = pair(&fixture).await;
    // Open connections stay open, the one to the API among them.
    limit_descriptors(&first, 3);
    steps_down(&first).await;
    takes_over(&second).await;
    fixture.databases[0].stop().await;
    fixture.expect_endpoints(&[1, 2]).await;
    never_two(&[&first, &second]);
    limit_descriptors(&first, 1000);
    fixture.expect_condition_with(&first, "Standby", "is held by").await;
}

/// Impairs the only replica: it steps down once, and acquires the Lease again as nobody else does.
async fn a_single_leader_that_cannot_check_continues() {
    let fixture = Fixture::new("alone-unfit").await;
    let first = replica(&fixture).await;
    let first = published(&fixture, first).await;
    let me = identity(&first).await;
    let holder = async || lease(&fixture).await.and_then(|lease| lease.holder_identity);
    limit_descriptors(&first, 3);
    steps_down(&first).await;
    eventually(TIMEOUT, "nobody holds the Lease", async || holder().await.is_none()).await;
    let since = Instant::now();
    eventually(LONG_TIMEOUT, "it holds the Lease again", async || {
        holder().await.as_ref() == Some(&me)
    })
    .await;
    let took = since.elapsed();
    assert!(took > Duration::from_secs(14), "others had no chance: {took:?}");
    limit_descriptors(&first, 1000);
    eventually(TIMEOUT, "it leads", async || leads(&first).await).await;
    assert_eq!(terms_of_leading(&first).len(), 2);
}
