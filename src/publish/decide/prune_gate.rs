//! The time at which the things that a new config no longer has are deleted. Pure.
//!
//! | databases that have left                 | the config has stood for | what they left behind |
//! | ---                                      | ---                      | ---                   |
//! | any number                               | less than 30 s           | stays                 |
//! | at most half of those that were published | 30 s                    | is deleted            |
//! | more                                     | less than 5 min 30 s     | stays, and this is told |
//! | more                                     | 5 min 30 s               | is deleted            |
//!
//! A file that is written in two halves, a typo in `defaults.namespace` or a wrong file thus deletes nothing before someone can
//! have seen it. Every change of the config starts the time anew.

use std::time::Duration;

/// How long a config must have stood before anything is deleted on account of it.
pub(crate) const STABLE_DELAY: Duration = Duration::from_secs(30);

/// How much longer it must have stood where more than half of what was published would go.
pub(crate) const SECOND_LOOK_DELAY: Duration = Duration::from_secs(300);

/// Whether the time to delete has come, and else how long it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gate {
    Open,
    /// The config is too new.
    Settling(Duration),
    /// More than half would go.
    SecondLook(Duration),
}

/// Decides for `departed` databases that left the config, beside those that were published with them and `remain`.
pub(crate) fn gate(departed: usize, remain: usize, stood_for: Duration) -> Gate {
    let left = |delay: Duration| delay.checked_sub(stood_for).filter(|left| !left.is_zero());
    if let Some(left) = left(STABLE_DELAY) {
        return Gate::Settling(left);
    }
    match left(STABLE_DELAY + SECOND_LOOK_DELAY) {
        Some(left) if departed > remain => Gate::SecondLook(left),
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
        for (departed, remain, stood_for, expected) in rows {
            assert_eq!(
                gate(departed, remain, stood_for),
                expected,
                "{departed} of {} in {stood_for:?}",
                departed + remain
            );
        }
    }
}
