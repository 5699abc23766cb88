//! The client sessions that have a name.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ferrymq_model::{Name, Time};

use crate::connection::peer::Connection;

/// A vhost, and a session's name in it.
pub type SessionKey = (Name, Name);

/// All named client sessions. Under the shard's lock.
#[derive(Debug, Default)]
pub struct Sessions {
    all: BTreeMap<SessionKey, Session>,
    /// When those without a connection end.
    ends: BTreeSet<(Time, SessionKey)>,
}

/// One of them.
#[derive(Debug)]
pub struct Session {
    /// The user who may use it.
    pub user: Name,
    /// How long it is kept after the end of its connection; 0: not at all.
    pub keep_ms: u64,
    holder: Holder,
}

/// Who has a session.
#[derive(Debug)]
enum Holder {
    /// A connection, and the one that waits until it has ended.
    Connection(Arc<Connection>, Option<Arc<Connection>>),
    /// No connection. This one without a socket keeps its place, until that time.
    Nobody(Arc<Connection>, Time),
}

/// What a connection finds when it wants a session.
#[derive(Debug)]
pub enum Found {
    /// No session: it has a new one.
    Nothing,
    /// The session of this connection without a socket.
    Kept(Arc<Connection>),
    /// Another connection has it, which must end first, and another one may have waited for that.
    Held(Arc<Connection>, Option<Arc<Connection>>),
}

/// The maximum number of sessions.
pub const SESSIONS_MAX: usize = 100_000;

impl Sessions {
    /// Whether there may be no further one.
    pub fn is_full(&self) -> bool {
        self.all.len() >= SESSIONS_MAX
    }

    /// The session of this name.
    pub fn get_mut(&mut self, key: &SessionKey) -> Option<&mut Session> {
        self.all.get_mut(key)
    }

    /// When the first of them ends.
    pub fn first_end(&self) -> Option<Time> {
        self.ends.first().map(|(time, _)| *time)
    }

    /// How many have no connection.
    pub fn kept(&self) -> usize {
        self.ends.len()
    }

    /// A connection wants the session. If another one has it, it is the next one to get it.
    pub fn attach(&mut self, key: &SessionKey, user: &Name, keep_ms: u64, connection: &Arc<Connection>) -> Found {
        let new = Holder::Connection(connection.clone(), None);
        let Some(session) = self.all.get_mut(key) else {
            self.all.insert(key.clone(), Session { user: user.clone(), keep_ms, holder: new });
            return Found::Nothing;
        };
        if let Holder::Connection(holder, next) = &mut session.holder {
            return Found::Held(holder.clone(), next.replace(connection.clone()));
        }
        session.keep_ms = keep_ms;
        match std::mem::replace(&mut session.holder, new) {
            Holder::Nobody(kept, end) => {
                self.ends.remove(&(end, key.clone()));
                Found::Kept(kept)
            }
            Holder::Connection(..) => unreachable!("this was looked at just before"),
        }
    }

    /// The connection of a session has ended. The session is kept by `kept` until the time `end`, or it ends. Returns
    /// who has waited for it.
    pub fn detach(&mut self, key: &SessionKey, kept: Option<(Arc<Connection>, Time)>) -> Option<Arc<Connection>> {
        let session = self.all.get_mut(key)?;
        let holder = match kept {
            Some((kept, end)) => {
                self.ends.insert((end, key.clone()));
                std::mem::replace(&mut session.holder, Holder::Nobody(kept, end))
            }
            None => self.all.remove(key)?.holder,
        };
        match holder {
            Holder::Connection(_, next) => next,
            Holder::Nobody(..) => None,
        }
    }

    /// A connection has ended before it got the session.
    pub fn give_up(&mut self, key: &SessionKey, connection: &Arc<Connection>) {
        if let Some(Session { holder: Holder::Connection(_, next), .. }) = self.all.get_mut(key) {
            next.take_if(|next| Arc::ptr_eq(next, connection));
        }
    }

    /// Removes the sessions that end at `now`, and returns what keeps their places.
    pub fn take_ended(&mut self, now: Time) -> Vec<Arc<Connection>> {
        let mut ended = Vec::new();
        while self.first_end().is_some_and(|time| time <= now)
            && let Some((_, key)) = self.ends.pop_first()
        {
            if let Some(Session { holder: Holder::Nobody(kept, _), .. }) = self.all.remove(&key) {
                ended.push(kept);
            }
        }
        ended
    }
}
