//! What a JSON Schema says about a value that is not known yet: its types, its fields, the values it allows.
//!
//! Knows the part of JSON Schema that schemars writes for Rust types. Whatever it does not understand is
//! *unknown*, and unknown is never a mistake. This file must not know melodies or extensions.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::message_pack::Key;

/// LIMIT: references and alternatives that are followed inside each other; deeper is unknown.
const DEPTH_MAX: usize = 16;

/// A schema inside its document.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schema<'d> {
    document: &'d Value,
    node: &'d Value,
    depth: usize,
}

/// Where a key leads.
#[derive(Clone, Debug)]
pub(super) enum Inside<'d> {
    Found(Schema<'d>),
    /// Nothing is said about it.
    Unknown,
    /// There is no such field; these there are.
    NoField(BTreeSet<&'d str>),
    /// The value has other types, which have no such fields or elements.
    WrongType(BTreeSet<&'d str>),
}

/// The document `text`; `None` if it is no schema.
pub(super) fn parse(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok().filter(|value: &Value| value.is_object() || value.is_boolean())
}

/// The schema of an array of what `document` describes.
pub(super) fn array_of(document: &Value) -> Value {
    let mut items = document.clone();
    let definitions = items.as_object_mut().and_then(|items| items.remove("$defs"));
    json!({ "type": "array", "items": items, "$defs": definitions.unwrap_or_else(|| Value::Object(Map::new())) })
}

impl<'d> Schema<'d> {
    pub(super) fn of(document: &'d Value) -> Self {
        Self { document, node: document, depth: 0 }
    }

    fn at(self, node: &'d Value) -> Option<Self> {
        (self.depth < DEPTH_MAX).then_some(Self { document: self.document, node, depth: self.depth + 1 })
    }

    /// The same schema behind its references; `None` where one leads nowhere.
    fn resolved(self) -> Option<Self> {
        let mut schema = self;
        while let Some(reference) = schema.node.get("$ref") {
            let pointer = reference.as_str()?.strip_prefix('#')?;
            schema = schema.at(self.document.pointer(pointer)?)?;
        }
        Some(schema)
    }

    /// The alternatives of an `anyOf` or `oneOf`; the schema itself if it has none.
    fn alternatives(self) -> Option<Vec<Self>> {
        let schema = self.resolved()?;
        let list = schema.node.get("anyOf").or_else(|| schema.node.get("oneOf")).and_then(Value::as_array);
        match list {
            None => Some(vec![schema]),
            Some(list) => {
                let mut all = Vec::new();
                for alternative in list {
                    all.extend(schema.at(alternative)?.alternatives()?);
                }
                Some(all)
            }
        }
    }

    /// The types that a value can have; `None` if any.
    pub(super) fn types(self) -> Option<BTreeSet<&'d str>> {
        let mut types = BTreeSet::new();
        for schema in self.alternatives()? {
            match schema.node.get("type") {
                Some(Value::String(name)) => drop(types.insert(name.as_str())),
                Some(Value::Array(names)) => types.extend(names.iter().filter_map(Value::as_str)),
                _ => {
                    let values = schema.listed_values()?;
                    for value in values {
                        types.insert(type_of(value));
                    }
                }
            }
        }
        Some(types)
    }

    fn listed_values(self) -> Option<Vec<&'d Value>> {
        match (self.node.get("const"), self.node.get("enum")) {
            (Some(value), _) => Some(vec![value]),
            (None, Some(Value::Array(values))) => Some(values.iter().collect()),
            _ => None,
        }
    }

    /// The values that are allowed, if they are listed.
    pub(super) fn allowed_values(self) -> Option<Vec<&'d Value>> {
        let mut allowed = Vec::new();
        for schema in self.alternatives()? {
            match (schema.listed_values(), schema.node.get("type")) {
                (Some(values), _) => allowed.extend(values),
                (None, Some(Value::String(name))) if name == "null" => allowed.push(&Value::Null),
                _ => return None,
            }
        }
        Some(allowed)
    }

    /// The least and the greatest number that is allowed.
    pub(super) fn bounds(self) -> (Option<f64>, Option<f64>) {
        let alternatives = self.alternatives().unwrap_or_default();
        let is_number = |schema: &&Self| schema.node.get("type").and_then(Value::as_str) != Some("null");
        match alternatives.iter().filter(is_number).collect::<Vec<_>>()[..] {
            [only] => {
                let bound = |name| only.node.get(name).and_then(Value::as_f64);
                (bound("minimum"), bound("maximum"))
            }
            _ => (None, None),
        }
    }

    /// Where `key` leads in a value of this schema.
    pub(super) fn inside(self, key: &Key) -> Inside<'d> {
        let Some(alternatives) = self.alternatives() else { return Inside::Unknown };
        let mut found = Vec::new();
        let mut fields = BTreeSet::new();
        let mut other_types = BTreeSet::new();
        for schema in alternatives {
            match schema.inside_one(key) {
                Inside::Found(inside) => found.push(inside),
                Inside::Unknown => return Inside::Unknown,
                Inside::NoField(known) => fields.extend(known),
                Inside::WrongType(types) => other_types.extend(types),
            }
        }
        match found[..] {
            [only] => Inside::Found(only),
            [] if !fields.is_empty() => Inside::NoField(fields),
            [] => Inside::WrongType(other_types),
            // Several alternatives have it, and it may be something else in each.
            _ => Inside::Unknown,
        }
    }

    fn inside_one(self, key: &Key) -> Inside<'d> {
        let Some(types) = self.types() else { return Inside::Unknown };
        let container = match key {
            Key::Field(_) => "object",
            Key::Index(_) => "array",
        };
        if !types.contains(container) {
            return Inside::WrongType(types);
        }
        match key {
            Key::Field(name) => {
                let properties = self.node.get("properties").and_then(Value::as_object);
                if let Some(found) = properties.and_then(|properties| properties.get(name)) {
                    return self.at(found).map_or(Inside::Unknown, Inside::Found);
                }
                match self.node.get("additionalProperties").or_else(|| self.node.get("unevaluatedProperties"))
                {
                    Some(others) if others.is_object() => {
                        self.at(others).map_or(Inside::Unknown, Inside::Found)
                    }
                    Some(Value::Bool(true)) => Inside::Unknown,
                    others => match properties {
                        _ if self.node.get("allOf").is_some() => Inside::Unknown,
                        Some(properties) => Inside::NoField(properties.keys().map(String::as_str).collect()),
                        None if others.is_some() => Inside::NoField(BTreeSet::new()),
                        None => Inside::Unknown,
                    },
                }
            }
            Key::Index(index) => {
                let prefix = self.node.get("prefixItems").and_then(Value::as_array);
                let item =
                    prefix.and_then(|prefix| prefix.get(*index as usize)).or_else(|| self.node.get("items"));
                item.and_then(|item| self.at(item)).map_or(Inside::Unknown, Inside::Found)
            }
        }
    }

    /// The fields of an object, and which of them must be there; `None` where nothing definite is said.
    pub(super) fn fields(self) -> Option<(BTreeSet<&'d str>, Vec<&'d str>)> {
        let object = match self
            .alternatives()?
            .into_iter()
            .filter(|schema| schema.is_object())
            .collect::<Vec<_>>()[..]
        {
            [only] => only,
            _ => return None,
        };
        let properties = object.node.get("properties").and_then(Value::as_object)?;
        let required = object.node.get("required").and_then(Value::as_array);
        let required = required.into_iter().flatten().filter_map(Value::as_str).collect();
        Some((properties.keys().map(String::as_str).collect(), required))
    }

    /// Whether this is what a Rust struct without fields becomes: an object of which nothing more is said.
    pub(super) fn is_empty_struct(self) -> bool {
        let says_more =
            ["properties", "additionalProperties", "unevaluatedProperties", "patternProperties", "allOf"];
        match self.alternatives().as_deref() {
            Some([only]) => {
                only.node.get("type").and_then(Value::as_str) == Some("object")
                    && says_more.iter().all(|key| only.node.get(key).is_none())
            }
            _ => false,
        }
    }

    fn is_object(self) -> bool {
        self.types().is_none_or(|types| types.contains("object"))
    }
}

/// The JSON type of a value.
pub(super) fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether a value of one of the types `given` can be one of the types `expected`.
pub(super) fn can_be(given: &BTreeSet<&str>, expected: &BTreeSet<&str>) -> bool {
    given.iter().any(|given| {
        expected.contains(given)
            || matches!(*given, "integer" | "number")
                && (expected.contains("number") || expected.contains("integer"))
    })
}

/// Types as people say them who write melodies: "a table or nil".
pub(super) fn spoken(types: &BTreeSet<&str>) -> String {
    spoken_with(types, "a table", "nil")
}

/// Types as people say them who write JSON: "an object or null".
pub(super) fn spoken_of_json(types: &BTreeSet<&str>) -> String {
    spoken_with(types, "an object", "null")
}

fn spoken_with(types: &BTreeSet<&str>, object: &'static str, null: &'static str) -> String {
    let said: Vec<&str> = types
        .iter()
        .map(|name| match *name {
            "null" => null,
            "boolean" => "a boolean",
            "integer" => "an integer",
            "number" => "a number",
            "string" => "a string",
            "array" => "an array",
            "object" => object,
            other => other,
        })
        .collect();
    said.join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        json!({
            "type": "object",
            "properties": {
                "entries": {"type": "array", "items": {"$ref": "#/$defs/Entry"}},
                "root": {"anyOf": [{"$ref": "#/$defs/Entry"}, {"type": "null"}]},
                "kind": {"oneOf": [{"const": "file", "description": "a file"}, {"type": "string", "enum": ["folder"]}]},
                "sizes": {"type": "object", "additionalProperties": {"type": "integer"}},
                "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "boolean"}]},
                "anything": true,
                "endless": {"$ref": "#/$defs/Endless"},
                "shape": {"oneOf": [
                    {"type": "object", "properties": {"radius": {"type": "number"}}},
                    {"type": "object", "properties": {"width": {"type": "number"}}}
                ]},
            },
            "$defs": {
                "Entry": {"type": "object", "properties": {"path": {"type": "string"}, "bytes": {"type": ["integer", "null"]}}},
                "Endless": {"$ref": "#/$defs/Endless"},
            },
        })
    }

    fn walk(path: &[&str]) -> String {
        let document = document();
        let mut schema = Schema::of(&document);
        for key in path {
            let key = key.parse().map_or_else(|_| Key::Field((*key).into()), Key::Index);
            match schema.inside(&key) {
                Inside::Found(inside) => schema = inside,
                Inside::Unknown => return "unknown".into(),
                Inside::NoField(fields) => return format!("no field: {}", Vec::from_iter(fields).join(" ")),
                Inside::WrongType(types) => return format!("not inside {}", spoken(&types)),
            }
        }
        schema.types().map_or_else(|| "any".into(), |types| spoken(&types))
    }

    #[test]
    fn paths_lead_through_references_alternatives_and_arrays() {
        let cases: &[(&[&str], &str)] = &[
            (&[], "a table"),
            (&["entries"], "an array"),
            (&["entries", "5", "path"], "a string"),
            (&["entries", "5", "bytes"], "an integer or nil"),
            (&["entries", "path"], "not inside an array"),
            (&["entriez"], "no field: anything endless entries kind pair root shape sizes"),
            (&["root", "path"], "a string"),
            (&["root", "pth"], "no field: bytes path"),
            (&["kind"], "a string"),
            (&["kind", "x"], "not inside a string"),
            (&["sizes", "any key"], "an integer"),
            (&["pair", "1"], "a boolean"),
            (&["pair", "7"], "unknown"),
            (&["anything"], "any"),
            (&["anything", "x"], "unknown"),
            (&["endless"], "any"),
            (&["shape", "radius"], "a number"),
            (&["shape", "height"], "no field: radius width"),
        ];
        for (path, expected) in cases {
            assert_eq!(walk(path), *expected, "{path:?}");
        }
    }

    #[test]
    fn listed_values_are_known() {
        let document = document();
        let Inside::Found(kind) = Schema::of(&document).inside(&Key::Field("kind".into())) else { panic!() };
        assert_eq!(kind.allowed_values().unwrap(), [&json!("file"), &json!("folder")]);
        assert!(Schema::of(&document).allowed_values().is_none());
    }

    #[test]
    fn an_array_of_a_document_keeps_its_definitions() {
        let array = array_of(&document());
        let schema = Schema::of(&array);
        let Inside::Found(item) = schema.inside(&Key::Index(0)) else { panic!() };
        let Inside::Found(root) = item.inside(&Key::Field("root".into())) else { panic!() };
        assert!(matches!(root.inside(&Key::Field("path".into())), Inside::Found(_)));
    }
}
