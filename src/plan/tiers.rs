//! Which tiers of a database serve, by the `priority` of their addresses.
//!
//! A tier is too weak with fewer healthy targets than `minHealthy` asks for, and with none. The next lower one then serves
//! beside what is left of it. Whoever serves goes on while that is enough: the tiers above return by a failback only.
//!
//! | healthy and published                | the tiers above them       | members                                       |
//! | ---                                  | ---                        | ---                                           |
//! | too few                              | any                        | the healthy of as many tiers as it takes, from the top |
//! | enough, down to tier N               | too weak without tier N    | those, and the healthy of tier N              |
//! | enough, down to tier N               | enough without tier N      | as above; after the failback, the healthy of the tiers above |

use std::time::Instant;

use super::{Candidate, Failback, Members, PolicyNote, Selection};

/// What the tiers ask for.
pub(super) struct Tiers<'a> {
    pub published: &'a Members,
    /// Fewer healthy targets are too few; at least 1.
    pub needed: usize,
    pub failback: Failback,
    /// When a person last asked for a failback.
    pub failback_requested_at: Option<Instant>,
    pub now: Instant,
}

impl Tiers<'_> {
    /// Chooses from the healthy targets.
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

    /// Chooses between those who serve and the preferred ones, who are enough again.
    fn fail_back<'a>(
        &self,
        tier: u32,
        preferred: Vec<Candidate<'a>>,
        serving: Vec<Candidate<'a>>,
    ) -> Selection<'a> {
        let mut since: Vec<Instant> = preferred.iter().map(|target| target.since).collect();
        since.sort();
        // Since then as many as it takes have been well without a break.
        let well = since[self.needed.clamp(1, since.len()) - 1];
        let until = match self.failback {
            Failback::Delay(delay) => well.checked_add(delay),
            Failback::Manual => None,
        };
        // Asked for an earlier failback, it is not meant for this one.
        let asked = self.failback_requested_at.is_some_and(|asked| asked >= well);
        if asked || until.is_some_and(|until| until <= self.now) {
            return Selection { members: preferred, ..Selection::default() };
        }
        Selection {
            members: serving,
            note: Some(PolicyNote::FailbackWaits { tier, until }),
            reevaluate_at: until,
        }
    }
}
