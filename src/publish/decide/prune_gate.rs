//! The time that a new config must stand before the orphans that it has made are deleted. Pure.
//!
//! | databases removed from the config         | the config has stood for | their objects        |
//! | ---                                       | ---                      | ---                  |
//! | any number                                | less than 30 s           | stay                 |
//! | at most half of those that were published | 30 s                     | are deleted          |
//! | more                                      | less than 5 min 30 s     | stay, with a warning |
//! | more                                      | 5 min 30 s               | are deleted          |
//!
//! A file that is written in two halves, a typo in `defaults.namespace` or a wrong file deletes
//! nothing before someone can have noticed it. Each change of the config starts the time again.

use std::time::Duration;

/// The time that a config must stand before anything is deleted because of it.
pub(crate) const STABLE_DELAY: Duration = Duration::from_secs(30);

/// The further time that it must stand if more than half of what was published would be deleted.
pub(crate) const SECOND_LOOK_DELAY: Duration = Duration::from_secs(300);

/// The gate of a deletion: it is open, or closed for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// The config is too new.
    Settling(Duration),
    /// More than half would be deleted.
    SecondLook(Duration),
}

/// Decides for `removed` databases that left the config, and `remaining` ones that were published
/// with them and did not.
pub(crate) fn gate(removed: usize, remaining: usize, stood_for: Duration) -> Gate {
    let rest = |delay: Duration| delay.checked_sub(stood_for).filter(|rest| !rest.is_zero());
    if let Some(rest) = rest(STABLE_DELAY) {
        return Gate::Settling(rest);
    }
    match rest(STABLE_DELAY + SECOND_LOOK_DELAY) {
        Some(rest) if removed > remaining => Gate::SecondLook(rest),
        _ => Gate::Open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_of_the_table() {
        let s = Duration::from_secs;
        let rows = [
            (1, 9, s(0), Gate::Settling(s(30))),
            (1, 9, s(29), Gate::Settling(s(1))),
            (1, 9, s(30), Gate::Open),
            (5, 5, s(30), Gate::Open),
            (6, 5, s(29), Gate::Settling(s(1))),
            (6, 5, s(30), Gate::SecondLook(s(300))),
            (1, 0, s(30), Gate::SecondLook(s(300))),
            (6, 5, s(329), Gate::SecondLook(s(1))),
            (6, 5, s(330), Gate::Open),
            (1, 0, s(3300), Gate::Open),
        ];
        for (removed, remaining, stood_for, expected) in rows {
            assert_eq!(
                gate(removed, remaining, stood_for),
                expected,
                "{removed} of {} after {stood_for:?}",
                removed + remaining
            );
        }
    }
}
