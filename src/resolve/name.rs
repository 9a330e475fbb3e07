//! One name that is asked for: when it is due again, and in which way it is asked.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::future::AbortHandle;

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

/// The state of one name. It is small, because there may be thousands.
#[derive(Debug)]
pub(super) struct Name {
    pub key: NameKey,
    /// Tells this name from another that has its ID later.
    pub number: u32,
    /// True once an outcome was delivered.
    pub has_outcome: bool,
    /// The families to ask for; none while they are not known.
    families: Option<Families>,
    /// The families of the newest lookup.
    asked: Option<Families>,
    /// The time after which it is asked again at the latest, in milliseconds.
    refresh_ms: u32,
    /// Lookups in a row that gave no address.
    failures: u8,
    /// The addresses of the newest lookup that gave any.
    addresses_hash: u32,
    hurry: Option<Box<Hurry>>,
    lookup: Option<Box<Lookup>>,
}

/// The time of more frequent lookups, because a target fails.
#[derive(Debug)]
struct Hurry {
    until: Instant,
    /// The addresses at its begin. Others end it.
    addresses_hash: u32,
    /// The time at which the name is due without it.
    usual_due: Instant,
}

/// An open lookup. Dropping it aborts the lookup.
#[derive(Debug)]
struct Lookup {
    number: u32,
    task: AbortHandle,
}

impl Drop for Lookup {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Name {
    pub(super) fn new(key: NameKey, wanted: Wanted, number: u32) -> Self {
        Self {
            key,
            number,
            has_outcome: false,
            families: wanted.families,
            asked: None,
            refresh_ms: milliseconds(wanted.refresh),
            failures: 0,
            addresses_hash: 0,
            hurry: None,
            lookup: None,
        }
    }

    /// Returns the families of the next lookup.
    pub(super) fn families_to_ask(&self) -> Families {
        self.families.unwrap_or(Families::BOTH)
    }

    /// Returns true if a lookup has begun since the name was added.
    pub(super) fn was_asked(&self) -> bool {
        self.asked.is_some()
    }

    pub(super) fn begin_lookup(&mut self, number: u32, task: AbortHandle) {
        self.asked = Some(self.families_to_ask());
        self.lookup = Some(Box::new(Lookup { number, task }));
    }

    /// Returns true for the number of the open lookup.
    pub(super) fn is_lookup(&self, number: u32) -> bool {
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
        let refresh = Duration::from_millis(self.refresh_ms.into());
        let wait = names::next_lookup_after(result.ttl, self.failures.into(), refresh, jitter);
        let usual_due = now + wait;
        self.hurry.take_if(|hurry| {
            let has_others = hurry.addresses_hash != self.addresses_hash;
            now >= hurry.until || (result.ttl.is_some() && has_others)
        });
        let pace = if duration >= SLOW_LOOKUP { Pace::Slow } else { Pace::Prompt };
        if self.families.is_some() && self.families != self.asked {
            return (now, (Urgency::Refresh, pace));
        }
        match &mut self.hurry {
            Some(hurry) => {
                hurry.usual_due = usual_due;
                (usual_due.min(now + HURRY_INTERVAL), (Urgency::TargetFailed, pace))
            }
            None => (usual_due, (Urgency::Refresh, pace)),
        }
    }

    /// Changes how the name is asked. Returns when it is due at the latest, if that has changed.
    pub(super) fn change(&mut self, wanted: Wanted, now: Instant) -> Option<Instant> {
        // What is known of the families is not forgotten.
        self.families = wanted.families.or(self.families);
        let refresh_ms = milliseconds(wanted.refresh);
        let is_sooner = refresh_ms < std::mem::replace(&mut self.refresh_ms, refresh_ms);
        let has_other_families = self.families.is_some() && self.families != self.asked;
        let due = if has_other_families { now } else { now + wanted.refresh };
        self.advance(due);
        (has_other_families || is_sooner).then_some(due)
    }

    /// Makes the name due no later than this, also once it is asked less often again.
    pub(super) fn advance(&mut self, due: Instant) {
        if let Some(hurry) = &mut self.hurry {
            hurry.usual_due = hurry.usual_due.min(due);
        }
    }

    /// Begins or prolongs the time of more frequent lookups. Returns true if the name, which is due
    /// at `usual_due` otherwise, is to be asked at once.
    pub(super) fn hurry(&mut self, usual_due: Instant, now: Instant) -> bool {
        let until = now + MAX_HURRY_TIME;
        if let Some(hurry) = &mut self.hurry {
            hurry.until = until;
            return false;
        }
        let addresses_hash = self.addresses_hash;
        self.hurry = Some(Box::new(Hurry { until, addresses_hash, usual_due }));
        true
    }

    /// Ends the time of more frequent lookups. Returns when the name is due, if that has changed.
    pub(super) fn calm(&mut self) -> Option<Instant> {
        self.hurry.take().map(|hurry| hurry.usual_due)
    }

    /// Makes the next pause short again. Returns true if the newest lookup gave no address.
    pub(super) fn forget_failures(&mut self) -> bool {
        std::mem::take(&mut self.failures) > 0
    }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn addresses_hash(result: &LookupResult) -> u32 {
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
    hasher.finish() as u32
}
