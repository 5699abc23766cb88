//! A confirm waits for the sync that covers it: the test uses a disk whose syncs can be blocked. The same test
//! detects a node that does not wait, which is the sabotage "confirm before sync". Another test counts what such a
//! client does.

use std::sync::Arc;

use ferrymq_model::{
    Ask, Body, Command, ConfirmMode, DeclareQueue, Deliveries, Effect, GetCommand, Name, Outcome, Position, Publish,
    Reply, Settle, Settlement, Span, Usage,
};
use parking_lot::{Condvar, Mutex};

use crate::tests::rig::{Folder, Gate, Still, carry_out, declaration, login, open, origin, publish, request};
use crate::{Client, Effects, Node, Peer};

#[test]
fn no_confirm_before_its_sync() {
    assert!(!confirmed_before_sync(|_| {}));
}

#[test]
fn a_sabotaged_node_that_confirms_before_the_sync_is_noticed() {
    // Nothing has been synced, and the node believes that everything has been.
    assert!(confirmed_before_sync(|node| node.durable.set(Position(u64::MAX))));
}

#[test]
fn what_a_client_does_is_counted_for_its_vhost_and_its_user() {
    let folder = Folder::new();
    let seen = Arc::new(Seen::default());
    let node = open(&folder, Arc::default(), Arc::new(Still));
    let mut client = node.connect(seen.clone(), "test".to_owned(), true).unwrap();
    declare(&mut client);
    publish_one(&mut client);
    seen.wait(|what| what.confirmed);
    let get = GetCommand { queue: Name::from("q"), no_ack: false };
    carry_out(&mut client, b"", vec![request(Ask::Get(get))]);
    seen.wait(|what| what.got);
    let settlement = Settlement::Accept;
    let settle = Settle {
        origin: origin(),
        deliveries: Deliveries::One(1),
        outcome: Outcome::Settled(settlement),
        transaction: None,
    };
    carry_out(&mut client, b"", vec![Command::Settle(settle)]);

    let done =
        Usage { published: 1, published_bytes: 1, delivered: 1, delivered_bytes: 1, acked: 1, ..Usage::default() };
    let open = Usage { connections: 1, channels: 1, ..done };
    let report = node.usage();
    assert_eq!(report.vhosts, [(Name::from("/"), open)]);
    assert_eq!(report.users, [(Name::from("guest"), open)]);
    assert!(report.memory.iter().any(|(owner, bytes)| *owner == "journal" && *bytes > 0), "{:?}", report.memory);
    drop(client);
    assert_eq!(node.usage().users, [(Name::from("guest"), done)]);
    node.stop().unwrap();
}

/// Publishes a persistent message and checks, while its sync is blocked, whether it is confirmed already.
fn confirmed_before_sync(sabotage: impl FnOnce(&Node)) -> bool {
    let folder = Folder::new();
    let (gate, seen) = (Arc::new(Gate::default()), Arc::new(Seen::default()));
    let node = open(&folder, gate.clone(), Arc::new(Still));
    let mut client = node.connect(seen.clone(), "test".to_owned(), true).unwrap();
    declare(&mut client);
    seen.wait(|what| what.declared);

    sabotage(&node);
    gate.hold();
    publish_one(&mut client);
    gate.wait_for_a_sync();
    let too_early = seen.what.lock().confirmed;
    gate.release();
    seen.wait(|what| what.confirmed);
    drop(client);
    node.stop().unwrap();
    too_early
}

fn declare(client: &mut Client) {
    let queue = DeclareQueue { durable: true, ..declaration("q") };
    let confirm = request(Ask::SelectConfirms(ConfirmMode::Counted));
    carry_out(client, b"", [login(), vec![confirm, request(Ask::DeclareQueue(queue))]].concat());
}

fn publish_one(client: &mut Client) {
    let input = b"q";
    let key = Span { start: 0, len: 1 };
    let publish = Publish { routing_key: key, persistent: true, ..publish(Body::Span(key)) };
    carry_out(client, input, vec![Command::Publish(publish)]);
}

/// What has arrived at the connection.
#[derive(Default)]
struct Seen {
    what: Mutex<What>,
    changed: Condvar,
}

#[derive(Default)]
struct What {
    declared: bool,
    confirmed: bool,
    got: bool,
}

impl Seen {
    fn wait(&self, until: impl Fn(&What) -> bool) {
        self.changed.wait_while(&mut self.what.lock(), |what| !until(what));
    }
}

impl Peer for Seen {
    fn send(&self, effects: &Effects) {
        let mut what = self.what.lock();
        effects.for_each(|effect| match effect {
            Effect::Reply { reply: Reply::QueueDeclared { .. }, .. } => what.declared = true,
            Effect::Confirm { .. } => what.confirmed = true,
            Effect::Got { .. } => what.got = true,
            _ => {}
        });
        self.changed.notify_all();
    }

    fn waiting(&self) -> usize {
        0
    }

    fn wake(&self) {}
}
