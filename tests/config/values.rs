//! The meaning of the keys: defaults, layers, and what each value becomes.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use external_endpoints::config::{
    Check, CheckKind, ExpectedContent, HttpCheck, Options, Protocol, Spec, TcpCheck, ValueSource,
    explain, parse,
};

use super::{good, options};

/// Returns the config of one database with this check, the address `10.0.0.1` and `more`.
pub(crate) fn database(check: &str, more: &str) -> Spec {
    good(&format!(
        "databases:\n- {{service: a, port: 3306, addresses: [10.0.0.1{more}], check: {check}}}\n"
    ))
}

fn check_of(spec: &Spec, address: usize) -> &Arc<Check> {
    &spec.databases[0].addresses[address].check
}

fn tcp(check: &Check) -> &TcpCheck {
    match &check.kind {
        CheckKind::Tcp(tcp) => tcp,
        other => panic!("{other:?}"),
    }
}

fn http(check: &Check) -> &HttpCheck {
    match &check.kind {
        CheckKind::Http(http) => http,
        other => panic!("{other:?}"),
    }
}

#[test]
fn absent_keys_get_the_built_in_defaults() {
    let spec = database("{tcp: {}}", "");
    let check = check_of(&spec, 0);
    assert_eq!((check.interval, check.timeout), (Duration::from_secs(5), Duration::from_secs(2)));
    assert_eq!(check.recheck_interval, Duration::from_secs(1));
    assert_eq!((check.thresholds.healthy, check.thresholds.unhealthy), (2, 3));
    assert_eq!(
        tcp(check),
        &TcpCheck { port: 3306, tls: None, send: None, expect: None, accept: false }
    );
    let database = &spec.databases[0];
    assert_eq!(
        (database.ports[0].name.as_deref(), database.ports[0].protocol),
        (None, Protocol::Tcp)
    );
    assert!(!database.adopt);

    let spec = self::database("{http: {}}", "");
    let http = http(check_of(&spec, 0));
    assert_eq!((http.path.as_str(), http.method.as_str(), http.port), ("/", "GET", 3306));
    assert_eq!(http.expected_statuses, [200..=399]);
}

#[test]
fn a_namespace_comes_from_database_defaults_or_pod() {
    let rest = "port: 1, addresses: [10.0.0.1], check: {tcp: {}}";
    let databases =
        format!("databases: [{{service: a, {rest}}}, {{service: a, namespace: test, {rest}}}]\n");
    let ids = |spec: Spec| {
        spec.databases.iter().map(|database| database.id.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(good(&databases)), ["own/a", "test/a"]);
    assert_eq!(
        ids(good(&format!("defaults: {{namespace: prod}}\n{databases}"))),
        ["prod/a", "test/a"]
    );
}

#[test]
fn each_layer_overrides_single_keys_of_the_lower_one() {
    let spec = good(
        r"
defaults:
  check: {interval: 10s, timeout: 1s, http: {path: /default, method: HEAD, headers: {A: a, B: b}}}
databases:
- service: a
  port: 80
  addresses:
  - 10.0.0.1
  - {address: 10.0.0.2, hostname: two}
  - {address: 10.0.0.3, check: {timeout: 3s, http: {port: 81, tls: {serverName: three}}}}
  check:
    interval: 4s
    http: {path: /own, scheme: https, headers: {b: c}, tls: {caFile: /ca}}
",
    );
    let own = check_of(&spec, 0);
    assert!(Arc::ptr_eq(own, check_of(&spec, 1)), "addresses without an override share one check");
    assert_eq!((own.interval, own.timeout), (Duration::from_secs(4), Duration::from_secs(1)));
    assert_eq!(
        (http(own).path.as_str(), http(own).method.as_str(), http(own).port),
        ("/own", "HEAD", 80)
    );
    let literal = |text: &str| ValueSource::Literal(text.into());
    assert_eq!(http(own).headers, [("A".into(), literal("a")), ("b".into(), literal("c"))]);

    let third = check_of(&spec, 2);
    assert_eq!((third.interval, third.timeout), (Duration::from_secs(4), Duration::from_secs(3)));
    assert_eq!((http(third).path.as_str(), http(third).port), ("/own", 81));
    assert_eq!(http(third).tls.server_name.as_deref(), Some("three"));
    assert_eq!(http(third).tls.ca_file.as_deref(), Some(Path::new("/ca")));
    assert_eq!(http(own).tls.server_name, None);
}

#[test]
fn a_kind_of_a_database_replaces_that_of_the_defaults() {
    let spec = good(
        r"
defaults: {check: {interval: 9s, http: {path: /x}}}
databases:
- {service: a, port: 1, addresses: [10.0.0.1], check: {tcp: {}}}
- {service: b, port: 1, addresses: [10.0.0.1], check: {timeout: 1s}}
- {service: c, port: 1, addresses: [10.0.0.1]}
",
    );
    let check = |index: usize| &spec.databases[index].addresses[0].check;
    assert_eq!((tcp(check(0)).port, check(0).interval), (1, Duration::from_secs(9)));
    assert_eq!((http(check(1)).path.as_str(), check(1).timeout), ("/x", Duration::from_secs(1)));
    assert_eq!((http(check(2)).path.as_str(), check(2).interval), ("/x", Duration::from_secs(9)));
}

#[test]
fn an_address_may_change_the_timing_alone() {
    let spec = database("{tcp: {send: PING}}", ", {address: 10.0.0.2, check: {interval: 20s}}");
    assert_eq!(check_of(&spec, 1).interval, Duration::from_secs(20));
    assert_eq!(tcp(check_of(&spec, 1)), tcp(check_of(&spec, 0)));
}

#[test]
fn a_lower_recheck_interval_shrinks_to_the_interval() {
    let paces = |spec: &Spec| {
        spec.databases[0].addresses.iter().map(|a| a.check.recheck_interval.as_millis()).collect()
    };
    let with = |defaults: &str, check: &str, address: &str| -> Vec<u128> {
        paces(&good(&format!(
            "defaults: {{check: {{{defaults}}}}}\n\
             databases:\n\
             - service: a\n  \
               port: 1\n  \
               addresses: [10.0.0.1, {{address: 10.0.0.2, check: {{{address}}}}}]\n  \
               check: {{timeout: 10ms, tcp: {{}}{check}}}\n"
        )))
    };
    // The default, in the interval of every layer.
    assert_eq!(with("", "", ""), [1000, 1000]);
    assert_eq!(with("", ", interval: 1m", "interval: 700ms"), [1000, 700]);
    assert_eq!(with("interval: 300ms", "", ""), [300, 300]);
    // A value from a lower layer than the interval. Each interval is laid over what is written.
    assert_eq!(with("recheckInterval: 3s", ", interval: 2s", "interval: 10s"), [2000, 3000]);
    assert_eq!(with("", ", recheckInterval: 2s", "interval: 500ms"), [2000, 500]);
    // A value that fits.
    assert_eq!(
        with("", ", interval: 20s, recheckInterval: 20s", "recheckInterval: 4s"),
        [20_000, 4000]
    );
    assert!(
        explain(&database("{tcp: {}, interval: 400ms, timeout: 100ms}", ""))
            .contains("recheckInterval: 400ms")
    );
}

#[test]
fn an_exchange_over_tcp_implies_the_whole_handshake() {
    for check in [
        "{tcp: {tls: {}}}",
        "{tcp: {send: PING}}",
        "{tcp: {expect: PONG}}",
        "{tcp: {accept: true}}",
    ] {
        assert!(tcp(check_of(&database(check, ""), 0)).accept, "{check}");
    }
}

#[test]
fn a_check_uses_its_own_port_or_the_first_one() {
    let spec = good(
        "databases: [{service: a, ports: [{name: x, port: 53, protocol: UDP}, {name: y, port: \
        54}], \
         addresses: [10.0.0.1], check: {tcp: {port: 54}}}]\n",
    );
    assert_eq!(tcp(check_of(&spec, 0)).port, 54);
    assert_eq!(spec.databases[0].ports.len(), 2);
}

#[test]
fn values_are_texts_files_or_variables() {
    let spec =
        database("{exec: {command: [x], env: {A: text, B: {file: /b}, C: {fromEnv: CC}}}}", "");
    let CheckKind::Exec(exec) = &check_of(&spec, 0).kind else { panic!() };
    let values: Vec<_> = exec.env.iter().map(|(_, value)| value.clone()).collect();
    assert_eq!(
        values,
        [
            ValueSource::Literal("text".into()),
            ValueSource::File("/b".into()),
            ValueSource::FromEnv("CC".into())
        ]
    );
    let explained = explain(&spec);
    assert!(explained.contains("A: …") && !explained.contains("text"), "{explained}");
}

#[test]
fn bytes_are_sent_and_expected_as_hex() {
    let spec = database("{tcp: {send: {hex: '00 0C ff'}, expect: {hex: '4e00'}}}", "");
    let check = tcp(check_of(&spec, 0));
    assert_eq!(check.send, Some(ValueSource::Bytes(vec![0, 12, 255])));
    assert_eq!(check.expect, Some(ExpectedContent::Hex(vec![0x4e, 0])));
    assert!(check.accept);
    assert!(!format!("{check:?}").contains("255"), "{check:?}");
}

#[test]
fn inconclusive_statuses_come_from_the_highest_layer() {
    let statuses = "inconclusiveStatuses: [3, 64-78]";
    let spec = database(
        &format!("{{exec: {{command: [x], {statuses}}}}}"),
        ", {address: 10.0.0.2, check: {exec: {inconclusiveStatuses: []}}}",
    );
    let statuses = |address: usize| match &check_of(&spec, address).kind {
        CheckKind::Exec(exec) => exec.inconclusive_statuses.clone(),
        other => panic!("{other:?}"),
    };
    assert_eq!((statuses(0), statuses(1)), (vec![3..=3, 64..=78], Vec::new()));
}

#[test]
fn aliases_and_block_texts_are_plain_yaml() {
    let spec = good(
        r#"
databases:
- service: a
  port: 1
  addresses: &ips [10.0.0.1, 2001:db8::1]
  check: &check
    tcp:
      send: |
        PING
      expect: >-
        +PONG
- {service: b, port: 1, addresses: *ips, check: *check}
"#,
    );
    let second = &spec.databases[1];
    assert_eq!(second.addresses[1].ip, "2001:db8::1".parse::<IpAddr>().unwrap());
    assert_eq!(tcp(&second.addresses[0].check).send, Some(ValueSource::Literal("PING\n".into())));
    assert_eq!(tcp(&second.addresses[0].check).expect, Some("+PONG".into()));
}

#[test]
fn allowed_networks_hold_every_address() {
    let text = "databases: [{service: a, port: 1, addresses: [10.1.2.3, '2001:db8::1'], check: \
            {tcp: {}}}]\n";
    let mut options = options();
    options.allow_cidr = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
    assert_eq!(parse("db.yaml", text, &options).unwrap().spec.databases[0].addresses.len(), 2);
    options.allow_cidr.pop();
    let problems = parse("db.yaml", text, &options).unwrap_err();
    assert_eq!(problems.len(), 1);
    assert!(
        problems
            .to_string()
            .contains("2001:db8::1 is outside of what --allow-cidr allows (10.0.0.0/8)")
    );
}

#[test]
fn rejected_addresses_are_skipped_with_a_warning() {
    let text = "databases: [{service: a, port: 1, addresses: [10.1.2.3, 127.0.0.1, 192.0.2.1], \
            check: {tcp: {}}}]\n";
    let allow_cidr = vec!["10.0.0.0/8".parse().unwrap()];
    let strict = Options { allow_cidr, ..options() };
    assert_eq!(parse("db.yaml", text, &strict).unwrap_err().len(), 2);
    let loaded =
        parse("db.yaml", text, &Options { skip_rejected: true, ..strict.clone() }).unwrap();
    let database = &loaded.spec.databases[0];
    let ips = |ips: Vec<IpAddr>| ips.iter().map(IpAddr::to_string).collect::<Vec<_>>();
    assert_eq!(ips(database.addresses.iter().map(|address| address.ip).collect()), ["10.1.2.3"]);
    assert_eq!(
        ips(database.rejected.iter().map(|refused| refused.ip).collect()),
        ["127.0.0.1", "192.0.2.1"]
    );
    assert_eq!(loaded.warnings.len(), 2, "{}", loaded.warnings);
    // A text that is not an IP, or is there twice, is still a mistake.
    let options = Options { skip_rejected: true, ..strict };
    for wrong in ["10.20.0", "192.0.2.1"] {
        assert_eq!(
            parse("db.yaml", &text.replace("10.1.2.3", wrong), &options).unwrap_err().len(),
            1,
            "{wrong}"
        );
    }
}
