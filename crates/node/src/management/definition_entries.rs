//! One entry of a definitions file: returns the value of a key, or says in plain words what is wrong with it and
//! what would be right. `null` means that there is no key.

use ferrymq_model::{Name, Table, Value};
use serde_json::{Map, Value as Json};

/// An entry of a list, such as one user.
#[derive(Clone, Copy)]
pub struct Entry<'a>(&'a Map<String, Json>);

impl<'a> Entry<'a> {
    /// # Errors
    /// If it is not an object.
    pub fn of(json: &'a Json) -> Result<Self, String> {
        match json {
            Json::Object(map) => Ok(Self(map)),
            other => Err(format!("it is {other}; it must be an object with keys, in {{}}")),
        }
    }

    fn get(self, key: &str) -> Option<&'a Json> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    /// The value of a key, of any type.
    pub fn any(self, key: &str) -> &'a Json {
        self.0.get(key).unwrap_or(&Json::Null)
    }

    /// An optional text.
    pub fn text_if_any(self, key: &str) -> Result<Option<&'a str>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::String(text)) => Ok(Some(text)),
            Some(other) => Err(format!("key '{key}' is {other}; it must be a text, in quotes")),
        }
    }

    /// A text.
    pub fn text(self, key: &str) -> Result<&'a str, String> {
        self.text_if_any(key)?.ok_or_else(|| format!("key '{key}' is missing; add it"))
    }

    /// The name of something.
    pub fn name(self, key: &str) -> Result<Name, String> {
        let text = self.text(key)?;
        name(text).map_err(|why| format!("key '{key}': {why}"))
    }

    /// `true` or `false`, optional.
    pub fn flag(self, key: &str) -> Result<Option<bool>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::Bool(flag)) => Ok(Some(*flag)),
            Some(other) => Err(format!("key '{key}' is {other}; it must be true or false, without quotes")),
        }
    }

    /// A whole number, optional.
    pub fn whole(self, key: &str) -> Result<Option<i64>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => {
                let wrong = || format!("key '{key}' is {value}; it must be a whole number, without quotes");
                value.as_i64().ok_or_else(wrong).map(Some)
            }
        }
    }

    /// Texts: a list or, as some versions of RabbitMQ write them, one text with commas.
    pub fn texts(self, key: &str) -> Result<Option<Vec<String>>, String> {
        let wrong =
            |value: &Json| format!("key '{key}' is {value}; it must be a list of texts, such as [\"a\", \"b\"]");
        match self.get(key) {
            None => Ok(None),
            Some(Json::String(text)) => {
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Ok(Some(parts.map(str::to_owned).collect()))
            }
            Some(Json::Array(list)) => {
                let texts = list.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(|| wrong(item)));
                texts.collect::<Result<_, _>>().map(Some)
            }
            Some(other) => Err(wrong(other)),
        }
    }

    /// Names and values: an object or, as RabbitMQ 3.10 writes an operator policy, a list of pairs. Empty if the
    /// key is missing.
    pub fn table(self, key: &str) -> Result<Table, String> {
        table(self.any(key)).map_err(|why| format!("key '{key}' {why}"))
    }

    /// The entry under a key, optional.
    pub fn inner(self, key: &str) -> Result<Option<Self>, String> {
        match self.get(key) {
            None => Ok(None),
            Some(Json::Object(map)) => Ok(Some(Self(map))),
            Some(other) => Err(format!("key '{key}' is {other}; it must be an object with keys, in {{}}")),
        }
    }

    /// One sentence for each key that is not one of these.
    pub fn unknown_keys(self, known: &[&str]) -> Vec<String> {
        let unknown = self.0.keys().filter(|key| !known.contains(&key.as_str()));
        unknown.map(|key| unknown_key(key, known.iter().copied())).collect()
    }
}

/// Says that a key is not known, and names the most similar known one.
pub fn unknown_key<'a>(key: &str, known: impl Iterator<Item = &'a str>) -> String {
    match most_like(key, known) {
        Some(known) => format!("key '{key}' is not known; did you mean '{known}'?"),
        None => format!("key '{key}' is not known"),
    }
}

/// The most similar known word to `text`.
pub fn most_like<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.7;
    let rated = known.map(|known| (strsim::jaro_winkler(text, known), known)).filter(|(alike, _)| *alike >= ALIKE);
    rated.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, known)| known)
}

/// The name in `text`.
pub fn name(text: &str) -> Result<Name, String> {
    Name::parse(text.as_bytes()).map_err(|_| format!("'{text}' is longer than 255 bytes"))
}

fn table(json: &Json) -> Result<Table, String> {
    let pair = |item: &Json| Some((item.get(0)?.as_str()?.to_owned(), item.get(1)?.clone()));
    let pairs: Option<Vec<(String, Json)>> = match json {
        Json::Null => Some(Vec::new()),
        Json::Object(map) => Some(map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
        Json::Array(list) => list.iter().map(pair).collect(),
        _ => None,
    };
    let pairs = pairs.ok_or_else(|| format!("is {json}; it must be an object, such as {{\"max-length\": 1000}}"))?;
    pairs.into_iter().map(|(key, value)| Ok((key, value_of(value)?))).collect()
}

fn value_of(json: Json) -> Result<Value, String> {
    Ok(match json {
        Json::Null => Value::Void,
        Json::Bool(flag) => Value::Bool(flag),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(whole), ..) => Value::Int(whole),
            (None, Some(whole), _) => Value::Unsigned(whole),
            (None, None, Some(fraction)) => Value::Float(fraction),
            (None, None, None) => return Err(format!("has {number}, which is a number that AMQP cannot represent")),
        },
        Json::String(text) => Value::Text(text),
        Json::Array(values) => Value::List(values.into_iter().map(value_of).collect::<Result<_, _>>()?),
        Json::Object(map) => Value::Table(
            map.into_iter().map(|(key, value)| Ok((key, value_of(value)?))).collect::<Result<_, String>>()?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_names_the_key_and_what_would_be_right() {
        let json = json!({"n": 5, "t": "x", "f": "true", "list": [1], "o": 7, "null": null});
        let entry = Entry::of(&json).unwrap();
        assert_eq!(entry.text("n").unwrap_err(), "key 'n' is 5; it must be a text, in quotes");
        assert_eq!(entry.text("null").unwrap_err(), "key 'null' is missing; add it");
        assert_eq!(entry.flag("f").unwrap_err(), "key 'f' is \"true\"; it must be true or false, without quotes");
        assert_eq!(entry.whole("t").unwrap_err(), "key 't' is \"x\"; it must be a whole number, without quotes");
        assert_eq!(
            entry.texts("list").unwrap_err(),
            "key 'list' is 1; it must be a list of texts, such as [\"a\", \"b\"]"
        );
        assert!(entry.table("o").unwrap_err().starts_with("key 'o' is 7; it must be an object"));
        assert!(entry.inner("o").is_err() && Entry::of(&json["n"]).is_err());
        assert_eq!(
            entry.unknown_keys(&["n", "t", "f", "list", "o", "nulls"]),
            ["key 'null' is not known; did you mean 'nulls'?"]
        );
    }

    #[test]
    fn every_way_to_write_a_table_or_a_list_is_read() {
        let json = json!({"object": {"a": 1}, "pairs": [["a", 1]], "empty": [], "null": null, "text": "a, b,", "list": ["a", "b"]});
        let entry = Entry::of(&json).unwrap();
        assert_eq!(entry.table("object"), entry.table("pairs"));
        for key in ["empty", "null", "missing"] {
            assert_eq!(entry.table(key), Ok(Table::default()), "{key}");
        }
        assert_eq!(entry.texts("text"), entry.texts("list"));
        assert_eq!(entry.texts("null"), Ok(None));
    }
}
