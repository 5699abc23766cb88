//! Conversations of the probe, a protocol for tests that uses every part of the port.

use std::{cell::Cell, collections::BTreeMap, path::Path, rc::Rc, sync::Arc, time::Duration};

use ferrymq_amqp091::{Connection, Greeting, PropertyList};
use ferrymq_conformance::{Arrival, ConnectionId, Script, Target, Whose, play};
use ferrymq_model::{Dialect, Dialects, ServerProperties};
use ferrymq_probe::{HEADER, Lines, Pairs};

use crate::memory::{DEFINITIONS, Memory};

/// A node whose clients speak the probe's protocol, or AMQP 0-9-1 while the flag is set.
fn memory() -> (Memory, Rc<Cell<bool>>) {
    let dialects: [&'static dyn Dialect; 2] = [&PropertyList, &Pairs];
    let speaks_amqp = Rc::new(Cell::new(false));
    let (flag, all) = (speaks_amqp.clone(), Dialects::new(dialects));
    let memory = Memory::new(&dialects, DEFINITIONS, |limits| {
        let greeting = Greeting::new(&ServerProperties::default(), limits.clone()).with_dialects(all.clone());
        let greeting = Arc::new(greeting);
        Box::new(move || {
            if flag.get() {
                Box::new(Connection::new(greeting.clone()))
            } else {
                Box::new(Lines::default().with_dialects(all.clone()))
            }
        })
    });
    (memory, speaks_amqp)
}

/// A client, and what has arrived of its next lines.
struct Client {
    connection: ConnectionId,
    arrived: Vec<u8>,
    is_closed: bool,
}

impl Client {
    fn open(memory: &mut Memory) -> Result<Self, String> {
        let connection = memory.open()?;
        memory.send(connection, HEADER)?;
        Ok(Self { connection, arrived: Vec::new(), is_closed: false })
    }

    /// The next line; `the end` if the server has closed the connection.
    fn line(&mut self, memory: &mut Memory) -> Result<String, String> {
        loop {
            if let Some(end) = self.arrived.iter().position(|octet| *octet == b'\n') {
                let line = self.arrived.drain(..=end).collect::<Vec<u8>>();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.is_closed {
                return Ok("the end".to_owned());
            }
            match memory.receive(self.connection, &mut self.arrived)? {
                Arrival::Bytes => {}
                Arrival::Closed => self.is_closed = true,
                Arrival::Quiet => return Err("nothing comes".to_owned()),
            }
        }
    }
}

/// Plays a conversation:
///
/// ```text
/// A: ping          client A sends a line; the first one opens its connection
/// A> pong          A gets this line next
/// drop A           A's connection is lost
/// advance 1000     time passes, in milliseconds
/// restart          the server stops and starts again
/// ```
fn converse(memory: &mut Memory, text: &str) -> Result<(), String> {
    let mut clients: BTreeMap<&str, Client> = BTreeMap::new();
    for (number, line) in (1..).zip(text.lines()).filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let fail = |why: String| format!("line {number}: {line}: {why}");
        if let Some((name, request)) = line.split_once(": ") {
            if !clients.contains_key(name) {
                clients.insert(name, Client::open(memory).map_err(fail)?);
            }
            memory.send(clients[name].connection, format!("{request}\n").as_bytes()).map_err(fail)?;
        } else if let Some((name, expected)) = line.split_once("> ") {
            let client = clients.get_mut(name).ok_or_else(|| fail("it has said nothing".to_owned()))?;
            let got = client.line(memory).map_err(fail)?;
            if got != expected {
                return Err(fail(format!("got {got}")));
            }
        } else if line == "restart" {
            clients.clear();
            memory.restart();
        } else if let Some(name) = line.strip_prefix("drop ") {
            let client = clients.remove(name).ok_or_else(|| fail("it is not there".to_owned()))?;
            memory.abandon(client.connection);
        } else if let Some(ms) = line.strip_prefix("advance ") {
            memory.advance(Duration::from_millis(ms.parse().map_err(|_| fail("not a time".to_owned()))?));
        } else {
            return Err(fail("it is not understood".to_owned()));
        }
    }
    for (name, mut client) in clients {
        if !client.is_closed && !client.arrived.is_empty() {
            return Err(format!("{name} got more: {}", client.line(memory)?));
        }
    }
    Ok(())
}

#[test]
fn every_conversation() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../probe/conversations");
    let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    let failures: Vec<String> = files
        .iter()
        .filter_map(|file| {
            let failure = converse(&mut memory().0, &std::fs::read_to_string(file).unwrap()).err()?;
            Some(format!("{}: {failure}", file.file_name()?.to_string_lossy()))
        })
        .collect();
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Two protocols read each other's messages, and what the server says of them.
#[test]
fn a_message_is_read_in_another_protocol() {
    let (mut memory, speaks_amqp) = memory();
    let amqp = |memory: &mut Memory, script: &str| {
        speaks_amqp.set(true);
        play(&Script::parse("amqp", script).unwrap(), memory, Whose::Ours).unwrap();
        speaks_amqp.set(false);
    };
    converse(
        &mut memory,
        "A: open 3
A> 3 open
A: queue 3 dead durable
A> 3 queue has 0
A: queue 3 both durable dead:dead
A> 3 queue has 0
",
    )
    .unwrap();
    amqp(
        &mut memory,
        "C: connect
C: basic.publish routing-key=both message-id=\"m1\" headers={color=\"red\"} delivery-mode=2 body=\"from-amqp\"
",
    );
    converse(
        &mut memory,
        "A: open 3
A> 3 open
A: take 3 both t window 1
A> 3 taking t
A> 3 t #1 from-amqp {id=m1,color=red}
A: tell 3 1 reject
A: get 3 dead
A> 3 got #2 from-amqp {id=m1,color=red,died=both:Rejected}
A: put 3 both from-probe with id=p1,reply=back,color=blue
A> 3 t #3 from-probe {id=p1,reply=back,color=blue}
A: tell 3 3 reject
A: tell 3 2 release 0
A: close 3
A> 3 closed
",
    )
    .unwrap();
    amqp(
        &mut memory,
        "C: connect
C: basic.get queue=dead
S: basic.get-ok redelivered=true body=\"from-amqp\"
C: basic.get queue=dead
S: basic.get-ok redelivered=false message-id=\"p1\" reply-to=\"back\" body=\"from-probe\"
",
    );
}
