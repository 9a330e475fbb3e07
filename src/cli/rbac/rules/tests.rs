//! The truth table of the rights.

use super::*;
use crate::config::{self, Options};

const LEASE: &str = "external-endpoints";

fn lease() -> lease::Name {
    lease::Name { namespace: "home".into(), name: LEASE.into() }
}

fn spec(databases: &[&str], more: &str) -> Spec {
    let entry = |keys: &&str| {
        let check = "check: {tcp: {}}";
        let mut entry = format!("- {{port: 3306, {check}, {keys}");
        if !keys.contains("namespace:") {
            entry += ", namespace: prod";
        }
        if !keys.contains("addresses:") {
            entry += ", addresses: [192.0.2.1]";
        }
        entry + "}\n"
    };
    let text = format!("databases:\n{}{more}", databases.iter().map(entry).collect::<String>());
    config::parse("test", &text, &Options::default()).unwrap_or_else(|e| panic!("{e}")).spec
}

/// Returns the rules of a namespace, each as one line.
fn lines(rules: &RulesByNamespace, namespace: &str) -> Vec<String> {
    let line = |rule: &PolicyRule| {
        let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default().join(",");
        let (names, group) = (list(&rule.resource_names), list(&rule.api_groups));
        let (resources, verbs) = (list(&rule.resources), rule.verbs.join(","));
        format!("{group}/{resources} [{names}] {verbs}")
    };
    rules[namespace].iter().map(line).collect()
}

#[test]
fn a_plain_database_needs_what_is_shipped() {
    let rules = derive(&spec(&["service: mysql"], ""), Some(&lease()));
    assert_eq!(
        lines(&rules, "prod"),
        [
            "/services [] get,list,watch",
            "/endpoints [] list,watch",
            "discovery.k8s.io/endpointslices [] list,watch",
            "/endpoints [mysql] get,create,patch",
            "/events [] list,create,patch",
        ]
    );
    assert_eq!(
        lines(&rules, "home"),
        [
            "coordination.k8s.io/leases [external-endpoints] get,create,update",
            "/events [] list,create,patch",
        ]
    );
    assert_eq!(rules.len(), 2);
}

#[test]
fn only_what_a_database_uses_is_added() {
    let rules_of = |keys: &str, more: &str| {
        let rules = derive(&spec(&[keys, "service: other"], more), None);
        let plain = lines(&derive(&spec(&["service: other"], ""), None), "prod");
        let mut added = lines(&rules, "prod");
        added.retain(|line| !plain.contains(line));
        added
    };
    let slices = "discovery.k8s.io/endpointslices";
    let all = "get,create,patch,delete";
    for (keys, more, added) in [
        ("service: a", "", vec!["/endpoints [a,other] get,create,patch".to_owned()]),
        (
            "service: a, publish: slices",
            "",
            vec![
                "/endpoints [a,other] get,create,patch".to_owned(),
                format!("{slices} [a-external-ipv4-1] {all}"),
            ],
        ),
        (
            "service: a, publish: both, addresses: [192.0.2.1, '2001:db8::1']",
            "",
            vec![
                "/endpoints [a,other] get,create,patch".to_owned(),
                format!("{slices} [a-external-ipv4-1,a-external-ipv6-1] {all}"),
            ],
        ),
        (
            "service: a, createService: {}",
            "",
            vec![
                "/endpoints [a,other] get,create,patch".to_owned(),
                "/services [] create".to_owned(),
            ],
        ),
        (
            "service: a, createService: {}",
            "prune: true",
            vec![
                "/endpoints [a,other] get,create,patch,delete".to_owned(),
                "/services [] create".to_owned(),
                "/services [a] delete".to_owned(),
            ],
        ),
    ] {
        assert_eq!(rules_of(keys, more), added, "{keys} {more}");
    }
}

#[test]
fn each_hundred_addresses_have_a_slice() {
    let addresses = |count: usize| {
        let list: Vec<String> =
            (0..count).map(|i| format!("10.0.{}.{}", i / 250, i % 250 + 1)).collect();
        format!("service: a, publish: slices, addresses: [{}]", list.join(", "))
    };
    for (count, slices) in [(1, 1), (100, 1), (101, 2), (1000, 10)] {
        let spec = spec(&[&addresses(count)], "");
        assert_eq!(slice_names(&spec.databases[0]).len(), slices, "{count}");
    }
    let name = "service: a, publish: slices, addresses: [db.example.com], dns: {families: [IPv4]}";
    let spec = spec(&[name], "");
    assert_eq!(slice_names(&spec.databases[0]), ["a-external-ipv4-1".to_owned()].into());
}

#[test]
fn a_namespace_that_is_also_the_daemons_has_one_role() {
    let rules = derive(&spec(&["service: a, namespace: home"], ""), Some(&lease()));
    let lines = lines(&rules, "home");
    assert_eq!(rules.len(), 1);
    assert_eq!(lines.iter().filter(|line| line.contains("events")).count(), 1, "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("leases")), "{lines:?}");
}
