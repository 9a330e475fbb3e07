//! The state of one name of a database, with what people know of it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::config::RejectedAddress;
use crate::names::NameState;
use crate::resolve::LookupOutcome;

/// The state of one name, with its newest answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct NameStatus {
    pub state: NameState,
    /// The newest outcome; none before the first.
    pub newest: Option<Arc<LookupOutcome>>,
    /// The addresses of the newest answers that may not be published.
    pub refused: Vec<RejectedAddress>,
    /// The good answers that had other addresses than the one before.
    pub changes: u64,
    /// The lookups in a row without a good answer; none after a good one.
    pub failing: Option<Failing>,
    /// The targets that fail, for which the name is asked at once.
    pub hurried_for: Vec<IpAddr>,
    /// The times at which people were told of addresses that may not be published.
    pub refusals_told: BTreeMap<IpAddr, Instant>,
    /// True if the newest good answer has more addresses than are followed.
    pub has_too_many: bool,
}

/// Lookups in a row without a good answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failing {
    pub since: Instant,
    pub lookups: u32,
    /// True once people have been told.
    pub announced: bool,
}

/// Addresses of a name that may not be published and are listed. A hostile zone can give thousands.
pub(super) const MAX_REFUSED: usize = 16;

/// The time after which people are told again that an address may not be published.
const REFUSAL_INTERVAL: Duration = Duration::from_secs(10 * 60);

impl NameStatus {
    /// Records the addresses that may not be published. Returns those of which people have not been
    /// told lately.
    pub(super) fn record_refused(
        &mut self,
        refused: BTreeMap<IpAddr, String>,
        now: Instant,
    ) -> Vec<RejectedAddress> {
        let is_recent = |at: &Instant| now.saturating_duration_since(*at) < REFUSAL_INTERVAL;
        self.refusals_told.retain(|_, at| is_recent(at));
        let listed = refused.into_iter().take(MAX_REFUSED);
        self.refused = listed.map(|(ip, reason)| RejectedAddress { ip, reason }).collect();
        let told = &self.refusals_told;
        let is_new = |it: &&RejectedAddress| !told.contains_key(&it.ip);
        let new: Vec<RejectedAddress> = self.refused.iter().filter(is_new).cloned().collect();
        // A zone with another refused address in each answer is not told each time.
        let has_room = self.refusals_told.len() + new.len() <= MAX_REFUSED;
        let new = if has_room { new } else { Vec::new() };
        self.refusals_told.extend(new.iter().map(|it| (it.ip, now)));
        new
    }
}
