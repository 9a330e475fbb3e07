//! The signs that a name has `rotating` wrong: set where it is not needed, or missing.
//!
//! | `rotating` | answers | sign |
//! | --- | --- | --- |
//! | no | change back to earlier addresses, 6 times in 10 minutes | it is missing |
//! | yes | the first 20 good ones leave the name with one address | it is not needed |

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{Changes, MAX_ADDRESSES};

/// Changes back to earlier addresses that look like rotation, within [`ROTATION_WINDOW`].
const ROTATION_CHANGES: usize = 6;
const ROTATION_WINDOW: Duration = Duration::from_secs(600);

/// Good answers after which a name with one address only looks as if it does not rotate.
const SINGLE_ANSWERS: u8 = 20;

/// The history of a name without `rotating`, as far as it shows rotation. Most names never have
/// one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct RotationWatch {
    departed_at: BTreeMap<IpAddr, Instant>,
    returned_at: VecDeque<Instant>,
    was_suspected: bool,
}

impl RotationWatch {
    /// Applies the changes of a good answer. Returns true once, when the answers change back and
    /// forth as those of a reader endpoint do.
    pub(super) fn observe(&mut self, changes: &Changes, now: Instant) -> bool {
        let is_recent = |at: Instant| now.saturating_duration_since(at) < ROTATION_WINDOW;
        self.departed_at.retain(|_, at| is_recent(*at));
        let mut back = changes.added.iter().chain(&changes.returned);
        let is_return = back.any(|ip| self.departed_at.contains_key(ip));
        for ip in &changes.departed {
            if self.departed_at.len() < MAX_ADDRESSES {
                self.departed_at.insert(*ip, now);
            }
        }
        if !is_return {
            return false;
        }
        self.returned_at.push_back(now);
        if self.returned_at.len() > ROTATION_CHANGES {
            self.returned_at.pop_front();
        }
        let is_full = self.returned_at.len() == ROTATION_CHANGES;
        let is_news = is_full && is_recent(self.returned_at[0]) && !self.was_suspected;
        self.was_suspected |= is_news;
        is_news
    }
}

/// The number of good answers of a name with `rotating`, as far as it matters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct AnswerCount(u8);

impl AnswerCount {
    /// Counts a good answer that leaves the name with so many addresses. Returns true once, when
    /// the name looks as if it does not rotate.
    pub(super) fn observe(&mut self, addresses: usize) -> bool {
        if addresses > 1 {
            self.0 = u8::MAX;
        }
        self.0 = self.0.saturating_add(1);
        self.0 == SINGLE_ANSWERS
    }
}
