//! Lists: filtered, sorted, in pages; written in chunks, so that a long list is never in memory as a whole.

use std::cmp::Ordering;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use serde_json::{Value, json};

use super::{
    problem::Problem,
    query::{ListQuery, Page, order},
    respond,
};

/// How long a chunk is, at least, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// An object of a list: what decides about its place, and what stands for it until it is written.
struct Entry<T> {
    key: Value,
    name: String,
    object: T,
}

/// A list whose objects are small: they are made once, and kept as JSON.
pub struct List {
    entries: Vec<Entry<Value>>,
    total: usize,
}

impl List {
    pub fn new() -> Self {
        Self { entries: Vec::new(), total: 0 }
    }

    /// Adds an object, if its name is wanted.
    pub fn add(&mut self, query: &ListQuery, name: &str, object: Value) {
        self.total += 1;
        if query.wants(name) {
            let key = query.key(&object);
            self.entries.push(Entry { key, name: String::new(), object: query.columns(object) });
        }
    }

    /// The answer. Objects are in the order in which they were added, unless the query says another one.
    ///
    /// # Errors
    /// 400 for a page that is not there.
    pub fn answer(self, query: &ListQuery) -> Result<Response, Problem> {
        let (chosen, frame) = choose(self.entries, self.total, query, |_, _| Ordering::Equal)?;
        Ok(written(frame, chosen.into_iter().map(|entry| entry.object)))
    }
}

/// A list that can be very long: of each object only a number is kept, and it is made when it is written.
pub struct LongList<T> {
    entries: Vec<Entry<T>>,
    total: usize,
}

impl<T: Clone + Send + 'static> LongList<T> {
    pub fn new() -> Self {
        Self { entries: Vec::new(), total: 0 }
    }

    /// Adds an object, if its name is wanted. `place` decides about its order, and `object` is made only if the list is
    /// sorted.
    pub fn add(&mut self, query: &ListQuery, name: &str, place: String, number: T, object: impl FnOnce() -> Value) {
        self.total += 1;
        if query.wants(name) {
            let key = if query.sort.is_some() { query.key(&object()) } else { Value::Null };
            self.entries.push(Entry { key, name: place, object: number });
        }
    }

    /// The answer. `make` makes some objects in their order; those that are gone are left out.
    ///
    /// # Errors
    /// 400 for a page that is not there.
    pub fn answer(
        self,
        query: ListQuery,
        portion: usize,
        make: impl Fn(Vec<T>) -> Vec<Value> + Send + 'static,
    ) -> Result<Response, Problem> {
        let (chosen, frame) = choose(self.entries, self.total, &query, |a, b| a.name.cmp(&b.name))?;
        let numbers: Vec<T> = chosen.into_iter().map(|entry| entry.object).collect();
        let mut at = 0;
        let objects = std::iter::from_fn(move || {
            let end = (at + portion).min(numbers.len());
            let made = (at < end).then(|| make(numbers[at..end].to_vec()))?;
            at = end;
            Some(made.into_iter().map(|object| query.columns(object)).collect::<Vec<_>>())
        });
        Ok(written(frame, objects.flatten()))
    }
}

/// What stands before and after the objects.
type Frame = (String, String);

/// Sorts, and chooses those of the page.
fn choose<T>(
    mut entries: Vec<Entry<T>>,
    total: usize,
    query: &ListQuery,
    usual: impl Fn(&Entry<T>, &Entry<T>) -> Ordering,
) -> Result<(Vec<Entry<T>>, Frame), Problem> {
    entries.sort_by(|a, b| order(&a.key, &b.key).then_with(|| usual(a, b)));
    if query.reverse {
        entries.reverse();
    }
    let Some(Page { number, size }) = query.page else { return Ok((entries, ("[".to_owned(), "]".to_owned()))) };
    let filtered = entries.len();
    let first = (number - 1).saturating_mul(size);
    if first > filtered {
        let reason = format!("Page out of range, page: {number} page size: {size}, len: {filtered}");
        return Err(Problem::invalid("page_out_of_range", reason));
    }
    let chosen: Vec<Entry<T>> = entries.into_iter().skip(first).take(size).collect();
    let head = json!({
        "total_count": total,
        "item_count": chosen.len(),
        "filtered_count": filtered,
        "page": number,
        "page_size": size,
        "page_count": filtered.div_ceil(size),
    });
    let head = head.to_string();
    let open = format!("{},\"items\":[", head.trim_end_matches('}'));
    Ok((chosen, (open, "]}".to_owned())))
}

/// The objects in chunks.
fn written((open, close): Frame, objects: impl Iterator<Item = Value> + Send + 'static) -> Response {
    let (mut objects, mut open, mut close) =
        (Box::new(objects) as Box<dyn Iterator<Item = Value> + Send>, Some(open), Some(close));
    let mut is_first = true;
    let chunks = std::iter::from_fn(move || {
        close.as_ref()?;
        let mut chunk = open.take().unwrap_or_default().into_bytes();
        while chunk.len() < CHUNK_BYTES {
            let Some(object) = objects.next() else {
                chunk.extend_from_slice(close.take().unwrap_or_default().as_bytes());
                break;
            };
            if !std::mem::replace(&mut is_first, false) {
                chunk.push(b',');
            }
            chunk.extend_from_slice(object.to_string().as_bytes());
        }
        Some(Ok::<_, std::convert::Infallible>(Bytes::from(chunk)))
    });
    respond::json_body(Body::from_stream(Chunks(chunks)))
}

/// An iterator as a stream. Between two chunks other tasks have their turn, because the socket takes one at a time.
struct Chunks<I>(I);

impl<I: Iterator + Unpin> futures_core::Stream for Chunks<I> {
    type Item = I::Item;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<I::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}
