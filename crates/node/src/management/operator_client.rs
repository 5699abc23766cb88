//! A client of the node itself, for what operators ask of exchanges, queues and messages: the same requests, checks and
//! limits as for the clients of protocols.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Poll, Waker},
};

use ferrymq_model::{
    Actor, Answer, Ask, Body, ChannelOptions, Command, ConfirmMode, Deliveries, Effect, Event, GetCommand, GotMessage,
    MessageRef, Name, OnRefusal, Origin, Outcome, OwnedBody, OwnedMessage, Publish, PublishExtras, Refusal, Reply,
    Request, Settle, Settlement, Span,
};
use parking_lot::Mutex;

use crate::{Client, Effects, Peer, core::node::Node, login::authentication::Principal};

/// How many bytes of bodies are got at once. With more, there are fewer messages than were asked for.
const GOT_BYTES_MAX: usize = 32 << 20;

/// The channel for everything.
const CHANNEL: u16 = 1;

/// The socket of such a client: keeps the messages that it gets.
#[derive(Debug, Default)]
struct OperatorPeer {
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    waker: Option<Waker>,
    got: Vec<GotMessage>,
    /// The length of their bodies.
    got_bytes: usize,
}

impl Peer for OperatorPeer {
    fn send(&self, effects: &Effects) {
        let mut state = self.state.lock();
        effects.for_each(|effect| {
            if let Effect::Got { redelivered, remaining, message, .. } = effect {
                let message = GotMessage { message: message.owned(), redelivered: *redelivered, remaining: *remaining };
                state.got_bytes += message.message.borrowed().body.bytes().len();
                state.got.push(message);
            }
        });
        drop(state);
        self.wake();
    }

    fn waiting(&self) -> usize {
        0
    }

    fn wake(&self) {
        let waker = self.state.lock().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

/// A client that acts for an operator in a vhost. It ends when it is dropped.
#[derive(Debug)]
pub struct OperatorClient {
    client: Client,
    peer: Arc<OperatorPeer>,
    /// The number of the last request.
    token: u32,
    events: Vec<Event>,
}

impl OperatorClient {
    /// Opens the vhost and a channel.
    ///
    /// # Errors
    /// Like those of [`Ask::OpenVhost`] and [`Ask::OpenChannel`].
    pub async fn open(node: Arc<Node>, actor: &Actor, vhost: Name) -> Result<Self, Refusal> {
        let name = format!("{} (management)", actor.address);
        let peer = Arc::new(OperatorPeer { name, state: Mutex::default() });
        let mut client = node.connect(peer.clone(), actor.address.clone(), true)?;
        client.act_for(Principal::from(actor));
        let mut own = Self { client, peer, token: 0, events: Vec::new() };
        own.request(0, Ask::OpenVhost { vhost, properties_bytes_max: usize::MAX, client: None }).await?;
        let options = ChannelOptions { on_refusal: OnRefusal::GoOn, ..ChannelOptions::default() };
        own.request(CHANNEL, Ask::OpenChannel(options)).await?;
        Ok(own)
    }

    /// Asks for something, and waits for the answer.
    pub async fn ask(&mut self, ask: Ask) -> Result<Reply, Refusal> {
        self.request(CHANNEL, ask).await
    }

    async fn request(&mut self, channel: u16, ask: Ask) -> Result<Reply, Refusal> {
        let origin = self.next(channel);
        self.carry_out(Command::Request(Request { origin, ask }), b"");
        self.answer(origin).await
    }

    /// Takes up to `count` messages from the queue, and settles them all. It takes no more after
    /// [`GOT_BYTES_MAX`] bytes.
    pub async fn get(&mut self, queue: Name, count: u32, settlement: Settlement) -> Result<Vec<GotMessage>, Refusal> {
        for number in 0..count {
            let get = Ask::Get(GetCommand { queue: queue.clone(), no_ack: false });
            // A message is no answer: it comes as an effect.
            let origin = self.next(CHANNEL);
            self.carry_out(Command::Request(Request { origin, ask: get }), b"");
            let comes = self.message_comes(origin, number as usize + 1).await?;
            if !comes || self.peer.state.lock().got_bytes >= GOT_BYTES_MAX {
                break;
            }
        }
        let got = std::mem::take(&mut self.peer.state.lock().got);
        if !got.is_empty() {
            let outcome = Outcome::Settled(settlement);
            let origin = self.next(CHANNEL).unanswered(true);
            let settle = Settle { origin, deliveries: Deliveries::All, outcome, transaction: None };
            self.carry_out(Command::Settle(settle), b"");
        }
        Ok(got)
    }

    /// Publishes a message, and waits until it is as safe as its queues promise.
    pub async fn publish(&mut self, node: &Node, message: &OwnedMessage) -> Result<Reply, Refusal> {
        if node.holds_publishers() {
            return Err(Refusal::ResourceLimit(format!("publishers wait: {}", node.stall_reason())));
        }
        self.ask(Ask::SelectConfirms(ConfirmMode::Each)).await?;
        let origin = self.next(CHANNEL);
        let borrowed = message.borrowed();
        if !borrowed.fits() {
            return Err(Refusal::TooLarge("the properties are too long".to_owned()));
        }
        let (publish, input) = published(node, origin, message, &borrowed);
        self.carry_out(Command::Publish(publish), &input);
        self.answer(origin).await
    }

    fn next(&mut self, channel: u16) -> Origin {
        self.token += 1;
        Origin { channel, answer: Answer::Session, token: self.token }
    }

    fn carry_out(&mut self, command: Command, input: &[u8]) {
        self.client.command(input, command, &mut self.events);
        self.client.finish(input, &mut self.events);
    }

    /// The answer to the request.
    async fn answer(&mut self, origin: Origin) -> Result<Reply, Refusal> {
        poll_fn(|context| {
            self.peer.state.lock().waker = Some(context.waker().clone());
            self.go_on();
            self.answered(origin).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// Waits for the answer to a get. Returns whether it is a message, so that there are `count` of them.
    async fn message_comes(&mut self, origin: Origin, count: usize) -> Result<bool, Refusal> {
        poll_fn(|context| {
            self.peer.state.lock().waker = Some(context.waker().clone());
            self.go_on();
            if self.peer.state.lock().got.len() >= count {
                return Poll::Ready(Ok(true));
            }
            self.answered(origin).map_or(Poll::Pending, |answer| Poll::Ready(answer.map(|_| false)))
        })
        .await
    }

    /// Does what the owner of a connection does when it is woken.
    fn go_on(&mut self) {
        self.client.take_events(&mut self.events);
        while self.client.has_collected() || self.client.is_sending() {
            self.client.decide_some(b"", &mut self.events);
            self.client.go_on_sending();
        }
        self.client.send_what_waits();
    }

    fn answered(&mut self, wanted: Origin) -> Option<Result<Reply, Refusal>> {
        let answer = |event: &Event| match event {
            Event::Answered { origin, reply } if origin.token == wanted.token => Some(reply.clone()),
            Event::Refused { refusal, .. } | Event::Close(refusal) => Some(Err(refusal.clone())),
            _ => None,
        };
        let found = self.events.iter().find_map(answer);
        self.events.clear();
        found
    }
}

/// The message as a session publishes it, and its input.
fn published(node: &Node, origin: Origin, message: &OwnedMessage, borrowed: &MessageRef<'_>) -> (Publish, Vec<u8>) {
    let head = node.dialects.head(borrowed);
    let mut input = Vec::new();
    let mut span = |bytes: &[u8]| {
        let start = input.len() as u32;
        input.extend_from_slice(bytes);
        Span { start, len: bytes.len() as u32 }
    };
    let exchange = span(message.exchange.as_bytes());
    let routing_key = span(&message.routing_key);
    let properties = span(&message.properties);
    let body = match &message.body {
        OwnedBody::Inline(bytes) => Body::Span(span(bytes)),
        OwnedBody::Shared(bytes) => Body::Shared(bytes.clone()),
        OwnedBody::Filed(filed) => Body::Filed(filed.clone()),
    };
    let rare = PublishExtras {
        user: head.user.as_deref().and_then(|user| Name::parse(user).ok()),
        more_keys: head.more_keys.iter().map(|key| key.to_vec()).collect(),
        ..PublishExtras::default()
    };
    let publish = Publish {
        origin,
        dialect: message.dialect,
        exchange,
        routing_key,
        properties,
        body,
        mandatory: false,
        persistent: head.persistent,
        priority: head.priority,
        expiration_ms: head.ttl_ms,
        rare: (rare != PublishExtras::default()).then(|| Box::new(rare)),
    };
    (publish, input)
}
