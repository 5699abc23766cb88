//! Who is connected: connections by vhost, connections and channels by user, and the limits on them.

use std::collections::HashMap;

use ferrymq_broker::UserLimits;
use ferrymq_model::{Name, Refusal};
use parking_lot::Mutex;

/// The count. Who asks for one more is counted and checked in one step, so that two who come at once cannot both be the last.
#[derive(Debug, Default)]
pub struct Census(Mutex<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Connections, by vhost.
    vhosts: HashMap<Name, usize>,
    users: HashMap<Name, OfUser>,
}

#[derive(Debug, Default)]
struct OfUser {
    connections: usize,
    channels: usize,
}

impl Census {
    /// One more connection of a user to a vhost.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] where that is too many; it is not counted then.
    pub fn enter(&self, vhost: &Name, vhost_max: Option<u32>, user: &Name, limits: UserLimits) -> Result<(), Refusal> {
        let mut counts = self.0.lock();
        let there = counts.vhosts.get(vhost).copied().unwrap_or_default();
        if let Some(max) = vhost_max.filter(|max| there >= *max as usize) {
            return Err(Refusal::NotAllowed(format!(
                "access to vhost '{vhost}' refused for user '{user}': connection limit ({max}) is reached"
            )));
        }
        let own = counts.users.get(user).map_or(0, |user| user.connections);
        if let Some(max) = limits.connections_max.filter(|max| own >= *max as usize) {
            return Err(Refusal::NotAllowed(format!(
                "connection refused for user '{user}': user connection limit ({max}) is reached"
            )));
        }
        *counts.vhosts.entry(vhost.clone()).or_default() += 1;
        counts.users.entry(user.clone()).or_default().connections += 1;
        Ok(())
    }

    /// One connection less. Its channels were closed before.
    pub fn leave(&self, vhost: &Name, user: &Name) {
        let mut counts = self.0.lock();
        if let Some(connections) = counts.vhosts.get_mut(vhost) {
            *connections -= 1;
            if *connections == 0 {
                counts.vhosts.remove(vhost);
            }
        }
        if let Some(own) = counts.users.get_mut(user) {
            own.connections -= 1;
            if own.connections == 0 {
                counts.users.remove(user);
            }
        }
    }

    /// One more channel of a user who is connected.
    ///
    /// # Errors
    /// [`Refusal::NotAllowed`] where that is too many; it is not counted then.
    pub fn open_channel(&self, user: &Name, limits: UserLimits) -> Result<(), Refusal> {
        let mut counts = self.0.lock();
        let own = counts.users.entry(user.clone()).or_default();
        if let Some(max) = limits.channels_max.filter(|max| own.channels >= *max as usize) {
            return Err(Refusal::NotAllowed(format!(
                "number of channels opened for user '{user}' has reached the maximum allowed user limit of ({max})"
            )));
        }
        own.channels += 1;
        Ok(())
    }

    /// One channel less.
    pub fn close_channel(&self, user: &Name) {
        if let Some(own) = self.0.lock().users.get_mut(user) {
            own.channels -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_makes_room_and_nothing_is_kept_of_the_last_one() {
        let (census, vhost, user) = (Census::default(), Name::from("v"), Name::from("u"));
        let limits = UserLimits { connections_max: Some(2), channels_max: Some(1) };
        let enter = |vhost_max| census.enter(&vhost, vhost_max, &user, limits).map_err(|refusal| refusal.to_string());
        assert!(enter(Some(0)).unwrap_err().ends_with("connection limit (0) is reached"));
        enter(Some(1)).unwrap();
        let full = "access to vhost 'v' refused for user 'u': connection limit (1) is reached";
        assert_eq!(enter(Some(1)), Err(full.to_owned()));
        enter(None).unwrap();
        let full = "connection refused for user 'u': user connection limit (2) is reached";
        assert_eq!(enter(None), Err(full.to_owned()));
        census.open_channel(&user, limits).unwrap();
        assert!(census.open_channel(&user, limits).is_err());
        census.close_channel(&user);
        census.open_channel(&user, limits).unwrap();
        census.close_channel(&user);
        census.leave(&vhost, &user);
        enter(None).unwrap();
        census.leave(&vhost, &user);
        census.leave(&vhost, &user);
        let counts = census.0.lock();
        assert!(counts.vhosts.is_empty() && counts.users.is_empty());
    }
}
