//! The JSON Schema of the config, for editors and for config/schema.json.

use schemars::Schema;
use schemars::transform::{RecursiveTransform, Transform};

use super::records::Config;

/// The identifier of the schema, with the version of the language. It is a name and no address:
/// editors read the file that a modeline gives.
const SCHEMA_ID: &str = "urn:external-endpoints:config:v1";

/// Returns the JSON Schema of the config.
pub fn schema() -> serde_json::Value {
    let mut schema = annotated_schema();
    let mut remove_annotations = RecursiveTransform(|schema: &mut Schema| {
        schema.remove("x-type");
        schema.remove("x-limits");
    });
    remove_annotations.transform(&mut schema);
    schema.into()
}

/// Returns the schema with `x-type` and `x-limits`, from which the reference is written.
pub(super) fn annotated_schema() -> Schema {
    let mut schema = schemars::schema_for!(Config);
    schema.insert("$id".into(), SCHEMA_ID.into());
    schema.insert("title".into(), "external-endpoints config".into());
    RecursiveTransform(tidy).transform(&mut schema);
    schema
}

/// Removes empty lists of required keys, and the line breaks that descriptions have in the source.
fn tidy(schema: &mut Schema) {
    let required = schema.get("required").and_then(|required| required.as_array());
    if required.is_some_and(|required| required.is_empty()) {
        schema.remove("required");
    }
    if let Some(serde_json::Value::String(text)) = schema.get_mut("description") {
        *text = text.replace('\n', " ");
    }
}
