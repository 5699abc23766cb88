//! An exchange is declared again while its bindings are removed in portions. The rest is removed in portions, too.

use std::sync::{
    Arc, OnceLock, Weak,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use ferrymq_model::{Ask, BindCommand, Command, DeclareExchange, DeleteExchange, Destination, Name, Table, Time};

use crate::Node;
use crate::tests::rig::{FakeHost, Folder, Gate, Nobody, START, carry_out, declaration, login, open, request};

const BINDINGS: usize = 1_000;

/// A host: another client declares the exchange as soon as some work takes long. Each decision asks for the time.
#[derive(Default)]
struct Other {
    node: OnceLock<Weak<Node>>,
    decisions: AtomicUsize,
    /// Whether the other client has declared it.
    came: AtomicBool,
}

impl FakeHost for Other {
    fn now(&self) -> Time {
        self.decisions.fetch_add(1, Ordering::Relaxed);
        START
    }

    fn wall(&self) -> Time {
        START
    }

    fn lengthy(&self, work: &mut dyn FnMut()) {
        if let Some(node) = self.node.get().and_then(Weak::upgrade)
            && !self.came.swap(true, Ordering::Relaxed)
        {
            let mut other = node.connect(Arc::new(Nobody), "other".to_owned(), true).unwrap();
            carry_out(&mut other, b"", login());
            let before = self.decisions.load(Ordering::Relaxed);
            carry_out(&mut other, b"", vec![declare()]);
            let decisions = self.decisions.load(Ordering::Relaxed) - before;
            assert!(decisions > BINDINGS / 128, "{decisions} decisions for {BINDINGS} bindings");
        }
        work();
    }
}

fn declare() -> Command {
    request(Ask::DeclareExchange(DeclareExchange {
        exchange: Name::from("x"),
        kind: Name::from("direct"),
        passive: false,
        durable: false,
        auto_delete: false,
        internal: false,
        arguments: Table::default(),
    }))
}

#[test]
fn an_exchange_that_is_declared_again_takes_its_bindings_away_in_portions() {
    let (folder, host) = (Folder::new(), Arc::new(Other::default()));
    let node = open(&folder, Arc::<Gate>::default(), host.clone());
    let mut client = node.connect(Arc::new(Nobody), "test".to_owned(), true).unwrap();
    let queue = request(Ask::DeclareQueue(declaration("q")));
    let mut commands = [login(), vec![queue, declare()]].concat();
    commands.extend((0..BINDINGS).map(|number| {
        request(Ask::Bind(BindCommand {
            destination: Destination::Queue(Name::from("q")),
            exchange: Name::from("x"),
            key: number.to_string().into_bytes(),
            arguments: Table::default(),
        }))
    }));
    carry_out(&mut client, b"", commands);
    host.node.set(Arc::downgrade(&node)).unwrap();
    let delete = DeleteExchange { exchange: Name::from("x"), if_unused: false };
    carry_out(&mut client, b"", vec![request(Ask::DeleteExchange(delete))]);
    assert!(host.came.load(Ordering::Relaxed), "the other one came in between");
    assert!(node.catalog.read().exchange("/", "x").is_ok());
    drop(client);
    node.stop().unwrap();
}
