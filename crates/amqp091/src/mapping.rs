//! Where AMQP's words meet the house's: the only file that knows both.
//!
//! Requests become commands, replies become methods, refusals become reply codes, and field tables become values.

use ferrymq_model::{
    Arguments, BindCommand, Command, ConsumeCommand, DeadLetter, Death, DeclareExchange, DeclareQueue, DeleteExchange,
    DeleteQueue, Destination, GetCommand, Name, Origin, QosCommand, Refusal, Reply, ReturnReason, Settle, Settlement,
    Table, Value,
};

use crate::codec::{
    Malformed,
    content::Properties,
    frame::put_method,
    methods::{self, Method, WireMethod},
    reply_code::ReplyCode,
    table::{RawTable, RawValue},
};

/// Something the protocol forbids, or that we cannot do: it ends the channel or the connection, as its code says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The reply code.
    pub code: ReplyCode,
    /// What went wrong, without the code's name.
    pub text: String,
}

impl Violation {
    /// A violation with its explanation.
    pub fn new(code: ReplyCode, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }

    /// The text that goes over the wire, like RabbitMQ's: the code's name, a dash, the explanation; cut to fit.
    #[must_use]
    pub fn reply_text(&self) -> String {
        let mut text = format!("{} - {}", self.code.name(), self.text);
        if text.len() > Name::BYTES_MAX {
            text.truncate(text.floor_char_boundary(Name::BYTES_MAX - 3));
            text.push_str("...");
        }
        text
    }
}

/// The reply-code table: a refusal's variant decides its code, its text stays.
impl From<&Refusal> for Violation {
    fn from(refusal: &Refusal) -> Self {
        let code = match refusal {
            Refusal::LoginFailed(_) | Refusal::AccessRefused(_) => ReplyCode::AccessRefused,
            Refusal::NotFound { .. } | Refusal::NothingNamed(_) => ReplyCode::NotFound,
            Refusal::ResourceLocked(_) => ReplyCode::ResourceLocked,
            Refusal::PreconditionFailed(_) => ReplyCode::PreconditionFailed,
            Refusal::VhostNotFound(_) | Refusal::NotAllowed(_) => ReplyCode::NotAllowed,
            Refusal::CommandInvalid(_) => ReplyCode::CommandInvalid,
            Refusal::NotImplemented(_) => ReplyCode::NotImplemented,
            Refusal::ResourceLimit(_) => ReplyCode::ResourceError,
            Refusal::Fault(_) => ReplyCode::InternalError,
            Refusal::ConnectionForced(_) => ReplyCode::ConnectionForced,
        };
        Self::new(code, refusal.to_string())
    }
}

/// What each kind of malformed input is answered with.
impl From<Malformed> for Violation {
    fn from(malformed: Malformed) -> Self {
        let (code, text) = match malformed {
            Malformed::FrameType(octet) => (ReplyCode::FrameError, format!("there is no frame type {octet}")),
            Malformed::FrameTooLarge { payload_bytes, payload_bytes_max } => (
                ReplyCode::FrameError,
                format!(
                    "frame_too_large: a payload of {payload_bytes} octets, at most {payload_bytes_max} were agreed on"
                ),
            ),
            Malformed::FrameEnd(octet) => {
                (ReplyCode::FrameError, format!("invalid_frame_end_marker: {octet} instead of 206"))
            }
            Malformed::HeartbeatPayload => (ReplyCode::FrameError, "a heartbeat has no payload".into()),
            Malformed::UnknownMethod { class, method } => {
                (ReplyCode::NotImplemented, format!("there is no method {method} in class {class}"))
            }
            Malformed::Truncated => (ReplyCode::FrameError, "the payload ends before its fields do".into()),
            Malformed::TrailingBytes(count) => {
                (ReplyCode::FrameError, format!("{count} octets follow the payload's last field"))
            }
            Malformed::NotText => (ReplyCode::FrameError, "Malformed UTF-8 in shortstr".into()),
            Malformed::FieldType(octet) => (ReplyCode::SyntaxError, format!("there is no field type {octet}")),
            Malformed::TableLength => {
                (ReplyCode::SyntaxError, "a table's or array's values do not fill its length".into())
            }
            Malformed::TableDepth => (ReplyCode::SyntaxError, "tables are nested too deep".into()),
            Malformed::PropertyFlags(flags) => {
                (ReplyCode::SyntaxError, format!("no property belongs to the flags {flags}"))
            }
            Malformed::Weight(weight) => {
                (ReplyCode::SyntaxError, format!("a content header's weight is 0, not {weight}"))
            }
        };
        Self::new(code, text)
    }
}

/// Where a request came from: class and method in one number, which [`class_and_method`] takes apart again.
#[must_use]
pub fn origin(channel: u16, (class, method): (u16, u16)) -> Origin {
    Origin { channel, method: u32::from(class) << 16 | u32::from(method) }
}

/// The class and the method of a request.
#[must_use]
pub fn class_and_method(origin: Origin) -> (u16, u16) {
    ((origin.method >> 16) as u16, origin.method as u16)
}

/// The command that a method on an open channel asks for, unless it is one of those that the session answers itself.
///
/// # Errors
/// Where the method is not built, or asks for something that is not.
pub fn command(channel: u16, method: &Method<'_>) -> Result<Command, Violation> {
    let origin = origin(channel, method.id());
    Ok(match method {
        Method::ExchangeDeclare(declare) => declare_exchange(origin, declare),
        Method::ExchangeDelete(delete) => Command::DeleteExchange(DeleteExchange {
            origin,
            exchange: name(delete.exchange),
            if_unused: delete.if_unused,
            no_wait: delete.no_wait,
        }),
        Method::QueueDeclare(declare) => declare_queue(origin, declare),
        Method::QueueDelete(delete) => Command::DeleteQueue(DeleteQueue {
            origin,
            queue: name(delete.queue),
            if_unused: delete.if_unused,
            if_empty: delete.if_empty,
            no_wait: delete.no_wait,
        }),
        Method::QueuePurge(purge) => Command::PurgeQueue { origin, queue: name(purge.queue), no_wait: purge.no_wait },
        Method::QueueBind(bind) => Command::Bind(BindCommand {
            origin,
            destination: Destination::Queue(name(bind.queue)),
            exchange: name(bind.exchange),
            key: bind.routing_key.into(),
            no_wait: bind.no_wait,
            arguments: arguments(bind.arguments),
        }),
        Method::QueueUnbind(unbind) => Command::Unbind(BindCommand {
            origin,
            destination: Destination::Queue(name(unbind.queue)),
            exchange: name(unbind.exchange),
            key: unbind.routing_key.into(),
            no_wait: false,
            arguments: arguments(unbind.arguments),
        }),
        Method::BasicQos(qos) => Command::Qos(limit(origin, *qos)?),
        Method::BasicConsume(consume) => subscribe(origin, consume)?,
        Method::BasicCancel(cancel) => {
            Command::Cancel { origin, tag: tag(cancel.consumer_tag), no_wait: cancel.no_wait }
        }
        Method::BasicGet(get) => Command::Get(GetCommand { origin, queue: name(get.queue), no_ack: get.no_ack }),
        Method::BasicAck(ack) => settle(origin, ack.delivery_tag, ack.multiple, Settlement::Accept),
        Method::BasicNack(nack) => settle(origin, nack.delivery_tag, nack.multiple, returned(nack.requeue)),
        Method::BasicReject(reject) => settle(origin, reject.delivery_tag, false, returned(reject.requeue)),
        Method::ConfirmSelect(select) => Command::ConfirmSelect { origin, no_wait: select.no_wait },
        Method::ChannelFlow(flow) => Command::Flow { origin, active: flow.active },
        Method::BasicRecover(_)
        | Method::BasicRecoverAsync(_)
        | Method::ExchangeBind(_)
        | Method::ExchangeUnbind(_)
        | Method::TxSelect(_)
        | Method::TxCommit(_)
        | Method::TxRollback(_) => {
            return Err(Violation::new(ReplyCode::NotImplemented, format!("{} is not built yet", method.name())));
        }
        _ => return Err(Violation::new(ReplyCode::CommandInvalid, "unimplemented method")),
    })
}

fn declare_exchange(origin: Origin, declare: &methods::ExchangeDeclare<'_>) -> Command {
    Command::DeclareExchange(DeclareExchange {
        origin,
        exchange: name(declare.exchange),
        kind: tag(declare.kind),
        passive: declare.passive,
        durable: declare.durable,
        auto_delete: declare.auto_delete,
        internal: declare.internal,
        no_wait: declare.no_wait,
        arguments: arguments(declare.arguments),
    })
}

fn declare_queue(origin: Origin, declare: &methods::QueueDeclare<'_>) -> Command {
    Command::DeclareQueue(DeclareQueue {
        origin,
        queue: name(declare.queue),
        passive: declare.passive,
        durable: declare.durable,
        exclusive: declare.exclusive,
        auto_delete: declare.auto_delete,
        no_wait: declare.no_wait,
        arguments: arguments(declare.arguments),
    })
}

fn limit(origin: Origin, qos: methods::BasicQos) -> Result<QosCommand, Violation> {
    if qos.prefetch_size != 0 {
        return Err(Violation::new(ReplyCode::NotImplemented, format!("prefetch_size!=0 ({})", qos.prefetch_size)));
    }
    Ok(QosCommand { origin, prefetch: qos.prefetch_count, global: qos.global })
}

fn subscribe(origin: Origin, consume: &methods::BasicConsume<'_>) -> Result<Command, Violation> {
    if consume.queue == "amq.rabbitmq.reply-to" {
        return Err(Violation::new(ReplyCode::NotImplemented, "direct reply-to is not built yet"));
    }
    // no-local is not looked at, as in RabbitMQ.
    Ok(Command::Consume(ConsumeCommand {
        origin,
        queue: name(consume.queue),
        tag: tag(consume.consumer_tag),
        no_ack: consume.no_ack,
        exclusive: consume.exclusive,
        no_wait: consume.no_wait,
        arguments: arguments(consume.arguments),
    }))
}

fn settle(origin: Origin, delivery_tag: u64, multiple: bool, settlement: Settlement) -> Command {
    Command::Settle(Settle { origin, delivery_tag, multiple, settlement })
}

const fn returned(requeue: bool) -> Settlement {
    if requeue { Settlement::Release } else { Settlement::Reject }
}

/// An exchange's or a queue's name; line ends are taken out, as RabbitMQ does.
fn name(text: &str) -> Name {
    if text.contains(['\r', '\n']) { tag(&text.replace(['\r', '\n'], "")) } else { tag(text) }
}

/// As much of a text as a short string holds.
#[must_use]
pub fn short(text: &str) -> &str {
    text.get(..text.floor_char_boundary(Name::BYTES_MAX)).unwrap_or(text)
}

/// Any other name, as it is.
#[must_use]
pub fn tag(text: &str) -> Name {
    Name::parse(text.as_bytes()).expect("a short string that is text is a name")
}

/// Appends the frame that answers a request.
pub fn put_reply(out: &mut Vec<u8>, origin: Origin, reply: &Reply) {
    let channel = origin.channel;
    match reply {
        Reply::VhostOpened => put_method(out, 0, &methods::ConnectionOpenOk),
        Reply::ChannelOpened => put_method(out, channel, &methods::ChannelOpenOk),
        Reply::ChannelClosed => put_method(out, channel, &methods::ChannelCloseOk),
        Reply::ConnectionClosed => put_method(out, 0, &methods::ConnectionCloseOk),
        Reply::ExchangeDeclared => put_method(out, channel, &methods::ExchangeDeclareOk),
        Reply::ExchangeDeleted => put_method(out, channel, &methods::ExchangeDeleteOk),
        Reply::QueueDeclared { queue, messages, consumers } => {
            let (message_count, consumer_count) = (count(*messages), *consumers);
            put_method(out, channel, &methods::QueueDeclareOk { queue, message_count, consumer_count });
        }
        Reply::QueueDeleted { messages } => {
            put_method(out, channel, &methods::QueueDeleteOk { message_count: count(*messages) });
        }
        Reply::QueuePurged { messages } => {
            put_method(out, channel, &methods::QueuePurgeOk { message_count: count(*messages) });
        }
        Reply::Bound if origin.method == self::origin(channel, methods::ExchangeBind::ID).method => {
            put_method(out, channel, &methods::ExchangeBindOk);
        }
        Reply::Bound => put_method(out, channel, &methods::QueueBindOk),
        Reply::Unbound if origin.method == self::origin(channel, methods::ExchangeUnbind::ID).method => {
            put_method(out, channel, &methods::ExchangeUnbindOk);
        }
        Reply::Unbound => put_method(out, channel, &methods::QueueUnbindOk),
        Reply::QosSet => put_method(out, channel, &methods::BasicQosOk),
        Reply::Subscribed { tag } => put_method(out, channel, &methods::BasicConsumeOk { consumer_tag: tag }),
        Reply::Unsubscribed { tag } => put_method(out, channel, &methods::BasicCancelOk { consumer_tag: tag }),
        Reply::GetEmpty => put_method(out, channel, &methods::BasicGetEmpty),
        Reply::FlowSet { active } => put_method(out, channel, &methods::ChannelFlowOk { active: *active }),
        Reply::ConfirmSelected => put_method(out, channel, &methods::ConfirmSelectOk),
        Reply::Recovered => put_method(out, channel, &methods::BasicRecoverOk),
        Reply::TxSelected => put_method(out, channel, &methods::TxSelectOk),
        Reply::TxCommitted => put_method(out, channel, &methods::TxCommitOk),
        Reply::TxRolledBack => put_method(out, channel, &methods::TxRollbackOk),
        Reply::LoginRenewed => put_method(out, 0, &methods::ConnectionUpdateSecretOk),
    }
}

/// A count as the protocol has room for it: over 32 bits it says the most it can.
#[must_use]
pub fn count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Appends the close that a violation ends in; says whether it ends the connection.
pub fn put_close(out: &mut Vec<u8>, origin: Origin, violation: &Violation) -> bool {
    let (class_id, method_id) = class_and_method(origin);
    let (reply_code, text) = (violation.code.number(), violation.reply_text());
    let reply_text = text.as_str();
    if violation.code.is_hard() || origin.channel == 0 {
        put_method(out, 0, &methods::ConnectionClose { reply_code, reply_text, class_id, method_id });
        true
    } else {
        put_method(out, origin.channel, &methods::ChannelClose { reply_code, reply_text, class_id, method_id });
        false
    }
}

/// Why a message comes back, in AMQP's words.
#[must_use]
pub fn return_reason(reason: ReturnReason) -> (ReplyCode, &'static str) {
    match reason {
        ReturnReason::Unroutable => (ReplyCode::NoRoute, "NO_ROUTE"),
    }
}

/// What a message's properties say that decides its fate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PublishFacts {
    /// Whether it should be written to disk.
    pub persistent: bool,
    /// Its priority.
    pub priority: Option<u8>,
    /// How long it may wait.
    pub expiration_ms: Option<u64>,
    /// The user it claims to come from.
    pub user: Option<Name>,
    /// Further routing keys, from the headers CC and BCC.
    pub more_keys: Option<Box<[Vec<u8>]>>,
    /// The properties as others may see them, where that is not as they came: without BCC.
    pub shown: Option<Vec<u8>>,
}

/// Checks a message's properties and reads what decides its fate.
///
/// # Errors
/// Where the properties are malformed, or one of them says something that cannot be.
#[inline]
pub fn publish_facts(properties: &[u8]) -> Result<PublishFacts, Violation> {
    let properties = Properties::read(properties)?;
    let mut facts = PublishFacts {
        persistent: properties.delivery_mode == Some(2),
        priority: properties.priority,
        expiration_ms: properties.expiration.map(expiration_ms).transpose()?,
        user: properties.user_id.map(user).transpose()?,
        more_keys: None,
        shown: None,
    };
    if let Some(headers) = properties.headers {
        read_copies(&properties, headers, &mut facts)?;
    }
    Ok(facts)
}

/// The headers CC and BCC: further routing keys, of which BCC's are not shown to consumers.
fn read_copies(properties: &Properties<'_>, headers: RawTable<'_>, facts: &mut PublishFacts) -> Result<(), Violation> {
    let mut keys = Vec::new();
    for (key, value) in headers.iter() {
        let header = match key {
            b"CC" => "CC",
            b"BCC" => "BCC",
            _ => continue,
        };
        let RawValue::Array(array) = value else { return Err(unacceptable(header)) };
        for key in array.iter() {
            let RawValue::Text(key) = key else { return Err(unacceptable(header)) };
            keys.push(key.to_vec());
        }
        if header == "BCC" {
            let (mut shown, mut rest) = (Vec::new(), Vec::new());
            headers.put_without(header, &mut rest);
            Properties { headers: Some(RawTable::check(&rest)?), ..*properties }.write(&mut shown);
            facts.shown = Some(shown);
        }
    }
    facts.more_keys = (!keys.is_empty()).then(|| keys.into());
    Ok(())
}

fn unacceptable(header: &str) -> Violation {
    let text = format!("invalid message: header '{header}' is not an array of longstr");
    Violation::new(ReplyCode::PreconditionFailed, text)
}

fn user(bytes: &[u8]) -> Result<Name, Violation> {
    Name::parse(bytes).map_err(|_| Violation::new(ReplyCode::PreconditionFailed, "user_id property is not text"))
}

/// How long a message may wait, from the digits of its expiration property (milliseconds).
///
/// # Errors
/// 406 where they are not the digits of a number that is small enough, in RabbitMQ's words.
pub fn expiration_ms(text: &[u8]) -> Result<u64, Violation> {
    /// The longest timer that RabbitMQ sets: 32 bits of milliseconds, nearly fifty days.
    const MS_MAX: u64 = 4_294_967_295;
    let shown = String::from_utf8_lossy(text);
    let refuse = |why: String| {
        Err(Violation::new(ReplyCode::PreconditionFailed, format!("invalid expiration '{shown}': {why}")))
    };
    let digits_from = usize::from(matches!(text.first(), Some(b'-' | b'+')));
    let digits = shown.get(digits_from..).unwrap_or_default();
    let end = digits.find(|character: char| !character.is_ascii_digit()).unwrap_or(digits.len());
    if end == 0 {
        return refuse("no_integer".into());
    }
    let (number, leftover) = digits.split_at(end);
    if !leftover.is_empty() {
        return refuse(format!("{{leftover_string,\"{leftover}\"}}"));
    }
    match number.parse::<u64>() {
        Ok(number) if text.first() == Some(&b'-') && number > 0 => refuse(format!("{{value_negative,-{number}}}")),
        Ok(number) if number <= MS_MAX => Ok(number),
        _ => refuse(format!("{{value_too_big,{number}}}")),
    }
}

/// What a field table says, without AMQP's encoding.
#[must_use]
pub fn arguments(table: RawTable<'_>) -> Arguments {
    table.iter().map(|(key, raw)| (String::from_utf8_lossy(key).into_owned(), value(raw))).collect()
}

fn value(raw: RawValue<'_>) -> Value {
    match raw {
        RawValue::Void => Value::Void,
        RawValue::Bool(bool) => Value::Bool(bool),
        RawValue::Int(number) => Value::Int(number),
        RawValue::Float(number) => Value::Float(number),
        RawValue::Decimal { scale, digits } => Value::Decimal { scale, digits },
        RawValue::Text(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Value::Text(text.to_owned()),
            Err(_) => Value::Bytes(bytes.to_vec()),
        },
        RawValue::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
        RawValue::Timestamp(seconds) => Value::Timestamp(seconds),
        RawValue::Array(array) => Value::List(array.iter().map(value).collect()),
        RawValue::Table(table) => Value::Table(arguments(table)),
    }
}

/// Reads AMQP's properties for routing.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeaderReader;

impl ferrymq_model::Properties for HeaderReader {
    fn headers(&self, properties: &[u8]) -> Table {
        Properties::read(properties).ok().and_then(|properties| properties.headers).map(arguments).unwrap_or_default()
    }

    fn dead_letter(&self, properties: &[u8], _: &Death<'_>) -> DeadLetter {
        DeadLetter { properties: properties.to_vec(), ..DeadLetter::default() }
    }

    fn with_reply_address(&self, properties: &[u8], _: &str) -> Vec<u8> {
        properties.to_vec()
    }
}
