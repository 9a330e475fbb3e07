//! Draws the line of the file that a problem is about, with a caret under the place. Secrets are
//! cut out, and the line is no wider than a terminal.

use std::ops::Range;

use unicode_width::UnicodeWidthChar;

use super::invisible::is_invisible;

/// The columns that an excerpt may take: those of the narrowest terminal in use.
const TERMINAL_COLUMNS: usize = 80;

/// The number of characters on either side of the caret that are read. They are more than fit,
/// because a secret shrinks to one character.
const WINDOW_CHARS: usize = 4 * TERMINAL_COLUMNS;

/// Returns the line with a caret under the column, or nothing if the text has no such line. Both
/// numbers start at 1. Text in the `redacted` byte ranges shows as `…`.
pub(super) fn render(
    text: &str,
    redacted: &[Range<usize>],
    line_number: usize,
    column: usize,
) -> String {
    let Some((start, line)) = nth_line(text, line_number) else {
        return String::new();
    };
    let first = (column - 1).saturating_sub(WINDOW_CHARS);
    let window = line.char_indices().skip(first).take(2 * WINDOW_CHARS);
    let window: Vec<(usize, char)> = window.map(|(offset, char)| (start + offset, char)).collect();
    let (mut chars, caret) = redact(&window, redacted, column - 1 - first);
    let length = chars.iter().rposition(|char| *char != ' ').map_or(0, |last| last + 1);
    chars.truncate(length.max(caret));
    let number = line_number.to_string();
    let has_more = line.chars().nth(first + 2 * WINDOW_CHARS).is_some();
    let window = Window { chars: &chars, caret, has_less: first > 0, has_more };
    let (shown, pad) = window.fit(TERMINAL_COLUMNS - number.len() - "   | ".len());
    let gutter = " ".repeat(number.len());
    format!("  {number} | {}\n  {gutter} | {}^\n", shown.trim_end(), " ".repeat(pad))
}

/// Returns the characters to show, and the place of the caret among them.
fn redact(
    window: &[(usize, char)],
    redacted: &[Range<usize>],
    column: usize,
) -> (Vec<char>, usize) {
    let (Some(first), Some(last)) = (window.first(), window.last()) else {
        return (Vec::new(), 0);
    };
    let is_near = |range: &&Range<usize>| range.start <= last.0 && range.end > first.0;
    let near: Vec<_> = redacted.iter().filter(is_near).collect();
    let mut shown = Vec::new();
    let mut caret = None;
    let mut in_secret = false;
    for (index, &(offset, char)) in window.iter().enumerate() {
        let is_secret = near.iter().any(|range| range.contains(&offset));
        if index == column {
            caret = Some(shown.len() - usize::from(is_secret && in_secret));
        }
        match char {
            _ if is_secret && in_secret => {}
            _ if is_secret => shown.push('…'),
            // A tab has no width of its own on a terminal, and is often the mistake.
            '\t' => shown.push('→'),
            // No character of the file may control the terminal that shows it.
            char if char.is_control() || is_invisible(char) => shown.push('\u{fffd}'),
            char => shown.push(char),
        }
        in_secret = is_secret;
    }
    let caret = caret.unwrap_or(shown.len());
    (shown, caret)
}

/// The characters of a line around the caret.
struct Window<'a> {
    chars: &'a [char],
    caret: usize,
    /// The line has characters before the window.
    has_less: bool,
    /// The line has characters after the window.
    has_more: bool,
}

impl Window<'_> {
    /// Returns the characters that fit into this many columns, with `…` for those that do not, and
    /// the column of the caret.
    fn fit(&self, columns: usize) -> (String, usize) {
        let chars = self.chars;
        // The caret may stand after the last character, and needs a column there.
        let end = usize::from(self.caret == chars.len());
        let is_cut = self.has_less || self.has_more || width(chars) + end > columns;
        let range = if is_cut { self.cut(columns - 2) } else { 0..chars.len() };
        let before = if range.start > 0 || self.has_less { "…" } else { "" };
        let after = if range.end < chars.len() || self.has_more { "…" } else { "" };
        let shown: String = chars[range.clone()].iter().collect();
        let caret = before.chars().count() + width(&chars[range.start..self.caret]);
        (format!("{before}{shown}{after}"), caret)
    }

    /// Returns the range around the caret that fits into this many columns. Half of them go to the
    /// text before the caret, the rest to the text after it, and then to the text before it again.
    fn cut(&self, columns: usize) -> Range<usize> {
        let chars = self.chars;
        let (mut first, mut last) = (self.caret, (self.caret + 1).min(chars.len()));
        let mut used = width(&chars[first..last]).max(1);
        let grow_left = |first: &mut usize, used: &mut usize, limit: usize| {
            while *first > 0 && *used + char_width(chars[*first - 1]) <= limit {
                *first -= 1;
                *used += char_width(chars[*first]);
            }
        };
        grow_left(&mut first, &mut used, columns / 2);
        while last < chars.len() && used + char_width(chars[last]) <= columns {
            used += char_width(chars[last]);
            last += 1;
        }
        grow_left(&mut first, &mut used, columns);
        first..last
    }
}

fn char_width(char: char) -> usize {
    char.width().unwrap_or(0)
}

fn width(chars: &[char]) -> usize {
    chars.iter().map(|char| char_width(*char)).sum()
}

/// Returns the line with this number, and the byte at which it starts.
fn nth_line(text: &str, number: usize) -> Option<(usize, &str)> {
    let mut start = 0;
    for (index, line) in text.split('\n').enumerate() {
        if index + 1 == number {
            return Some((start, line.trim_end_matches('\r')));
        }
        start += line.len() + 1;
    }
    None
}
