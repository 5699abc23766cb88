//! Settling deliveries.

use ferrymq_model::{Event, Refusal, Settle};

use super::Client;
use crate::transition::Aftermath;

impl Client {
    /// Takes deliveries off their accounts; what becomes of them is decided with the rest of the batch.
    pub(super) fn collect_settle(&mut self, settle: Settle, events: &mut Vec<Event>) {
        self.settlement = settle.settlement;
        let mut mailbox = self.connection.mailbox();
        if mailbox.channels.get(&settle.origin.channel).is_none_or(|channel| channel.refused) {
            return;
        }
        let known = mailbox.settle(settle.origin.channel, settle.delivery_tag, settle.multiple, &mut self.settled);
        // "All so far" is not wrong where there is nothing.
        let all = settle.multiple && settle.delivery_tag == 0;
        if !known && !all {
            let refusal = Refusal::PreconditionFailed(format!("unknown delivery tag {}", settle.delivery_tag));
            mailbox.refuse(settle.origin, &refusal, events);
        }
    }

    /// Decides the settlements collected so far, and lets this connection's subscriptions use the credit.
    pub(super) fn settle_collected(&mut self) {
        let settled = std::mem::take(&mut self.settled);
        let waiting = self.connection.mailbox().take_waiting(self.connection.id);
        let settlement = self.settlement;
        let mut aftermath = Aftermath::default();
        self.node.decide(&mut aftermath, |shard, ports| {
            shard.settle(&settled, settlement, ports);
            shard.credit(&waiting);
        });
        self.settled = settled;
        self.settled.clear();
        self.node.settle_down(aftermath, Some(&self.connection));
    }
}
