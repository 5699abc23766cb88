//! How many deliveries a connection's subscriptions may get.

use ferrymq_model::{ConnectionId, Credit, CreditOf, SetCredit, SubscriptionId, Time};

use crate::connection::{
    mailbox::{Channel, Mailbox, Subscription},
    peer::subscription_id,
};

/// What must follow when credit was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pull {
    /// Nothing but deliveries.
    None,
    /// It is over already, because it is a pull of nothing.
    Over(u32),
    /// What is left lapses when the queue has no ready message.
    UntilEmpty(u32),
    /// What is left lapses after so many milliseconds.
    Within(u32, u64),
}

impl Mailbox {
    /// Sets credit, and says what follows for a subscription. `None`: the channel or the subscription is unknown, or it
    /// is not a kind of credit for them.
    pub fn set_credit(&mut self, channel: u16, set: &SetCredit) -> Option<Pull> {
        let found = self.state.channels.get_mut(&channel)?;
        match (&set.of, set.credit) {
            // AMQP-41
            (CreditOf::Channel, Credit::Window(window)) => found.window = window,
            (CreditOf::LaterSubscriptions, credit @ (Credit::Window(_) | Credit::Grant(_))) => found.credit = credit,
            (CreditOf::Channel | CreditOf::LaterSubscriptions, _) => return None,
            (CreditOf::Subscription(tag), credit) => {
                let number = *found.tags.get(tag)?;
                self.state.subscriptions.get_mut(&number)?.credit = credit;
                return Some(self.pull_of(number));
            }
        }
        Some(Pull::None)
    }

    /// What follows from the credit of this subscription.
    pub fn pull_of(&self, number: u32) -> Pull {
        match self.state.subscriptions.get(&number).map(|subscription| subscription.credit) {
            Some(Credit::Pull { messages: 0, .. }) => Pull::Over(number),
            Some(Credit::Pull { wait_ms: 0, .. }) => Pull::UntilEmpty(number),
            Some(Credit::Pull { wait_ms, .. }) => Pull::Within(number, wait_ms),
            _ => Pull::None,
        }
    }

    /// The queue of a subscription has no ready message: what is left of a pull that does not wait lapses. Returns whether
    /// it does.
    pub fn drained(&mut self, number: u32) -> bool {
        let subscription = self.state.subscriptions.get(&number);
        let lapses = subscription.is_some_and(|one| matches!(one.credit, Credit::Pull { wait_ms: 0, .. }));
        !self.is_parked && lapses && self.lapse(number)
    }

    /// The timer of a pull has ended at `at`. Returns whether what is left lapses.
    pub fn pull_timer_ended(&mut self, number: u32, at: Time) -> bool {
        let Some(subscription) = self.state.subscriptions.get_mut(&number) else { return false };
        if subscription.pull_ends != Some(at) {
            return false;
        }
        subscription.pull_ends = None;
        let lapses = matches!(subscription.credit, Credit::Pull { wait_ms: 1.., .. });
        // The pull of a client without a connection begins again with its next one.
        !self.is_parked && lapses && self.lapse(number)
    }

    /// What is left of a pull lapses. Returns whether there is one.
    pub fn lapse(&mut self, number: u32) -> bool {
        let Some(subscription) = self.state.subscriptions.get_mut(&number) else { return false };
        let Credit::Pull { messages, .. } = std::mem::replace(&mut subscription.credit, Credit::Grant(0)) else {
            return false;
        };
        self.effects.credit_lapsed(subscription.channel, subscription.tag.clone(), messages);
        true
    }

    /// A subscription got no delivery: it waits, and [`Mailbox::take_waiting`] will return it.
    pub fn wait_for_credit(&mut self, number: u32) {
        if let Some(subscription) = self.state.subscriptions.get_mut(&number)
            && !std::mem::replace(&mut subscription.waiting, true)
        {
            self.state.waiting.push(number);
        }
    }

    /// Whether subscriptions that waited for the connection's account could continue.
    pub fn is_refilled(&self) -> bool {
        self.full && self.has_room()
    }

    /// Whether far more waits for the socket than deliveries alone could cause: returns, confirms and replies,
    /// which need no credit. What waits for a window does not count: the client is read, so that it can open it.
    pub fn is_flooded(&self) -> bool {
        self.backlog + self.effects.memory_bytes() >= 4 * self.backlog_max
    }

    /// Whether so much waits for the socket that no more is delivered.
    pub fn is_full(&self) -> bool {
        self.backlog + self.stopped + self.effects.memory_bytes() >= self.backlog_max
    }

    fn has_room(&self) -> bool {
        self.backlog + self.stopped + self.effects.memory_bytes() < self.backlog_max / 2
    }

    /// The subscriptions that wait for credit, in the order in which they began to wait. Empty while the
    /// connection's account is the reason and has not recovered.
    pub fn take_waiting(&mut self, connection: ConnectionId) -> Vec<SubscriptionId> {
        if self.state.waiting.is_empty() || (self.full && !self.has_room()) {
            return Vec::new();
        }
        self.full = false;
        let waiting = std::mem::take(&mut self.state.waiting);
        for number in &waiting {
            if let Some(subscription) = self.state.subscriptions.get_mut(number) {
                subscription.waiting = false;
            }
        }
        waiting.into_iter().map(|number| subscription_id(connection, number)).collect()
    }
}

impl Subscription {
    /// Takes one delivery from its credit. Returns whether that was the last one of a pull.
    #[inline]
    pub fn spend(&mut self) -> bool {
        if let Credit::Grant(left) | Credit::Pull { messages: left, .. } = &mut self.credit {
            *left -= 1;
        }
        let is_over = matches!(self.credit, Credit::Pull { messages: 0, .. });
        if is_over {
            self.credit = Credit::Grant(0);
        }
        is_over
    }
}

impl Channel {
    // AMQP-40
    pub fn has_credit(&self, subscription: &Subscription, unacked_max: usize) -> bool {
        if !self.active || self.refused {
            return false;
        }
        let (has_grant, window) = match subscription.credit {
            Credit::Grant(left) | Credit::Pull { messages: left, .. } => (left > 0, 0),
            Credit::Window(window) => (true, window),
        };
        has_grant
            && (subscription.no_ack
                || (within(subscription.unacked, window)
                    && within(self.delivered, self.window)
                    && self.unacked.len() < unacked_max
                    && self.unacked.has_free_id()))
    }
}

fn within(unacked: u32, limit: u32) -> bool {
    limit == 0 || unacked < limit
}
