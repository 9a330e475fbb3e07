//! A point in time of the status API: RFC 3339 in UTC, to the millisecond.

use std::fmt;
use std::time::{Instant, SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::clock;

/// A time of the calendar, which may also lie in the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub SystemTime);

impl From<Instant> for Time {
    fn from(instant: Instant) -> Self {
        Self(clock::to_wall_clock(instant))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&clock::rfc3339_millis(self.0))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map(Self).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_read_as_it_was_written() {
        let text = "\"2026-11-28T14:00:00.125Z\"";
        let time: Time = serde_json::from_str(text).expect("a time");
        assert_eq!(serde_json::to_string(&time).expect("text"), text);
        assert!(serde_json::from_str::<Time>("\"yesterday\"").is_err());
    }
}
