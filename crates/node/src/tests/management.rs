//! What operators ask and change: see `ferrymq_model::Management`.

use std::{
    future::Future,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
};

use ferrymq_model::{
    Actor, ApplyTo, Ask, BindCommand, BindingsOf, Change, Changed, Destination, Event, Name, NewPassword, Operations,
    OwnedBody, OwnedMessage, PolicyScope, PolicySpec, PublishOutcome, Queries, QueueReport, Refusal, Reply, Settlement,
    Table, UserLimits, Value, VhostSettings, Which,
};

use crate::{
    Client, Node, NodeManagement,
    tests::rig::{Folder, Gate, Nobody, Still, carry_out, declaration, login, open},
};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
fn wait<T>(future: impl Future<Output = T>) -> T {
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let (mut future, mut context) = (pin!(future), Context::from_waker(&waker));
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

struct Rig {
    management: NodeManagement,
    node: Arc<Node>,
    folder: Folder,
}

impl Rig {
    fn new() -> Self {
        Self::open(Folder::new())
    }

    fn open(folder: Folder) -> Self {
        let node = open(&folder, Arc::<Gate>::default(), Arc::new(Still));
        Self { management: NodeManagement::new(node.clone()), node, folder }
    }

    fn restarted(self) -> Self {
        self.node.stop().unwrap();
        Self::open(self.folder)
    }

    fn try_as(&self, user: &str, change: Change) -> Result<Changed, Refusal> {
        let (user, address) = (Name::from(user), "127.0.0.1".to_owned());
        wait(self.management.change(&Actor { user, tags: Vec::new(), address, token: None }, change))
    }

    fn change(&self, change: Change) -> Changed {
        self.try_as("guest", change).unwrap()
    }

    fn ask(&self, vhost: &str, ask: Ask) -> Result<Changed, Refusal> {
        self.try_as("guest", Change::Request { vhost: Name::from(vhost), ask })
    }

    fn queues(&self, which: &Which) -> Vec<QueueReport> {
        let mut queues = Vec::new();
        self.management.queues(which, true, &mut |queue| queues.push(queue));
        queues
    }

    fn queue(&self, name: &str) -> QueueReport {
        self.queues(&Which::Named(Name::from("/"), Name::from(name))).remove(0)
    }

    fn publish(&self, key: &str, body: &[u8]) -> Result<Changed, Refusal> {
        let message = OwnedMessage {
            dialect: ferrymq_model::DialectId(1),
            exchange: Name::default(),
            routing_key: key.as_bytes().into(),
            properties: Vec::new(),
            annotations: Box::default(),
            body: OwnedBody::Inline(body.into()),
        };
        self.try_as("guest", Change::Publish { vhost: Name::from("/"), message: Box::new(message) })
    }

    fn get(&self, settlement: Settlement) -> Vec<Vec<u8>> {
        let change = Change::Get { vhost: Name::from("/"), queue: Name::from("q"), messages: 5, settlement };
        let Changed::Got(got) = self.change(change) else { panic!("messages are the answer") };
        got.iter().map(|got| got.message.borrowed().body.bytes().to_vec()).collect()
    }

    fn connect(&self, vhost: &str) -> Client {
        let mut client = self.node.connect(Arc::new(Nobody), "test".to_owned(), true).unwrap();
        let mut commands = login();
        if let ferrymq_model::Command::Request(request) = &mut commands[1] {
            request.ask = Ask::OpenVhost { vhost: Name::from(vhost), properties_bytes_max: 4_096, client: None };
        }
        carry_out(&mut client, b"", commands);
        client
    }
}

fn declare(name: &str) -> Ask {
    Ask::DeclareQueue(ferrymq_model::DeclareQueue { durable: true, ..declaration(name) })
}

fn add_vhost(name: &str) -> Change {
    Change::PutVhost { vhost: Name::from(name), settings: VhostSettings::default(), is_traced: None }
}

#[test]
fn what_operators_declare_is_there_after_a_restart() {
    let rig = Rig::new();
    rig.ask("/", declare("q")).unwrap();
    let bind = BindCommand {
        destination: Destination::Queue(Name::from("q")),
        exchange: Name::from("amq.topic"),
        key: b"a.*".to_vec(),
        arguments: Table::default(),
    };
    assert!(matches!(rig.ask("/", Ask::Bind(bind)), Ok(Changed::Answered(Reply::Bound))));
    let rig = rig.restarted();
    let queue = rig.queue("q");
    assert!(queue.details.unwrap().spec.durable);
    let mut bindings = Vec::new();
    rig.management.bindings(&BindingsOf::Source(Name::from("/"), Name::from("amq.topic")), &mut |binding| {
        bindings.push((binding.target.to_string(), binding.key.to_vec()));
    });
    assert_eq!(bindings, [("q".to_owned(), b"a.*".to_vec())]);
}

/// The same permissions as for clients of protocols.
#[test]
fn permissions_apply_to_operators() {
    let rig = Rig::new();
    let (user, vhost) = (Name::from("anna"), Name::from("/"));
    let password = NewPassword::Password(b"secret".to_vec());
    rig.change(Change::PutUser { user: user.clone(), password, tags: vec!["management".to_owned()] });
    let as_anna = |ask| rig.try_as("anna", Change::Request { vhost: vhost.clone(), ask });
    assert!(matches!(as_anna(declare("a1")), Err(Refusal::NotAllowed(_))), "she may not enter the vhost");
    let patterns = ["^a", "", "^a"].map(str::to_owned);
    let set = Change::SetPermission { user: user.clone(), vhost: vhost.clone(), patterns };
    assert!(matches!(rig.change(set.clone()), Changed::Created));
    assert!(matches!(rig.change(set), Changed::Done));
    as_anna(declare("a1")).unwrap();
    assert!(matches!(as_anna(declare("b1")), Err(Refusal::AccessRefused(_))));
    let log_in = |password: &str| {
        let password = password.as_bytes().to_vec();
        wait(rig.management.log_in(user.clone(), password, "127.0.0.1".to_owned(), true))
    };
    assert_eq!(log_in("secret").unwrap().tags, ["management"]);
    assert!(matches!(log_in("wrong"), Err(Refusal::LoginFailed(_))));
    let limits = UserLimits { connections_max: Some(0), channels_max: None };
    rig.change(Change::SetUserLimits(user.clone(), limits));
    assert!(matches!(as_anna(declare("a2")), Err(Refusal::NotAllowed(_))), "a limit applies, too");
    let report = rig.management.users(Some("anna")).remove(0);
    assert_eq!((report.limits, report.permissions.len()), (limits, 1));
    rig.change(Change::DeleteUser(user));
    assert!(rig.management.users(Some("anna")).is_empty());
}

#[test]
fn messages_are_published_and_got() {
    let rig = Rig::new();
    rig.ask("/", declare("q")).unwrap();
    let published = |key: &str, body: &[u8]| match rig.publish(key, body).unwrap() {
        Changed::Answered(Reply::Published(outcome)) => outcome,
        other => panic!("{other:?}"),
    };
    assert_eq!(published("q", b"one"), PublishOutcome::Accepted);
    assert_eq!(published("q", b"two"), PublishOutcome::Accepted);
    assert_eq!(published("nowhere", b"x"), PublishOutcome::Unroutable);
    let both = [b"one".to_vec(), b"two".to_vec()];
    assert_eq!(rig.get(Settlement::RELEASE), both);
    assert_eq!(rig.get(Settlement::Accept), both);
    assert!(rig.get(Settlement::Accept).is_empty());
    let counts = rig.queue("q").counts;
    assert_eq!((counts.ready, counts.unacked, counts.counters.accepted), (0, 0, 2));
    let missing =
        Change::Get { vhost: Name::from("/"), queue: Name::from("none"), messages: 1, settlement: Settlement::Accept };
    assert!(matches!(rig.try_as("guest", missing), Err(Refusal::NotFound { .. })));
}

/// More queues than are deleted during one hold of the locks.
#[test]
fn a_vhost_goes_with_its_queues_and_connections() {
    let rig = Rig::new();
    assert!(matches!(rig.change(add_vhost("v")), Changed::Created));
    assert!(matches!(rig.change(add_vhost("v")), Changed::Done));
    for number in 0..300 {
        rig.ask("v", declare(&format!("q{number}"))).unwrap();
    }
    rig.ask("/", declare("other")).unwrap();
    let mut client = rig.connect("v");
    rig.change(Change::DeleteVhost(Name::from("v")));
    assert_eq!(rig.queues(&Which::All).len(), 1);
    let mut events = Vec::new();
    client.take_events(&mut events);
    assert!(matches!(&events[..], [Event::Close(Refusal::ConnectionForced(_))]), "{events:?}");
    drop(client);
    assert!(matches!(rig.ask("v", declare("q")), Err(Refusal::VhostNotFound(_) | Refusal::NotAllowed(_))));
    rig.change(add_vhost("v"));
    rig.ask("v", declare("q0")).unwrap();
    let rig = rig.restarted();
    assert_eq!(rig.queues(&Which::InVhost(Name::from("v"))).len(), 1, "the others have not come back");
}

#[test]
fn a_policy_applies_to_the_queues_that_are_there() {
    let rig = Rig::new();
    rig.ask("/", declare("q")).unwrap();
    let definition = Table(vec![("max-length".to_owned(), Value::Int(1))]);
    let spec = PolicySpec { pattern: "^q".to_owned(), apply_to: ApplyTo::All, priority: 0, definition };
    let (vhost, policy) = (Name::from("/"), Name::from("short"));
    let set = Change::SetPolicy { vhost: vhost.clone(), scope: PolicyScope::User, policy: policy.clone(), spec };
    assert!(matches!(rig.change(set.clone()), Changed::Created));
    assert!(matches!(rig.change(set), Changed::Done));
    for body in [b"one", b"two"] {
        rig.publish("q", body).unwrap();
    }
    let queue = rig.queue("q");
    assert_eq!((queue.counts.ready, queue.details.unwrap().policies.user), (1, Some(policy.clone())));
    rig.change(Change::ClearPolicy { vhost, scope: PolicyScope::User, policy });
    rig.publish("q", b"three").unwrap();
    assert_eq!(rig.queue("q").counts.ready, 2);
}

#[test]
fn connections_are_listed_and_closed() {
    let rig = Rig::new();
    let mut client = rig.connect("/");
    let mut found = Vec::new();
    rig.management.connections(&mut |connection| found.push(connection));
    assert_eq!((found.len(), &*found[0].user, found[0].channels.len()), (1, "guest", 1));
    let close = |serial| Change::CloseConnection { serial, reason: "enough".to_owned() };
    rig.change(close(found[0].serial));
    let mut events = Vec::new();
    client.take_events(&mut events);
    assert_eq!(events, [Event::Close(Refusal::ConnectionForced("enough".to_owned()))]);
    drop(client);
    assert!(rig.try_as("guest", close(found[0].serial)).is_err());
}

/// Lists are read in portions.
#[test]
fn long_lists_are_whole() {
    let rig = Rig::new();
    let names: Vec<String> = (0..500).map(|number| format!("q{number}")).collect();
    names.iter().for_each(|name| _ = rig.ask("/", declare(name)).unwrap());
    let listed: Vec<String> = rig.queues(&Which::All).iter().map(|queue| queue.name.to_string()).collect();
    assert_eq!(listed, names, "in the order of their declarations");
    let ids: Vec<_> = rig.queues(&Which::All).iter().rev().map(|queue| queue.id).collect();
    let reversed: Vec<_> = rig.queues(&Which::Queues(ids.clone())).iter().map(|queue| queue.id).collect();
    assert_eq!(reversed, ids, "in the order that was asked for");
}

/// More entries than are imported during one hold of the locks.
#[test]
fn an_import_goes_on_in_portions() {
    let rig = Rig::new();
    let queues: Vec<String> =
        (0..300).map(|number| format!(r#"{{"name": "q{number}", "durable": true, "arguments": {{}}}}"#)).collect();
    let bindings: Vec<String> = (0..300)
        .map(|number| {
            format!(r#"{{"source": "amq.direct", "destination": "q{number}", "destination_type": "queue", "routing_key": "k"}}"#)
        })
        .collect();
    let json = format!(
        r#"{{"original_vhost_name": "v", "vhosts": [{{"name": "v"}}], "users": [{{"name": "anna", "password": "secret"}}],
            "queues": [{}, {{"name": 5}}], "bindings": [{}], "nonsense": []}}"#,
        queues.join(","),
        bindings.join(",")
    );
    let Changed::Imported { left_out, .. } = rig.change(Change::ImportDefinitions(json.clone().into_bytes())) else {
        panic!("it is an import");
    };
    assert_eq!(left_out.len(), 2, "{left_out:?}");
    assert!(left_out[0].contains("nonsense") && left_out[1].starts_with("queues[300]"), "{left_out:?}");
    let vhost = Name::from("v");
    assert_eq!(rig.queues(&Which::InVhost(vhost.clone())).len(), 300);
    let mut bound = 0;
    rig.management.bindings(&BindingsOf::Source(vhost, Name::from("amq.direct")), &mut |_| bound += 1);
    assert_eq!(bound, 300);
    assert_eq!(rig.management.users(None).len(), 2, "the default user stays");
    // Again, and after a restart: nothing more.
    rig.change(Change::ImportDefinitions(json.into_bytes()));
    assert_eq!(rig.restarted().queues(&Which::All).len(), 300);
}
