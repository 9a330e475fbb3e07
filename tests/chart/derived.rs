//! The rights and the egress that the chart derives from the config: the same rights as
//! `external-endpoints rbac`, and egress to every address at the port of its check.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use external_endpoints::config::{
    Address, Check, CheckKind, Database, Options, Spec, explain, parse,
};
use ipnet::IpNet;
use libtest_mimic::Trial;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestCaseError, TestRunner};
use serde_json::{Value, json};

use crate::chart::helm::{HOME, RELEASE, all, documents, one, render, rendered, with_config};
use crate::chart::layered;
use crate::random;
use crate::support::daemon::PROGRAM;
use crate::support::temp_dir;

pub(crate) fn cases() -> Vec<Trial> {
    let trial = |name: &str, body: fn()| {
        Trial::test(format!("derived::{name}"), move || {
            body();
            Ok(())
        })
    };
    vec![
        trial("every_example_gets_its_rights", every_example_gets_its_rights),
        trial("random_configs_get_their_rights", random_configs_get_their_rights),
        trial("random_layers_get_their_rights", random_layers_get_their_rights),
        trial("a_text_is_read_like_a_mapping", a_text_is_read_like_a_mapping),
        trial("a_large_config_is_rendered", a_large_config_is_rendered),
    ]
}

/// The number of random configs. Each runs Helm and the daemon's program once.
const CASES: u32 = 24;

fn every_example_gets_its_rights() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for folder in ["config", "tests/config/good"] {
        for entry in fs::read_dir(root.join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = fs::read_to_string(&path).expect("a file");
                check(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                count += 1;
            }
        }
    }
    assert!(count > 10, "{count}");
}

fn random_configs_get_their_rights() {
    run(random::specs().prop_map(|spec| explain(&spec)));
}

fn random_layers_get_their_rights() {
    run(layered::configs().prop_map(|config| config.to_string()));
}

/// Checks random configs. A smaller one that fails is searched for briefly, as each takes a second.
fn run(configs: impl Strategy<Value = String>) {
    let config = Config {
        cases: CASES,
        max_shrink_iters: 64,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&configs, |text| {
        check(&text).map_err(|error| TestCaseError::fail(format!("{error}\n{text}")))
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
}

fn read(text: &str) -> Spec {
    let options = Options { own_namespace: HOME.to_owned(), ..Options::default() };
    parse("config", text, &options).unwrap_or_else(|problems| panic!("{}", problems.report())).spec
}

/// Compares what the chart renders for a config with what the daemon makes of it.
fn check(text: &str) -> Result<(), String> {
    let config: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let objects = match render(&with_config(&config)) {
        // YAML takes some signs only as escapes, which Helm does not write.
        Err(error) if error.contains("has a control character") && has_unwritable(&config) => {
            return Ok(());
        }
        outcome => outcome?,
    };
    let spec = read(text);
    let map = &one(&objects, "ConfigMap")["data"]["config.yaml"];
    let delivered = read(map.as_str().ok_or_else(|| format!("{map} is no text"))?);
    // Helm sorts keys, among them the names of headers and variables.
    let keys = |spec: &Spec| serde_saphyr::from_str::<Value>(&explain(spec)).expect("YAML");
    same("the configs", &keys(&delivered), &keys(&spec))?;
    same("the rights", &roles(&objects), &of_rbac(text))?;
    same("the egress", &egress(&objects), &expected_egress(&spec))
}

/// Returns whether a text has a sign that YAML takes only as an escape.
fn has_unwritable(config: &Value) -> bool {
    let is_unwritable =
        |sign: char| matches!(sign, '\u{7f}'..='\u{9f}' | '\u{fffe}' | '\u{ffff}' | '\u{feff}');
    config.to_string().contains(is_unwritable)
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, chart: &T, daemon: &T) -> Result<(), String> {
    match chart == daemon {
        true => Ok(()),
        false => Err(format!("{what} differ: the chart has {chart:#?}, the daemon {daemon:#?}")),
    }
}

/// Returns the Roles and RoleBindings without their labels, by kind and namespace.
fn roles(objects: &[Value]) -> BTreeMap<(String, String), Value> {
    let kinds = ["Role", "RoleBinding"].into_iter().flat_map(|kind| all(objects, kind));
    let plain = kinds.map(|object| {
        let mut object = object.clone();
        object["metadata"].as_object_mut().expect("metadata").remove("labels");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        ((text(&object["kind"]), text(&object["metadata"]["namespace"])), object)
    });
    plain.collect()
}

/// Returns what `external-endpoints rbac` prints for a config.
fn of_rbac(text: &str) -> BTreeMap<(String, String), Value> {
    let path = temp_dir("rbac").join("config.yaml");
    fs::write(&path, text).expect("a file in the sandbox");
    let account = format!("{HOME}/{RELEASE}");
    let output = Command::new(PROGRAM)
        .args(["rbac", "--service-account", &account])
        .arg(&path)
        .output()
        .expect("the daemon's program");
    assert!(output.status.success(), "{output:?}");
    roles(&documents(&String::from_utf8(output.stdout).expect("UTF-8")))
}

/// Networks by the port at which the daemon may reach them, as `TCP 3306`.
type Egress = BTreeMap<String, BTreeSet<IpNet>>;

/// Reads a network. Kubernetes rejects one whose address has bits beyond the prefix.
fn network(text: &str) -> IpNet {
    let network: IpNet = text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    assert_eq!(network, network.trunc(), "{text} is the address of a host");
    network
}

/// The port for DNS, which no port of a database can be mistaken for.
const DNS: &str = "DNS";

/// Returns the egress that a NetworkPolicy allows, without the API server's.
fn egress(objects: &[Value]) -> Egress {
    let policy = one(objects, "NetworkPolicy");
    let mut egress = Egress::new();
    let rules = policy["spec"]["egress"].as_array().expect("rules").iter();
    for rule in rules.take_while(|rule| rule["ports"][0]["port"] != 443 || !rule["to"].is_null()) {
        let Some(to) = rule["to"].as_array() else {
            let ports = [53, 5353, 8053].map(|port| {
                ["UDP", "TCP"].map(|protocol| json!({"port": port, "protocol": protocol}))
            });
            assert_eq!(rule["ports"], Value::from(ports.concat()));
            egress.insert(DNS.to_owned(), BTreeSet::new());
            continue;
        };
        let port = &rule["ports"][0];
        let port = format!("{} {}", word(&port["protocol"]), port["port"]);
        let networks = to.iter().map(|peer| network(word(&peer["ipBlock"]["cidr"])));
        let known = egress.insert(port, networks.collect());
        assert_eq!(known, None, "a port stands in one rule");
    }
    egress
}

/// Returns the egress that the checks of a config need.
fn expected_egress(spec: &Spec) -> Egress {
    let mut egress = Egress::new();
    for database in &spec.databases {
        let ports: Vec<String> = database
            .ports
            .iter()
            .map(|port| format!("{} {}", word(&json!(port.protocol)), port.number))
            .collect();
        let mut add = |check: &Arc<Check>, network: IpNet| {
            let of_check = match check_port(database, check) {
                Some(port) => vec![format!("TCP {port}")],
                None => ports.clone(),
            };
            for port in of_check {
                egress.entry(port).or_default().insert(network);
            }
        };
        for address in &database.addresses {
            add(&address.check, address.ip.into());
        }
        for name in database.names.iter() {
            let limits = name.within.to_string();
            let networks = match limits.is_empty() {
                true => vec!["0.0.0.0/0", "::/0"],
                false => limits.split(", ").collect(),
            };
            for network in networks {
                add(&name.check, network.parse::<IpNet>().expect("a network").trunc());
            }
        }
    }
    if spec.databases.iter().any(|database| !database.names.is_empty()) {
        egress.insert(DNS.to_owned(), BTreeSet::new());
    }
    egress
}

/// Returns the port that a check connects to; none for a program, which may use any port of the
/// database.
/// `explain` writes it out for every kind.
fn check_port(database: &Database, check: &Arc<Check>) -> Option<u64> {
    let ip = IpAddr::from([192, 0, 2, 1]);
    let address = Address {
        ip,
        name: None,
        priority: 0,
        hostname: None,
        zone: None,
        maintenance: None,
        check: check.clone(),
    };
    let single = Database { addresses: vec![address], names: [].into(), ..database.clone() };
    let explained = explain(&Spec { databases: vec![single.into()], prune: false });
    let explained: Value = serde_saphyr::from_str(&explained).expect("YAML");
    let kind = &explained["databases"][0]["check"][check.kind.name()];
    assert!(kind.is_object(), "{explained}");
    match check.kind {
        CheckKind::Exec(_) => None,
        _ => Some(kind["port"].as_u64().expect("a port")),
    }
}

fn word(value: &Value) -> &str {
    value.as_str().expect("a word")
}

fn a_text_is_read_like_a_mapping() {
    let text = fs::read_to_string(config("aurora-readers.yaml")).expect("a file");
    let mapping: Value = serde_saphyr::from_str(&text).expect("YAML");
    let (from_text, from_mapping) =
        (rendered(&json!({"config": text})), rendered(&with_config(&mapping)));
    let kept = &one(&from_text, "ConfigMap")["data"]["config.yaml"];
    assert_eq!(kept, &json!(text), "its comments are kept");
    assert_eq!(roles(&from_text), roles(&from_mapping));
    assert_eq!(egress(&from_text), egress(&from_mapping));
}

fn config(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(name)
}

fn a_large_config_is_rendered() {
    let databases: Vec<Value> = (0..1000)
        .map(|index| {
            let ip = |last: u32| format!("10.{}.{}.{last}", index / 250, index % 250);
            json!({
                "service": format!("db-{index}"), "namespace": format!("team-{}", index % 20),
                "port": 3306, "publish": "slices", "check": {"tcp": {}},
                "addresses": (1..=10).map(ip).collect::<Vec<_>>(),
            })
        })
        .collect();
    check(&json!({"databases": databases}).to_string()).unwrap_or_else(|error| panic!("{error}"));
}
