//! The scalars of the config, each with its rule, its error and its schema in one place.

use std::net::{IpAddr, Ipv6Addr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::name::{validate_label, validate_service};
use super::problem::quote;
use super::read::{ScalarType, text};
use super::tree::{Scalar, ScalarKind};
use super::{Protocol, PublishMode, Scheme};

/// Declares a leaf: its type, what it is in words, its schema, and how it is parsed.
macro_rules! scalar {
    ($name:ident($inner:ty), $what:literal, {$($schema:tt)*}, $parse:expr) => {
        #[derive(Debug, Clone, PartialEq, Eq, Serialize)]
        #[serde(transparent)]
        pub(super) struct $name(pub $inner);

        scalar!(@rule $name, $what, {$($schema)*}, $parse);
    };
    (@rule $name:ident, $what:literal, {$($schema:tt)*}, $parse:expr) => {
        impl ScalarType for $name {
            const EXPECTED: &'static str = $what;

            fn parse(scalar: &Scalar) -> Result<Self, String> {
                let parse: fn(&Scalar, &str) -> Result<Self, String> = $parse;
                parse(scalar, Self::EXPECTED)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({$($schema)*})
            }
        }
    };
}

pub(super) use scalar;

scalar!(Text(String), "text", {"type": "string", "minLength": 1}, |scalar, what| {
    let text = non_empty_text(scalar, what)?;
    Ok(Text(text.into()))
});

scalar!(Argument(String), "text", {"type": "string"}, |scalar, what| {
    let text = no_nul(text(scalar, what)?)?;
    Ok(Argument(text.into()))
});

scalar!(FilePath(PathBuf), "the path of a file", {"type": "string", "minLength": 1}, |scalar, what| {
    let text = no_nul(non_empty_text(scalar, what)?)?;
    Ok(FilePath(text.into()))
});

scalar!(AbsoluteDir(PathBuf), "the absolute path of a folder", {"type": "string", "pattern": "^/"}, |scalar, what| {
    let text = no_nul(non_empty_text(scalar, what)?)?;
    if !text.starts_with('/') {
        return Err(format!("{} is not absolute, and where the daemon runs is no part of the config; write {what}", quote(text)));
    }
    Ok(AbsoluteDir(text.into()))
});

scalar!(
    ServiceName(String),
    "the name of a Service",
    {"type": "string", "maxLength": 63, "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
    |scalar, what| {
        let name = non_empty_text(scalar, what)?;
        validate_service(name)?;
        Ok(ServiceName(name.into()))
    }
);

scalar!(
    DnsLabel(String),
    "a DNS label",
    {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
    |scalar, what| Ok(DnsLabel(label(scalar, what)?.into()))
);

scalar!(
    PortNumber(u16),
    "a port from 1 to 65535",
    {"type": "integer", "minimum": 1, "maximum": 65535},
    |scalar, what| {
        let number = whole_number(scalar, what)?;
        match u16::try_from(number) {
            Ok(number) if number > 0 => Ok(PortNumber(number)),
            _ => Err(format!("{number} is no port; write a number from 1 to 65535")),
        }
    }
);

scalar!(Threshold(u32), "a number from 1 to 4294967295", {"type": "integer", "minimum": 1, "maximum": u32::MAX}, |scalar, what| {
    let number = whole_number(scalar, what)?;
    match u32::try_from(number) {
        Ok(number) if number > 0 => Ok(Threshold(number)),
        _ => Err(format!("{number} verdicts in a row can't be waited for; write a number from 1 to {}", u32::MAX)),
    }
});

scalar!(Bool(bool), "`true` or `false`", {"type": "boolean"}, |scalar: &Scalar, _| {
    match (scalar.kind, scalar.text.to_lowercase().as_str()) {
        (ScalarKind::Bool(value), _) => Ok(Bool(value)),
        (_, "yes" | "on" | "true" | "y" | "1") => Err(format!("{} is not true or false; write `true`", quote(&scalar.text))),
        (_, "no" | "off" | "false" | "n" | "0") => Err(format!("{} is not true or false; write `false`", quote(&scalar.text))),
        _ => Err(format!("{} is not true or false; write `true` or `false`", quote(&scalar.text))),
    }
});

scalar!(@rule Protocol, "`TCP`, `UDP` or `SCTP`", {"enum": ["TCP", "UDP", "SCTP"]}, |scalar: &Scalar, _| {
    let found = PROTOCOLS.iter().find(|(_, name)| *name == scalar.text);
    let meant = PROTOCOLS.iter().find(|(_, name)| name.eq_ignore_ascii_case(&scalar.text));
    one_of(found.map(|(protocol, _)| *protocol), meant.map(|(_, name)| *name), scalar, "`TCP`, `UDP` or `SCTP`")
});

const PROTOCOLS: [(Protocol, &str); 3] =
    [(Protocol::Tcp, "TCP"), (Protocol::Udp, "UDP"), (Protocol::Sctp, "SCTP")];

impl Serialize for Protocol {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = PROTOCOLS.iter().find(|(protocol, _)| protocol == self).map(|(_, name)| name);
        name.serialize(serializer)
    }
}

scalar!(@rule Scheme, "`http` or `https`", {"enum": ["http", "https"]}, |scalar: &Scalar, _| {
    let found = SCHEMES.iter().find(|(_, name)| *name == scalar.text);
    let meant = SCHEMES.iter().find(|(_, name)| name.eq_ignore_ascii_case(&scalar.text));
    one_of(found.map(|(scheme, _)| *scheme), meant.map(|(_, name)| *name), scalar, "`http` or `https`")
});

const SCHEMES: [(Scheme, &str); 2] = [(Scheme::Http, "http"), (Scheme::Https, "https")];

impl Serialize for Scheme {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = SCHEMES.iter().find(|(scheme, _)| scheme == self).map(|(_, name)| name);
        name.serialize(serializer)
    }
}

scalar!(@rule PublishMode, "`endpoints`, `slices` or `both`", {"enum": ["endpoints", "slices", "both"]}, |scalar: &Scalar, what| {
    let found = PUBLISH.iter().find(|(_, name)| *name == scalar.text);
    let meant = match scalar.text.to_lowercase().as_str() {
        "endpoints" | "endpoint" => Some("endpoints"),
        "slices" | "slice" | "endpointslices" | "endpointslice" => Some("slices"),
        "both" => Some("both"),
        _ => None,
    };
    one_of(found.map(|(publish, _)| *publish), meant, scalar, what)
});

const PUBLISH: [(PublishMode, &str); 3] = [
    (PublishMode::Endpoints, "endpoints"),
    (PublishMode::Slices, "slices"),
    (PublishMode::Both, "both"),
];

impl Serialize for PublishMode {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = PUBLISH.iter().find(|(publish, _)| publish == self).map(|(_, name)| name);
        name.serialize(serializer)
    }
}

scalar!(
    Zone(String),
    "the name of a zone",
    {"type": "string", "maxLength": 63, "pattern": "^[A-Za-z0-9]([-_.A-Za-z0-9]*[A-Za-z0-9])?$"},
    |scalar, what| {
        // Compared with a label of the nodes, so that nothing else can match.
        let zone = non_empty_text(scalar, what)?;
        let ends = |char: char| char.is_ascii_alphanumeric();
        if zone.len() > 63 {
            return Err(format!("{} has {} characters; {what} has at most 63", quote(zone), zone.len()));
        }
        if !zone.chars().all(|char| ends(char) || "-_.".contains(char)) || !zone.starts_with(ends) || !zone.ends_with(ends) {
            return Err(format!(
                "{} is not {what}; write letters, digits, `-`, `_` and `.`, with a letter or digit at both ends",
                quote(zone)
            ));
        }
        Ok(Zone(zone.into()))
    }
);

scalar!(
    Method(String),
    "an HTTP method",
    {"type": "string", "pattern": "^[-!#$%&'*+.^_`|~A-Z0-9]+$"},
    |scalar, what| {
        let method = non_empty_text(scalar, what)?;
        if !method.chars().all(is_token) {
            return Err(format!("{} is no HTTP method; write one word, like `GET`", quote(method)));
        }
        if method.chars().any(|char| char.is_ascii_lowercase()) {
            let upper = method.to_uppercase();
            return Err(format!("HTTP methods are in capitals; write `{upper}` instead of {}", quote(method)));
        }
        Ok(Method(method.into()))
    }
);

scalar!(
    UrlPath(String),
    "a path like `/health`",
    {"type": "string", "pattern": "^/[!-\"$-~]*$"},
    |scalar, what| {
        let path = text(scalar, what)?;
        if !path.starts_with('/') {
            return Err(format!("{} does not begin with `/`; write a path like `/health`", quote(path)));
        }
        match path.chars().find(|char| !char.is_ascii_graphic() || *char == '#') {
            Some(char) => {
                let bytes = char.to_string().bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
                Err(format!("{} can't stand in the path of a request; write it as `{bytes}`", quote(&char.to_string())))
            }
            None => Ok(UrlPath(path.into())),
        }
    }
);

scalar!(
    HostHeader(String),
    "a host name",
    {"type": "string", "pattern": "^[-_.:\\[\\]A-Za-z0-9]+$"},
    |scalar, what| {
        let host = non_empty_text(scalar, what)?;
        let fits = |char: char| char.is_ascii_alphanumeric() || matches!(char, '-' | '_' | '.' | ':' | '[' | ']');
        if !host.chars().all(fits) {
            return Err(format!("{} is no host; write a name like `db.corp.example`, without scheme or path", quote(host)));
        }
        port_of_host(host)?;
        Ok(HostHeader(host.into()))
    }
);

scalar!(
    ServerName(String),
    "a DNS name or an IP",
    {"type": "string", "minLength": 1},
    |scalar, what| {
        let name = non_empty_text(scalar, what)?;
        if rustls::pki_types::ServerName::try_from(name).is_err() {
            return Err(format!("no certificate can carry {}; write a DNS name or an IP, without a port", quote(name)));
        }
        Ok(ServerName(name.into()))
    }
);

// A name that is none may be a secret that lost its key, so that the two below are never quoted.
scalar!(HeaderName(String), "the name of a header", {"pattern": "^[-!#$%&'*+.^_`|~A-Za-z0-9]+$"}, |scalar: &Scalar, _| {
    let name = &scalar.text;
    if name.is_empty() || !name.chars().all(is_token) {
        return Err("this is not the name of an HTTP header; write `Name: value`".into());
    }
    if name.eq_ignore_ascii_case("host") {
        return Err("the Host header has a key of its own; write `host: …` beside `headers`".into());
    }
    Ok(HeaderName(name.clone()))
});

/// What the daemon tells every exec check.
pub(super) const BUILTIN_VARIABLES: [&str; 5] =
    ["TARGET_IP", "TARGET_PORT", "TARGET_HOST", "SERVICE", "NAMESPACE"];

scalar!(VariableName(String), "the name of a variable", {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"}, |scalar: &Scalar, _| {
    let name = &scalar.text;
    let fits = |char: char| char.is_ascii_alphanumeric() || char == '_';
    if !name.chars().all(fits) || name.is_empty() || name.starts_with(|char: char| char.is_ascii_digit()) {
        return Err("this is not the name of a variable; write letters, digits and `_`, as in `PGPASSWORD: …`".into());
    }
    if BUILTIN_VARIABLES.contains(&name.as_str()) {
        return Err(format!("`{name}` is set for every exec check; take it away, or choose another name"));
    }
    Ok(VariableName(name.clone()))
});

scalar!(EnvVarName(String), "the name of a variable", {"type": "string", "pattern": "^[^=\\x00]+$"}, |scalar, what| {
    let name = no_nul(non_empty_text(scalar, what)?)?;
    if name.contains('=') {
        return Err("the name of an environment variable has no `=`; write the name alone".into());
    }
    Ok(EnvVarName(name.into()))
});

/// An interval or a timeout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Interval(pub Duration);

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

scalar!(
    @rule Interval,
    "a duration like `5s`",
    {"type": "string", "pattern": "^ *([0-9]+(\\.[0-9]+)? *[a-zA-Zµ]+ *)+$"},
    |scalar: &Scalar, what| {
        let text = scalar.text.trim();
        if !text.is_empty() && text.chars().all(|char| char.is_ascii_digit()) {
            return Err(format!("a duration needs a unit; write `{text}s` for seconds, or `{text}ms`"));
        }
        let duration = humantime::parse_duration(text)
            .map_err(|_| format!("{} is not {what}; write a number and a unit, as in `500ms`, `5s`, `1m`", quote(text)))?;
        if duration.is_zero() {
            return Err(format!("{} is no time at all; write at least `10ms`", quote(text)));
        }
        if duration < SHORTEST {
            return Err(format!("{} is too short; write at least `10ms`", quote(text)));
        }
        if duration > LONGEST {
            return Err(format!("{} is too long; write at most `24h`", quote(text)));
        }
        Ok(Interval(duration))
    }
);

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        humantime::format_duration(self.0).to_string().serialize(serializer)
    }
}

/// A status, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StatusRange(pub RangeInclusive<u16>);

scalar!(
    @rule StatusRange,
    "a status like `200`, or a range like `200-299`",
    {
        "anyOf": [
            {"type": "integer", "minimum": 100, "maximum": 599},
            {"type": "string", "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$"}
        ]
    },
    |scalar: &Scalar, what| {
        let (first, last) = scalar.text.split_once('-').unwrap_or((&scalar.text, &scalar.text));
        let status = |text: &str| text.trim().parse::<u16>().ok().filter(|status| (100..=599).contains(status));
        match (status(first), status(last)) {
            (Some(first), Some(last)) if first <= last => Ok(StatusRange(first..=last)),
            (Some(first), Some(last)) => Err(format!("the range {first}-{last} is empty; write `{last}-{first}`")),
            _ => Err(format!("{} is not {what}; statuses go from 100 to 599", quote(&scalar.text))),
        }
    }
);

impl Serialize for StatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => first.serialize(serializer),
            (first, last) => format!("{first}-{last}").serialize(serializer),
        }
    }
}

/// An exit status, or a range of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExitStatusRange(pub RangeInclusive<u8>);

scalar!(
    @rule ExitStatusRange,
    "an exit status like `3`, or a range like `64-78`",
    {
        "anyOf": [
            {"type": "integer", "minimum": 1, "maximum": 255},
            {"type": "string", "pattern": "^[0-9]{1,3}(-[0-9]{1,3})?$"}
        ]
    },
    |scalar: &Scalar, what| {
        let (first, last) = scalar.text.split_once('-').unwrap_or((&scalar.text, &scalar.text));
        match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
            (Ok(0), Ok(_)) | (Ok(_), Ok(0)) => Err("exit status 0 passes, always; write statuses from 1 to 255".into()),
            (Ok(first), Ok(last)) => match (u8::try_from(first), u8::try_from(last)) {
                (Ok(first), Ok(last)) if first <= last => Ok(ExitStatusRange(first..=last)),
                (Ok(first), Ok(last)) => Err(format!("the range {first}-{last} is empty; write `{last}-{first}`")),
                _ => Err(format!("no program can exit with {}; write statuses from 1 to 255", first.max(last))),
            },
            _ => Err(format!("{} is not {what}; statuses go from 1 to 255", quote(&scalar.text))),
        }
    }
);

impl Serialize for ExitStatusRange {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match (self.0.start(), self.0.end()) {
            (first, last) if first == last => first.serialize(serializer),
            (first, last) => format!("{first}-{last}").serialize(serializer),
        }
    }
}

scalar!(Ip(IpAddr), "an IP", {"type": "string", "pattern": "^[0-9a-fA-F.:]+$"}, |scalar: &Scalar, _| {
    super::ip::parse(&scalar.text).map(Ip)
});

fn non_empty_text<'a>(scalar: &'a Scalar, what: &str) -> Result<&'a str, String> {
    match text(scalar, what)? {
        "" => Err(format!("this text is empty; write {what}")),
        text => Ok(text),
    }
}

fn no_nul(text: &str) -> Result<&str, String> {
    if text.contains('\0') {
        Err("a NUL character can't be passed on; take it away".into())
    } else {
        Ok(text)
    }
}

/// RFC 1123: what a host, a namespace and a port may be called.
fn label<'a>(scalar: &'a Scalar, what: &str) -> Result<&'a str, String> {
    let name = non_empty_text(scalar, what)?;
    validate_label(name, what)?;
    Ok(name)
}

pub(super) fn whole_number(scalar: &Scalar, what: &str) -> Result<i64, String> {
    let number = scalar.text.parse::<i64>();
    match (scalar.kind, number) {
        (ScalarKind::Number, Ok(number)) => Ok(number),
        (ScalarKind::Text, Ok(number)) => {
            Err(format!("expected {what}, found text; write `{number}` without quotes"))
        }
        _ => Err(format!("expected {what}, found {}", quote(&scalar.text))),
    }
}

fn one_of<T>(
    found: Option<T>,
    meant: Option<&str>,
    scalar: &Scalar,
    what: &str,
) -> Result<T, String> {
    found.ok_or_else(|| match meant {
        Some(meant) => format!("{} is not known; write `{meant}`", quote(&scalar.text)),
        None => format!("{} is not known; write {what}", quote(&scalar.text)),
    })
}

/// What follows the name in a host must be a port; brackets keep the colons of an IPv6 address apart from it.
fn port_of_host(host: &str) -> Result<(), String> {
    let (name, port) = match host.strip_prefix('[') {
        Some(inner) => {
            let (ip, rest) = inner.split_once(']').unwrap_or((inner, "]"));
            if ip.parse::<Ipv6Addr>().is_err() || !(rest.is_empty() || rest.starts_with(':')) {
                return Err(format!(
                    "{} is no host; write one like `[2001:db8::11]:8443`",
                    quote(host)
                ));
            }
            (ip, rest.strip_prefix(':'))
        }
        None if host.parse::<Ipv6Addr>().is_ok() => {
            return Err(format!("an IPv6 address stands in brackets here; write `[{host}]`"));
        }
        None if host.contains(['[', ']']) => {
            return Err(format!(
                "{} is no host; write a name like `db.corp.example`, without brackets",
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
            "{} ends in no port; write a number from 1 to 65535 after the `:`",
            quote(host)
        )),
        _ => Ok(()),
    }
}

/// RFC 9110's `tchar`.
fn is_token(char: char) -> bool {
    char.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(char)
}
