//! Builds the tree of a YAML text, in which every key and every value knows its place.

use std::collections::HashMap;
use std::sync::Arc;

use serde_saphyr::granit_parser::{
    self, Event, Marker, Parser, ScanError, StrInput, StructureStyle, Tag,
};

use super::node::{Entry, Node, NodeKind, Scalar, ScalarKind, scalar_kind};
use super::secrets::{has_colon, looks_like_key, may_hold_secret, redact_line, with_tag};
use super::syntax::{self, MAX_DEPTH};
use crate::config::problem::{Collector, Reported, Span};

/// The largest number of values that all aliases together may stand for. It is far above any real
/// file, and far below what takes long.
const MAX_EXPANSION: usize = 1_000_000;

/// Returns the tree of the one document in the text, or reports why there is none.
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

/// The error that ends the building of the tree.
struct ParseAbort {
    span: Span,
    message: String,
}

struct Builder<'a> {
    text: &'a str,
    parser: Parser<'a, StrInput<'a>>,
    problems: &'a mut Collector,
    /// The path of keys to the value that is being built.
    path: String,
    /// The lists and mappings in brackets and braces that have not ended yet.
    open: Vec<(char, Span)>,
    anchors: HashMap<usize, Arc<Node>>,
    expansion: usize,
}

impl ParseAbort {
    fn not_a_value(span: Span) -> Self {
        ParseAbort { span, message: "is not a value; write valid YAML".into() }
    }
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

    /// Builds the one document that is not empty. Templates often leave a `---` on top or at the
    /// end, which begins an empty one.
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
                    let nothing = "has only comments; list the databases, as in \
                                   `databases: [{service: mysql, …}]`";
                    let span = Span { line: 1, column: 1, ..span };
                    return root
                        .or(empty)
                        .ok_or_else(|| ParseAbort { span, message: nothing.into() });
                }
                Ok((event, span)) if is_empty(&event) => empty = Some(self.node(event, span)?),
                Ok((event, span)) if root.is_none() => root = Some(self.node(event, span)?),
                // The mistakes of the first document are reported all the same.
                Ok(_) | Err(_) if is_second => {
                    let message =
                        "a second YAML document begins here; write all databases in one document";
                    self.problems.error(start, "", message);
                    return root.ok_or_else(|| ParseAbort { span: start, message: message.into() });
                }
                Ok((_, span)) => {
                    return Err(ParseAbort::not_a_value(span));
                }
                Err(abort) => return Err(abort),
            }
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Arc<Node>, ParseAbort> {
        let (node, anchor) = match event {
            Event::Alias(id) => return self.alias(id, span),
            Event::Scalar(text, style, anchor, tag) => {
                let forced = self.is_tagged_text(tag.as_deref(), span);
                let kind = if forced { ScalarKind::Text } else { scalar_kind(&text, style) };
                let kind = NodeKind::Scalar(Scalar { text: text.into_owned(), kind, style });
                (Node { span, kind, expanded_size: 1 }, anchor)
            }
            Event::SequenceStart(style, anchor, tag) => {
                self.is_tagged_text(tag.as_deref(), span);
                (self.inside(style, '[', span, Self::list)?, anchor)
            }
            Event::MappingStart(style, anchor, tag) => {
                self.is_tagged_text(tag.as_deref(), span);
                (self.inside(style, '{', span, Self::map)?, anchor)
            }
            _ => {
                return Err(ParseAbort::not_a_value(span));
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
                value: at_key(value, key.span),
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

    /// Reports an entry that is not read. Secrets in it are not known, so all of it is redacted.
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
                "the aliases up to here stand for more than {MAX_EXPANSION} values; write the \
                 values out, or use `defaults`"
            );
            return Err(ParseAbort { span, message });
        }
        Ok(node.clone())
    }

    /// Returns true for the tag `!!str`, the only one with an effect. The other tags of YAML itself
    /// name the type that the value has anyway, and all others are errors.
    fn is_tagged_text(&mut self, tag: Option<&Tag>, span: Span) -> bool {
        let Some(tag) = tag else { return false };
        if tag.original() == "!!binary" {
            // The bytes may be a secret.
            self.problems.redact(span);
            let message = "`!!binary` is not supported; write `{hex: \"00 0c\"}` for the bytes of \
                           `send` and `expect`, or `{file: path}`";
            self.error(span, message.into());
        } else if !tag.is_yaml_core_schema() {
            // The tag may be a secret that begins with `!` and lacks its quotes.
            self.problems.redact(with_tag(self.text, span));
            let message = "a tag, which begins with `!`, has no effect here; remove it, or put the \
                           value in quotes if the `!` belongs to it";
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

/// Returns true if the first event of a document is all of it, and the document is empty.
fn is_empty(document: &Event) -> bool {
    match document {
        Event::Scalar(text, style, 0, None) => scalar_kind(text, *style) == ScalarKind::Null,
        _ => false,
    }
}

/// Gives a value that is missing, as in `key:`, the place of its key.
fn at_key(value: Arc<Node>, key: Span) -> Arc<Node> {
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

fn span_between(start: &Marker, end: &Marker) -> Span {
    let byte = |marker: &Marker| marker.byte_offset().unwrap_or(0) as u32;
    Span {
        line: start.line() as u32,
        column: start.col() as u32 + 1,
        start: byte(start),
        end: byte(end),
    }
}
