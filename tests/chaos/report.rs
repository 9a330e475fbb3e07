//! The report of a chaos run: the faults, the results and, for each violation, the events that led
//! to it.

use super::checker::{CheckResult, timeline};
use super::fixture::service;
use super::record::{Kind, Record};
use super::replicas::Replicas;
use super::scenario::{Action, Step};

/// The number of violations that are printed with their timelines.
const MAX_TIMELINES: usize = 3;

pub(crate) fn print(
    seed: u64,
    scenario: &[Step],
    record: &Record,
    result: &CheckResult,
    replicas: &Replicas,
) {
    let count =
        |wanted: fn(&Action) -> bool| scenario.iter().filter(|step| wanted(&step.action)).count();
    let stalls = record.faults.iter().filter(|fault| fault.kind == Kind::Stall).count();
    let takeovers = record
        .leases
        .windows(2)
        .filter(|pair| pair[0].holder != pair[1].holder && pair[1].holder.is_some());
    let (takeovers, end) = (takeovers.count(), record.end.as_secs_f64());
    let say = |what: &str, words: String| println!("  {what:<12} {words}");
    println!("chaos: actions in {end:.0} s with seed {seed}");
    say(
        "targets",
        format!(
            "{} killed, {} black-holed, {} restored",
            count(|action| matches!(action, Action::KillTarget(_))),
            count(|action| matches!(action, Action::BlackHoleTarget(_))),
            count(|action| matches!(action, Action::RestoreTarget(_)))
        ),
    );
    say("outside", format!("{} edits and deletions", record.outside.len()));
    say(
        "config",
        format!(
            "{} targets removed, {} added, {} comments edited, {} times corrupted",
            count(|action| matches!(action, Action::RemoveTarget(_))),
            count(|action| matches!(action, Action::AddTarget(_))),
            count(|action| matches!(action, Action::EditComment)),
            count(|action| matches!(action, Action::CorruptConfig(_)))
        ),
    );
    say(
        "dns",
        format!(
            "{} answers changed, {} faults of one name, {} of all names",
            count(|action| matches!(action, Action::Answer(..))),
            count(|action| matches!(action, Action::Dns(Some(_), ..))),
            count(|action| matches!(action, Action::Dns(None, ..)))
        ),
    );
    let faults: Vec<String> = record.faults.iter().filter_map(fault).collect();
    say("faults", faults.join("; "));
    println!("chaos: results");
    say(
        "writes",
        format!(
            "{} by the daemon, {} of them delayed past the Lease, {} of unknown callers",
            result.writes, result.delayed, result.unknown_writer
        ),
    );
    say("lease", format!("{takeovers} takeovers, {} writes", record.leases.len()));
    say(
        "worst delays",
        format!(
            "{:.2} s until a dead address was removed (limit {:.1} s), \
             {:.2} s until a restored one was added (limit {:.1} s), of {} measured",
            result.worst_out.as_secs_f64(),
            (record.limits.detection + record.limits.slack).as_secs_f64(),
            result.worst_in.as_secs_f64(),
            (record.limits.recovery + record.limits.slack).as_secs_f64(),
            result.timed
        ),
    );
    say(
        "seen",
        format!(
            "{} versions of Events, {:.2} s at the worst after a change (limit {:.1} s); {} views",
            record.statements.len(),
            result.worst_event.as_secs_f64(),
            record.limits.slack.as_secs_f64(),
            result.views
        ),
    );
    say(
        "excused",
        format!(
            "{:.0} s of {end:.0} s; the machine stalled {stalls} times",
            result.excused.as_secs_f64()
        ),
    );
    if result.violations.is_empty() {
        println!("chaos: no rule was violated");
        return;
    }
    println!(
        "chaos: {} violations; `make chaos SEED={seed}` runs the same scenario",
        result.violations.len()
    );
    result.violations.iter().for_each(|violation| println!("{violation}"));
    for violation in result.violations.iter().take(MAX_TIMELINES) {
        println!("chaos: history of {violation}");
        timeline(record, violation.database).iter().for_each(|line| println!("  {line}"));
        println!("  log of the replicas");
        let name = format!("\"{}\"", service(violation.database));
        replicas.log(&[&name, "lease"]).iter().for_each(|line| println!("  {line}"));
    }
}

fn fault(fault: &super::record::Fault) -> Option<String> {
    let span = format!("{:.1} s to {:.1} s", fault.from.as_secs_f64(), fault.until.as_secs_f64());
    match &fault.kind {
        Kind::Api(how) => Some(format!("API {how} {span}")),
        Kind::Replica(how, who) => Some(format!("{who} {how} {span}")),
        Kind::Stall => None,
    }
}
