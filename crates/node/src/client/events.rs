//! Events about a connection's actions, for those who subscribe to events.

use ferrymq_model::{Arguments, Credit, Name, Refusal};

use super::Client;
use crate::{
    connection::{mailbox::Subscription, peer::Connection},
    core::node::Node,
    management::{events::Told, trace::NODE},
};

impl Client {
    pub(super) fn tell_authentication(&self, event: &'static str, user: &Name, refusal: Option<&Refusal>) {
        self.node.tell(event, || {
            let told = Told::default().text("name", user).text("connection_name", &self.connection.name());
            let told = told.text("connection_type", "network");
            match refusal {
                Some(refusal) => told.text("error", &refusal.to_string()),
                None => told,
            }
        });
    }

    pub(super) fn tell_connected(&self) {
        let Some(who) = self.connection.who.get() else { return };
        self.node.tell("connection.created", || {
            let told = Told::default().text("type", "network").text("pid", &self.connection.pid(0));
            let told = told.text("name", &who.connection).text("node", NODE);
            told.count("connected_at", self.node.wall().0).who(who)
        });
    }

    pub(super) fn tell_disconnected(&self) {
        let Some(who) = self.connection.who.get() else { return };
        self.node.tell("connection.closed", || {
            Told::default().text("name", &who.connection).text("pid", &self.connection.pid(0)).text("node", NODE)
        });
    }

    pub(super) fn tell_channel_opened(&self, channel: u16) {
        let Some(who) = self.connection.who.get() else { return };
        self.node.tell("channel.created", || {
            let told = Told::default().text("pid", &self.connection.pid(channel));
            let told = told.text("name", &format!("{} ({channel})", who.connection));
            told.text("connection", &self.connection.pid(0)).count("number", channel.into()).who(who)
        });
    }

    /// With the subscriptions that ended with it.
    pub(super) fn tell_channel_closed(&self, channel: u16, over: &[Subscription]) {
        let Some(who) = self.connection.who.get() else { return };
        over.iter().for_each(|subscription| self.connection.tell_unsubscribed(&self.node, subscription));
        self.node
            .tell("channel.closed", || Told::default().text("pid", &self.connection.pid(channel)).by(Some(&who.user)));
    }

    pub(super) fn tell_subscribed(
        &self,
        (channel, tag, queue, no_ack, exclusive): (u16, Name, Name, bool, bool),
        arguments: &Arguments,
    ) {
        let Some(who) = self.connection.who.get() else { return };
        let mailbox = self.connection.mailbox();
        let number = mailbox.subscription(channel, &tag);
        let prefetch = match number.and_then(|number| mailbox.subscriptions.get(&number)).map(|found| found.credit) {
            Some(Credit::Window(window)) => window,
            Some(Credit::Grant(_)) | None => 0,
        };
        drop(mailbox);
        self.node.tell("consumer.created", || {
            let told = Told::default().text("consumer_tag", &tag).flag("exclusive", exclusive);
            let told = told.flag("ack_required", !no_ack).text("channel", &self.connection.pid(channel));
            let told = told.text("queue", &queue).text("vhost", &who.vhost);
            told.count("prefetch_count", prefetch.into()).arguments(arguments).by(Some(&who.user))
        });
    }
}

impl Connection {
    /// A subscription has ended, for any reason.
    pub fn tell_unsubscribed(&self, node: &Node, subscription: &Subscription) {
        let Some(who) = self.who.get() else { return };
        node.tell("consumer.deleted", || {
            let told = Told::default().text("consumer_tag", &subscription.tag);
            let told = told.text("channel", &self.pid(subscription.channel)).text("queue", &subscription.queue);
            told.text("vhost", &who.vhost).by(Some(&who.user))
        });
    }
}
