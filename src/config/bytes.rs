//! What a check sends and what it looks for in an answer: a text, or bytes in hex.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_saphyr::granit_parser::ScalarStyle;

use super::ExpectedContent;
use super::hex;
use super::leaf::{Text, scalar};
use super::read::{Field, FromNode, Reader, ScalarType, camel_case, record, text};
use super::tree::{Entry, Node, NodeKind, Scalar, ScalarKind};
use super::value::{FromEnv, FromFile, MASK, Value};

record! {
    /// Bytes that are no text.
    FromHex requires ["hex"] {
        /// Two hex digits for each byte, with blanks between bytes as you like.
        hex: Hex,
    }
}

/// The bytes of a text in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hex(pub Vec<u8>);

scalar!(@rule Hex, "bytes in hex, as in `00 0c`", {"type": "string", "pattern": "^\\s*([0-9a-fA-F]{2}\\s*)+$"}, |scalar: &Scalar, what| {
    if scalar.text == MASK {
        return Err("`…` is what `validate --explain` shows instead of bytes; write the bytes, or `{file: path}`".into());
    }
    // A number may have lost its leading zeros on the way through another tool.
    if scalar.kind == ScalarKind::Number {
        return Err("without quotes this is a number to YAML; put it in quotes".into());
    }
    hex::parse(text(scalar, what)?).map(Hex)
});

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        hex::write(&self.0).serialize(serializer)
    }
}

/// Reads `{hex: …}`. None if the node is something else.
fn from_hex(node: &Node, reader: &mut Reader) -> Option<Option<Vec<u8>>> {
    match &node.kind {
        NodeKind::Map(entries) if matches!(entries.as_slice(), [Entry { key, .. }] if key == "hex") =>
        {
            let record = FromHex::read(node, reader);
            Some(record.and_then(|record| Some(record.hex.value()?.0.clone())))
        }
        _ => None,
    }
}

/// What to send: a value that may also be bytes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Payload(pub super::ValueSource);

impl FromNode for Payload {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if let Some(bytes) = from_hex(node, reader) {
            // They may be a secret, as a text may.
            reader.redact(node.span);
            return Some(Payload(super::ValueSource::Bytes(bytes?)));
        }
        let wrong = match &node.kind {
            NodeKind::Scalar(Scalar { kind: ScalarKind::Text, text, .. })
                if text.contains('\0') =>
            {
                "holds a NUL character, which no text has; write the bytes as `{hex: \"00 0c\"}`, or `{file: path}`"
            }
            NodeKind::Map(entries) if !matches!(entries.as_slice(), [Entry { key, .. }] if key == "file" || key == "fromEnv") => {
                "this mapping is no value; write a text, `{hex: \"00 0c\"}`, `{file: path}` or `{fromEnv: NAME}`"
            }
            _ => "",
        };
        if !wrong.is_empty() {
            reader.redact(node.span);
            reader.error(node.span, wrong);
            return None;
        }
        let value = Value::read(node, reader)?;
        warn_of_escapes(node, reader);
        Some(Payload(value.0))
    }
}

/// Bytes are never written out, as no literal is: they may be a secret.
impl Serialize for Payload {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            super::ValueSource::Bytes(_) => {
                std::collections::BTreeMap::from([("hex", MASK)]).serialize(serializer)
            }
            value => Value(value.clone()).serialize(serializer),
        }
    }
}

impl JsonSchema for Payload {
    fn schema_name() -> Cow<'static, str> {
        "Payload".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text or bytes, or where to take them from, so that no secret need stand in the config.",
            "anyOf": [
                {"type": "string", "not": {"const": MASK}},
                generator.subschema_for::<FromHex>(),
                generator.subschema_for::<FromFile>(),
                generator.subschema_for::<FromEnv>(),
            ]
        })
    }
}

/// What an answer must contain.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ExpectedAnswer(pub ExpectedContent);

impl FromNode for ExpectedAnswer {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        if let Some(bytes) = from_hex(node, reader) {
            return Some(ExpectedAnswer(ExpectedContent::Hex(bytes?)));
        }
        if matches!(node.kind, NodeKind::Map(_)) {
            return reader.expected(node, "text", "write a text, or bytes as `{hex: \"00 0c\"}`");
        }
        BodyText::read(node, reader).map(|text| ExpectedAnswer(ExpectedContent::Text(text.0)))
    }
}

impl Serialize for ExpectedAnswer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            ExpectedContent::Text(text) => text.serialize(serializer),
            ExpectedContent::Hex(bytes) => {
                FromHex { hex: Field::new(Hex(bytes.clone())) }.serialize(serializer)
            }
        }
    }
}

impl JsonSchema for ExpectedAnswer {
    fn schema_name() -> Cow<'static, str> {
        "Answer".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text, or bytes that are none.",
            "anyOf": [{"type": "string", "minLength": 1}, generator.subschema_for::<FromHex>()]
        })
    }
}

/// Text that is looked for in an answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct BodyText(pub String);

impl FromNode for BodyText {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let text = Text::read(node, reader)?;
        warn_of_escapes(node, reader);
        Some(BodyText(text.0))
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

/// Warns of an escape where YAML knows none, which few mean: `'PING\r\n'` ends in four characters, and not in a line end.
/// The text is not shown, as it may be a secret.
fn warn_of_escapes(node: &Node, reader: &mut Reader) {
    let NodeKind::Scalar(scalar) = &node.kind else { return };
    let place = match scalar.style {
        ScalarStyle::DoubleQuoted => return,
        ScalarStyle::SingleQuoted => "in single quotes",
        ScalarStyle::Plain | ScalarStyle::Literal | ScalarStyle::Folded => "without double quotes",
    };
    if has_escape(&scalar.text) {
        let message = format!(
            "{place} a `\\` is a character as any other, so that `\\r\\n` is no line end; put the text in double quotes, as in \
             `\"PING\\r\\n\"` (there `\\\\` stands for a `\\`)"
        );
        reader.warn(node.span, message);
    }
}

/// Whether the text has a `\r`, `\n`, `\t` or `\0`, or a `\x0c` or `\u000c` with its digits.
fn has_escape(text: &str) -> bool {
    text.match_indices('\\').any(|(at, _)| {
        let after = &text[at + 1..];
        let digits = |count: usize| {
            let digits = after.get(1..=count);
            digits.is_some_and(|digits| digits.chars().all(|char| char.is_ascii_hexdigit()))
        };
        match after.chars().next() {
            Some('r' | 'n' | 't' | '0') => true,
            Some('x') => digits(2),
            Some('u') => digits(4),
            _ => false,
        }
    })
}
