//! Logins from other machines, which wait after several failures.
//!
//! Clients on this machine do not wait: behind a proxy all clients are local, and one that fails must not slow the
//! others.

use std::sync::Arc;

use ferrymq_auth::DelayedLogin;
use ferrymq_model::{Name, Refusal, Time};

use crate::{connection::peer::Connection, core::node::Node};

impl Node {
    /// Checks a password from another machine, after the delay that earlier failures cause; see
    /// [`Node::check_later`].
    ///
    /// # Errors
    /// [`Refusal::LoginFailed`] if too many wait.
    pub(crate) fn check_after_delay(
        self: &Arc<Self>,
        user: Name,
        password: Vec<u8>,
        address: &str,
        connection: &Arc<Connection>,
    ) -> Result<(), Refusal> {
        let now = self.now();
        let until = self.failed_logins.lock().reserve_check(address, &user, now);
        if until == Some(now) {
            return self.check_later(user, password, false, connection);
        }
        let refused =
            |user: Name| Refusal::LoginFailed(format!("user '{user}': too many logins from there have failed"));
        let Some(until) = until else { return Err(refused(user)) };
        let login = DelayedLogin { until, user, password, waiter: Arc::downgrade(connection) };
        let added = self.delayed_logins.lock().add(login);
        added.map_err(|login| refused(login.user))?;
        self.set_login_timer();
        Ok(())
    }

    /// Checks the passwords whose delay is over.
    pub(crate) fn check_those_who_waited(self: &Arc<Self>, now: Time) {
        let is_due = self.core.lock().logins_due.is_some_and(|due| due <= now);
        if !is_due {
            return;
        }
        let due = self.delayed_logins.lock().take_due(now);
        for DelayedLogin { user, password, waiter, .. } in due {
            // A client that has disconnected does not cost a check.
            let Some(connection) = waiter.upgrade() else { continue };
            if let Err(refusal) = self.check_later(user, password, false, &connection) {
                connection.mailbox().login = Some(Box::new(Err(refusal)));
                connection.wake();
            }
        }
        self.set_login_timer();
    }

    fn set_login_timer(&self) {
        let due = self.delayed_logins.lock().due();
        let moved = {
            let mut core = self.core.lock();
            core.logins_due = due;
            core.move_timer()
        };
        if let Some(due) = moved {
            self.host.set_timer(due);
        }
    }
}
