//! The `policy` of a database, and what of it goes with an address: as it is written, and as it is compiled.

use std::sync::Arc;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};

use super::Address;
use super::leaf::{Bool, scalar, whole_number};
use super::problem::{Collector, quote};
use super::raw;
use super::read::{Field, FromNode, Reader, ScalarType, camel_case, record};
use super::tree::{Node, Scalar, ScalarKind};
use crate::annotations::MAX_REASON_CHARS;
use crate::plan::{self, MinHealthy};

record! {
    /// Which of the healthy addresses are published, and which others.
    Policy requires [] {
        /// Below this many healthy addresses, the most recently healthy published ones stay: a number, or a percentage
        /// of the addresses with the lowest `priority`.
        #[schemars(extend("default" = 0))]
        min_healthy: AtLeast,
        /// Publish one address at most. Two that pass are a split brain, and never published together.
        #[schemars(extend("default" = false))]
        exactly_one: Bool,
        /// When addresses that are preferred by their `priority`, and well again, take over from others.
        failback: Failback,
        /// How often an address may flip between healthy and unhealthy within ten minutes. One that flips more often
        /// stays out until it was healthy for a while: a minute at first, then twice as long each time, up to 15 minutes.
        #[schemars(extend("default" = 5))]
        max_flips: MaxFlips,
    }
}

record! {
    /// When addresses that are preferred by their `priority`, and well again, take over from others.
    #[schemars(extend("maxProperties" = 1))]
    Failback requires [] {
        /// Once they have been well for so long; `0s` is at once.
        #[schemars(extend("default" = "5m"))]
        delay: Delay,
        /// Only when asked, by `external-endpoints failback` or by the Service's annotation.
        #[schemars(extend("default" = false))]
        manual: Bool,
    }
}

/// A number of addresses, or a percentage of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AtLeast(pub MinHealthy);

scalar!(
    @rule AtLeast,
    "a number like `1`, or a percentage like `50%`",
    {
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": u32::MAX},
            {"type": "string", "pattern": "^(100|[0-9]{1,2})%$"}
        ]
    },
    |scalar: &Scalar, what| {
        let text = scalar.text.as_str();
        let Some(percentage) = text.strip_suffix('%') else {
            let number = whole_number(scalar, what)?;
            let number = u32::try_from(number)
                .map_err(|_| format!("{number} is no number of addresses; write {what}"))?;
            return Ok(AtLeast(MinHealthy::Number(number)));
        };
        let digits = !percentage.is_empty() && percentage.chars().all(|char| char.is_ascii_digit());
        match percentage.parse::<u8>() {
            Ok(percentage @ 0..=100) if digits => Ok(AtLeast(MinHealthy::Percentage(percentage))),
            _ if digits => Err(format!("{} is more than all; write at most `100%`", quote(text))),
            _ => Err(format!("{} is no percentage; write {what}", quote(text))),
        }
    }
);

impl Serialize for AtLeast {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            MinHealthy::Number(number) => number.serialize(serializer),
            MinHealthy::Percentage(percentage) => format!("{percentage}%").serialize(serializer),
        }
    }
}

scalar!(
    Priority(u32),
    "a number from 0",
    {"type": "integer", "minimum": 0, "maximum": u32::MAX},
    |scalar, what| {
        let number = whole_number(scalar, what)?;
        u32::try_from(number).map(Priority).map_err(|_| {
            format!("{number} is no priority; write a number from 0, which is preferred, to {}", u32::MAX)
        })
    }
);

const MOST_FLIPS: u32 = 1000;

scalar!(
    MaxFlips(u32),
    "a number from 1 to 1000",
    {"type": "integer", "minimum": 1, "maximum": MOST_FLIPS},
    |scalar, what| {
        let number = whole_number(scalar, what)?;
        match u32::try_from(number) {
            Ok(flips @ 1..=MOST_FLIPS) => Ok(MaxFlips(flips)),
            _ => Err(format!("{number} flips can't be counted; write {what}")),
        }
    }
);

/// A delay, which may be none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delay(pub Duration);

const LONGEST: Duration = Duration::from_secs(24 * 60 * 60);

scalar!(
    @rule Delay,
    "a duration like `5m`",
    {"type": "string", "pattern": "^ *([0-9]+(\\.[0-9]+)? *[a-zA-Zµ]+ *)+$"},
    |scalar: &Scalar, what| {
        let text = scalar.text.trim();
        if !text.is_empty() && text.chars().all(|char| char.is_ascii_digit()) {
            return Err(format!("a duration needs a unit; write `{text}s` for seconds, or `{text}m`"));
        }
        match humantime::parse_duration(text) {
            Ok(delay) if delay > LONGEST => Err(format!("{} is too long; write at most `24h`, or `manual: true`", quote(text))),
            Ok(delay) => Ok(Delay(delay)),
            Err(_) => Err(format!("{} is not {what}; write a number and a unit, as in `30s`, `5m`", quote(text))),
        }
    }
);

impl Serialize for Delay {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        humantime::format_duration(self.0).to_string().serialize(serializer)
    }
}

scalar!(
    Reason(String),
    "a reason in words",
    {"type": "string", "minLength": 1, "maxLength": MAX_REASON_CHARS, "pattern": "\\S"},
    |scalar: &Scalar, what| match scalar.kind {
        ScalarKind::Bool(true) => Err("say why, as in `maintenance: disk swap until Friday`".into()),
        ScalarKind::Bool(false) => Err("take the key away when the maintenance is over".into()),
        _ => {
            let reason = super::read::text(scalar, what)?.trim();
            if reason.is_empty() {
                return Err("say why, as in `maintenance: disk swap until Friday`".into());
            }
            let length = reason.chars().count();
            if length > MAX_REASON_CHARS {
                return Err(format!("this reason has {length} characters; write at most {MAX_REASON_CHARS}"));
            }
            if reason.contains(char::is_control) {
                return Err("a reason is one line; take line breaks and other control characters away".into());
            }
            Ok(Reason(reason.into()))
        }
    }
);

/// The policy, with every default filled in. None when something is wrong, all of which is then reported.
pub(super) fn compile(
    policy: &Field<Policy>,
    addresses: Option<&[Address]>,
    problems: &mut Collector,
) -> Option<plan::Policy> {
    let default = plan::Policy::default();
    let raw = match policy {
        Field::Absent => return Some(default),
        Field::Invalid => return None,
        Field::Given(at) => &at.value,
    };
    let failback = failback(&raw.failback, default.failback, problems);
    let compiled = plan::Policy {
        min_healthy: raw.min_healthy.or(AtLeast(default.min_healthy))?.0,
        exactly_one: raw.exactly_one.or(Bool(default.exactly_one))?.0,
        failback: failback?,
        max_flips: raw.max_flips.or(MaxFlips(default.max_flips))?.0,
    };
    warn(raw, &compiled, addresses?, problems);
    Some(compiled)
}

/// What an address says of its tier and its maintenance. None when that is wrong.
pub(super) fn of_address(address: &raw::Address) -> Option<(u32, Option<Arc<str>>)> {
    let priority = address.priority.or(Priority(0));
    let maintenance = address.maintenance.optional();
    Some((priority?.0, maintenance?.map(|reason: Reason| reason.0.into())))
}

fn failback(
    raw: &Field<Failback>,
    default: plan::Failback,
    problems: &mut Collector,
) -> Option<plan::Failback> {
    let at = match raw {
        Field::Absent => return Some(default),
        Field::Invalid => return None,
        Field::Given(at) => at,
    };
    let manual = at.value.manual.or(Bool(false))?.0;
    match (&at.value.delay, manual) {
        (Field::Absent, true) => Some(plan::Failback::Manual),
        (Field::Absent, false) => Some(default),
        (Field::Given(delay), false) => Some(plan::Failback::Delay(delay.value.0)),
        (Field::Given(delay), true) => {
            let message =
                "a failback that waits to be asked has no delay; take `delay` or `manual` away";
            problems.error(delay.location.key, &delay.location.path, message);
            None
        }
        (Field::Invalid, _) => None,
    }
}

/// Tells what is allowed, but can't be meant.
fn warn(raw: &Policy, policy: &plan::Policy, addresses: &[Address], problems: &mut Collector) {
    let preferred = addresses.iter().map(|address| address.priority).min();
    let preferred = addresses.iter().filter(|address| Some(address.priority) == preferred).count();
    if let (Some(at), MinHealthy::Number(number)) = (raw.min_healthy.given(), policy.min_healthy) {
        let needed = policy.min_healthy.to_count(preferred);
        let message = if policy.exactly_one && needed > 1 {
            "with `exactlyOne` there is never more than one address; write `minHealthy: 1`, or 0"
                .to_owned()
        } else if needed > addresses.len() {
            format!(
                "{number} is more than there are addresses ({}), so that none ever leaves",
                addresses.len()
            )
        } else if needed > preferred {
            format!(
                "{number} is more than the preferred tier has addresses ({preferred}), so that lower tiers always serve beside it"
            )
        } else {
            String::new()
        };
        if !message.is_empty() {
            problems.warn(at.location.span, &at.location.path, message);
        }
    }
    warn_of_tiers(raw, policy, addresses, problems);
}

fn warn_of_tiers(
    raw: &Policy,
    policy: &plan::Policy,
    addresses: &[Address],
    problems: &mut Collector,
) {
    let tiers = addresses.iter().any(|address| address.priority != addresses[0].priority);
    if let (true, true, Some(at)) = (policy.exactly_one, tiers, raw.exactly_one.given()) {
        let message = "with `exactlyOne` the one that passes is published, whatever its `priority`; take one of the two away";
        problems.warn(at.location.span, &at.location.path, message);
    }
}

/// The policy written out in full.
pub(super) fn explain(policy: &plan::Policy) -> Policy {
    let failback = match policy.failback {
        plan::Failback::Delay(delay) => {
            Failback { delay: Field::new(Delay(delay)), ..Failback::default() }
        }
        plan::Failback::Manual => {
            Failback { manual: Field::new(Bool(true)), ..Failback::default() }
        }
    };
    Policy {
        min_healthy: Field::new(AtLeast(policy.min_healthy)),
        exactly_one: Field::new(Bool(policy.exactly_one)),
        failback: Field::new(failback),
        max_flips: Field::new(MaxFlips(policy.max_flips)),
    }
}
