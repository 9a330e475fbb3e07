//! The scalars that several records use, each with its rule, its error and its schema.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::config::dns_name::DnsName;
use crate::config::ip;
use crate::config::names::{validate_label, validate_service};
use crate::config::problem::quote;
use crate::config::yaml::node::{Scalar, ScalarKind};

/// Declares a scalar: its type, the noun phrase of what is expected, its JSON Schema, and the
/// function that parses it. Without the inner type, the type is declared elsewhere.
macro_rules! scalar {
    ($(#[$meta:meta])* $name:ident($inner:ty), $($rest:tt)*) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
        #[serde(transparent)]
        pub(crate) struct $name(pub $inner);

        scalar!($name, $($rest)*);
    };
    ($name:ident, $expected:expr, {$($schema:tt)*}, $parse:expr) => {
        impl $crate::config::language::reader::ScalarType for $name {
            const EXPECTED: &'static str = $expected;

            fn parse(scalar: &$crate::config::yaml::node::Scalar) -> Result<Self, String> {
                let parse: fn(
                    &$crate::config::yaml::node::Scalar,
                    &'static str,
                ) -> Result<Self, String> = $parse;
                parse(scalar, $expected)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                // `x-type` is for docs/reference/config.md, and is not part of the public schema.
                schemars::json_schema!({"x-type": $expected, $($schema)*})
            }
        }
    };
}
pub(crate) use scalar;

/// Declares an enum whose values are words in the file, with other spellings that get a hint.
macro_rules! keywords {
    (
        $(#[$meta:meta])*
        $visibility:vis $name:ident, $expected:literal {
            $($(#[$variant_meta:meta])* $variant:ident = $word:literal $(| $alias:literal)*,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        #[allow(missing_docs, reason = "the words of the config name the variants")]
        $visibility enum $name {
            $($(#[$variant_meta])* $variant,)*
        }

        impl $name {
            /// Returns the word that stands in the config.
            $visibility fn as_str(self) -> &'static str {
                match self {
                    $($name::$variant => $word,)*
                }
            }
        }

        $crate::config::language::scalars::scalar!(
            $name,
            $expected,
            {"enum": [$($word),*]},
            |scalar, expected| {
                let words = [$(($name::$variant, $word, &[$($alias),*] as &[&str])),*];
                $crate::config::language::scalars::parse_keyword(&words, &scalar.text, expected)
            }
        );

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    };
}
pub(crate) use keywords;

/// Returns the value whose word this is, or advice that names the word that was probably meant.
pub(crate) fn parse_keyword<T: Copy>(
    words: &[(T, &str, &[&str])],
    text: &str,
    expected: &str,
) -> Result<T, String> {
    if let Some((value, ..)) = words.iter().find(|(_, word, _)| *word == text) {
        return Ok(*value);
    }
    let lower = text.to_lowercase();
    let is_meant = |word: &str, aliases: &[&str]| {
        word.eq_ignore_ascii_case(text) || aliases.contains(&lower.as_str())
    };
    match words.iter().find(|(_, word, aliases)| is_meant(word, aliases)) {
        Some((_, word, _)) => Err(format!("{} is not known; write `{word}`", quote(text))),
        None => Err(format!("{} is not known; write {expected}", quote(text))),
    }
}

scalar!(Text(String), "text", {"type": "string", "minLength": 1}, |scalar, expected| {
    Ok(Text(non_empty_text(scalar, expected)?.into()))
});

scalar!(
    FilePath(PathBuf),
    "the path of a file",
    {"type": "string", "minLength": 1},
    |scalar, expected| Ok(FilePath(without_nul(non_empty_text(scalar, expected)?)?.into()))
);

scalar!(
    ServiceName(String),
    "the name of a Service",
    {"type": "string", "maxLength": 63, "pattern": "^[a-z]([-a-z0-9]*[a-z0-9])?$"},
    |scalar, expected| {
        let name = non_empty_text(scalar, expected)?;
        validate_service(name)?;
        Ok(ServiceName(name.into()))
    }
);

scalar!(
    /// A label of RFC 1123, as the names of namespaces and ports are.
    DnsLabel(String),
    "a DNS label",
    {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"},
    |scalar, expected| {
        let name = non_empty_text(scalar, expected)?;
        validate_label(name, expected)?;
        Ok(DnsLabel(name.into()))
    }
);

scalar!(
    PortNumber(u16),
    "a port from 1 to 65535",
    {"type": "integer", "minimum": 1, "maximum": 65535},
    |scalar, expected| {
        let number = whole_number(scalar, expected)?;
        match u16::try_from(number) {
            Ok(number) if number > 0 => Ok(PortNumber(number)),
            _ => Err(format!("{number} is not a port; write a number from 1 to 65535")),
        }
    }
);

scalar!(
    /// A number of verdicts in a row.
    Threshold(u32),
    "a number from 1 to 4294967295",
    {"type": "integer", "minimum": 1, "maximum": u32::MAX},
    |scalar, expected| {
        let number = whole_number(scalar, expected)?;
        match u32::try_from(number) {
            Ok(number) if number > 0 => Ok(Threshold(number)),
            _ => Err(format!("{number} is not a number of verdicts in a row; write {expected}")),
        }
    }
);

scalar!(Bool(bool), "`true` or `false`", {"type": "boolean"}, |scalar, expected| {
    let meant = match (scalar.kind, scalar.text.to_lowercase().as_str()) {
        (ScalarKind::Bool(value), _) => return Ok(Bool(value)),
        (_, "yes" | "on" | "true" | "y" | "1") => "`true`",
        (_, "no" | "off" | "false" | "n" | "0") => "`false`",
        _ => expected,
    };
    Err(format!("{} is not true or false; write {meant}", quote(&scalar.text)))
});

keywords! {
    /// The protocol of a port.
    pub Protocol, "`TCP`, `UDP` or `SCTP`" {
        /// TCP.
        Tcp = "TCP",
        /// UDP.
        Udp = "UDP",
        /// SCTP.
        Sctp = "SCTP",
    }
}

keywords! {
    /// The kinds of object that members are published in.
    pub PublishMode, "`endpoints`, `slices` or `both`" {
        /// Endpoints, which Kubernetes mirrors into EndpointSlices.
        Endpoints = "endpoints" | "endpoint",
        /// EndpointSlices.
        Slices = "slices" | "slice" | "endpointslices" | "endpointslice",
        /// EndpointSlices, and Endpoints that Kubernetes does not mirror.
        Both = "both",
    }
}

scalar!(
    /// The name of a variable of the daemon's own environment.
    EnvVarName(String),
    "the name of a variable",
    {"type": "string", "pattern": "^[^=\\x00]+$"},
    |scalar, expected| {
        let name = without_nul(non_empty_text(scalar, expected)?)?;
        if name.contains('=') {
            let message = "the name of an environment variable has no `=`; write the name alone";
            return Err(message.into());
        }
        Ok(EnvVarName(name.into()))
    }
);

/// A time between two checks, or the time that one may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Interval(pub Duration);

/// The shortest interval: below it a check would mostly measure the scheduler.
const MIN_INTERVAL: Duration = Duration::from_millis(10);

/// The longest interval and delay: anything longer is a mistake.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);

scalar!(
    Interval,
    "a duration like `5s`",
    {
        "type": "string",
        "pattern": "^ *([0-9]+(\\.[0-9]+)? *[a-zA-Zµ]+ *)+$",
        "x-limits": "`10ms` to `24h`",
    },
    |scalar, expected| {
        let shown = quote(scalar.text.trim());
        let duration = parse_duration(scalar, ["ms", "`500ms`, `5s`, `1m`"], expected)?;
        if duration.is_zero() {
            return Err(format!("{shown} is no time at all; write at least `10ms`"));
        }
        if duration < MIN_INTERVAL {
            return Err(format!("{shown} is too short; write at least `10ms`"));
        }
        if duration > MAX_DURATION {
            return Err(format!("{shown} is too long; write at most `24h`"));
        }
        Ok(Interval(duration))
    }
);

impl Serialize for Interval {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

/// A delay, which may be zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delay(pub Duration);

scalar!(
    Delay,
    "a duration like `5m`",
    {
        "type": "string",
        "pattern": "^ *([0-9]+(\\.[0-9]+)? *[a-zA-Zµ]+ *)+$",
        "x-limits": "`0s` to `24h`",
    },
    |scalar, expected| {
        let delay = parse_duration(scalar, ["m", "`30s`, `5m`"], expected)?;
        if delay > MAX_DURATION {
            let shown = quote(scalar.text.trim());
            return Err(format!("{shown} is too long; write at most `24h`, or `manual: true`"));
        }
        Ok(Delay(delay))
    }
);

impl Serialize for Delay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

/// Parses a duration within limits, which are texts of the config.
pub(crate) fn parse_duration_within(
    scalar: &Scalar,
    limits: RangeInclusive<&str>,
    expected: &str,
) -> Result<Duration, String> {
    let duration = parse_duration(scalar, ["m", "`30s`, `5m`, `1h`"], expected)?;
    let limit = |text: &str| humantime::parse_duration(text).unwrap_or(duration);
    let shown = quote(scalar.text.trim());
    if duration < limit(limits.start()) {
        return Err(format!("{shown} is too short; write at least `{}`", limits.start()));
    }
    if duration > limit(limits.end()) {
        return Err(format!("{shown} is too long; write at most `{}`", limits.end()));
    }
    Ok(duration)
}

/// Parses a duration. The two examples are a unit that a bare number may lack, and whole durations.
fn parse_duration(
    scalar: &Scalar,
    [unit, durations]: [&str; 2],
    expected: &str,
) -> Result<Duration, String> {
    let text = scalar.text.trim();
    if !text.is_empty() && text.chars().all(|char| char.is_ascii_digit()) {
        return Err(format!(
            "a duration needs a unit; write `{text}s` for seconds, or `{text}{unit}`"
        ));
    }
    humantime::parse_duration(text).map_err(|_| {
        format!("{} is not {expected}; write a number and a unit, as in {durations}", quote(text))
    })
}

/// An entry of a list of addresses.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IpOrName {
    Ip(IpAddr),
    /// A name whose IPs DNS knows.
    Name(DnsName),
}

scalar!(
    IpOrName,
    "an IP or a host name",
    {
        "type": "string",
        "maxLength": 254,
        "anyOf": [
            {"pattern": "^[0-9a-fA-F.:]+$"},
            {"pattern": "^([A-Za-z0-9_-]{1,63}\\.)+[A-Za-z0-9_-]*[A-Za-z_-][A-Za-z0-9_-]*\\.?$"}
        ]
    },
    |scalar, expected| {
        let text = scalar.text.as_str();
        if text.is_empty() {
            return Err(format!("this text is empty; write {expected}"));
        }
        if let Ok(ip) = text.parse() {
            return Ok(IpOrName::Ip(ip));
        }
        let mistake = match ip::describe_mistake(text) {
            Some(mistake) => mistake,
            None => match DnsName::parse(text) {
                Ok(name) => return Ok(IpOrName::Name(name)),
                Err(mistake) => mistake,
            },
        };
        Err(format!("{} {mistake}", quote(text)))
    }
);

impl fmt::Display for IpOrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IpOrName::Ip(ip) => ip.fmt(f),
            IpOrName::Name(DnsName { name, .. }) => f.write_str(name),
        }
    }
}

impl Serialize for IpOrName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Returns the text of a scalar, unless YAML takes it for something else than text.
pub(crate) fn text<'a>(scalar: &'a Scalar, expected: &str) -> Result<&'a str, String> {
    let yaml_type = match scalar.kind {
        ScalarKind::Text => return Ok(&scalar.text),
        ScalarKind::Number => "a number",
        _ => "not text",
    };
    let shown = quote(&format!("\"{}\"", scalar.text));
    Err(format!(
        "expected {expected}, but without quotes this is {yaml_type} to YAML; write {shown}"
    ))
}

/// Returns the text of a scalar if it is not empty.
pub(crate) fn non_empty_text<'a>(scalar: &'a Scalar, expected: &str) -> Result<&'a str, String> {
    match text(scalar, expected)? {
        "" => Err(format!("this text is empty; write {expected}")),
        text => Ok(text),
    }
}

/// Returns the text if it has no NUL character, which no system call passes on.
pub(crate) fn without_nul(text: &str) -> Result<&str, String> {
    if text.contains('\0') {
        Err("a NUL character can't be passed on; remove it".into())
    } else {
        Ok(text)
    }
}

/// Returns the whole number of a scalar.
pub(crate) fn whole_number(scalar: &Scalar, expected: &str) -> Result<i64, String> {
    let number = scalar.text.parse::<i64>();
    match (scalar.kind, number) {
        (ScalarKind::Number, Ok(number)) => Ok(number),
        (ScalarKind::Text, Ok(number)) => {
            Err(format!("expected {expected}, found text; write `{number}` without quotes"))
        }
        _ => Err(format!("expected {expected}, found {}", quote(&scalar.text))),
    }
}

/// Splits `200-299` into its ends. A single number is both ends.
pub(crate) fn range_ends(text: &str) -> (&str, &str) {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    (first.trim(), last.trim())
}

/// Writes a range as it stands in the config: a number, or `200-299`.
pub(crate) fn serialize_range<T, S>(first: T, last: T, serializer: S) -> Result<S::Ok, S::Error>
where
    T: Serialize + PartialEq + std::fmt::Display,
    S: Serializer,
{
    if first == last {
        first.serialize(serializer)
    } else {
        serializer.collect_str(&format_args!("{first}-{last}"))
    }
}
