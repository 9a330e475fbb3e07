//! Values of the config that may be secrets: a text, or where to take it from; and mappings from names to such values.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use super::leaf::{EnvVarName, FilePath, HeaderName, VariableName};
use super::read::{Field, FromNode, Reader, ScalarType, Spanned, camel_case, message_for, record};
use super::tree::{Entry, Node, NodeKind, Scalar, ScalarKind};

record! {
    /// A file that holds the value. It is read at each use.
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

/// A string that may be a secret, or where to take it from.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value(pub super::ValueSource);

/// What `validate --explain` shows for a literal. Refused on reading, or an explained config would check with it.
pub(super) const MASK: &str = "…";

const VALUE_FORMS: &str = "write a text, `{file: path}` or `{fromEnv: NAME}`";

impl FromNode for Value {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        match &node.kind {
            NodeKind::Scalar(scalar) => {
                if scalar.kind != ScalarKind::Null {
                    reader.redact(node.span);
                }
                let wrong = match scalar.kind {
                    ScalarKind::Text if scalar.text == MASK => {
                        "`…` is what `validate --explain` shows instead of a value; write the value, `{file: path}` or \
                         `{fromEnv: NAME}`"
                    }
                    ScalarKind::Text if scalar.text.contains('\0') => {
                        "holds a NUL character; take it away"
                    }
                    ScalarKind::Text => {
                        return Some(Value(super::ValueSource::Literal(scalar.text.clone())));
                    }
                    ScalarKind::Null => {
                        "the value is missing; write a text, `{file: path}` or `{fromEnv: NAME}`"
                    }
                    ScalarKind::Number => {
                        "without quotes this is a number to YAML; put it in quotes"
                    }
                    ScalarKind::Bool(_) => {
                        "without quotes this is true or false to YAML; put it in quotes"
                    }
                };
                reader.error(node.span, wrong);
                None
            }
            NodeKind::Map(entries) => match entries.as_slice() {
                [Entry { key, .. }] if key == "file" => {
                    let record = FromFile::read(node, reader)?;
                    Some(Value(super::ValueSource::File(record.file.value()?.0.clone())))
                }
                [Entry { key, .. }] if key == "fromEnv" => {
                    let record = FromEnv::read(node, reader)?;
                    Some(Value(super::ValueSource::FromEnv(record.from_env.value()?.0.clone())))
                }
                [Entry { key, .. }] if key == "hex" => {
                    reader.redact(node.span);
                    reader.error(
                        node.span,
                        format!("`hex` is for the bytes of `send` and `expect`; {VALUE_FORMS}"),
                    );
                    None
                }
                _ => {
                    reader.redact(node.span);
                    reader.error(node.span, format!("this mapping is no value; {VALUE_FORMS}"));
                    None
                }
            },
            NodeKind::List(_) => reader.expected(node, "one value", VALUE_FORMS),
        }
    }
}

/// A literal is never written out: it may be a secret.
impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            super::ValueSource::Literal(_) | super::ValueSource::Bytes(_) => {
                serializer.serialize_str(MASK)
            }
            super::ValueSource::File(path) => {
                FromFile { file: Field::new(FilePath(path.clone())) }.serialize(serializer)
            }
            super::ValueSource::FromEnv(name) => {
                FromEnv { from_env: Field::new(EnvVarName(name.clone())) }.serialize(serializer)
            }
        }
    }
}

impl JsonSchema for Value {
    fn schema_name() -> Cow<'static, str> {
        "Value".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A text, or where to take it from, so that no secret need stand in the config.",
            "anyOf": [
                {"type": "string", "not": {"const": MASK}},
                generator.subschema_for::<FromFile>(),
                generator.subschema_for::<FromEnv>(),
            ]
        })
    }
}

/// What values are known by.
pub(super) trait ValueName: ScalarType {
    fn text(&self) -> &str;

    /// Equal for names that mean the same.
    fn identity(&self) -> String;
}

impl ValueName for HeaderName {
    fn text(&self) -> &str {
        &self.0
    }

    fn identity(&self) -> String {
        self.0.to_ascii_lowercase()
    }
}

impl ValueName for VariableName {
    fn text(&self) -> &str {
        &self.0
    }

    fn identity(&self) -> String {
        self.0.clone()
    }
}

/// Values by name, in the order of the file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct NamedValues<N>(pub Vec<(Spanned<N>, Field<Value>)>);

impl<N: ValueName> NamedValues<N> {
    fn names(&self) -> BTreeSet<String> {
        self.0.iter().map(|(name, _)| name.value.identity()).collect()
    }
}

impl<N: ValueName> FromNode for NamedValues<N> {
    fn read(node: &Node, reader: &mut Reader) -> Option<Self> {
        let NodeKind::Map(entries) = &node.kind else {
            reader.redact(node.span);
            return reader.expected(node, "a mapping of names to values", "write `{NAME: value}`");
        };
        let mut values = Vec::new();
        let mut lines = BTreeMap::new();
        for entry in entries {
            let Some((name, value)) = named::<N>(entry, reader) else { continue };
            if let Some(first) = lines.insert(name.value.identity(), entry.key_span.line) {
                let message = format!("the same name is already on line {first}; write it once");
                reader.within(&format!(".{}", entry.key), |reader| {
                    reader.error(entry.key_span, message)
                });
            }
            values.push((name, value));
        }
        Some(NamedValues(values))
    }

    /// What only the lower layer has comes first; then all of this, in its own order.
    fn overlay(&self, lower: &Self) -> Self {
        let own = self.names();
        let inherited = lower.0.iter().filter(|(name, _)| !own.contains(&name.value.identity()));
        NamedValues(inherited.chain(&self.0).cloned().collect())
    }

    fn intersect(&self, other: &Self) -> Self {
        let others = other.names();
        NamedValues(
            self.0
                .iter()
                .filter(|(name, _)| others.contains(&name.value.identity()))
                .cloned()
                .collect(),
        )
    }
}

fn named<N: ValueName>(entry: &Entry, reader: &mut Reader) -> Option<(Spanned<N>, Field<Value>)> {
    let scalar = Scalar::text(entry.key.clone());
    match N::parse(&scalar) {
        Ok(name) if entry.is_plain => reader.within(&format!(".{}", entry.key), |reader| {
            let place = reader.location(entry.key_span, entry.key_span);
            Some((
                Spanned { value: name, location: place },
                reader.field(&entry.value, entry.key_span),
            ))
        }),
        parsed => {
            let message = parsed.err().unwrap_or_else(|| {
                "a name stands here without a value; write `name: value`".into()
            });
            let message = message_for(&entry.key, message);
            if !entry.is_plain {
                reader.redact(entry.key_span);
            }
            if entry.value.span != entry.key_span {
                reader.redact(entry.value.span);
            }
            reader.error(entry.key_span, message);
            None
        }
    }
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
        "Values".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = <BTreeMap<String, Value>>::json_schema(generator);
        schema.insert("propertyNames".into(), N::json_schema(generator).into());
        schema
    }
}
