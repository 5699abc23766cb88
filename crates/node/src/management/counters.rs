//! Counters of connections, channels and messages by vhost and by user, and the limits on them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use ferrymq_model::{Name, Refusal, Usage, UserLimits};
use parking_lot::Mutex;

/// The counters. A connection or channel is counted and checked in one step, so that two at the same time cannot
/// both be the last allowed one. The lock is held for nothing else, and nothing else is locked under it.
#[derive(Debug, Default)]
pub struct Counters(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    vhosts: BTreeMap<Name, Account>,
    users: BTreeMap<Name, Account>,
}

#[derive(Debug, Default)]
struct Account {
    connections: u64,
    channels: u64,
    activity: Arc<Activity>,
}

/// Messages of a vhost or a user since the start of the server. They are counted without a lock, once for each
/// batch.
#[derive(Debug, Default)]
struct Activity {
    published: MessageCounter,
    delivered: MessageCounter,
    acked: AtomicU64,
}

#[derive(Debug, Default)]
struct MessageCounter {
    messages: AtomicU64,
    bytes: AtomicU64,
}

/// A number of messages, and the bytes of their bodies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub messages: u64,
    pub bytes: u64,
}

impl Batch {
    /// Adds a message.
    #[inline]
    pub fn add(&mut self, body_bytes: usize) {
        self.messages += 1;
        self.bytes += body_bytes as u64;
    }
}

impl MessageCounter {
    fn add(&self, batch: Batch) {
        self.messages.fetch_add(batch.messages, Ordering::Relaxed);
        self.bytes.fetch_add(batch.bytes, Ordering::Relaxed);
    }
}

/// The counters for a connection's actions: those of its vhost, and those of its user.
#[derive(Debug)]
pub struct UsageCounters([Arc<Activity>; 2]);

impl UsageCounters {
    pub fn published(&self, batch: Batch) {
        self.0.iter().for_each(|activity| activity.published.add(batch));
    }

    pub fn delivered(&self, batch: Batch) {
        self.0.iter().for_each(|activity| activity.delivered.add(batch));
    }

    pub fn acked(&self, count: u64) {
        self.0.iter().for_each(|activity| _ = activity.acked.fetch_add(count, Ordering::Relaxed));
    }
}

impl Counters {
    /// Adds a connection of a user to a vhost.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] if that is too many. Then it is not counted.
    pub fn enter(
        &self,
        vhost: &Name,
        vhost_max: Option<u32>,
        user: &Name,
        limits: UserLimits,
    ) -> Result<UsageCounters, Refusal> {
        let mut counts = self.0.lock();
        let there = counts.vhosts.get(vhost).map_or(0, |vhost| vhost.connections);
        if let Some(max) = vhost_max.filter(|max| there >= u64::from(*max)) {
            return Err(Refusal::NotAllowed(format!(
                "access to vhost '{vhost}' refused for user '{user}': connection limit ({max}) is reached"
            )));
        }
        let own = counts.users.get(user).map_or(0, |user| user.connections);
        if let Some(max) = limits.connections_max.filter(|max| own >= u64::from(*max)) {
            return Err(Refusal::NotAllowed(format!(
                "connection refused for user '{user}': user connection limit ({max}) is reached"
            )));
        }
        let activities = counts.both(vhost, user).map(|account| {
            account.connections += 1;
            account.activity.clone()
        });
        Ok(UsageCounters(activities))
    }

    /// Removes a connection, whose channels were closed before. `known` says whether the catalog has the user:
    /// other names could be different each time.
    pub fn leave(&self, vhost: &Name, user: &Name, known: bool) {
        let mut counts = self.0.lock();
        let [_, own] = counts.both(vhost, user).map(|account| {
            account.connections -= 1;
            account.connections
        });
        if own == 0 && !known {
            counts.users.remove(user);
        }
    }

    /// Adds a channel of a connected user.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] if that is too many. Then it is not counted.
    pub fn open_channel(&self, vhost: &Name, user: &Name, limits: UserLimits) -> Result<(), Refusal> {
        let mut counts = self.0.lock();
        let [of_vhost, own] = counts.both(vhost, user);
        if let Some(max) = limits.channels_max.filter(|max| own.channels >= u64::from(*max)) {
            return Err(Refusal::NotAllowed(format!(
                "number of channels opened for user '{user}' has reached the maximum allowed user limit of ({max})"
            )));
        }
        of_vhost.channels += 1;
        own.channels += 1;
        Ok(())
    }

    /// Removes a channel.
    pub fn close_channel(&self, vhost: &Name, user: &Name) {
        self.0.lock().both(vhost, user).into_iter().for_each(|account| account.channels -= 1);
    }

    /// The counters by vhost and by user, in the order of their names.
    pub fn usage(&self) -> [Vec<(Name, Usage)>; 2] {
        let counts = self.0.lock();
        [&counts.vhosts, &counts.users]
            .map(|accounts| accounts.iter().map(|(name, account)| (name.clone(), account.usage())).collect())
    }
}

impl Counts {
    fn both(&mut self, vhost: &Name, user: &Name) -> [&mut Account; 2] {
        [self.vhosts.entry(vhost.clone()).or_default(), self.users.entry(user.clone()).or_default()]
    }
}

impl Account {
    fn usage(&self) -> Usage {
        let Activity { published, delivered, acked } = &*self.activity;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Usage {
            connections: self.connections,
            channels: self.channels,
            published: read(&published.messages),
            published_bytes: read(&published.bytes),
            delivered: read(&delivered.messages),
            delivered_bytes: read(&delivered.bytes),
            acked: read(acked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_makes_room_for_others() {
        let (counters, vhost, user) = (Counters::default(), Name::from("v"), Name::from("u"));
        let limits = UserLimits { connections_max: Some(2), channels_max: Some(1) };
        let enter = |vhost_max| counters.enter(&vhost, vhost_max, &user, limits).map_err(|refusal| refusal.to_string());
        assert!(enter(Some(0)).unwrap_err().ends_with("connection limit (0) is reached"));
        enter(Some(1)).unwrap();
        let full = "access to vhost 'v' refused for user 'u': connection limit (1) is reached";
        assert_eq!(enter(Some(1)).unwrap_err(), full);
        enter(None).unwrap();
        let full = "connection refused for user 'u': user connection limit (2) is reached";
        assert_eq!(enter(None).unwrap_err(), full);
        counters.open_channel(&vhost, &user, limits).unwrap();
        assert!(counters.open_channel(&vhost, &user, limits).is_err());
        counters.close_channel(&vhost, &user);
        counters.open_channel(&vhost, &user, limits).unwrap();
        counters.close_channel(&vhost, &user);
        counters.leave(&vhost, &user, true);
        enter(None).unwrap();
    }

    #[test]
    fn what_is_done_counts_for_the_vhost_and_for_the_user() {
        let (counters, vhost) = (Counters::default(), Name::from("v"));
        let users = ["a", "b"].map(Name::from);
        for (user, count) in users.iter().zip(1..) {
            let usage = counters.enter(&vhost, None, user, UserLimits::default()).unwrap();
            usage.published(Batch { messages: count, bytes: 10 * count });
            usage.delivered(Batch { messages: 5, bytes: 7 });
            usage.acked(count);
        }
        counters.open_channel(&vhost, &users[0], UserLimits::default()).unwrap();
        let [vhosts, _] = counters.usage();
        let all = Usage {
            connections: 2,
            channels: 1,
            published: 3,
            published_bytes: 30,
            delivered: 10,
            delivered_bytes: 14,
            acked: 3,
        };
        assert_eq!(vhosts, [(vhost.clone(), all)]);
        // A known user's counters stay; those of an unknown one do not.
        counters.close_channel(&vhost, &users[0]);
        counters.leave(&vhost, &users[0], true);
        counters.leave(&vhost, &users[1], false);
        let [vhosts, left] = counters.usage();
        assert_eq!(vhosts, [(vhost, Usage { connections: 0, channels: 0, ..all })]);
        let own =
            Usage { published: 1, published_bytes: 10, delivered: 5, delivered_bytes: 7, acked: 1, ..Usage::default() };
        assert_eq!(left, [(users[0].clone(), own)]);
    }
}
