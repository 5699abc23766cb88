//! Who may do what: RabbitMQ's four tags, and the vhosts that a user may enter.

use ferrymq_model::{Actor, Management};

use super::{problem::Problem, routes::Check};

/// What the tags of a user allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tags {
    pub administrator: bool,
    pub monitoring: bool,
    pub policymaker: bool,
    management: bool,
}

impl Tags {
    /// What these tags allow.
    pub fn of(actor: &Actor) -> Self {
        let has = |tag: &str| actor.tags.iter().any(|own| own == tag);
        Self {
            administrator: has("administrator"),
            monitoring: has("monitoring"),
            policymaker: has("policymaker"),
            management: has("management"),
        }
    }

    /// Whether the user may use the API at all.
    fn any(self) -> bool {
        self.administrator || self.monitoring || self.policymaker || self.management
    }

    /// Whether the user sees what all others do.
    pub fn monitors(self) -> bool {
        self.administrator || self.monitoring
    }
}

/// Checks a request for an address. `vhost` is the one in its path, or in the header `x-vhost`.
///
/// # Errors
/// 401 with RabbitMQ's reason.
pub fn check(check: Check, actor: &Actor, vhost: Option<&str>, management: &dyn Management) -> Result<(), Problem> {
    let tags = Tags::of(actor);
    if !tags.any() {
        return Err(Problem::not_authorised("Not management user"));
    }
    let enters = || tags.administrator || vhost.is_none_or(|vhost| enters(actor, vhost, management));
    let (allowed, reason) = match check {
        // The owner is checked where the connection is known.
        Check::Tagged | Check::Owner => (true, ""),
        Check::Vhost => (enters(), "User not authorised to access virtual host"),
        Check::VhostVisible => (tags.monitors() || enters(), "User not authorised to access virtual host"),
        Check::Policymaker => {
            let makes = tags.administrator || tags.policymaker && enters();
            (makes, "User not authorised to access object")
        }
        Check::AnyPolicymaker => (tags.administrator || tags.policymaker, "User not authorised to access object"),
        Check::Monitor => (tags.monitors(), "Not monitor user"),
        Check::Administrator => (tags.administrator, "Not administrator user"),
    };
    if allowed { Ok(()) } else { Err(Problem::not_authorised(reason)) }
}

/// Whether the user may enter the vhost. One that does not exist is found to be missing later.
pub fn enters(actor: &Actor, vhost: &str, management: &dyn Management) -> bool {
    management.may_enter(actor, vhost) || management.vhosts(Some(vhost)).is_empty()
}
