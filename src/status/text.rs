//! Texts of others in an output for people: reasons that a database wrote, and what people wrote
//! into annotations. They are cut, and what cannot be seen is shown as an escape, so that they
//! change neither a terminal nor the direction of what follows them.

use std::time::{Duration, SystemTime};

use unicode_width::UnicodeWidthChar as _;

use super::Time;
use crate::clock;
use crate::config::is_invisible;

/// The characters of a text that are shown.
const MAX_CHARS: usize = 300;

/// The characters of a sentence of the daemon that are shown.
const MAX_SENTENCE_CHARS: usize = 2000;

/// The addresses that a list shows.
const MAX_ADDRESSES: usize = 20;

/// The marks on one character that are shown as they are. Languages need two.
const MAX_MARKS: usize = 2;

/// Returns the start of a text, in which each character can be seen.
pub(crate) fn visible(text: &str) -> String {
    visible_chars(text, MAX_CHARS)
}

/// Returns the same of a sentence of the daemon, which may quote others. Its end says what to do.
pub(crate) fn visible_sentence(text: &str) -> String {
    visible_chars(text, MAX_SENTENCE_CHARS)
}

fn visible_chars(text: &str, max_chars: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(max_chars));
    let mut marks = 0;
    for (count, char) in text.chars().enumerate() {
        if count == max_chars {
            shown.push('…');
            break;
        }
        let has_width = char.width().is_some_and(|width| width > 0);
        marks = if has_width { 0 } else { marks + 1 };
        if is_hidden(char) || marks > MAX_MARKS {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
}

/// Returns true if a character cannot be seen, or controls a terminal.
pub(crate) fn is_hidden(char: char) -> bool {
    char.is_control() || is_invisible(char)
}

/// Returns a duration in its largest unit, rounded down.
pub(crate) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Returns the time that is left in its largest unit, rounded up: it is never shorter.
pub(crate) fn remaining(left: Duration) -> String {
    let unit: u64 = match left.as_secs() {
        0..60 => 1,
        60..3600 => 60,
        3600..86_400 => 3600,
        _ => 86_400,
    };
    duration(Duration::from_secs(left.as_millis().div_ceil(u128::from(unit) * 1000) as u64 * unit))
}

/// Returns addresses as a list, the first of them if there are many.
pub(crate) fn address_list(addresses: &[String]) -> String {
    let shown: Vec<String> =
        addresses.iter().take(MAX_ADDRESSES).map(|address| visible(address)).collect();
    match addresses.len().checked_sub(MAX_ADDRESSES).filter(|more| *more > 0) {
        _ if addresses.is_empty() => "no address".to_owned(),
        None => shown.join(", "),
        Some(more) => format!("{} and {more} more", shown.join(", ")),
    }
}

/// Returns a time of the calendar, to the second.
pub(crate) fn calendar(time: Time) -> String {
    clock::rfc3339_seconds(time.0)
}

/// Returns the time between two times of the calendar.
pub(crate) fn between(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_is_left_is_never_shown_shorter() {
        for (millis, text) in [
            (0, "0 s"),
            (1, "1 s"),
            (1000, "1 s"),
            (59_001, "1 min"),
            (61_000, "2 min"),
            (7_199_500, "2 h"),
            (7_200_000, "2 h"),
            (86_400_001, "2 d"),
        ] {
            assert_eq!(remaining(Duration::from_millis(millis)), text, "{millis} ms");
        }
    }

    #[test]
    fn each_character_of_a_foreign_text_can_be_seen() {
        let table = [
            ("connect: refused", "connect: refused"),
            ("größe 中文 क्षि", "größe 中文 क्षि"),
            ("a\u{202e}b\u{0}\n\u{200b}", "a\\u{202e}b\\u{0}\\n\\u{200b}"),
            ("e\u{301}\u{302}\u{303}\u{304}", "e\u{301}\u{302}\\u{303}\\u{304}"),
        ];
        for (text, expected) in table {
            assert_eq!(visible(text), expected);
        }
        let advice = format!("{}: do this", "x".repeat(900));
        assert_eq!(visible_sentence(&advice), advice);
        assert!(visible_sentence(&advice.repeat(3)).ends_with('…'));
        assert_eq!(visible(&"\u{200f}".repeat(65_536)).chars().filter(|c| *c == '…').count(), 1);
    }

    #[test]
    fn durations_are_in_their_largest_unit() {
        let table = [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (172_800, "2 d")];
        for (seconds, text) in table {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
