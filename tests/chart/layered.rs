//! Random configs in which defaults, databases and addresses each say a part, for templates that
//! read the layers themselves.

use proptest::collection::{btree_map, btree_set};
use proptest::option::of;
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const FAMILIES: &[&[&str]] = &[&["IPv4"], &["IPv6"], &["IPv4", "IPv6"], &["IPv6", "IPv4"]];
/// Networks, some with bits beyond the prefix, and IPv6 addresses that are shortened in any place.
const NETWORKS: &[&[&str]] = &[
    &["10.1.0.0/16", "::/0"],
    &["10.1.2.3/9", "2001:db8::/32", "0.0.0.0/0", "255.255.255.255/31"],
    &["10.9.0.0/24", "2001:db8:1::/48", "2001:db8:1:2:3:4:5:6/77", "2001:db8::7:8/127"],
    &["10.9.0.3/32", "::1:2:3/112", "2001:db8:0:1:1::/81", "FD00:0:0:0:0:0:0:1/128"],
    &["64:ff9b::10.1.2.3/120", "2001:db8:1:2:3:4:10.20.30.40/128"],
];

/// Returns good configs as JSON.
pub(crate) fn configs() -> impl Strategy<Value = Value> {
    let databases = btree_map(("(a|b|home)", "[a-z]{1,3}"), database(), 1..5);
    let defaults = (of("[c-e]"), dns(), of(1..u16::MAX));
    (databases, defaults, any::<bool>(), any::<bool>()).prop_map(
        |(databases, (namespace, dns, port), prune, names_all)| {
            let count = databases.len();
            let entry = |(index, ((own, service), mut database)): (usize, (_, Value))| {
                database["service"] = service;
                // One of them may be in the namespace of `defaults`, or in the daemon's own.
                if names_all || index + 1 < count {
                    database["namespace"] = own;
                }
                database
            };
            let databases = databases.into_iter().map(|((namespace, service), database)| {
                ((Value::from(namespace), Value::from(service)), database)
            });
            let databases: Vec<Value> = databases.enumerate().map(entry).collect();
            let check = json!({"tcp": with("port", port.map(Value::from), json!({}))});
            let defaults = json!({"check": check});
            let defaults = with("namespace", namespace.map(Value::from), defaults);
            let defaults = with("dns", dns, defaults);
            json!({"databases": databases, "defaults": defaults, "prune": prune})
        },
    )
}

fn with(key: &str, value: Option<Value>, mut keys: Value) -> Value {
    if let Some(value) = value {
        keys[key] = value;
    }
    keys
}

fn database() -> impl Strategy<Value = Value> {
    let ips = btree_set((0..4_u8, any::<u8>()), 0..4);
    let names = btree_map("[a-z]{1,5}\\.example", of(dns()), 0..3);
    let places = (ips, names)
        .prop_filter("a database has an address", |(ips, names)| ips.len() + names.len() > 0);
    let many = prop_oneof![4 => Just(0_usize), 1 => 95..205_usize];
    let publish = proptest::sample::select(&["endpoints", "slices", "both"][..]);
    let extra = (of(publish), of(any::<bool>()), dns(), check(), of(1..u16::MAX));
    (places, many, extra).prop_map(|((ips, names), many, extra)| {
        let (publish, headless, dns, kind, port) = extra;
        let ip = |(family, last): &(u8, u8)| match family {
            0 | 2 => format!("10.1.{family}.{last}"),
            1 => format!("2001:db8::{family}:{last:x}"),
            _ => format!("64:ff9b::192.0.2.{last}"),
        };
        let mut addresses: Vec<Value> = ips.iter().map(|place| ip(place).into()).collect();
        addresses.extend((0..many).map(|i| Value::from(format!("10.2.{}.{}", i / 250, i % 250))));
        for (name, dns) in names {
            let long = with("dns", dns.flatten(), json!({"address": name}));
            let has_port = port.filter(|_| kind != "exec");
            let own = has_port.map(|port| json!({kind: {"port": port}}));
            addresses.push(with("check", own, long));
        }
        let has_names = addresses.iter().any(Value::is_object);
        let check = match kind {
            "exec" => json!({"exec": {"command": ["true"]}}),
            kind => json!({kind: {}}),
        };
        let mut keys = Map::new();
        keys.insert("addresses".into(), addresses.into());
        keys.insert(
            "ports".into(),
            json!([{"name": "db", "port": 3306}, {"name": "x", "port": 4}]),
        );
        keys.insert("check".into(), check);
        let keys = with("publish", publish.map(Value::from), keys.into());
        let keys = with("dns", dns.filter(|_| has_names), keys);
        with("createService", headless.map(|headless| json!({"headless": headless})), keys)
    })
}

fn check() -> impl Strategy<Value = &'static str> {
    proptest::sample::select(&["tcp", "http", "exec", "redis", "postgres"][..])
}

fn dns() -> impl Strategy<Value = Option<Value>> {
    let families = of(proptest::sample::select(FAMILIES));
    let within = of(proptest::sample::select(NETWORKS));
    of((families, within).prop_map(|(families, within)| {
        let keys = with("families", families.map(|list| json!(list)), json!({}));
        with("within", within.map(|list| json!(list)), keys)
    }))
}
