//! The command line as users meet it: its output, its errors and its exit status.

#[path = "support/name_server.rs"]
mod name_server;
#[path = "cli/validate.rs"]
mod validate;

mod cli {
    mod import;
    mod rbac;
    mod shells;
}

use std::io::Write as _;
use std::net::TcpListener;
use std::process::Output;

use assert_cmd::Command;
use name_server::{NameServer, Reply};
use tempfile::NamedTempFile;

fn program() -> Command {
    let mut command = Command::cargo_bin("external-endpoints").expect("the program is built");
    command.env_remove("KUBECONFIG");
    command
}

fn file(text: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("a file that can be written");
    file
}

/// Returns the exit status, standard output and standard error.
fn outcome(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

fn run(arguments: &[&str]) -> (Option<i32>, String, String) {
    outcome(program().args(arguments).output().expect("the program runs"))
}

const GOOD: &str = "databases: [{service: mysql, namespace: prod, port: 3306, \
                    addresses: [192.0.2.1], check: {tcp: {}}}]\n";

/// A config whose interval has no unit, on line 8.
const BAD: &str = "\
databases:
- service: mysql
  namespace: prod
  port: 3306
  addresses: [192.0.2.1]
  check:
    tcp: {}
    interval: 5
";

#[test]
fn a_bad_config_is_exit_status_78_and_names_line_and_field() {
    let file = file(BAD);
    let path = file.path().to_str().expect("UTF-8");
    for arguments in [vec!["run", "--config", path], vec!["validate", path], vec!["probe", path]] {
        let (status, stdout, stderr) = run(&arguments);
        assert_eq!(status, Some(78), "{arguments:?}: {stderr}");
        assert_eq!(stdout, "");
        let expected = format!(
            "{path}:8:15: databases[0].check.interval: a duration needs a unit; write `5s`"
        );
        assert!(stderr.starts_with(&expected), "{stderr}");
    }
}

#[test]
fn an_impossible_number_of_commands_is_wrong_usage() {
    let config = file(GOOD);
    let config = config.path().to_str().expect("UTF-8");
    for (number, message) in [
        ("0", "with 0 no exec check would ever run; write at least 1"),
        ("-1", "write a number from 1 to 10000"),
        ("1000000", "write a number from 1 to 10000"),
        ("many", "write a number from 1 to 10000"),
    ] {
        let (status, _, stderr) =
            run(&["run", "--config", config, &format!("--max-exec={number}")]);
        assert_eq!(status, Some(2), "{stderr}");
        assert!(stderr.contains(message), "{stderr}");
    }
}

#[test]
fn an_address_without_a_port_is_wrong_usage() {
    let config = file(GOOD);
    let config = config.path().to_str().expect("UTF-8");
    for address in ["nowhere", "8080", ":8080", "localhost:8080", "127.0.0.1"] {
        let (status, _, stderr) = run(&["run", "--config", config, "--listen", address]);
        assert_eq!(status, Some(2), "{stderr}");
        assert!(stderr.contains("write IP:PORT, as in 0.0.0.0:8080 or [::]:8080"), "{stderr}");
    }
}

#[test]
fn a_name_that_is_not_a_dns_label_is_wrong_usage() {
    let config = file(GOOD);
    let config = config.path().to_str().expect("UTF-8");
    for id in ["a/b/c", "A/b", "a/B", "a/b?x=1", "../a", "a/..", "a/b#c", "a/1b", "a/ b", "a_b/c"] {
        for arguments in [vec!["failback", id], vec!["probe", config, "--service", id]] {
            let (status, _, stderr) = run(&arguments);
            assert_eq!(status, Some(2), "{arguments:?}: {stderr}");
            let is_reported = stderr.contains("; write lower-case letters")
                || stderr.contains("begins with a digit; ");
            assert!(is_reported, "{arguments:?}: {stderr}");
        }
    }
    for id in ["A/b", "a/b/c", "a/B", "a/..", "a/b..c"] {
        let (status, _, stderr) = run(&["run", "--config", config, "--lease", id]);
        assert_eq!(status, Some(2), "{id}: {stderr}");
        assert!(stderr.contains("; write lower-case letters"), "{id}: {stderr}");
    }
}

#[test]
fn an_impossible_freeze_is_wrong_usage() {
    let config = file(GOOD);
    let config = config.path().to_str().expect("UTF-8");
    for (flag, message) in [
        ("--max-unhealthy=0", "write a percentage from 1% to 100%"),
        ("--max-unhealthy=101%", "write a percentage from 1% to 100%"),
        ("--max-unhealthy=half", "write a percentage from 1% to 100%"),
        ("--freeze-timeout=10", "write a duration as in 10m, 90s or 0s"),
        ("--freeze-timeout=9000y", "write at most 365d"),
        ("--freeze-timeout=366d", "write at most 365d"),
        ("--freeze-timeout=999999999999999y", "write a duration as in 10m, 90s or 0s"),
    ] {
        let (status, _, stderr) = run(&["run", "--config", config, flag]);
        assert_eq!(status, Some(2), "{stderr}");
        assert!(stderr.contains(message), "{stderr}");
    }
}

#[test]
fn a_missing_file_is_a_bad_config() {
    let (status, _, stderr) = run(&["run", "--config", "/nowhere/config.yaml"]);
    assert_eq!(status, Some(78));
    assert!(stderr.contains("/nowhere/config.yaml"), "{stderr}");
}

#[test]
fn json_logs_report_a_bad_config_as_json() {
    let file = file(BAD);
    let (status, _, stderr) =
        run(&["run", "--log-format", "json", "--config", file.path().to_str().expect("UTF-8")]);
    assert_eq!(status, Some(78));
    for line in stderr.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(line["level"], "ERROR");
        assert!(
            line["message"]
                .as_str()
                .expect("a message")
                .contains(":8:15: databases[0].check.interval: "),
            "{line}"
        );
    }
    assert_eq!(stderr.lines().count(), 1);
}

#[test]
fn a_reader_that_goes_away_is_not_a_panic() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("/dev/full");
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_external-endpoints"))
        .arg("schema")
        .stdout(full)
        .output();
    let (status, _, stderr) = outcome(output.expect("the program runs"));
    assert_eq!(status, Some(1));
    assert!(stderr.contains("standard output: No space left on device"), "{stderr}");
    let script = format!("{} schema | true", env!("CARGO_BIN_EXE_external-endpoints"));
    let (_, _, stderr) =
        outcome(Command::new("sh").args(["-c", &script]).output().expect("a shell"));
    assert_eq!(stderr, "");
}

#[test]
fn an_invalid_kubeconfig_is_reported_with_the_config() {
    let (config, broken) = (file(GOOD), file("nonsense: ["));
    let output =
        program().env("KUBECONFIG", broken.path()).arg("validate").arg(config.path()).output();
    let (status, _, stderr) = outcome(output.expect("the program runs"));
    assert_eq!(status, Some(0));
    assert!(
        stderr.starts_with("warning: KUBECONFIG: ") && stderr.contains("taken to be in `default`"),
        "{stderr}"
    );
}

#[test]
fn validate_reports_on_every_file() {
    let (good, bad) = (file(GOOD), file(BAD));
    let (good, bad) = (good.path().to_str().expect("UTF-8"), bad.path().to_str().expect("UTF-8"));
    assert_eq!(
        run(&["validate", good]),
        (Some(0), format!("{good}: good; databases: 1, addresses: 1\n"), String::new())
    );
    let (status, stdout, stderr) = run(&["validate", bad, good]);
    assert_eq!(status, Some(78));
    assert!(stdout.contains(good) && stderr.contains(bad), "{stdout}{stderr}");
}

#[test]
fn a_warning_is_marked_and_leaves_the_exit_status_at_0() {
    let file = file(&GOOD.replace("tcp: {}", "tcp: {}, interval: 1s, timeout: 5s"));
    let (status, stdout, stderr) = run(&["validate", file.path().to_str().expect("UTF-8")]);
    assert_eq!(status, Some(0));
    assert!(stdout.contains(": good; "), "{stdout}");
    assert!(
        stderr.contains("warning: ") && stderr.contains("databases[0].check.timeout"),
        "{stderr}"
    );
}

#[test]
fn validate_takes_names_and_asks_for_none() {
    let file = file(&GOOD.replace("192.0.2.1", "192.0.2.1, db.invalid, _db._tcp.corp.example"));
    let path = file.path().to_str().expect("UTF-8");
    let (status, stdout, stderr) = run(&["validate", path]);
    assert_eq!(status, Some(0));
    assert_eq!(stdout, format!("{path}: good; databases: 1, addresses: 3, names among them: 2\n"));
    assert!(stderr.contains("nothing limits the addresses of `db.invalid`"), "{stderr}");
    let (status, _, stderr) = run(&["validate", "--allow-cidr", "192.0.2.0/24", path]);
    assert_eq!((status, stderr), (Some(0), String::new()));
}

#[test]
fn an_explained_config_is_a_config_with_the_same_meaning() {
    let given = file(GOOD);
    let (status, explained, _) =
        run(&["validate", "--explain", given.path().to_str().expect("UTF-8")]);
    assert_eq!(status, Some(0));
    assert!(
        explained.contains("interval: 5s") && explained.contains("unhealthyThreshold: 3"),
        "{explained}"
    );
    let again = file(&explained);
    let (status, again, _) = run(&["validate", "--explain", again.path().to_str().expect("UTF-8")]);
    assert_eq!((status, again), (Some(0), explained));
}

#[test]
fn an_address_outside_the_allowed_networks_is_a_bad_config() {
    let file = file(GOOD);
    let path = file.path().to_str().expect("UTF-8");
    let (status, _, _) =
        run(&["validate", "--allow-cidr", "10.0.0.0/8", "--allow-cidr", "192.0.2.0/24", path]);
    assert_eq!(status, Some(0));
    let (status, _, stderr) = run(&["validate", "--allow-cidr", "10.0.0.0/8", path]);
    assert_eq!(status, Some(78));
    assert!(stderr.contains("192.0.2.1"), "{stderr}");
}

#[test]
fn failback_without_a_cluster_names_the_kubeconfig() {
    let mut command = program();
    let output =
        command.env("KUBECONFIG", "/nowhere/kubeconfig").args(["failback", "prod/orders"]).output();
    let (status, stdout, stderr) = outcome(output.expect("the program runs"));
    assert_eq!((status, stdout.as_str()), (Some(1), ""));
    assert!(
        stderr.contains("no cluster: there is no kubeconfig /nowhere/kubeconfig; set KUBECONFIG"),
        "{stderr}"
    );
}

#[test]
fn wrong_usage_is_exit_status_2() {
    for arguments in [
        vec![],
        vec!["run"],
        vec!["nonsense"],
        vec!["validate"],
        vec!["run", "--config", "x", "--listen", "nowhere"],
        vec!["probe", "x", "--service", "no-slash"],
        vec!["failback"],
        vec!["failback", "no-slash"],
        vec!["validate", "--allow-cidr", "10.0.0.0/99", "x"],
        vec!["validate", "--allow-cidr", "10.0.0.1", "x"],
    ] {
        let (status, _, stderr) = run(&arguments);
        assert_eq!(status, Some(2), "{arguments:?}: {stderr}");
        assert!(!stderr.is_empty());
    }
}

#[test]
fn the_committed_schema_is_up_to_date() {
    let (status, stdout, _) = run(&["schema"]);
    assert_eq!(status, Some(0));
    let committed = include_str!("../config/schema.json");
    assert_eq!(stdout, committed, "run `cargo run -- schema > config/schema.json`");
}

/// Returns a database with an exec check. Its command connects to nothing.
fn exec(service: &str, command: &str) -> String {
    format!(
        "- {{service: {service}, namespace: prod, port: 1, addresses: [192.0.2.1], \
         check: {{exec: {{command: {command}}}}}}}\n"
    )
}

#[test]
fn probe_shows_a_table_and_fails_if_any_check_does() {
    let config = file(&format!(
        "databases:\n{}{}{}",
        exec("good", "[/bin/true]"),
        exec("bad", "[/bin/sh, -c, 'echo out of order; exit 3']"),
        exec("lost", "[/nowhere/command]")
    ));
    let path = config.path().to_str().expect("UTF-8");
    let (status, stdout, stderr) = run(&["probe", path]);
    assert_eq!((status, stderr.as_str()), (Some(1), ""));
    let rows: Vec<Vec<&str>> =
        stdout.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["NAMESPACE", "SERVICE", "ADDRESS", "VERDICT", "TIME", "REASON"]);
    assert_eq!(rows[1][..4], ["prod", "good", "192.0.2.1", "pass"]);
    assert_eq!(rows[2][..4], ["prod", "bad", "192.0.2.1", "fail"]);
    assert!(stdout.contains("exec: exit status 3: \"out of order\""), "{stdout}");
    assert_eq!(rows[3][..4], ["prod", "lost", "192.0.2.1", "inconclusive"]);

    let (status, stdout, _) = run(&["probe", path, "--service", "prod/good"]);
    assert_eq!((status, stdout.lines().count()), (Some(0), 2), "{stdout}");
    let (status, _, stderr) = run(&["probe", path, "--service", "prod/none"]);
    assert_eq!(status, Some(1));
    assert!(stderr.contains("has no database prod/none"), "{stderr}");
}

/// Returns the rows of a table, as the words of their first columns.
fn words(stdout: &str, columns: usize) -> Vec<Vec<&str>> {
    let rows = stdout.lines().skip(1).map(|line| line.split_whitespace().take(columns).collect());
    rows.collect()
}

#[test]
fn probe_asks_the_names_and_checks_their_addresses() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let dns = runtime.block_on(NameServer::start());
    let server = dns.address.to_string();
    dns.set("db.corp.example", Reply::addresses(["192.0.2.1", "192.0.2.2"], 5));
    dns.set("lo.corp.example", Reply::addresses(["127.0.0.1"], 5));
    dns.set("sick.corp.example", Reply::Code(2));
    let ipv4 = Box::new(Reply::addresses(["192.0.2.3"], 5));
    dns.set("half.corp.example", Reply::ByFamily(ipv4, Box::new(Reply::Code(5))));
    let record = |port, target: &str| (0, 0, port, target.to_owned());
    let records = vec![
        record(3306, "here.corp.example"),
        record(3306, "gone.corp.example"),
        record(3307, "there.corp.example"),
        record(3306, "db.evil.example"),
    ];
    dns.set("_mysql._tcp.all.corp.example", Reply::Services(records, 5));
    dns.set("here.corp.example", Reply::addresses(["192.0.2.4"], 5));
    dns.set("alias.corp.example", Reply::addresses(["192.0.2.4"], 5));
    let config = file(
        "databases:\n- service: mysql\n  namespace: prod\n  port: 3306\n  \
         check: {exec: {command: [/bin/true]}}\n  addresses:\n  - 192.0.2.1\n  \
         - db.corp.example\n  - lo.corp.example\n  - sick.corp.example\n  \
         - none.corp.example\n  - half.corp.example\n  - _mysql._tcp.all.corp.example\n  \
         - alias.corp.example\n",
    );
    let path = config.path().to_str().expect("UTF-8");
    let (status, stdout, stderr) = run(&["probe", path, "--dns-server", &server]);
    assert_eq!((status, stderr.contains("external-endpoints:")), (Some(1), false), "{stderr}");
    assert_eq!(
        words(&stdout, 5),
        [
            ["prod", "mysql", "192.0.2.1", "-", "pass"],
            ["prod", "mysql", "192.0.2.1", "db.corp.example", "pass"],
            ["prod", "mysql", "192.0.2.2", "db.corp.example", "pass"],
            ["prod", "mysql", "127.0.0.1", "lo.corp.example", "fail"],
            ["prod", "mysql", "-", "sick.corp.example", "fail"],
            ["prod", "mysql", "-", "none.corp.example", "fail"],
            ["prod", "mysql", "192.0.2.3", "half.corp.example", "pass"],
            ["prod", "mysql", "-", "half.corp.example", "inconclusive"],
            ["prod", "mysql", "-", "_mysql._tcp.all.corp.example", "fail"],
            ["prod", "mysql", "-", "_mysql._tcp.all.corp.example", "fail"],
            ["prod", "mysql", "192.0.2.4", "_mysql._tcp.all.corp.example", "pass"],
            ["prod", "mysql", "-", "_mysql._tcp.all.corp.example", "fail"],
            ["prod", "mysql", "192.0.2.4", "alias.corp.example", "pass"],
        ]
    );
    for reason in [
        &format!("SERVFAIL from {server}"),
        "no such name",
        "loopback",
        &format!("no word on its IPv6 addresses: REFUSED from {server}"),
        "gone.corp.example: no such name",
        "port 3307 of there.corp.example is none of the database",
        "left out: db.evil.example is not below corp.example",
    ] {
        assert!(stdout.contains(reason), "{reason}: {stdout}");
    }
}

#[test]
fn the_values_of_dns_flags_are_checked() {
    let file = file(GOOD);
    let path = file.path().to_str().expect("UTF-8");
    for (flag, value, advice) in [
        ("--dns-server", "dns.example", "write the IP of a DNS server"),
        ("--dns-server", "10.0.0.1:0", "write the IP of a DNS server"),
        ("--dns-server", "224.0.0.1", "write the IP of a DNS server"),
        ("--dns-server", "0.0.0.0", "write the IP of a DNS server"),
        ("--dns-server", "[::]:5353", "write the IP of a DNS server"),
        ("--dns-server", "255.255.255.255", "write the IP of a DNS server"),
        ("--dns-qps", "0", "write at least 1"),
        ("--dns-qps", "many", "write a number from 1 to 100000"),
    ] {
        let (status, _, stderr) = run(&["run", "--config", path, flag, value]);
        assert_eq!(status, Some(2), "{stderr}");
        assert!(stderr.contains(advice), "{stderr}");
    }
}

#[test]
fn an_address_in_use_is_reported_with_the_flag() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = taken.local_addr().expect("an address").to_string();
    let file = file(GOOD);
    let path = file.path().to_str().expect("UTF-8");
    let (status, _, stderr) = run(&["run", "--dry-run", "--config", path, "--listen", &address]);
    assert_eq!(status, Some(1));
    assert!(
        stderr
            .contains(&format!("can't listen on {address}; choose another address with --listen")),
        "{stderr}"
    );
}
