//! What a person gives a run: `-i key=value`, converted to the types that the melody declares.
//!
//! This file must not know templates or steps.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::message_pack::{self, Malformed};
use super::model::{InputDeclaration, InputType};
use super::problem::suggestion;

/// The value of an input.
#[derive(Clone, Debug, PartialEq)]
pub enum InputValue {
    /// Text.
    Text(String),
    /// A path; not yet absolute where it is a default.
    Path(PathBuf),
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A number.
    Number(f64),
}

impl InputValue {
    /// The value as MessagePack. A path that is not UTF-8 is binary.
    ///
    /// # Errors
    ///
    /// [`Malformed`]: longer than a message may be.
    pub fn encode(&self) -> Result<Bytes, Malformed> {
        let mut out = Vec::new();
        match self {
            Self::Text(text) => message_pack::append_string(&mut out, text)?,
            Self::Path(path) => match path.to_str() {
                Some(text) => message_pack::append_string(&mut out, text)?,
                None => message_pack::append_binary(&mut out, path.as_os_str().as_bytes())?,
            },
            Self::Boolean(boolean) => message_pack::append_boolean(&mut out, *boolean),
            Self::Integer(number) => message_pack::append_integer(&mut out, *number),
            Self::Number(number) => message_pack::append_float(&mut out, *number),
        }
        Ok(Bytes::from(out))
    }
}

/// What is wrong with what was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InputError {
    /// The melody has no such input.
    #[error("the melody has no input `{name}`; {hint}")]
    Unknown {
        /// The name that was given.
        name: String,
        /// Which one was meant, or which there are.
        hint: String,
    },
    /// Nobody gave it, and it has no default.
    #[error("the input `{name}` is missing; give it with `-i {name}=...` ({input_type})")]
    Missing {
        /// The input's name.
        name: String,
        /// The name of its type.
        input_type: &'static str,
    },
    /// It was given more than once.
    #[error("the input `{name}` is given twice")]
    Twice {
        /// The input's name.
        name: String,
    },
    /// The value is not of the input's type.
    #[error("the input `{name}` cannot be `{given}`; it is {expected}")]
    Invalid {
        /// The input's name.
        name: String,
        /// What was given, shown as text.
        given: String,
        /// What is allowed.
        expected: &'static str,
    },
}

/// The inputs of one run: every one that the melody declares, with its value.
///
/// ```
/// use std::path::Path;
/// use conductor::melody::{Draft, InputValues};
///
/// let text = "name = \"m\"\n[inputs.deep]\ntype = \"boolean\"\ndefault = false\n";
/// let draft = Draft::parse(text, Path::new("m.toml"));
/// let given = [("deep".to_owned(), "true".into())];
/// let values = InputValues::new(draft.inputs(), &given, Path::new("/tmp")).unwrap();
/// assert_eq!(values.encoded("deep").unwrap().as_ref(), [0xc3]);
/// ```
#[derive(Clone, Debug, Default)]
pub struct InputValues {
    values: BTreeMap<String, Bytes>,
}

impl InputValues {
    /// What was given, over the defaults; paths made absolute against `directory` (which is absolute).
    ///
    /// # Errors
    ///
    /// Every [`InputError`] at once. The caller's fault; nothing was started.
    pub fn new(
        declarations: &[InputDeclaration],
        given: &[(String, OsString)],
        directory: &Path,
    ) -> Result<Self, Vec<InputError>> {
        let mut errors = Vec::new();
        let mut values = BTreeMap::new();
        for (index, (name, value)) in given.iter().enumerate() {
            let Some(declaration) = declarations.iter().find(|declaration| declaration.name == *name) else {
                let names = declarations.iter().map(|declaration| declaration.name.as_str());
                errors.push(InputError::Unknown {
                    name: name.clone(),
                    hint: suggestion(name, names, "inputs"),
                });
                continue;
            };
            if given[..index].iter().any(|(earlier, _)| earlier == name) {
                errors.push(InputError::Twice { name: name.clone() });
                continue;
            }
            match convert(declaration.input_type, value) {
                Ok(value) => drop(values.insert(name.clone(), value)),
                Err(expected) => errors.push(InputError::Invalid {
                    name: name.clone(),
                    given: super::json::escaped(value.as_bytes()).into_owned(),
                    expected,
                }),
            }
        }
        for declaration in declarations {
            let name = &declaration.name;
            if values.contains_key(name) || given.iter().any(|(given, _)| given == name) {
                continue;
            }
            match &declaration.default {
                Some(default) => drop(values.insert(name.clone(), default.clone())),
                None => errors.push(InputError::Missing {
                    name: name.clone(),
                    input_type: declaration.input_type.name(),
                }),
            }
        }
        let mut encoded = BTreeMap::new();
        for (name, mut value) in values {
            if let InputValue::Path(path) = &mut value {
                // Through the components: `.` goes away, `..` stays, because of symbolic links.
                *path = directory.join(&*path).components().collect();
            }
            match value.encode() {
                Ok(bytes) => drop(encoded.insert(name, bytes)),
                Err(_) => errors.push(InputError::Invalid {
                    name,
                    given: "...".into(),
                    expected: "shorter than a message may be",
                }),
            }
        }
        if errors.is_empty() { Ok(Self { values: encoded }) } else { Err(errors) }
    }

    /// The input `name` as MessagePack.
    #[must_use]
    pub fn encoded(&self, name: &str) -> Option<&Bytes> {
        self.values.get(name)
    }

    /// Every input, by name, as MessagePack.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Bytes)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value))
    }
}

/// `given` as `input_type`, or what is allowed.
fn convert(input_type: InputType, given: &OsStr) -> Result<InputValue, &'static str> {
    if input_type == InputType::Path {
        let is_path = !given.is_empty() && !given.as_bytes().contains(&0);
        return if is_path { Ok(InputValue::Path(given.into())) } else { Err("a path, which is not empty") };
    }
    let text = given.to_str().ok_or("text in UTF-8")?;
    match input_type {
        InputType::String | InputType::Path => Ok(InputValue::Text(text.to_owned())),
        InputType::Boolean => match text {
            "true" => Ok(InputValue::Boolean(true)),
            "false" => Ok(InputValue::Boolean(false)),
            _ => Err("`true` or `false`"),
        },
        InputType::Integer => text.parse().map(InputValue::Integer).map_err(|_| "a whole number of 64 bits"),
        InputType::Number => match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(InputValue::Number(number)),
            _ => Err("a number"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::melody::message_pack::Token;
    use std::os::unix::ffi::OsStringExt as _;

    fn declared(name: &str, input_type: InputType, default: Option<InputValue>) -> InputDeclaration {
        InputDeclaration { name: name.into(), input_type, default, description: String::new() }
    }

    fn all() -> Vec<InputDeclaration> {
        vec![
            declared("path", InputType::Path, Some(InputValue::Path(".".into()))),
            declared("all", InputType::Boolean, Some(InputValue::Boolean(false))),
            declared("depth", InputType::Integer, Some(InputValue::Integer(-3))),
            declared("share", InputType::Number, Some(InputValue::Number(0.5))),
            declared("title", InputType::String, None),
        ]
    }

    fn values(given: &[(&str, &[u8])]) -> Result<InputValues, Vec<InputError>> {
        let given: Vec<_> = given
            .iter()
            .map(|(name, value)| ((*name).to_owned(), OsString::from_vec(value.to_vec())))
            .collect();
        InputValues::new(&all(), &given, Path::new("/home/me"))
    }

    #[test]
    fn values_are_of_the_declared_type_over_their_defaults() {
        let values = values(&[("title", b"a=b"), ("all", b"true"), ("depth", b"7")]).unwrap();
        let decoded =
            |name| rmp_serde::from_slice::<serde_json::Value>(values.encoded(name).unwrap()).unwrap();
        assert_eq!(decoded("title"), "a=b");
        assert_eq!(decoded("all"), true);
        assert_eq!(decoded("depth"), 7);
        assert_eq!(decoded("share"), 0.5);
        assert_eq!(decoded("path"), "/home/me");
        assert_eq!(values.iter().count(), 5);
    }

    #[test]
    fn a_path_is_absolute_and_may_be_any_bytes() {
        for (given, expected) in [
            (&b"."[..], &b"/home/me"[..]),
            (b"./a/./b/", b"/home/me/a/b"),
            (b"../x", b"/home/me/../x"),
            (b"/etc", b"/etc"),
            (b"a\xffb", b"/home/me/a\xffb"),
        ] {
            let values = values(&[("title", b""), ("path", given)]).unwrap();
            let (Token::String(found) | Token::Binary(found), _) =
                message_pack::token(values.encoded("path").unwrap(), 0).unwrap()
            else {
                panic!("not a path")
            };
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let errors = values(&[
            ("pth", b"."),
            ("all", b"yes"),
            ("depth", b"1.5"),
            ("share", b"NaN"),
            ("path", b""),
            ("all", b"true"),
        ])
        .unwrap_err();
        let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            said,
            [
                "the melody has no input `pth`; did you mean `path`?",
                "the input `all` cannot be `yes`; it is `true` or `false`",
                "the input `depth` cannot be `1.5`; it is a whole number of 64 bits",
                "the input `share` cannot be `NaN`; it is a number",
                "the input `path` cannot be ``; it is a path, which is not empty",
                "the input `all` is given twice",
                "the input `title` is missing; give it with `-i title=...` (string)",
            ]
        );
    }
}
