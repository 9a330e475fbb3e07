//! Values that may be secrets: a text, or the file or variable that holds it. Also mappings from
//! names to such values.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::reader::{FromNode, Reader, ScalarType, message_for};
use super::record::record;
use super::scalars::{EnvVarName, FilePath};
use super::spanned::{Field, Spanned};
use crate::config::problem::Reported;
use crate::config::yaml::node::{Entry, Node, NodeKind, Scalar, ScalarKind};

record! {
    /// A file that holds the value. The daemon reads it again when it has changed, as a rotated
    /// Secret does.
    FromFile requires ["file"] {
        /// The path of the file.
        file: FilePath,
    }
}

record! {
    /// A variable of the daemon's own environment that holds the value.
    FromEnv requires ["fromEnv"] {
        /// The name of the variable.
        from_env: EnvVarName,
    }
}

/// A string that may be a secret, or the place to read it from. `Debug` never shows a literal.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum ValueSource {
    /// The text itself.
    Literal(String),
    /// The bytes themselves, where they are not text.
    Bytes(Vec<u8>),
    /// A file. It is read at each use, so that a rotated Secret works.
    File(PathBuf),
    /// A variable of the daemon's own environment.
    FromEnv(String),
}

impl ValueSource {
    /// Returns true if the config holds the value itself.
    pub(crate) fn is_literal(&self) -> bool {
        matches!(self, ValueSource::Literal(_) | ValueSource::Bytes(_))
    }
}

impl fmt::Debug for ValueSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueSource::Literal(_) => f.write_str("Literal(…)"),
            ValueSource::Bytes(_) => f.write_str("Bytes(…)"),
            ValueSource::File(path) => write!(f, "File({})", path.display()),
            ValueSource::FromEnv(name) => write!(f, "FromEnv({name})"),
        }
    }
}

/// The mark that `validate --explain` shows for a literal. The reader rejects it, because an
/// explained config would otherwise check with the mark.
pub(crate) const MASK: &str = "…";

const VALUE_FORMS: &str = "write a text, `{file: path}` or `{fromEnv: NAME}`";

impl FromNode for ValueSource {
    fn from_node(node: &Node, reader: &mut Reader) -> Result<Self, Reported> {
        let entries = match &node.kind {
            NodeKind::Scalar(scalar) => return literal(node, scalar, reader),
            NodeKind::List(_) => {
                return Err(reader.unexpected(node, "one value", Some(VALUE_FORMS)));
            }
            NodeKind::Map(entries) => entries.as_slice(),
        };
        let message = match entries {
            [Entry { key, .. }] if key == "file" => {
                let record = FromFile::from_node(node, reader)?;
                return Ok(ValueSource::File(record.file.required()?.0));
            }
            [Entry { key, .. }] if key == "fromEnv" => {
                let record = FromEnv::from_node(node, reader)?;
                return Ok(ValueSource::FromEnv(record.from_env.required()?.0));
            }
            [Entry { key, .. }] if key == "hex" => {
                format!("`hex` is only for the bytes of `send` and `expect`; {VALUE_FORMS}")
            }
            _ => format!("this mapping is not a value; {VALUE_FORMS}"),
        };
        reader.redact(node.span);
        Err(reader.error(node.span, message))
    }
}

/// Reads a value that the config holds itself.
fn literal(node: &Node, scalar: &Scalar, reader: &mut Reader) -> Result<ValueSource, Reported> {
    if scalar.kind != ScalarKind::Null {
        reader.redact(node.span);
    }
    let message = match scalar.kind {
        ScalarKind::Text if scalar.text == MASK => {
            "`…` is what `validate --explain` shows instead of a value; write the value, \
             `{file: path}` or `{fromEnv: NAME}`"
        }
        ScalarKind::Text if scalar.text.contains('\0') => "has a NUL character; remove it",
        ScalarKind::Text => return Ok(ValueSource::Literal(scalar.text.clone())),
        ScalarKind::Null => {
            "the value is missing; write a text, `{file: path}` or `{fromEnv: NAME}`"
        }
        ScalarKind::Number => "without quotes this is a number to YAML; put it in quotes",
        ScalarKind::Bool(_) => "without quotes this is true or false to YAML; put it in quotes",
    };
    Err(reader.error(node.span, message))
}

/// A literal is written as a mask, because it may be a secret.
impl Serialize for ValueSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            ValueSource::Literal(_) => serializer.serialize_str(MASK),
            ValueSource::Bytes(_) => BTreeMap::from([("hex", MASK)]).serialize(serializer),
            ValueSource::File(path) => {
                FromFile { file: Field::new(FilePath(path.clone())) }.serialize(serializer)
            }
            ValueSource::FromEnv(name) => {
                FromEnv { from_env: Field::new(EnvVarName(name.clone())) }.serialize(serializer)
            }
        }
    }
}

impl JsonSchema for ValueSource {
    fn schema_name() -> Cow<'static, str> {
        "Value".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text, or the file or variable that holds it, so that no secret \
                            has to stand in the config.",
            "anyOf": [
                {"type": "string", "not": {"const": MASK}, "x-type": "text"},
                generator.subschema_for::<FromFile>(),
                generator.subschema_for::<FromEnv>(),
            ]
        })
    }
}

/// The name of a value in a mapping.
pub(crate) trait ValueName: ScalarType {
    /// Returns the name as it is written.
    fn text(&self) -> &str;

    /// Returns a form that is equal for names with the same meaning.
    fn identity(&self) -> String;
}

/// Values by name, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct NamedValues<N>(pub Vec<(Spanned<N>, Field<ValueSource>)>);

impl<N: ValueName> NamedValues<N> {
    /// Makes the mapping of values that come from no file.
    pub(crate) fn new(values: &[(String, ValueSource)], name: impl Fn(String) -> N) -> Self {
        let pair = |(key, value): &(String, ValueSource)| {
            (Spanned::new(name(key.clone())), Field::new(value.clone()))
        };
        NamedValues(values.iter().map(pair).collect())
    }

    /// Returns the names with their values.
    pub(crate) fn pairs(&self) -> Result<Vec<(String, ValueSource)>, Reported> {
        let pair = |(name, value): &(Spanned<N>, Field<ValueSource>)| {
            Ok((name.value.text().to_owned(), value.required()?))
        };
        self.0.iter().map(pair).collect()
    }

    fn identities(&self) -> BTreeSet<String> {
        self.0.iter().map(|(name, _)| name.value.identity()).collect()
    }
}

impl<N: ValueName> FromNode for NamedValues<N> {
    fn from_node(node: &Node, reader: &mut Reader) -> Result<Self, Reported> {
        let NodeKind::Map(entries) = &node.kind else {
            reader.redact(node.span);
            let advice = "write `{NAME: value}`";
            return Err(reader.unexpected(node, "a mapping of names to values", Some(advice)));
        };
        let mut values = Vec::new();
        let mut lines = BTreeMap::new();
        for entry in entries {
            let Ok((name, value)) = named_value::<N>(entry, reader) else { continue };
            if let Some(first) = lines.insert(name.value.identity(), entry.key_span.line) {
                let message = format!("the same name is already on line {first}; write it once");
                reader.within(&format!(".{}", entry.key), |reader| {
                    reader.error(entry.key_span, message)
                });
            }
            values.push((name, value));
        }
        Ok(NamedValues(values))
    }

    /// Returns the values that only the lower layer has, then all of this layer in its own order.
    fn overlay(&self, lower: &Self) -> Self {
        let own = self.identities();
        let inherited = lower.0.iter().filter(|(name, _)| !own.contains(&name.value.identity()));
        NamedValues(inherited.chain(&self.0).cloned().collect())
    }

    fn intersect(&self, other: &Self) -> Self {
        let others = other.identities();
        let is_common = |(name, _): &&(Spanned<N>, _)| others.contains(&name.value.identity());
        NamedValues(self.0.iter().filter(is_common).cloned().collect())
    }
}

/// Reads one entry of a mapping from names to values.
fn named_value<N: ValueName>(
    entry: &Entry,
    reader: &mut Reader,
) -> Result<(Spanned<N>, Field<ValueSource>), Reported> {
    let message = match N::parse(&Scalar::text(entry.key.clone())) {
        Ok(value) if entry.is_plain => {
            return reader.within(&format!(".{}", entry.key), |reader| {
                let location = reader.location(entry.key_span, entry.key_span);
                let field = reader.field(&entry.value, entry.key_span);
                Ok((Spanned { value, location }, field))
            });
        }
        Ok(_) => "this name has no value; write `name: value`".into(),
        Err(message) => message,
    };
    if !entry.is_plain {
        reader.redact(entry.key_span);
    }
    if entry.value.span != entry.key_span {
        reader.redact(entry.value.span);
    }
    Err(reader.error(entry.key_span, message_for(&entry.key, message)))
}

impl<N: ValueName> Serialize for NamedValues<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name.value.text(), value)?;
        }
        map.end()
    }
}

impl<N: JsonSchema> JsonSchema for NamedValues<N> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "NamedValues".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = <BTreeMap<String, ValueSource>>::json_schema(generator);
        schema.insert("propertyNames".into(), N::json_schema(generator).into());
        schema
    }
}
