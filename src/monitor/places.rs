//! Places for tries that are under way at once. What finds none waits, in the order it came.

use std::collections::VecDeque;
use std::time::Instant;

use crate::schedule::Key;

pub(super) struct Places {
    free: usize,
    /// What waits, and when it was due.
    waiting: VecDeque<(Key, Instant)>,
}

impl Places {
    pub fn new(places: usize) -> Self {
        Self { free: places, waiting: VecDeque::new() }
    }

    pub fn come(&mut self, key: Key, due: Instant) {
        self.waiting.push_back((key, due));
    }

    /// The next that may start, which then has a place.
    pub fn admit(&mut self) -> Option<(Key, Instant)> {
        self.free.checked_sub(1)?;
        let first = self.waiting.pop_front()?;
        self.free -= 1;
        Some(first)
    }

    /// Gives a place back.
    pub fn leave(&mut self) {
        self.free += 1;
    }

    pub fn are_short(&self) -> bool {
        !self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_admitted_as_there_are_places_in_the_order_they_came() {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let due = Instant::now();
        let mut places = Places::new(2);
        (0..4).for_each(|key| places.come(key, due));
        let admitted = |places: &mut Places| places.admit().map(|(key, _)| key);
        assert_eq!((admitted(&mut places), admitted(&mut places), admitted(&mut places)), (Some(0), Some(1), None));
        assert!(places.are_short());
        places.leave();
        assert_eq!((admitted(&mut places), admitted(&mut places)), (Some(2), None));
        places.leave();
        places.leave();
        assert_eq!((admitted(&mut places), admitted(&mut places)), (Some(3), None));
        assert!(!places.are_short());
        places.come(9, due);
        assert_eq!(admitted(&mut places), Some(9), "one place was free all the while");
    }
}
