//! The bar of a target's last hour: one path, in which the height says what a minute was like.

use std::fmt::Write as _;

use maud::{Markup, html};

use crate::status::{HourMinute, read_hour};

/// The minutes of a bar.
const MINUTES: usize = 60;

/// The height of a bar, in units of a minute's width.
const HEIGHT: u32 = 10;

/// Returns the height of a minute. Colours are not needed to read it.
fn height(minute: HourMinute) -> u32 {
    match minute {
        HourMinute::Unchecked => 0,
        HourMinute::Passed => 1,
        HourMinute::Failed => 5,
        HourMinute::Down => HEIGHT,
    }
}

/// Renders the bar of `lastHour`.
pub(super) fn bar(letters: &str) -> Markup {
    html! {
        svg viewBox="0 0 60 10" role="img" aria-label=(describe(letters)) {
            path d=(path(letters));
        }
    }
}

/// Returns the outline. Minutes in a row with the same height are one rectangle.
fn path(letters: &str) -> String {
    let minutes: Vec<HourMinute> = read_hour(letters).take(MINUTES).collect();
    let mut path = String::new();
    let mut x = MINUTES - minutes.len();
    for run in minutes.chunk_by(|a, b| a == b) {
        let (width, height) = (run.len(), height(run[0]));
        if height > 0 {
            let _ = write!(path, "M{x} 10v-{height}h{width}v{height}");
        }
        x += width;
    }
    path
}

/// Returns the same in words.
fn describe(letters: &str) -> String {
    let count = |wanted| read_hour(letters).filter(|minute| *minute == wanted).count();
    let counts = [
        (count(HourMinute::Down), "down"),
        (count(HourMinute::Failed), "with failures"),
        (count(HourMinute::Passed), "good"),
        (MINUTES.saturating_sub(letters.len()) + count(HourMinute::Unchecked), "unknown"),
    ];
    let counts = counts.into_iter().filter(|(count, _)| *count > 0);
    let texts: Vec<String> = counts.map(|(count, word)| format!("{count} min {word}")).collect();
    format!("last hour: {}", texts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_has_a_rectangle_for_each_run() {
        assert_eq!(path("ppfd"), "M56 10v-1h2v1M58 10v-5h1v5M59 10v-10h1v10");
        assert_eq!(path(&"p".repeat(60)), "M0 10v-1h60v1");
        assert_eq!((path(""), path("..")), (String::new(), String::new()));
        assert_eq!(path(&"d".repeat(70)), "M0 10v-10h60v10", "of a later version");
    }

    #[test]
    fn a_bar_is_also_told_in_words() {
        assert_eq!(
            describe("ppfd"),
            "last hour: 1 min down, 1 min with failures, 2 min good, 56 min unknown"
        );
        assert_eq!(describe(&"p".repeat(60)), "last hour: 60 min good");
    }
}
