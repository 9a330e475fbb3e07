//! The data that a check sends and the data that an answer must contain: a text, or bytes in hex.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_saphyr::granit_parser::ScalarStyle;

use super::hex;
use super::reader::{FromNode, Reader};
use super::record::record;
use super::scalars::{Text, scalar, text};
use super::spanned::Field;
use super::value::{FromEnv, FromFile, MASK, ValueSource};
use crate::config::problem::Reported;
use crate::config::yaml::node::{Entry, Node, NodeKind, Scalar, ScalarKind};

record! {
    /// Bytes that are not text.
    FromHex requires ["hex"] {
        /// Two hex digits for each byte. Spaces between bytes are allowed.
        hex: Hex,
    }
}

/// Bytes that are written in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hex(pub Vec<u8>);

scalar!(
    Hex,
    "bytes in hex, as in `00 0c`",
    {"type": "string", "pattern": "^\\s*([0-9a-fA-F]{2}\\s*)+$"},
    |scalar: &Scalar, expected| {
        if scalar.text == MASK {
            return Err("`…` is what `validate --explain` shows instead of bytes; \
                        write the bytes, or `{file: path}`"
                .into());
        }
        // A number may have lost its leading zeros on the way through another tool.
        if scalar.kind == ScalarKind::Number {
            return Err("without quotes this is a number to YAML; put it in quotes".into());
        }
        hex::parse(text(scalar, expected)?).map(Hex)
    }
);

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        hex::write(&self.0).serialize(serializer)
    }
}

/// Returns true if the node is `{hex: …}`.
fn is_hex(node: &Node) -> bool {
    matches!(
        &node.kind,
        NodeKind::Map(entries) if matches!(&entries[..], [Entry { key, .. }] if key == "hex")
    )
}

fn read_hex(node: &Node, reader: &mut Reader) -> Result<Vec<u8>, Reported> {
    Ok(FromHex::from_node(node, reader)?.hex.required()?.0)
}

/// The data to send: a value that may also be bytes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Payload(pub ValueSource);

impl FromNode for Payload {
    fn from_node(node: &Node, reader: &mut Reader) -> Result<Self, Reported> {
        if is_hex(node) {
            let bytes = read_hex(node, reader);
            // The bytes may be a secret, as a text may.
            reader.redact(node.span);
            return Ok(Payload(ValueSource::Bytes(bytes?)));
        }
        let message = match &node.kind {
            NodeKind::Scalar(Scalar { kind: ScalarKind::Text, text, .. })
                if text.contains('\0') =>
            {
                Some(
                    "has a NUL character, which no text has; write the bytes as \
                     `{hex: \"00 0c\"}`, or `{file: path}`",
                )
            }
            NodeKind::Map(entries) if !is_reference(entries) => Some(
                "this mapping is not a value; write a text, `{hex: \"00 0c\"}`, `{file: path}` \
                 or `{fromEnv: NAME}`",
            ),
            _ => None,
        };
        if let Some(message) = message {
            reader.redact(node.span);
            return Err(reader.error(node.span, message));
        }
        let value = ValueSource::from_node(node, reader)?;
        warn_of_escapes(node, reader);
        Ok(Payload(value))
    }
}

/// Returns true for `{file: …}` and `{fromEnv: …}`.
fn is_reference(entries: &[Entry]) -> bool {
    matches!(entries, [Entry { key, .. }] if key == "file" || key == "fromEnv")
}

impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl JsonSchema for Payload {
    fn schema_name() -> Cow<'static, str> {
        "Payload".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text or bytes, or the file or variable that holds them, so that no \
                            secret has to stand in the config.",
            "anyOf": [
                {"type": "string", "not": {"const": MASK}, "x-type": "text"},
                generator.subschema_for::<FromHex>(),
                generator.subschema_for::<FromFile>(),
                generator.subschema_for::<FromEnv>(),
            ]
        })
    }
}

/// The data that an answer must contain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExpectedContent {
    /// A text.
    Text(String),
    /// Bytes that are not text. They are shown in hex.
    Hex(Vec<u8>),
}

impl ExpectedContent {
    /// Returns the bytes to search for.
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            ExpectedContent::Text(text) => text.as_bytes(),
            ExpectedContent::Hex(bytes) => bytes,
        }
    }
}

impl From<&str> for ExpectedContent {
    fn from(text: &str) -> Self {
        ExpectedContent::Text(text.into())
    }
}

impl FromNode for ExpectedContent {
    fn from_node(node: &Node, reader: &mut Reader) -> Result<Self, Reported> {
        if is_hex(node) {
            return Ok(ExpectedContent::Hex(read_hex(node, reader)?));
        }
        if matches!(node.kind, NodeKind::Map(_)) {
            let advice = "write a text, or bytes as `{hex: \"00 0c\"}`";
            return Err(reader.unexpected(node, "text", Some(advice)));
        }
        Ok(ExpectedContent::Text(BodyText::from_node(node, reader)?.0))
    }
}

impl Serialize for ExpectedContent {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ExpectedContent::Text(text) => text.serialize(serializer),
            ExpectedContent::Hex(bytes) => {
                FromHex { hex: Field::new(Hex(bytes.clone())) }.serialize(serializer)
            }
        }
    }
}

impl JsonSchema for ExpectedContent {
    fn schema_name() -> Cow<'static, str> {
        "Answer".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text, or bytes that are not text.",
            "anyOf": [Text::json_schema(generator), generator.subschema_for::<FromHex>()]
        })
    }
}

/// A text that an answer must contain.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub(crate) struct BodyText(pub String);

impl FromNode for BodyText {
    fn from_node(node: &Node, reader: &mut Reader) -> Result<Self, Reported> {
        let text = Text::from_node(node, reader)?;
        warn_of_escapes(node, reader);
        Ok(BodyText(text.0))
    }
}

impl JsonSchema for BodyText {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        Text::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Text::json_schema(generator)
    }
}

/// Warns of an escape where YAML has none: `'PING\r\n'` ends with four characters and not with a
/// line end, which few people mean. The text is not shown, because it may be a secret.
fn warn_of_escapes(node: &Node, reader: &mut Reader) {
    let NodeKind::Scalar(scalar) = &node.kind else { return };
    let place = match scalar.style {
        ScalarStyle::DoubleQuoted => return,
        ScalarStyle::SingleQuoted => "in single quotes",
        ScalarStyle::Plain | ScalarStyle::Literal | ScalarStyle::Folded => "without double quotes",
    };
    if has_escape(&scalar.text) {
        let message = format!(
            "{place} a `\\` is an ordinary character, so `\\r\\n` is not a line end; put the text \
             in double quotes, as in `\"PING\\r\\n\"` (there `\\\\` stands for a `\\`)"
        );
        reader.warn(node.span, message);
    }
}

/// Returns true if the text has a `\r`, `\n`, `\t` or `\0`, or a `\x0c` or `\u000c` with its
/// digits.
fn has_escape(text: &str) -> bool {
    text.match_indices('\\').any(|(at, _)| {
        let after = &text[at + 1..];
        let has_digits = |count: usize| {
            let digits = after.get(1..=count);
            digits.is_some_and(|digits| digits.chars().all(|char| char.is_ascii_hexdigit()))
        };
        match after.chars().next() {
            Some('r' | 'n' | 't' | '0') => true,
            Some('x') => has_digits(2),
            Some('u') => has_digits(4),
            _ => false,
        }
    })
}
