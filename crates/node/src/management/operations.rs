//! What operators change: see [`Operations`].

use std::sync::Arc;

use ferrymq_auth::passwords;
use ferrymq_broker::DeleteWhen;
use ferrymq_model::{
    Actor, Change, Changed, Event, Name, NewPassword, Operations, Pending, PolicyScope, PolicySpec, Position, QueueId,
    Refusal, VhostSettings, Which,
};
use futures_channel::oneshot;

use super::{
    catalog_change, durable_changes::stops, operator_client::OperatorClient, operator_login, queries::NodeManagement,
    trace::ConnectionIdentity,
};
use crate::{
    connection::peer::Connection,
    core::{
        node::Node,
        transition::{CatalogLock, Deferred},
    },
};

/// How many queues of a vhost are deleted during one hold of the locks.
const HELD_QUEUES_MAX: usize = 128;

impl Operations for NodeManagement {
    fn log_in(&self, user: Name, password: Vec<u8>, address: String, loopback: bool) -> Pending<Actor> {
        Box::pin(operator_login::log_in(self.0.clone(), user, password, address, loopback))
    }

    fn change(&self, by: &Actor, change: Change) -> Pending<Changed> {
        Box::pin(carry_out(self.0.clone(), by.clone(), change))
    }
}

async fn carry_out(node: Arc<Node>, by: Actor, change: Change) -> Result<Changed, Refusal> {
    match change {
        Change::Request { vhost, ask } => {
            let mut client = OperatorClient::open(node, &by, vhost).await?;
            client.ask(ask).await.map(Changed::Answered)
        }
        Change::Publish { vhost, message } => {
            let mut client = OperatorClient::open(node.clone(), &by, vhost).await?;
            client.publish(&node, &message).await.map(Changed::Answered)
        }
        Change::Get { vhost, queue, messages, settlement } => {
            let mut client = OperatorClient::open(node, &by, vhost).await?;
            client.get(queue, messages, settlement).await.map(Changed::Got)
        }
        Change::PutUser { user, password, tags } => {
            let stored = stored_form(&node, password).await?;
            let ((existed, ()), after) = node.change_catalog(Some(&by.user), None, |_, ports, changes| {
                let existed = ports.catalog().user(&user).is_some();
                (existed, ports.catalog().put_user(&user, &stored, &tags, changes))
            });
            node.is_durable(after).await?;
            Ok(if existed { Changed::Done } else { Changed::Created })
        }
        Change::ImportDefinitions(json) => {
            let importer = node.clone();
            let imported = computed(&node, move || importer.import_for_operator(&json)).await?;
            let imported = imported.map_err(|why| Refusal::PreconditionFailed(why.to_string()))?;
            node.is_durable(node.flushed_position()).await?;
            Ok(Changed::Imported { left_out: imported.left_out, passed_over: imported.passed_over })
        }
        Change::CloseConnection { serial, reason } => {
            let is_found = node.close_where(&Refusal::ConnectionForced(reason), |other, _| other.serial == serial);
            if is_found { Ok(Changed::Done) } else { Err(Refusal::NothingNamed("no such connection".to_owned())) }
        }
        Change::DeleteVhost(vhost) => {
            let after = node.delete_vhost(&by.user, &vhost)?;
            node.is_durable(after).await?;
            Ok(Changed::Done)
        }
        other => {
            let (changed, after) = node.change_settings(&by.user, other)?;
            node.is_durable(after).await?;
            Ok(changed)
        }
    }
}

/// Runs something that takes long where passwords are checked.
async fn computed<T: Send + 'static>(node: &Node, work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    let (answer, answered) = oneshot::channel();
    node.host.compute(Box::new(move || _ = answer.send(work())));
    answered.await.map_err(|_| stops())
}

/// The stored form of a new password.
async fn stored_form(node: &Node, password: NewPassword) -> Result<String, Refusal> {
    match password {
        NewPassword::Hash { hash, .. } if hash.is_empty() => Ok(String::new()),
        NewPassword::Hash { hash, algorithm } => {
            passwords::stored_form(algorithm.as_deref(), &hash).map_err(Refusal::PreconditionFailed)
        }
        NewPassword::Password(password) => {
            let salt = node.salt();
            computed(node, move || passwords::hash(&password, salt)).await
        }
    }
}

impl Node {
    /// Changes that only the catalog knows, and queues' settings that follow from them.
    fn change_settings(&self, by: &Name, change: Change) -> Result<(Changed, Position), Refusal> {
        use Change as C;

        let done = |((), after)| (Changed::Done, after);
        let created = |(is_new, after)| (if is_new { Changed::Created } else { Changed::Done }, after);
        Ok(match change {
            C::PutVhost { vhost, settings, is_traced } => created(self.put_vhost(by, &vhost, settings, is_traced)?),
            C::DeleteUser(user) => {
                let deleted =
                    self.change_catalog_alone(Some(by), None, |catalog, changes| catalog.delete_user(&user, changes))?;
                let why = Refusal::ConnectionForced(format!("user '{user}' was deleted"));
                self.close_where(&why, |_, identity| identity.is_some_and(|identity| identity.user == user));
                done(deleted)
            }
            C::SetUserLimits(user, limits) => done(self.change_catalog_alone(Some(by), None, |catalog, changes| {
                catalog.set_user_limits(&user, limits, changes)
            })?),
            C::SetPermission { user, vhost, patterns: [configure, write, read] } => {
                created(self.change_catalog_alone(Some(by), None, |catalog, changes| {
                    let had = catalog.has_permission(&user, &vhost);
                    catalog.set_permission(&user, &vhost, [&configure, &write, &read], changes).map(|()| !had)
                })?)
            }
            C::ClearPermission { user, vhost } => {
                done(self.change_catalog_alone(Some(by), None, |catalog, changes| {
                    catalog.clear_permission(&user, &vhost, changes);
                    Ok(())
                })?)
            }
            C::SetTopicPermission { user, vhost, exchange, patterns: [write, read] } => {
                created(self.change_catalog_alone(Some(by), None, |catalog, changes| {
                    let had = catalog.has_topic_permission(&user, &vhost, &exchange);
                    catalog.set_topic_permission(&user, &vhost, &exchange, [&write, &read], changes).map(|()| !had)
                })?)
            }
            C::ClearTopicPermissions { user, vhost, exchange } => {
                done(self.change_catalog_alone(Some(by), None, |catalog, changes| {
                    catalog.clear_topic_permissions(&user, &vhost, exchange.as_ref(), changes);
                    Ok(())
                })?)
            }
            C::SetPolicy { vhost, scope, policy, spec } => {
                created(self.change_policy(by, &vhost, scope, &policy, Some(&spec))?)
            }
            C::ClearPolicy { vhost, scope, policy } => {
                let (_, after) = self.change_policy(by, &vhost, scope, &policy, None)?;
                (Changed::Done, after)
            }
            other => return Err(Refusal::NotImplemented(format!("{other:?}"))),
        })
    }

    /// Adds a vhost, or changes its settings. As in RabbitMQ, who adds it gets all permissions in it. Returns whether it is
    /// new.
    fn put_vhost(
        &self,
        by: &Name,
        vhost: &Name,
        settings: VhostSettings,
        is_traced: Option<bool>,
    ) -> Result<(bool, Position), Refusal> {
        let put = self.change_catalog_alone(Some(by), None, |catalog, changes| {
            let is_new = catalog.vhost_settings(vhost).is_err();
            catalog.put_vhost(vhost, changes);
            if is_new && catalog.user(by).is_some() {
                catalog.set_permission(by, vhost, [".*"; 3], changes)?;
            }
            catalog.set_vhost_settings(vhost, settings, changes).map(|()| is_new)
        })?;
        if let Some(on) = is_traced {
            self.trace(vhost, on);
        }
        Ok(put)
    }

    /// Sets a policy, or clears it. Returns whether it is new.
    fn change_policy(
        &self,
        by: &Name,
        vhost: &Name,
        scope: PolicyScope,
        policy: &Name,
        spec: Option<&PolicySpec>,
    ) -> Result<(bool, Position), Refusal> {
        let (changed, after) = self.change_catalog(Some(by), None, |shard, ports, changes| {
            let had = ports.catalog().policies(vhost).any(|(other, name, _)| (other, name) == (scope, policy));
            let changed = match spec {
                Some(spec) => ports.catalog().set_policy(vhost, scope, policy, spec, changes)?,
                None => ports.catalog().clear_policy(vhost, scope, policy, changes)?,
            };
            let now = ports.now();
            changed.into_iter().for_each(|(queue, settings)| shard.configure(queue, settings, now));
            Ok(!had)
        });
        changed.map(|is_new| (is_new, after))
    }

    /// Deletes a vhost: its queues in portions, then the rest. Its connections are closed.
    fn delete_vhost(&self, by: &Name, vhost: &Name) -> Result<Position, Refusal> {
        self.catalog.read().vhost_settings(vhost)?;
        let why = Refusal::ConnectionForced(format!("vhost '{vhost}' is deleted"));
        self.close_where(&why, |_, identity| identity.is_some_and(|identity| identity.vhost == *vhost));
        let queues = self.catalog.read().queue_ids(&Which::InVhost(vhost.clone()));
        let (last, first) = match queues.len().checked_sub(HELD_QUEUES_MAX) {
            Some(first) => (&queues[first..], &queues[..first]),
            None => (&queues[..], &[][..]),
        };
        if !first.is_empty() {
            self.host.lengthy(&mut || first.chunks(HELD_QUEUES_MAX).for_each(|queues| self.delete_queues(by, queues)));
        }
        self.delete_queues(by, last);
        let (deleted, after) = self.change_catalog(Some(by), None, |shard, ports, changes| {
            // Clients may have declared more.
            for queue in ports.catalog().delete_vhost(vhost, changes)? {
                // Without a condition nothing is refused.
                let _ = shard.delete(queue, DeleteWhen::default(), ports);
            }
            Ok(())
        });
        self.trace(vhost, false);
        deleted.map(|()| after)
    }

    fn delete_queues(&self, by: &Name, queues: &[QueueId]) {
        let (mut deferred, mut catalog) = (Deferred::default(), self.catalog.write());
        self.decide_with(CatalogLock::Write(&mut catalog), &mut deferred, |shard, ports| {
            catalog_change::apply(shard, ports, Some(by), |shard, ports, _| {
                for queue in queues {
                    // Without a condition nothing is refused.
                    let _ = shard.delete(*queue, DeleteWhen::default(), ports);
                    self.failed.remove(*queue);
                }
                ports.forget_gone();
            });
        });
        drop(catalog);
        self.run_deferred(deferred, None);
    }

    /// Tells connections why they must end. Returns whether there are any.
    fn close_where(&self, why: &Refusal, which: impl Fn(&Connection, Option<&ConnectionIdentity>) -> bool) -> bool {
        let connections: Vec<Arc<Connection>> = self.core.lock().connections.iter().flatten().cloned().collect();
        let mut is_found = false;
        for connection in connections.iter().filter(|connection| which(connection, connection.identity.get())) {
            is_found = true;
            connection.mailbox().events.push(Event::Close(why.clone()));
            connection.wake();
        }
        is_found
    }

    /// Where the journal ends now.
    fn flushed_position(&self) -> Position {
        let mut deferred = Deferred::default();
        let position = self.decide(&mut deferred, |_, ports| ports.flushed_position());
        self.run_deferred(deferred, None);
        position
    }
}
