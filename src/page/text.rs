//! Texts of others on the page: reasons that a database wrote, and what people wrote into
//! annotations. maud escapes HTML; this bounds the length, and shows what cannot be seen.

use maud::{Markup, html};

use crate::status::Time;
pub(super) use crate::status::text::{between, duration, remaining, visible, visible_sentence};

/// Renders a text of others. It cannot change the direction of what follows it.
pub(super) fn foreign(text: &str) -> Markup {
    html! { bdi { (visible(text)) } }
}

/// Renders a sentence of the daemon, which may quote others. Its end says what to do.
pub(super) fn sentence(text: &str) -> Markup {
    html! { bdi { (visible_sentence(text)) } }
}

/// Renders how long ago a time was.
pub(super) fn since(time: Time, now: Time) -> Markup {
    let past = now.0.duration_since(time.0).unwrap_or_default();
    html! { time datetime=(time) { (duration(past)) } }
}

/// Renders how long it is until a time.
pub(super) fn until(time: Time, now: Time) -> Markup {
    let rest = time.0.duration_since(now.0).unwrap_or_default();
    html! { time datetime=(time) { (remaining(rest)) } }
}

/// Renders a time of the calendar, to the second.
pub(super) fn calendar(time: Time) -> Markup {
    let text = time.to_string();
    let (day, clock) = text.split_once('T').unwrap_or((&text, ""));
    let clock = clock.split('.').next().unwrap_or_default();
    html! { time datetime=(time) { (day) " " (clock) " UTC" } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_text_is_no_markup() {
        let markup = foreign("</bdi><script>alert(1)</script>\"'&").into_string();
        assert_eq!(
            markup,
            "<bdi>&lt;/bdi&gt;&lt;script&gt;alert(1)&lt;/script&gt;&quot;'&amp;</bdi>"
        );
    }
}
