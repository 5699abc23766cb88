//! Users and their permissions.

use ferrymq_model::{Access, CatalogEntry, Name, Object, QueueId, Refusal, UserLimits};

use super::patterns::Pattern;
use super::{Caller, Catalog, Rights, entries, exchanges, in_order, no_vhost, shown};

/// A user. The password hash is opaque here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The hash, with everything that is needed to check a password against it.
    pub password_hash: String,
    /// Roles besides the permissions, such as `administrator`.
    pub tags: Vec<String>,
    /// The limits of the user.
    pub limits: UserLimits,
}

/// A user's permissions in a vhost: one pattern for each [`Access`].
#[derive(Debug)]
pub(super) struct Permission {
    /// As they were set, for operators.
    patterns: [String; 3],
    configure: NamePattern,
    write: NamePattern,
    read: NamePattern,
}

/// The pattern of a permission. As in RabbitMQ, patterns are not anchored, and an empty one matches only the empty
/// name.
#[derive(Debug)]
enum NamePattern {
    EmptyName,
    Other(Pattern),
}

impl NamePattern {
    fn parse(text: &str) -> Result<Self, Refusal> {
        if text.is_empty() {
            return Ok(Self::EmptyName);
        }
        Pattern::parse(text).map(Self::Other).map_err(|why| {
            Refusal::PreconditionFailed(format!("invalid regular expression '{text}' in a permission: {why}"))
        })
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::EmptyName => name.is_empty(),
            Self::Other(pattern) => pattern.matches(name),
        }
    }
}

/// A user's permissions for the routing keys of a topic exchange. Without one, all keys are allowed.
#[derive(Debug)]
pub(super) struct TopicPermission {
    /// As they were set, for operators.
    patterns: [String; 2],
    write: NamePattern,
    read: NamePattern,
}

impl TopicPermission {
    /// The expressions for write and read, as they were set.
    pub(super) fn patterns(&self) -> &[String; 2] {
        &self.patterns
    }

    /// Replaces `{username}` and `{vhost}` by their values, which match literally. `{client_id}` is MQTT's and is
    /// not replaced. (AMQP-23)
    fn parse(user: &str, vhost: &str, patterns: [&str; 2]) -> Result<Self, Refusal> {
        let filled = patterns.map(|pattern| {
            pattern
                .replace("{username}", &regex::escape(user))
                .replace("{vhost}", &regex::escape(vhost))
                .replace("{client_id}", &regex::escape("{client_id}"))
        });
        let [write, read] = &filled;
        let (write, read) = (NamePattern::parse(write)?, NamePattern::parse(read)?);
        Ok(Self { patterns: patterns.map(str::to_owned), write, read })
    }
}

impl Permission {
    /// The expressions for configure, write and read, as they were set.
    pub(super) fn patterns(&self) -> &[String; 3] {
        &self.patterns
    }

    fn parse([configure, write, read]: [&str; 3]) -> Result<Self, Refusal> {
        Ok(Self {
            patterns: [configure, write, read].map(str::to_owned),
            configure: NamePattern::parse(configure)?,
            write: NamePattern::parse(write)?,
            read: NamePattern::parse(read)?,
        })
    }

    fn pattern(&self, access: Access) -> &NamePattern {
        match access {
            Access::Configure => &self.configure,
            Access::Write => &self.write,
            Access::Read => &self.read,
        }
    }
}

/// Puts entries that were found in the order of a hash table into the order of their keys: the order of the table is
/// another one in each process, and the same calls must have the same changes.
fn sort(found: &mut [CatalogEntry]) {
    found.sort_unstable_by(|a, b| (a.kind, &a.key).cmp(&(b.kind, &b.key)));
}

impl Catalog {
    /// Adds or changes a user. Its limits stay as they are.
    pub fn put_user(&mut self, name: &Name, password_hash: &str, tags: &[String], changes: &mut Vec<CatalogEntry>) {
        let limits = self.user_limits(name);
        let user = User { password_hash: password_hash.to_owned(), tags: tags.to_vec(), limits };
        changes.push(entries::user(name, &user));
        self.users.insert(name.clone(), user);
    }

    /// The user of that name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// All users, in the order of their names.
    pub fn users(&self) -> impl Iterator<Item = (&Name, &User)> {
        in_order(&self.users)
    }

    /// Removes a user with all permissions.
    ///
    /// # Errors
    /// [`Refusal::NothingNamed`] if there is no such user.
    pub fn delete_user(&mut self, name: &Name, changes: &mut Vec<CatalogEntry>) -> Result<(), Refusal> {
        if self.users.remove(name).is_none() {
            return Err(no_user(name));
        }
        changes.push(entries::user_tombstone(name));
        let found = changes.len();
        for (vhost, users) in &mut self.permissions {
            if users.remove(name).is_some() {
                changes.push(entries::permission_tombstone(name, vhost));
            }
        }
        sort(&mut changes[found..]);
        self.forget_topic_permissions(|user, _| user == name, changes);
        self.vhosts.values().for_each(|vhost| vhost.epoch.advance());
        Ok(())
    }

    /// Sets a user's permissions in a vhost: regular expressions for configure, write and read.
    ///
    /// # Errors
    /// [`Refusal::VhostNotFound`]; [`Refusal::NothingNamed`] if there is no such user;
    /// [`Refusal::PreconditionFailed`] if an expression is malformed.
    pub fn set_permission(
        &mut self,
        user: &Name,
        vhost: &Name,
        patterns: [&str; 3],
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), Refusal> {
        let permission = Permission::parse(patterns)?;
        self.check_user_and_vhost(user, vhost)?;
        self.permissions.entry(vhost.clone()).or_default().insert(user.clone(), permission);
        self.vhosts[vhost].epoch.advance();
        changes.push(entries::permission(user, vhost, patterns));
        Ok(())
    }

    /// Whether a user has permissions in a vhost.
    #[must_use]
    pub fn has_permission(&self, user: &str, vhost: &str) -> bool {
        self.permissions.get(vhost).is_some_and(|users| users.contains_key(user))
    }

    /// Whether a user has permissions for the routing keys of an exchange.
    #[must_use]
    pub fn has_topic_permission(&self, user: &Name, vhost: &str, exchange: &Name) -> bool {
        let permissions = self.topic_permissions.get(vhost);
        permissions.is_some_and(|permissions| permissions.contains_key(&(user.clone(), exchange.clone())))
    }

    /// Removes a user's permission in a vhost. Succeeds if there is none.
    pub fn clear_permission(&mut self, user: &Name, vhost: &Name, changes: &mut Vec<CatalogEntry>) {
        if self.permissions.get_mut(vhost).is_some_and(|users| users.remove(user).is_some()) {
            changes.push(entries::permission_tombstone(user, vhost));
        }
        if let Some(vhost) = self.vhosts.get(vhost) {
            vhost.epoch.advance();
        }
    }

    /// Sets a user's permissions for the routing keys of a topic exchange: regular expressions for write (publish)
    /// and read (bind), in which `{username}` and `{vhost}` are replaced. The exchange need not exist.
    ///
    /// # Errors
    /// Like [`Catalog::set_permission`].
    pub fn set_topic_permission(
        &mut self,
        user: &Name,
        vhost: &Name,
        exchange: &Name,
        patterns: [&str; 2],
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), Refusal> {
        let permission = TopicPermission::parse(user, vhost, patterns)?;
        self.check_user_and_vhost(user, vhost)?;
        let of_vhost = self.topic_permissions.entry(vhost.clone()).or_default();
        of_vhost.insert((user.clone(), exchange.clone()), permission);
        self.vhosts[vhost].epoch.advance();
        changes.push(entries::topic_permission(user, vhost, exchange, patterns));
        Ok(())
    }

    /// Removes a user's topic permissions in a vhost: for one exchange, or for all.
    pub fn clear_topic_permissions(
        &mut self,
        user: &Name,
        vhost: &Name,
        exchange: Option<&Name>,
        changes: &mut Vec<CatalogEntry>,
    ) {
        let found = changes.len();
        if let Some(of_vhost) = self.topic_permissions.get_mut(vhost) {
            of_vhost.retain(|(other, at), _| {
                let goes = other == user && exchange.is_none_or(|exchange| exchange == at);
                if goes {
                    changes.push(entries::topic_permission_tombstone(other, vhost, at));
                }
                !goes
            });
        }
        sort(&mut changes[found..]);
        if let Some(vhost) = self.vhosts.get(vhost) {
            vhost.epoch.advance();
        }
    }

    /// Removes all topic permissions for which `which` returns true, by user and vhost.
    fn forget_topic_permissions(&mut self, which: impl Fn(&Name, &Name) -> bool, changes: &mut Vec<CatalogEntry>) {
        let found = changes.len();
        for (vhost, permissions) in &mut self.topic_permissions {
            permissions.retain(|(user, exchange), _| {
                let goes = which(user, vhost);
                if goes {
                    changes.push(entries::topic_permission_tombstone(user, vhost, exchange));
                }
                !goes
            });
        }
        sort(&mut changes[found..]);
    }

    fn check_user_and_vhost(&self, user: &Name, vhost: &Name) -> Result<(), Refusal> {
        if !self.users.contains_key(user) {
            return Err(no_user(user));
        }
        self.vhost(vhost).map(|_| ())
    }

    /// Removes a vhost with everything in it, except for the messages: the caller must delete the returned queues
    /// in their shard.
    ///
    /// # Errors
    /// [`Refusal::VhostNotFound`].
    pub fn delete_vhost(&mut self, name: &Name, changes: &mut Vec<CatalogEntry>) -> Result<Vec<QueueId>, Refusal> {
        let mut queues: Vec<QueueId> = self.vhost(name)?.queues.values().copied().collect();
        queues.sort_unstable();
        for queue in &queues {
            self.forget_queue(*queue);
        }
        let own = self.exchanges(name).filter(|(name, _)| !exchanges::is_predeclared(name));
        let exchanges: Vec<Name> = own.map(|(name, _)| name.clone()).collect();
        for exchange in exchanges {
            // It may have been deleted with another one.
            if self.exchange(name, &exchange).is_ok() {
                self.remove_exchange(name, exchange, changes);
            }
        }
        while self.unbind_some(changes) {}
        let vhost = self.vhosts.remove(name).expect("it was just found");
        vhost.epoch.advance();
        changes.extend(vhost.tombstones());
        let users = self.permissions.remove(name).unwrap_or_default();
        changes.extend(in_order(&users).map(|(user, _)| entries::permission_tombstone(user, name)));
        self.forget_topic_permissions(|_, vhost| vhost == name, changes);
        changes.push(entries::vhost_tombstone(name));
        Ok(queues)
    }

    /// Checks whether the caller may publish messages with the user-id `claimed`. (AMQP-24)
    ///
    /// # Errors
    /// [`Refusal::PreconditionFailed`] if it is another user and the caller has no tag `impersonator`.
    pub fn check_claim(&self, caller: &Caller<'_>, claimed: &str) -> Result<(), Refusal> {
        let user = caller.user;
        let tags = match caller.rights {
            Rights::OfUser => self.user(user).map_or(&[][..], |user| &user.tags),
            Rights::OfToken(scopes) => scopes.tags(),
            Rights::Expired => &[],
        };
        if **user == *claimed || tags.iter().any(|tag| tag == "impersonator") {
            return Ok(());
        }
        let text = format!("user_id property set to '{claimed}' but authenticated user was '{user}'");
        Err(Refusal::PreconditionFailed(text))
    }

    /// Checks whether the caller may use that routing key of a topic exchange. (AMQP-23)
    pub(super) fn check_topic(
        &self,
        caller: &Caller<'_>,
        access: Access,
        exchange: &str,
        key: &[u8],
    ) -> Result<(), Refusal> {
        let allowed = match caller.rights {
            Rights::OfUser => self.permits_topic(caller, access, exchange, key),
            Rights::OfToken(scopes) => scopes.allow_topic(access, caller.vhost, exchange, key),
            Rights::Expired => false,
        };
        if allowed {
            return Ok(());
        }
        let key = String::from_utf8_lossy(key);
        let (access, user) = (access.as_str(), caller.user);
        let vhost = caller.vhost;
        Err(Refusal::AccessRefused(format!(
            "{access} access to topic '{key}' in exchange '{exchange}' in vhost '{vhost}' refused for user '{user}'"
        )))
    }

    /// By its topic permissions; without one for the exchange, all keys are allowed.
    fn permits_topic(&self, caller: &Caller<'_>, access: Access, exchange: &str, key: &[u8]) -> bool {
        let Some(of_vhost) = self.topic_permissions.get(caller.vhost).filter(|of_vhost| !of_vhost.is_empty()) else {
            return true;
        };
        let Ok(name) = Name::parse(exchange.as_bytes()) else { return true };
        let Some(permission) = of_vhost.get(&(caller.user.clone(), name)) else { return true };
        let pattern = if access == Access::Write { &permission.write } else { &permission.read };
        pattern.matches(&String::from_utf8_lossy(key))
    }

    /// Checks whether the caller may open its vhost. (AMQP-55)
    ///
    /// # Errors
    /// Like [`Catalog::may_enter`].
    pub fn check_entry(&self, caller: &Caller<'_>) -> Result<(), Refusal> {
        let (vhost, user) = (caller.vhost, caller.user);
        let scopes = match caller.rights {
            Rights::OfUser => return self.may_enter(user, vhost),
            Rights::OfToken(scopes) => Some(scopes),
            Rights::Expired => None,
        };
        self.vhost(vhost)?;
        if scopes.is_some_and(|scopes| scopes.enter(vhost)) { Ok(()) } else { Err(no_entry(user, vhost)) }
    }

    /// Checks whether a user may open a vhost.
    ///
    /// # Errors
    /// [`Refusal::VhostNotFound`], or [`Refusal::NotAllowed`] if the user has no permission there.
    pub fn may_enter(&self, user: &str, vhost: &str) -> Result<(), Refusal> {
        if !self.vhosts.contains_key(vhost) {
            return Err(no_vhost(vhost));
        }
        match self.permission(user, vhost) {
            Some(_) => Ok(()),
            None => Err(no_entry(user, vhost)),
        }
    }

    /// Checks a user's permission for an object, which need not exist. The default exchange is called `amq.default`
    /// in permissions. (AMQP-23)
    ///
    /// # Errors
    /// [`Refusal::AccessRefused`] without the permission.
    pub fn allowed(&self, user: &str, vhost: &str, access: Access, object: Object, name: &str) -> Result<(), Refusal> {
        let name = permission_name(object, name);
        match self.permission(user, vhost) {
            Some(permission) if permission.pattern(access).matches(name) => Ok(()),
            _ => Err(no_access(user, access, &shown(object, name, vhost))),
        }
    }

    pub(super) fn check(&self, caller: &Caller<'_>, access: Access, object: Object, name: &str) -> Result<(), Refusal> {
        let Caller { vhost, user, rights, .. } = *caller;
        let whose = || shown(object, permission_name(object, name), vhost);
        match rights {
            Rights::OfUser => self.allowed(user, vhost, access, object, name),
            Rights::OfToken(scopes) if scopes.allow(access, vhost, permission_name(object, name)) => Ok(()),
            Rights::OfToken(_) => Err(no_access(user, access, &whose())),
            Rights::Expired => Err(no_access(user, access, &format!("{} (the token has expired)", whose()))),
        }
    }

    fn permission(&self, user: &str, vhost: &str) -> Option<&Permission> {
        self.permissions.get(vhost)?.get(user)
    }
}

/// The name of an object in permissions.
fn permission_name(object: Object, name: &str) -> &str {
    if object == Object::Exchange && name.is_empty() { "amq.default" } else { name }
}

fn no_entry(user: &str, vhost: &str) -> Refusal {
    Refusal::NotAllowed(format!("access to vhost '{vhost}' refused for user '{user}'"))
}

fn no_access(user: &str, access: Access, to: &str) -> Refusal {
    Refusal::AccessRefused(format!("{} access to {to} refused for user '{user}'", access.as_str()))
}

pub(super) fn no_user(name: &str) -> Refusal {
    Refusal::NothingNamed(format!("no user '{name}'"))
}
