//! Policies that change during a sequence.

use std::sync::Arc;

use ferrymq_broker::QueueSettings;
use ferrymq_model::{ApplyTo, Name, PolicyScope, PolicySpec, QueueId, Refusal, Table};

use super::{Checked, World};

use crate::reference::{OPERATOR_PATTERN, operators, policy};

impl World {
    /// The queues of this name have another policy from now on, which may be empty.
    pub fn set_policy(&mut self, name: &str, number: u64) -> Checked {
        let policy = policy(name, number);
        let answer = self.change_policy(PolicyScope::User, name, &format!("^{name}$"), policy.definition());
        self.reference.set_policy(name, policy);
        self.agree("policy", answer, Ok(()))
    }

    /// The operator sets limits of some queues, or removes them.
    pub fn set_operators(&mut self, there: bool) -> Checked {
        let policy = there.then(operators);
        let definition = policy.map_or_else(Table::default, |policy| policy.definition());
        let answer = self.change_policy(PolicyScope::Operator, "operators", OPERATOR_PATTERN, definition);
        self.reference.set_operators(policy);
        self.agree("operator policy", answer, Ok(()))
    }

    fn change_policy(
        &mut self,
        scope: PolicyScope,
        name: &str,
        pattern: &str,
        definition: Table,
    ) -> Result<(), Refusal> {
        let (vhost, name, changes) = (Name::from("/"), Name::from(name), &mut self.changes);
        let changed: Vec<(QueueId, Arc<QueueSettings>)> = if definition.is_empty() {
            let cleared = self.catalog.clear_policy(&vhost, scope, &name, changes);
            // There may be none.
            cleared.or_else(|no| matches!(no, Refusal::NothingNamed(_)).then(Vec::new).ok_or(no))?
        } else {
            let spec = PolicySpec { pattern: pattern.to_owned(), apply_to: ApplyTo::Queues, priority: 0, definition };
            self.catalog.set_policy(&vhost, scope, &name, &spec, changes)?
        };
        let now = self.now();
        for (queue, settings) in changed {
            self.shard(queue).configure(queue, settings, now);
        }
        Ok(())
    }
}
