//! One name that is asked for: when it is due again, and in which way it is asked.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::lookup::LookupResult;
use super::queue::{Pace, Urgency};
use super::transport::random_u16;
use super::{Answer, NameKey, Wanted};
use crate::names::{self, Families};

/// The time between two lookups of a name that has a failing target.
const HURRY_INTERVAL: Duration = Duration::from_secs(1);

/// The longest time for which a name is asked so often.
const MAX_HURRY_TIME: Duration = Duration::from_secs(60);

/// A lookup that takes longer is likely to take as long again.
const SLOW_LOOKUP: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Name {
    pub key: NameKey,
    /// Tells this name from another that has its ID later.
    pub number: u64,
    /// True once an outcome was delivered.
    pub has_outcome: bool,
    wanted: Wanted,
    /// The families of the newest lookup.
    asked: Option<Families>,
    /// Lookups in a row that gave no address.
    failures: u32,
    /// The time at which it is due without a failing target.
    usual_due: Instant,
    /// The addresses of the newest lookup that gave any.
    addresses_hash: u64,
    hurry: Option<Box<Hurry>>,
    lookup: Option<Lookup>,
}

/// The time of more frequent lookups, because a target fails.
#[derive(Debug)]
struct Hurry {
    until: Instant,
    /// The addresses at its begin. Others end it.
    addresses_hash: u64,
}

/// An open lookup. Dropping it aborts the lookup.
#[derive(Debug)]
struct Lookup {
    number: u64,
    task: AbortHandle,
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Name {
    pub(super) fn new(key: NameKey, wanted: Wanted, number: u64, due: Instant) -> Self {
        Self {
            key,
            number,
            has_outcome: false,
            wanted,
            asked: None,
            failures: 0,
            usual_due: due,
            addresses_hash: 0,
            hurry: None,
            lookup: None,
        }
    }

    /// Returns the families of the next lookup.
    pub(super) fn families_to_ask(&self) -> Families {
        self.wanted.families.unwrap_or(Families::BOTH)
    }

    pub(super) fn begin_lookup(&mut self, number: u64, task: AbortHandle) {
        self.asked = Some(self.families_to_ask());
        self.lookup = Some(Lookup { number, task });
    }

    /// Returns true for the number of the open lookup.
    pub(super) fn is_lookup(&self, number: u64) -> bool {
        self.lookup.as_ref().is_some_and(|lookup| lookup.number == number)
    }

    /// Records the end of the open lookup. Returns when the name is due again, and how.
    pub(super) fn end_lookup(
        &mut self,
        result: &LookupResult,
        duration: Duration,
        now: Instant,
    ) -> (Instant, (Urgency, Pace)) {
        self.lookup = None;
        self.has_outcome = true;
        if result.ttl.is_some() {
            self.failures = 0;
            self.addresses_hash = addresses_hash(result);
        } else {
            self.failures = self.failures.saturating_add(1);
        }
        let jitter = f64::from(random_u16()) / f64::from(u16::MAX);
        let wait = names::next_lookup_after(result.ttl, self.failures, self.wanted.refresh, jitter);
        self.usual_due = now + wait;
        if self.hurry.as_ref().is_some_and(|it| {
            now >= it.until || (result.ttl.is_some() && it.addresses_hash != self.addresses_hash)
        }) {
            self.hurry = None;
        }
        let pace = if duration >= SLOW_LOOKUP { Pace::Slow } else { Pace::Prompt };
        let has_other_families =
            self.wanted.families.is_some_and(|families| Some(families) != self.asked);
        if has_other_families {
            (now, (Urgency::Refresh, pace))
        } else if self.hurry.is_some() {
            (self.usual_due.min(now + HURRY_INTERVAL), (Urgency::TargetFailed, pace))
        } else {
            (self.usual_due, (Urgency::Refresh, pace))
        }
    }

    /// Changes how the name is asked. Returns when it is due at the latest, if that has changed.
    pub(super) fn change(&mut self, mut wanted: Wanted, now: Instant) -> Option<Instant> {
        // What is known of the families is not forgotten.
        wanted.families = wanted.families.or(self.wanted.families);
        let before = std::mem::replace(&mut self.wanted, wanted);
        if wanted.families.is_some() && wanted.families != self.asked {
            return Some(now);
        }
        self.usual_due = self.usual_due.min(now + wanted.refresh);
        (wanted.refresh < before.refresh).then_some(self.usual_due)
    }

    /// Begins or prolongs the time of more frequent lookups. Returns true if the name is to be
    /// asked at once.
    pub(super) fn hurry(&mut self, now: Instant) -> bool {
        let until = now + MAX_HURRY_TIME;
        if let Some(hurry) = &mut self.hurry {
            hurry.until = until;
            return false;
        }
        let addresses_hash = self.addresses_hash;
        self.hurry = Some(Box::new(Hurry { until, addresses_hash }));
        true
    }

    /// Ends the time of more frequent lookups. Returns when the name is due, if that has changed.
    pub(super) fn calm(&mut self) -> Option<Instant> {
        self.hurry.take().map(|_| self.usual_due)
    }

    /// Makes the next pause short again. Returns true if the newest lookup gave no address.
    pub(super) fn forget_failures(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }
}

fn addresses_hash(result: &LookupResult) -> u64 {
    let answers = result.parts.iter().flat_map(|part| [&part.a, &part.aaaa]);
    let mut addresses: Vec<IpAddr> = answers
        .filter_map(|answer| match answer {
            Answer::Addresses(ips) => Some(ips),
            _ => None,
        })
        .flatten()
        .copied()
        .collect();
    addresses.sort_unstable();
    let mut hasher = DefaultHasher::new();
    addresses.hash(&mut hasher);
    hasher.finish()
}
