//! Settings of vhosts, users and policies, as operators make them.

use serde::{Deserialize, Serialize};

use crate::{Refusal, Table};

/// The settings of a vhost.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VhostSettings {
    /// Its description.
    pub description: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// The type of queues that are declared without a type, if they can have it.
    pub default_queue_type: Option<String>,
    /// The maximum number of connections to it.
    pub connections_max: Option<u32>,
    /// The maximum number of queues in it.
    pub queues_max: Option<u32>,
}

/// The limits of a user.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct UserLimits {
    /// The maximum number of connections.
    pub connections_max: Option<u32>,
    /// The maximum number of channels, over all connections.
    pub channels_max: Option<u32>,
}

/// The kind of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyScope {
    /// A user policy, for all settings.
    User,
    /// An operator policy, for limits; it is merged with a user policy.
    Operator,
}

/// What a policy applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApplyTo {
    /// Queues and exchanges.
    All,
    /// Exchanges.
    Exchanges,
    /// Queues of every type.
    Queues,
    /// Classic queues.
    ClassicQueues,
    /// Quorum queues.
    QuorumQueues,
    /// Streams, which are not implemented.
    Streams,
}

impl ApplyTo {
    /// Reads RabbitMQ's name for it.
    ///
    /// # Errors
    /// [`Refusal::PreconditionFailed`], which lists the known names.
    pub fn parse(name: &str) -> Result<Self, Refusal> {
        Ok(match name {
            "all" => Self::All,
            "exchanges" => Self::Exchanges,
            "queues" => Self::Queues,
            "classic_queues" => Self::ClassicQueues,
            "quorum_queues" => Self::QuorumQueues,
            "streams" => Self::Streams,
            _ => {
                return Err(Refusal::PreconditionFailed(format!(
                    "apply-to '{name}' unrecognised; should be one of: 'queues', 'classic_queues', 'quorum_queues', \
                     'streams', 'exchanges', or 'all'"
                )));
            }
        })
    }

    /// Its name in RabbitMQ.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Exchanges => "exchanges",
            Self::Queues => "queues",
            Self::ClassicQueues => "classic_queues",
            Self::QuorumQueues => "quorum_queues",
            Self::Streams => "streams",
        }
    }
}

/// A policy, as it is set.
#[derive(Clone, Debug, PartialEq)]
pub struct PolicySpec {
    /// A regular expression. It need not match the whole name.
    pub pattern: String,
    /// What it applies to.
    pub apply_to: ApplyTo,
    /// If several policies match, the highest one applies.
    pub priority: i64,
    /// Its settings.
    pub definition: Table,
}
