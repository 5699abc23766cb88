//! Recent failed logins, by address and by user: after several failures, the next check of a password waits.

use std::{collections::BTreeMap, fmt, sync::Weak};

use ferrymq_model::{Name, Time};

/// How many failures of one user from one address cause no delay.
const FREE_OF_USER: u32 = 5;

/// How many failures from one address, of any users, cause no delay.
const FREE_OF_ADDRESS: u32 = 50;

/// The delay of the first failure above that, in milliseconds; it doubles with each further one.
const WAIT_MS_MIN: u64 = 100;

/// The maximum delay of one failure, in milliseconds.
const WAIT_MS_MAX: u64 = 2_000;

/// A login that would wait longer than this, in milliseconds, is refused at once.
const CHECK_DELAY_MS_MAX: u64 = 5_000;

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

/// The table of recent failures. Its size is bounded, whatever clients do: above 4096 entries, those with the fewest
/// failures are removed.
#[derive(Debug, Default)]
pub struct FailedLogins(BTreeMap<Key, Failed>);

fn keys(address: &str, user: &Name) -> [(Key, u32); 2] {
    // Without the port, which is different each time.
    let host: Box<str> = address.rsplit_once(':').map_or(address, |(host, _)| host).into();
    [((host.clone(), None), FREE_OF_ADDRESS), ((host, Some(user.clone())), FREE_OF_USER)]
}

impl FailedLogins {
    /// Whether a login of the user from `address` (`host:port`) must wait because of earlier failures.
    #[must_use]
    pub fn must_wait(&self, address: &str, user: &Name, now: Time) -> bool {
        let waits =
            |(key, free): &(Key, u32)| self.0.get(key).is_some_and(|failed| failed.next_check(*free, now) > now);
        keys(address, user).iter().any(waits)
    }

    /// When a login of the user from `address` (`host:port`) may be checked: `now`, if there is no reason to wait. Its
    /// turn is reserved then. `None` if it would wait longer than five seconds.
    pub fn reserve_check(&mut self, address: &str, user: &Name, now: Time) -> Option<Time> {
        let keys = keys(address, user);
        let next = |(key, free): &(Key, u32)| self.0.get(key).map_or(now, |failed| failed.next_check(*free, now));
        let at = keys.iter().map(next).max().unwrap_or(now);
        if at.since_ms(now) > CHECK_DELAY_MS_MAX {
            return None;
        }
        for (key, _) in &keys {
            if let Some(failed) = self.0.get_mut(key) {
                failed.checked_at = failed.checked_at.max(at);
            }
        }
        Some(at)
    }

    /// A login of the user from `address` (`host:port`) has failed. One failure is forgotten after ten seconds without
    /// another one.
    pub fn failed(&mut self, address: &str, user: &Name, now: Time) {
        for (key, _) in keys(address, user) {
            let failed = self.0.entry(key).or_insert(Failed { count: 0, last: now, checked_at: Time::default() });
            failed.count = failed.count(now).saturating_add(1);
            failed.last = now;
        }
        if self.0.len() > REMEMBERED_MAX {
            self.forget(now);
        }
    }

    /// Removes what is forgotten, and then about half of the table, so that this is rare: those with the fewest
    /// failures.
    fn forget(&mut self, now: Time) {
        self.0.retain(|_, failed| failed.count(now) > 0);
        if self.0.len() <= REMEMBERED_MAX {
            return;
        }
        let mut counts: Vec<u32> = self.0.values().map(|failed| failed.count(now)).collect();
        let (_, middle, above) = counts.select_nth_unstable(REMEMBERED_MAX / 2);
        let middle = *middle;
        // Those with more failures stay before others, because clients choose the order of the keys.
        let mut spared = (REMEMBERED_MAX / 2).saturating_sub(above.iter().filter(|count| **count > middle).count());
        self.0.retain(|_, failed| {
            let count = failed.count(now);
            let is_spared = count == middle && spared > 0;
            spared -= usize::from(is_spared);
            is_spared || count > middle
        });
    }

    /// A login of the user from `address` (`host:port`) has succeeded: that user does not wait any more from there.
    /// Failures of other users still count for the address.
    pub fn succeeded(&mut self, address: &str, user: &Name) {
        let [_, (key, _)] = keys(address, user);
        self.0.remove(&key);
    }
}

/// A login that waits because of earlier failures.
pub struct DelayedLogin<W> {
    /// When its password is to be checked, as [`FailedLogins::reserve_check`] said.
    pub until: Time,
    /// The user name that the client sent.
    pub user: Name,
    /// The password that the client sent.
    pub password: Vec<u8>,
    /// Who waits. If it does not exist any more, the password need not be checked.
    pub waiter: Weak<W>,
}

impl<W> fmt::Debug for DelayedLogin<W> {
    /// Passwords stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayedLogin").field("until", &self.until).field("user", &self.user).finish_non_exhaustive()
    }
}

/// The logins that wait because of earlier failures: 512 at most.
pub struct DelayedLogins<W>(Vec<DelayedLogin<W>>);

impl<W> fmt::Debug for DelayedLogins<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DelayedLogins").field(&self.0).finish()
    }
}

impl<W> Default for DelayedLogins<W> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<W> DelayedLogins<W> {
    /// Adds a login.
    ///
    /// # Errors
    /// The login, if too many wait.
    pub fn add(&mut self, login: DelayedLogin<W>) -> Result<(), DelayedLogin<W>> {
        if self.0.len() >= WAITING_MAX {
            return Err(login);
        }
        self.0.push(login);
        Ok(())
    }

    /// Removes the logins whose delay is over, in the order in which they came.
    pub fn take_due(&mut self, now: Time) -> Vec<DelayedLogin<W>> {
        self.0.extract_if(.., |login| login.until <= now).collect()
    }

    /// When the next delay is over; `None` if no login waits.
    #[must_use]
    pub fn due(&self) -> Option<Time> {
        self.0.iter().map(|login| login.until).min()
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
            let at = logins.reserve_check(&address, &anna, now).unwrap();
            waits.push(at.since_ms(now));
            now = at;
            logins.failed(&address, &anna, now);
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 100, 200, 400, 800, 1_600]);
        assert_eq!(logins.reserve_check("10.0.0.1:5", &user("bert"), now), Some(now), "another user does not wait");
        assert_eq!(logins.reserve_check("10.0.0.2:5", &anna, now), Some(now), "from elsewhere she does not wait");
        assert_eq!(logins.reserve_check("10.0.0.1:5", &anna, now.after_ms(60_000)), Some(now.after_ms(60_000)));
        logins.succeeded("10.0.0.1:5", &anna);
        assert_eq!(
            logins.reserve_check("10.0.0.1:5", &anna, now),
            Some(now),
            "whoever is right does not wait any more"
        );
    }

    #[test]
    fn those_who_come_at_once_wait_in_line_and_the_line_is_short() {
        let (mut logins, anna, now) = (FailedLogins::default(), user("anna"), Time(1_000_000));
        (0..20).for_each(|_| logins.failed("10.0.0.1:5", &anna, now));
        let mut line: Vec<Option<u64>> = Vec::new();
        for _ in 0..4 {
            line.push(logins.reserve_check("10.0.0.1:5", &anna, now).map(|at| at.since_ms(now)));
        }
        assert_eq!(line, [Some(2_000), Some(4_000), None, None]);
    }

    #[test]
    fn many_users_from_one_address_slow_it_down() {
        let (mut logins, now) = (FailedLogins::default(), Time(1_000_000));
        for number in 0..FREE_OF_ADDRESS {
            let guessed = user(&number.to_string());
            assert_eq!(logins.reserve_check("10.0.0.1:5", &guessed, now), Some(now));
            logins.failed("10.0.0.1:5", &guessed, now);
        }
        assert_eq!(logins.reserve_check("10.0.0.1:5", &user("new"), now), Some(now.after_ms(WAIT_MS_MIN)));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_those_who_fail_most() {
        let (mut logins, anna, now) = (FailedLogins::default(), user("anna"), Time(1_000_000));
        (0..20).for_each(|_| logins.failed("10.0.0.1:5", &anna, now));
        for number in 0..3 * REMEMBERED_MAX {
            logins.failed(&format!("10.1.0.{number}:5"), &anna, now);
            assert!(logins.0.len() <= REMEMBERED_MAX + 2);
        }
        assert!(logins.reserve_check("10.0.0.1:5", &anna, now) > Some(now));
    }

    #[test]
    fn of_equal_failures_half_are_kept_but_not_before_more_failures() {
        let (mut logins, now) = (FailedLogins::default(), Time(1_000_000));
        let key = |name: &str| (Box::from("10.0.0.1"), Some(user(name)));
        (0..2).for_each(|_| logins.failed("10.0.0.1:5", &user("zoe"), now));
        // With the address and `zoe` this is one too many.
        (0..REMEMBERED_MAX - 1).for_each(|number| logins.failed("10.0.0.1:5", &user(&format!("a{number:04}")), now));
        assert_eq!(logins.0.len(), REMEMBERED_MAX / 2);
        assert!(logins.0.contains_key(&key("zoe")) && logins.0.contains_key(&key("a0000")));
    }

    #[test]
    fn delayed_logins_leave_when_they_are_due_and_their_number_is_bounded() {
        let mut delayed = DelayedLogins::<()>::default();
        let login =
            |until| DelayedLogin { until: Time(until), user: user("anna"), password: vec![], waiter: Weak::new() };
        assert_eq!(delayed.due(), None);
        for until in [30, 10, 20] {
            delayed.add(login(until)).unwrap();
        }
        assert_eq!(delayed.due(), Some(Time(10)));
        let taken: Vec<Time> = delayed.take_due(Time(20)).iter().map(|login| login.until).collect();
        assert_eq!((taken, delayed.due()), (vec![Time(10), Time(20)], Some(Time(30))));
        (1..WAITING_MAX as u64).for_each(|until| delayed.add(login(until)).unwrap());
        assert!(delayed.add(login(1)).is_err());
    }
}
