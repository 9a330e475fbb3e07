//! The mistakes in a config file: the place, what is wrong, and what to write instead.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use super::excerpt;

/// A place in the text. Both numbers start at 1, and columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The place, or None if the whole file is wrong.
    pub position: Option<Position>,
    /// The path of keys, as in `databases[0].check.interval`. It is empty for the whole file and
    /// for bad YAML.
    pub path: String,
    /// The mistake, and what to write instead.
    pub message: String,
}

/// All mistakes of one file, in the order of its lines.
#[derive(Clone, Default)]
pub struct Problems {
    file: String,
    text: Arc<str>,
    /// The byte ranges of the text that may hold secrets and are never shown.
    redacted: Vec<Range<usize>>,
    list: Vec<Problem>,
    /// The number of problems that were found but not kept.
    omitted: usize,
}

/// The largest number of problems of one file that are kept. Nobody reads more.
const MAX_PROBLEMS: usize = 100;

impl Problems {
    /// Returns the one problem of a file that can't be read at all.
    pub(super) fn whole_file(file: &str, message: String) -> Self {
        let problem = Problem { position: None, path: String::new(), message };
        Problems { file: file.into(), list: vec![problem], ..Self::default() }
    }

    /// Moves all problems to one place, because their lines are not those of the file.
    pub(super) fn move_to(&mut self, place: Position) {
        for problem in &mut self.list {
            if let Some(Position { line, column }) = problem.position.replace(place) {
                problem.message =
                    format!("line {line}, column {column} of this text: {}", problem.message);
            }
        }
        // An excerpt would show another line.
        self.text = Arc::default();
    }

    /// Returns the name of the file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Returns true if there is no problem.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Returns how many problems were found. `iter` returns the first hundred.
    pub fn len(&self) -> usize {
        self.list.len() + self.omitted
    }

    /// Returns the problems.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// Returns one line for each problem.
    pub fn summary(&self) -> String {
        self.render(|_| String::new())
    }

    /// Returns the problems for a terminal: each with its line of the file and a caret.
    pub fn report(&self) -> String {
        self.render(|position| {
            excerpt::render(&self.text, &self.redacted, position.line, position.column)
        })
    }

    fn render(&self, excerpt: impl Fn(Position) -> String) -> String {
        let mut out = String::new();
        for problem in &self.list {
            out.push_str(&self.headline(problem));
            out.push('\n');
            out.push_str(&problem.position.map(&excerpt).unwrap_or_default());
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
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.summary().trim_end())
    }
}

/// The text may hold secrets, so this shows no more than `Display` does.
impl fmt::Debug for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Problems({self})")
    }
}

impl std::error::Error for Problems {}

/// The place of a key or a value in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
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

/// The location in the file of a value that was read, for problems that later stages find.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Location {
    /// The value.
    pub span: Span,
    /// The key of the value. For an item of a list this is the item itself.
    pub key: Span,
    /// The path of keys, as in `databases[0].check.interval`.
    pub path: Arc<str>,
}

/// The proof that an error is already reported, so that nobody has to report it again. rustc calls
/// the same thing `ErrorGuaranteed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Reported;

/// Gathers the errors and warnings of one file while it is read.
#[derive(Default)]
pub(crate) struct Collector {
    errors: Bucket,
    warnings: Bucket,
    redacted: Vec<Range<usize>>,
}

#[derive(Default)]
struct Bucket {
    list: Vec<Problem>,
    omitted: usize,
    /// The problems so far. A mistake that YAML aliases repeat is reported once.
    known: BTreeSet<(Position, String)>,
}

impl Bucket {
    fn add(&mut self, span: Span, path: &str, message: String) {
        let position = span.position();
        if self.list.len() >= MAX_PROBLEMS {
            self.omitted += 1;
            return;
        }
        if !self.known.insert((position, message.clone())) {
            return;
        }
        self.list.push(Problem { position: Some(position), path: path.into(), message });
    }

    fn into_problems(mut self, file: &str, text: &Arc<str>, redacted: &[Range<usize>]) -> Problems {
        self.list.sort_by_key(|problem| problem.position);
        Problems {
            file: file.into(),
            text: text.clone(),
            redacted: redacted.to_vec(),
            list: self.list,
            omitted: self.omitted,
        }
    }
}

impl Collector {
    /// Reports an error.
    pub(crate) fn error(&mut self, span: Span, path: &str, message: impl Into<String>) -> Reported {
        self.errors.add(span, path, message.into());
        Reported
    }

    /// Reports an error in a value.
    pub(crate) fn error_at(&mut self, at: &Location, message: impl Into<String>) -> Reported {
        self.error(at.span, &at.path, message)
    }

    /// Reports an error in a key.
    pub(crate) fn error_at_key(&mut self, at: &Location, message: impl Into<String>) -> Reported {
        self.error(at.key, &at.path, message)
    }

    /// Reports a warning.
    pub(crate) fn warn(&mut self, span: Span, path: &str, message: impl Into<String>) {
        self.warnings.add(span, path, message.into());
    }

    /// Reports a warning about a value.
    pub(crate) fn warn_at(&mut self, at: &Location, message: impl Into<String>) {
        self.warn(at.span, &at.path, message);
    }

    /// Reports a warning about a key.
    pub(crate) fn warn_at_key(&mut self, at: &Location, message: impl Into<String>) {
        self.warn(at.key, &at.path, message);
    }

    /// Returns true if further errors are only counted, so that good messages are not needed.
    pub(crate) fn is_full(&self) -> bool {
        self.errors.list.len() >= MAX_PROBLEMS
    }

    /// Keeps this part of the text out of every excerpt, because it may be a secret.
    pub(crate) fn redact(&mut self, span: Span) {
        if self.redacted.last() != Some(&span.bytes()) {
            self.redacted.push(span.bytes());
        }
    }

    /// Returns the errors and the warnings, ready to be shown.
    pub(crate) fn into_problems(self, file: &str, text: &str) -> (Problems, Problems) {
        let text: Arc<str> = text.into();
        (
            self.errors.into_problems(file, &text, &self.redacted),
            self.warnings.into_problems(file, &text, &self.redacted),
        )
    }
}

/// Returns a text of the file in a form that fits a message: short, on one line, and without
/// control characters or credentials.
pub(crate) fn quote(text: &str) -> String {
    const MAX_CHARS: usize = 60;
    if may_hold_credentials(text) {
        return "`…`".into();
    }
    let escape = |char: char| {
        if char.is_control() { char.escape_default().collect() } else { vec![char] }
    };
    let mut shown: String = text.chars().take(MAX_CHARS).flat_map(escape).collect();
    if text.chars().count() > MAX_CHARS {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// Returns true for a text like `postgres://user:password@host`, which is a value of no key but may
/// be pasted by mistake.
pub(crate) fn may_hold_credentials(text: &str) -> bool {
    text.contains('@')
}
