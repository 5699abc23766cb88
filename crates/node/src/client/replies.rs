//! Requests whose replies need no queue (RabbitMQ's direct reply-to).

use ferrymq_model::{Annotations, Name, Origin, Publish, Refusal, Reply};

use super::{Client, message::message_of};
use crate::{
    connection::transaction,
    routing::replies::{ReplyAddress, ReplyTarget},
};

impl Client {
    pub(super) fn subscribe_replies(&mut self, origin: Origin, tag: Name, prefix: &Name) -> Result<(), Refusal> {
        let channel = origin.channel;
        if self.with_channel(channel, |channel| channel.reply_address.is_some()) {
            return Err(Refusal::PreconditionFailed("reply consumer already set".to_owned()));
        }
        let tag = self.consumer_tag(channel, tag)?;
        let address = Name::from(&*format!("{prefix}{}", ferrymq_broker::random_text(self.node.random())));
        let target = ReplyTarget { connection: self.connection.clone(), channel };
        self.node.replies.add(address.clone(), target);
        self.with_channel(channel, |channel| {
            channel.reply_address = Some(ReplyAddress { address, tag: tag.clone() });
        });
        self.reply(origin, None, Reply::Subscribed { tag });
        Ok(())
    }

    /// Removes the channel's reply address, if the tag belongs to it.
    pub(super) fn cancel_replies(&self, channel: u16, tag: &Name) {
        let ended = self.with_channel(channel, |channel| channel.reply_address.take_if(|replies| replies.tag == *tag));
        if let Some(ended) = ended {
            self.node.replies.remove(&ended.address);
        }
    }

    /// The publish, annotated with the channel's reply address. (AMQP-54)
    pub(super) fn with_reply_address(&self, publish: &Publish, input: &[u8]) -> Result<Publish, Refusal> {
        let found = self.with_channel(publish.origin.channel, |channel| channel.reply_address.clone());
        let Some(replies) = found else {
            return Err(Refusal::PreconditionFailed("fast reply consumer does not exist".to_owned()));
        };
        let mut message = message_of(publish, input);
        let before = Annotations::read(message.annotations);
        let annotations = Annotations { reply_address: Some(replies.address.as_bytes()), ..before }.write();
        message.annotations = &annotations;
        let (bytes, bytes_max) = (message.needed_bytes(), self.connection.properties_bytes_max());
        if bytes > bytes_max {
            return Err(Refusal::TooLarge(format!(
                "with the address for replies a message has {bytes} bytes of properties, and frame_max allows {bytes_max}"
            )));
        }
        Ok(transaction::kept(publish, &message))
    }
}
