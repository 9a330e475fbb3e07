//! One turn of a monitor: no kind of work keeps another from having its share.

use super::*;
use crate::config::{Options, parse};

fn monitor(databases: &str) -> Monitor {
    let options = Options { own_namespace: "prod".into(), ..Options::default() };
    let spec = parse("a.yaml", &format!("databases: [{databases}]"), &options)
        .expect("a good config")
        .spec;
    let limits = Limits { max_in_flight: 8, max_execs: 8 };
    let runtime = Runtime::current();
    let prepared =
        build(&spec, limits, Rules::default(), &Recorder::default(), runtime.clone(), runtime);
    prepared.expect("an epoll instance").1
}

fn pass(key: TargetKey) -> ProbeReport {
    let now = clock::now();
    ProbeReport { key, verdict: Verdict::Pass, delay: None, started: now, ended: now }
}

/// More than a turn takes, whatever its budget.
const MANY: usize = 10_000;

#[tokio::test]
async fn light_verdicts_do_not_keep_those_of_tasks_waiting() {
    let mut monitor = monitor(
        "{service: a, port: 1, addresses: [10.0.0.1], check: {tcp: {}}},
         {service: b, port: 1, addresses: [10.0.0.2], check: {exec: {command: [/bin/true]}}}",
    );
    monitor.verdicts.extend((0..MANY).map(|_| pass(0)));
    assert!(monitor.report.send(pass(1)).is_ok());
    monitor.apply_results();
    assert!(!monitor.verdicts.is_empty(), "a turn has an end");
    assert!(monitor.reports.is_empty());
    (0..MANY).for_each(|_| assert!(monitor.report.send(pass(1)).is_ok()));
    monitor.verdicts.drain(1..);
    monitor.apply_results();
    assert!(!monitor.reports.is_empty(), "a turn has an end");
    assert!(monitor.verdicts.is_empty(), "nor do those of tasks keep light ones waiting");
}
