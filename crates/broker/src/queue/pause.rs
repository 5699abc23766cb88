//! Subscriptions whose client is not connected.

use ferrymq_model::SubscriptionId;

use super::Shard;

impl Shard {
    /// The clients of these subscriptions are not connected. In a queue with a single active consumer, another one
    /// becomes active. Otherwise nothing changes here: they have no credit.
    pub fn pause(&mut self, subscriptions: &[SubscriptionId]) {
        for id in subscriptions {
            let Some(subscription) = self.subscriptions.get_mut(id) else { continue };
            subscription.is_paused = true;
            let queue = self.queues.get_mut(&subscription.queue).expect("a subscription's queue is there");
            if queue.settings.single_active && queue.active == Some(*id) {
                if !subscription.waiting {
                    queue.turns.remove(*id);
                }
                // Its credit is asked for when it is active again.
                subscription.waiting = false;
                queue.active = None;
                let queue = queue.id;
                self.activate_next(queue);
            }
        }
    }

    /// Their clients are connected again.
    pub fn resume(&mut self, subscriptions: &[SubscriptionId]) {
        for id in subscriptions {
            let Some(subscription) = self.subscriptions.get_mut(id) else { continue };
            subscription.is_paused = false;
            let queue = &self.queues[&subscription.queue];
            if queue.settings.single_active && queue.active.is_none() {
                let queue = queue.id;
                self.activate_next(queue);
            }
        }
    }
}
