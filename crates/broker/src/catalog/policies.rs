//! Policies: settings for all queues and exchanges of a vhost whose name matches a pattern.
//!
//! Of all policies that match an object, the user policy with the highest priority applies, and in addition one
//! operator policy, which can only lower limits. A policy with a setting that a queue's type does not have does not
//! match that queue.

use std::collections::BTreeMap;
use std::sync::Arc;

use ferrymq_model::{
    ApplyTo, CatalogEntry, Name, PolicyNames, PolicyScope, PolicySpec, QueueId, Refusal, Table, Value,
};

use super::patterns::Pattern;
use super::policy_settings::{check_definition, is_for, merged};
use super::queue_arguments::{self, QueueKind};
use super::{Catalog, Vhost, arguments, entries};
use crate::queue::QueueSettings;

/// What a policy may apply to, as far as policies distinguish it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Subject {
    Exchange,
    Queue(QueueKind),
}

impl Subject {
    fn is_in(self, apply_to: ApplyTo) -> bool {
        match apply_to {
            ApplyTo::All => true,
            ApplyTo::Exchanges => self == Self::Exchange,
            ApplyTo::Queues => self != Self::Exchange,
            ApplyTo::ClassicQueues => self == Self::Queue(QueueKind::Classic),
            ApplyTo::QuorumQueues => self == Self::Queue(QueueKind::Quorum),
            ApplyTo::Streams => false,
        }
    }
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
        let definition = |policies| first(policies, name, subject).map(|(_, policy)| &policy.spec.definition);
        match (definition(&self.user), definition(&self.operator)) {
            (None, None) => Table::default(),
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (Some(user), Some(operator)) => merged(user, operator),
        }
    }

    /// The policies that apply to a queue.
    pub(super) fn that_apply_to_queue(&self, name: &str, kind: QueueKind) -> PolicyNames {
        self.that_apply(name, Subject::Queue(kind))
    }

    /// The policies that apply to an exchange.
    pub(super) fn that_apply_to_exchange(&self, name: &str) -> PolicyNames {
        self.that_apply(name, Subject::Exchange)
    }

    fn that_apply(&self, name: &str, subject: Subject) -> PolicyNames {
        let of = |policies| first(policies, name, subject).map(|(name, _)| name.clone());
        let (user, operator) = (of(&self.user), of(&self.operator));
        PolicyNames { user, operator, effective: self.effective(name, subject) }
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
fn first<'a>(policies: &'a BTreeMap<Name, Policy>, name: &str, subject: Subject) -> Option<(&'a Name, &'a Policy)> {
    let kind = match subject {
        Subject::Exchange => None,
        Subject::Queue(kind) => Some(kind),
    };
    let matching = policies.iter().filter(|(_, policy)| {
        subject.is_in(policy.spec.apply_to)
            && policy.spec.definition.iter().all(|(key, _)| kind.is_none_or(|kind| is_for(key, kind)))
            && policy.pattern.matches(name)
    });
    matching.reduce(|best, other| if other.1.spec.priority > best.1.spec.priority { other } else { best })
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
