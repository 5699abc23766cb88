//! The bodies of requests: objects in JSON.

use ferrymq_model::{Name, Table};
use serde_json::{Map, Value};

use super::{json, problem::Problem};

/// An object that a client has sent.
#[derive(Debug, Default)]
pub struct Fields(Map<String, Value>);

impl Fields {
    /// Reads a body. As with RabbitMQ, an empty one and the words of JSON are like an empty object.
    ///
    /// # Errors
    /// 400 if it is not an object.
    pub fn read(body: &[u8]) -> Result<Self, Problem> {
        if body.is_empty() || body == b"undefined" {
            return Ok(Self::default());
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(object)) => Ok(Self(object)),
            Ok(Value::Null | Value::Bool(_)) => Ok(Self::default()),
            Ok(Value::String(_)) => Err(Problem::bad_request(
                "invalid payload: the request body JSON-decoded to a string. Is the input doubly-JSON-encoded?",
            )),
            Ok(Value::Number(_) | Value::Array(_)) | Err(_) => Err(Problem::bad_request("not_json")),
        }
    }

    /// The value under this key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// Checks that all of these are there.
    ///
    /// # Errors
    /// 400, in RabbitMQ's words.
    pub fn require(&self, keys: &[&str]) -> Result<(), Problem> {
        let missing = keys.iter().filter(|key| !self.0.contains_key(**key));
        let missing: Vec<String> = missing.map(|key| format!("{{key_missing,{key}}}")).collect();
        if missing.is_empty() { Ok(()) } else { Err(Problem::bad_request(format!("[{}]", missing.join(",")))) }
    }

    /// A flag, which may be written as a word; `None` if it is not there.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn flag(&self, key: &str) -> Result<Option<bool>, Problem> {
        match self.0.get(key) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(*flag)),
            Some(Value::String(word)) if word == "true" => Ok(Some(true)),
            Some(Value::String(word)) if word == "false" => Ok(Some(false)),
            Some(other) => Err(Problem::bad_request(serde_json::json!(["not_boolean", other]))),
        }
    }

    /// A text; `None` if it is not there.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn text(&self, key: &str) -> Result<Option<&str>, Problem> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(Problem::bad_request(format!("{key} must be a text"))),
        }
    }

    /// A text that must be there.
    ///
    /// # Errors
    /// 400 if it is not there, or is something else.
    pub fn needed_text(&self, key: &str) -> Result<&str, Problem> {
        self.require(&[key])?;
        self.text(key)?.ok_or_else(|| Problem::bad_request(format!("{key} must be a text")))
    }

    /// A whole number; `None` if it is not there.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn whole(&self, key: &str) -> Result<Option<i64>, Problem> {
        let number = |value: &Value| value.as_i64().or_else(|| value.as_str()?.parse().ok());
        match self.get(key) {
            None => Ok(None),
            Some(value) => match number(value) {
                Some(number) => Ok(Some(number)),
                None => Err(Problem::bad_request(format!("{key} must be a whole number"))),
            },
        }
    }

    /// Arguments; an empty list is like an empty object, as some clients write it.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn table(&self, key: &str) -> Result<Table, Problem> {
        match self.get(key) {
            None => Ok(Table::default()),
            Some(Value::Object(object)) if object.values().any(Value::is_null) => {
                Err(Problem::bad_request("null_not_allowed"))
            }
            Some(Value::Object(object)) => Ok(json::to_table(object)),
            Some(Value::Array(list)) if list.is_empty() => Ok(Table::default()),
            Some(_) => Err(Problem::bad_request(format!("{key} must be an object"))),
        }
    }

    /// Words: a list of texts, or one text with commas; `None` if it is not there.
    ///
    /// # Errors
    /// 400 if it is something else.
    pub fn words(&self, key: &str) -> Result<Option<Vec<String>>, Problem> {
        let wrong = || Problem::bad_request(format!("{key} must be a list of texts, or a text with commas"));
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(text)) => {
                let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
                Ok(Some(words.map(str::to_owned).collect()))
            }
            Some(Value::Array(list)) => {
                let words: Option<_> = list.iter().map(|word| word.as_str().map(str::to_owned)).collect();
                words.map(Some).ok_or_else(wrong)
            }
            Some(_) => Err(wrong()),
        }
    }
}

/// A name in a path or a body.
///
/// # Errors
/// 400 if it is too long.
pub fn name(text: &str, what: &str) -> Result<Name, Problem> {
    Name::parse(text.as_bytes()).map_err(|_| {
        let reason = format!("{what} should be less than {} bytes, actually was {}\n", Name::BYTES_MAX, text.len());
        Problem::bad_request(reason)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_objects_are_read() {
        for empty in ["", "null", "true", "undefined", "{}"] {
            assert!(Fields::read(empty.as_bytes()).unwrap().0.is_empty(), "{empty}");
        }
        for wrong in ["[]", "5", "\"{}\"", "{", "\u{feff}"] {
            assert!(Fields::read(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_flag_may_be_a_word() {
        let fields = Fields::read(br#"{"a": "true", "b": false, "c": 1}"#).unwrap();
        assert_eq!((fields.flag("a"), fields.flag("b"), fields.flag("d")), (Ok(Some(true)), Ok(Some(false)), Ok(None)));
        assert_eq!(fields.flag("c"), Err(Problem::bad_request(serde_json::json!(["not_boolean", 1]))));
    }
}
