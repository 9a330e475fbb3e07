//! A value together with its location in the file.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Serialize, Serializer};

use crate::config::problem::{Location, Reported};

/// A value and its location.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Spanned<T> {
    pub value: T,
    pub location: Location,
}

impl<T> Spanned<T> {
    /// Wraps a value that comes from no file.
    pub(crate) fn new(value: T) -> Self {
        Spanned { value, location: Location::default() }
    }
}

/// The content of one key of a record.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) enum Field<T> {
    /// The key is not written.
    #[default]
    Absent,
    /// The value is wrong and already reported. Nothing more may be concluded from it.
    Invalid,
    /// A good value. It is boxed so that a list of a million mistakes stays small.
    Given(Box<Spanned<T>>),
}

impl<T> Field<T> {
    /// Wraps a value that comes from no file.
    pub(crate) fn new(value: T) -> Self {
        Field::Given(Box::new(Spanned::new(value)))
    }

    /// Wraps a value that comes from no file, if there is one.
    pub(crate) fn from_option(value: Option<T>) -> Self {
        value.map_or(Field::Absent, Field::new)
    }

    /// Replaces an absent field by a value that comes from no file.
    pub(crate) fn or_new(self, value: T) -> Self {
        if self.is_absent() { Field::new(value) } else { self }
    }

    /// Returns true if the key is not written.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Field::Absent)
    }

    /// Returns the value with its location, if there is a good one.
    pub(crate) fn given(&self) -> Option<&Spanned<T>> {
        match self {
            Field::Given(spanned) => Some(spanned),
            _ => None,
        }
    }

    /// Returns the value, if there is a good one.
    pub(crate) fn value(&self) -> Option<&T> {
        self.given().map(|spanned| &spanned.value)
    }
}

impl<T: Clone> Field<T> {
    /// Returns the value of a key that the reader requires.
    pub(crate) fn required(&self) -> Result<T, Reported> {
        self.value().cloned().ok_or(Reported)
    }

    /// Returns the value, or the default if the key is absent.
    pub(crate) fn or(&self, default: T) -> Result<T, Reported> {
        Ok(self.optional()?.unwrap_or(default))
    }

    /// Returns the value if the key is written.
    pub(crate) fn optional(&self) -> Result<Option<T>, Reported> {
        match self {
            Field::Absent => Ok(None),
            Field::Invalid => Err(Reported),
            Field::Given(spanned) => Ok(Some(spanned.value.clone())),
        }
    }
}

impl<T: Serialize> Serialize for Field<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

/// In the JSON Schema a field is the value that it holds.
impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
