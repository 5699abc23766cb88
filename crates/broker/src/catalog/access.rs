//! Users, and what they may do.

use ferrymq_model::{Access, CatalogEntry, Name, Object, Refusal};
use regex::Regex;

use super::{Caller, Catalog, entries, no_vhost, shown};

/// A user. Its password hash is opaque here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The hash, with all that is needed to check a password against it.
    pub password_hash: String,
    /// What it may do beside its permissions, such as `administrator`.
    pub tags: Vec<String>,
}

/// What a user may do in a vhost: one pattern for each [`Access`].
#[derive(Debug)]
pub(super) struct Permission {
    configure: Pattern,
    write: Pattern,
    read: Pattern,
}

/// A pattern for names, compiled once. RabbitMQ's are not anchored, and an empty one matches the empty name only.
#[derive(Debug)]
enum Pattern {
    All,
    EmptyName,
    Expression(Regex),
}

impl Pattern {
    fn parse(text: &str) -> Result<Self, Refusal> {
        match text {
            ".*" => Ok(Self::All),
            "" => Ok(Self::EmptyName),
            _ => Regex::new(text).map(Self::Expression).map_err(|why| {
                Refusal::PreconditionFailed(format!("invalid regular expression '{text}' in a permission: {why}"))
            }),
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::EmptyName => name.is_empty(),
            Self::Expression(expression) => expression.is_match(name),
        }
    }
}

impl Permission {
    fn parse([configure, write, read]: [&str; 3]) -> Result<Self, Refusal> {
        Ok(Self { configure: Pattern::parse(configure)?, write: Pattern::parse(write)?, read: Pattern::parse(read)? })
    }

    fn pattern(&self, access: Access) -> &Pattern {
        match access {
            Access::Configure => &self.configure,
            Access::Write => &self.write,
            Access::Read => &self.read,
        }
    }
}

impl Catalog {
    /// Makes or changes a user.
    pub fn put_user(&mut self, name: &Name, password_hash: &str, tags: &[String], changes: &mut Vec<CatalogEntry>) {
        let user = User { password_hash: password_hash.to_owned(), tags: tags.to_vec() };
        self.users.insert(name.clone(), user);
        changes.push(entries::user(name, password_hash, tags));
    }

    /// The user of that name.
    #[must_use]
    pub fn user(&self, name: &str) -> Option<&User> {
        self.users.get(name)
    }

    /// Sets what a user may do in a vhost: regular expressions for configure, write and read.
    ///
    /// # Errors
    /// [`Refusal::PreconditionFailed`] where one of them is malformed.
    pub fn set_permission(
        &mut self,
        user: &Name,
        vhost: &Name,
        patterns: [&str; 3],
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), Refusal> {
        let permission = Permission::parse(patterns)?;
        self.permissions.entry(vhost.clone()).or_default().insert(user.clone(), permission);
        if let Some(vhost) = self.vhosts.get(vhost) {
            vhost.epoch.advance();
        }
        changes.push(entries::permission(user, vhost, patterns));
        Ok(())
    }

    /// Whether a user may work in a vhost at all.
    ///
    /// # Errors
    /// [`Refusal::VhostNotFound`], or [`Refusal::NotAllowed`] where the user has no permission there.
    pub fn may_enter(&self, user: &str, vhost: &str) -> Result<(), Refusal> {
        if !self.vhosts.contains_key(vhost) {
            return Err(no_vhost(vhost));
        }
        match self.permission(user, vhost) {
            Some(_) => Ok(()),
            None => Err(Refusal::NotAllowed(format!("access to vhost '{vhost}' refused for user '{user}'"))),
        }
    }

    /// Whether a user may do something with an object, whether that is there or not. The default exchange is called
    /// `amq.default` in permissions.
    ///
    /// # Errors
    /// [`Refusal::AccessRefused`] where it may not.
    pub fn allowed(&self, user: &str, vhost: &str, access: Access, object: Object, name: &str) -> Result<(), Refusal> {
        let name = if object == Object::Exchange && name.is_empty() { "amq.default" } else { name };
        match self.permission(user, vhost) {
            Some(permission) if permission.pattern(access).matches(name) => Ok(()),
            _ => Err(Refusal::AccessRefused(format!(
                "{} access to {} refused for user '{user}'",
                access.as_str(),
                shown(object, name, vhost)
            ))),
        }
    }

    pub(super) fn check(&self, caller: &Caller<'_>, access: Access, object: Object, name: &str) -> Result<(), Refusal> {
        self.allowed(caller.user, caller.vhost, access, object, name)
    }

    fn permission(&self, user: &str, vhost: &str) -> Option<&Permission> {
        self.permissions.get(vhost)?.get(user)
    }
}
