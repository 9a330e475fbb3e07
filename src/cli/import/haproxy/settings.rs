//! The settings of an HAProxy section that its checks depend on. Pure.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::keywords;
use super::server::{Parameters, duration};

/// The most headers of a check, and remarks on a section, that are kept.
const MAX_LIST: usize = 64;

/// The settings of a section. It begins with those of its defaults.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings {
    kind: Kind,
    method: Option<String>,
    path: Option<String>,
    host: Option<String>,
    headers: Map<String, Value>,
    statuses: Option<String>,
    body: Option<String>,
    send: Option<Value>,
    expect: Option<Value>,
    /// The port of `http-check connect` or `tcp-check connect`.
    pub(super) port: Option<u16>,
    pub(super) speaks_tls: bool,
    /// The name of `connect sni`.
    server_name: Option<String>,
    timeout_check: Option<String>,
    pub(super) default_server: Parameters,
    pub(super) all_backups: bool,
    pub(super) is_disabled: bool,
    /// The steps of the script that are kept. They can't be more.
    steps: BTreeSet<String>,
    /// True from the first step on that is not kept.
    is_cut: bool,
    /// The lines that have no equal here, by the words that name them.
    pub(super) left_out: BTreeSet<String>,
    /// Remarks on what is left out.
    pub(super) remarks: Vec<String>,
}

/// The kind of a section's check.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Connect,
    Http,
    TcpScript,
    /// A greeting of TLS, without a look at the certificate.
    TlsHello,
}

impl Settings {
    /// Applies a line of a section that is not a server.
    pub(super) fn apply(&mut self, words: &[&str]) {
        match words {
            ["option", "httpchk", rest @ ..] => self.apply_httpchk(rest),
            ["no", "option", "allbackups"] => self.all_backups = false,
            ["no", "option", check, ..] if is_check(check) => self.kind = Kind::Connect,
            ["no", "disabled"] | ["enabled"] => self.is_disabled = false,
            ["no", rest @ ..] => _ = self.left_out.remove(&keywords::name(rest)),
            ["disabled"] => self.is_disabled = true,
            ["http-check" | "tcp-check", "comment", ..] => {}
            ["http-check" | "tcp-check", "connect" | "send" | "send-binary" | "expect", ..] => {
                self.apply_step(words);
            }
            ["option", "tcp-check", ..] => self.kind = Kind::TcpScript,
            ["option", "redis-check", ..] => {
                self.kind = Kind::TcpScript;
                (self.send, self.expect) = (Some(json!("PING\r\n")), Some(json!("+PONG")));
            }
            ["option", "allbackups", ..] => self.all_backups = true,
            ["timeout", "check", time, ..] if duration(time).is_some() => {
                self.timeout_check = duration(time);
            }
            ["default-server", rest @ ..] => self.default_server.apply(rest),
            ["option", "ssl-hello-chk", ..] => {
                self.kind = Kind::TlsHello;
                let remark =
                    "`option ssl-hello-chk` accepts any certificate, and so does the check";
                self.remark(remark.to_owned());
            }
            ["option", check, ..] if is_check(check) => {
                self.kind = Kind::Connect;
                let equal = match *check {
                    "pgsql-check" => "`check: {postgres: {}}` asks",
                    "mysql-check" => "`check: {mysql: {user: NAME}}` asks",
                    _ => "an exec check can ask",
                };
                self.remark(format!("`option {check}` is left out; {equal} the same"));
            }
            ["http-check" | "tcp-check", ..] => {
                self.remark(format!("`{}` is left out", words.join(" ")));
            }
            words if keywords::is_line_without_meaning(words) => {}
            words if self.left_out.len() < MAX_LIST => {
                self.left_out.insert(keywords::name(words));
            }
            _ => self.remark("more lines have no equal; compare the sections".to_owned()),
        }
    }

    /// Begins a section of its own, which replaces the script of its defaults.
    pub(super) fn begin(&mut self) {
        self.steps.clear();
        self.is_cut = false;
    }

    /// Applies a step of a script. A check here connects once, asks once, and reads one answer.
    fn apply_step(&mut self, words: &[&str]) {
        let step = match words {
            ["http-check", "expect", rest @ ..] => {
                format!("expect {}", without_comment(rest).first().copied().unwrap_or_default())
            }
            [_, step, ..] => step.trim_end_matches("-binary").to_owned(),
            _ => return,
        };
        if self.is_cut || !self.steps.insert(step) {
            self.is_cut = true;
            let line = words.join(" ");
            self.remark(format!("`{line}` is left out: a check has one request and one answer"));
            return;
        }
        match words {
            [_, "connect", rest @ ..] => self.apply_connect(rest),
            ["http-check", "send", rest @ ..] => self.apply_http_send(rest),
            ["http-check", "expect", rest @ ..] => self.apply_http_expect(rest),
            ["tcp-check", "send", text, ..] => self.send = Some(json!(text)),
            ["tcp-check", "send-binary", hex, ..] => self.send = Some(json!({"hex": hex})),
            ["tcp-check", "expect", rest @ ..] => self.apply_tcp_expect(rest),
            _ => self.remark(format!("`{}` is left out", words.join(" "))),
        }
    }

    /// Adds a remark on the section.
    pub(super) fn remark(&mut self, remark: String) {
        if self.remarks.contains(&remark) {
            return;
        }
        match self.remarks.len() {
            MAX_LIST => self.remarks.push("more is left out; compare the sections".to_owned()),
            length if length < MAX_LIST => self.remarks.push(remark),
            _ => {}
        }
    }

    /// Applies `[METHOD] [URI] [VERSION]`. A version with headers behind it is the way of old.
    fn apply_httpchk(&mut self, words: &[&str]) {
        self.kind = Kind::Http;
        match words {
            [] => {}
            [path] => self.path = Some((*path).to_owned()),
            [method, path, version @ ..] => {
                self.method = Some((*method).to_owned());
                self.path = Some((*path).to_owned());
                let headers = version.iter().flat_map(|version| version.split("\r\n")).skip(1);
                for (name, value) in headers.filter_map(|header| header.split_once(':')) {
                    self.apply_header(name.trim(), value.trim());
                }
            }
        }
    }

    fn apply_header(&mut self, name: &str, value: &str) {
        if name.eq_ignore_ascii_case("host") {
            self.host = Some(value.to_owned());
        } else if name.eq_ignore_ascii_case("connection") {
            // Each check has a connection of its own.
        } else if self.headers.len() < MAX_LIST {
            self.headers.insert(name.to_owned(), json!(value));
        } else {
            self.remark(format!("the header {name} is left out: a check has at most {MAX_LIST}"));
        }
    }

    fn apply_http_send(&mut self, words: &[&str]) {
        let mut rest = words;
        loop {
            rest = match rest {
                ["meth", method, rest @ ..] => {
                    self.method = Some((*method).to_owned());
                    rest
                }
                ["uri", path, rest @ ..] => {
                    self.path = Some((*path).to_owned());
                    rest
                }
                ["hdr", name, value, rest @ ..] => {
                    self.apply_header(name, value);
                    rest
                }
                ["ver" | "comment", _, rest @ ..] => rest,
                [other, _, rest @ ..] => {
                    self.remark(format!("`http-check send {other}` is left out"));
                    rest
                }
                [] | [_] => return,
            };
        }
    }

    fn apply_http_expect(&mut self, words: &[&str]) {
        match without_comment(words) {
            ["status", statuses] => self.statuses = Some((*statuses).to_owned()),
            ["string", text] => self.body = Some((*text).to_owned()),
            other => self.remark(format!("`http-check expect {}` is left out", other.join(" "))),
        }
    }

    fn apply_tcp_expect(&mut self, words: &[&str]) {
        match without_comment(words) {
            ["string", text] => self.expect = Some(json!(text)),
            ["binary", hex] => self.expect = Some(json!({"hex": hex})),
            other => self.remark(format!("`tcp-check expect {}` is left out", other.join(" "))),
        }
    }

    fn apply_connect(&mut self, words: &[&str]) {
        let mut rest = words;
        while let [first, others @ ..] = rest {
            match (*first, others) {
                ("port", [port, ..]) => self.port = port.parse().ok(),
                ("sni", [name, ..]) => self.server_name = Some((*name).to_owned()),
                ("ssl", _) => self.speaks_tls = true,
                // The port of the server or its parameters is the default here too.
                ("default" | "linear", _) | ("comment", [_, ..]) => {}
                _ => self.remark(format!("`connect {first}` of the check is left out")),
            }
            let has_argument = ["port", "sni", "comment", "addr", "alpn", "proto"].contains(first);
            rest = if has_argument { others.get(1..).unwrap_or_default() } else { others };
        }
    }

    /// Returns the kind of the check with its keys, for a server with these parameters.
    pub(super) fn check(&self, server: &Parameters) -> Value {
        let mut check = match self.kind {
            Kind::Http => json!({"http": self.http(server)}),
            Kind::TcpScript | Kind::Connect | Kind::TlsHello => json!({"tcp": self.tcp(server)}),
        };
        check["interval"] = json!(server.inter.as_deref().unwrap_or("2s"));
        if let Some(recheck) = &server.fastinter {
            check["recheckInterval"] = json!(recheck);
        }
        if let Some(timeout) = &self.timeout_check {
            check["timeout"] = json!(timeout);
        }
        check["healthyThreshold"] = json!(server.rise.unwrap_or(2));
        check["unhealthyThreshold"] = json!(server.fall.unwrap_or(3));
        check
    }

    fn http(&self, server: &Parameters) -> Map<String, Value> {
        let mut http = Map::new();
        // HAProxy asks by OPTIONS unless it is told otherwise.
        http.insert("method".to_owned(), json!(self.method.as_deref().unwrap_or("OPTIONS")));
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                http.insert(key.to_owned(), value);
            }
        };
        set("path", self.path.as_ref().map(|path| json!(path)));
        set("host", self.host.as_ref().map(|host| json!(host)));
        set("headers", (!self.headers.is_empty()).then(|| json!(self.headers)));
        set("expectedStatuses", self.statuses.as_deref().map(statuses));
        set("expectedBody", self.body.as_ref().map(|body| json!(body)));
        set("port", server.port.or(self.port).map(|port| json!(port)));
        if server.checks_by_tls() || self.speaks_tls {
            set("scheme", Some(json!("https")));
            set("tls", Some(self.tls(server)));
        }
        http
    }

    fn tcp(&self, server: &Parameters) -> Map<String, Value> {
        let mut tcp = Map::new();
        let mut set = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                tcp.insert(key.to_owned(), value);
            }
        };
        set("port", server.port.or(self.port).map(|port| json!(port)));
        if matches!(self.kind, Kind::TcpScript) {
            set("send", self.send.clone());
            set("expect", self.expect.clone());
        }
        if self.kind == Kind::TlsHello {
            set("tls", Some(json!({"insecureSkipVerify": true})));
        } else if server.checks_by_tls() || self.speaks_tls {
            set("tls", Some(self.tls(server)));
        }
        tcp
    }

    fn tls(&self, server: &Parameters) -> Value {
        let mut tls = server.tls();
        if let Some(name) = &self.server_name {
            tls["serverName"] = json!(name);
        }
        tls
    }
}

/// Returns whether an option is a kind of check.
fn is_check(option: &str) -> bool {
    option.ends_with("-check") || option.ends_with("chk")
}

/// Returns the words without a leading `comment TEXT` and without `min-recv N`.
fn without_comment<'a, 'b>(words: &'b [&'a str]) -> &'b [&'a str] {
    match words {
        ["comment" | "min-recv", _, rest @ ..] => without_comment(rest),
        words => words,
    }
}

/// Returns statuses such as `200,301-399` as a list.
fn statuses(text: &str) -> Value {
    let one = |part: &str| part.parse::<u16>().map_or_else(|_| json!(part), |status| json!(status));
    text.split(',').map(one).collect()
}
