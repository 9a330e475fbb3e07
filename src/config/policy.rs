//! The policy of a database: its keys, their checked form, and the way back.

use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::language::reader::FromNode as _;
use super::language::record::{Record as _, record};
use super::language::scalars::{Bool, Delay, scalar, whole_number};
use super::language::spanned::{Field, Spanned};
use super::problem::{Collector, Reported, quote};
use super::yaml::node::Scalar;
use crate::plan;

record! {
    /// The rules by which the published addresses are chosen.
    Policy requires [] {
        /// The number of addresses to keep: if fewer are healthy, the published ones that were
        /// healthy most recently stay published. It is a number, or a percentage of the addresses
        /// in the preferred tier, which has the lowest `priority`. A percentage is rounded up.
        min_healthy: MinHealthy = MinHealthy(plan::Policy::default().min_healthy),
        /// Publish at most one address, as for a writer. If two pass, which is a split brain, they
        /// are never published together. Needs a check that only the writer passes.
        exactly_one: Bool = Bool(plan::Policy::default().exactly_one),
        /// The moment at which recovered addresses of a preferred tier take over from a lower one.
        failback: Failback,
        /// The number of changes between healthy and unhealthy that an address may make within ten
        /// minutes. One that makes more stays out until it was healthy for a minute; each further
        /// time this doubles, up to 15 minutes.
        max_flips: MaxFlips = MaxFlips(plan::Policy::default().max_flips),
    }
}

record! {
    /// The moment at which recovered addresses of a preferred tier take over from a lower one.
    #[schemars(extend("maxProperties" = 1))]
    Failback requires [] {
        /// The time that they must have been healthy for. `0s` means at once.
        delay: Delay = default_delay(),
        /// Only on command: by `external-endpoints failback`, or by the annotation of the Service.
        manual: Bool = Bool(false),
    }
}

/// Returns the default of `failback.delay`.
fn default_delay() -> Delay {
    match plan::Policy::default().failback {
        plan::Failback::Delay(delay) => Delay(delay),
        plan::Failback::Manual => Delay(std::time::Duration::ZERO),
    }
}

/// A number of addresses, or a percentage of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MinHealthy(pub plan::MinHealthy);

scalar!(
    MinHealthy,
    "a number like `1`, or a percentage like `50%`",
    {
        "anyOf": [
            {"type": "integer", "minimum": 0, "maximum": u32::MAX},
            {"type": "string", "pattern": "^(100|[0-9]{1,2})%$"}
        ]
    },
    parse_min_healthy
);

fn parse_min_healthy(scalar: &Scalar, expected: &str) -> Result<MinHealthy, String> {
    let text = scalar.text.as_str();
    let Some(percentage) = text.strip_suffix('%') else {
        let number = whole_number(scalar, expected)?;
        let number = u32::try_from(number)
            .map_err(|_| format!("{number} is not a number of addresses; write {expected}"))?;
        return Ok(MinHealthy(plan::MinHealthy::Number(number)));
    };
    let has_digits = !percentage.is_empty() && percentage.chars().all(|char| char.is_ascii_digit());
    match percentage.parse::<u8>() {
        Ok(percentage @ 0..=100) if has_digits => {
            Ok(MinHealthy(plan::MinHealthy::Percentage(percentage)))
        }
        _ if has_digits => Err(format!("{} is more than all; write at most `100%`", quote(text))),
        _ => Err(format!("{} is not a percentage; write {expected}", quote(text))),
    }
}

impl Serialize for MinHealthy {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            plan::MinHealthy::Number(number) => number.serialize(serializer),
            plan::MinHealthy::Percentage(percentage) => {
                serializer.collect_str(&format_args!("{percentage}%"))
            }
        }
    }
}

/// The largest `maxFlips`.
const MAX_MAX_FLIPS: u32 = 1000;

scalar!(
    MaxFlips(u32),
    "a number from 1 to 1000",
    {"type": "integer", "minimum": 1, "maximum": MAX_MAX_FLIPS},
    |scalar, expected| {
        let number = whole_number(scalar, expected)?;
        match u32::try_from(number) {
            Ok(flips @ 1..=MAX_MAX_FLIPS) => Ok(MaxFlips(flips)),
            _ => Err(format!("{number} flips can't be counted; write {expected}")),
        }
    }
);

/// The tiers of a database's addresses and names.
pub(super) struct Tiers {
    /// The priority of each.
    pub priorities: Vec<u32>,
    /// True if there are names. The number of addresses is then not known.
    pub has_names: bool,
    /// The first name with `rotating`.
    pub rotating_name: Option<Arc<str>>,
}

/// Returns the policy with every default filled in, or reports all that is wrong with it. The
/// warnings need the tiers.
pub(super) fn compile(
    policy: &Field<Policy>,
    tiers: Result<Tiers, Reported>,
    problems: &mut Collector,
) -> Result<plan::Policy, Reported> {
    let written = policy.or(Policy::default())?;
    let all = written.overlay(&Policy::built_in());
    let failback = compile_failback(&written.failback, problems);
    let compiled = plan::Policy {
        min_healthy: all.min_healthy.required()?.0,
        exactly_one: all.exactly_one.required()?.0,
        failback: failback?,
        max_flips: all.max_flips.required()?.0,
    };
    let tiers = tiers?;
    warn_of_min_healthy(&written, &compiled, &tiers, problems);
    warn_of_tiers(&written, &compiled, &tiers, problems);
    warn_of_rotating_writer(&written, &compiled, &tiers, problems);
    Ok(compiled)
}

fn compile_failback(
    failback: &Field<Failback>,
    problems: &mut Collector,
) -> Result<plan::Failback, Reported> {
    let failback = failback.or(Failback::default())?;
    let manual = failback.manual.or(Bool(false))?.0;
    let delay = failback.overlay(&Failback::built_in()).delay.required()?.0;
    match failback.delay.given() {
        Some(Spanned { location, .. }) if manual => {
            let message = "a failback on command has no delay; remove `delay` or `manual`";
            Err(problems.error_at_key(location, message))
        }
        _ if manual => Ok(plan::Failback::Manual),
        _ => Ok(plan::Failback::Delay(delay)),
    }
}

/// Warns of a `minHealthy` that is allowed but hardly meant.
fn warn_of_min_healthy(
    written: &Policy,
    policy: &plan::Policy,
    tiers: &Tiers,
    problems: &mut Collector,
) {
    let (Some(min_healthy), plan::MinHealthy::Number(number)) =
        (written.min_healthy.given(), policy.min_healthy)
    else {
        return;
    };
    let Tiers { priorities, has_names, .. } = tiers;
    let preferred = priorities.iter().min();
    let preferred = priorities.iter().filter(|priority| Some(*priority) == preferred).count();
    let needed = policy.min_healthy.to_count(preferred);
    let message = if policy.exactly_one && needed > 1 {
        "with `exactlyOne` there is never more than one address; write `minHealthy: 1`, or 0".into()
    } else if *has_names {
        return;
    } else if needed > priorities.len() {
        let count = priorities.len();
        format!(
            "{number} is more than the database has addresses ({count}), so none of them is ever \
             removed; write a lower number"
        )
    } else if needed > preferred {
        format!(
            "{number} is more than the preferred tier has addresses ({preferred}), so lower tiers \
             always serve beside it; write a lower number"
        )
    } else {
        return;
    };
    problems.warn_at(&min_healthy.location, message);
}

/// Warns of tiers that have no effect.
fn warn_of_tiers(written: &Policy, policy: &plan::Policy, tiers: &Tiers, problems: &mut Collector) {
    let priorities = &tiers.priorities;
    let has_tiers = priorities.iter().any(|priority| *priority != priorities[0]);
    if let (true, true, Some(exactly_one)) =
        (policy.exactly_one, has_tiers, written.exactly_one.given())
    {
        let message = "with `exactlyOne` the address that passes is published whatever its \
                       `priority`; remove `exactlyOne` or `priority`";
        problems.warn_at(&exactly_one.location, message);
    }
}

/// Warns of a name that gives several addresses where only one is published.
fn warn_of_rotating_writer(
    written: &Policy,
    policy: &plan::Policy,
    tiers: &Tiers,
    problems: &mut Collector,
) {
    if let (true, Some(name), Some(exactly_one)) =
        (policy.exactly_one, &tiers.rotating_name, written.exactly_one.given())
    {
        let message = format!(
            "{} is followed with `rotating`, so each answer may name another writer, and earlier \
             ones stay; the name of a writer needs no `rotating`: remove it, or `exactlyOne`",
            quote(name)
        );
        problems.warn_at(&exactly_one.location, message);
    }
}

/// Returns the keys of a policy, with every default written out.
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
        min_healthy: Field::new(MinHealthy(policy.min_healthy)),
        exactly_one: Field::new(Bool(policy.exactly_one)),
        failback: Field::new(failback),
        max_flips: Field::new(MaxFlips(policy.max_flips)),
    }
}
