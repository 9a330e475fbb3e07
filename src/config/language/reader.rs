//! Reads typed values from the YAML tree. It collects every mistake instead of stopping at the
//! first one.

use std::sync::Arc;

use super::hints::Shape;
use super::spanned::{Field, Spanned};
use crate::config::invisible;
use crate::config::problem::{Collector, Location, Reported, Span, may_hold_credentials};
use crate::config::yaml::node::{Entry, Node, NodeKind, Scalar, ScalarKind};

/// A value that can be read from a node of the tree.
pub(crate) trait FromNode: Sized + Clone {
    /// Reads the value, and reports to the reader what is wrong with it.
    fn from_node(node: &Node, reader: &mut Reader) -> Result<Self, Reported>;

    /// Returns the known keys if this is a record, else nothing.
    fn keys() -> &'static [String] {
        &[]
    }

    /// Returns this value laid over one of a lower layer. Records and maps merge key by key; all
    /// other values replace the lower one.
    fn overlay(&self, _lower: &Self) -> Self {
        self.clone()
    }

    /// Returns this value without the keys that the other one lacks.
    fn intersect(&self, _other: &Self) -> Self {
        self.clone()
    }
}

impl<T: FromNode> Field<T> {
    /// Returns this field laid over the same field of a lower layer.
    pub(crate) fn overlay(&self, lower: &Self) -> Self {
        match (self, lower) {
            (Field::Absent, lower) => lower.clone(),
            (Field::Given(upper), Field::Given(lower)) => Field::Given(Box::new(Spanned {
                value: upper.value.overlay(&lower.value),
                location: upper.location.clone(),
            })),
            (upper, _) => upper.clone(),
        }
    }

    /// Returns the part of this field that the other one has too.
    pub(crate) fn intersect(&self, other: &Self) -> Self {
        match (self, other) {
            (Field::Given(one), Field::Given(other)) => {
                Field::new(one.value.intersect(&other.value))
            }
            _ => Field::Absent,
        }
    }
}

/// A value that is written as one scalar.
pub(crate) trait ScalarType: Sized + Clone {
    /// A noun phrase for "expected …", with an example where that helps.
    const EXPECTED: &'static str;

    /// Returns the value, or what is wrong with the text and what to write instead.
    fn parse(scalar: &Scalar) -> Result<Self, String>;
}

impl<T: ScalarType> FromNode for T {
    fn from_node(node: &Node, reader: &mut Reader) -> Result<Self, Reported> {
        let scalar = match &node.kind {
            NodeKind::Scalar(scalar) if scalar.kind != ScalarKind::Null => scalar,
            _ => return Err(reader.unexpected(node, T::EXPECTED, None)),
        };
        T::parse(scalar).map_err(|message| {
            if may_hold_credentials(&scalar.text) {
                reader.redact(node.span);
            }
            reader.error(node.span, message_for(&scalar.text, message))
        })
    }
}

impl<T: FromNode> FromNode for Vec<Field<T>> {
    fn from_node(node: &Node, reader: &mut Reader) -> Result<Self, Reported> {
        let NodeKind::List(items) = &node.kind else {
            let advice = "write `[…, …]`, or each item on a line of its own after `- `";
            return Err(reader.unexpected(node, "a list", Some(advice)));
        };
        let read = |(index, item): (usize, &Arc<Node>)| {
            reader.within(&format!("[{index}]"), |reader| reader.field(item, item.span))
        };
        Ok(items.iter().enumerate().map(read).collect())
    }
}

/// Returns the message for a wrong word. If the word has an invisible character, the message names
/// it, because the word looks right then.
pub(crate) fn message_for(word: &str, message: String) -> String {
    match invisible::first(word) {
        Some((number, name)) => {
            format!("an invisible character, {name}, is character {number} of this word; delete it")
        }
        None => message,
    }
}

/// Walks the tree and keeps track of the path.
pub(crate) struct Reader<'a> {
    problems: &'a mut Collector,
    /// The path of keys to the current value.
    path: String,
    /// The key of the current value.
    key: Span,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(problems: &'a mut Collector) -> Self {
        Reader { problems, path: String::new(), key: Span::default() }
    }

    /// Reports an error at the current path.
    pub(crate) fn error(&mut self, span: Span, message: impl Into<String>) -> Reported {
        self.problems.error(span, &self.path, message)
    }

    /// Reports a warning at the current path.
    pub(crate) fn warn(&mut self, span: Span, message: impl Into<String>) {
        self.problems.warn(span, &self.path, message);
    }

    /// Keeps this part of the text out of every excerpt, because it may be a secret.
    pub(crate) fn redact(&mut self, span: Span) {
        self.problems.redact(span);
    }

    /// Reports that another kind of value stands where `expected` must stand.
    pub(crate) fn unexpected(
        &mut self,
        node: &Node,
        expected: &str,
        advice: Option<&str>,
    ) -> Reported {
        let mut span = node.span;
        if !matches!(node.kind, NodeKind::Scalar(_)) {
            // The inside is never read, so nothing in it is known not to be a secret.
            self.redact(span);
            // The key then shows more than the first line of what is redacted.
            if span.line != self.key.line {
                span = self.key;
            }
        }
        let advice = advice.map(|advice| format!("; {advice}")).unwrap_or_default();
        self.error(span, format!("expected {expected}, found {}{advice}", node.kind.name()))
    }

    /// Calls `read` one step deeper. A step is `[3]` or `.key`; at the root the dot is left out.
    pub(crate) fn within<T>(&mut self, step: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(if length == 0 { step.trim_start_matches('.') } else { step });
        let value = read(self);
        self.path.truncate(length);
        value
    }

    /// Returns the location of a value at the current path.
    pub(crate) fn location(&self, span: Span, key: Span) -> Location {
        Location { span, key, path: self.path.as_str().into() }
    }

    /// Reads the value of a key.
    pub(crate) fn field<T: FromNode>(&mut self, node: &Node, key: Span) -> Field<T> {
        self.key = key;
        match T::from_node(node, self) {
            Ok(value) => {
                Field::Given(Box::new(Spanned { value, location: self.location(node.span, key) }))
            }
            Err(Reported) => Field::Invalid,
        }
    }

    /// Calls `read` with each entry of a record, and reports unknown and missing keys. For a key
    /// that was probably meant by an unknown one, `read` gets no entry: it counts as invalid.
    pub(crate) fn record(
        &mut self,
        node: &Node,
        shape: &Shape,
        mut read: impl FnMut(&mut Self, usize, Option<&Entry>),
    ) -> Result<(), Reported> {
        let NodeKind::Map(entries) = &node.kind else {
            return Err(self.not_a_mapping(node, shape));
        };
        let mut exists: Vec<bool> =
            shape.keys.iter().map(|key| entries.iter().any(|entry| entry.key == *key)).collect();
        for entry in entries {
            if let Some(index) = shape.index_of(&entry.key) {
                let step = format!(".{}", entry.key);
                self.within(&step, |reader| read(reader, index, Some(entry)));
                continue;
            }
            for index in self.unknown_key(entry, shape, &exists) {
                if !std::mem::replace(&mut exists[index], true) {
                    read(self, index, None);
                }
            }
        }
        for (key, exists) in shape.keys.iter().zip(exists) {
            if !exists && shape.required.contains(&key.as_str()) {
                self.error(node.span, format!("the key `{key}` is missing; write `{key}: …`"));
            }
        }
        Ok(())
    }

    fn not_a_mapping(&mut self, node: &Node, shape: &Shape) -> Reported {
        if let NodeKind::Scalar(Scalar { kind: ScalarKind::Text, text, .. }) = &node.kind
            && !shape.keys.contains(text)
        {
            // The text may be a secret that belongs into the mapping.
            self.redact(node.span);
        }
        let advice = format!("write `{}`", shape.example(&node.kind));
        self.unexpected(node, "a mapping", Some(&advice))
    }

    /// Reports an unknown key, and returns the known ones that it may stand for.
    fn unknown_key(&mut self, entry: &Entry, shape: &Shape, exists: &[bool]) -> Vec<usize> {
        let (key, span) = (entry.key.as_str(), entry.key_span);
        // The key may be a misspelt one whose value is a secret.
        if entry.value.span != span {
            self.redact(entry.value.span);
        }
        let step = if entry.is_plain {
            format!(".{key}")
        } else {
            // Text that is no key may be a secret itself.
            self.redact(span);
            String::new()
        };
        if self.problems.is_full() {
            self.error(span, "unknown key");
            return Vec::new();
        }
        let visible: String = key.chars().filter(|char| !invisible::is_invisible(*char)).collect();
        let (message, meant) = match shape.index_of(&visible) {
            Some(index) if visible != key => (String::new(), vec![index]),
            _ => {
                let hint = shape.hint(&visible, exists);
                (hint.message, hint.meant)
            }
        };
        let message = message_for(key, message);
        self.within(&step, |reader| reader.error(span, message));
        meant
    }
}
