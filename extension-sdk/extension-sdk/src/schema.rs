//! JSON Schema of a method's arguments and result, and the hash over both.
//!
//! Equal hashes mean equal layouts: what is only for people (descriptions, titles, examples) is left out of
//! the hash, so that a better comment is not another interface.

#[cfg(feature = "fast")]
use ipc_transport::codec::FastBody;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value};

use crate::interface::Sendable;
use crate::stream::SCHEMA_KEY;

/// The schemas of one method.
#[doc(hidden)]
#[derive(Clone, Debug, PartialEq)]
pub struct Schemas {
    pub arguments: Value,
    pub result: Value,
    /// How both lie in the fast codec, if the method takes it. The schemas do not say: not in which order fields
    /// follow one another, nor how often a value is optional.
    pub layout: Option<String>,
}

impl Schemas {
    /// Hash over both, descriptions left out.
    pub(crate) fn hash(&self) -> u64 {
        let mut hash = Fnv::default();
        hash_schema(&self.arguments, &mut hash);
        hash.write(b"->");
        hash_schema(&self.result, &mut hash);
        if let Some(layout) = &self.layout {
            hash.write(b"#");
            hash.write(layout.as_bytes());
        }
        hash.0
    }

    /// Whether items may follow the result.
    pub(crate) fn result_has_streams(&self) -> bool {
        has_streams(&self.result)
    }
}

/// Whether a stream stands anywhere in a schema.
fn has_streams(schema: &Value) -> bool {
    match schema {
        Value::Object(object) => object.contains_key(SCHEMA_KEY) || object.values().any(has_streams),
        Value::Array(schemas) => schemas.iter().any(has_streams),
        _ => false,
    }
}

/// The schemas of a method with these arguments and this result.
#[doc(hidden)]
#[must_use]
pub fn schemas<A: Sendable, R: Sendable>() -> Schemas {
    Schemas { arguments: schema_of::<A>(), result: schema_of::<R>(), layout: None }
}

/// As [`schemas`], of a method that takes the fast codec.
#[doc(hidden)]
#[cfg(feature = "fast")]
#[must_use]
pub fn fast_schemas<A: Sendable + FastBody, R: Sendable + FastBody>() -> Schemas {
    let mut layout = String::new();
    A::layout(&mut layout);
    layout.push_str("->");
    R::layout(&mut layout);
    Schemas { layout: Some(layout), ..schemas::<A, R>() }
}

/// What the client's side knows of such a method.
#[doc(hidden)]
#[cfg(feature = "fast")]
#[must_use]
pub fn fast_hash<A: Sendable + FastBody, R: Sendable + FastBody>() -> u64 {
    fast_schemas::<A, R>().hash()
}

/// The schema of one type, whole in itself.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    let mut schema = SchemaGenerator::default().into_root_schema_for::<T>();
    schema.remove("$schema");
    schema.to_value()
}

/// FNV-1a: the same in every build and on every machine, which std's hashers do not promise.
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// Keys whose values are for people.
const FOR_PEOPLE: [&str; 5] = ["description", "title", "examples", "$comment", "deprecated"];

/// Keys whose values are maps from an author's names to schemas.
const MAPS: [&str; 4] = ["properties", "patternProperties", "$defs", "dependentSchemas"];

/// Keys whose values are data, hashed as they are.
const DATA: [&str; 4] = ["const", "enum", "default", "required"];

fn hash_schema(schema: &Value, hash: &mut Fnv) {
    match schema {
        Value::Object(object) => {
            hash.write(b"{");
            for (key, value) in sorted(object) {
                if FOR_PEOPLE.contains(&key.as_str()) {
                    continue;
                }
                hash.write(key.as_bytes());
                hash.write(b":");
                match value {
                    Value::Object(named) if MAPS.contains(&key.as_str()) => {
                        for (name, schema) in sorted(named) {
                            hash.write(name.as_bytes());
                            hash.write(b"=");
                            hash_schema(schema, hash);
                        }
                    }
                    data if DATA.contains(&key.as_str()) => hash.write(data.to_string().as_bytes()),
                    schema => hash_schema(schema, hash),
                }
                hash.write(b",");
            }
            hash.write(b"}");
        }
        Value::Array(schemas) => {
            hash.write(b"[");
            for schema in schemas {
                hash_schema(schema, hash);
                hash.write(b",");
            }
            hash.write(b"]");
        }
        data => hash.write(data.to_string().as_bytes()),
    }
}

/// By key, whatever order the map keeps in this build.
fn sorted(object: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = object.iter().collect();
    entries.sort_unstable_by_key(|(key, _)| *key);
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[extension_sdk::message]
    struct Plain {
        name: String,
        size: u64,
    }

    mod documented {
        /// With a comment.
        #[extension_sdk::message]
        #[schemars(rename = "Plain")]
        pub(super) struct Documented {
            /// What it is called.
            name: String,
            size: u64,
        }
    }

    mod changed {
        #[extension_sdk::message]
        #[schemars(rename = "Plain")]
        pub(super) struct Changed {
            name: String,
            size: Option<u64>,
        }
    }

    mod describing {
        #[extension_sdk::message]
        pub(super) struct Describing<T> {
            description: T,
        }
    }

    #[test]
    fn comments_do_not_change_the_hash() {
        let hash = schemas::<Plain, ()>().hash();
        assert_eq!(hash, schemas::<documented::Documented, ()>().hash());
        assert_ne!(schemas::<Plain, ()>().arguments, schemas::<documented::Documented, ()>().arguments);
    }

    #[test]
    fn types_and_fields_named_like_comments_change_the_hash() {
        let hash = schemas::<Plain, ()>().hash();
        assert_ne!(hash, schemas::<changed::Changed, ()>().hash());
        assert_ne!(hash, schemas::<(), Plain>().hash());
        assert_ne!(
            schemas::<describing::Describing<u8>, ()>().hash(),
            schemas::<describing::Describing<String>, ()>().hash()
        );
    }
}
