//! What is wrong in a config file: where it is, what it is, what to write instead; shown without the secrets of its line.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use unicode_width::UnicodeWidthChar;

use super::invisible::is_invisible;

/// A place in the text: both numbers start at 1, columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// None where the whole file is meant.
    pub position: Option<Position>,
    /// `databases[3].check.interval`; empty for the whole file and for bad YAML.
    pub path: String,
    /// What is wrong; what to write instead.
    pub message: String,
}

/// All mistakes of one file, in the order of its lines.
#[derive(Clone, Default)]
pub struct Problems {
    file: String,
    text: Arc<str>,
    /// Byte ranges of the text that may hold secrets and are never shown.
    redacted: Vec<Range<usize>>,
    list: Vec<Problem>,
    /// How many more were found than are kept.
    omitted: usize,
}

/// The most problems of one file that are worth reading.
const MAX_PROBLEMS: usize = 100;

/// The columns that an excerpt may take: those of the narrowest terminal in use.
const TERMINAL: usize = 80;

/// How many characters on either side of the caret are looked at. More than fit, for secrets shrink to one character.
const WINDOW: usize = 4 * TERMINAL;

impl Problems {
    /// The one problem of a file that could not even be read.
    pub(super) fn whole_file(file: &str, message: String) -> Self {
        let problem = Problem { position: None, path: String::new(), message };
        Problems { file: file.into(), list: vec![problem], ..Self::default() }
    }

    pub fn file(&self) -> &str {
        &self.file
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many were found; `iter` gives the first hundred.
    pub fn len(&self) -> usize {
        self.list.len() + self.omitted
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// One line a problem; for a terminal also the line of the file that is meant, with a caret under the place.
    pub fn render(&self, terminal: bool) -> String {
        let mut out = String::new();
        for problem in &self.list {
            out.push_str(&self.headline(problem));
            out.push('\n');
            if let (true, Some(position)) = (terminal, problem.position) {
                out.push_str(&self.excerpt(position));
            }
        }
        if self.omitted > 0 {
            out.push_str(&format!("{}: and {} more problems\n", self.file, self.omitted));
        }
        out
    }

    fn headline(&self, problem: &Problem) -> String {
        let mut line = self.file.clone();
        if let Some(Position { line: row, column }) = problem.position {
            line.push_str(&format!(":{row}:{column}"));
        }
        if !problem.path.is_empty() {
            line.push_str(&format!(": {}", problem.path));
        }
        line.push_str(": ");
        line.push_str(&problem.message);
        line
    }

    /// The line of the text with secrets cut out, and the caret under it; no wider than a terminal, which would wrap it.
    fn excerpt(&self, position: Position) -> String {
        let Some((start, line)) = nth_line(&self.text, position.line) else {
            return String::new();
        };
        let first = (position.column - 1).saturating_sub(WINDOW);
        let window = line.char_indices().skip(first).take(2 * WINDOW);
        let window: Vec<(usize, char)> =
            window.map(|(offset, char)| (start + offset, char)).collect();
        let (mut shown, caret) = self.redacted(&window, position.column - 1 - first);
        let length = shown.iter().rposition(|char| *char != ' ').map_or(0, |last| last + 1);
        shown.truncate(length.max(caret));
        let number = position.line.to_string();
        let room = TERMINAL - number.len() - "   | ".len();
        let whole = (first == 0, line.chars().nth(first + 2 * WINDOW).is_none());
        let (shown, pad) = cut(&shown, caret, room, whole);
        let gutter = " ".repeat(number.len());
        format!("  {number} | {}\n  {gutter} | {}^\n", shown.trim_end(), " ".repeat(pad))
    }

    /// What to show of these characters, and the caret's place in it.
    fn redacted(&self, window: &[(usize, char)], column: usize) -> (Vec<char>, usize) {
        let (Some(first), Some(last)) = (window.first(), window.last()) else {
            return (Vec::new(), 0);
        };
        let hidden: Vec<_> = self
            .redacted
            .iter()
            .filter(|range| range.start <= last.0 && range.end > first.0)
            .collect();
        let mut shown = Vec::new();
        let mut caret = None;
        let mut in_secret = false;
        for (index, &(offset, char)) in window.iter().enumerate() {
            let secret = hidden.iter().any(|range| range.contains(&offset));
            if index == column {
                caret = Some(shown.len() - usize::from(secret && in_secret));
            }
            match char {
                _ if secret && in_secret => {}
                _ if secret => shown.push('…'),
                // A tab has no width of its own on a terminal, and is often what is wrong.
                '\t' => shown.push('→'),
                // Nothing of the file may steer the terminal that shows it.
                char if char.is_control() || is_invisible(char) => shown.push('\u{fffd}'),
                char => shown.push(char),
            }
            in_secret = secret;
        }
        let caret = caret.unwrap_or(shown.len());
        (shown, caret)
    }
}

/// The characters around the caret that fit into this many columns, `…` for those that do not, and the caret's column.
/// `whole` says whether the line begins with the first of the characters, and ends with the last.
fn cut(chars: &[char], caret: usize, room: usize, whole: (bool, bool)) -> (String, usize) {
    let width = |char: &char| char.width().unwrap_or(0);
    let widths = |chars: &[char]| chars.iter().map(width).sum::<usize>();
    // The caret may stand behind the last character, and needs a column there.
    let end = usize::from(caret == chars.len());
    let (mut first, mut last) = (0, chars.len());
    if whole != (true, true) || widths(chars) + end > room {
        let room = room - 2;
        (first, last) = (caret, (caret + 1).min(chars.len()));
        let mut used = widths(&chars[first..last]).max(1);
        let grow_left = |first: &mut usize, used: &mut usize, most: usize| {
            while *first > 0 && *used + width(&chars[*first - 1]) <= most {
                *first -= 1;
                *used += width(&chars[*first]);
            }
        };
        // Half the room before the caret, then what is left of it behind, then what is still left before.
        grow_left(&mut first, &mut used, room / 2);
        while last < chars.len() && used + width(&chars[last]) <= room {
            used += width(&chars[last]);
            last += 1;
        }
        grow_left(&mut first, &mut used, room);
    }
    let before = if first > 0 || !whole.0 { "…" } else { "" };
    let after = if last < chars.len() || !whole.1 { "…" } else { "" };
    let shown: String = chars[first..last].iter().collect();
    (format!("{before}{shown}{after}"), before.chars().count() + widths(&chars[first..caret]))
}

/// The line with this number, counted from 1, and the byte it starts at.
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

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

/// The text may hold secrets, so that only what `Display` shows is shown.
impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Problems({self})")
    }
}

impl std::error::Error for Problems {}

/// Where a key or a value stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub line: u32,
    pub column: u32,
    pub start: u32,
    pub end: u32,
}

impl Span {
    fn bytes(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    fn position(self) -> Position {
        Position { line: self.line as usize, column: self.column as usize }
    }
}

/// Gathers the problems and warnings of one file while it is read.
#[derive(Default)]
pub(super) struct Collector {
    errors: Bucket,
    warnings: Bucket,
    hidden: Vec<Range<usize>>,
}

#[derive(Default)]
struct Bucket {
    list: Vec<Problem>,
    more: usize,
    /// What an alias repeats is wrong once.
    seen: BTreeSet<(Position, String)>,
}

impl Bucket {
    fn add(&mut self, span: Span, path: &str, message: String) {
        let position = span.position();
        if self.list.len() >= MAX_PROBLEMS {
            self.more += 1;
            return;
        }
        if !self.seen.insert((position, message.clone())) {
            return;
        }
        self.list.push(Problem { position: Some(position), path: path.into(), message });
    }

    fn problems(mut self, file: &str, text: &Arc<str>, hidden: &[Range<usize>]) -> Problems {
        self.list.sort_by_key(|problem| problem.position);
        Problems {
            file: file.into(),
            text: text.clone(),
            redacted: hidden.to_vec(),
            list: self.list,
            omitted: self.more,
        }
    }
}

impl Collector {
    pub(super) fn error(&mut self, span: Span, path: &str, message: impl Into<String>) {
        self.errors.add(span, path, message.into());
    }

    pub(super) fn warn(&mut self, span: Span, path: &str, message: impl Into<String>) {
        self.warnings.add(span, path, message.into());
    }

    /// Further errors are only counted: no need to find good words for them.
    pub(super) fn is_full(&self) -> bool {
        self.errors.list.len() >= MAX_PROBLEMS
    }

    /// What stands here may be a secret: no excerpt shows it.
    pub(super) fn redact(&mut self, span: Span) {
        if self.hidden.last() != Some(&span.bytes()) {
            self.hidden.push(span.bytes());
        }
    }

    /// The errors and the warnings, ready to be shown.
    pub(super) fn into_problems(self, file: &str, text: &str) -> (Problems, Problems) {
        let text: Arc<str> = text.into();
        (
            self.errors.problems(file, &text, &self.hidden),
            self.warnings.problems(file, &text, &self.hidden),
        )
    }
}

/// What a person wrote, fit to be quoted in a message: short, on one line, without control characters.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    if may_hold_credentials(text) {
        return "`…`".into();
    }
    let mut shown: String = text.chars().take(LONGEST).flat_map(plain).collect();
    if text.chars().count() > LONGEST {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// `postgres://user:password@host` is not a value of any key, but is what a person may paste.
pub(super) fn may_hold_credentials(text: &str) -> bool {
    text.contains('@')
}

fn plain(char: char) -> Vec<char> {
    if char.is_control() { char.escape_default().collect() } else { vec![char] }
}
