//! One turn of the loop: each kind of work gets its share.

use super::*;
use crate::config::{Options, parse};
use crate::health::Verdict;
use crate::schedule::TargetKey;

fn monitor(databases: &str) -> Monitor {
    let options = Options { own_namespace: "prod".into(), ..Options::default() };
    let spec = parse("a.yaml", &format!("databases: [{databases}]"), &options)
        .expect("a good config")
        .spec;
    let limits = Limits { max_in_flight: 8, max_execs: 8 };
    let runtime = Runtime::current();
    let prepared = build(
        &spec,
        limits,
        Rules::default(),
        &Recorder::default(),
        resolve::channel().0,
        (runtime.clone(), runtime),
    );
    prepared.expect("an epoll instance").1
}

fn pass(key: TargetKey) -> ProbeReport {
    let now = clock::now();
    ProbeReport { key, verdict: Verdict::Pass, delay: None, started: now, ended: now }
}

/// More results than any budget allows in one turn.
const MANY: usize = 10_000;

#[tokio::test]
async fn results_of_the_reactor_and_of_tasks_do_not_delay_each_other() {
    let mut monitor = monitor(
        "{service: a, port: 1, addresses: [10.0.0.1], check: {tcp: {}}},
         {service: b, port: 1, addresses: [10.0.0.2], check: {exec: {command: [/bin/true]}}}",
    );
    monitor.reactor_results.extend((0..MANY).map(|_| pass(0)));
    assert!(monitor.task_results_in.send(pass(1)).is_ok());
    monitor.apply_results();
    assert!(!monitor.reactor_results.is_empty(), "a turn has an end");
    assert!(monitor.task_results.is_empty());
    (0..MANY).for_each(|_| assert!(monitor.task_results_in.send(pass(1)).is_ok()));
    monitor.reactor_results.drain(1..);
    monitor.apply_results();
    assert!(!monitor.task_results.is_empty(), "a turn has an end");
    assert!(
        monitor.reactor_results.is_empty(),
        "results of tasks do not delay those of the reactor"
    );
}

#[test]
fn a_turn_takes_its_time_unless_a_check_has_little() {
    let long = Some(MIN_COALESCED_TIMEOUT);
    for (wait, shortest_timeout, expected) in [
        (Duration::ZERO, long, false),
        (Duration::from_nanos(1), long, true),
        (COALESCE_WINDOW, None, true),
        (COALESCE_WINDOW + Duration::from_nanos(1), long, false),
        (COALESCE_WINDOW, Some(Duration::from_millis(10)), false),
    ] {
        assert_eq!(coalesces(wait, shortest_timeout), expected, "{wait:?} {shortest_timeout:?}");
    }
}
