//! Publishing: a batch is routed, decided under one hold of the shard's lock, then returned or confirmed.

use std::cell::Cell;

use ferrymq_model::{
    Body, BodyRef, Event, Facts, MessageRef, Position, Publish, QueueId, Refusal, ReturnReason, Span, Time,
};

use super::Client;
use crate::transition::Aftermath;

/// Where one publish goes.
enum Route {
    /// To these of the batch's targets.
    Queues(std::ops::Range<usize>),
    /// Nowhere.
    None,
    /// It was refused, or its channel was refused before it.
    Ignored,
}

/// The last routes that were asked for, which most publishers ask for again and again. Holds as long as the vhost's
/// epoch stands still.
#[derive(Debug, Default)]
pub(super) struct RouteCache {
    epoch: u64,
    entries: Vec<CachedRoute>,
    /// Which entry goes for the next new one.
    next: usize,
}

#[derive(Debug)]
struct CachedRoute {
    exchange: Box<str>,
    key: Box<[u8]>,
    queues: Vec<QueueId>,
}

impl RouteCache {
    const ENTRIES_MAX: usize = 8;

    fn find(&mut self, epoch: u64, exchange: &str, key: &[u8]) -> Option<&[QueueId]> {
        if self.epoch != epoch {
            self.entries.clear();
            self.epoch = epoch;
        }
        let found = self.entries.iter().find(|entry| *entry.key == *key && *entry.exchange == *exchange);
        found.map(|entry| entry.queues.as_slice())
    }

    fn keep(&mut self, exchange: &str, key: &[u8], queues: Vec<QueueId>) {
        let entry = CachedRoute { exchange: exchange.into(), key: key.into(), queues };
        if self.entries.len() < Self::ENTRIES_MAX {
            self.entries.push(entry);
        } else {
            self.entries[self.next] = entry;
            self.next = (self.next + 1) % Self::ENTRIES_MAX;
        }
    }
}

impl Client {
    /// Decides the publishes collected so far. Spans point into `input`.
    pub(super) fn publish_collected(&mut self, input: &[u8], events: &mut Vec<Event>) {
        self.has_published = true;
        let publishes = std::mem::take(&mut self.publishes);
        let (mut targets, mut routes) = (Vec::new(), Vec::with_capacity(publishes.len()));
        let wants_confirm = self.route_all(input, &publishes, &mut targets, &mut routes, events);
        let now = self.node.now();
        let mut aftermath = Aftermath::default();
        let stored = self.node.decide(&mut aftermath, |shard, ports| {
            let mut durable = false;
            for (publish, route) in publishes.iter().zip(&mut routes) {
                let Route::Queues(range) = route else { continue };
                let message = message_of(publish, input);
                let facts = facts_of(publish, &message, now);
                let targets = &targets[range.clone()];
                let published = shard.publish(&message, &facts, publish.persistent, targets, ports);
                durable |= published.durable;
                if published.queues == 0 {
                    // All its queues have been deleted since it was routed.
                    *route = Route::None;
                }
            }
            (durable && wants_confirm).then(|| ports.flushed_position())
        });
        self.answer(input, &publishes, &routes, stored);
        aftermath.touch(&self.connection);
        self.node.settle_down(aftermath, Some(&self.connection));
        self.publishes = publishes;
        self.publishes.clear();
    }

    /// Routes each publish, and refuses what may not be published. Says whether anybody wants confirms.
    fn route_all(
        &mut self,
        input: &[u8],
        publishes: &[Publish],
        targets: &mut Vec<QueueId>,
        routes: &mut Vec<Route>,
        events: &mut Vec<Event>,
    ) -> bool {
        let (mut open, mut wants_confirm) = (None, false);
        for publish in publishes {
            let channel = publish.origin.channel;
            let is_open = match open {
                Some((last, is_open)) if last == channel => is_open,
                _ => {
                    let mailbox = self.connection.mailbox();
                    wants_confirm |= mailbox.confirms(channel);
                    mailbox.channels.get(&channel).is_some_and(|channel| !channel.refused)
                }
            };
            open = Some((channel, is_open));
            if !is_open {
                routes.push(Route::Ignored);
                continue;
            }
            match self.route(publish, input, targets) {
                Ok(range) if range.is_empty() => routes.push(Route::None),
                Ok(range) => routes.push(Route::Queues(range)),
                Err(refusal) => {
                    self.connection.mailbox().refuse(publish.origin, &refusal, events);
                    open = Some((channel, false));
                    routes.push(Route::Ignored);
                }
            }
        }
        wants_confirm
    }

    fn route(
        &mut self,
        publish: &Publish,
        input: &[u8],
        targets: &mut Vec<QueueId>,
    ) -> Result<std::ops::Range<usize>, Refusal> {
        let message = message_of(publish, input);
        if let Some(claimed) = &publish.user
            && claimed != self.user()
        {
            return Err(Refusal::PreconditionFailed(format!(
                "user_id property set to '{claimed}' but authenticated user was '{}'",
                self.user()
            )));
        }
        let start = targets.len();
        let epoch = self.epoch.as_ref().map_or(0, ferrymq_broker::Epoch::now);
        if publish.more_keys.is_none()
            && let Some(queues) = self.routes.find(epoch, message.exchange, message.routing_key)
        {
            targets.extend_from_slice(queues);
            return Ok(start..targets.len());
        }
        let catalog = self.node.catalog.read();
        let caller = self.caller();
        catalog.may_publish(&caller, message.exchange)?;
        let by_headers = Cell::new(false);
        let headers = || {
            by_headers.set(true);
            self.node.headers(message.dialect, message.properties)
        };
        let more_keys = publish.more_keys.as_deref().unwrap_or_default();
        let mut queues = Vec::new();
        catalog.route(caller.vhost, message.exchange, message.routing_key, more_keys, &headers, &mut queues)?;
        drop(catalog);
        targets.extend_from_slice(&queues);
        if !by_headers.get() && more_keys.is_empty() {
            self.routes.keep(message.exchange, message.routing_key, queues);
        }
        Ok(start..targets.len())
    }

    /// Returns what could not be routed and had to be, then confirms: in this order, for each message.
    fn answer(&self, input: &[u8], publishes: &[Publish], routes: &[Route], stored: Option<Position>) {
        let mut mailbox = self.connection.mailbox();
        for (publish, route) in publishes.iter().zip(routes) {
            if publish.mandatory && matches!(route, Route::None) {
                let message = message_of(publish, input);
                mailbox.effects.returned(publish.origin.channel, ReturnReason::Unroutable, &message);
            }
        }
        let mut from = 0;
        while from < publishes.len() {
            let channel = publishes[from].origin.channel;
            let count = publishes[from..].iter().take_while(|publish| publish.origin.channel == channel).count();
            let decided = routes[from..from + count].iter().filter(|route| !matches!(route, Route::Ignored)).count();
            mailbox.published(channel, decided as u64, stored);
            from += count;
        }
        let durable = self.node.durable_position();
        mailbox.confirm(durable);
        let waits = mailbox.awaits_journal(durable) && !std::mem::replace(&mut mailbox.awaiting, true);
        drop(mailbox);
        if waits {
            self.node.await_journal(&self.connection);
        }
    }
}

fn message_of<'a>(publish: &'a Publish, input: &'a [u8]) -> MessageRef<'a> {
    let source = publish.head.as_deref().unwrap_or(input);
    let part = |span: Span| span.of(source);
    MessageRef {
        dialect: publish.dialect,
        exchange: std::str::from_utf8(part(publish.exchange)).expect("the session checks that names are text"),
        routing_key: part(publish.routing_key),
        properties: part(publish.properties),
        body: match &publish.body {
            Body::Span(span) => BodyRef::Inline(part(*span)),
            Body::Shared(bytes) => BodyRef::Shared(bytes),
        },
    }
}

fn facts_of(publish: &Publish, message: &MessageRef<'_>, now: Time) -> Facts {
    Facts {
        body_bytes: u32::try_from(message.body.bytes().len()).expect("message_bytes_max is far below 4 GiB"),
        priority: publish.priority.unwrap_or(0),
        expires: publish.expiration_ms.map(|ms| now.after_ms(ms)),
        arrived: now,
    }
}
