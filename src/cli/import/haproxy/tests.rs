//! HAProxy configs, and the databases that they become.

use proptest::prelude::*;

use super::*;
use crate::cli::import::entry::document;
use crate::config::{self, Options};

fn imported(text: &str) -> String {
    let text = document("haproxy.cfg", &databases(text, Some("prod")));
    if text.contains("\ndatabases:\n") {
        let loaded = config::parse("test", &text, &Options::default());
        loaded.unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    }
    text
}

/// Joins the lines of comments.
fn unwrapped(text: &str) -> String {
    text.replace("\n#   ", " ").replace("\n# ", " ")
}

#[test]
fn a_backend_is_a_database() {
    let text = imported(
        "\
global
    maxconn 4000
defaults
    mode tcp
    timeout connect 3s
    timeout check 1500
    default-server inter 3s fall 4
frontend sql
    bind *:3306
    default_backend Main_DB
backend Main_DB
    option httpchk GET /primary
    http-check expect status 200
    server pg1 10.20.1.21:5432 check port 8008
    server pg2 10.20.1.22:5432 check port 8008 disabled
    server pg3 10.20.1.23:5432 check port 8009 inter 5s backup
",
    );
    assert_eq!(
        text,
        "\
# Imported by external-endpoints from haproxy.cfg.
# Found: 1, left out: 0.
databases:
# backend Main_DB of HAProxy
# without an equal here, and left out: `timeout connect`
- service: main-db
  namespace: prod
  port: 5432
  addresses:
  - {address: 10.20.1.21, check: {http: {port: 8008}, interval: 3s}}
  - {address: 10.20.1.22, check: {http: {port: 8008}, interval: 3s}, \
   maintenance: \"disabled in HAProxy\"}
  - {address: 10.20.1.23, check: {http: {port: 8009}, interval: 5s}, priority: 1}
  createService: {}  # the Service is created; remove this line if there is one
  check:
    http: {method: GET, path: /primary, expectedStatuses: [200]}
    timeout: 1500ms
    healthyThreshold: 2
    unhealthyThreshold: 4
"
    );
}

/// Returns the check of a backend with these lines and one server.
fn check_of(lines: &str) -> String {
    let text = imported(&format!("backend a\n{lines}\n server s 10.0.0.1:6379 check\n"));
    let check = text.split("  check:").nth(1).unwrap_or_else(|| panic!("{text}"));
    let check = check.trim_end().replace("\n    ", ", ");
    let end = ", interval: 2s, healthyThreshold: 2, unhealthyThreshold: 3";
    match check.trim_start_matches([' ', ',']).strip_suffix(end) {
        Some(check) => check.to_owned(),
        // It is on one line.
        None => {
            let check = check.trim().trim_start_matches('{').trim_end_matches('}');
            check.strip_suffix(end).unwrap_or(check).to_owned()
        }
    }
}

#[test]
fn each_kind_of_check_has_its_equal() {
    for (lines, check) in [
        ("", "tcp: {}"),
        ("option httpchk", "http: {method: OPTIONS}"),
        ("option httpchk /up", "http: {method: OPTIONS, path: /up}"),
        (
            r"option httpchk HEAD /up HTTP/1.1\r\nHost:\ db.example",
            "http: {method: HEAD, path: /up, host: db.example}",
        ),
        (
            "option httpchk\nhttp-check send meth GET uri /x hdr Host a.example hdr X-Y z",
            "http: {method: GET, path: /x, headers: {X-Y: z}, host: a.example}",
        ),
        (
            "option httpchk\nhttp-check expect status 200,300-399",
            "http: {method: OPTIONS, expectedStatuses: [200, \"300-399\"]}",
        ),
        (
            "option httpchk\nhttp-check expect string ok",
            "http: {method: OPTIONS, expectedBody: ok}",
        ),
        (
            "option tcp-check\ntcp-check send PING\\r\\n\ntcp-check expect string +PONG",
            r#"tcp: {expect: "+PONG", send: "PING\r\n"}"#,
        ),
        (
            "option tcp-check\ntcp-check send-binary 0c\ntcp-check expect binary 01",
            r#"tcp: {expect: {hex: "01"}, send: {hex: "0c"}}"#,
        ),
        ("option redis-check", r#"tcp: {expect: "+PONG", send: "PING\r\n"}"#),
        (
            "option httpchk\ndefault-server ssl verify none",
            "http: {method: OPTIONS, scheme: https, tls: {insecureSkipVerify: true}}",
        ),
        (
            "default-server check-ssl ca-file /etc/ca.pem sni str(db)",
            "tcp: {tls: {caFile: /etc/ca.pem, serverName: db}}",
        ),
        ("option httpchk\nno option httpchk", "tcp: {}"),
        ("option ssl-hello-chk", "tcp: {tls: {insecureSkipVerify: true}}"),
    ] {
        assert_eq!(check_of(lines), check, "{lines}");
    }
}

#[test]
fn a_check_without_an_equal_is_named() {
    for (lines, words) in [
        ("option mysql-check user haproxy", "`option mysql-check` is left out"),
        (
            "option httpchk\nhttp-check expect rstatus ^2",
            "`http-check expect rstatus ^2` is left out",
        ),
        (
            "option tcp-check\ntcp-check send A\ntcp-check send B",
            "`tcp-check send B` is left out: a",
        ),
        ("option tcp-check\ntcp-check set-var(x) int(1)", "`tcp-check set-var(x) int(1)` is left"),
    ] {
        let text = imported(&format!("backend a\n{lines}\nserver s 10.0.0.1:1 check"));
        assert!(unwrapped(&text).contains(words), "{text}");
    }
    let text = imported("backend a\nserver s 10.0.0.1:1\nserver t 10.0.0.2:1 check addr 10.9.9.9");
    assert!(text.contains("# HAProxy does not check s; here all are checked"), "{text}");
    assert!(text.contains("# HAProxy checks t at another address"), "{text}");
}

#[test]
fn a_script_is_cut_where_it_goes_on() {
    let text = imported(
        "backend a\noption httpchk\nhttp-check connect\nhttp-check send meth GET uri /one\n\
         http-check expect status 200\nhttp-check connect port 99\nhttp-check send uri /two\n\
         http-check expect status 201\nserver s 10.0.0.1:1 check",
    );
    assert!(text.contains("path: /one") && !text.contains("port: 99"), "{text}");
    assert!(text.contains("expectedStatuses: [200]"), "{text}");
    let text = unwrapped(&text);
    for line in ["connect port 99", "send uri /two", "expect status 201"] {
        assert!(text.contains(&format!("`http-check {line}` is left out: a check has")), "{text}");
    }
    let script = "option httpchk\nhttp-check connect addr 10.9.9.9 ssl sni x.example alpn h2";
    let text = imported(&format!("backend a\n{script}\nserver s 10.0.0.1:1 check"));
    assert!(text.contains("tls: {serverName: x.example}"), "{text}");
    assert!(text.contains("`connect alpn`") && text.contains("`connect addr`"), "{text}");
}

#[test]
fn a_keyword_without_an_equal_is_named() {
    let text = unwrapped(&imported(
        "defaults\nmode tcp\noption tcplog\nbalance leastconn\noption redispatch\n\
         default-server maxconn 9\nbackend a\nno option redispatch\nuse-server s if TRUE\n\
         brand-new x y\nserver s 10.0.0.1:1 check send-proxy\nserver t 10.0.0.2:1 track a/s",
    ));
    let list = "left out: `balance leastconn`, `brand-new x`, `use-server s`, `maxconn 9`, \
                `send-proxy` (s), `track a/s` (t)\n";
    assert!(text.contains(list), "{text}");
    assert!(!text.contains("does not check"), "{text}");
    let text = imported("backend a\n.if defined(X)\nserver s 10.0.0.1:1 check\n.endif");
    assert!(text.contains("# it depends on `.if` in HAProxy"), "{text}");
    let text = imported("backend a\nhttp-check send uri \"$X\"\nserver s 10.0.0.1:1 check");
    assert!(text.contains("`http-check send` has a variable"), "{text}");
}

#[test]
fn tls_is_verified_where_haproxy_verifies() {
    let text = imported("global\nssl-server-verify none\nbackend a\nserver s 10.0.0.1:1 check ssl");
    assert!(text.contains("tls: {insecureSkipVerify: true}"), "{text}");
    let line = "server s 10.0.0.1:1 check ssl verify required ca-file /ca.pem crt /c.pem";
    let text = imported(&format!("global\nssl-server-verify none\nbackend a\n{line}"));
    assert!(text.contains("tls: {caFile: /ca.pem, certFile: /c.pem, keyFile: /c.pem}"), "{text}");
    assert!(text.contains("# mount these files of HAProxy for the daemon: /c.pem, /ca.pem"));
}

#[test]
fn what_is_not_published_as_it_is_becomes_a_draft() {
    let disabled = "disabled\nserver s 10.0.0.1:1 check";
    let socket = "server s 10.0.0.1:1 check\nserver t unix@/run/x.sock";
    for (lines, words) in [(disabled, "is disabled in HAProxy"), (socket, "only the others")] {
        let text = imported(&format!("backend a\n{lines}"));
        assert!(unwrapped(&text).contains(words) && !text.contains("\ndatabases:"), "{text}");
        assert!(text.contains("\n# - service: a\n"), "{text}");
    }
}

#[test]
fn sections_that_are_no_database_are_left_out() {
    for (text, words) in [
        ("backend a\nserver s 10.0.0.1:1\nserver t 10.0.0.2:2", "different ports"),
        ("backend a\nserver s 10.0.0.1", "server s has no port of its own"),
        ("backend a\nserver s /run/x.sock", "server s is at /run/x.sock, which is no IP"),
        ("backend a\nserver s \"${HOST}:1\"", "server s has a variable"),
        ("backend a\nserver s 127.0.0.1:1", "a loopback address"),
        ("backend a\nserver s", "`server s` has no address"),
    ] {
        let imported = imported(text);
        assert!(imported.contains("Found: 1, left out: 1.\n# - backend a: "), "{imported}");
        assert!(unwrapped(&imported).contains(words), "{imported}");
    }
    let nothing =
        imported("listen stats\nbind :1\nstats enable\nresolvers r\nnameserver n 1.1.1.1:53");
    assert!(nothing.contains("Found: 0"), "{nothing}");
}

#[test]
fn defaults_are_inherited_by_name_or_by_order() {
    let text = imported(
        "\
defaults a
 option httpchk GET /a
defaults
 option redis-check
backend x
 server s 10.0.0.1:1 check
backend y from a
 server s 10.0.0.1:1 check
",
    );
    let checks: Vec<&str> = text.split("  check:").skip(1).collect();
    assert!(checks[0].contains("+PONG") && checks[1].contains("path: /a"), "{text}");
}

#[test]
fn names_become_names_of_services() {
    let names = ["be_mysql", "be-mysql", "1st", "__", "Ünï", "a.b"];
    let sections = names.map(|name| format!("backend {name}\nserver s 10.0.0.1:1 check\n"));
    let text = imported(&sections.concat());
    let services: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("- service: ")).collect();
    assert_eq!(services, ["be-mysql", "be-mysql-2", "db-1st", "db", "\"n\"", "a-b"]);
}

#[test]
fn backups_are_tiers_in_their_order() {
    let servers = "server a 10.0.0.1:1\nserver b 10.0.0.2:1 backup\nserver c 10.0.0.3:1 backup\n";
    let text = imported(&format!("backend x\n{servers}"));
    assert!(text.contains("priority: 1}, {address: 10.0.0.3, priority: 2}"), "{text}");
    let text = imported(&format!("backend x\noption allbackups\n{servers}"));
    assert!(text.contains("priority: 1}, {address: 10.0.0.3, priority: 1}"), "{text}");
}

proptest! {
    // A soup of words is a good config, or nothing.
    #[test]
    fn whatever_is_read_the_output_is_a_config(
        lines in prop::collection::vec(prop::collection::vec(word(), 0..8), 0..20),
    ) {
        let lines: Vec<String> = lines.into_iter().map(|words| words.join(" ")).collect();
        imported(&format!("backend a\n{}\nserver s 10.0.0.1:1 check\n", lines.join("\n")));
    }

    #[test]
    fn any_bytes_are_read_to_the_end(text in any::<String>()) {
        imported(&text);
    }
}

fn word() -> impl Strategy<Value = String> {
    let words = [
        "backend",
        "listen",
        "defaults",
        "from",
        "server",
        "server-template",
        "default-server",
        "option",
        "httpchk",
        "tcp-check",
        "http-check",
        "redis-check",
        "send",
        "expect",
        "status",
        "string",
        "binary",
        "hdr",
        "uri",
        "meth",
        "connect",
        "port",
        "ssl",
        "verify",
        "none",
        "inter",
        "0",
        "1",
        "99999999999",
        "2s",
        "rise",
        "fall",
        "backup",
        "disabled",
        "weight",
        "10.0.0.1:1",
        "10.0.0.2:1",
        "[2001:db8::1]:1",
        "db.example:1",
        "\"a b\"",
        "'#'",
        "\\",
        "\\x00",
        "a: b",
        "- x",
        "timeout",
        "check",
        "ca-file",
        "sni",
        "str(a)",
        "${X}",
        "no",
    ];
    prop_oneof![4 => prop::sample::select(words.to_vec()).prop_map(str::to_owned), 1 => ".{0,6}"]
}
