//! Subscriptions that want to know when their queue has no ready message: what is left of their credit lapses then (AMQP
//! 1.0 section 2.6.7: drain).

use ferrymq_model::{QueueId, SubscriptionId};

use super::{Ports, Shard};

impl Shard {
    /// Calls [`Ports::drained`] for this subscription as soon as its queue has no ready message for it, which may be
    /// now. Messages that are delivered and not settled, or wait for a retry, are not ready.
    pub fn drain(&mut self, subscription: SubscriptionId, ports: &mut impl Ports) {
        let Some(found) = self.subscriptions.get(&subscription) else { return };
        let queue = self.queues.get(&found.queue).expect("a subscription's queue is there");
        if queue.settings.single_active && queue.active != Some(subscription) {
            // Nothing is ready for a consumer that is not the active one.
            ports.drained(subscription);
            return;
        }
        let id = queue.id;
        let draining = self.draining.entry(id).or_default();
        if !draining.contains(&subscription) {
            draining.push(subscription);
        }
        // It may have messages that storage does not find, or that have expired: dispatch finds that out.
        self.push_runnable(id);
    }

    /// Tells the subscriptions that drain this queue, if it has no ready message.
    pub(super) fn tell_drained(&mut self, queue: QueueId, ports: &mut impl Ports) {
        if self.draining.is_empty() || self.queues.get(&queue).is_some_and(|queue| queue.ready > 0) {
            return;
        }
        for subscription in self.draining.remove(&queue).into_iter().flatten() {
            ports.drained(subscription);
        }
    }

    /// The subscription has ended.
    pub(super) fn stop_draining(&mut self, queue: QueueId, subscription: SubscriptionId) {
        let Some(draining) = self.draining.get_mut(&queue) else { return };
        draining.retain(|one| *one != subscription);
        if draining.is_empty() {
            self.draining.remove(&queue);
        }
    }
}
