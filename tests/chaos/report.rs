//! What a chaos run tells at its end: what was done, what came of it, and on a breach all that led there.

use super::checker::{Judgement, timeline};
use super::fixture::service;
use super::record::{Kind, Record};
use super::replicas::Replicas;
use super::scenario::{Action, Step};

/// So many breaches are told with their timelines.
const TOLD: usize = 3;

pub(crate) fn tell(
    seed: u64,
    scenario: &[Step],
    record: &Record,
    judgement: &Judgement,
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
    println!("chaos: what was done, in {end:.0} s with seed {seed}");
    say(
        "targets",
        format!(
            "{} died, {} hung, {} came back",
            count(|action| matches!(action, Action::Dies(_))),
            count(|action| matches!(action, Action::Hangs(_))),
            count(|action| matches!(action, Action::Returns(_)))
        ),
    );
    say("outside", format!("{} edits and deletions", record.outside.len()));
    say(
        "config",
        format!(
            "{} targets left it, {} joined, {} comments, {} times it was bad",
            count(|action| matches!(action, Action::Leaves(_))),
            count(|action| matches!(action, Action::Joins(_))),
            count(|action| matches!(action, Action::Comments)),
            count(|action| matches!(action, Action::Garbles(_)))
        ),
    );
    let faults: Vec<String> = record.faults.iter().filter_map(fault).collect();
    say("faults", faults.join("; "));
    println!("chaos: what came of it");
    say(
        "writes",
        format!(
            "{} by the daemon, {} of them late, {} unnoted",
            judgement.writes, judgement.late, judgement.unnoted
        ),
    );
    say("lease", format!("{takeovers} takeovers, {} writes", record.leases.len()));
    say(
        "worst delays",
        format!(
            "{:.2} s until a dead address was out (limit {:.1} s), {:.2} s until one that came back was in (limit {:.1} s), of {} timed",
            judgement.worst_out.as_secs_f64(),
            (record.limits.detection + record.limits.slack).as_secs_f64(),
            judgement.worst_in.as_secs_f64(),
            (record.limits.recovery + record.limits.slack).as_secs_f64(),
            judgement.timed
        ),
    );
    say(
        "excused",
        format!(
            "{:.0} s of {end:.0} s; the machine stood still {stalls} times",
            judgement.excused.as_secs_f64()
        ),
    );
    if judgement.breaches.is_empty() {
        println!("chaos: every rule held");
        return;
    }
    println!(
        "chaos: {} breaches; `make chaos SEED={seed}` plays the same scenario",
        judgement.breaches.len()
    );
    judgement.breaches.iter().for_each(|breach| println!("{breach}"));
    for breach in judgement.breaches.iter().take(TOLD) {
        println!("chaos: how it came to {breach}");
        timeline(record, breach.database).iter().for_each(|line| println!("  {line}"));
        println!("  what the replicas logged");
        let name = format!("\"{}\"", service(breach.database));
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
