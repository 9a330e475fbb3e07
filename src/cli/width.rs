//! The width of the terminal, and texts that fit it.

use std::io::IsTerminal as _;
use std::os::fd::AsFd;

/// The narrowest width that an output is arranged for.
const MIN_WIDTH: u16 = 40;

/// Returns the width of the terminal; none for an output that is no terminal. There `COLUMNS`
/// counts, which `watch` sets.
pub(super) fn width() -> Option<u16> {
    let stdout = std::io::stdout();
    if stdout.is_terminal() {
        return terminal_width(&stdout);
    }
    at_least_narrow(std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()))
}

/// Returns the width of the terminal that standard error is; none if it is no terminal.
pub(super) fn stderr_width() -> Option<u16> {
    let stderr = std::io::stderr();
    stderr.is_terminal().then(|| terminal_width(&stderr)).flatten()
}

fn terminal_width(terminal: impl AsFd) -> Option<u16> {
    at_least_narrow(rustix::termios::tcgetwinsize(terminal).ok().map(|size| size.ws_col))
}

fn at_least_narrow(width: Option<u16>) -> Option<u16> {
    width.filter(|width| *width > 0).map(|width| width.max(MIN_WIDTH))
}

/// Returns a text whose lines fit the width of the terminal.
pub(super) fn fitted(text: &str) -> String {
    wrapped(text, width())
}

/// Returns a text of which no line is wider than `width`. The rest of a line is indented further.
/// Words stay whole at their hyphens, because many are flags and names.
pub(super) fn wrapped(text: &str, width: Option<u16>) -> String {
    let Some(width) = width else { return text.to_owned() };
    let mut fitted = String::with_capacity(text.len());
    for line in text.lines() {
        let indent = " ".repeat(line.len() - line.trim_start_matches(' ').len() + 2);
        let options = textwrap::Options::new(width.into())
            .subsequent_indent(&indent)
            .word_splitter(textwrap::WordSplitter::NoHyphenation);
        for line in textwrap::wrap(line, options) {
            fitted += &line;
            fitted.push('\n');
        }
    }
    fitted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_are_wrapped_below_their_indentation() {
        let text = "name\n    a long line that names --service-account\n\n";
        let narrow = "name\n    a long line that\n      names\n      --service-account\n\n";
        assert_eq!(wrapped(text, Some(23)), narrow);
        assert_eq!(wrapped(text, None), text);
        let red = "\u{1b}[31mdown\u{1b}[0m";
        assert_eq!(wrapped(&format!("{red} since"), Some(10)), format!("{red} since\n"));
    }
}
