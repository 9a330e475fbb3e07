//! The check of a database or an address: its keys, the layers over each other, and the checked
//! form.
//!
//! ```text
//! built-in defaults < defaults.check < databases[].check < databases[].addresses[].check
//! ```

use std::fmt::Display;
use std::time::Duration;

use super::kinds::kind::{CheckContext, KindRecord as _};
use super::kinds::{self, CheckKind, check_kinds};
use super::language::reader::FromNode as _;
use super::language::record::{Record as _, record};
use super::language::scalars::{Interval, Threshold};
use super::language::spanned::Field;
use super::problem::{Collector, Location, Reported};
use super::spec::Check;
use crate::health::Thresholds;

/// Declares the keys of a check: one for each kind, and those that all kinds share.
macro_rules! check_record {
    ($($module:ident => $record:ident($check:ident),)*) => {
        record! {
            /// The check of an address: its kind, and how often and how patiently it runs.
            #[schemars(rename = "Check")]
            CheckKeys requires [] one_of [$(stringify!($module)),*] {
                /// The time between two checks of an address.
                interval: Interval = Interval(Duration::from_secs(5)),
                /// The time that one check may take in all. It should be at most the interval.
                timeout: Interval = Interval(Duration::from_secs(2)),
                /// The time to the next check after a result that disagrees with the state of the
                /// address, until the state changes or the results agree again. It is at most the
                /// interval; the default and a value from a lower layer shrink to it.
                recheck_interval: Interval = Interval(Duration::from_secs(1)),
                /// The number of passes in a row that makes an address healthy.
                healthy_threshold: Threshold = Threshold(2),
                /// The number of failures in a row that makes an address unhealthy.
                unhealthy_threshold: Threshold = Threshold(3),
                $($module: kinds::$module::$record,)*
            }
        }

        impl CheckKeys {
            /// Returns the kinds that are written and good, with their locations.
            fn kinds(&self) -> Vec<(&'static str, &Location)> {
                let mut kinds = Vec::new();
                $(
                    if let Some(kind) = self.$module.given() {
                        kinds.push((stringify!($module), &kind.location));
                    }
                )*
                kinds
            }

            /// Returns how many kinds are written, whether they are good or not.
            fn kind_count(&self) -> usize {
                [$(self.$module.is_absent()),*].into_iter().filter(|absent| !absent).count()
            }

            /// Removes the kinds that the other check does not have.
            fn retain_kinds_of(&mut self, other: &CheckKeys) {
                $(
                    if other.$module.is_absent() {
                        self.$module = Field::Absent;
                    }
                )*
            }

            /// Compiles the one kind that is given.
            fn compile_kind(
                &self,
                context: &CheckContext,
                problems: &mut Collector,
            ) -> Result<CheckKind, Reported> {
                $(
                    if let Some(kind) = self.$module.given() {
                        return kinds::$module::$record::compile(kind, context, problems)
                            .map(CheckKind::$record);
                    }
                )*
                Err(Reported)
            }

            /// Sets the key of the kind, with every default written out.
            fn explain_kind(&mut self, kind: &CheckKind) {
                match kind {
                    $(
                        CheckKind::$record(check) => {
                            self.$module = Field::new(kinds::$module::$record::explain(check));
                        }
                    )*
                }
            }

            /// Returns the texts in which `$(TARGET_IP)` is replaced.
            pub(super) fn templates(&self) -> Vec<(&str, &Location)> {
                let mut templates = Vec::new();
                $(
                    if let Some(kind) = self.$module.value() {
                        templates.extend(kind.templates());
                    }
                )*
                templates
            }
        }
    };
}

check_kinds!(check_record);

impl CheckKeys {
    /// Returns this check of a database laid over the one of `defaults`. A kind replaces another
    /// kind, and keys of the same kind merge.
    pub(super) fn over_defaults(&self, defaults: &CheckKeys) -> CheckKeys {
        let mut lower = defaults.clone();
        if self.kind_count() > 0 {
            lower.retain_kinds_of(self);
        }
        self.overlay(&lower)
    }

    /// Returns this check of an address laid over the one of its database, whose kind it must keep.
    pub(super) fn over_database(
        &self,
        database: &CheckKeys,
        problems: &mut Collector,
    ) -> Result<CheckKeys, Reported> {
        let [(kind, _)] = database.kinds()[..] else { return Err(Reported) };
        let foreign = self.kinds().into_iter().find(|(other, _)| *other != kind);
        if let Some((other, location)) = foreign {
            let message = format!(
                "the database is checked by `{kind}`, and an address can only change single keys \
                 of that; write `{kind}` instead of `{other}`"
            );
            return Err(problems.error_at_key(location, message));
        }
        Ok(self.overlay(database))
    }

    /// Reports a second kind in one layer.
    pub(super) fn reject_second_kind(&self, problems: &mut Collector) -> Result<(), Reported> {
        let mut kinds = self.kinds();
        kinds.sort_by_key(|(_, location)| location.key.start);
        let Some(((first, at), others)) = kinds.split_first() else { return Ok(()) };
        let mut result = Ok(());
        for (kind, location) in others {
            let message = format!(
                "a check has one kind, and `{first}` is already on line {}; remove `{first}` or \
                 `{kind}`",
                at.key.line
            );
            result = Err(problems.error_at_key(location, message));
        }
        result
    }

    /// Returns the check with every default filled in, or reports all that is wrong with it.
    pub(super) fn compile(
        &self,
        context: &CheckContext,
        problems: &mut Collector,
    ) -> Result<Check, Reported> {
        let all = self.overlay(&CheckKeys::built_in());
        let interval = all.interval.required().map(|interval| interval.0);
        let timeout = all.timeout.required().map(|timeout| timeout.0);
        if let (Ok(interval), Ok(timeout)) = (interval, timeout)
            && timeout > interval
        {
            self.warn_of_long_timeout(timeout, interval, context, problems);
        }
        let recheck_interval =
            interval.and_then(|interval| self.compile_recheck_interval(interval, problems));
        let kind = match self.kind_count() {
            0 => Err(problems.error_at_key(context.location, missing_kind())),
            1 => self.compile_kind(context, problems),
            _ => Err(Reported),
        };
        Ok(Check {
            kind: kind?,
            interval: interval?,
            timeout: timeout?,
            recheck_interval: recheck_interval?,
            thresholds: Thresholds {
                healthy: all.healthy_threshold.required()?.0,
                unhealthy: all.unhealthy_threshold.required()?.0,
            },
        })
    }

    fn warn_of_long_timeout(
        &self,
        timeout: Duration,
        interval: Duration,
        context: &CheckContext,
        problems: &mut Collector,
    ) {
        let (timeout, interval) = (show(timeout), show(interval));
        let message = format!(
            "the timeout {timeout} is longer than the interval {interval}, so a slow address is \
             checked less often than every {interval}; write a timeout of at most `{interval}`, \
             or a longer interval"
        );
        let written = self.timeout.given().or(self.interval.given());
        let location = written.map_or(context.location, |written| &written.location);
        problems.warn_at(location, message);
    }

    /// Returns the recheck interval. One that is written beside the interval or in a layer above it
    /// must fit it. One from a lower layer can't know the interval, and shrinks to it as the
    /// default does.
    fn compile_recheck_interval(
        &self,
        interval: Duration,
        problems: &mut Collector,
    ) -> Result<Duration, Reported> {
        let all = self.overlay(&CheckKeys::built_in());
        let recheck = all.recheck_interval.required()?.0;
        let layer = |field: &Field<Interval>| field.given().map(|at| Layer::new(&at.location));
        if let Some(written) = self.recheck_interval.given()
            && recheck > interval
            && layer(&self.recheck_interval) >= layer(&self.interval)
        {
            let (recheck, interval) = (show(recheck), show(interval));
            let message = format!(
                "{recheck} is longer than the interval {interval}, and a recheck comes before the \
                 next regular check; write at most `{interval}`, or a longer interval"
            );
            return Err(problems.error_at(&written.location, message));
        }
        Ok(recheck.min(interval))
    }

    /// Returns the keys of a check, with every default written out.
    pub(super) fn explain(check: &Check) -> CheckKeys {
        let mut keys = CheckKeys {
            interval: Field::new(Interval(check.interval)),
            timeout: Field::new(Interval(check.timeout)),
            recheck_interval: Field::new(Interval(check.recheck_interval)),
            healthy_threshold: Field::new(Threshold(check.thresholds.healthy)),
            unhealthy_threshold: Field::new(Threshold(check.thresholds.unhealthy)),
            ..CheckKeys::default()
        };
        keys.explain_kind(&check.kind);
        keys
    }
}

fn show(duration: Duration) -> impl Display {
    humantime::format_duration(duration)
}

/// Returns the message for a check without a kind.
fn missing_kind() -> String {
    let [first, others @ ..] = kinds::CHECK_KINDS else { return String::new() };
    let others: Vec<_> = others.iter().map(|kind| format!("`{kind}`")).collect();
    format!(
        "no kind of check is given; write `check: {{{first}: {{}}}}`, or {} in place of `{first}`",
        others.join(" or ")
    )
}

/// The layer in which a key of a check is written, from the lowest up. Nothing is below them but
/// the built-in defaults.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Layer {
    Defaults,
    Database,
    Address,
}

impl Layer {
    fn new(location: &Location) -> Self {
        match &location.path {
            path if path.starts_with("defaults") => Layer::Defaults,
            path if path.contains(".addresses[") => Layer::Address,
            _ => Layer::Database,
        }
    }
}
