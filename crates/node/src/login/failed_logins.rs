//! Recent failed logins, by address and by user: after several failures, the next check of a password waits.
//!
//! Clients on this machine do not wait: behind a proxy all clients are local, and one that fails must not slow the
//! others.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use ferrymq_model::{Name, Refusal, Time};
use parking_lot::Mutex;

use crate::{connection::peer::Connection, core::node::Node};

/// How many failures of one user from one address cause no delay.
const FREE_OF_USER: u32 = 5;

/// How many failures from one address, of any users, cause no delay.
const FREE_OF_ADDRESS: u32 = 50;

/// The delay of the first failure above that, in milliseconds; it doubles with each further one.
const WAIT_MS_MIN: u64 = 100;

/// The maximum delay of one failure, in milliseconds.
const WAIT_MS_MAX: u64 = 2_000;

/// A login that would wait longer than this, in milliseconds, is refused at once.
const LINE_MS_MAX: u64 = 5_000;

/// After this many milliseconds without another failure, one failure is forgotten.
const FORGOTTEN_MS: u64 = 10_000;

/// The maximum number of addresses, and of users from addresses, in the table. Above it, those with the fewest
/// failures are removed.
const REMEMBERED_MAX: usize = 4_096;

/// The maximum number of waiting logins.
const WAITING_MAX: usize = 512;

/// An address, with a user if its failures are counted by user.
type Key = (Box<str>, Option<Name>);

#[derive(Clone, Copy, Debug)]
struct Failed {
    count: u32,
    last: Time,
    /// When the last waiting login is checked.
    checked_at: Time,
}

impl Failed {
    /// How many failures are not forgotten.
    fn count(&self, now: Time) -> u32 {
        self.count.saturating_sub(u32::try_from(now.since_ms(self.last) / FORGOTTEN_MS).unwrap_or(u32::MAX))
    }

    /// When the next login may be checked.
    fn next_check(&self, free: u32, now: Time) -> Time {
        let Some(over) = self.count(now).checked_sub(free) else { return now };
        let wait_ms = (WAIT_MS_MIN << over.min(10)).min(WAIT_MS_MAX);
        self.last.max(self.checked_at).after_ms(wait_ms).max(now)
    }
}

/// The table. Its size is bounded, whatever clients do.
#[derive(Debug, Default)]
pub struct FailedLogins(HashMap<Key, Failed>);

fn keys(address: &str, user: &Name) -> [(Key, u32); 2] {
    // Without the port, which is different each time.
    let host: Box<str> = address.rsplit_once(':').map_or(address, |(host, _)| host).into();
    [((host.clone(), None), FREE_OF_ADDRESS), ((host, Some(user.clone())), FREE_OF_USER)]
}

impl FailedLogins {
    /// When a login of the user from there may be checked; its turn is reserved then. `None` if it would wait too
    /// long.
    pub fn line_up(&mut self, address: &str, user: &Name, now: Time) -> Option<Time> {
        let keys = keys(address, user);
        let next = |(key, free): &(Key, u32)| self.0.get(key).map_or(now, |failed| failed.next_check(*free, now));
        let at = keys.iter().map(next).max().unwrap_or(now);
        if at.since_ms(now) > LINE_MS_MAX {
            return None;
        }
        for (key, _) in &keys {
            if let Some(failed) = self.0.get_mut(key) {
                failed.checked_at = failed.checked_at.max(at);
            }
        }
        Some(at)
    }

    /// A login of the user from there has failed.
    pub fn failed(&mut self, address: &str, user: &Name, now: Time) {
        for (key, _) in keys(address, user) {
            let failed = self.0.entry(key).or_insert(Failed { count: 0, last: now, checked_at: Time::default() });
            failed.count = failed.count(now).saturating_add(1);
            failed.last = now;
        }
        if self.0.len() > REMEMBERED_MAX {
            self.0.retain(|_, failed| failed.count(now) > 0);
            let mut counts: Vec<u32> = self.0.values().map(|failed| failed.count(now)).collect();
            if counts.len() > REMEMBERED_MAX {
                // Half of them, so that this is rare.
                let (_, middle, _) = counts.select_nth_unstable(REMEMBERED_MAX / 2);
                let (middle, mut spared) = (*middle, REMEMBERED_MAX / 2);
                self.0.retain(|_, failed| {
                    let kept = failed.count(now) > middle || spared > 0;
                    spared = spared.saturating_sub(usize::from(kept));
                    kept
                });
            }
        }
    }

    /// A login of the user from there has succeeded.
    pub fn succeeded(&mut self, address: &str, user: &Name) {
        let [_, (key, _)] = keys(address, user);
        self.0.remove(&key);
    }
}

/// A login that waits because of earlier failures.
#[derive(Debug)]
struct Waiting {
    until: Time,
    user: Name,
    password: Vec<u8>,
    connection: Weak<Connection>,
}

/// Failed logins, and the logins that wait because of them.
#[derive(Debug, Default)]
pub struct Slowed {
    pub failed: Mutex<FailedLogins>,
    /// Locked only to add or remove some.
    waiting: Mutex<Vec<Waiting>>,
}

impl Node {
    /// Checks a password from another machine, after the delay that earlier failures cause; see
    /// [`Node::check_later`].
    ///
    /// # Errors
    /// [`Refusal::LoginFailed`] if too many wait.
    pub(crate) fn check_in_line(
        self: &Arc<Self>,
        user: Name,
        password: Vec<u8>,
        address: &str,
        connection: &Arc<Connection>,
    ) -> Result<(), Refusal> {
        let now = self.now();
        let until = self.slowed.failed.lock().line_up(address, &user, now);
        if until == Some(now) {
            return self.check_later(user, password, false, connection);
        }
        let mut waiting = self.slowed.waiting.lock();
        let Some(until) = until.filter(|_| waiting.len() < WAITING_MAX) else {
            return Err(Refusal::LoginFailed(format!("user '{user}': too many logins from there have failed")));
        };
        waiting.push(Waiting { until, user, password, connection: Arc::downgrade(connection) });
        drop(waiting);
        self.ring_for_logins();
        Ok(())
    }

    /// Checks the passwords whose delay is over.
    pub(crate) fn check_those_who_waited(self: &Arc<Self>, now: Time) {
        let is_due = self.core.lock().logins_due.is_some_and(|due| due <= now);
        if !is_due {
            return;
        }
        let due: Vec<Waiting> = self.slowed.waiting.lock().extract_if(.., |waiting| waiting.until <= now).collect();
        for Waiting { user, password, connection, .. } in due {
            // A client that has disconnected does not cost a check.
            let Some(connection) = connection.upgrade() else { continue };
            if let Err(refusal) = self.check_later(user, password, false, &connection) {
                connection.mailbox().login = Some(Box::new(Err(refusal)));
                connection.wake();
            }
        }
        self.ring_for_logins();
    }

    fn ring_for_logins(&self) {
        let due = self.slowed.waiting.lock().iter().map(|waiting| waiting.until).min();
        let moved = {
            let mut core = self.core.lock();
            core.logins_due = due;
            core.move_alarm()
        };
        if let Some(due) = moved {
            self.host.alarm(due);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> Name {
        Name::from(name)
    }

    #[test]
    fn failures_slow_their_user_from_their_address_and_are_forgotten() {
        let (mut logins, anna) = (FailedLogins::default(), user("anna"));
        let mut waits = Vec::new();
        let mut now = Time(1_000_000);
        for port in 1..=10 {
            let address = format!("10.0.0.1:{port}");
            let at = logins.line_up(&address, &anna, now).unwrap();
            waits.push(at.since_ms(now));
            now = at;
            logins.failed(&address, &anna, now);
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200, 400, 800, 1_600]);
        assert_eq!(logins.line_up("10.0.0.1:5", &user("bert"), now), Some(now), "another user does not wait");
        assert_eq!(logins.line_up("10.0.0.2:5", &anna, now), Some(now), "from elsewhere she does not wait");
        assert_eq!(logins.line_up("10.0.0.1:5", &anna, now.after_ms(60_000)), Some(now.after_ms(60_000)));
        logins.succeeded("10.0.0.1:5", &anna);
        assert_eq!(logins.line_up("10.0.0.1:5", &anna, now), Some(now), "whoever is right does not wait any more");
    }

    #[test]
    fn those_who_come_at_once_wait_in_line_and_the_line_is_short() {
        let (mut logins, anna, now) = (FailedLogins::default(), user("anna"), Time(1_000_000));
        (0..20).for_each(|_| logins.failed("10.0.0.1:5", &anna, now));
        let mut line: Vec<Option<u64>> = Vec::new();
        for _ in 0..4 {
            line.push(logins.line_up("10.0.0.1:5", &anna, now).map(|at| at.since_ms(now)));
        }
        assert_eq!(line, [Some(2_000), Some(4_000), None, None]);
    }

    #[test]
    fn many_users_from_one_address_slow_it_down() {
        let (mut logins, now) = (FailedLogins::default(), Time(1_000_000));
        for number in 0..FREE_OF_ADDRESS {
            let guessed = user(&number.to_string());
            assert_eq!(logins.line_up("10.0.0.1:5", &guessed, now), Some(now));
            logins.failed("10.0.0.1:5", &guessed, now);
        }
        assert_eq!(logins.line_up("10.0.0.1:5", &user("new"), now), Some(now.after_ms(WAIT_MS_MIN)));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_those_who_fail_most() {
        let (mut logins, anna, now) = (FailedLogins::default(), user("anna"), Time(1_000_000));
        (0..20).for_each(|_| logins.failed("10.0.0.1:5", &anna, now));
        for number in 0..3 * REMEMBERED_MAX {
            logins.failed(&format!("10.1.0.{number}:5"), &anna, now);
            assert!(logins.0.len() <= REMEMBERED_MAX + 2);
        }
        assert!(logins.line_up("10.0.0.1:5", &anna, now) > Some(now));
    }
}
