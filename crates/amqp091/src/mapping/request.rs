//! Turns a client's methods into commands.

use ferrymq_model::{
    Ask, BindCommand, Command, ConfirmMode, Credit, CreditOf, DeclareExchange, DeclareQueue, DeleteExchange,
    DeleteQueue, Deliveries, Destination, GetCommand, Name, Origin, Outcome, Request, SetCredit, Settle, Settlement,
    Subscribe, TransactionId,
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
    if let Some(settle) = settle(origin, method) {
        return Ok(Command::Settle(settle));
    }
    let ask = match topology(method) {
        Some(ask) => ask,
        None => consuming(method)?,
    };
    Ok(Command::Request(Request { origin: origin.unanswered(is_unanswered(method)), ask }))
}

/// Whether the client wants no answer to this method.
const fn is_unanswered(method: &Method<'_>) -> bool {
    match method {
        Method::ExchangeDeclare(declare) => declare.no_wait,
        Method::ExchangeDelete(delete) => delete.no_wait,
        Method::ExchangeBind(bind) => bind.no_wait,
        Method::ExchangeUnbind(unbind) => unbind.no_wait,
        Method::QueueDeclare(declare) => declare.no_wait,
        Method::QueueDelete(delete) => delete.no_wait,
        Method::QueuePurge(purge) => purge.no_wait,
        Method::QueueBind(bind) => bind.no_wait,
        Method::BasicConsume(consume) => consume.no_wait,
        Method::BasicCancel(cancel) => cancel.no_wait,
        Method::ConfirmSelect(select) => select.no_wait,
        Method::BasicRecoverAsync(_) => true,
        _ => false,
    }
}

/// The requests for exchanges, queues and bindings; `None` if the method is for something else.
fn topology(method: &Method<'_>) -> Option<Ask> {
    Some(match method {
        Method::ExchangeDeclare(declare) => Ask::DeclareExchange(DeclareExchange {
            exchange: name(declare.exchange),
            kind: tag(declare.kind),
            passive: declare.passive,
            durable: declare.durable,
            auto_delete: declare.auto_delete,
            internal: declare.internal,
            arguments: arguments(declare.arguments),
        }),
        Method::ExchangeDelete(delete) => {
            Ask::DeleteExchange(DeleteExchange { exchange: name(delete.exchange), if_unused: delete.if_unused })
        }
        Method::QueueDeclare(declare) => Ask::DeclareQueue(DeclareQueue {
            queue: name(declare.queue),
            passive: declare.passive,
            durable: declare.durable,
            exclusive: declare.exclusive,
            auto_delete: declare.auto_delete,
            arguments: arguments(declare.arguments),
        }),
        Method::QueueDelete(delete) => Ask::DeleteQueue(DeleteQueue {
            queue: name(delete.queue),
            if_unused: delete.if_unused,
            if_empty: delete.if_empty,
        }),
        Method::QueuePurge(purge) => Ask::PurgeQueue(name(purge.queue)),
        Method::QueueBind(bind) => {
            let to = Destination::Queue(name(bind.queue));
            Ask::Bind(binding(to, bind.exchange, bind.routing_key, bind.arguments))
        }
        Method::QueueUnbind(unbind) => {
            let to = Destination::Queue(name(unbind.queue));
            Ask::Unbind(binding(to, unbind.exchange, unbind.routing_key, unbind.arguments))
        }
        Method::ExchangeBind(bind) => {
            let to = Destination::Exchange(name(bind.destination));
            Ask::Bind(binding(to, bind.source, bind.routing_key, bind.arguments))
        }
        Method::ExchangeUnbind(unbind) => {
            let to = Destination::Exchange(name(unbind.destination));
            Ask::Unbind(binding(to, unbind.source, unbind.routing_key, unbind.arguments))
        }
        _ => return None,
    })
}

/// The requests for messages.
fn consuming(method: &Method<'_>) -> Result<Ask, Violation> {
    Ok(match method {
        Method::BasicQos(qos) => limit(*qos)?,
        Method::BasicConsume(consume) => subscribe(consume)?,
        Method::BasicCancel(cancel) => Ask::Unsubscribe(tag(cancel.consumer_tag)),
        Method::BasicGet(get) => Ask::Get(GetCommand { queue: name(get.queue), no_ack: get.no_ack }),
        Method::ConfirmSelect(_) => Ask::SelectConfirms(ConfirmMode::Counted),
        Method::ChannelFlow(flow) => Ask::Flow { active: flow.active },
        Method::BasicRecover(recover) => give_back(recover.requeue)?,
        Method::BasicRecoverAsync(recover) => give_back(recover.requeue)?,
        Method::TxSelect(_) => Ask::SelectTransactions,
        Method::TxCommit(_) => Ask::Commit(TransactionId::SELECTED),
        Method::TxRollback(_) => Ask::RollBack(TransactionId::SELECTED),
        _ => return Err(Violation::new(ReplyCode::CommandInvalid, "unimplemented method")),
    })
}

fn binding(destination: Destination, exchange: &str, key: &str, table: RawTable<'_>) -> BindCommand {
    BindCommand { destination, exchange: name(exchange), key: key.into(), arguments: arguments(table) }
}

/// As in RabbitMQ: a global limit is the channel's, the other one is that of each later consumer. (AMQP-40)
fn limit(qos: methods::BasicQos) -> Result<Ask, Violation> {
    if qos.prefetch_size != 0 {
        return Err(Violation::new(ReplyCode::NotImplemented, format!("prefetch_size!=0 ({})", qos.prefetch_size)));
    }
    let of = if qos.global { CreditOf::Channel } else { CreditOf::LaterSubscriptions };
    Ok(Ask::SetCredit(SetCredit { of, credit: Credit::Window(qos.prefetch_count.into()) }))
}

fn subscribe(consume: &methods::BasicConsume<'_>) -> Result<Ask, Violation> {
    if consume.queue == REPLIES {
        return subscribe_replies(consume);
    }
    // no-local is ignored, as in RabbitMQ.
    Ok(Ask::Subscribe(Subscribe {
        queue: name(consume.queue),
        tag: tag(consume.consumer_tag),
        no_ack: consume.no_ack,
        exclusive: consume.exclusive,
        credit: None,
        arguments: arguments(consume.arguments),
    }))
}

/// Consumes direct replies. A reply is never in a queue, so a consumer cannot acknowledge it. (AMQP-54)
fn subscribe_replies(consume: &methods::BasicConsume<'_>) -> Result<Ask, Violation> {
    if !consume.no_ack {
        return Err(Violation::new(ReplyCode::PreconditionFailed, "reply consumer cannot acknowledge"));
    }
    Ok(Ask::SubscribeReplies { tag: tag(consume.consumer_tag), prefix: Name::from(REPLIES_PREFIX) })
}

// AMQP-45
fn give_back(requeue: bool) -> Result<Ask, Violation> {
    if requeue { Ok(Ask::Recover) } else { Err(Violation::new(ReplyCode::NotImplemented, "requeue=false")) }
}

/// What the method settles, if it does.
fn settle(origin: Origin, method: &Method<'_>) -> Option<Settle> {
    let (tag, multiple, settlement) = match method {
        Method::BasicAck(ack) => (ack.delivery_tag, ack.multiple, Settlement::Accept),
        Method::BasicNack(nack) => (nack.delivery_tag, nack.multiple, returned(nack.requeue, Settlement::RELEASE)),
        Method::BasicReject(reject) => (reject.delivery_tag, false, returned(reject.requeue, Settlement::FAIL)),
        _ => return None,
    };
    // AMQP-43
    let deliveries = match (tag, multiple) {
        (0, true) => Deliveries::All,
        (tag, true) => Deliveries::UpTo(tag),
        (tag, false) => Deliveries::One(tag),
    };
    Some(Settle { origin, deliveries, outcome: Outcome::Settled(settlement), transaction: None })
}

/// As in RabbitMQ 4.3, `basic.reject` counts as a failure and `basic.nack` does not. (AMQP-68)
const fn returned(requeue: bool, again: Settlement) -> Settlement {
    if requeue { again } else { Settlement::Reject }
}

/// An exchange's or a queue's name without line breaks, as in RabbitMQ. (AMQP-26)
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
