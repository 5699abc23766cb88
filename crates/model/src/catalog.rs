//! The parts of a vhost, as clients and operators describe them.

use serde::{Deserialize, Serialize};

use crate::{ConnectionId, Table};

/// Arguments of a declaration, such as `x-message-ttl`.
pub type Arguments = Table;

/// The type of an exchange: to which bindings it routes a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExchangeKind {
    /// All bindings whose binding key equals the routing key.
    Direct,
    /// All bindings.
    Fanout,
    /// All bindings whose key matches. The binding key is a pattern of words: `*` is one word, `#` is any number of
    /// words.
    Topic,
    /// All bindings whose arguments match the message's headers.
    Headers,
    /// One binding, by a hash of the routing key or of a header; the binding key is its weight.
    ConsistentHash,
    /// One binding, by a hash of the routing key.
    ModulusHash,
    /// One binding, chosen at random.
    Random,
    /// One binding, chosen at random among those of queues on this node.
    LocalRandom,
    /// All bindings. A new binding also gets the last messages.
    RecentHistory,
    /// Waits for the delay that a message asks for. Then it routes like the type that its arguments name.
    Delayed,
    /// All bindings whose arguments contain a selector that is true for the message's headers.
    JmsTopic,
}

impl ExchangeKind {
    /// The type with this name in AMQP.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "direct" => Some(Self::Direct),
            "fanout" => Some(Self::Fanout),
            "topic" => Some(Self::Topic),
            "headers" => Some(Self::Headers),
            "x-consistent-hash" => Some(Self::ConsistentHash),
            "x-modulus-hash" => Some(Self::ModulusHash),
            "x-random" => Some(Self::Random),
            "x-local-random" => Some(Self::LocalRandom),
            "x-recent-history" => Some(Self::RecentHistory),
            "x-delayed-message" => Some(Self::Delayed),
            "x-jms-topic" => Some(Self::JmsTopic),
            _ => None,
        }
    }

    /// Its name in AMQP.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Fanout => "fanout",
            Self::Topic => "topic",
            Self::Headers => "headers",
            Self::ConsistentHash => "x-consistent-hash",
            Self::ModulusHash => "x-modulus-hash",
            Self::Random => "x-random",
            Self::LocalRandom => "x-local-random",
            Self::RecentHistory => "x-recent-history",
            Self::Delayed => "x-delayed-message",
            Self::JmsTopic => "x-jms-topic",
        }
    }
}

/// An exchange, as declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ExchangeSpec {
    /// Its type.
    pub kind: ExchangeKind,
    /// Whether it survives a restart.
    pub durable: bool,
    /// Whether it is deleted when its last binding as a source is removed.
    pub auto_delete: bool,
    /// Whether clients may not publish to it.
    pub internal: bool,
    /// Its arguments.
    pub arguments: Arguments,
}

/// Who may use a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QueueOwner {
    /// Every user with the permission.
    Shared,
    /// One connection; the queue is deleted with it (AMQP: exclusive).
    Connection(ConnectionId),
}

/// A queue, as declared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QueueSpec {
    /// Whether it survives a restart.
    pub durable: bool,
    /// Whether it belongs to the connection that declared it.
    pub exclusive: bool,
    /// Whether it is deleted when its last subscription ends.
    pub auto_delete: bool,
    /// Its arguments.
    pub arguments: Arguments,
}

/// A binding: messages that `source` routes by `key` and `arguments` go to `queue`, or on to `exchange`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BindingSpec {
    /// The exchange's name.
    pub source: String,
    /// The queue's name; empty if the binding leads to an exchange.
    pub queue: String,
    /// The destination's name, if the destination is an exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchange: Option<String>,
    /// The binding key, at most [`crate::MessageRef::KEY_BYTES_MAX`]; not always text.
    #[serde(with = "serde_bytes")]
    pub key: Vec<u8>,
    /// The arguments. They distinguish bindings with equal keys, and a headers exchange matches messages against them.
    pub arguments: Arguments,
}

impl BindingSpec {
    /// The argument by which the binding of a queue asks to be named: a number from 0. A message that comes into the
    /// queue through the binding has this number in [`crate::Annotations::bindings`]. Who binds chooses the number
    /// (MQTT 5: the subscription identifier, with the flags of the subscription).
    pub const NUMBER: &str = "x-binding-number";
}

/// What a user may do with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Access {
    /// Declare, change and delete it.
    Configure,
    /// Put messages into it.
    Write,
    /// Get messages from it.
    Read,
}

impl Access {
    /// Its name in RabbitMQ's texts.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Configure => "configure",
            Self::Write => "write",
            Self::Read => "read",
        }
    }
}

/// What a durable catalog entry describes. The number is stored: never change a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A vhost.
    Vhost = 1,
    /// A user, with its password's hash and tags.
    User = 2,
    /// A user's permissions in a vhost.
    Permission = 3,
    /// An exchange.
    Exchange = 4,
    /// A queue, with its id.
    Queue = 5,
    /// A binding.
    Binding = 6,
    /// A number that the catalog counts up, such as the next queue id.
    Counter = 7,
    /// A policy, or an operator's policy.
    Policy = 8,
    /// A user's permissions for the routing keys of a topic exchange.
    TopicPermission = 9,
    /// A part of a prepared transaction.
    PreparedTransaction = 10,
}

impl EntryKind {
    /// The kind that is stored as `number`.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Vhost,
            2 => Self::User,
            3 => Self::Permission,
            4 => Self::Exchange,
            5 => Self::Queue,
            6 => Self::Binding,
            7 => Self::Counter,
            8 => Self::Policy,
            9 => Self::TopicPermission,
            10 => Self::PreparedTransaction,
            _ => return None,
        })
    }
}

/// One durable change of the catalog: the entry under (kind, key) now has the content `value`, or is deleted. Storage
/// keeps the bytes and does not interpret them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CatalogEntry {
    /// The kind of the entry.
    pub kind: EntryKind,
    /// Its key, unique for its kind.
    pub key: Vec<u8>,
    /// Its content, or `None` if it was deleted.
    pub value: Option<Vec<u8>>,
}
