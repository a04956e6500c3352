//! From what schemars makes of a type to the structural schema that apiextensions v1 takes.

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

/// The structural schema of a type.
pub(super) fn schema_of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2019_09().with(|settings| {
        settings.inline_subschemas = true;
        settings.meta_schema = None;
    });
    let mut schema = SchemaGenerator::new(settings).into_root_schema_for::<T>().to_value();
    simplify(&mut schema);
    schema
}

fn simplify(schema: &mut Value) {
    let Value::Object(fields) = schema else { return };
    fields.remove("title");
    take_the_variant_that_is_not_null(fields);
    take_words_of_an_enum(fields);
    if let Some(Value::Array(types)) = fields.get("type") {
        let some = types.iter().find(|name| *name != "null").cloned();
        fields.insert("type".into(), some.unwrap_or(Value::Null));
    }
    if let Some(Value::Array(words)) = fields.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    // Null means the same as absent, and an empty list need not be written into users' objects.
    let is_nothing = |default: &Value| default.is_null() || *default == Value::Array(vec![]);
    if fields.get("default").is_some_and(is_nothing) {
        fields.remove("default");
    }
    if let Some(Value::String(text)) = fields.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(Value::Object(properties)) = fields.get_mut("properties") {
        properties.values_mut().for_each(simplify);
    }
    if let Some(items) = fields.get_mut("items") {
        simplify(items);
    }
}

/// `Option<T>` of a struct or an enum: `anyOf: [T, null]`.
fn take_the_variant_that_is_not_null(fields: &mut Map<String, Value>) {
    let Some(Value::Array(variants)) = fields.remove("anyOf") else { return };
    let some = variants.into_iter().find(|variant| variant["type"] != "null");
    let Some(Value::Object(some)) = some else { return };
    for (key, value) in some {
        fields.entry(key).or_insert(value);
    }
}

/// An enum of which every variant has its own description: `oneOf: [{const: ...}, ...]`.
fn take_words_of_an_enum(fields: &mut Map<String, Value>) {
    let Some(Value::Array(variants)) = fields.remove("oneOf") else { return };
    let words = variants.iter().filter_map(|variant| variant.get("const").cloned()).collect();
    fields.insert("type".into(), "string".into());
    fields.insert("enum".into(), Value::Array(words));
}
