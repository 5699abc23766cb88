//! A conversation of one session with a node.

use std::sync::Arc;

use ferrymq_model::{
    Answer, Arguments, Ask, Body, ChannelOptions, Command, Credit, CreditOf, DeclareQueue, Deliveries, Effect, Event,
    Name, OnRefusal, Origin, Outcome, Publish, Refusal, Reply, Request, SetCredit, Settle, Settlement, Span, Subscribe,
};
use parking_lot::{Condvar, Mutex};

use crate::tests::rig::{Folder, Gate, Still, carry_out, declaration, login, open, origin, publish, request};
use crate::{Client, Effects, Host, Node, Peer};

/// A peer that notes what it gets, and how often it got something or was woken.
#[derive(Default)]
pub struct Notes {
    seen: Mutex<Vec<String>>,
    turns: Mutex<u64>,
    changed: Condvar,
}

impl Notes {
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.seen.lock())
    }

    /// Whether the peer has got something that begins so.
    pub fn sees(&self, begin: &str) -> bool {
        self.seen.lock().iter().any(|one| one.starts_with(begin))
    }

    pub fn turns(&self) -> u64 {
        *self.turns.lock()
    }

    /// Waits until there are more turns than this.
    pub fn wait_after(&self, turns: u64) {
        self.changed.wait_while(&mut self.turns.lock(), |now| *now == turns);
    }
}

impl Peer for Notes {
    fn send(&self, effects: &Effects) {
        let mut seen = self.seen.lock();
        effects.for_each(|effect| match effect {
            Effect::Deliver { delivery_tag, message, .. } => {
                seen.push(format!("{delivery_tag}: {}", message.body.bytes().escape_ascii()));
            }
            Effect::Got { message, .. } => seen.push(format!("got {}", first_word(message.body.bytes()))),
            Effect::Reply { origin, reply } => seen.push(format!("{} {reply:?}", origin.token)),
            Effect::CreditLapsed { left, .. } => seen.push(format!("lapsed {left}")),
            Effect::Refused { origin, .. } => seen.push(format!("{} refused", origin.token)),
            _ => {}
        });
        drop(seen);
        self.wake();
    }

    fn waiting(&self) -> usize {
        0
    }

    fn wake(&self) {
        *self.turns.lock() += 1;
        self.changed.notify_all();
    }
}

/// What tells messages of several bytes apart.
fn first_word(body: &[u8]) -> String {
    body.split(|byte| *byte == b' ').next().unwrap_or_default().escape_ascii().to_string()
}

/// A node with one client, whose channel 2 goes on after a refusal.
pub struct Talk {
    pub client: Client,
    pub notes: Arc<Notes>,
    pub gate: Arc<Gate>,
    pub node: Arc<Node>,
    _folder: Folder,
}

impl Talk {
    pub fn new() -> Self {
        Self::on(Arc::new(Still))
    }

    /// On a host with a clock of its own.
    pub fn on(host: Arc<dyn Host>) -> Self {
        let (folder, gate, notes) = (Folder::new(), Arc::new(Gate::default()), Arc::new(Notes::default()));
        let node = open(&folder, gate.clone(), host);
        let mut client = node.connect(notes.clone(), "test".to_owned(), true).unwrap();
        carry_out(&mut client, b"", login());
        let mut talk = Self { client, notes, gate, node, _folder: folder };
        let open = Origin { channel: 2, ..origin() };
        assert_eq!(
            talk.ask(
                open,
                Ask::OpenChannel(ChannelOptions { on_refusal: OnRefusal::GoOn, ..ChannelOptions::default() })
            ),
            []
        );
        talk.notes.take();
        talk
    }

    pub fn ask(&mut self, origin: Origin, ask: Ask) -> Vec<Event> {
        let mut events = Vec::new();
        self.client.command(b"", Command::Request(Request { origin, ask }), &mut events);
        self.client.finish(b"", &mut events);
        events
    }

    /// Adds to these events until there are so many, and until the peer has got so much.
    pub fn wait_for(&mut self, events: &mut Vec<Event>, count: usize, seen: usize) {
        loop {
            let turns = self.notes.turns();
            // A turn begins.
            self.client.take_work();
            self.client.take_events(events);
            if events.len() >= count && self.notes.seen.lock().len() >= seen {
                return;
            }
            self.notes.wait_after(turns);
        }
    }

    pub fn publish(&mut self, bodies: &[u8]) {
        let queue = Span { start: 0, len: 1 };
        for body in bodies {
            let input = [b'q', *body];
            let body = Body::Span(Span { start: 1, len: 1 });
            carry_out(
                &mut self.client,
                &input,
                vec![Command::Publish(Publish { routing_key: queue, ..publish(body) })],
            );
        }
    }

    /// Publishes a message whose properties are longer than the client takes.
    pub fn publish_long(&mut self) {
        let input = [b'q'; 5_000];
        let properties = Span { start: 0, len: 5_000 };
        let routing_key = Span { start: 0, len: 1 };
        let publish = Publish { routing_key, properties, ..publish(Body::Span(routing_key)) };
        carry_out(&mut self.client, &input, vec![Command::Publish(publish)]);
    }

    /// Closes channel 1 as a session does after a refusal, and opens it again. Returns what the refusal was.
    pub fn reopen(&mut self, events: &[Event]) -> String {
        let [Event::Refused { refusal: Refusal::TooLarge(text), .. }] = events else { panic!("{events:?}") };
        self.ask(origin().unanswered(true), Ask::CloseChannel);
        self.ask(origin(), Ask::OpenChannel(ChannelOptions::default()));
        self.notes.take();
        text.clone()
    }

    /// How many messages are ready in queue `q`.
    pub fn ready(&mut self) -> u64 {
        let passive = Ask::DeclareQueue(DeclareQueue { passive: true, ..declaration("q") });
        match &self.ask(of_session(2, 0), passive)[..] {
            [Event::Answered { reply: Ok(Reply::QueueDeclared { messages, .. }), .. }] => *messages,
            other => panic!("{other:?}"),
        }
    }

    pub fn settle(&mut self, deliveries: Deliveries) {
        self.tell(deliveries, Outcome::Settled(Settlement::RELEASE));
    }

    /// Says what becomes of deliveries of channel 1.
    pub fn tell(&mut self, deliveries: Deliveries, outcome: Outcome) {
        let settle = Settle { origin: origin(), deliveries, outcome, transaction: None };
        carry_out(&mut self.client, b"", vec![Command::Settle(settle)]);
    }

    /// Declares queue `q` on channel 1.
    pub fn with_queue(mut self) -> Self {
        carry_out(&mut self.client, b"", vec![request(Ask::DeclareQueue(declaration("q")))]);
        self.notes.take();
        self
    }

    /// Subscribes to queue `q` on channel 1.
    pub fn subscribe(&mut self, no_ack: bool, credit: Option<Credit>) {
        self.subscribe_and_see(no_ack, credit);
        self.notes.take();
    }

    /// Ends that subscription.
    pub fn unsubscribe(&mut self) {
        carry_out(&mut self.client, b"", vec![request(Ask::Unsubscribe(Name::from("tag")))]);
    }

    /// Like [`Talk::subscribe`], and leaves what the peer gets.
    pub fn subscribe_and_see(&mut self, no_ack: bool, credit: Option<Credit>) {
        let (queue, tag, arguments) = (Name::from("q"), Name::from("tag"), Arguments::default());
        let subscribe = Subscribe { queue, tag, no_ack, exclusive: false, credit, arguments };
        carry_out(&mut self.client, b"", vec![request(Ask::Subscribe(subscribe))]);
    }

    pub fn set_credit(&mut self, credit: Credit) {
        let of = CreditOf::Subscription(Name::from("tag"));
        carry_out(&mut self.client, b"", vec![request(Ask::SetCredit(SetCredit { of, credit }))]);
    }

    pub fn end(self) {
        drop(self.client);
        self.node.stop().unwrap();
    }
}

pub fn of_session(channel: u16, token: u32) -> Origin {
    Origin { channel, answer: Answer::Session, token }
}
