//! The recent past of a database: the newest changes, and the last hour of each target.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::Time;
use crate::monitor::{Change, ChangeKind, Minute};

/// A change of a target.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeStatus {
    /// The time of the change.
    pub at: Time,
    /// The IP of the target.
    pub address: String,
    /// The kind: `up`, `down`, `maintenanceBegan`, `maintenanceEnded`, `published` or
    /// `unpublished`.
    pub change: Cow<'static, str>,
    /// The reason of a failure or of the maintenance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl ChangeStatus {
    pub(super) fn new(change: &Change) -> Self {
        Self {
            at: change.at.into(),
            address: change.ip.to_string(),
            change: Cow::Borrowed(match change.kind {
                ChangeKind::Up => "up",
                ChangeKind::Down => "down",
                ChangeKind::MaintenanceBegan => "maintenanceBegan",
                ChangeKind::MaintenanceEnded => "maintenanceEnded",
                ChangeKind::Published => "published",
                ChangeKind::Unpublished => "unpublished",
            }),
            reason: change.reason.as_deref().map(str::to_owned),
        }
    }
}

/// The worst of one minute, as a letter of `lastHour`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HourMinute {
    /// `.`: no try had a conclusive verdict.
    Unchecked,
    /// `p`: all tries passed.
    Passed,
    /// `f`: a try failed, but the target was not down.
    Failed,
    /// `d`: the target was down.
    Down,
}

impl From<Minute> for HourMinute {
    fn from(minute: Minute) -> Self {
        match minute {
            Minute::Unchecked => HourMinute::Unchecked,
            Minute::Passed => HourMinute::Passed,
            Minute::Failed => HourMinute::Failed,
            Minute::Down => HourMinute::Down,
        }
    }
}

impl HourMinute {
    fn letter(self) -> char {
        match self {
            HourMinute::Unchecked => '.',
            HourMinute::Passed => 'p',
            HourMinute::Failed => 'f',
            HourMinute::Down => 'd',
        }
    }
}

/// Returns the letters of minutes.
pub(super) fn write_hour(minutes: impl Iterator<Item = Minute>) -> String {
    minutes.map(|minute| HourMinute::from(minute).letter()).collect()
}

/// Returns the minutes of letters, oldest first. A letter of a later version counts as unchecked.
pub fn read_hour(letters: &str) -> impl Iterator<Item = HourMinute> {
    letters.chars().map(|letter| match letter {
        'p' => HourMinute::Passed,
        'f' => HourMinute::Failed,
        'd' => HourMinute::Down,
        _ => HourMinute::Unchecked,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_read_as_they_were_written() {
        let minutes = [Minute::Unchecked, Minute::Passed, Minute::Failed, Minute::Down];
        let letters = write_hour(minutes.into_iter());
        assert_eq!(letters, ".pfd");
        assert!(read_hour(&letters).eq(minutes.map(HourMinute::from)));
        assert!(read_hour("x").eq([HourMinute::Unchecked]));
    }
}
