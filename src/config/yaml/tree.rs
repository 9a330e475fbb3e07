//! A YAML text as a tree in which every key and every value knows its place.

use std::collections::HashMap;
use std::sync::Arc;

use serde_saphyr::granit_parser::{
    self, Event, Marker, Parser, ScalarStyle, ScanError, StrInput, StructureStyle, Tag,
};

use super::syntax::{self, MAX_DEPTH};
use crate::config::problem::{Collector, Reported, Span};

/// One value of the file.
#[derive(Debug)]
pub(crate) struct Node {
    pub span: Span,
    pub kind: NodeKind,
    /// How many values it holds, itself and those behind aliases included.
    expanded_size: usize,
}

#[derive(Debug)]
pub(crate) enum NodeKind {
    Scalar(Scalar),
    List(Vec<Arc<Node>>),
    Map(Vec<Entry>),
}

#[derive(Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub key_span: Span,
    /// The key may be shown: it looks like one, and a colon follows it. Else it may be a secret that lost its key.
    pub is_plain: bool,
    pub value: Arc<Node>,
}

/// A scalar's text, and the type that YAML 1.2's core schema gives it.
#[derive(Debug)]
pub(crate) struct Scalar {
    pub text: String,
    pub kind: ScalarKind,
    pub style: ScalarStyle,
}

impl Scalar {
    /// A text that stands nowhere in the file.
    pub(crate) fn text(text: String) -> Self {
        Scalar { text, kind: ScalarKind::Text, style: ScalarStyle::Plain }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ScalarKind {
    Null,
    Bool(bool),
    Number,
    Text,
}

impl NodeKind {
    /// What this is, in the words of a message.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            NodeKind::List(_) => "a list",
            NodeKind::Map(_) => "a mapping",
            NodeKind::Scalar(scalar) => match scalar.kind {
                ScalarKind::Null => "nothing",
                ScalarKind::Bool(_) => "true or false",
                ScalarKind::Number => "a number",
                ScalarKind::Text => "text",
            },
        }
    }
}

impl Node {
    /// The text of a scalar.
    pub(crate) fn text(&self) -> &str {
        match &self.kind {
            NodeKind::Scalar(scalar) => &scalar.text,
            _ => "",
        }
    }
}

/// How many values all aliases together may stand for: far above any real file, far below what hurts.
const MAX_EXPANSION: usize = 1_000_000;

/// The tree of the text's one document, or None when it is so wrong that nothing more can be said than is collected.
pub(crate) fn parse(text: &str, problems: &mut Collector) -> Result<Arc<Node>, Reported> {
    let mut options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.set_emit_comments(false);
    let parser = Parser::new_from_str_with_options(text, options);
    let mut builder = Builder {
        text,
        parser,
        problems,
        path: String::new(),
        open: Vec::new(),
        anchors: HashMap::new(),
        expansion: 0,
    };
    match builder.document() {
        Ok(root) => Ok(root),
        Err(ParseAbort { span, message }) => {
            if may_hold_secret(text, span) {
                redact_line(text, span, builder.problems);
            }
            Err(builder.problems.error(span, "", message))
        }
    }
}

/// Why the tree can't be built.
struct ParseAbort {
    span: Span,
    message: String,
}

struct Builder<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    problems: &'a mut Collector,
    /// Of the value that is being built.
    path: String,
    /// The lists and mappings in brackets and braces that have not ended yet.
    open: Vec<(char, Span)>,
    anchors: HashMap<usize, Arc<Node>>,
    expansion: usize,
}

impl<'a> Builder<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), ParseAbort> {
        match self.parser.next_event() {
            Some(Ok((event, span))) => Ok((event, span_between(&span.start, &span.end))),
            Some(Err(error)) => Err(self.bad_yaml(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn error(&mut self, span: Span, message: String) {
        self.problems.error(span, &self.path, message);
    }

    /// Builds what stands one step deeper.
    fn within(
        &mut self,
        step: &str,
        event: Event<'a>,
        span: Span,
    ) -> Result<Arc<Node>, ParseAbort> {
        let length = self.path.len();
        self.path.push_str(if length == 0 { step.trim_start_matches('.') } else { step });
        let node = self.node(event, span);
        self.path.truncate(length);
        node
    }

    /// Builds the one document that is not empty: a `---` on top or at the end, as templates leave it, begins an empty one.
    fn document(&mut self) -> Result<Arc<Node>, ParseAbort> {
        let mut root: Option<Arc<Node>> = None;
        let mut empty = None;
        let mut start = Span::default();
        loop {
            let next = self.next();
            let is_second = root.is_some() && start != Span::default();
            match next {
                Ok((Event::StreamStart | Event::DocumentEnd, _)) => {}
                Ok((Event::DocumentStart(..), span)) if root.is_some() => start = span,
                Ok((Event::DocumentStart(..), _)) => {}
                Ok((Event::StreamEnd, span)) => {
                    let nothing = "has only comments; list the databases, as in `databases: [{service: mysql, …}]`";
                    let span = Span { line: 1, column: 1, ..span };
                    return root
                        .or(empty)
                        .ok_or_else(|| ParseAbort { span, message: nothing.into() });
                }
                Ok((event, span)) if is_empty(&event) => empty = Some(self.node(event, span)?),
                Ok((event, span)) if root.is_none() => root = Some(self.node(event, span)?),
                // It is no reason to be silent about the mistakes of the first one.
                Ok(_) | Err(_) if is_second => {
                    let message =
                        "a second YAML document begins here; write all databases in one document";
                    self.problems.error(start, "", message);
                    return root.ok_or_else(|| ParseAbort { span: start, message: message.into() });
                }
                Ok((_, span)) => {
                    return Err(ParseAbort {
                        span,
                        message: "is not a value; write valid YAML".into(),
                    });
                }
                Err(stop) => return Err(stop),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Arc<Node>, ParseAbort> {
        let (node, anchor) = match event {
            Event::Alias(id) => return self.alias(id, span),
            Event::Scalar(text, style, anchor, tag) => {
                let forced = self.is_text_by_tag(tag.as_deref(), span);
                let kind = if forced { ScalarKind::Text } else { scalar_kind(&text, style) };
                let kind = NodeKind::Scalar(Scalar { text: text.into_owned(), kind, style });
                (Node { span, kind, expanded_size: 1 }, anchor)
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.is_text_by_tag(tag.as_deref(), span);
                (self.inside(style, '[', span, Self::list)?, anchor)
            }
            Event::MappingStart(style, anchor, tag) => {
                self.is_text_by_tag(tag.as_deref(), span);
                (self.inside(style, '{', span, Self::map)?, anchor)
            }
            _ => {
                return Err(ParseAbort {
                    span,
                    message: "is not a value; write valid YAML".into(),
                });
            }
        };
        let node = Arc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }

    fn inside(
        &mut self,
        style: StructureStyle,
        bracket: char,
        span: Span,
        build: impl FnOnce(&mut Self, Span) -> Result<Node, ParseAbort>,
    ) -> Result<Node, ParseAbort> {
        if style == StructureStyle::Block {
            return build(self, span);
        }
        self.open.push((bracket, span));
        let node = build(self, span)?;
        self.open.pop();
        Ok(node)
    }

    fn list(&mut self, mut span: Span) -> Result<Node, ParseAbort> {
        let mut items: Vec<Arc<Node>> = Vec::new();
        let mut weight = 1_usize;
        loop {
            match self.next()? {
                (Event::SequenceEnd, end) => {
                    span.end = end.end.max(span.end);
                    return Ok(Node { span, kind: NodeKind::List(items), expanded_size: weight });
                }
                (event, at) => {
                    let item = self.within(&format!("[{}]", items.len()), event, at)?;
                    weight = weight.saturating_add(item.expanded_size);
                    items.push(item);
                }
            }
        }
    }

    fn map(&mut self, mut span: Span) -> Result<Node, ParseAbort> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut lines: HashMap<String, u32> = HashMap::new();
        let mut weight = 1_usize;
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                span.end = at.end.max(span.end);
                return Ok(Node { span, kind: NodeKind::Map(entries), expanded_size: weight });
            }
            let key = self.node(event, at)?;
            let is_plain = match &key.kind {
                NodeKind::Scalar(Scalar { text, .. }) => {
                    looks_like_key(text) && has_colon(self.text, key.span)
                }
                _ => false,
            };
            let step = if is_plain { format!(".{}", key.text()) } else { String::new() };
            let (event, at) = self.next()?;
            let value = self.within(&step, event, at)?;
            weight = weight.saturating_add(value.expanded_size).saturating_add(key.expanded_size);
            let entry = Entry {
                key: key.text().into(),
                key_span: key.span,
                is_plain,
                value: placed_by_key(value, key.span),
            };
            if !matches!(key.kind, NodeKind::Scalar(_)) {
                let message =
                    format!("{} stands where a key must be; write `key: value`", key.kind.name());
                self.reject_entry(&entry, message);
            } else if let Some(first) = lines.get(&entry.key) {
                let message = format!("this key is already on line {first}; write it once");
                self.reject_entry(&entry, message);
            } else {
                lines.insert(entry.key.clone(), key.span.line);
                entries.push(entry);
            }
        }
    }

    /// An entry that no one will read, and so no one would look for secrets in.
    fn reject_entry(&mut self, entry: &Entry, message: String) {
        if entry.value.span != entry.key_span {
            self.problems.redact(entry.value.span);
        }
        let length = self.path.len();
        if entry.is_plain {
            let dot = if length == 0 { "" } else { "." };
            self.path.push_str(dot);
            self.path.push_str(&entry.key);
        } else {
            self.problems.redact(entry.key_span);
        }
        self.error(entry.key_span, message);
        self.path.truncate(length);
    }

    fn alias(&mut self, id: usize, span: Span) -> Result<Arc<Node>, ParseAbort> {
        let Some(node) = self.anchors.get(&id) else {
            let message = "this alias stands inside its own anchor; write the value out";
            return Err(ParseAbort { span, message: message.into() });
        };
        self.expansion = self.expansion.saturating_add(node.expanded_size);
        if self.expansion > MAX_EXPANSION {
            let message = format!(
                "the aliases up to here stand for more than {MAX_EXPANSION} values; write the values out, or \
                 use `defaults`"
            );
            return Err(ParseAbort { span, message });
        }
        Ok(node.clone())
    }

    /// `!!str` is the one tag with a use here; the others of YAML itself say what is known anyway.
    fn is_text_by_tag(&mut self, tag: Option<&Tag>, span: Span) -> bool {
        let Some(tag) = tag else { return false };
        if tag.original() == "!!binary" {
            // The bytes may be a secret.
            self.problems.redact(span);
            let message = "`!!binary` is not read here; write `{hex: \"00 0c\"}` for the bytes of `send` and `expect`, or `{file: path}`";
            self.error(span, message.into());
        } else if !tag.is_yaml_core_schema() {
            // It may be a secret that begins with `!` and lacks its quotes.
            self.problems.redact(with_tag(self.text, span));
            let message = "a tag, which begins with `!`, means nothing here; take it away, or put the value in quotes \
                           if the `!` belongs to it";
            self.error(span, message.into());
        }
        tag.is_yaml_core_schema_tag("str")
    }

    fn bad_yaml(&self, error: &ScanError) -> ParseAbort {
        let span = span_between(error.marker(), error.marker());
        let (span, message) =
            syntax::explain(error.kind(), span, self.text, self.open.last().copied());
        ParseAbort { span, message }
    }
}

/// Whether this is all there is of a document that says nothing.
fn is_empty(document: &Event) -> bool {
    matches!(document, Event::Scalar(text, style, 0, None) if scalar_kind(text, *style) == ScalarKind::Null)
}

/// A value's place together with that of the tag before it, and of an anchor between them.
fn with_tag(text: &str, value: Span) -> Span {
    let mut before = text.get(..value.start as usize).unwrap_or_default().trim_end();
    loop {
        let word = before.rfind(char::is_whitespace).map_or(0, |space| space + 1);
        if let Some(mark) = before[word..].find('!') {
            return Span { start: (word + mark) as u32, ..value };
        }
        if word == 0 {
            return value;
        }
        before = before[..word].trim_end();
    }
}

/// `key:` with nothing behind it: the place is the key's, for there is none of the value's own.
fn placed_by_key(value: Arc<Node>, key: Span) -> Arc<Node> {
    match &value.kind {
        NodeKind::Scalar(Scalar { text, kind: ScalarKind::Null, style })
            if value.span.start == value.span.end =>
        {
            let scalar = Scalar { text: text.clone(), kind: ScalarKind::Null, style: *style };
            Arc::new(Node { span: key, kind: NodeKind::Scalar(scalar), expanded_size: 1 })
        }
        _ => value,
    }
}

/// Whether a colon follows, so that this is a key and not, say, a secret in braces that lost its key.
fn has_colon(text: &str, key: Span) -> bool {
    text.get(key.end as usize..)
        .is_some_and(|rest| rest.trim_start_matches([' ', '\t']).starts_with(':'))
}

/// Whether a message may show this key.
pub(crate) fn looks_like_key(key: &str) -> bool {
    let fits = |char: char| {
        char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.' | '/' | '<' | '~')
    };
    key.len() <= 40 && key.chars().all(fits)
}

/// YAML 1.2's core schema: what a plain scalar is when nothing else says so.
fn scalar_kind(text: &str, style: ScalarStyle) -> ScalarKind {
    if style != ScalarStyle::Plain {
        return ScalarKind::Text;
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => ScalarKind::Null,
        "true" | "True" | "TRUE" => ScalarKind::Bool(true),
        "false" | "False" | "FALSE" => ScalarKind::Bool(false),
        ".nan" | ".NaN" | ".NAN" => ScalarKind::Number,
        _ if is_number(text) => ScalarKind::Number,
        _ => ScalarKind::Text,
    }
}

fn is_number(text: &str) -> bool {
    let based = |prefix, radix| {
        let digits = text.strip_prefix(prefix);
        digits.is_some_and(|digits: &str| {
            !digits.is_empty() && digits.chars().all(|char| char.is_digit(radix))
        })
    };
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let infinite = matches!(unsigned, ".inf" | ".Inf" | ".INF");
    let decimal = unsigned.starts_with(|char: char| char.is_ascii_digit() || char == '.')
        && unsigned.chars().any(|char| char.is_ascii_digit())
        && unsigned.parse::<f64>().is_ok();
    based("0x", 16) || based("0o", 8) || infinite || decimal
}

fn span_between(start: &Marker, end: &Marker) -> Span {
    let byte = |marker: &Marker| marker.byte_offset().unwrap_or(0) as u32;
    Span {
        line: start.line() as u32,
        column: start.col() as u32 + 1,
        start: byte(start),
        end: byte(end),
    }
}

/// Bad YAML has no tree that tells which text is secret: then any line of a database that has a word for one may hold it.
fn may_hold_secret(text: &str, span: Span) -> bool {
    const WORDS: [&str; 7] = ["send", "headers", "env", "pass", "secret", "token", "authorization"];
    let lines: Vec<&str> = text.lines().take(span.line as usize).collect();
    let begin =
        lines.iter().rposition(|line| line.trim_start().starts_with("- ") && indent(line) <= 2);
    let database = lines[begin.unwrap_or(0)..].join("\n").to_lowercase();
    WORDS.iter().any(|word| database.contains(word))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

fn redact_line(text: &str, span: Span, problems: &mut Collector) {
    let mut start = 0;
    for (index, line) in text.split('\n').enumerate() {
        if index + 1 == span.line as usize {
            let from = (start + indent(line)) as u32;
            problems.redact(Span { start: from, end: (start + line.len()) as u32, ..span });
            return;
        }
        start += line.len() + 1;
    }
}
