//! What operators are told of the catalog. Long lists come in two steps: first the numbers or names of what is asked
//! for, then each object, so that the lock can be released in between.

use ferrymq_model::{
    BindingFacts, BindingsOf, Destination, ExchangeReport, Name, PermissionReport, PolicyNames, PolicyReport,
    QueueCounts, QueueDetails, QueueId, QueueReport, TopicPermissionReport, UserReport, Which,
};

use super::bindings::Target;
use super::{Catalog, Vhost, events, in_order};

impl Catalog {
    /// The users with their permissions, or one of them, in the order of their names. Their password hashes are in the
    /// stored form.
    #[must_use]
    pub fn user_reports(&self, name: Option<&str>) -> Vec<UserReport> {
        let mut reports: Vec<UserReport> = in_order(&self.users)
            .filter(|(own, _)| name.is_none_or(|name| ***own == *name))
            .map(|(name, user)| UserReport {
                name: name.clone(),
                hashing_algorithm: "",
                password_hash: user.password_hash.clone(),
                tags: user.tags.clone(),
                limits: user.limits,
                permissions: Vec::new(),
                topic_permissions: Vec::new(),
            })
            .collect();
        let place = |reports: &[UserReport], user: &Name| reports.binary_search_by(|report| report.name.cmp(user)).ok();
        for (vhost, users) in in_order(&self.permissions) {
            for (user, permission) in users {
                if let Some(at) = place(&reports, user) {
                    let patterns = permission.patterns().clone();
                    reports[at].permissions.push(PermissionReport { vhost: vhost.clone(), patterns });
                }
            }
        }
        for (vhost, permissions) in in_order(&self.topic_permissions) {
            for ((user, exchange), permission) in in_order(permissions) {
                if let Some(at) = place(&reports, user) {
                    let (vhost, exchange) = (vhost.clone(), exchange.clone());
                    let patterns = permission.patterns().clone();
                    reports[at].topic_permissions.push(TopicPermissionReport { vhost, exchange, patterns });
                }
            }
        }
        reports
    }

    /// The policies of a vhost, or of all.
    #[must_use]
    pub fn policy_reports(&self, vhost: Option<&str>) -> Vec<PolicyReport> {
        let vhosts = self.vhosts().filter(|own| vhost.is_none_or(|vhost| ***own == *vhost));
        let of = |vhost: &Name| {
            let report = |(scope, name, spec): (_, &Name, &ferrymq_model::PolicySpec)| PolicyReport {
                vhost: vhost.clone(),
                scope,
                name: name.clone(),
                spec: spec.clone(),
            };
            self.policies(vhost).map(report).collect::<Vec<_>>()
        };
        vhosts.flat_map(of).collect()
    }

    /// The vhosts that are asked for, in the order of their names.
    fn asked(&self, which: &Which) -> impl Iterator<Item = &Vhost> {
        in_order(&self.vhosts).map(|(_, vhost)| vhost).filter(move |vhost| match which {
            Which::All => true,
            Which::InVhost(name) | Which::Named(name, _) => vhost.name == *name,
            Which::Queues(_) => false,
        })
    }

    /// The exchanges that are asked for, by vhost and name.
    #[must_use]
    pub fn exchange_names(&self, which: &Which) -> Vec<(Name, Name)> {
        let wanted = |name: &Name| if let Which::Named(_, one) = which { name == one } else { true };
        let of = |vhost: &Vhost| {
            let names = in_order(&vhost.exchanges).map(|(name, _)| name).filter(|name| wanted(name));
            names.map(|name| (vhost.name.clone(), name.clone())).collect::<Vec<_>>()
        };
        self.asked(which).flat_map(of).collect()
    }

    /// An exchange.
    #[must_use]
    pub fn exchange_report(&self, vhost: &str, name: &str) -> Option<ExchangeReport> {
        let found = self.vhosts.get(vhost)?;
        let (name, exchange) = found.exchanges.get_key_value(name)?;
        let policies = found.policies.that_apply_to_exchange(name);
        Some(ExchangeReport { vhost: found.name.clone(), name: name.clone(), spec: exchange.spec.clone(), policies })
    }

    /// The ids of the queues that are asked for, in the order of their declarations.
    #[must_use]
    pub fn queue_ids(&self, which: &Which) -> Vec<QueueId> {
        let mut ids: Vec<QueueId> = match which {
            Which::Queues(ids) => return ids.clone(),
            Which::All => self.queues.keys().copied().collect(),
            Which::InVhost(vhost) => {
                self.vhosts.get(vhost).into_iter().flat_map(|vhost| vhost.queues.values().copied()).collect()
            }
            Which::Named(vhost, name) => {
                self.vhosts.get(vhost).and_then(|vhost| vhost.queues.get(name)).into_iter().copied().collect()
            }
        };
        ids.sort_unstable();
        ids
    }

    /// A queue in this state.
    #[must_use]
    pub fn queue_report(&self, id: QueueId, counts: QueueCounts, details: bool) -> Option<QueueReport> {
        let queue = self.queues.get(&id)?;
        let (vhost, name) = (queue.settings.vhost.clone(), queue.settings.name.clone());
        let details = details.then(|| {
            let policies = self.vhosts.get(&vhost).map(|found| found.policies.that_apply_to_queue(&name, queue.kind));
            Box::new(QueueDetails {
                kind: queue.kind.short(),
                spec: queue.spec.clone(),
                owner: queue.owner,
                policies: policies.unwrap_or_else(PolicyNames::default),
                failure: None,
            })
        });
        Some(QueueReport { id, vhost, name, counts, details })
    }

    /// The numbers of the bindings that are asked for, by vhost, in the order in which they were made.
    #[must_use]
    pub fn binding_numbers(&self, of: &BindingsOf) -> Vec<(Name, u64)> {
        let numbers_in = |vhost: &Vhost| match of {
            BindingsOf::All | BindingsOf::Vhost(_) => vhost.bindings.keys().copied().collect(),
            BindingsOf::Source(_, exchange) => {
                { vhost.exchanges.get(exchange).map(|exchange| exchange.bindings.iter().copied().collect()) }
                    .unwrap_or_default()
            }
            BindingsOf::Destination(_, Destination::Exchange(exchange)) => {
                { vhost.exchanges.get(exchange).map(|exchange| exchange.inbound.iter().copied().collect()) }
                    .unwrap_or_default()
            }
            BindingsOf::Destination(_, Destination::Queue(queue)) => {
                let queue = vhost.queues.get(queue).and_then(|id| self.queues.get(id));
                queue.map(|queue| queue.bindings.iter().copied().collect()).unwrap_or_default()
            }
        };
        let asked = |vhost: &&Vhost| match of {
            BindingsOf::All => true,
            BindingsOf::Vhost(name) | BindingsOf::Source(name, _) | BindingsOf::Destination(name, _) => {
                vhost.name == *name
            }
        };
        let vhosts = in_order(&self.vhosts).map(|(_, vhost)| vhost).filter(asked);
        vhosts
            .flat_map(|vhost| {
                let mut numbers: Vec<u64> = numbers_in(vhost);
                numbers.sort_unstable();
                numbers.into_iter().map(|number| (vhost.name.clone(), number))
            })
            .collect()
    }

    /// A binding by its number.
    #[must_use]
    pub fn binding_report(&self, vhost: &str, number: u64) -> Option<BindingFacts> {
        let vhost = self.vhosts.get(vhost)?;
        let binding = vhost.bindings.get(&number)?;
        vhost.exchanges.get(&binding.source)?;
        let (target, to_queue) = match &binding.target {
            Target::Exchange(name) => (name.clone(), false),
            Target::Queue(id) => (self.queues.get(id)?.settings.name.clone(), true),
        };
        Some(events::facts(&vhost.name, binding, target, to_queue))
    }
}
