//! Events about a connection's actions, for those who subscribe to events.

use ferrymq_model::{Arguments, Credit, Name, Refusal};

use super::Client;
use crate::{
    connection::{mailbox::Subscription, peer::Connection},
    core::node::Node,
    management::{events::EventHeaders, trace::NODE},
};

impl Client {
    pub(super) fn publish_authentication(&self, event: &'static str, user: &Name, refusal: Option<&Refusal>) {
        self.node.publish_event(event, || {
            let headers = EventHeaders::default().text("name", user).text("connection_name", &self.connection.name());
            let headers = headers.text("connection_type", "network");
            match refusal {
                Some(refusal) => headers.text("error", &refusal.to_string()),
                None => headers,
            }
        });
    }

    pub(super) fn publish_connection_created(&self) {
        let Some(identity) = self.connection.identity.get() else { return };
        self.node.publish_event("connection.created", || {
            let headers = EventHeaders::default().text("type", "network").text("pid", &self.connection.pid(0));
            let headers = headers.text("name", &identity.connection).text("node", NODE);
            headers.count("connected_at", self.node.wall().0).identity(identity)
        });
    }

    pub(super) fn publish_connection_closed(&self) {
        let Some(identity) = self.connection.identity.get() else { return };
        self.node.publish_event("connection.closed", || {
            EventHeaders::default()
                .text("name", &identity.connection)
                .text("pid", &self.connection.pid(0))
                .text("node", NODE)
        });
    }

    pub(super) fn publish_channel_created(&self, channel: u16) {
        let Some(identity) = self.connection.identity.get() else { return };
        self.node.publish_event("channel.created", || {
            let headers = EventHeaders::default().text("pid", &self.connection.pid(channel));
            let headers = headers.text("name", &format!("{} ({channel})", identity.connection));
            headers.text("connection", &self.connection.pid(0)).count("number", channel.into()).identity(identity)
        });
    }

    /// With the subscriptions that ended with it.
    pub(super) fn publish_channel_closed(&self, channel: u16, over: &[Subscription]) {
        let Some(identity) = self.connection.identity.get() else { return };
        over.iter().for_each(|subscription| self.connection.publish_consumer_deleted(&self.node, subscription));
        self.node.publish_event("channel.closed", || {
            EventHeaders::default().text("pid", &self.connection.pid(channel)).by(Some(&identity.user))
        });
    }

    pub(super) fn publish_consumer_created(
        &self,
        (channel, tag, queue, no_ack, exclusive): (u16, Name, Name, bool, bool),
        arguments: &Arguments,
    ) {
        let Some(identity) = self.connection.identity.get() else { return };
        let mailbox = self.connection.mailbox();
        let number = mailbox.subscription(channel, &tag);
        let prefetch =
            match number.and_then(|number| mailbox.state.subscriptions.get(&number)).map(|found| found.credit) {
                Some(Credit::Window(window)) => window,
                Some(Credit::Grant(_) | Credit::Pull { .. }) | None => 0,
            };
        drop(mailbox);
        self.node.publish_event("consumer.created", || {
            let headers = EventHeaders::default().text("consumer_tag", &tag).flag("exclusive", exclusive);
            let headers = headers.flag("ack_required", !no_ack).text("channel", &self.connection.pid(channel));
            let headers = headers.text("queue", &queue).text("vhost", &identity.vhost);
            headers.count("prefetch_count", prefetch.into()).arguments(arguments).by(Some(&identity.user))
        });
    }
}

impl Connection {
    /// A subscription has ended, for any reason.
    pub fn publish_consumer_deleted(&self, node: &Node, subscription: &Subscription) {
        let Some(identity) = self.identity.get() else { return };
        node.publish_event("consumer.deleted", || {
            let headers = EventHeaders::default().text("consumer_tag", &subscription.tag);
            let headers = headers.text("channel", &self.pid(subscription.channel)).text("queue", &subscription.queue);
            headers.text("vhost", &identity.vhost).by(Some(&identity.user))
        });
    }
}
