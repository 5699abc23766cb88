//! Turns the node's replies into AMQP methods.

use ferrymq_model::{Origin, Reply, ReturnReason};

use crate::codec::{
    frame::put_method,
    methods::{self, WireMethod},
    reply_code::ReplyCode,
};

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
        Reply::Bound if super::class_and_method(origin) == methods::ExchangeBind::ID => {
            put_method(out, channel, &methods::ExchangeBindOk);
        }
        Reply::Bound => put_method(out, channel, &methods::QueueBindOk),
        Reply::Unbound if super::class_and_method(origin) == methods::ExchangeUnbind::ID => {
            put_method(out, channel, &methods::ExchangeUnbindOk);
        }
        Reply::Unbound => put_method(out, channel, &methods::QueueUnbindOk),
        Reply::CreditSet => put_method(out, channel, &methods::BasicQosOk),
        Reply::Subscribed { tag } => put_method(out, channel, &methods::BasicConsumeOk { consumer_tag: tag }),
        Reply::Unsubscribed { tag } => put_method(out, channel, &methods::BasicCancelOk { consumer_tag: tag }),
        Reply::GetEmpty => put_method(out, channel, &methods::BasicGetEmpty),
        Reply::FlowSet { active } => put_method(out, channel, &methods::ChannelFlowOk { active: *active }),
        Reply::ConfirmSelected => put_method(out, channel, &methods::ConfirmSelectOk),
        // This protocol has no requests for these.
        Reply::Published(_)
        | Reply::TxBegun
        | Reply::TxPrepared
        | Reply::Prepared(_)
        | Reply::Attached { .. }
        | Reply::SessionKept => {}
        Reply::Recovered => put_method(out, channel, &methods::BasicRecoverOk),
        Reply::TxSelected => put_method(out, channel, &methods::TxSelectOk),
        Reply::TxCommitted => put_method(out, channel, &methods::TxCommitOk),
        Reply::TxRolledBack => put_method(out, channel, &methods::TxRollbackOk),
        Reply::LoginRenewed => put_method(out, 0, &methods::ConnectionUpdateSecretOk),
    }
}

/// A count in 32 bits. A count that does not fit becomes the largest number that fits.
#[must_use]
pub fn count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// The reply code for the reason why a message is returned.
#[must_use]
pub fn return_reason(reason: ReturnReason) -> (ReplyCode, &'static str) {
    match reason {
        ReturnReason::Unroutable => (ReplyCode::NoRoute, "NO_ROUTE"),
    }
}
