//! Messages whose properties are longer than a client takes: its frames limit them (AMQP 0-9-1, section 4.2.3).
//!
//! Only what a client cannot do without counts here: the publisher's own properties, and few annotations. The protocol's
//! encoder leaves out all others where they do not fit.

use std::sync::Arc;

use ferrymq_broker::{Delivery, Taken};
use ferrymq_model::{MessageRef, Refusal};

use crate::{
    connection::{peer::Connection, unsent::Unsent},
    core::{node::Node, transition::Transition},
    routing::replies::ReplyTarget,
};

impl Node {
    /// Gives a reply to the channel that asked for it. False: the channel has no reply address any more, too much waits
    /// for its socket, or its client takes no properties of this length.
    pub(crate) fn deliver_reply(&self, target: &ReplyTarget, message: &MessageRef<'_>) -> bool {
        message.needed_bytes() <= target.connection.properties_bytes_max()
            && target.connection.mailbox().deliver_reply(target.channel, message)
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
pub fn too_long(message: &MessageRef<'_>, connection: &Connection) -> Refusal {
    Refusal::TooLarge(format!(
        "a message has {} bytes of properties, and frame_max allows {}; use a larger frame_max",
        message.needed_bytes(),
        connection.properties_bytes_max()
    ))
}

impl Transition<'_> {
    /// Offers a message whose properties are longer than the client takes: the channel is refused, see
    /// `Mailbox::offer_unsent`. Where the message counts as delivered, a limit of deliveries ends this. Also returns what
    /// has been put into the mailbox.
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
        let refusal = too_long(message, connection);
        let unsent = connection.mailbox().offer_unsent(number, delivery, &refusal, self.now);
        if unsent != Unsent::NoCredit {
            connection.wake();
        }
        let taken = if unsent == Unsent::RefusedAndTaken { Taken::Yes } else { Taken::NoCredit };
        (taken, if unsent == Unsent::NoCredit { Written::Nothing } else { Written::Refusal })
    }
}
