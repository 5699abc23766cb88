//! A catalog and a caller, for short tests.

use ferrymq_broker::{Caller, Catalog, HashKey};
use ferrymq_model::{
    BindCommand, CatalogEntry, ConnectionId, DeclareExchange, DeclareQueue, Destination, Name, QueueId, Refusal, Table,
    Value,
};

pub struct Desk {
    pub catalog: Catalog,
    pub changes: Vec<CatalogEntry>,
    pub user: Name,
    pub vhost: Name,
    pub connection: u64,
}

impl Desk {
    pub fn new() -> Self {
        let mut changes = Vec::new();
        let catalog = Catalog::fresh("hash", HashKey::known(), &mut changes);
        Self { catalog, changes, user: Name::from("guest"), vhost: Name::from("/"), connection: 1 }
    }

    /// Declares a queue: its name, then flags and arguments.
    pub fn queue(&mut self, words: &str) -> Result<QueueId, Refusal> {
        let mut request = DeclareQueue {
            queue: Name::from(""),
            passive: false,
            durable: false,
            exclusive: false,
            auto_delete: false,
            arguments: Table::default(),
        };
        for (at, word) in words.split(' ').enumerate() {
            match word {
                name if at == 0 => request.queue = Name::from(name),
                "durable" => request.durable = true,
                "exclusive" => request.exclusive = true,
                "auto-delete" => request.auto_delete = true,
                "passive" => request.passive = true,
                argument => request.arguments.0.push(parse(argument)),
            }
        }
        let caller = Caller::of_user(&self.vhost, &self.user, ConnectionId(self.connection));
        self.catalog.declare_queue(&caller, &request, 0, &mut self.changes).map(|declared| declared.queue)
    }

    pub fn exchange(&mut self, words: &str) -> Result<(), Refusal> {
        let mut request = DeclareExchange {
            exchange: Name::from(""),
            kind: Name::from(""),
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            arguments: Table::default(),
        };
        for (at, word) in words.split(' ').enumerate() {
            match word {
                name if at == 0 => request.exchange = Name::from(name),
                kind if at == 1 => request.kind = Name::from(kind),
                "durable" => request.durable = true,
                "auto-delete" => request.auto_delete = true,
                "internal" => request.internal = true,
                "passive" => request.passive = true,
                argument => request.arguments.0.push(parse(argument)),
            }
        }
        let caller = Caller::of_user(&self.vhost, &self.user, ConnectionId(self.connection));
        self.catalog.declare_exchange(&caller, &request, &mut self.changes)
    }

    pub fn bind(&mut self, exchange: &str, queue: &str, arguments: Table) -> Result<(), Refusal> {
        self.bind_to(Destination::Queue(Name::from(queue)), exchange, arguments)
    }

    pub fn bind_exchange(&mut self, source: &str, destination: &str) -> Result<(), Refusal> {
        self.bind_to(Destination::Exchange(Name::from(destination)), source, Table::default())
    }

    pub fn bind_to(&mut self, destination: Destination, exchange: &str, arguments: Table) -> Result<(), Refusal> {
        self.bind_key(destination, exchange, "k", arguments)
    }

    pub fn bind_key(
        &mut self,
        destination: Destination,
        exchange: &str,
        key: &str,
        arguments: Table,
    ) -> Result<(), Refusal> {
        let request =
            BindCommand { destination, exchange: Name::from(exchange), key: key.as_bytes().to_vec(), arguments };
        let caller = Caller::of_user(&self.vhost, &self.user, ConnectionId(self.connection));
        self.catalog.bind(&caller, &request, &mut self.changes).map(drop)
    }

    pub fn caller(&self) -> Caller<'_> {
        Caller::of_user(&self.vhost, &self.user, ConnectionId(self.connection))
    }

    /// Continues as a new user with these permissions (configure, write, read).
    pub fn become_user(&mut self, name: &str, patterns: [&str; 3]) {
        let user = Name::from(name);
        self.catalog.put_user(&user, "", &[], &mut self.changes);
        self.catalog.set_permission(&user, &self.vhost, patterns, &mut self.changes).unwrap();
        self.user = user;
    }

    pub fn restarted(self) -> Self {
        let mut newest = std::collections::BTreeMap::new();
        for entry in self.changes {
            newest.insert((entry.kind, entry.key.clone()), entry);
        }
        let entries: Vec<_> = newest.into_values().collect();
        let mut changes = Vec::new();
        let catalog = Catalog::load(&entries, HashKey::known(), &mut changes).unwrap().catalog;
        Self { catalog, changes: [entries, changes].concat(), ..Self::new() }
    }
}

fn parse(argument: &str) -> (String, Value) {
    let (key, value) = argument.split_once('=').unwrap();
    let value = match value {
        "true" => Value::Bool(true),
        text => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Int),
    };
    (key.to_owned(), value)
}

pub fn check<T: std::fmt::Debug>(answer: Result<T, Refusal>, expected: &str) {
    assert_eq!(answer.unwrap_err().to_string(), expected);
}
