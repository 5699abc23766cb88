//! Policies: settings for all queues and exchanges of a vhost whose name matches a pattern.
//!
//! Of all policies that match an object, the user policy with the highest priority applies, and in addition one
//! operator policy, which can only lower limits. A policy with a setting that a queue's type does not have does not
//! match that queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferrymq_model::{CatalogEntry, Name, QueueId, Refusal, Table, Value};

use super::patterns::Pattern;
use super::policy_settings::{check_definition, is_for, merged};
use super::queue_arguments::{self, QueueKind};
use super::{Catalog, Vhost, arguments, entries};
use crate::queue::QueueSettings;

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

    fn covers(self, object: Subject) -> bool {
        match self {
            Self::All => true,
            Self::Exchanges => object == Subject::Exchange,
            Self::Queues => object != Subject::Exchange,
            Self::ClassicQueues => object == Subject::Queue(QueueKind::Classic),
            Self::QuorumQueues => object == Subject::Queue(QueueKind::Quorum),
            Self::Streams => false,
        }
    }
}

/// What a policy may apply to, as far as policies distinguish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Exchange,
    Queue(QueueKind),
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

#[derive(Debug)]
struct Policy {
    spec: PolicySpec,
    pattern: Pattern,
}

/// The policies of a vhost.
#[derive(Debug, Default)]
pub(super) struct Policies {
    user: BTreeMap<Name, Policy>,
    operator: BTreeMap<Name, Policy>,
}

impl Policies {
    fn of(&mut self, scope: PolicyScope) -> &mut BTreeMap<Name, Policy> {
        match scope {
            PolicyScope::User => &mut self.user,
            PolicyScope::Operator => &mut self.operator,
        }
    }

    pub(super) fn put(&mut self, scope: PolicyScope, name: &Name, spec: PolicySpec) -> Result<(), Refusal> {
        let pattern = Pattern::parse(&spec.pattern).map_err(|why| {
            let pattern = &spec.pattern;
            Refusal::PreconditionFailed(format!("pattern '{pattern}' is not a valid regular expression: {why}"))
        })?;
        self.of(scope).insert(name.clone(), Policy { spec, pattern });
        Ok(())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = (PolicyScope, &Name)> {
        let user = self.user.keys().map(|name| (PolicyScope::User, name));
        user.chain(self.operator.keys().map(|name| (PolicyScope::Operator, name)))
    }

    /// The settings of a queue that result from its policies.
    pub(super) fn of_queue(&self, name: &str, kind: QueueKind) -> Table {
        self.effective(name, Subject::Queue(kind))
    }

    // AMQP-70
    fn effective(&self, name: &str, subject: Subject) -> Table {
        let definition = |policies| first(policies, name, subject).map(|policy| &policy.spec.definition);
        match (definition(&self.user), definition(&self.operator)) {
            (None, None) => Table::default(),
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (Some(user), Some(operator)) => merged(user, operator),
        }
    }

    /// The alternate exchange: the exchange's own argument wins over a policy. (AMQP-20)
    pub(super) fn alternate(&self, name: &str, arguments: &Table) -> Option<Name> {
        arguments::alternate_exchange(arguments).or_else(|| {
            let policy = self.effective(name, Subject::Exchange);
            let name = policy.get("alternate-exchange").and_then(Value::as_text)?;
            Name::parse(name.as_bytes()).ok()
        })
    }
}

/// The matching policy with the highest priority; if several have it, the first by name. (AMQP-70)
fn first<'a>(policies: &'a BTreeMap<Name, Policy>, name: &str, subject: Subject) -> Option<&'a Policy> {
    let kind = match subject {
        Subject::Exchange => None,
        Subject::Queue(kind) => Some(kind),
    };
    let matching = policies.values().filter(|policy| {
        policy.spec.apply_to.covers(subject)
            && policy.spec.definition.iter().all(|(key, _)| kind.is_none_or(|kind| is_for(key, kind)))
            && policy.pattern.matches(name)
    });
    matching.reduce(|best, other| if other.spec.priority > best.spec.priority { other } else { best })
}

impl Catalog {
    /// Adds or changes a policy. Returns the queues whose settings change, with their settings.
    ///
    /// # Errors
    /// [`Refusal::VhostNotFound`]; [`Refusal::PreconditionFailed`] for a malformed pattern, an unknown setting, or
    /// a wrong value.
    pub fn set_policy(
        &mut self,
        vhost: &Name,
        scope: PolicyScope,
        name: &Name,
        spec: &PolicySpec,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<Vec<(QueueId, Arc<QueueSettings>)>, Refusal> {
        check_definition(scope, &spec.definition)?;
        self.vhost_mut(vhost)?.policies.put(scope, name, spec.clone())?;
        changes.push(entries::policy(vhost, scope, name, spec));
        Ok(self.apply_policies(vhost))
    }

    /// Removes a policy. Returns the queues whose settings change, with their settings.
    ///
    /// # Errors
    /// [`Refusal::VhostNotFound`]; [`Refusal::NothingNamed`] if there is no such policy.
    pub fn clear_policy(
        &mut self,
        vhost: &Name,
        scope: PolicyScope,
        name: &Name,
        changes: &mut Vec<CatalogEntry>,
    ) -> Result<Vec<(QueueId, Arc<QueueSettings>)>, Refusal> {
        if self.vhost_mut(vhost)?.policies.of(scope).remove(name).is_none() {
            return Err(Refusal::NothingNamed(format!("no policy '{name}' in vhost '{vhost}'")));
        }
        changes.push(entries::policy_tombstone(vhost, scope, name));
        Ok(self.apply_policies(vhost))
    }

    /// The policies of a vhost with their kinds, by name.
    pub fn policies(&self, vhost: &str) -> impl Iterator<Item = (PolicyScope, &Name, &PolicySpec)> {
        self.vhosts.get(vhost).into_iter().flat_map(|vhost| {
            let of = |scope| move |(name, policy)| (scope, name, spec_of(policy));
            let Policies { user, operator } = &vhost.policies;
            user.iter().map(of(PolicyScope::User)).chain(operator.iter().map(of(PolicyScope::Operator)))
        })
    }

    /// Applies the policies to every queue and exchange of a vhost again.
    pub(super) fn apply_policies(&mut self, vhost: &str) -> Vec<(QueueId, Arc<QueueSettings>)> {
        let Some(Vhost { policies, exchanges, queues, epoch, .. }) = self.vhosts.get_mut(vhost) else {
            return Vec::new();
        };
        for (name, exchange) in exchanges {
            exchange.alternate = policies.alternate(name, &exchange.spec.arguments);
        }
        epoch.advance();
        let mut changed = Vec::new();
        for (name, id) in queues {
            let queue = self.queues.get_mut(id).expect("a name stands for a queue that is there");
            let policy = policies.of_queue(name, queue.kind);
            let settings = queue_arguments::settings(&queue.settings.vhost, name, queue.kind, &queue.spec, &policy);
            if settings != *queue.settings {
                queue.settings = Arc::new(settings);
                changed.push((*id, Arc::clone(&queue.settings)));
            }
        }
        changed.sort_unstable_by_key(|(id, _)| *id);
        changed
    }
}

fn spec_of(policy: &Policy) -> &PolicySpec {
    &policy.spec
}
