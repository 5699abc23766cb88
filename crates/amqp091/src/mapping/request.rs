//! Turns a client's methods into commands.

use ferrymq_model::{
    BindCommand, Command, ConsumeCommand, DeclareExchange, DeclareQueue, DeleteExchange, DeleteQueue, Destination,
    GetCommand, Name, Origin, QosCommand, Settle, Settlement,
};

use super::{Violation, origin, value::arguments};
use crate::codec::{
    methods::{self, Method},
    reply_code::ReplyCode,
    table::RawTable,
};

/// The name for the channel's own replies (direct reply-to). Clients consume from it, and use it as the `reply-to` of a
/// publish.
pub const REPLIES: &str = "amq.rabbitmq.reply-to";

/// The first part of the address for a channel's replies.
const REPLIES_PREFIX: &str = "amq.rabbitmq.reply-to.";

/// Whether this is the name for the channel's own replies.
#[must_use]
pub fn names_replies(queue: &str) -> bool {
    *name(queue) == *REPLIES
}

/// The command for a method on an open channel. The session answers some methods itself; they do not come here.
///
/// # Errors
/// If the method, or something that it asks for, is not implemented.
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
        Method::QueueBind(bind) => {
            let to = Destination::Queue(name(bind.queue));
            Command::Bind(binding(origin, to, bind.exchange, bind.routing_key, bind.no_wait, bind.arguments))
        }
        Method::QueueUnbind(unbind) => {
            let to = Destination::Queue(name(unbind.queue));
            Command::Unbind(binding(origin, to, unbind.exchange, unbind.routing_key, false, unbind.arguments))
        }
        Method::ExchangeBind(bind) => {
            let to = Destination::Exchange(name(bind.destination));
            Command::Bind(binding(origin, to, bind.source, bind.routing_key, bind.no_wait, bind.arguments))
        }
        Method::ExchangeUnbind(unbind) => {
            let to = Destination::Exchange(name(unbind.destination));
            Command::Unbind(binding(origin, to, unbind.source, unbind.routing_key, unbind.no_wait, unbind.arguments))
        }
        _ => return consuming(origin, method),
    })
}

/// The commands for messages. [`command`] makes those for exchanges and queues.
fn consuming(origin: Origin, method: &Method<'_>) -> Result<Command, Violation> {
    Ok(match method {
        Method::BasicQos(qos) => Command::Qos(limit(origin, *qos)?),
        Method::BasicConsume(consume) => subscribe(origin, consume)?,
        Method::BasicCancel(cancel) => {
            Command::Cancel { origin, tag: tag(cancel.consumer_tag), no_wait: cancel.no_wait }
        }
        Method::BasicGet(get) => Command::Get(GetCommand { origin, queue: name(get.queue), no_ack: get.no_ack }),
        Method::BasicAck(ack) => settle(origin, ack.delivery_tag, ack.multiple, Settlement::Accept),
        Method::BasicNack(nack) => {
            settle(origin, nack.delivery_tag, nack.multiple, returned(nack.requeue, Settlement::Release))
        }
        Method::BasicReject(reject) => {
            settle(origin, reject.delivery_tag, false, returned(reject.requeue, Settlement::Fail))
        }
        Method::ConfirmSelect(select) => Command::ConfirmSelect { origin, no_wait: select.no_wait },
        Method::ChannelFlow(flow) => Command::Flow { origin, active: flow.active },
        Method::BasicRecover(recover) => give_back(origin, recover.requeue, true)?,
        Method::BasicRecoverAsync(recover) => give_back(origin, recover.requeue, false)?,
        Method::TxSelect(_) => Command::TxSelect(origin),
        Method::TxCommit(_) => Command::TxCommit(origin),
        Method::TxRollback(_) => Command::TxRollback(origin),
        _ => return Err(Violation::new(ReplyCode::CommandInvalid, "unimplemented method")),
    })
}

fn binding(
    origin: Origin,
    destination: Destination,
    exchange: &str,
    key: &str,
    no_wait: bool,
    table: RawTable<'_>,
) -> BindCommand {
    let arguments = arguments(table);
    BindCommand { origin, destination, exchange: name(exchange), key: key.into(), no_wait, arguments }
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
    if consume.queue == REPLIES {
        return consume_replies(origin, consume);
    }
    // no-local is ignored, as in RabbitMQ.
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

/// Consumes direct replies. A reply is never in a queue, so a consumer cannot acknowledge it.
fn consume_replies(origin: Origin, consume: &methods::BasicConsume<'_>) -> Result<Command, Violation> {
    if !consume.no_ack {
        return Err(Violation::new(ReplyCode::PreconditionFailed, "reply consumer cannot acknowledge"));
    }
    Ok(Command::ConsumeReplies {
        origin,
        tag: tag(consume.consumer_tag),
        prefix: Name::from(REPLIES_PREFIX),
        no_wait: consume.no_wait,
    })
}

fn give_back(origin: Origin, requeue: bool, reply: bool) -> Result<Command, Violation> {
    if requeue {
        Ok(Command::Recover { origin, reply })
    } else {
        Err(Violation::new(ReplyCode::NotImplemented, "requeue=false"))
    }
}

fn settle(origin: Origin, delivery_tag: u64, multiple: bool, settlement: Settlement) -> Command {
    Command::Settle(Settle { origin, delivery_tag, multiple, settlement })
}

/// As in RabbitMQ 4.3, `basic.reject` counts as a failure and `basic.nack` does not.
const fn returned(requeue: bool, again: Settlement) -> Settlement {
    if requeue { again } else { Settlement::Reject }
}

/// An exchange's or a queue's name without line breaks, as in RabbitMQ.
fn name(text: &str) -> Name {
    if text.contains(['\r', '\n']) { tag(&text.replace(['\r', '\n'], "")) } else { tag(text) }
}

/// The beginning of a text, cut to the length of a short string.
#[must_use]
pub fn short(text: &str) -> &str {
    text.get(..text.floor_char_boundary(Name::BYTES_MAX)).unwrap_or(text)
}

/// Any other name, unchanged.
#[must_use]
pub fn tag(text: &str) -> Name {
    Name::parse(text.as_bytes()).expect("a short string that is text is a name")
}
