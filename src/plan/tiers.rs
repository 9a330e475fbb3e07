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

use super::{Candidate, Choice, Failback, Members, Note};

/// What the tiers ask for.
pub(super) struct Tiers<'a> {
    pub published: &'a Members,
    /// Fewer healthy targets are too few; at least 1.
    pub needed: usize,
    pub failback: Failback,
    /// When a person last asked for a failback.
    pub asked: Option<Instant>,
    pub now: Instant,
}

impl Tiers<'_> {
    /// Chooses from the healthy targets.
    pub(super) fn choose<'a>(&self, healthy: &[Candidate<'a>]) -> Choice<'a> {
        let up_to =
            |tier: u32| healthy.iter().copied().filter(move |target| target.priority <= tier);
        let published = |target: &Candidate| self.published.contains(target.member.ip);
        let tiers = healthy.iter().map(|target| target.priority);
        let enough = tiers.clone().filter(|tier| up_to(*tier).count() >= self.needed).min();
        // With too few in all tiers together, all of them serve.
        let Some(wanted) = enough.or(tiers.max()) else { return Choice::default() };
        let preferred: Vec<_> = up_to(wanted).collect();
        let Some(deepest) =
            healthy.iter().copied().filter(published).map(|target| target.priority).max()
        else {
            return Choice { members: preferred, ..Choice::default() };
        };
        let serving: Vec<_> = healthy
            .iter()
            .copied()
            .filter(|target| published(target) || target.priority == deepest)
            .collect();
        if serving.len() < self.needed {
            return Choice { members: preferred, ..Choice::default() };
        }
        if deepest <= wanted {
            return Choice { members: serving, ..Choice::default() };
        }
        self.fail_back(wanted, preferred, serving)
    }

    /// Chooses between those who serve and the preferred ones, who are enough again.
    fn fail_back<'a>(
        &self,
        tier: u32,
        preferred: Vec<Candidate<'a>>,
        serving: Vec<Candidate<'a>>,
    ) -> Choice<'a> {
        let mut since: Vec<Instant> = preferred.iter().map(|target| target.since).collect();
        since.sort();
        // Since then as many as it takes have been well without a break.
        let well = since[self.needed.clamp(1, since.len()) - 1];
        let until = match self.failback {
            Failback::Delay(delay) => well.checked_add(delay),
            Failback::Manual => None,
        };
        // Asked for an earlier failback, it is not meant for this one.
        let asked = self.asked.is_some_and(|asked| asked >= well);
        if asked || until.is_some_and(|until| until <= self.now) {
            return Choice { members: preferred, ..Choice::default() };
        }
        Choice { members: serving, note: Some(Note::FailbackWaits { tier, until }), again: until }
    }
}
