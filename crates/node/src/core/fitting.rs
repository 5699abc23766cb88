//! Messages whose properties are longer than a client takes: its frames limit them (AMQP 0-9-1, section 4.2.3).

use std::{borrow::Cow, sync::Arc};

use ferrymq_broker::{Delivery, Taken};
use ferrymq_model::{MessageRef, Refusal};

use crate::{
    connection::{peer::Connection, unsent::Unsent},
    core::{node::Node, transition::Transition},
    routing::replies::ReplyTarget,
};

impl Node {
    /// The properties of a message as a client gets them that takes no more bytes of them; `None` if they do not fit.
    pub(crate) fn fitting<'m>(&self, message: &MessageRef<'m>, bytes_max: usize) -> Option<Cow<'m, [u8]>> {
        if message.properties.len() <= bytes_max {
            return Some(Cow::Borrowed(message.properties));
        }
        let reader = self.properties.get(&message.dialect)?;
        reader.shortened(message.properties, bytes_max).map(Cow::Owned)
    }

    /// Gives a reply to the channel that asked for it. False: the channel has no reply address any more, too much waits
    /// for its socket, or its client takes no properties of this length.
    pub(crate) fn deliver_reply(&self, target: &ReplyTarget, message: &MessageRef<'_>) -> bool {
        let fitting = self.fitting(message, target.connection.properties_bytes_max());
        fitting.is_some_and(|properties| {
            let message = MessageRef { properties: &properties, ..*message };
            target.connection.mailbox().deliver_reply(target.channel, &message)
        })
    }
}

/// What an offer has put into a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// The message.
    Message,
    /// A refusal.
    Refusal,
    /// Nothing.
    Nothing,
}

/// The refusal of a message that is too long for its client.
pub fn too_long(properties: &[u8], connection: &Connection) -> Refusal {
    Refusal::TooLarge(format!(
        "a message has {} bytes of properties, and frame_max allows {}; use a larger frame_max",
        properties.len(),
        connection.properties_bytes_max()
    ))
}

impl Transition<'_> {
    /// Offers a message whose properties are longer than the client takes: without what the server has added, if they
    /// fit then. Otherwise the channel is refused: see `Mailbox::offer_unsent`. Where the message counts as delivered, a
    /// limit of deliveries ends this. Also returns what has been put into the mailbox.
    #[cold]
    pub fn offer_long(
        &self,
        connection: &Arc<Connection>,
        number: u32,
        delivery: &Delivery<'_>,
        message: &MessageRef<'_>,
    ) -> (Taken, Written) {
        if connection.mailbox().waits_for_credit(number) {
            return (Taken::NoCredit, Written::Nothing);
        }
        if let Some(properties) = self.node.fitting(message, connection.properties_bytes_max()) {
            let message = MessageRef { properties: &properties, ..*message };
            let taken = connection.mailbox().offer(number, delivery, &message, self.now);
            return (taken, if taken == Taken::Yes { Written::Message } else { Written::Nothing });
        }
        let refusal = too_long(message.properties, connection);
        let unsent = connection.mailbox().offer_unsent(number, delivery, &refusal, self.now);
        if unsent != Unsent::NoCredit {
            connection.wake();
        }
        let taken = if unsent == Unsent::RefusedAndTaken { Taken::Yes } else { Taken::NoCredit };
        (taken, if unsent == Unsent::NoCredit { Written::Nothing } else { Written::Refusal })
    }
}
