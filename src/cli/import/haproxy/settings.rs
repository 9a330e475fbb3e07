//! The settings of an HAProxy section that its checks depend on. Pure.

use serde_json::{Map, Value, json};

use super::server::{Parameters, duration};

/// The most headers of a check, and remarks on a section, that are kept.
const MAX_LIST: usize = 32;

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
    timeout_check: Option<String>,
    pub(super) default_server: Parameters,
    pub(super) all_backups: bool,
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
}

impl Settings {
    /// Applies a line of a section that is not a server.
    pub(super) fn apply(&mut self, words: &[&str]) {
        match words {
            ["option", "httpchk", rest @ ..] => self.apply_httpchk(rest),
            ["no", "option", "httpchk" | "tcp-check", ..] => self.kind = Kind::Connect,
            ["http-check", "send", rest @ ..] => self.apply_http_send(rest),
            ["http-check", "expect", rest @ ..] => self.apply_http_expect(rest),
            ["http-check" | "tcp-check", "connect", rest @ ..] => self.apply_connect(rest),
            ["option", "tcp-check", ..] => self.kind = Kind::TcpScript,
            ["tcp-check", "send", text, ..] => self.apply_send(json!(text)),
            ["tcp-check", "send-binary", hex, ..] => self.apply_send(json!({"hex": hex})),
            ["tcp-check", "expect", rest @ ..] => self.apply_tcp_expect(rest),
            ["option", "redis-check", ..] => {
                self.kind = Kind::TcpScript;
                (self.send, self.expect) = (Some(json!("PING\r\n")), Some(json!("+PONG")));
            }
            ["option", "allbackups", ..] => self.all_backups = true,
            ["timeout", "check", time, ..] => self.timeout_check = duration(time),
            ["default-server", rest @ ..] => self.default_server.apply(rest),
            ["option", check, ..] if check.ends_with("-check") || *check == "smtpchk" => {
                self.kind = Kind::Connect;
                let equal = match *check {
                    "pgsql-check" => "`check: {postgres: {}}` asks",
                    _ => "an exec check can ask",
                };
                self.remark(format!("`option {check}` is left out; {equal} the same"));
            }
            ["option", "ssl-hello-chk", ..] => self.speaks_tls = true,
            ["http-check" | "tcp-check", other, ..] if *other != "comment" => {
                self.remark(format!("`{}` is left out", words.join(" ")));
            }
            _ => {}
        }
    }

    /// Adds a remark on the section.
    pub(super) fn remark(&mut self, remark: String) {
        if self.remarks.len() < MAX_LIST && !self.remarks.contains(&remark) {
            self.remarks.push(remark);
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
            ["string", text] => self.apply_expect(json!(text)),
            ["binary", hex] => self.apply_expect(json!({"hex": hex})),
            other => self.remark(format!("`tcp-check expect {}` is left out", other.join(" "))),
        }
    }

    /// Applies what a script sends. Only the first of it is kept.
    fn apply_send(&mut self, data: Value) {
        match self.send {
            Some(_) => self.remark("only the first `tcp-check send` is kept".to_owned()),
            None => self.send = Some(data),
        }
    }

    /// Applies the answer that a script expects. Only the first one is kept.
    fn apply_expect(&mut self, data: Value) {
        match self.expect {
            Some(_) => self.remark("only the first `tcp-check expect` is kept".to_owned()),
            None => self.expect = Some(data),
        }
    }

    fn apply_connect(&mut self, words: &[&str]) {
        let mut rest = words;
        while let [first, others @ ..] = rest {
            match (*first, others) {
                ("port", [port, ..]) => self.port = port.parse().ok(),
                ("ssl", _) => self.speaks_tls = true,
                _ => {}
            }
            rest = others;
        }
    }

    /// Returns the kind of the check with its keys, for a server with these parameters.
    pub(super) fn check(&self, server: &Parameters) -> Value {
        let mut check = match self.kind {
            Kind::Http => json!({"http": self.http(server)}),
            Kind::TcpScript | Kind::Connect => json!({"tcp": self.tcp(server)}),
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
            set("tls", Some(server.tls()));
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
        if server.checks_by_tls() || self.speaks_tls {
            set("tls", Some(server.tls()));
        }
        tcp
    }
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
