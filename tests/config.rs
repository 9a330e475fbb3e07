//! The config language as its readers meet it: every mistake and its message, every rule of merging, every key.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use external_endpoints::config::CHECK_KINDS;
use external_endpoints::config::{
    Check, CheckKind, ExpectedContent, HttpCheck, LoadedConfig, Options, Problems, Protocol, Spec,
    TcpCheck, ValueSource,
};
use external_endpoints::config::{explain, load, parse, reference, schema};
use insta::assert_snapshot;
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr;

#[path = "config/random.rs"]
mod random;

fn options() -> Options {
    Options { own_namespace: "own".into(), allow_cidr: Vec::new(), skip_rejected: false }
}

fn read(text: &str) -> Result<LoadedConfig, Problems> {
    parse("db.yaml", text, &options())
}

#[test]
fn more_addresses_than_kubernetes_mirrors_are_refused_where_it_has_to_mirror_them() {
    let with = |count: usize, publish: &str| {
        let addresses: Vec<String> =
            (0..count).map(|i| format!("10.0.{}.{}", i / 250, i % 250 + 1)).collect();
        let addresses = addresses.join(",");
        read(&format!(
            "databases: [{{service: a, port: 1, addresses: [{addresses}], check: {{tcp: {{}}}}, publish: {publish}}}]"
        ))
    };
    for (count, publish) in [(1000, "endpoints"), (1001, "slices"), (1001, "both")] {
        assert_eq!(
            with(count, publish).expect("a good config").warnings.to_string(),
            "",
            "{count} {publish}"
        );
    }
    let error = with(1001, "endpoints").expect_err("too many").to_string();
    assert!(
        error.contains(
            "databases[0].addresses: 1001 addresses; Kubernetes copies only 1000 of them"
        ),
        "{error}"
    );
    assert!(error.ends_with("add `publish: slices` to the database"), "{error}");
}

#[track_caller]
fn good(text: &str) -> Spec {
    read(text).unwrap_or_else(|problems| panic!("{}", problems.report())).spec
}

#[track_caller]
fn bad(text: &str) -> String {
    read(text).expect_err("this config should be refused").to_string()
}

fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "{folder} holds no files");
    paths
}

fn in_snapshots() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("config/snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

/// Each file in `bad/` is one mistake of those that people make; its snapshot is what they are told.
#[test]
fn every_mistake_has_its_message() {
    let mut names = BTreeSet::new();
    for path in files("tests/config/bad") {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut options = options();
        if name == "allow-cidr" {
            options.allow_cidr =
                vec!["10.20.0.0/16".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        }
        let problems = load(&path, &options).expect_err(&name);
        let shown = problems.report();
        assert!(!shown.contains("hunter"), "{name} shows a secret:\n{shown}");
        assert!(!format!("{problems:?}").contains("hunter"), "{name} debugs a secret");
        in_snapshots().bind(|| assert_snapshot!(name.as_str(), shown));
        names.insert(format!("{name}.snap"));
    }
    for path in files("tests/config/snapshots") {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        assert!(
            names.contains(&name) || name.starts_with("good-"),
            "{name} is the snapshot of no file in bad/"
        );
    }
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let problem = |path: &Path| load(path, &options()).expect_err("no file").to_string();

    let shown = problem(Path::new("tests/config"));
    assert_eq!(shown, "tests/config: is a directory; give the path of a file");

    let missing = folder.path().join("missing.yaml");
    assert_eq!(
        problem(&missing),
        format!("{}: there is no such file; give the path of the config", missing.display())
    );

    // Opening it for reading would wait for a writer, who never comes.
    let fifo = folder.path().join("fifo.yaml");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().expect("mkfifo").success());
    let (done, told) = std::sync::mpsc::channel();
    let path = fifo.clone();
    std::thread::spawn(move || {
        done.send(load(&path, &options()).expect_err("no file").to_string())
    });
    let shown = told.recv_timeout(Duration::from_secs(20)).expect("a FIFO is refused at once");
    assert_eq!(shown, format!("{}: is a FIFO; give the path of a file", fifo.display()));

    // A file that even root can open but not read.
    let shown = problem(Path::new("/proc/self/mem"));
    assert!(shown.starts_with("/proc/self/mem: can't be read: Input/output error"), "{shown}");

    let large = folder.path().join("large.yaml");
    fs::write(&large, "# x\n".repeat(10 * 1024 * 1024 / 4) + "\n").unwrap();
    let shown = problem(&large);
    assert!(shown.contains("is larger than 10 MiB; "), "{shown}");

    let just_fits = folder.path().join("fits.yaml");
    fs::write(&just_fits, "# x\n".repeat(10 * 1024 * 1024 / 4)).unwrap();
    assert!(problem(&just_fits).contains("has only comments"));
}

#[test]
fn a_file_from_windows_is_read() {
    let spec = good(
        "\u{feff}databases:\r\n- service: a\r\n  port: 1\r\n  addresses: [10.0.0.1]\r\n  check: {tcp: {}}\r\n",
    );
    assert_eq!(spec.databases[0].id.to_string(), "own/a");
    assert!(
        bad("\u{feff}databases:\r\n- service: A\r\n")
            .contains("db.yaml:2:12: databases[0].service: `A`")
    );
}

#[test]
fn documents_that_are_empty_are_ignored() {
    let database = "databases:\n- {service: a, port: 1, addresses: [10.0.0.1], check: {tcp: {}}}\n";
    let nothing = ["", "---\n", "---\n# nothing\n---\n", "--- ~\n---\n"];
    for before in nothing {
        for after in ["", "---\n", "---", "...\n", "---\n# nothing\n---\n...\n", "---\n---\n"] {
            let text = format!("{before}{database}{after}");
            assert_eq!(good(&text).databases.len(), 1, "{text}");
            let problems =
                bad(&format!("{text}{}---\n{database}", if after == "---" { "\n" } else { "" }));
            assert!(
                problems.contains("a second YAML document begins here; write all databases"),
                "{text}: {problems}"
            );
        }
    }
}

#[test]
fn problems_can_be_used_by_a_program() {
    let problems =
        read("databases:\n- {service: a, port: 0, addresses: [], check: {tcp: {}}}\n").unwrap_err();
    assert_eq!((problems.len(), problems.is_empty(), problems.file()), (2, false, "db.yaml"));
    let first = problems.iter().next().unwrap();
    assert_eq!(first.position.map(|at| (at.line, at.column)), Some((2, 22)));
    assert_eq!(first.path, "databases[0].port");
    assert_eq!(first.message, "0 is not a port; write a number from 1 to 65535");
    assert_eq!(problems.to_string().lines().count(), 2);
    assert_eq!(problems.summary().lines().count(), 2);
    assert_eq!(problems.report().lines().count(), 6);
}

#[test]
fn a_flood_of_problems_is_cut_but_counted() {
    let text = format!("databases:\n{}", "- 5\n".repeat(5000));
    let problems = read(&text).unwrap_err();
    assert_eq!(problems.len(), 5000);
    assert_eq!(problems.iter().count(), 100);
    assert!(problems.to_string().ends_with("db.yaml: and 4900 more problems"));
}

#[test]
fn good_configs_are_explained_in_full_and_read_back_the_same() {
    for path in files("tests/config/good") {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let loaded =
            load(&path, &options()).unwrap_or_else(|problems| panic!("{}", problems.report()));
        let explained = explain(&loaded.spec);
        assert_eq!(good(&explained), loaded.spec, "{explained}");
        assert!(jsonschema::is_valid(&schema(), &as_json(&explained)), "{explained}");
        let shown = format!("{}{explained}", loaded.warnings.report());
        in_snapshots().bind(|| assert_snapshot!(format!("good-{name}"), shown));
    }
}

fn as_json(yaml: &str) -> serde_json::Value {
    serde_saphyr::from_str(yaml).unwrap()
}

#[test]
fn the_examples_fit_the_schema_and_mistakes_do_not() {
    let schema = jsonschema::validator_for(&schema()).unwrap();
    for path in files("tests/config/good") {
        let text = fs::read_to_string(&path).unwrap();
        let errors: Vec<_> =
            schema.iter_errors(&as_json(&text)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
    }
    for name in [
        "unknown-keys",
        "ports-out-of-range",
        "names",
        "http",
        "databases-empty",
        "ports-both",
        "missing-keys",
        "exec-statuses",
        "hex",
    ] {
        let text = fs::read_to_string(format!("tests/config/bad/{name}.yaml")).unwrap();
        assert!(!schema.is_valid(&as_json(&text)), "the schema takes {name}");
    }
}

/// The files that are generated from the code. To write them, run
/// `UPDATE_DOCS=1 cargo test --test config generated`.
#[test]
fn generated_files_are_up_to_date() {
    let schema = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    for (path, content) in
        [("config/schema.json", schema), ("docs/reference/config.md", reference())]
    {
        if std::env::var_os("UPDATE_DOCS").is_some() {
            fs::create_dir_all(Path::new(path).parent().unwrap()).unwrap();
            fs::write(path, &content).unwrap();
        }
        assert!(
            fs::read_to_string(path).unwrap_or_default() == content,
            "{path} is out of date; run `UPDATE_DOCS=1 cargo test --test config generated`"
        );
    }
}

#[test]
fn the_reference_has_a_good_example_of_each_kind() {
    let reference = reference();
    let examples: Vec<&str> = reference.split("```yaml config\n").skip(1).collect();
    let mut kinds = BTreeSet::new();
    for example in examples {
        let spec = good(example.split("```").next().unwrap());
        let addresses = spec.databases.iter().flat_map(|database| &database.addresses);
        kinds.extend(addresses.map(|address| address.check.kind.name()));
    }
    assert_eq!(kinds, CHECK_KINDS.iter().copied().collect());
}

/// A key that stands in no example is a key that no test reads.
#[test]
fn every_key_stands_in_an_example() {
    let mut keys = BTreeSet::new();
    for path in files("tests/config/good") {
        collect_keys(&as_json(&fs::read_to_string(path).unwrap()), &mut keys);
    }
    let schema = schema();
    let definitions = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    for definition in definitions {
        let properties = definition["properties"].as_object();
        for key in properties.into_iter().flat_map(|properties| properties.keys()) {
            assert!(keys.contains(key), "add `{key}` to tests/config/good/every-key.yaml");
        }
    }
}

fn collect_keys(value: &serde_json::Value, keys: &mut BTreeSet<String>) {
    if let Some(map) = value.as_object() {
        keys.extend(map.keys().cloned());
        map.values().for_each(|value| collect_keys(value, keys));
    }
    value.as_array().into_iter().flatten().for_each(|value| collect_keys(value, keys));
}

#[test]
fn random_configs_have_every_kind_of_check() {
    let kinds: BTreeSet<_> = random::KINDS.iter().map(|(name, _)| *name).collect();
    assert_eq!(kinds, CHECK_KINDS.iter().copied().collect());
}

/// One database with this check, addresses `10.0.0.1` and what `more` adds.
fn database(check: &str, more: &str) -> Spec {
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
fn the_built_in_values_fill_what_is_left_out() {
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
fn the_namespace_comes_from_the_database_then_the_defaults_then_the_pod() {
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
fn each_layer_overrides_single_keys_of_the_one_below() {
    let spec = good(
        "defaults:\n  check: {interval: 10s, timeout: 1s, http: {path: /default, method: HEAD, headers: {A: a, B: b}}}\n\
         databases:\n- service: a\n  port: 80\n  addresses:\n  - 10.0.0.1\n  - {address: 10.0.0.2, hostname: two}\n  \
         - {address: 10.0.0.3, check: {timeout: 3s, http: {port: 81, tls: {serverName: three}}}}\n  \
         check: {interval: 4s, http: {path: /own, scheme: https, headers: {b: c}, tls: {caFile: /ca}}}\n",
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
fn a_database_s_kind_replaces_the_default_one_and_keeps_the_timing() {
    let spec = good(
        "defaults: {check: {interval: 9s, http: {path: /x}}}\n\
         databases: [{service: a, port: 1, addresses: [10.0.0.1], check: {tcp: {}}},\n\
         {service: b, port: 1, addresses: [10.0.0.1], check: {timeout: 1s}}, {service: c, port: 1, addresses: [10.0.0.1]}]\n",
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
fn a_recheck_interval_from_below_shrinks_to_the_interval() {
    let paces = |spec: &Spec| {
        spec.databases[0].addresses.iter().map(|a| a.check.recheck_interval.as_millis()).collect()
    };
    let with = |defaults: &str, check: &str, address: &str| -> Vec<u128> {
        paces(&good(&format!(
            "defaults: {{check: {{{defaults}}}}}\ndatabases:\n- {{service: a, port: 1, addresses: [10.0.0.1, \
             {{address: 10.0.0.2, check: {{{address}}}}}], check: {{timeout: 10ms, tcp: {{}}{check}}}}}\n"
        )))
    };
    // The default, in every layer's interval.
    assert_eq!(with("", "", ""), [1000, 1000]);
    assert_eq!(with("", ", interval: 1m", "interval: 700ms"), [1000, 700]);
    assert_eq!(with("interval: 300ms", "", ""), [300, 300]);
    // One that is written in a lower layer than the interval; each interval is laid over what was written.
    assert_eq!(with("recheckInterval: 3s", ", interval: 2s", "interval: 10s"), [2000, 3000]);
    assert_eq!(with("", ", recheckInterval: 2s", "interval: 500ms"), [2000, 500]);
    // One that fits.
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
fn speaking_over_tcp_implies_the_whole_handshake() {
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
fn a_check_s_port_is_the_first_port_or_its_own() {
    let spec = good(
        "databases: [{service: a, ports: [{name: x, port: 53, protocol: UDP}, {name: y, port: 54}], \
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
fn an_escape_that_is_none_is_warned_of_and_shows_no_secret() {
    let warnings = |check: &str| {
        let text = format!(
            "databases:\n- {{service: a, port: 1, addresses: [10.0.0.1], check: {{{check}}}}}\n"
        );
        read(&text).unwrap_or_else(|problems| panic!("{problems}")).warnings
    };
    for send in [
        r"'AUTH hunter2\r\n'",
        r"AUTH hunter2\n",
        r"'hunter2\x0A'",
        r"'hunter2\u000a'",
        r"'hunter2\0'",
        r"'\\r'",
    ] {
        let warnings = warnings(&format!("tcp: {{send: {send}}}"));
        assert_eq!(warnings.len(), 1, "{send}: {warnings}");
        let shown = warnings.report();
        assert!(
            shown.contains("put the text in double quotes") && !shown.contains("hunter2"),
            "{shown}"
        );
    }
    for send in [
        r#""PING\r\n""#,
        r#""a\\r""#,
        r"'DOMAIN\user'",
        r"'\xzz'",
        r"'\'",
        "{file: '/a\\n'}",
        r#"{hex: "5c"}"#,
    ] {
        let warnings = warnings(&format!("tcp: {{send: {send}}}"));
        assert!(warnings.is_empty(), "{send}: {warnings}");
    }
    assert!(warnings(r"http: {headers: {A: 'DOMAIN\name'}}").is_empty());
    assert!(warnings(r"exec: {command: [printf, 'a\n'], env: {A: 'a\n'}}").is_empty());
}

#[test]
fn inconclusive_statuses_are_those_of_the_highest_layer() {
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
fn what_is_masked_says_so_and_is_not_taken_for_the_value() {
    for check in [
        "{tcp: {send: hunter2}}",
        "{tcp: {send: {hex: 68 75 6e 74 65 72 32}}}",
        "{http: {headers: {A: hunter2}}}",
        "{exec: {command: [x], env: {A: hunter2}}}",
    ] {
        let explained = explain(&database(check, ""));
        assert!(
            explained.starts_with("# Values that may be secrets are shown as `…`"),
            "{explained}"
        );
        assert!(!explained.contains("hunter2") && !explained.contains("68"), "{explained}");
        let problems = bad(&explained);
        assert!(
            problems.contains("`…` is what `validate --explain` shows instead of "),
            "{problems}"
        );
        assert!(!jsonschema::is_valid(&schema(), &as_json(&explained)), "{explained}");
    }
    let explained = explain(&database("{tcp: {send: {file: /ping}, expect: …}}", ""));
    assert!(explained.starts_with("databases:"), "{explained}");
}

/// The caret stands under this text, and the excerpt fits a terminal.
#[track_caller]
fn caret_is_under(yaml: &str, text: &str) {
    let shown = read(yaml).expect_err("a bad config").report();
    let [_, line, caret] = shown.lines().collect::<Vec<_>>()[..] else { panic!("{shown}") };
    assert!(line.width() <= 80 && caret.width() <= 80, "{shown}");
    let before = line.split(text).next().unwrap_or_default();
    assert_ne!(before, line, "{shown}");
    assert_eq!(before.width() + 1, caret.width(), "{shown}");
}

#[test]
fn the_caret_is_right_on_a_narrow_terminal() {
    let with = |before: &str, after: &str| {
        format!(
            "databases: [{{service: a, port: 1, check: {{tcp: {{expect: \"{before}\"}}}}, addresses: [NO{after}]}}]"
        )
    };
    for length in 0..200 {
        for char in ["x", "中", "e\u{301}", "\u{202e}", "😀"] {
            let long = char.repeat(length);
            caret_is_under(&with(&format!("x{long}"), ""), "NO");
            caret_is_under(&with("x", &format!(" # {long}\n")), "NO");
        }
    }
    let far = format!("{}{}", "\n".repeat(12344), with(&"中".repeat(5000), ""));
    caret_is_under(&far, "NO");
}

#[test]
fn aliases_and_block_texts_are_plain_yaml() {
    let spec = good(
        "databases:\n- service: a\n  port: 1\n  addresses: &ips [10.0.0.1, 2001:db8::1]\n  check: &check\n    tcp:\n      \
         send: |\n        PING\n      expect: >-\n        +PONG\n- {service: b, port: 1, addresses: *ips, check: *check}\n",
    );
    let second = &spec.databases[1];
    assert_eq!(second.addresses[1].ip, "2001:db8::1".parse::<IpAddr>().unwrap());
    assert_eq!(tcp(&second.addresses[0].check).send, Some(ValueSource::Literal("PING\n".into())));
    assert_eq!(tcp(&second.addresses[0].check).expect, Some("+PONG".into()));
}

#[test]
fn allowed_networks_hold_every_address() {
    let text = "databases: [{service: a, port: 1, addresses: [10.1.2.3, '2001:db8::1'], check: {tcp: {}}}]\n";
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
fn refused_addresses_are_left_out_with_a_warning_if_asked() {
    let text = "databases: [{service: a, port: 1, addresses: [10.1.2.3, 127.0.0.1, 192.0.2.1], check: {tcp: {}}}]\n";
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
    // What is no IP, or there twice, is a mistake all the same.
    let options = Options { skip_rejected: true, ..strict };
    for wrong in ["10.20.0", "192.0.2.1"] {
        assert_eq!(
            parse("db.yaml", &text.replace("10.1.2.3", wrong), &options).unwrap_err().len(),
            1,
            "{wrong}"
        );
    }
}

#[test]
fn a_large_config_is_read_in_an_instant() {
    let mut text = String::from("databases:\n");
    for index in 0..2000 {
        let ips = (0..5)
            .map(|last| format!("10.{}.{}.{last}", index / 250, index % 250))
            .collect::<Vec<_>>()
            .join(", ");
        text.push_str(&format!(
            "- {{service: db-{index}, port: 3306, addresses: [{ips}], check: {{tcp: {{}}}}}}\n"
        ));
    }
    assert_eq!(good(&text).databases.len(), 2000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_explain_writes_reads_back_the_same(spec in random::specs()) {
        let explained = explain(&spec);
        let loaded = read(&explained);
        let problems = loaded.as_ref().err().map(|problems| problems.report());
        prop_assert!(problems.is_none(), "{}\n{explained}", problems.unwrap_or_default());
        prop_assert_eq!(loaded.unwrap().spec, spec, "{}", explained);
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        show_all(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn no_text_of_yaml_s_own_signs_makes_it_panic(text in "[-?:,\\[\\]{}#&*!|>'\"%@` \t\n\rab~<0é]{0,60}") {
        show_all(&text);
        show_all(&format!("databases:\n- service: {text}\n  check: {{tcp: {{send: x}}}}\n"));
    }

    #[test]
    fn no_small_change_makes_it_panic(
        place in any::<proptest::sample::Index>(),
        file in any::<proptest::sample::Index>(),
        removed in 0..20_usize,
        added in "[-?:,\\[\\]{}#&*!|>'\" \t\n0a]{0,5}",
    ) {
        let mut paths = files("tests/config/good");
        paths.extend(files("tests/config/bad"));
        let text = String::from_utf8_lossy(&fs::read(&paths[file.index(paths.len())]).unwrap()).into_owned();
        let chars: Vec<char> = text.chars().collect();
        let at = place.index(chars.len() + 1);
        let rest = chars.iter().skip(at + removed);
        let changed: String = chars.iter().take(at).copied().chain(added.chars()).chain(rest.copied()).collect();
        show_all(&changed);
    }
}

/// Goes through all that a reader of the config may call.
fn show_all(text: &str) {
    match read(text) {
        Ok(loaded) => {
            loaded.warnings.report();
            explain(&loaded.spec);
        }
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a problem:\n{text}");
            problems.report();
        }
    }
}
