//! The settings of vhosts: description, default queue type and limits. And the limits of users.

use ferrymq_model::{CatalogEntry, Name, QueueSpec, Refusal, UserLimits, Value, VhostSettings};

use super::{Catalog, entries};

const QUEUE_TYPE: &str = "x-queue-type";

impl Catalog {
    /// The settings of a vhost.
    ///
    /// # Errors
    /// [`Refusal::VhostNotFound`].
    pub fn vhost_settings(&self, name: &str) -> Result<&VhostSettings, Refusal> {
        self.vhost(name).map(|vhost| &vhost.settings)
    }

    /// Changes the settings of a vhost.
    ///
    /// # Errors
    /// [`Refusal::VhostNotFound`]; [`Refusal::PreconditionFailed`] for an unknown queue type.
    pub fn set_vhost_settings(
        &mut self,
        name: &Name,
        settings: VhostSettings,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), Refusal> {
        const TYPES: [&str; 3] = ["classic", "quorum", "stream"];
        if let Some(kind) = &settings.default_queue_type
            && !TYPES.contains(&kind.as_str())
        {
            return Err(Refusal::PreconditionFailed(format!(
                "there is no queue type '{kind}'; allowed: {}",
                TYPES.join(", ")
            )));
        }
        let vhost = self.vhost_mut(name)?;
        if vhost.settings != settings {
            changes.push(entries::vhost(name, &settings));
            vhost.settings = settings;
        }
        Ok(())
    }

    /// Checks whether one more queue may be declared in a vhost. (AMQP-55)
    pub(super) fn check_queue_limit(&self, vhost: &str, queue: &str) -> Result<(), Refusal> {
        let found = self.vhost(vhost)?;
        match found.settings.queues_max {
            Some(max) if found.queues.len() >= max as usize => Err(Refusal::PreconditionFailed(format!(
                "cannot declare queue '{queue}': queue limit in vhost '{vhost}' ({max}) is reached"
            ))),
            _ => Ok(()),
        }
    }

    /// The arguments of a declaration, with the vhost's queue type if they name none and the queue can have it.
    /// (AMQP-29)
    pub(super) fn with_queue_type(&self, vhost: &str, mut spec: QueueSpec) -> QueueSpec {
        let kind = self.vhosts.get(vhost).and_then(|vhost| vhost.settings.default_queue_type.as_deref());
        let is_replicated = spec.durable && !spec.exclusive && !spec.auto_delete;
        if let Some(kind) = kind.filter(|kind| *kind == "classic" || is_replicated)
            && spec.arguments.get(QUEUE_TYPE).is_none()
        {
            spec.arguments.0.push((QUEUE_TYPE.to_owned(), Value::Text(kind.to_owned())));
        }
        spec
    }

    /// The limits of a user; none for an unknown user.
    #[must_use]
    pub fn user_limits(&self, name: &str) -> UserLimits {
        self.user(name).map(|user| user.limits).unwrap_or_default()
    }

    /// Sets the limits of a user.
    ///
    /// # Errors
    /// [`Refusal::NothingNamed`] if there is no such user.
    pub fn set_user_limits(
        &mut self,
        name: &Name,
        limits: UserLimits,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<(), Refusal> {
        let user = self.users.get_mut(name).ok_or_else(|| super::access::no_user(name))?;
        if user.limits != limits {
            user.limits = limits;
            changes.push(entries::user(name, user));
        }
        Ok(())
    }
}
