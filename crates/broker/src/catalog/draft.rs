//! A second catalog with the declarations of the first, to try an import of definitions.

use ferrymq_model::{CatalogEntry, Name};

use super::{Catalog, LoadError, User, entries};

impl Catalog {
    /// A catalog with the same users, vhosts, exchanges and queues, which shares nothing with this one. A user with
    /// any permission in a vhost may do everything there. Bindings and policies are left out, because nothing that
    /// is added depends on existing ones.
    ///
    /// # Errors
    /// Never, for a consistent catalog.
    pub fn draft(&self) -> Result<Self, LoadError> {
        let mut all: Vec<CatalogEntry> = vec![entries::queue_counter(self.next_queue)];
        all.extend(self.users.iter().map(|(name, user)| entries::user(name, user)));
        for (name, vhost) in &self.vhosts {
            all.push(entries::vhost(name, &vhost.settings));
            let exchanges = vhost.exchanges.iter();
            all.extend(exchanges.map(|(own, found)| entries::exchange(name, own, &found.spec, found.schedule)));
        }
        for (vhost, users) in &self.permissions {
            all.extend(users.keys().map(|user| entries::permission(user, vhost, [".*"; 3])));
        }
        for queue in self.queues.values() {
            let settings = &queue.settings;
            all.push(entries::queue(&settings.vhost, &settings.name, queue.id, &queue.spec));
        }
        Self::load(&all, self.key, &mut Vec::new()).map(|loaded| loaded.catalog)
    }

    /// Whether anybody but `user` could log in with a password and open a vhost.
    #[must_use]
    pub fn others_can_log_in(&self, user: &str) -> bool {
        let may_enter = |name: &str| self.permissions.values().any(|users| users.contains_key(name));
        let can = |(name, found): (&Name, &User)| **name != *user && !found.password_hash.is_empty() && may_enter(name);
        self.users.iter().any(can)
    }
}
