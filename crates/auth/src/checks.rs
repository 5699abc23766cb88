//! How repeated and simultaneous logins avoid the cost of a check: what was right is remembered, and equal checks
//! at the same time are made once.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Weak},
};

use ferrymq_model::Name;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::passwords;

/// The maximum number of different checks that wait; with more, a login is refused at once. One check takes about
/// 25 ms of a processor, and no client waits for longer than its handshake may take.
const WAITING_MAX: usize = 512;

/// A SHA-256 digest of a password under the key of its [`PasswordChecks`].
type PasswordDigest = [u8; 32];

/// What a check is for: logins for which this is equal share one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    user: Name,
    password: PasswordDigest,
    /// Whether the client is on this machine.
    loopback: bool,
}

/// What [`PasswordChecks::wait`] asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waits {
    /// To make the check and then to call [`PasswordChecks::answered`].
    First,
    /// Nothing: another one has asked for the same, and its check answers both.
    WithOthers,
    /// To refuse the login: too many checks wait.
    TooMany,
}

/// Which passwords were right before, and which `W` wait for which check.
///
/// The check of a password takes tens of milliseconds on purpose. A client that connects again with the same one
/// should not pay again, and a thousand that connect at once should not stop all others.
///
/// Several threads use it at once. Each lock is held to look into its table or to change it, never during a check.
pub struct PasswordChecks<W> {
    /// Makes the digests useless outside this process.
    key: [u8; 16],
    /// By user: the stored form that it was checked against, and the digest of the password.
    right: Mutex<BTreeMap<Name, (String, PasswordDigest)>>,
    waiting: Mutex<BTreeMap<Check, Vec<Weak<W>>>>,
}

impl<W> fmt::Debug for PasswordChecks<W> {
    /// The key and the digests stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PasswordChecks").finish_non_exhaustive()
    }
}

impl<W> PasswordChecks<W> {
    /// Nothing was right before, and nobody waits. `key` is random and leaves the process nowhere.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self { key, right: Mutex::default(), waiting: Mutex::default() }
    }

    fn digest(&self, password: &[u8]) -> PasswordDigest {
        Sha256::new().chain_update(self.key).chain_update(password).finalize().into()
    }

    /// The check that this login needs. `loopback`: whether the client is on this machine, because some users may
    /// log in only from there.
    pub fn check_for(&self, user: &Name, password: &[u8], loopback: bool) -> Check {
        Check { user: user.clone(), password: self.digest(password), loopback }
    }

    /// `waiter` waits for a check, unless the answer is [`Waits::TooMany`].
    pub fn wait(&self, check: Check, waiter: &Arc<W>) -> Waits {
        let mut waiting = self.waiting.lock();
        let count = waiting.len();
        let waiter = Arc::downgrade(waiter);
        if let Some(others) = waiting.get_mut(&check) {
            others.push(waiter);
            return Waits::WithOthers;
        }
        if count >= WAITING_MAX {
            return Waits::TooMany;
        }
        waiting.insert(check, vec![waiter]);
        Waits::First
    }

    /// Whether anybody who waits for it still exists. If not, it need not be made.
    pub fn is_awaited(&self, check: &Check) -> bool {
        self.waiting.lock().get(check).is_some_and(|waiting| waiting.iter().any(|one| one.strong_count() > 0))
    }

    /// The check was made, or was not needed any more: returns those that waited for it, in the order in which they
    /// came. From now on an equal one is the first again.
    pub fn answered(&self, check: &Check) -> Vec<Weak<W>> {
        self.waiting.lock().remove(check).unwrap_or_default()
    }

    /// Whether [`PasswordChecks::check`] with these arguments is true without an expensive check, because it was
    /// true before.
    pub fn is_remembered(&self, user: &Name, password: &[u8], stored: &str) -> bool {
        let digest = self.digest(password);
        self.right.lock().get(user).is_some_and(|(hash, right)| hash == stored && *right == digest)
    }

    /// Whether `stored` is the stored form of `password`, as [`passwords::matches`] says. What is right is
    /// remembered for the user. Everything else takes as long as a check by argon2, about 25 ms.
    pub fn check(&self, user: &Name, password: &[u8], stored: &str) -> bool {
        if self.is_remembered(user, password, stored) {
            return true;
        }
        let right = passwords::matches(password, stored);
        if !passwords::is_slow(stored) {
            // The check of a RabbitMQ hash is fast, and that of an empty one even faster: this adds the time of a slow
            // check, so that nobody learns which one it is.
            passwords::dummy_check(password);
        }
        if right {
            self.right.lock().insert(user.clone(), (stored.to_owned(), self.digest(password)));
        }
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 16] = [7; 16];

    #[test]
    fn only_the_right_password_for_the_stored_hash_passes_and_is_remembered() {
        let checks = PasswordChecks::<()>::new(KEY);
        let (user, stored) = (Name::from("guest"), passwords::hash(b"guest", [1; 16]));
        assert!(!checks.check(&user, b"guess", &stored));
        assert!(!checks.is_remembered(&user, b"guess", &stored));
        for _ in 0..2 {
            assert!(checks.check(&user, b"guest", &stored));
            assert!(checks.is_remembered(&user, b"guest", &stored));
            assert!(!checks.check(&user, b"guess", &stored));
        }
        let changed = passwords::hash(b"other", [2; 16]);
        assert!(!checks.check(&user, b"guest", &changed), "a changed password ends what was remembered");
        assert!(!checks.check(&user, b"guest", "not a hash"));
    }

    #[test]
    fn equal_logins_wait_together_and_others_do_not() {
        let checks = PasswordChecks::<u8>::new(KEY);
        let (anna, bert) = (Name::from("anna"), Name::from("bert"));
        let check = |user, password: &[u8], loopback| checks.check_for(user, password, loopback);
        let waiters = [1, 2, 3, 4, 5].map(Arc::new);
        let asked = [
            (check(&anna, b"secret", false), Waits::First),
            (check(&anna, b"secret", false), Waits::WithOthers),
            (check(&anna, b"Secret", false), Waits::First),
            (check(&anna, b"secret", true), Waits::First),
            (check(&bert, b"secret", false), Waits::First),
        ];
        for (waiter, (check, expected)) in waiters.iter().zip(asked) {
            assert_eq!(checks.wait(check, waiter), expected, "{waiter}");
        }
        let [first, second, ..] = &waiters;
        let shared = check(&anna, b"secret", false);
        let answered: Vec<_> = checks.answered(&shared).iter().filter_map(Weak::upgrade).collect();
        assert_eq!(answered, [first.clone(), second.clone()]);
        assert_eq!(checks.wait(shared, first), Waits::First, "that one is over");
    }

    #[test]
    fn so_many_different_checks_wait_and_no_more() {
        let (checks, waiter) = (PasswordChecks::<()>::new(KEY), Arc::new(()));
        let user = Name::from("anna");
        let check = |number: usize| checks.check_for(&user, &number.to_le_bytes(), false);
        assert!((0..WAITING_MAX).all(|number| checks.wait(check(number), &waiter) == Waits::First));
        assert_eq!(checks.wait(check(WAITING_MAX), &waiter), Waits::TooMany);
        assert!(checks.answered(&check(WAITING_MAX)).is_empty(), "whoever is refused does not wait");
        assert_eq!(checks.wait(check(0), &waiter), Waits::WithOthers);
        checks.answered(&check(0));
        assert_eq!(checks.wait(check(WAITING_MAX), &waiter), Waits::First);
    }

    #[test]
    fn a_check_is_awaited_as_long_as_one_of_its_waiters_exists() {
        let (checks, user) = (PasswordChecks::<()>::new(KEY), Name::from("anna"));
        let check = checks.check_for(&user, b"secret", false);
        let (first, second) = (Arc::new(()), Arc::new(()));
        assert!(!checks.is_awaited(&check));
        checks.wait(check.clone(), &first);
        checks.wait(check.clone(), &second);
        drop(first);
        assert!(checks.is_awaited(&check));
        drop(second);
        assert!(!checks.is_awaited(&check));
    }
}
