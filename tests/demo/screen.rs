//! The demo's screen: a scrolling timeline and, on a terminal, one live line below it.

use std::io::{IsTerminal as _, Write as _, stdout};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// The width if the terminal does not report one.
const WIDTH: usize = 80;

/// A screen that several tasks print to, with whole lines in order.
pub(crate) struct Screen {
    terminal: bool,
    /// The text of the live line.
    live: Mutex<String>,
}

#[derive(Clone, Copy)]
pub(crate) enum Mark {
    Good,
    Bad,
}

impl Screen {
    pub(crate) fn new() -> Screen {
        Screen { terminal: stdout().is_terminal(), live: Mutex::default() }
    }

    /// Returns true if the screen is a terminal, which has a live line.
    pub(crate) fn is_live(&self) -> bool {
        self.terminal
    }

    /// Prints a line above the live line.
    pub(crate) fn say(&self, line: &str) {
        self.lines(line, 0, |line| line.to_owned());
    }

    /// Prints a line above the live line, wrapped at the screen's width. Continued lines are
    /// indented.
    fn lines(&self, line: &str, indent: usize, style: impl Fn(&str) -> String) {
        let lines: Vec<String> =
            wrap(line, self.width(), indent).iter().map(|line| style(line)).collect();
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        self.draw(&format!("{}\n", lines.join("\n")), &live);
    }

    /// Prints a heading for the lines that follow.
    pub(crate) fn heading(&self, line: &str) {
        self.say("");
        self.lines(line, 0, |line| self.styled("1", line));
    }

    /// Prints when something happened, counted from the last heading.
    pub(crate) fn at(&self, when: Duration, what: &str) {
        self.lines(&format!("  {:>6.2} s  {what}", when.as_secs_f64()), 12, str::to_owned);
    }

    /// Prints events that became known together, in the order in which they happened.
    pub(crate) fn in_order<const N: usize>(&self, mut happened: [(Duration, &str); N]) {
        happened.sort();
        happened.into_iter().for_each(|(when, what)| self.at(when, what));
    }

    /// Prints a number of the summary under its name.
    pub(crate) fn note(&self, name: &str, what: &str) {
        self.lines(&format!("  {name}  {what}"), name.chars().count() + 4, str::to_owned);
    }

    /// Prints a line of the summary.
    pub(crate) fn mark(&self, mark: Mark, line: &str) {
        let (style, sign) = match mark {
            Mark::Good => ("32", "✓"),
            Mark::Bad => ("31", "✗"),
        };
        // Styled after wrapping, because escape sequences have no width on the screen.
        self.lines(&format!("  {sign} {line}"), 4, |line| {
            line.replacen(sign, &self.styled(style, sign), 1)
        });
    }

    /// Replaces the live line. An empty one removes it.
    pub(crate) fn live(&self, line: String) {
        if self.terminal {
            let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
            // A wrapped line could not be removed completely.
            *live = line.chars().take(self.width() - 1).collect();
            self.draw("", &live);
        }
    }

    /// Reads the width each time, because a window may be resized.
    fn width(&self) -> usize {
        let size = rustix::termios::tcgetwinsize(stdout()).ok();
        size.map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(WIDTH)
    }

    fn draw(&self, above: &str, live: &str) {
        let mut out = stdout().lock();
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        // If this fails nobody reads the output. The exit status tells the result too.
        let _ = write!(out, "{clear}{above}{live}").and_then(|()| out.flush());
    }

    fn styled(&self, style: &str, text: &str) -> String {
        if self.terminal { format!("\x1b[{style}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Wraps a line between words. Leading spaces stay.
fn wrap(line: &str, width: usize, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    let mut current = String::new();
    for word in line.split_inclusive(' ') {
        let length = current.chars().count() + word.trim_end().chars().count();
        if length > width && !current.trim().is_empty() {
            lines.push(current.trim_end().to_owned());
            current = " ".repeat(indent);
        }
        current += word;
    }
    lines.push(current.trim_end().to_owned());
    lines
}
