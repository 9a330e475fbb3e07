//! Host names as addresses: what is taken, how it is kept, and large and hostile lists.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use external_endpoints::config::{NameEntry, NameKind, Options, explain, parse, schema};
use external_endpoints::names::{Families, Settings};
use proptest::prelude::*;

use super::{as_json, bad, good, options, read};

/// Returns the config of one database with these addresses, in YAML.
fn config(addresses: &str) -> String {
    format!(
        "databases: [{{service: a, port: 1, addresses: [{addresses}], check: {{tcp: {{}}}}}}]\n"
    )
}

fn names(addresses: &str) -> Vec<NameEntry> {
    good(&config(addresses)).databases[0].names.to_vec()
}

#[test]
fn names_are_kept_in_lower_case_without_the_last_dot() {
    let names = names("DB-1.Corp.Example., 10.0.0.1, _PG._tcp.corp, pg_2.xn--dtenbank-0za.example");
    let kept: Vec<(&str, NameKind)> = names.iter().map(|it| (&*it.name, it.kind)).collect();
    assert_eq!(
        kept,
        [
            ("db-1.corp.example", NameKind::Host),
            ("_pg._tcp.corp", NameKind::Service),
            ("pg_2.xn--dtenbank-0za.example", NameKind::Host)
        ]
    );
}

#[test]
fn a_database_may_have_names_alone() {
    let spec = good(&config("db.corp.example"));
    let database = &spec.databases[0];
    assert!(database.addresses.is_empty() && database.rejected.is_empty());
    let NameEntry { families, refresh, within, settings, .. } = &database.names[0];
    assert_eq!((*families, *refresh), (None, Duration::from_secs(60)));
    assert!(within.allows([192, 0, 2, 1].into()));
    let forget_after = Duration::from_secs(30 * 60);
    assert_eq!(*settings, Settings { rotating: false, forget_after, gone_after: None });
}

#[test]
fn each_layer_of_dns_overrides_single_keys() {
    let spec = good(
        r"
defaults: {dns: {refresh: 10s, within: [10.0.0.0/8], goneAfter: 1h}}
databases:
- service: a
  port: 1
  dns: {refresh: 20s, families: [IPv4]}
  addresses:
  - a.example.com
  - {address: b.example.com, dns: {within: [192.0.2.0/24, 2001:db8::/32], rotating: true}}
  check: {tcp: {}}
- {service: b, port: 1, addresses: [a.example.com], check: {tcp: {}}}
",
    );
    let name = |database: usize, name: usize| &spec.databases[database].names[name];
    let summary = |entry: &NameEntry| {
        let NameEntry { families, refresh, within, settings, .. } = entry;
        let allows = |ip: [u8; 4]| within.allows(ip.into());
        let networks = (allows([10, 0, 0, 1]), allows([192, 0, 2, 1]), allows([172, 16, 0, 1]));
        let gone_after = settings.gone_after.map(|time| time.as_secs());
        (*families, refresh.as_secs(), networks, settings.rotating, gone_after)
    };
    let ipv4 = Some(Families { ipv4: true, ipv6: false });
    let (ten, other) = ((true, false, false), (false, true, false));
    assert_eq!(summary(name(0, 0)), (ipv4, 20, ten, false, Some(3600)));
    assert_eq!(summary(name(0, 1)), (ipv4, 20, other, true, Some(3600)));
    assert_eq!(summary(name(1, 0)), (None, 10, ten, false, Some(3600)));
}

#[test]
fn limits_of_names_are_judged() {
    let text = config("db.corp.example");
    let warnings = |text: &str, allow_cidr: &[&str]| {
        let allow_cidr = allow_cidr.iter().map(|network| network.parse().unwrap()).collect();
        let options = Options { allow_cidr, ..options() };
        parse("db.yaml", text, &options).unwrap().warnings.to_string()
    };
    assert!(warnings(&text, &[]).contains("nothing limits the addresses of `db.corp.example`, so"));
    assert_eq!(warnings(&text, &["10.0.0.0/8"]), "");
    let limited = format!("defaults: {{dns: {{within: [10.0.0.0/8]}}}}\n{text}");
    assert_eq!(warnings(&limited, &[]), "");
    assert_eq!(warnings(&limited, &["10.20.0.0/16"]), "");
    assert_eq!(warnings(&limited, &["192.0.2.0/24", "0.0.0.0/0"]), "");
    let nowhere = warnings(&limited, &["192.0.2.0/24", "2001:db8::/32"]);
    let words = "what --allow-cidr allows (192.0.2.0/24, 2001:db8::/32), so none is ever published";
    assert!(nowhere.contains(words) && nowhere.lines().count() == 1, "{nowhere}");
    let ipv6 = limited.replace("within:", "families: [IPv6], within:");
    assert!(warnings(&ipv6, &[]).contains("no network in here is of a family in `families`"));
    let later = limited.replace(
        "db.corp.example",
        "\
        db.corp.example, {address: pg.corp.example, dns: {families: [IPv6]}}",
    );
    assert!(warnings(&later, &[]).contains("no network in here is of a family in `families`"));
}

#[test]
fn a_rotating_name_of_a_single_writer_is_warned_of() {
    let warnings = |policy: &str, rotating: bool| {
        let name = format!("{{address: rw.corp.example, dns: {{rotating: {rotating}}}}}");
        let text = config(&format!("10.0.0.1, pg.corp.example, {name}"));
        let text = text.replace("check:", &format!("policy: {{exactlyOne: {policy}}}, check:"));
        read(&text).unwrap().warnings.to_string()
    };
    let words = "`rw.corp.example` is followed with `rotating`";
    assert!(warnings("true", true).contains(words), "{}", warnings("true", true));
    assert!(!warnings("true", false).contains("rotating"));
    assert!(!warnings("false", true).contains("rotating"));
}

#[test]
fn the_tiers_of_a_service_end_before_the_last_number() {
    let text = |name: &str, priority: u32| {
        config(&format!("10.0.0.1, {{address: {name}, priority: {priority}}}"))
    };
    let (most, last) = (u32::MAX - 65_535, u32::MAX);
    assert_eq!(good(&text("_pg._tcp.corp.example", most)).databases[0].names[0].priority, most);
    assert_eq!(good(&text("pg.corp.example", last)).databases[0].names[0].priority, last);
    let problems = bad(&text("_pg._tcp.corp.example", most + 1));
    assert!(problems.contains("write at most 4294901760"), "{problems}");
}

#[test]
fn thousands_of_names_are_read_quickly_with_one_warning() {
    let mut text = String::from("databases:\n");
    for index in 0..2500 {
        let names: Vec<String> =
            (0..4).map(|replica| format!("pg-{replica}.db-{index}.corp.example")).collect();
        let _ = writeln!(
            text,
            "- {{service: db-{index}, port: 1, addresses: [{}], check: {{tcp: {{}}}}}}",
            names.join(", ")
        );
    }
    let loaded = read(&text).unwrap();
    assert_eq!(loaded.spec.databases.iter().map(|it| it.names.len()).sum::<usize>(), 10_000);
    assert_eq!(loaded.warnings.len(), 1, "{}", loaded.warnings);
    assert!(loaded.warnings.to_string().contains("and 9999 other names"), "{}", loaded.warnings);
}

#[test]
fn names_share_the_networks_and_the_check() {
    let networks: Vec<String> =
        (0..2000).map(|index| format!("10.{}.{}.0/24", index / 250, index % 250)).collect();
    let names: Vec<String> = (0..5000).map(|index| format!("pg-{index}.corp.example")).collect();
    let text = format!(
        "defaults: {{dns: {{within: [{}]}}}}\n{}",
        networks.join(", "),
        config(&names.join(", ")).replace("check:", "publish: slices, check:")
    );
    let spec = good(&text);
    let names = &spec.databases[0].names;
    let same = |entry: &NameEntry| Arc::ptr_eq(&entry.check, &names[0].check);
    assert!(names.iter().all(same), "names share one check");
    assert!(explain(&spec).len() < 400_000, "the networks stand there once");
}

#[test]
fn an_endless_name_has_a_short_message() {
    for (name, words) in [
        ("a".repeat(1 << 20), "a label of 1048576 characters"),
        ("a.".repeat(1 << 19), "has 1048575 characters"),
        (".".repeat(1 << 20), "has an empty label"),
        (format!("_a.{}", "b.".repeat(120)), "is not the name of SRV records"),
        (format!("{}:5432", "a.".repeat(1 << 19)), "has a port"),
        ("a.b ".repeat(1 << 18), "is more than one address"),
    ] {
        let problems = bad(&config(&format!("\"{name}\"")));
        assert!(problems.contains(words) && problems.len() < 400, "{problems:.500}");
    }
}

/// Generates texts that resemble names, good and bad.
fn texts() -> impl Strategy<Value = String> {
    let label = prop_oneof![
        "[a-zA-Z0-9_-]{0,6}",
        "_[a-z]{0,4}",
        "[0-9]{1,3}",
        "[a-z]{62,65}",
        Just("localhost".to_owned()),
        "[ -~é]{0,3}"
    ];
    (prop::collection::vec(label, 0..8), prop_oneof![Just(""), Just("."), Just(":1"), Just("/")])
        .prop_map(|(labels, end)| format!("{}{end}", labels.join(".")))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_name_that_is_taken_is_a_whole_one(text in texts()) {
        let quoted = serde_json::to_string(&text).unwrap();
        let Ok(loaded) = read(&config(&quoted)) else { return Ok(()) };
        let Some(entry) = loaded.spec.databases[0].names.first() else { return Ok(()) };
        let name = &entry.name;
        let labels: Vec<&str> = name.split('.').collect();
        prop_assert_eq!(&**name, text.strip_suffix('.').unwrap_or(&text).to_lowercase());
        prop_assert!(labels.len() >= 2 && name.len() <= 253, "{name}");
        for label in &labels {
            let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            prop_assert!((1..=63).contains(&label.len()) && label.bytes().all(is_allowed));
            prop_assert!(!label.starts_with('-') && !label.ends_with('-'), "{name}");
        }
        let last = labels[labels.len() - 1];
        prop_assert!(last != "localhost" && last.parse::<u64>().is_err(), "{name}");
        let is_service = labels.len() > 2 && labels[..2].iter().all(|label| label.starts_with('_'));
        prop_assert_eq!(entry.kind == NameKind::Service, is_service, "{}", name);
        // The same text passes the schema, and reads back the same from `explain`.
        prop_assert!(jsonschema::is_valid(&schema(), &as_json(&config(&quoted))), "{text}");
        prop_assert_eq!(&good(&explain(&loaded.spec)), &loaded.spec);
    }
}
