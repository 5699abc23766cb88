//! Connections whose mailboxes have something to send, each once, in the order in which they were added.

use std::sync::Arc;

use hashbrown::HashSet;

use crate::connection::peer::Connection;

/// A list without duplicates. Adding takes the same time however many there are: one message may go to thousands.
#[derive(Debug, Default)]
pub struct Touched {
    connections: Vec<Arc<Connection>>,
    /// The place of the one that was added last, now or again: a batch adds the same one many times in a row.
    latest: usize,
    /// The serial numbers of all, once there are too many for a linear search. Most lists never need them.
    serials: Option<Box<HashSet<u64>>>,
}

impl Touched {
    /// The maximum number for a linear search.
    const FEW: usize = 16;

    /// Adds a connection, unless it is in the list.
    #[inline]
    pub fn add(&mut self, connection: &Arc<Connection>) {
        let is_latest = |latest: &Arc<Connection>| Arc::ptr_eq(latest, connection);
        if !self.connections.get(self.latest).is_some_and(is_latest) {
            self.add_another(connection);
        }
    }

    fn add_another(&mut self, connection: &Arc<Connection>) {
        if self.connections.len() < Self::FEW {
            if let Some(place) = self.connections.iter().position(|other| Arc::ptr_eq(other, connection)) {
                self.latest = place;
                return;
            }
        } else {
            let serials = self.serials.get_or_insert_default();
            if serials.is_empty() {
                serials.extend(self.connections.iter().map(|other| other.serial));
            }
            if !serials.insert(connection.serial) {
                return;
            }
        }
        self.latest = self.connections.len();
        self.connections.push(connection.clone());
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Connection>> {
        self.connections.iter()
    }

    /// Removes and returns all.
    pub fn take(&mut self) -> Vec<Arc<Connection>> {
        if let Some(serials) = &mut self.serials {
            serials.clear();
        }
        std::mem::take(&mut self.connections)
    }

    /// Adds the connections of a list that are not in it.
    pub fn add_all(&mut self, connections: impl IntoIterator<Item = Arc<Connection>>) {
        connections.into_iter().for_each(|connection| self.add(&connection));
    }
}
