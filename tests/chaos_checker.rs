//! The judge of the chaos run, judged: each rule fails on a made-up history that breaks it, and holds on one that does not.

#![allow(dead_code, reason = "the chaos run uses the other half of these modules")]

mod chaos {
    pub(crate) mod checker;
    pub(crate) mod record;
    pub(crate) mod scenario;
    pub(crate) mod span;
}

use std::net::IpAddr;
use std::time::Duration;

use chaos::checker::{Judgement, Rule, judge, timeline};
use chaos::record::{At, Change, Fault, Flip, Holding, Kind, Limits, Record};
use chaos::scenario::{Action, ReplicaFault, scenario};

const S: Duration = Duration::from_secs(1);

fn ip(host: u8) -> IpAddr {
    IpAddr::from([198, 51, 100, host])
}

/// One database of two addresses, for a minute, whose Lease `a` holds.
struct Story(Record);

impl Story {
    fn new() -> Story {
        let limits = Limits {
            detection: 3 * S,
            recovery: 2 * S,
            slack: 2 * S,
            config: 4 * S,
            handover: 2 * S,
            lease: 16 * S,
            backoff: 5 * S,
        };
        let record = Record {
            limits,
            databases: vec![vec![ip(1), ip(2)]],
            end: 60 * S,
            ..Record::default()
        };
        Story(record).held(0, 1, Some("a"))
    }

    fn held(mut self, second: u32, version: u64, holder: Option<&str>) -> Story {
        self.0.leases.push(Holding { at: S * second, version, holder: holder.map(str::to_owned) });
        self
    }

    fn flips(mut self, second: u32, host: u8, up: bool) -> Story {
        self.0.flips.push(Flip {
            at: S * second,
            ip: ip(host),
            up,
            how: if up { "came back" } else { "died" },
        });
        self
    }

    /// The Endpoints at a time: the version is ten times the second.
    fn holds(mut self, second: u32, hosts: Option<&[u8]>) -> Story {
        let members = hosts.map(|hosts| hosts.iter().map(|host| ip(*host)).collect());
        let managers = ["external-endpoints".to_owned()].into();
        self.0.changes.push(Change {
            at: S * second,
            version: u64::from(second) * 10,
            database: 0,
            members,
            managers,
        });
        self
    }

    fn writes(mut self, who: &str, second: u32, hosts: &[u8]) -> Story {
        self.0.writers.insert(u64::from(second) * 10, who.to_owned());
        self.holds(second, Some(hosts))
    }

    fn edits(mut self, second: u32, hosts: Option<&[u8]>) -> Story {
        self.0.outside.insert(u64::from(second) * 10);
        self.holds(second, hosts)
    }

    fn fault(mut self, from: u32, until: u32, kind: Kind) -> Story {
        self.0.faults.push(Fault { from: S * from, until: S * until, kind });
        self
    }

    /// A policy keeps the database from being empty.
    fn kept(mut self) -> Story {
        self.0.keep.insert(0);
        self
    }

    fn joins(mut self, second: u32) -> Story {
        self.0.joins.push((S * second, 0));
        self
    }

    #[track_caller]
    fn breaks(self, rules: &[Rule]) -> Judgement {
        let judgement = judge(&self.0);
        let broken: Vec<Rule> = judgement.breaches.iter().map(|breach| breach.rule).collect();
        assert_eq!(broken, rules, "{:#?}\n{}", judgement.breaches, timeline(&self.0, 0).join("\n"));
        judgement
    }
}

fn killed(who: &str) -> Kind {
    Kind::Replica(ReplicaFault::Killed, who.to_owned())
}

#[test]
fn a_death_and_a_return_in_time_break_nothing_and_are_timed() {
    let story = Story::new().flips(10, 1, false).writes("a", 14, &[2]).flips(20, 1, true).writes(
        "a",
        23,
        &[1, 2],
    );
    let judgement = story.breaks(&[]);
    assert_eq!((judgement.worst_out, judgement.worst_in), (4 * S, 3 * S));
    assert_eq!((judgement.timed, judgement.writes, judgement.excused), (2, 2, At::ZERO));
}

#[test]
fn a_dead_address_that_stays_too_long_is_a_breach() {
    let judgement = Story::new().flips(10, 1, false).writes("a", 16, &[2]).breaks(&[Rule::Dead]);
    assert_eq!(judgement.breaches[0].at, 15 * S);
    Story::new().flips(10, 1, false).breaks(&[Rule::Dead]);
    // Too late to tell.
    Story::new().flips(56, 1, false).breaks(&[]);
}

#[test]
fn a_healthy_address_that_is_missing_too_long_is_a_breach() {
    let gone = || Story::new().flips(10, 1, false).writes("a", 13, &[2]).flips(20, 1, true);
    gone().writes("a", 24, &[1, 2]).breaks(&[]);
    let judgement = gone().writes("a", 25, &[1, 2]).breaks(&[Rule::Missing]);
    assert_eq!(judgement.breaches[0].at, 24 * S);
    // Taken out for no reason at all.
    Story::new().writes("a", 30, &[2]).breaks(&[Rule::Missing]);
    Story::new().writes("a", 30, &[2]).writes("a", 31, &[1, 2]).breaks(&[Rule::Missing]);
}

#[test]
fn a_write_of_another_than_the_holder_is_a_breach() {
    let dies = || Story::new().flips(10, 1, false);
    dies().writes("b", 12, &[2]).breaks(&[Rule::Holder]);
    dies().held(11, 110, Some("b")).writes("b", 12, &[2]).breaks(&[]);
    dies().held(11, 110, Some("b")).writes("a", 12, &[2]).breaks(&[Rule::Holder]);
    dies().held(11, 110, None).writes("a", 12, &[2]).breaks(&[Rule::Holder]);
    // The order is that of versions, whatever the two watches told first.
    dies().held(11, 125, Some("b")).writes("a", 12, &[2]).breaks(&[]);
    dies().held(13, 115, Some("b")).writes("a", 12, &[2]).breaks(&[Rule::Holder]);
}

#[test]
fn a_write_of_nobody_known_is_a_breach_unless_the_api_was_killed_over_it() {
    let story = || Story::new().flips(10, 1, false).holds(12, Some(&[2]));
    story().breaks(&[Rule::Holder]);
    assert_eq!(story().fault(12, 15, Kind::Api("killed")).breaks(&[]).unnoted, 1);
    story().fault(20, 25, Kind::Api("killed")).breaks(&[Rule::Holder]);
    // Nor if it was held back in the network so long that the caller had given it up.
    let cut_off = || Kind::Replica(ReplicaFault::CutOff, "a".to_owned());
    assert_eq!(story().fault(5, 12, cut_off()).breaks(&[]).unnoted, 1);
    story().fault(5, 9, cut_off()).breaks(&[Rule::Holder]);
    story().fault(5, 12, killed("a")).breaks(&[Rule::Holder]);
}

#[test]
fn a_late_write_is_only_what_the_api_held_back_from_one_who_held_the_lease() {
    let story =
        |who| Story::new().flips(10, 1, false).held(11, 110, Some("b")).writes(who, 12, &[2]);
    assert_eq!(story("a").fault(5, 12, Kind::Api("stopped")).breaks(&[]).late, 1);
    story("c").fault(5, 12, Kind::Api("stopped")).breaks(&[Rule::Holder]);
}

#[test]
fn an_empty_set_while_a_target_is_up_is_a_breach() {
    let dies = || Story::new().flips(10, 1, false);
    dies().writes("a", 13, &[]).writes("a", 14, &[2]).breaks(&[Rule::Missing, Rule::Empty]);
    dies().flips(10, 2, false).writes("a", 13, &[]).breaks(&[]);
    // It has just come back: who decided could not know.
    dies()
        .flips(10, 2, false)
        .flips(12, 2, true)
        .writes("a", 13, &[])
        .writes("a", 15, &[2])
        .breaks(&[]);
    // Not by the daemon.
    Story::new().edits(13, Some(&[])).writes("a", 14, &[1, 2]).breaks(&[]);
    Story::new().edits(13, None).writes("a", 14, &[]).writes("a", 15, &[1, 2]).breaks(&[]);
}

#[test]
fn a_database_that_a_policy_keeps_is_never_emptied_and_its_last_one_stays() {
    let all_die = || Story::new().kept().flips(10, 1, false).flips(10, 2, false);
    all_die().writes("a", 13, &[2]).breaks(&[]);
    all_die().breaks(&[]);
    all_die().writes("a", 13, &[]).breaks(&[Rule::Empty]);
    all_die().fault(12, 14, Kind::Api("slow")).writes("a", 13, &[]).breaks(&[Rule::Empty]);
    // One that is back takes the place of who was kept.
    let back = || all_die().writes("a", 13, &[2]).flips(30, 1, true);
    back().writes("a", 34, &[1]).breaks(&[]);
    back().writes("a", 33, &[1, 2]).writes("a", 34, &[1]).breaks(&[]);
    back().writes("a", 33, &[1, 2]).writes("a", 35, &[1]).breaks(&[Rule::Dead]);
    back().writes("a", 35, &[1]).breaks(&[Rule::Dead, Rule::Missing]);
    // Who dies while another is up has to go.
    Story::new().kept().flips(10, 1, false).writes("a", 16, &[2]).breaks(&[Rule::Dead]);
}

#[test]
fn a_target_that_comes_into_the_config_holds_up_the_others_for_its_first_try() {
    let story = || Story::new().flips(10, 1, false).joins(11);
    story().writes("a", 17, &[2]).breaks(&[]);
    story().writes("a", 18, &[2]).breaks(&[Rule::Dead]);
}

#[test]
fn a_holder_that_is_asked_to_end_hands_its_lease_over() {
    let ended = || Kind::Replica(ReplicaFault::Ended, "a".to_owned());
    let story = || Story::new().fault(10, 30, ended());
    story().held(14, 140, Some("b")).breaks(&[]);
    story().held(11, 110, None).held(14, 140, Some("b")).breaks(&[]);
    story().held(11, 110, None).held(15, 150, Some("b")).breaks(&[Rule::Handover]);
    story().breaks(&[Rule::Handover]);
    story().fault(12, 13, Kind::Api("killed")).breaks(&[]);
    Story::new().held(5, 50, Some("b")).fault(10, 30, ended()).breaks(&[]);
}

#[test]
fn an_outside_edit_is_repaired_in_the_slack() {
    for edit in [Some([1_u8].as_slice()), None] {
        Story::new().edits(30, edit).writes("a", 32, &[1, 2]).breaks(&[]);
    }
    Story::new().edits(30, Some(&[1])).writes("a", 33, &[1, 2]).breaks(&[Rule::Missing]);
    Story::new().edits(30, None).writes("a", 33, &[1, 2]).breaks(&[Rule::Missing, Rule::Missing]);
    let dead = || Story::new().flips(10, 1, false).writes("a", 13, &[2]).edits(30, Some(&[1, 2]));
    dead().writes("a", 32, &[2]).breaks(&[]);
    dead().writes("a", 33, &[2]).breaks(&[Rule::Dead]);
}

#[test]
fn a_fault_of_the_api_excuses_until_the_longest_pause_after_it() {
    let story = |second| {
        let story = Story::new().flips(10, 1, false).fault(9, 20, Kind::Api("killed"));
        story.writes("a", second, &[2])
    };
    assert_eq!(story(27).breaks(&[]).excused, 16 * S);
    story(28).breaks(&[Rule::Dead]);
    // A fault before and one after excuse nothing.
    let story = Story::new().flips(10, 1, false).fault(1, 2, Kind::Api("killed")).fault(
        40,
        50,
        Kind::Api("slow"),
    );
    story.writes("a", 16, &[2]).breaks(&[Rule::Dead]);
}

#[test]
fn a_killed_holder_excuses_until_its_lease_runs_out_or_another_has_it() {
    // Renewed at 8, so it runs out at 24.
    let story =
        || Story::new().held(8, 80, Some("a")).flips(10, 1, false).fault(9, 50, killed("a"));
    let taken = |second: u32| story().held(second, u64::from(second) * 10 - 5, Some("b"));
    taken(23).writes("b", 25, &[2]).breaks(&[]);
    taken(23).writes("b", 26, &[2]).breaks(&[Rule::Dead]);
    taken(27).writes("b", 27, &[2]).breaks(&[Rule::Dead]);
    story().breaks(&[Rule::Dead]);
    // While the other could not see that it was renewed, its time had not begun.
    taken(33).fault(8, 17, Kind::Api("stopped")).writes("b", 35, &[2]).breaks(&[]);
    // Of one that does not hold it, nothing is expected.
    let other = Story::new().held(8, 80, Some("a")).flips(10, 1, false).fault(9, 50, killed("b"));
    other.writes("a", 16, &[2]).breaks(&[Rule::Dead]);
}

#[test]
fn a_stopped_holder_excuses_until_it_has_found_out_what_happened() {
    let stopped = Kind::Replica(ReplicaFault::Stopped, "a".to_owned());
    let story =
        || Story::new().held(8, 80, Some("a")).flips(10, 1, false).fault(9, 16, stopped.clone());
    story().writes("a", 21, &[2]).breaks(&[]);
    story().writes("a", 22, &[2]).breaks(&[Rule::Dead]);
    // To the end, where it goes on with its Lease about to run out: 8 and 16.5 s.
    let longer =
        || Story::new().held(8, 80, Some("a")).flips(10, 1, false).fault(9, 24, stopped.clone());
    longer().writes("a", 29, &[2]).breaks(&[]);
    longer().writes("a", 30, &[2]).breaks(&[Rule::Dead]);
    // A renewal that the API held back is seen when it is stored: until 13 and 16.5 s.
    let api = || {
        Story::new().held(8, 80, Some("a")).flips(20, 1, false).fault(9, 13, Kind::Api("stopped"))
    };
    let held_back = |until| api().fault(12, until, stopped.clone()).held(13, 130, Some("a"));
    held_back(40).held(29, 290, Some("b")).writes("b", 30, &[2]).breaks(&[]);
    held_back(40).held(33, 330, Some("b")).writes("b", 34, &[2]).breaks(&[Rule::Dead]);
    // Another that has the Lease has seen all.
    story().held(13, 130, Some("b")).writes("b", 16, &[2]).breaks(&[Rule::Dead]);
    story().held(13, 130, Some("b")).writes("b", 15, &[2]).breaks(&[]);
    let cut_off = Kind::Replica(ReplicaFault::CutOff, "a".to_owned());
    let story =
        || Story::new().held(8, 80, Some("a")).flips(10, 1, false).fault(9, 12, cut_off.clone());
    story().writes("a", 19, &[2]).breaks(&[]);
    story().writes("a", 20, &[2]).breaks(&[Rule::Dead]);
}

#[test]
fn a_target_that_flips_again_begins_anew() {
    let story = Story::new().flips(10, 1, false).flips(14, 1, true).flips(15, 1, false);
    story.writes("a", 20, &[2]).breaks(&[]);
    // It was taken out as it came back, which is no breach for as long as a recovery takes.
    Story::new()
        .flips(10, 1, false)
        .flips(12, 1, true)
        .writes("a", 13, &[2])
        .writes("a", 16, &[1, 2])
        .breaks(&[]);
}

#[test]
fn the_timeline_tells_all_of_a_database_in_order() {
    let story = Story::new().flips(10, 1, false).writes("a", 14, &[2]).edits(20, None).fault(
        12,
        13,
        killed("b"),
    );
    let lines = timeline(&story.0, 0);
    let words = [
        "held by a",
        "198.51.100.1 died",
        "replica b was killed",
        "by a",
        "deleted by an outside edit",
    ];
    assert_eq!(lines.len(), words.len(), "{lines:#?}");
    for (line, words) in lines.iter().zip(words) {
        assert!(line.contains(words), "{line}");
    }
}

fn lasts(action: &Action) -> Duration {
    match action {
        Action::Api(_, lasts) | Action::Replica(_, _, lasts) | Action::Garbles(lasts) => *lasts,
        _ => Duration::ZERO,
    }
}

#[test]
fn a_seed_is_a_script() {
    let minutes = |n: u64| Duration::from_secs(60 * n);
    let told = |seed| format!("{:?}", scenario(seed, minutes(10), 30, 3));
    assert_eq!(told(7), told(7));
    assert_ne!(told(7), told(8));
    for seed in 0..50 {
        let scenario = scenario(seed, minutes(1), 30, 3);
        assert!(scenario.windows(2).all(|pair| pair[0].at <= pair[1].at));
        assert!(
            scenario.iter().all(|step| step.at + lasts(&step.action) <= minutes(1)),
            "{scenario:#?}"
        );
        // A minute has some of each kind.
        for kind in [
            "Dies", "Hangs", "Returns", "Edit", "Delete", "Leaves", "Joins", "Garbles", "Api",
            "Replica",
        ] {
            assert!(
                scenario.iter().any(|step| format!("{:?}", step.action).starts_with(kind)),
                "no {kind} of {seed}"
            );
        }
        // So few are dead at once that it can't be taken for the daemon's own fault.
        let (mut dead, mut most) = (0_u32, 0);
        for step in &scenario {
            match step.action {
                Action::Dies(_) | Action::Hangs(_) => dead += 1,
                Action::Returns(_) => dead -= 1,
                _ => {}
            }
            most = most.max(dead);
        }
        assert!((5..=40).contains(&most), "{most} of 90 were dead with {seed}");
    }
}
