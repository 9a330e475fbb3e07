//! Values of annotations, good and bad.

use std::time::{Duration, SystemTime};

use super::maintenance::MAX_PROBLEMS;
use super::*;
use proptest::prelude::*;

fn is_known(subject: &Subject) -> bool {
    match subject {
        Subject::Ip(ip) => ip.to_string().starts_with("10.20.0.") || ip.is_ipv6(),
        Subject::Name(name) => ["orders.corp", "_db._tcp.corp"].contains(&&**name),
    }
}

/// Returns the entries as `IP: REASON`, and the problems without the name of the annotation.
fn parsed(text: &str) -> (Vec<String>, Vec<String>) {
    let MaintenanceAnnotation { entries, problems } = parse_maintenance(text, is_known);
    let problem = |problem: String| {
        problem.strip_prefix("annotation external-endpoints/maintenance: ").map(str::to_owned)
    };
    let problems = problems.into_iter().map(|text| problem(text).expect("its name")).collect();
    let entry = |entry: &MaintenanceEntry| match entry.until {
        None => format!("{}: {}", entry.subject, entry.reason),
        Some(_) => entry.to_string().replacen('=', ": ", 1),
    };
    (entries.iter().map(entry).collect(), problems)
}

#[test]
fn each_address_has_its_reason() {
    assert_eq!(parsed("10.20.0.11=disk swap"), (vec!["10.20.0.11: disk swap".into()], vec![]));
    let several = parsed(" 10.20.0.11 = disk swap, until Friday,10.20.0.12=a=b , 2001:db8::1=six,");
    assert_eq!(
        several.0,
        ["10.20.0.11: disk swap, until Friday", "10.20.0.12: a=b", "2001:db8::1: six"]
    );
    assert_eq!(several.1, [""; 0]);
    assert_eq!(parsed(""), (vec![], vec![]));
    assert_eq!(parsed("10.20.0.11=two\nlines").0, ["10.20.0.11: two lines"]);
    assert_eq!(
        parsed(&format!("10.20.0.11={}", "é".repeat(300))).0,
        [format!("10.20.0.11: {}", "é".repeat(200))]
    );
}

#[test]
fn a_bad_entry_is_reported_and_spoils_no_other() {
    let (found, problems) = parsed("10.20.0.11,10.20.0.300=x, 10.9.9.9=y,10.20.0.12=z,pg-1=w");
    assert_eq!(found, ["10.20.0.12: z"]);
    assert_eq!(
        problems,
        [
            "there is no reason for 10.20.0.11; write `10.20.0.11=disk swap`",
            "`10.20.0.300` is neither an IP nor a name of this database; write \
             `10.20.0.11=disk swap`",
            "10.9.9.9 is no address of this database",
            "`pg-1` is neither an IP nor a name of this database; write \
             `10.20.0.11=disk swap`",
        ]
    );
    assert_eq!(
        parsed("disk swap").1,
        ["`disk swap` is neither an IP nor a name of this database; write `10.20.0.11=disk swap`"]
    );
}

#[test]
fn a_name_of_the_database_is_an_entry() {
    let (found, problems) = parsed(
        "orders.corp=disk swap, see wiki.corp, until Friday, ORDERS.Corp.=again,10.20.0.11=one, \
         _db._tcp.corp=all",
    );
    assert_eq!(
        found,
        [
            "orders.corp: disk swap, see wiki.corp, until Friday",
            "orders.corp: again",
            "10.20.0.11: one",
            "_db._tcp.corp: all"
        ]
    );
    assert_eq!(problems, [""; 0]);
    let (found, problems) = parsed("10.20.0.11=x, orders.corp, 10.20.0.12=y, other.corp=z");
    assert_eq!(found, ["10.20.0.11: x", "10.20.0.12: y"]);
    assert_eq!(
        problems,
        [
            "there is no reason for orders.corp; write `orders.corp=disk swap`",
            "other.corp is no name of this database"
        ]
    );
}

#[test]
fn the_reason_of_an_address_comes_before_that_of_its_name() {
    let maintenance = parse_maintenance("orders.corp=name, 10.20.0.11=address", is_known);
    let reason = |ip: [u8; 4], of: &str| {
        let entry = maintenance.find(ip.into(), |name| name == of, SystemTime::UNIX_EPOCH);
        entry.map(|entry| entry.reason.to_string())
    };
    assert_eq!(reason([10, 20, 0, 11], "orders.corp").as_deref(), Some("address"));
    assert_eq!(reason([10, 20, 0, 12], "orders.corp").as_deref(), Some("name"));
    assert_eq!(reason([10, 20, 0, 12], "other.corp"), None);
}

fn at(text: &str) -> SystemTime {
    humantime::parse_rfc3339(text).expect("a time")
}

#[test]
fn an_entry_may_have_an_end() {
    let (found, problems) = parsed(
        "10.20.0.11=disk; until=2026-11-28T14:00:00Z, 10.20.0.12 = a; b, see c ;until = \
         2026-11-28T15:00:00.5+01:00 ,10.20.0.13=x,orders.corp=y; until=2027-01-01T00:00:00Z,",
    );
    assert_eq!(
        found,
        [
            "10.20.0.11: disk; until=2026-11-28T14:00:00Z",
            "10.20.0.12: a; b, see c; until=2026-11-28T14:00:00Z",
            "10.20.0.13: x",
            "orders.corp: y; until=2027-01-01T00:00:00Z",
        ]
    );
    assert_eq!(problems, [""; 0]);
    let (found, problems) = parsed("10.20.0.11=a, 10.20.0.12; until=2026-11-28T14:00:00Z");
    assert_eq!(found, ["10.20.0.11: a"]);
    assert_eq!(problems, ["there is no reason for 10.20.0.12; write `10.20.0.12=disk swap`"]);
    let (found, problems) = parsed("10.20.0.11=; until=2026-11-28T14:00:00Z");
    assert_eq!((found.len(), problems.len()), (0, 1));
}

#[test]
fn an_end_that_is_no_time_is_a_problem_and_no_end() {
    for end in [
        "Friday",
        "",
        "14:00",
        "2026-11-28",
        "2026-11-28T14:00:00",
        "2026-02-30T14:00:00Z",
        "1969-12-31T23:59:59Z",
        "99999-01-01T00:00:00Z",
        "2026-11-28T14:00:00Z; soon",
    ] {
        let (found, problems) = parsed(&format!("10.20.0.11=disk; until={end}"));
        let text = format!("10.20.0.11: disk; until={end}");
        assert_eq!(found, [text.trim_end()]);
        match end.contains(';') {
            true => assert_eq!(problems, [""; 0], "the end of an entry is behind its last `;`"),
            false => assert_eq!(
                problems,
                [format!(
                    "`{end}` is no time, so the maintenance of 10.20.0.11 has no end; write \
                     `until=2026-11-28T14:00:00Z`"
                )]
            ),
        }
    }
}

#[test]
fn an_entry_counts_up_to_its_end() {
    let text = "orders.corp=all, 10.20.0.11=one; until=2026-11-28T14:00:00Z, \
                10.20.0.11=two; until=2026-11-28T15:00:00Z";
    let annotation = parse_maintenance(text, is_known);
    let table = [
        ("2026-11-28T13:59:59Z", "one", Some("2026-11-28T14:00:00Z")),
        ("2026-11-28T14:00:00Z", "two", Some("2026-11-28T15:00:00Z")),
        ("2026-11-28T14:59:59Z", "two", Some("2026-11-28T15:00:00Z")),
        ("2026-11-28T15:00:00Z", "all", None),
    ];
    for (now, reason, next_end) in table {
        let now = at(now);
        let has_name = |name: &str| name == "orders.corp";
        let entry = annotation.find([10, 20, 0, 11].into(), has_name, now).expect("an entry");
        assert_eq!(&*entry.reason, reason);
        assert_eq!(annotation.next_end(now), next_end.map(at));
        assert!(!entry.maintenance().is_over(now));
        assert_eq!(annotation.find([10, 20, 0, 12].into(), |_| false, now), None);
    }
}

#[test]
fn a_maintenance_says_who_asks_for_it_and_when_it_ends() {
    let by_config = Maintenance::by_config(&"disk".into());
    assert_eq!(by_config.to_string(), "disk (config)");
    let annotation = parse_maintenance("10.20.0.11=x; until=2026-11-28T14:00:00.9Z", is_known);
    let maintenance = annotation.entries[0].maintenance();
    assert_eq!(maintenance.to_string(), "x (annotation, until 2026-11-28T14:00:00Z)");
    assert!(!maintenance.is_over(at("2026-11-28T14:00:00Z")));
    assert!(maintenance.is_over(at("2026-11-28T14:00:00Z") + Duration::from_secs(1)));
    assert!(!by_config.is_over(at("9999-12-31T00:00:00Z")));
}

/// Returns a value that is longer than what is read, and the number of entries that are read.
fn long(entry: &str) -> (String, usize) {
    let text = format!("{entry},").repeat(MAX_BYTES * 2 / entry.len());
    (text, MAX_BYTES / (entry.len() + 1))
}

#[test]
fn a_long_text_is_read_up_to_an_entry_that_is_whole() {
    let too_long = "it is over 8 kB: only its first 8 kB are read; write shorter reasons";
    for entry in
        ["10.20.0.11=x", "10.20.0.11=é, and ü", "10.20.0.11=日本語", "10.20.0.11=\u{1f40c}"]
    {
        let (text, whole) = long(entry);
        let (found, problems) = parsed(&text);
        assert_eq!(problems, [too_long]);
        assert!(found.len() == whole || found.len() + 1 == whole, "{} of {whole}", found.len());
        assert!(found.iter().all(|found| *found == entry.replace('=', ": ")), "{entry}");
    }
    assert_eq!(parsed(&"x".repeat(MAX_BYTES * 2)), (vec![], vec![too_long.into()]));
    assert_eq!(
        parsed(&format!("10.20.0.11={}", "x".repeat(MAX_BYTES - 11))).0.len(),
        1,
        "just not too long"
    );
    let longest = format!("10.20.0.11=x,10.20.0.12={}", "x".repeat(MAX_BYTES));
    assert_eq!(parsed(&longest).0, ["10.20.0.11: x"]);
}

#[test]
fn a_truncated_value_says_the_same_as_the_whole_one() {
    for text in
        [long("10.20.0.11=é").0, "é".repeat(MAX_BYTES), "x".repeat(MAX_BYTES), String::new()]
    {
        let mut short = text.clone();
        truncate(&mut short);
        assert!(short.len() <= MAX_BYTES + 4 && text.starts_with(&short));
        assert_eq!(parsed(&short), parsed(&text));
        assert_eq!(failback_problem(Some(&short)), failback_problem(Some(&text)));
        let mut shorter = short.clone();
        truncate(&mut shorter);
        assert_eq!(shorter, short);
    }
    assert_eq!(failback_problem(Some(&"x".repeat(MAX_BYTES))), None);
    assert_eq!(failback_problem(None), None);
}

/// Generates texts of all of Unicode and texts that resemble entries. Some are far longer than the
/// limit.
fn texts() -> impl Strategy<Value = String> {
    let entry = prop_oneof![
        "[0-9.,= a-é\n\r\t\u{0}]{0,40}",
        "10\\.20\\.0\\.[0-9]{1,2} ?= ?\\PC{0,30}",
        "(orders|wiki|[a-z]{0,300})\\.corp\\.? ?=? ?[a-z ]{0,30}",
        "10\\.20\\.0\\.1=[a-z ]{0,5}; ?until ?=[-0-9TZ:+. ]{0,30}",
        "10\\.20\\.0\\.1=a; until=[0-9]{4}-1[0-2]-[0-3][0-9]T[0-2][0-9]:00:00Z",
        "2001:db8::[0-9a-f]{1,4}=[\u{2028}\u{2029}\u{202e}\u{85}a-z ]{0,9}",
        any::<String>(),
    ];
    let repeated = (prop::collection::vec(entry, 0..8), 1..400_usize);
    repeated.prop_map(|(entries, times)| entries.join(",").repeat(times)).boxed()
}

proptest! {
    #[test]
    fn no_text_panics_or_yields_too_much_or_breaks_a_line(text in texts()) {
        let mut kept = text.clone();
        truncate(&mut kept);
        prop_assert!(kept.len() <= MAX_BYTES + 4);
        let found = parse_maintenance(&kept, is_known);
        prop_assert_eq!(&found, &parse_maintenance(&text, is_known), "truncated or not");
        let MaintenanceAnnotation { entries, problems } = found;
        prop_assert!(entries.iter().all(|entry| is_known(&entry.subject)));
        prop_assert!(entries.len() <= MAX_BYTES / "::=x".len() && problems.len() <= MAX_PROBLEMS);
        let breaks = |char: char| {
            char.is_control() || "\u{2028}\u{2029}\u{202e}".contains(char)
        };
        let is_one_line = |text: &str| !text.chars().any(breaks);
        for MaintenanceEntry { reason, .. } in &entries {
            prop_assert!(!reason.trim().is_empty() && is_one_line(reason));
            prop_assert!(reason.chars().count() <= MAX_REASON_CHARS);
        }
        for problem in &problems {
            let name = "annotation external-endpoints/maintenance: ";
            prop_assert!(is_one_line(problem), "{}", problem);
            prop_assert!(
                problem.chars().count() <= name.len() + MAX_REASON_CHARS + 130,
                "{}",
                problem
            );
        }
    }

    #[test]
    fn each_entry_that_is_written_well_is_read(
        entries in prop::collection::vec((1..250_u8, "[a-zA-Z0-9 é日;:!()]{0,20}[a-z]"), 0..60),
        space in "[ \n\t]{0,3}",
    ) {
        let write = |(last, reason): &(u8, String)| {
            format!("{space}10.20.0.{last}{space}={space}{reason}")
        };
        let written: Vec<String> = entries.iter().map(write).collect();
        let expected: Vec<String> = entries
            .iter()
            .map(|(last, reason)| format!("10.20.0.{last}: {}", reason.trim()))
            .collect();
        prop_assert_eq!(parsed(&written.join(",")), (expected, vec![]));
    }
}
