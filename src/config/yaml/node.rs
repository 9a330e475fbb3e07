//! The nodes of the YAML tree: scalars, lists and mappings, each with its place in the text.

use std::sync::Arc;

use serde_saphyr::granit_parser::ScalarStyle;

use crate::config::problem::Span;

/// One value of the file.
#[derive(Debug)]
pub(crate) struct Node {
    pub span: Span,
    pub kind: NodeKind,
    /// The number of values in it, with itself and with those behind aliases.
    pub(super) expanded_size: usize,
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
    /// True if the key may be shown, because it looks like one and a colon follows it. Otherwise it
    /// may be a secret that lost its key.
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
    /// Returns a text that stands nowhere in the file.
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
    /// Returns a noun phrase for messages.
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
    /// Returns the text of a scalar, and an empty text for anything else.
    pub(crate) fn text(&self) -> &str {
        match &self.kind {
            NodeKind::Scalar(scalar) => &scalar.text,
            _ => "",
        }
    }

    /// Returns the value of a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Node> {
        let NodeKind::Map(entries) = &self.kind else { return None };
        entries.iter().find(|entry| entry.key == key).map(|entry| &*entry.value)
    }

    /// Returns the text of a key of a mapping, and an empty text if there is none.
    pub(crate) fn text_at(&self, key: &str) -> &str {
        self.get(key).map_or("", Node::text)
    }

    /// Returns true for a ConfigMap, which is no config itself.
    pub(crate) fn is_config_map(&self) -> bool {
        self.text_at("kind") == "ConfigMap" && self.get("data").is_some()
    }
}

/// Returns the type that the core schema of YAML 1.2 gives a scalar.
pub(super) fn scalar_kind(text: &str, style: ScalarStyle) -> ScalarKind {
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
