//! Messages that a connection cannot get, because their properties are longer than its client takes.

use ferrymq_broker::Delivery as Offer;
use ferrymq_model::{Answer, Credit, OnRefusal, Origin, Refusal, Time};

use crate::connection::{mailbox::Mailbox, unacked::Delivery};

/// What became of a message that does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsent {
    /// It would not have been delivered anyway.
    NoCredit,
    /// The channel is refused, and the message stays in its queue.
    Refused,
    /// The channel is refused, and the message counts as delivered.
    RefusedAndTaken,
}

impl Mailbox {
    /// Whether a subscription has no credit. Then it waits, and `take_waiting` will return it.
    pub fn waits_for_credit(&mut self, number: u32) -> bool {
        let Some(subscription) = self.state.subscriptions.get(&number) else { return true };
        let Some(channel) = self.state.channels.get(&subscription.channel) else { return true };
        if !self.is_parked && !self.is_discarding && channel.has_credit(subscription, self.unacked_max) {
            return false;
        }
        self.wait_for_credit(number);
        true
    }

    /// Refuses the channel of a subscription that has credit, because a message does not fit. If the refusal ends the
    /// channel, the message counts as delivered, unless deliveries are settled at once: then it stays where it is. If the
    /// channel goes on, its subscription waits until its credit is set again.
    pub fn offer_unsent(&mut self, number: u32, delivery: &Offer<'_>, refusal: &Refusal, now: Time) -> Unsent {
        let Some(subscription) = self.state.subscriptions.get(&number) else { return Unsent::NoCredit };
        let (channel, no_ack) = (subscription.channel, subscription.no_ack);
        let Some(found) = self.state.channels.get(&channel) else { return Unsent::NoCredit };
        let goes_on = found.on_refusal == OnRefusal::GoOn;
        if goes_on
            && !self.lapse(number)
            && let Some(subscription) = self.state.subscriptions.get_mut(&number)
        {
            subscription.credit = Credit::Grant(0);
        }
        if no_ack || goes_on {
            self.wait_for_credit(number);
        } else {
            self.keep_unsent(channel, Some(number), delivery, now);
        }
        self.refuse_for_session(Origin { channel, answer: Answer::Session, token: 0 }, refusal);
        if no_ack || goes_on { Unsent::Refused } else { Unsent::RefusedAndTaken }
    }

    /// A message counts as delivered to the channel, and is not sent.
    pub fn keep_unsent(&mut self, channel: u16, subscription: Option<u32>, delivery: &Offer<'_>, now: Time) {
        let Some(found) = self.state.channels.get_mut(&channel) else { return };
        if let Some(subscription) = subscription.and_then(|number| self.state.subscriptions.get_mut(&number)) {
            subscription.unacked += 1;
            found.delivered += 1;
        }
        let (place, body_bytes) = (delivery.from, delivery.facts.body_bytes);
        found.unacked.push(Delivery { place, subscription, body_bytes, is_accepted: false }, now);
    }
}
