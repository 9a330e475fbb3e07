//! The kind `http`: one HTTP request, whose answer has an expected status and body.

use std::net::Ipv6Addr;
use std::ops::RangeInclusive;

use serde::{Serialize, Serializer};

use super::kind::{CheckContext, KindRecord, new_list, non_empty_list};
use super::tls::{self, Tls, TlsKeys};
use crate::config::language::bytes::BodyText;
use crate::config::language::reader::FromNode as _;
use crate::config::language::record::{Record as _, record};
use crate::config::language::scalars::{
    Bool, PortNumber, keywords, non_empty_text, range_ends, scalar, serialize_range, text,
};
use crate::config::language::spanned::{Field, Spanned};
use crate::config::language::value::{NamedValues, ValueName, ValueSource};
use crate::config::problem::{Collector, Reported, quote};
use crate::config::yaml::node::Scalar;

record! {
    /// A check by one HTTP request. It passes when the status is expected and the body contains the
    /// expected text. Redirects are not
    /// followed, and proxies are not used.
    Http requires [] {
        /// The path of the request, with the query if there is one.
        path: UrlPath = UrlPath("/".into()),
        /// The port to connect to. Default: the database's first port.
        port: PortNumber,
        /// `https` for a request over TLS.
        scheme: Scheme = Scheme::Http,
        /// The method of the request.
        method: Method = Method("GET".into()),
        /// The Host header. Default: the host name or IP of the address, with the port if it is not
        /// the usual one.
        host: HostHeader,
        /// More headers of the request.
        headers: NamedValues<HeaderName>,
        /// The statuses that pass: numbers, or ranges like `200-299`.
        #[schemars(length(min = 1))]
        expected_statuses: Vec<Field<StatusRange>> = vec![Field::new(StatusRange(200..=399))],
        /// A text that the first MiB of the body must contain.
        expected_body: BodyText,
        /// Offer HTTP/2 to the server, which may choose HTTP/1.1. Needs `scheme: https`; without
        /// it the check speaks HTTP/1.1.
        http2: Bool = Bool(false),
        /// The TLS settings. Needs `scheme: https`.
        tls: TlsKeys,
    }
}

/// A checked check by one HTTP request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// The port to connect to.
    pub port: u16,
    /// The path and the query.
    pub path: String,
    /// The scheme: with or without TLS.
    pub scheme: Scheme,
    /// The method, as it is sent: `GET`.
    pub method: String,
    /// The Host header, if it is not the address.
    pub host: Option<String>,
    /// More headers.
    pub headers: Vec<(String, ValueSource)>,
    /// The statuses that pass.
    pub expected_statuses: Vec<RangeInclusive<u16>>,
    /// The text that the body must contain.
    pub expected_body: Option<String>,
    /// Offers HTTP/2 to the server, which may choose HTTP/1.1. Only with `https`.
    pub http2: bool,
    /// The TLS settings for `https`.
    pub tls: Tls,
}

keywords! {
    /// The scheme of a request.
    pub Scheme, "`http` or `https`" {
        /// HTTP over plain TCP.
        Http = "http",
        /// HTTP over TLS.
        Https = "https",
    }
}

impl KindRecord for Http {
    type Check = HttpCheck;

    const EXAMPLE: &'static str = r#"databases:
- service: elasticsearch
  port: 9200
  addresses: [10.20.0.41, 10.20.0.42, 10.20.0.43]
  check:
    interval: 10s
    timeout: 3s
    http:
      path: /_cluster/health?local=true
      scheme: https
      headers: {Authorization: {file: /etc/secrets/elastic}}
      expectedStatuses: [200]
      expectedBody: '"timed_out":false'
      tls: {caFile: /etc/tls/ca.crt}
"#;

    fn compile(
        written: &Spanned<Self>,
        context: &CheckContext,
        problems: &mut Collector,
    ) -> Result<HttpCheck, Reported> {
        let http = written.value.overlay(&Http::built_in());
        let port = context.port("http", &http.port, &written.location, problems);
        let scheme = http.scheme.required();
        reject_without_tls(&http, problems);
        reject_control_characters(&http, problems);
        let tls = match http.tls.given() {
            Some(tls) => tls::compile(tls, problems),
            None => http.tls.optional().map(|_| Tls::default()),
        };
        let advice = "write at least one status, as in `[200-399]`";
        let statuses = non_empty_list(&http.expected_statuses, advice, problems);
        let headers = http.headers.or(NamedValues(Vec::new())).and_then(|headers| headers.pairs());
        Ok(HttpCheck {
            port: port?,
            path: http.path.required()?.0,
            scheme: scheme?,
            method: http.method.required()?.0,
            host: http.host.optional()?.map(|host| host.0),
            headers: headers?,
            expected_statuses: statuses?.into_iter().flatten().map(|range| range.0).collect(),
            expected_body: http.expected_body.optional()?.map(|text| text.0),
            http2: http.http2.required()?.0,
            tls: tls?,
        })
    }

    fn explain(check: &HttpCheck) -> Self {
        let is_https = check.scheme == Scheme::Https;
        Http {
            path: Field::new(UrlPath(check.path.clone())),
            port: Field::new(PortNumber(check.port)),
            scheme: Field::new(check.scheme),
            method: Field::new(Method(check.method.clone())),
            host: Field::from_option(check.host.clone().map(HostHeader)),
            headers: Field::new(NamedValues::new(&check.headers, HeaderName)),
            expected_statuses: new_list(&check.expected_statuses, |range| {
                StatusRange(range.clone())
            }),
            expected_body: Field::from_option(check.expected_body.clone().map(BodyText)),
            http2: Field::from_option(is_https.then_some(Bool(check.http2))),
            tls: Field::from_option(is_https.then(|| tls::explain(&check.tls))),
        }
    }

    fn summary(check: &HttpCheck, host: &str) -> String {
        let HttpCheck { scheme, method, port, path, .. } = check;
        let path = path.split_once('?').map_or(path.clone(), |(path, _)| format!("{path}?…"));
        let scheme = scheme.as_str();
        format!("http {method} {scheme}://{host}:{port}{path}")
    }

    fn values(check: &HttpCheck) -> Vec<&ValueSource> {
        check.headers.iter().map(|(_, value)| value).collect()
    }
}

/// Reports keys that have no effect on a request without TLS.
fn reject_without_tls(http: &Http, problems: &mut Collector) {
    if http.scheme.value() != Some(&Scheme::Http) {
        return;
    }
    let mut reject = |key: &str, location| {
        let message =
            format!("`{key}` has no effect without `scheme: https`; add that, or remove `{key}`");
        problems.error_at_key(location, message);
    };
    if let Some(tls) = http.tls.given() {
        reject("tls", &tls.location);
    }
    if let Some(Spanned { value: Bool(true), location }) = http.http2.given() {
        reject("http2", location);
    }
}

/// Reports headers with characters that no request can carry. The content of a file or a variable
/// is known only when the check runs.
fn reject_control_characters(http: &Http, problems: &mut Collector) {
    let headers = http.headers.value().into_iter().flat_map(|headers| &headers.0);
    for header in headers.filter_map(|(_, value)| value.given()) {
        if let ValueSource::Literal(text) = &header.value
            && text.chars().any(|char| char.is_ascii_control() && char != '\t')
        {
            let message = "a header can't have a line break or another control character; write \
                           the value on one line";
            problems.error_at(&header.location, message);
        }
    }
}

scalar!(
    Method(String),
    "an HTTP method",
    {"type": "string", "pattern": "^[-!#$%&'*+.^_`|~A-Z0-9]+$"},
    parse_method
);

fn parse_method(scalar: &Scalar, expected: &str) -> Result<Method, String> {
    let method = non_empty_text(scalar, expected)?;
    if !method.chars().all(is_token) {
        return Err(format!("{} is not an HTTP method; write one word, like `GET`", quote(method)));
    }
    if method.chars().any(|char| char.is_ascii_lowercase()) {
        let upper = method.to_uppercase();
        return Err(format!(
            "HTTP methods are in capitals; write `{upper}` instead of {}",
            quote(method)
        ));
    }
    Ok(Method(method.into()))
}

scalar!(
    UrlPath(String),
    "a path like `/health`",
    {"type": "string", "pattern": "^/[!-\"$-~]*$"},
    parse_path
);

fn parse_path(scalar: &Scalar, expected: &str) -> Result<UrlPath, String> {
    let path = text(scalar, expected)?;
    if !path.starts_with('/') {
        return Err(format!(
            "{} does not begin with `/`; write a path like `/health`",
            quote(path)
        ));
    }
    let Some(char) = path.chars().find(|char| !char.is_ascii_graphic() || *char == '#') else {
        return Ok(UrlPath(path.into()));
    };
    let char = char.to_string();
    let encoded = char.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    Err(format!("{} can't stand in the path of a request; write `{encoded}`", quote(&char)))
}

scalar!(
    HostHeader(String),
    "a host name",
    {"type": "string", "pattern": "^[-_.:\\[\\]A-Za-z0-9]+$"},
    parse_host
);

fn parse_host(scalar: &Scalar, expected: &str) -> Result<HostHeader, String> {
    let host = non_empty_text(scalar, expected)?;
    let is_allowed = |char: char| {
        char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.' | ':' | '[' | ']')
    };
    if !host.chars().all(is_allowed) {
        return Err(format!(
            "{} is not a host; write a name like `db.corp.example`, without scheme or path",
            quote(host)
        ));
    }
    validate_port_of_host(host)?;
    Ok(HostHeader(host.into()))
}

/// Reports a host whose port is not one. An IPv6 address needs brackets, which keep its colons
/// apart from the port.
fn validate_port_of_host(host: &str) -> Result<(), String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(inner) => {
            let (ip, rest) = inner.split_once(']').unwrap_or((inner, "]"));
            if ip.parse::<Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                return Err(format!(
                    "{} is not a host; write one like `[2001:db8::11]:8443`",
                    quote(host)
                ));
            }
            (ip, rest.strip_prefix(':'))
        }
        None if host.parse::<Ipv6Addr>().is_ok() => {
            return Err(format!("an IPv6 address needs brackets here; write `[{host}]`"));
        }
        None if host.contains(['[', ']']) => {
            return Err(format!(
                "{} is not a host; write a name like `db.corp.example`, without brackets",
                quote(host)
            ));
        }
        None => host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port))),
    };
    let is_port = |port: &str| {
        port.chars().all(|char| char.is_ascii_digit())
            && port.parse::<u16>().is_ok_and(|port| port > 0)
    };
    match port {
        _ if name.is_empty() => {
            Err(format!("{} has no name; write one like `db.corp.example`", quote(host)))
        }
        Some(port) if !is_port(port) => Err(format!(
            "{} has no port after the `:`; write a number from 1 to 65535 there",
            quote(host)
        )),
        _ => Ok(()),
    }
}

scalar!(
    HeaderName(String),
    "the name of a header",
    {"pattern": "^[-!#$%&'*+.^_`|~A-Za-z0-9]+$"},
    parse_header_name
);

/// Parses the name of a header. A wrong name is never quoted, because it may be a secret that lost
/// its key.
fn parse_header_name(scalar: &Scalar, _: &str) -> Result<HeaderName, String> {
    let name = &scalar.text;
    if name.is_empty() || !name.chars().all(is_token) {
        return Err("this is not the name of an HTTP header; write `Name: value`".into());
    }
    if name.eq_ignore_ascii_case("host") {
        return Err("the Host header has its own key; write `host: …` beside `headers`".into());
    }
    Ok(HeaderName(name.clone()))
}

impl ValueName for HeaderName {
    fn text(&self) -> &str {
        &self.0
    }

    fn identity(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

/// Returns true for the characters of a token, RFC 9110's `tchar`.
fn is_token(char: char) -> bool {
    char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char)
}

/// A status, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StatusRange(pub RangeInclusive<u16>);

scalar!(
    StatusRange,
    "a status like `200`, or a range like `200-299`",
    {
        "anyOf": [
            {"type": "integer", "minimum": 100, "maximum": 599},
            {"type": "string", "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$"}
        ]
    },
    parse_statuses
);

fn parse_statuses(scalar: &Scalar, expected: &str) -> Result<StatusRange, String> {
    let (first, last) = range_ends(&scalar.text);
    let status = |text: &str| text.parse::<u16>().ok().filter(|code| (100..=599).contains(code));
    match (status(first), status(last)) {
        (Some(first), Some(last)) if first <= last => Ok(StatusRange(first..=last)),
        (Some(first), Some(last)) => {
            Err(format!("the range {first}-{last} is empty; write `{last}-{first}`"))
        }
        _ => {
            let shown = quote(&scalar.text);
            Err(format!("{shown} is not {expected}; write statuses from 100 to 599"))
        }
    }
}

impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serialize_range(*self.0.start(), *self.0.end(), serializer)
    }
}
