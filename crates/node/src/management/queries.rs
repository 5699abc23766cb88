//! What operators ask: see [`Queries`]. Long lists are read in portions, with the locks released in between.

use std::sync::Arc;

use ferrymq_auth::passwords;
use ferrymq_broker::Caller;
use ferrymq_model::{
    Actor, BindingFacts, BindingsOf, ChannelReport, ConnectionId, ConnectionReport, ConsumerReport, Credit, Dialects,
    ExchangeReport, Name, PolicyReport, Queries, QueueReport, UsageReport, UserReport, VhostReport, Which,
};

use crate::{
    connection::{
        mailbox::{Channel, ClientState},
        peer::Connection,
    },
    core::node::Node,
    login::authentication::Principal,
};

/// How many objects are read during one hold of a lock.
const PORTION: usize = 128;

/// What operators may ask of a node and change in it.
#[derive(Debug)]
pub struct NodeManagement(pub(super) Arc<Node>);

impl NodeManagement {
    /// The management of this node.
    #[must_use]
    pub fn new(node: Arc<Node>) -> Self {
        Self(node)
    }
}

impl Queries for NodeManagement {
    fn usage(&self) -> UsageReport {
        // Without storage's memory, whose sum is a walk over all queues.
        let [vhosts, users] = self.0.counters.usage();
        let memory = self.0.ledger.by_owner().collect();
        UsageReport { vhosts, users, memory, process_bytes: self.0.host.memory_bytes() }
    }

    fn dialects(&self) -> Dialects {
        self.0.dialects.clone()
    }

    fn vhosts(&self, name: Option<&str>) -> Vec<VhostReport> {
        let catalog = self.0.catalog.read();
        let asked = catalog.vhosts().filter(|vhost| name.is_none_or(|name| ***vhost == *name));
        let report = |vhost: &Name| {
            let settings = catalog.vhost_settings(vhost).ok()?.clone();
            Some(VhostReport { name: vhost.clone(), settings, is_traced: self.0.firehose.traces(vhost) })
        };
        asked.filter_map(report).collect()
    }

    fn users(&self, name: Option<&str>) -> Vec<UserReport> {
        let mut users = self.0.catalog.read().user_reports(name);
        for user in &mut users {
            (user.hashing_algorithm, user.password_hash) = passwords::exported(&user.password_hash);
        }
        users
    }

    fn may_enter(&self, actor: &Actor, vhost: &str) -> bool {
        let (principal, vhost) = (Principal::from(actor), Name::parse(vhost.as_bytes()));
        let Ok(vhost) = vhost else { return false };
        let rights = principal.rights(|| self.0.wall());
        let caller = Caller { rights, ..Caller::of_user(&vhost, &actor.user, ConnectionId(u64::MAX)) };
        self.0.catalog.read().check_entry(&caller).is_ok()
    }

    fn policies(&self, vhost: Option<&str>) -> Vec<PolicyReport> {
        self.0.catalog.read().policy_reports(vhost)
    }

    fn exchanges(&self, which: &Which, each: &mut dyn FnMut(ExchangeReport)) {
        let names = self.0.catalog.read().exchange_names(which);
        for names in names.chunks(PORTION) {
            let reports: Vec<ExchangeReport> = {
                let catalog = self.0.catalog.read();
                names.iter().filter_map(|(vhost, name)| catalog.exchange_report(vhost, name)).collect()
            };
            reports.into_iter().for_each(&mut *each);
        }
    }

    fn queues(&self, which: &Which, details: bool, each: &mut dyn FnMut(QueueReport)) {
        let ids = self.0.catalog.read().queue_ids(which);
        for ids in ids.chunks(PORTION) {
            let mut reports: Vec<QueueReport> = {
                let catalog = self.0.catalog.read();
                let counts: Vec<_> = {
                    let core = self.0.core.lock();
                    ids.iter().map(|id| core.shard.counts(*id)).collect()
                };
                let pairs = ids.iter().zip(counts);
                pairs.filter_map(|(id, counts)| catalog.queue_report(*id, counts?, details)).collect()
            };
            for report in &mut reports {
                if let Some(details) = &mut report.details {
                    details.failure = self.0.failed.reason(report.id);
                }
            }
            reports.into_iter().for_each(&mut *each);
        }
    }

    fn bindings(&self, of: &BindingsOf, each: &mut dyn FnMut(BindingFacts)) {
        let numbers = self.0.catalog.read().binding_numbers(of);
        for numbers in numbers.chunks(PORTION) {
            let reports: Vec<BindingFacts> = {
                let catalog = self.0.catalog.read();
                numbers.iter().filter_map(|(vhost, number)| catalog.binding_report(vhost, *number)).collect()
            };
            reports.into_iter().for_each(&mut *each);
        }
    }

    fn connections(&self, each: &mut dyn FnMut(ConnectionReport)) {
        let connections: Vec<Arc<Connection>> = self.0.core.lock().connections.iter().flatten().cloned().collect();
        connections.iter().filter_map(|connection| report(connection)).for_each(each);
    }
}

/// A connection that has opened its vhost.
fn report(connection: &Connection) -> Option<ConnectionReport> {
    let identity = connection.identity.get()?;
    let mailbox = connection.mailbox();
    let ClientState { channels, .. } = &mailbox.state;
    let mut channels: Vec<ChannelReport> =
        channels.iter().map(|(number, channel)| channel_report(*number, channel, &mailbox.state)).collect();
    channels.sort_unstable_by_key(|channel| channel.number);
    Some(ConnectionReport {
        id: connection.id(),
        serial: connection.serial,
        name: identity.connection.clone(),
        vhost: identity.vhost.clone(),
        user: identity.user.clone(),
        connected_at: identity.connected_at,
        is_blocked: connection.account.is_blocked(),
        client: identity.client.as_ref().map(|client| client.facts()).unwrap_or_default(),
        channels,
    })
}

fn channel_report(number: u16, channel: &Channel, state: &ClientState) -> ChannelReport {
    let window = |credit| if let Credit::Window(window) = credit { window } else { 0 };
    let consumer = |number: &u32| {
        let subscription = state.subscriptions.get(number)?;
        Some(ConsumerReport {
            tag: subscription.tag.clone(),
            queue: subscription.queue.clone(),
            no_ack: subscription.no_ack,
            window: window(subscription.credit),
            unacked: subscription.unacked,
        })
    };
    ChannelReport {
        number,
        confirms: channel.confirms.is_some(),
        is_transactional: channel.is_transactional,
        window: channel.window,
        later_window: window(channel.credit),
        unacked: channel.unacked.len() as u64,
        consumers: channel.tags.values().filter_map(consumer).collect(),
    }
}
