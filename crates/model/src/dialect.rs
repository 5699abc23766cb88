//! What the crate of a protocol knows about messages in its encoding: a reader and a writer of one neutral head.
//!
//! A message keeps the encoding of the protocol that published it. Who needs more than its facts asks its dialect. A
//! reader of another protocol asks for the [`Head`], and writes that in its own encoding. So N protocols need N readers
//! and N writers, and no protocol knows another.

use std::{borrow::Cow, fmt, sync::Arc};

use crate::{Annotations, DeathPlace, DeathRecord, MessageRef, Table, Time, Value};

/// The number of a dialect: the encoding of a message's properties. It is stored with each message, and belongs to the
/// crate of the protocol: it is never changed, and never used for another dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DialectId(pub u8);

/// A message's head in no protocol's encoding: everything but its body, its exchange and its routing key.
///
/// Identifiers and the like are bytes, because some protocols allow any; most are UTF-8.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Head<'a> {
    /// The application's identifier of the message.
    pub message_id: Option<Cow<'a, [u8]>>,
    /// The identifier of a request and its replies.
    pub correlation_id: Option<Cow<'a, [u8]>>,
    /// The address for replies.
    pub reply_to: Option<Cow<'a, [u8]>>,
    /// MIME type of the body.
    pub content_type: Option<Cow<'a, [u8]>>,
    /// MIME encoding of the body.
    pub content_encoding: Option<Cow<'a, [u8]>>,
    /// The user who published it.
    pub user: Option<Cow<'a, [u8]>>,
    /// The application that published it.
    pub app: Option<Cow<'a, [u8]>>,
    /// The type that the application gives to the message.
    pub kind: Option<Cow<'a, [u8]>>,
    /// When the application created it. Some protocols have whole seconds only.
    pub created: Option<Time>,
    /// The priority.
    pub priority: Option<u8>,
    /// Whether durable queues write it to disk.
    pub persistent: bool,
    /// Its time to live, in milliseconds.
    pub ttl_ms: Option<u64>,
    /// The delay that it asks for before it is routed, in milliseconds.
    pub delay_ms: Option<u64>,
    /// Whether that delay is over.
    pub delay_over: bool,
    /// Further routing keys that readers can see.
    pub more_keys: Vec<Cow<'a, [u8]>>,
    /// The application's own headers.
    pub headers: Table,
    /// Its deaths, the latest first.
    pub deaths: Vec<DeathRecord<'a>>,
    /// See [`Annotations::first_death`].
    pub first_death: Option<DeathPlace<'a>>,
    /// See [`Annotations::last_death`].
    pub last_death: Option<DeathPlace<'a>>,
}

impl<'a> Head<'a> {
    /// The same head after what the server says of the message.
    #[must_use]
    pub fn annotated(mut self, annotations: Annotations<'a>) -> Self {
        let Annotations { deaths, first_death, last_death, reply_address, .. } = annotations;
        if annotations.new_key {
            self.more_keys.clear();
        }
        if annotations.expiration_removed {
            self.ttl_ms = None;
        }
        self.delay_over |= annotations.delay_over;
        if let Some(address) = reply_address {
            self.reply_to = Some(Cow::Borrowed(address));
        }
        if !deaths.is_empty() {
            self.deaths = deaths;
            self.first_death = first_death.or(self.first_death);
            self.last_death = last_death;
        }
        self
    }
}

/// Reads and writes messages in one encoding. Each protocol's crate implements it. The session has checked the
/// properties when the message arrived; properties that cannot be read are like none.
///
/// All questions are about what the publisher wrote. [`Dialects`] answers them with the annotations taken into account.
/// Their default implementations read the whole head; a dialect whose messages are routed often has cheaper ones.
pub trait Dialect: Send + Sync {
    /// Its number.
    fn id(&self) -> DialectId;

    /// The message's head as its publisher wrote it.
    fn read<'a>(&self, message: &MessageRef<'a>) -> Head<'a>;

    /// The properties with this head: for readers of this dialect, and for messages that the server itself makes. What
    /// the encoding has no place for is left out. `None` if its headers are nested too deeply for the encoding.
    fn write(&self, head: &Head<'_>) -> Option<Vec<u8>>;

    /// The headers by which the message is routed: as readers of this dialect get them, annotations included.
    fn headers(&self, message: &MessageRef<'_>) -> Table {
        self.read(message).headers
    }

    /// The property, if the message has it.
    fn property(&self, message: &MessageRef<'_>, property: Property) -> Option<Vec<u8>> {
        let head = self.read(message);
        match property {
            Property::MessageId => head.message_id.map(Cow::into_owned),
            Property::CorrelationId => head.correlation_id.map(Cow::into_owned),
            Property::Timestamp => head.created.map(|time| (time.0 / 1000).to_string().into_bytes()),
        }
    }

    /// The delay in milliseconds before the message is routed; never 0.
    fn delay_ms(&self, message: &MessageRef<'_>) -> Option<u64> {
        self.read(message).delay_ms
    }

    /// The time to live in milliseconds.
    fn ttl_ms(&self, message: &MessageRef<'_>) -> Option<u64> {
        self.read(message).ttl_ms
    }

    /// Whether durable queues write the message to disk.
    fn is_persistent(&self, message: &MessageRef<'_>) -> bool {
        self.read(message).persistent
    }

    /// The further routing keys that readers can see.
    fn more_keys(&self, message: &MessageRef<'_>) -> Vec<Vec<u8>> {
        self.read(message).more_keys.into_iter().map(Cow::into_owned).collect()
    }

    /// The deaths that the publisher wrote, the latest first: a client may publish a dead letter again.
    fn deaths<'a>(&self, message: &MessageRef<'a>) -> Vec<DeathRecord<'a>> {
        self.read(message).deaths
    }

    /// The properties of a trace message, which describes another message. If they would be too long for a client, or
    /// nested too deeply, some of them are left out.
    fn trace(&self, traced: &Traced<'_>) -> Vec<u8> {
        traced.fitted(&|headers| self.write(&Head { headers, ..Head::default() }))
    }
}

/// A property that identifies a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Property {
    /// The application's identifier of the message.
    MessageId,
    /// The identifier of the request and its replies.
    CorrelationId,
    /// When the application created it: seconds since 1970, as digits.
    Timestamp,
}

/// The dialects of a server. Cheap to clone.
#[derive(Clone, Default)]
pub struct Dialects(Arc<[(DialectId, &'static dyn Dialect)]>);

impl Dialects {
    /// These dialects. The server writes its own messages in the first one.
    ///
    /// # Panics
    /// If two have the same number.
    #[must_use]
    pub fn new(all: impl IntoIterator<Item = &'static dyn Dialect>) -> Self {
        let all: Arc<[_]> = all.into_iter().map(|dialect| (dialect.id(), dialect)).collect();
        for (at, (id, _)) in all.iter().enumerate() {
            assert!(all[..at].iter().all(|(other, _)| other != id), "two dialects have the number {}", id.0);
        }
        Self(all)
    }

    /// The dialect with this number.
    #[must_use]
    pub fn get(&self, id: DialectId) -> Option<&'static dyn Dialect> {
        self.0.iter().find(|(other, _)| *other == id).map(|(_, dialect)| *dialect)
    }

    /// The dialect in which the server writes its own messages.
    #[must_use]
    pub fn own(&self) -> Option<&'static dyn Dialect> {
        self.0.first().map(|(_, dialect)| *dialect)
    }

    /// The message's head, annotations included.
    #[must_use]
    pub fn head<'a>(&self, message: &MessageRef<'a>) -> Head<'a> {
        let head = self.get(message.dialect).map(|dialect| dialect.read(message)).unwrap_or_default();
        if message.annotations.is_empty() { head } else { head.annotated(Annotations::read(message.annotations)) }
    }

    /// The headers by which the message is routed.
    #[must_use]
    pub fn headers(&self, message: &MessageRef<'_>) -> Table {
        self.get(message.dialect).map(|dialect| dialect.headers(message)).unwrap_or_default()
    }

    /// The property, if the message has it.
    #[must_use]
    pub fn property(&self, message: &MessageRef<'_>, property: Property) -> Option<Vec<u8>> {
        self.get(message.dialect)?.property(message, property)
    }

    /// The delay in milliseconds before the message is routed; never 0. `None` after the delay.
    #[must_use]
    pub fn delay_ms(&self, message: &MessageRef<'_>) -> Option<u64> {
        self.get(message.dialect)?.delay_ms(message).filter(|_| !Annotations::is_delay_over(message.annotations))
    }

    /// Whether durable queues write the message to disk.
    #[must_use]
    pub fn is_persistent(&self, message: &MessageRef<'_>) -> bool {
        self.get(message.dialect).is_some_and(|dialect| dialect.is_persistent(message))
    }
}

impl fmt::Debug for Dialects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(id, _)| id.0)).finish()
    }
}

/// A message as tracing describes it, without its body.
#[derive(Clone, Debug)]
pub struct Traced<'a> {
    /// The message.
    pub message: MessageRef<'a>,
    /// All dialects, because the message may have another one than the trace message.
    pub dialects: &'a Dialects,
    /// Further routing keys that are not in its properties.
    pub more_keys: &'a [Vec<u8>],
    /// The node that traced it.
    pub node: &'a str,
    /// Facts about the event, such as whether the message was redelivered.
    pub more: Table,
}

impl Traced<'_> {
    /// The longest properties of a trace message, in bytes: they fit into a frame of the default length of AMQP 0-9-1.
    pub const BYTES_MAX: usize = (127 << 10) + 64;

    /// The properties that `write` makes of the headers of the trace message. Left out are first the properties of the message, then its
    /// further routing keys.
    #[must_use]
    pub fn fitted(&self, write: &dyn Fn(Table) -> Option<Vec<u8>>) -> Vec<u8> {
        let head = self.dialects.head(&self.message);
        let text = |bytes: &[u8]| Value::Text(String::from_utf8_lossy(bytes).into_owned());
        let seen = head.more_keys.iter().map(|key| text(key));
        let further: Vec<Value> = if self.more_keys.is_empty() {
            seen.collect()
        } else {
            self.more_keys.iter().map(|key| text(key)).collect()
        };
        let headers = |further: &[Value], properties: Table| {
            let keys = std::iter::once(text(self.message.routing_key)).chain(further.iter().cloned()).collect();
            let mut headers = vec![
                ("exchange_name".to_owned(), Value::Text(self.message.exchange.to_owned())),
                ("routing_keys".to_owned(), Value::List(keys)),
                ("properties".to_owned(), Value::Table(properties)),
                ("node".to_owned(), Value::Text(self.node.to_owned())),
            ];
            headers.extend(self.more.0.iter().cloned());
            write(Table(headers)).filter(|written| written.len() <= Self::BYTES_MAX)
        };
        headers(&further, properties(&head))
            .or_else(|| headers(&further, Table::default()))
            .or_else(|| headers(&[], Table::default()))
            .unwrap_or_default()
    }
}

/// The properties of a head, each under its name, in RabbitMQ's order.
fn properties(head: &Head<'_>) -> Table {
    let text = |bytes: &Option<Cow<'_, [u8]>>| {
        bytes.as_ref().map(|bytes| Value::Text(String::from_utf8_lossy(bytes).into_owned()))
    };
    let seconds = |time: Time| Value::Int(i64::try_from(time.0 / 1000).unwrap_or(i64::MAX));
    let all = [
        ("app_id", text(&head.app)),
        ("user_id", text(&head.user)),
        ("type", text(&head.kind)),
        ("timestamp", head.created.map(seconds)),
        ("message_id", text(&head.message_id)),
        ("expiration", head.ttl_ms.map(|ms| Value::Text(ms.to_string()))),
        ("reply_to", text(&head.reply_to)),
        ("correlation_id", text(&head.correlation_id)),
        ("priority", head.priority.map(|priority| Value::Int(priority.into()))),
        ("delivery_mode", head.persistent.then_some(Value::Int(2))),
        ("headers", Some(Value::Table(head.headers.clone())).filter(|_| !head.headers.is_empty())),
        ("content_encoding", text(&head.content_encoding)),
        ("content_type", text(&head.content_type)),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}
