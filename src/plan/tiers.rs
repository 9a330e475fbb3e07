//! The selection of tiers, by the `priority` of the addresses of a database.
//!
//! A tier is too weak with fewer healthy targets than `minHealthy` requires, and with none. The
//! next lower one then serves beside the rest of it. Tiers that serve continue while they are
//! enough: those above return by a failback only.
//!
//! | healthy and published | the tiers above them | members |
//! | --- | --- | --- |
//! | too few | any | the healthy of the upper tiers, as many as needed |
//! | enough, down to tier N | too weak without tier N | those, and the healthy of tier N |
//! | enough, down to tier N | enough without tier N | as above; the upper tiers after failback |

use std::time::Instant;

use super::{Candidate, Failback, Members, PolicyNote, Selection};

/// The rules for the selection.
pub(super) struct Tiers<'a> {
    pub published: &'a Members,
    /// Fewer healthy targets are too few; at least 1.
    pub needed: usize,
    pub failback: Failback,
    /// The time of the last request for a failback.
    pub failback_requested_at: Option<Instant>,
    pub now: Instant,
}

impl Tiers<'_> {
    /// Selects from the healthy targets.
    pub(super) fn select<'a>(&self, healthy: &[Candidate<'a>]) -> Selection<'a> {
        let up_to =
            |tier: u32| healthy.iter().copied().filter(move |target| target.priority <= tier);
        let published = |target: &Candidate| self.published.contains(target.member.ip);
        let tiers = healthy.iter().map(|target| target.priority);
        let enough = tiers.clone().filter(|tier| up_to(*tier).count() >= self.needed).min();
        // With too few in all tiers together, all of them serve.
        let Some(target_tier) = enough.or(tiers.max()) else { return Selection::default() };
        let preferred: Vec<_> = up_to(target_tier).collect();
        let Some(lowest_serving_tier) =
            healthy.iter().copied().filter(published).map(|target| target.priority).max()
        else {
            return Selection { members: preferred, ..Selection::default() };
        };
        let serving: Vec<_> = healthy
            .iter()
            .copied()
            .filter(|target| published(target) || target.priority == lowest_serving_tier)
            .collect();
        if serving.len() < self.needed {
            return Selection { members: preferred, ..Selection::default() };
        }
        if lowest_serving_tier <= target_tier {
            return Selection { members: serving, ..Selection::default() };
        }
        self.fail_back(target_tier, preferred, serving)
    }

    /// Selects between the tiers that serve and the preferred ones, which are enough again.
    fn fail_back<'a>(
        &self,
        tier: u32,
        preferred: Vec<Candidate<'a>>,
        serving: Vec<Candidate<'a>>,
    ) -> Selection<'a> {
        let mut since: Vec<Instant> = preferred.iter().map(|target| target.since).collect();
        since.sort();
        // Since this time, as many as needed have been healthy without a break.
        let healthy_since = since[self.needed.clamp(1, since.len()) - 1];
        let until = match self.failback {
            Failback::Delay(delay) => healthy_since.checked_add(delay),
            Failback::Manual => None,
        };
        // A request from before that was meant for an earlier failback.
        let is_requested =
            self.failback_requested_at.is_some_and(|requested_at| requested_at >= healthy_since);
        if is_requested || until.is_some_and(|until| until <= self.now) {
            return Selection { members: preferred, ..Selection::default() };
        }
        Selection {
            members: serving,
            note: Some(PolicyNote::FailbackWaits { tier, until }),
            reevaluate_at: until,
        }
    }
}
