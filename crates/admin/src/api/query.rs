//! The query of a list: which page, which names, which order and which columns.

use std::cmp::Ordering;

use regex::{Regex, RegexBuilder};
use serde_json::{Map, Value};

use super::problem::Problem;

/// The maximum number of objects on a page.
const PAGE_SIZE_MAX: usize = 500;
const PAGE_SIZE: usize = 100;

/// The maximum number of samples in a range.
const SAMPLES_MAX: i64 = 500;

/// The maximum length of a regular expression, and of what it becomes, in bytes.
const EXPRESSION_BYTES_MAX: usize = 1024;
const COMPILED_BYTES_MAX: usize = 1 << 20;

/// The parameters of a request, in order.
#[derive(Debug, Default)]
pub struct Parameters(pub Vec<(String, String)>);

impl Parameters {
    /// Reads the part after the question mark.
    pub fn read(query: Option<&str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The first value of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is the word `true`.
    pub fn is_true(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }
}

/// A page of a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub number: usize,
    pub size: usize,
}

/// Which names are wanted.
#[derive(Debug)]
enum Filter {
    Part(String),
    Expression(Regex),
}

/// The query of a list.
#[derive(Debug, Default)]
pub struct ListQuery {
    pub page: Option<Page>,
    filter: Option<Filter>,
    /// The path of the key by which it is sorted.
    pub sort: Option<String>,
    pub reverse: bool,
    /// The paths of the columns that are wanted; none: all.
    columns: Vec<Vec<String>>,
}

impl ListQuery {
    /// Reads it. Names are filtered on pages only, as in RabbitMQ.
    ///
    /// # Errors
    /// 400 for a page that cannot be, and for an expression that cannot be used.
    pub fn read(parameters: &Parameters) -> Result<Self, Problem> {
        let page = page(parameters)?;
        let filter = match parameters.get("name").filter(|name| !name.is_empty() && page.is_some()) {
            None => None,
            Some(text) if parameters.is_true("use_regex") => Some(Filter::Expression(expression(text)?)),
            Some(text) => Some(Filter::Part(text.to_lowercase())),
        };
        let columns = parameters.get("columns").unwrap_or_default().split(',').filter(|column| !column.is_empty());
        Ok(Self {
            page,
            filter,
            sort: parameters.get("sort").filter(|sort| !sort.is_empty()).map(str::to_owned),
            reverse: parameters.is_true("sort_reverse"),
            columns: columns.map(|column| column.split('.').map(str::to_owned).collect()).collect(),
        })
    }

    /// The same query of a list that has no pages, as in RabbitMQ.
    pub fn without_pages(self) -> Self {
        Self { page: None, filter: None, ..self }
    }

    /// Whether an object of this name is wanted.
    pub fn wants(&self, name: &str) -> bool {
        match &self.filter {
            None => true,
            Some(Filter::Part(part)) => name.to_lowercase().contains(part),
            Some(Filter::Expression(expression)) => expression.is_match(name),
        }
    }

    /// The wanted columns of an object.
    pub fn columns(&self, object: Value) -> Value {
        if self.columns.is_empty() {
            return object;
        }
        let mut wanted = Map::new();
        for path in &self.columns {
            copy(&object, path, &mut wanted);
        }
        Value::Object(wanted)
    }

    /// What the object is sorted by; 0 if it has no such key.
    pub fn key(&self, object: &Value) -> Value {
        let Some(path) = &self.sort else { return Value::Null };
        let found = path.split('.').try_fold(object, |object, key| object.get(key));
        found.cloned().unwrap_or_else(|| Value::from(0))
    }
}

/// Copies what a path leads to, with the objects on the way.
fn copy(from: &Value, path: &[String], to: &mut Map<String, Value>) {
    let Some((key, rest)) = path.split_first() else { return };
    let Some(value) = from.get(key) else { return };
    if rest.is_empty() {
        to.insert(key.clone(), value.clone());
    } else if value.is_object() {
        let inner = to.entry(key.clone()).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(inner) = inner {
            copy(value, rest, inner);
        }
    }
}

/// Erlang's order of terms, as far as JSON has them: numbers, words, objects, texts.
pub fn order(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Number(_) => 0,
        Value::Null | Value::Bool(_) => 1,
        Value::Array(_) | Value::Object(_) => 2,
        Value::String(_) => 3,
    };
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64().partial_cmp(&b.as_f64()).unwrap_or(Ordering::Equal),
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (Value::String(a), Value::String(b)) => a.cmp(b),
        _ => rank(a).cmp(&rank(b)),
    }
}

fn expression(text: &str) -> Result<Regex, Problem> {
    let invalid = |why: &str| Problem::bad_request(format!("invalid regular expression: {why}"));
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(invalid(&format!("it is longer than {EXPRESSION_BYTES_MAX} bytes")));
    }
    // The engine needs time in proportion to the length of the name.
    let built = RegexBuilder::new(text).case_insensitive(true).size_limit(COMPILED_BYTES_MAX).build();
    built.map_err(|why| invalid(why.to_string().lines().last().unwrap_or_default()))
}

/// The ranges of histories. There are none yet; a range that cannot be is refused all the same.
/// `error` is RabbitMQ's word for it.
pub fn check_ranges(parameters: &Parameters, error: &'static str) -> Result<(), Problem> {
    for kind in ["lengths", "msg_rates", "data_rates", "node_stats"] {
        let number = |what| parameters.get(&format!("{kind}_{what}")).and_then(|text| text.parse::<i64>().ok());
        if let (Some(age), Some(increment)) = (number("age"), number("incr"))
            && (age <= 0 || increment <= 0 || age / increment > SAMPLES_MAX)
        {
            let reason = format!("Invalid range parameters: age {age}, incr {increment}");
            return Err(Problem::invalid(error, reason));
        }
    }
    Ok(())
}

fn page(parameters: &Parameters) -> Result<Option<Page>, Problem> {
    let number = |name| match parameters.get(name) {
        None => Ok(None),
        Some(text) => match text.parse::<i64>() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Problem::bad_request("Pagination parameters are invalid")),
        },
    };
    let (page, size) = (number("page")?, number("page_size")?);
    let Some(page) = page else { return Ok(None) };
    let shown = |number: Option<i64>| number.map_or_else(|| "undefined".to_owned(), |number| number.to_string());
    let positive = |number: i64| usize::try_from(number).ok().filter(|number| *number > 0);
    let wanted = size.map_or(Some(PAGE_SIZE), positive).filter(|size| *size <= PAGE_SIZE_MAX);
    match (positive(page), wanted) {
        (Some(number), Some(size)) => Ok(Some(Page { number, size })),
        _ => Err(Problem::invalid(
            "invalid_pagination_parameters",
            format!("Invalid pagination parameters: page number {page}, page size {}", shown(size)),
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(query: &str) -> Result<ListQuery, Problem> {
        ListQuery::read(&Parameters::read(Some(query)))
    }

    #[test]
    fn pages_have_limits() {
        assert_eq!(read("page=2").unwrap().page, Some(Page { number: 2, size: 100 }));
        assert_eq!(read("page_size=5").unwrap().page, None);
        assert_eq!(read("page=1&page_size=500").unwrap().page, Some(Page { number: 1, size: 500 }));
        for wrong in ["page=0", "page=1&page_size=501", "page=x", "page=1&page_size=x", "page=-1", "page=1&page_size=0"]
        {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_are_filtered_by_a_part_or_an_expression() {
        assert!(read("page=1&name=AB").unwrap().wants("xaby"));
        assert!(!read("page=1&name=a.*b").unwrap().wants("axb"));
        assert!(read("page=1&name=^A.*b$&use_regex=true").unwrap().wants("axb"));
        assert!(read("name=z").unwrap().wants("axb"), "without a page nothing is filtered");
        for wrong in ["(", "(a{1000}){1000}"] {
            let query = format!("page=1&use_regex=true&name={}", wrong);
            assert!(read(&query).is_err(), "{wrong}");
        }
        assert!(read(&format!("page=1&use_regex=true&name={}", "a".repeat(10_000))).is_err());
    }

    #[test]
    fn columns_may_be_within_objects() {
        let object = json!({"a": 1, "b": {"c": 2, "d": 3}, "e": 4});
        assert_eq!(read("columns=a,b.c,x,b.x").unwrap().columns(object.clone()), json!({"a": 1, "b": {"c": 2}}));
        assert_eq!(read("").unwrap().columns(object.clone()), object);
        assert_eq!(read("sort=b.d").unwrap().key(&object), json!(3));
        assert_eq!(read("sort=nothing.x").unwrap().key(&object), json!(0));
    }
}
