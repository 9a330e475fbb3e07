//! Texts of others on the page: reasons that a database wrote, and what people wrote into
//! annotations. maud escapes HTML; this bounds the length, and shows what cannot be seen.

use std::time::{Duration, SystemTime};

use maud::{Markup, html};
use unicode_width::UnicodeWidthChar as _;

use crate::config::is_invisible;
use crate::status::Time;

/// The characters of a text that are shown.
const MAX_CHARS: usize = 300;

/// The marks on one character that are shown as they are. Languages need two.
const MAX_MARKS: usize = 2;

/// Renders a text of others. It cannot change the direction of what follows it.
pub(super) fn foreign(text: &str) -> Markup {
    html! { bdi { (visible(text)) } }
}

/// Returns the start of a text, in which each character can be seen.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::with_capacity(text.len().min(MAX_CHARS));
    let mut marks = 0;
    for (count, char) in text.chars().enumerate() {
        if count == MAX_CHARS {
            shown.push('…');
            break;
        }
        let has_width = char.width().is_some_and(|width| width > 0);
        marks = if has_width { 0 } else { marks + 1 };
        if char.is_control() || is_invisible(char) || marks > MAX_MARKS {
            shown.extend(char.escape_default());
        } else {
            shown.push(char);
        }
    }
    shown
}

/// Renders how long ago a time was.
pub(super) fn since(time: Time, now: Time) -> Markup {
    let past = now.0.duration_since(time.0).unwrap_or_default();
    html! { time datetime=(time) { (duration(past)) } }
}

/// Renders how long it is until a time.
pub(super) fn until(time: Time, now: Time) -> Markup {
    let rest = time.0.duration_since(now.0).unwrap_or_default();
    html! { time datetime=(time) { (duration(rest)) } }
}

/// Renders a time of the calendar, to the second.
pub(super) fn calendar(time: Time) -> Markup {
    let text = time.to_string();
    let (day, clock) = text.split_once('T').unwrap_or((&text, ""));
    let clock = clock.split('.').next().unwrap_or_default();
    html! { time datetime=(time) { (day) " " (clock) " UTC" } }
}

/// Returns a duration in its largest unit, rounded down.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Returns the time between two times of the calendar.
pub(super) fn between(from: SystemTime, to: SystemTime) -> Duration {
    to.duration_since(from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(visible(&"\u{200f}".repeat(65_536)).chars().filter(|c| *c == '…').count(), 1);
        let markup = foreign("</bdi><script>alert(1)</script>\"'&").into_string();
        assert_eq!(
            markup,
            "<bdi>&lt;/bdi&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;'&amp;</bdi>"
        );
    }

    #[test]
    fn durations_are_in_their_largest_unit() {
        let table = [(0, "0 s"), (59, "59 s"), (60, "1 min"), (7199, "1 h"), (172_800, "2 d")];
        for (seconds, text) in table {
            assert_eq!(duration(Duration::from_secs(seconds)), text);
        }
    }
}
