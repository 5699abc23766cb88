//! Bindings, and the keys by which they are found in addresses.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64ct::{Base64UrlUnpadded, Encoding};
use ferrymq_model::{
    Ask as Request, BindCommand, BindingFacts, BindingsOf, Change, Destination, Name, QueueReport, Table, Which,
};
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    Ask, body, exchanges, json,
    list::List,
    problem::Problem,
    respond,
    routes::{To, Verb},
};

pub async fn answer(to: To, ask: Ask) -> Result<Response, Problem> {
    if ask.verb == Verb::Post {
        return bind(&ask).await;
    }
    let of = of(to, &ask)?;
    let mut found = Vec::new();
    add_default(&ask, &of, &mut found);
    ask.management.bindings(&of, &mut |binding| {
        if ask.sees(&binding.vhost) || ask.part_if_any("vhost").is_some() {
            found.push(binding);
        }
    });
    if matches!(to, To::BindingsBetween | To::Binding) {
        let source = exchanges::name(&ask, "source")?;
        found.retain(|binding| binding.source == source);
    }
    if to == To::Binding {
        let wanted = ask.part("properties");
        let one = found.into_iter().find(|binding| is_meant(binding, wanted));
        return one_binding(&ask, one.ok_or_else(Problem::not_found)?).await;
    }
    let (query, mut list) = (ask.list_query()?.without_pages(), List::new());
    found.sort_by(|a, b| place(a).cmp(&place(b)));
    found.iter().for_each(|binding| list.add(&query, &binding.target, shown(binding)));
    list.answer(&query)
}

fn place(binding: &BindingFacts) -> impl Ord + '_ {
    let BindingFacts { vhost, source, target, to_queue, key, .. } = binding;
    (vhost, source, !to_queue, target, key)
}

async fn one_binding(ask: &Ask, binding: BindingFacts) -> Result<Response, Problem> {
    if ask.verb == Verb::Get {
        return Ok(respond::json(&shown(&binding)));
    }
    let BindingFacts { vhost, source, target, to_queue, key, arguments } = binding;
    let destination = if to_queue { Destination::Queue(target) } else { Destination::Exchange(target) };
    let unbind = BindCommand { destination, exchange: source, key: key.into(), arguments };
    ask.change(Change::Request { vhost, ask: Request::Unbind(unbind) }).await.map(|_| respond::nothing())
}

/// The bindings that an address stands for.
fn of(to: To, ask: &Ask) -> Result<BindingsOf, Problem> {
    if ask.part_if_any("vhost").is_none() {
        return Ok(BindingsOf::All);
    }
    let vhost = ask.check_vhost()?;
    Ok(match to {
        To::ExchangeSources => BindingsOf::Source(vhost, exchanges::name(ask, "name")?),
        To::ExchangeDestinations => {
            BindingsOf::Destination(vhost, Destination::Exchange(exchanges::name(ask, "name")?))
        }
        To::QueueBindings => BindingsOf::Destination(vhost, Destination::Queue(body::name(ask.part("name"), "queue")?)),
        To::BindingsBetween | To::Binding => BindingsOf::Destination(vhost, destination(ask)?),
        _ => BindingsOf::Vhost(vhost),
    })
}

/// The queue or exchange in the path.
fn destination(ask: &Ask) -> Result<Destination, Problem> {
    match ask.part("kind") {
        "q" => Ok(Destination::Queue(body::name(ask.part("destination"), "queue")?)),
        "e" => Ok(Destination::Exchange(exchanges::name(ask, "destination")?)),
        _ => Err(Problem::not_found()),
    }
}

/// The default exchange has a binding for each queue, which nobody has made.
fn add_default(ask: &Ask, of: &BindingsOf, found: &mut Vec<BindingFacts>) {
    let which = match of {
        BindingsOf::All => Which::All,
        BindingsOf::Vhost(vhost) => Which::InVhost(vhost.clone()),
        BindingsOf::Source(vhost, source) if source.is_empty() => Which::InVhost(vhost.clone()),
        BindingsOf::Destination(vhost, Destination::Queue(queue)) => Which::Named(vhost.clone(), queue.clone()),
        BindingsOf::Source(..) | BindingsOf::Destination(..) => return,
    };
    ask.management.queues(&which, false, &mut |QueueReport { vhost, name, .. }| {
        if ask.sees(&vhost) || ask.part_if_any("vhost").is_some() {
            let (source, key) = (Name::default(), name.as_bytes().into());
            let binding =
                BindingFacts { vhost, source, target: name, to_queue: true, key, arguments: Table::default() };
            found.push(binding);
        }
    });
}

async fn bind(ask: &Ask) -> Result<Response, Problem> {
    let (vhost, fields) = (ask.vhost()?, ask.fields()?);
    let (exchange, destination) = (exchanges::name(ask, "source")?, destination(ask)?);
    let key = fields.text("routing_key")?.unwrap_or_default().as_bytes().to_vec();
    let arguments = fields.table("arguments")?;
    // The tilde, which is in none of the parts, stays.
    let properties = quoted(properties_key(&key, &arguments).as_bytes()).replace("%7E", "~");
    let location = format!("{}/{properties}", quoted(destination.name().as_bytes()));
    let bind = BindCommand { destination, exchange, key, arguments };
    ask.change(Change::Request { vhost, ask: Request::Bind(bind) }).await?;
    let mut response = StatusCode::CREATED.into_response();
    response.headers_mut().extend(HeaderValue::from_str(&location).ok().map(|place| (header::LOCATION, place)));
    Ok(response)
}

fn shown(binding: &BindingFacts) -> Value {
    let mut object = declaration(binding);
    object["properties_key"] = json!(properties_key(&binding.key, &binding.arguments));
    object
}

/// What definitions say of a binding.
pub fn declaration(binding: &BindingFacts) -> Value {
    json!({
        "source": &*binding.source,
        "vhost": &*binding.vhost,
        "destination": &*binding.target,
        "destination_type": if binding.to_queue { "queue" } else { "exchange" },
        "routing_key": String::from_utf8_lossy(&binding.key),
        "arguments": json::of_table(&binding.arguments),
    })
}

/// The key of a binding among those between the same two: its routing key, and a digest of its arguments if it has any.
fn properties_key(key: &[u8], arguments: &Table) -> String {
    match (key.is_empty(), arguments.is_empty()) {
        (true, true) => "~".to_owned(),
        (_, true) => quoted(key),
        (_, false) => format!("{}~{}", quoted(key), digest(arguments)),
    }
}

/// Whether an address means this binding: with its key as the list shows it, or with the routing key itself.
fn is_meant(binding: &BindingFacts, wanted: &str) -> bool {
    let own = properties_key(&binding.key, &binding.arguments);
    let unquoted: Vec<u8> = percent_decode_str(&wanted.replace('+', " ")).collect();
    own == wanted || binding.arguments.is_empty() && !binding.key.is_empty() && unquoted == *binding.key
}

/// Eight bytes that are the same for the same arguments in any order (FNV-1a of their JSON).
fn digest(arguments: &Table) -> String {
    let text = json::of_table(&arguments.clone().sorted()).to_string();
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325, step);
    Base64UrlUnpadded::encode_string(&hash.to_be_bytes())
}

/// As in forms: a space is a plus. The tilde, which separates the parts, is quoted, too.
fn quoted(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' => text.push(char::from(*byte)),
            b' ' => text.push('+'),
            other => text.push_str(&format!("%{other:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use ferrymq_model::Value as Argument;

    use super::*;

    #[test]
    fn a_binding_is_found_by_its_key_and_its_arguments() {
        assert_eq!(properties_key(b"", &Table::default()), "~");
        assert_eq!(properties_key(b"a.b", &Table::default()), "a.b");
        assert_eq!(properties_key(b"k~t/s p%c", &Table::default()), "k%7Et%2Fs+p%25c");
        let table = |entries: &[(&str, i64)]| -> Table {
            entries.iter().map(|(key, value)| ((*key).to_owned(), Argument::Int(*value))).collect()
        };
        let (one, other) = (table(&[("a", 1), ("b", 2)]), table(&[("b", 2), ("a", 1)]));
        assert_eq!(properties_key(b"", &one), properties_key(b"", &other));
        assert_ne!(properties_key(b"", &one), properties_key(b"", &table(&[("a", 1)])));
        assert!(properties_key(b"k", &one).starts_with("k~"));
    }
}
