//! Publishing. A missing permission is reported before any other error. A batch counts deliveries: the shard's lock
//! is released after at most 128 of them, whatever the number of messages. The same test detects a node whose
//! batches count messages, which is the sabotage "batch counts messages".

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use ferrymq_model::{
    Ask, BindCommand, Body, ChannelOptions, Command, Destination, Event, Login, Name, Publish, PublishExtras, Refusal,
    Span, Table, Time,
};

use crate::management::definition_import::{Import, stored_passwords};
use crate::tests::rig::{
    FakeHost, Folder, Gate, Nobody, START, Still, carry_out, declaration, login, open, publish, request,
};

const QUEUES: usize = 300;
const MESSAGES: usize = 100;

/// A host whose clock advances by a tenth of a millisecond for each piece of work.
#[derive(Default)]
struct Counting(AtomicUsize);

impl FakeHost for Counting {
    fn now(&self) -> Time {
        self.0.fetch_add(1, Ordering::Relaxed);
        START
    }

    fn wall(&self) -> Time {
        START
    }

    fn nanoseconds(&self) -> u64 {
        100_000 * self.0.fetch_add(1, Ordering::Relaxed) as u64
    }
}

/// How often the node asks for the time while messages go to many queues.
fn decisions(counts_messages: bool) -> usize {
    let (folder, host) = (Folder::new(), Arc::new(Counting::default()));
    let node = open(&folder, Arc::<Gate>::default(), host.clone());
    node.counts_messages.store(counts_messages, Ordering::Relaxed);
    let mut client = node.connect(Arc::new(Nobody), "test".to_owned(), true).unwrap();
    let mut commands = login();
    for number in 0..QUEUES {
        let queue = Name::from(&*format!("q{number}"));
        commands.push(request(Ask::DeclareQueue(declaration(&queue))));
        commands.push(request(Ask::Bind(BindCommand {
            destination: Destination::Queue(queue),
            exchange: Name::from("amq.fanout"),
            key: Default::default(),
            arguments: Table::default(),
        })));
    }
    carry_out(&mut client, b"", commands);
    let before = host.0.load(Ordering::Relaxed);
    carry_out(&mut client, b"amq.fanout", vec![Command::Publish(to_fanout()); MESSAGES]);
    let decisions = host.0.load(Ordering::Relaxed) - before;
    drop(client);
    node.stop().unwrap();
    decisions
}

/// To the exchange whose name is the input.
fn to_fanout() -> Publish {
    Publish { exchange: Span { start: 0, len: 10 }, ..publish(Body::Span(Span { start: 0, len: 0 })) }
}

#[test]
fn the_lock_is_let_go_after_so_many_deliveries() {
    let decisions = decisions(false);
    assert!(decisions >= QUEUES * MESSAGES / 128, "{decisions}");
}

#[test]
fn a_batch_that_counts_messages_is_noticed() {
    let decisions = decisions(true);
    assert!(decisions < QUEUES * MESSAGES / 128, "{decisions}");
}

/// The error for a user without any permission whose message has somebody else's user-id.
#[test]
fn permission_is_looked_at_before_the_user_id() {
    let folder = Folder::new();
    let node = open(&folder, Arc::<Gate>::default(), Arc::new(Still));
    let definitions = serde_json::json!({
        "users": [{"name": "limited", "password": "limited", "tags": ""}],
        "vhosts": [{"name": "/"}],
        "permissions": [{"user": "limited", "vhost": "/", "configure": "^$", "write": "^$", "read": "^$"}],
    });
    let passwords = stored_passwords(&definitions, |_| None, || [7; 16]);
    let mut catalog = node.catalog.write();
    let mut import = Import::new(&mut catalog, &passwords);
    import.take_in(&definitions);
    drop(catalog);
    let mut client = node.connect(Arc::new(Nobody), "test".to_owned(), true).unwrap();
    let login = Login::Password { user: Name::from("limited"), password: b"limited".to_vec() };
    let open_vhost = request(Ask::OpenVhost { vhost: Name::from("/"), properties_bytes_max: 4_096, client: None });
    carry_out(
        &mut client,
        b"",
        vec![Command::Login(login), open_vhost, request(Ask::OpenChannel(ChannelOptions::default()))],
    );
    let rare = PublishExtras { user: Some(Name::from("somebody")), ..PublishExtras::default() };
    let publish = Publish { rare: Some(Box::new(rare)), ..to_fanout() };
    let mut events = Vec::new();
    client.command(b"amq.fanout", Command::Publish(publish), &mut events);
    client.finish(b"amq.fanout", &mut events);
    let refused = events.iter().any(|event| matches!(event, Event::Refused { refusal: Refusal::AccessRefused(_), .. }));
    assert!(refused, "{events:?}");
    drop(client);
    node.stop().unwrap();
}

/// The routing of the publishes takes long, so most of them wait for later turns.
#[test]
fn what_it_takes_to_route_counts_as_work() {
    const PUBLISHES: usize = 1_000;
    let folder = Folder::new();
    let node = open(&folder, Arc::<Gate>::default(), Arc::<Counting>::default());
    let mut client = node.connect(Arc::new(Nobody), "test".to_owned(), true).unwrap();
    let queue = declaration("q");
    let commands = [login(), vec![request(Ask::DeclareQueue(queue))]].concat();
    carry_out(&mut client, b"", commands);
    let (mut input, mut events) = (b"amq.topic".to_vec(), Vec::new());
    let exchange = Span { start: 0, len: input.len() as u32 };
    let mut publishes = Vec::new();
    for number in 0..PUBLISHES {
        let key = number.to_string();
        let routing_key = Span { start: input.len() as u32, len: key.len() as u32 };
        input.extend_from_slice(key.as_bytes());
        publishes.push(Publish { exchange, routing_key, ..publish(Body::Span(Span { start: 0, len: 0 })) });
    }
    for one in publishes {
        client.command(&input, Command::Publish(one), &mut events);
    }
    client.take_work();
    let mut turns = 1;
    let mut all_are_decided = client.decide_some(&input, &mut events);
    while !all_are_decided {
        client.take_work();
        all_are_decided = client.decide_some(&[], &mut events);
        turns += 1;
    }
    // If only messages count, one turn is enough.
    assert!(turns > 100, "{turns}");
    drop(client);
    node.stop().unwrap();
}
