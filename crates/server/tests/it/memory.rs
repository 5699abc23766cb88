//! A client that takes memory is the one that is closed: for half-sent messages, and for output that it does not
//! read.

use std::io;

use ferrymq_amqp091::codec::{
    content::ContentHeader,
    frame::{put_body, put_header},
    methods::{BasicPublish, TxCommit, TxSelect},
};

use crate::{
    client::{Client, method, publish},
    running::{Folder, Running, ferrymq},
};

const CLOSE: (u16, u16) = (10, 50);
const MIB: usize = 1 << 20;

/// A publish that announces twice as many bytes of body as follow, which are `sent`.
fn half_sent(sent: usize) -> Vec<u8> {
    let (exchange, routing_key) = (&b""[..], &b"q"[..]);
    let mut frames = method(1, &BasicPublish { exchange, routing_key, mandatory: false, immediate: false });
    let content = ContentHeader { class: 60, body_bytes: 2 * sent as u64, properties: &[0, 0] };
    put_header(&mut frames, 1, &content);
    put_body(&mut frames, 1, &vec![0; sent], 131_072);
    frames
}

/// The code and the text of the close that arrives.
fn closed(client: &mut Client) -> (u16, String) {
    let close = client.until(CLOSE).unwrap().payload;
    (u16::from_be_bytes([close[4], close[5]]), String::from_utf8_lossy(&close[7..]).into_owned())
}

fn start(data: &Folder, options: &[&str]) -> Running {
    let listen = ["serve", "--listen", "amqp=127.0.0.1:0"];
    Running::start_logged(data, ferrymq().args(listen).args(options))
}

#[test]
fn half_sent_messages_of_one_do_not_hurt_others() {
    let data = Folder::created();
    let server = start(&data, &["--limits-uploads-bytes-max", "32 MiB"]);
    let mut other = Client::connect(server.address("amqp"), 0).unwrap();
    other.declare("q").unwrap();
    let mut holder = Client::connect(server.address("amqp"), 0).unwrap();
    holder.send(&half_sent(30 * MIB)).unwrap();
    other.call(&method(1, &TxSelect), (90, 11)).unwrap();
    // The messages wait for the commit, so that the limit stays exceeded until the connection that holds them is
    // closed.
    other.send(&publish("", "q", &vec![0; MIB]).repeat(6)).unwrap();
    let (code, text) = closed(&mut holder);
    assert!(code == 506 && text.contains("uploads_bytes_max"), "{code} {text}");
    // The other client still works.
    other.call(&method(1, &TxCommit), (90, 21)).unwrap();
    other.declare("another").unwrap();
}

#[test]
fn a_message_that_stays_incomplete_ends_its_connection() {
    let data = Folder::created();
    let server = start(&data, &["--limits-incomplete-ms-max", "200"]);
    let (mut message, mut frame) =
        (Client::connect(server.address("amqp"), 0).unwrap(), Client::connect(server.address("amqp"), 0).unwrap());
    message.send(&half_sent(100)).unwrap();
    frame.send(&half_sent(100)[..5]).unwrap();
    for client in [&mut message, &mut frame] {
        let (code, text) = closed(client);
        assert!(code == 506 && text.contains("incomplete"), "{code} {text}");
    }
}

/// Clients publish to themselves and do not read: each would keep some MiB for as long as it is connected.
#[test]
fn who_does_not_read_pays_when_the_budget_is_used_up() {
    let data = Folder::created();
    let server = start(&data, &["--limits-memory-bytes-max", "32 MiB", "--limits-outbox-bytes-max", "64 MiB"]);
    let mut greedy = Client::connect(server.address("amqp"), 0).unwrap();
    greedy.declare("greedy").unwrap();
    greedy.consume("greedy").unwrap();
    let block = publish("", "greedy", &[0; 1000]).repeat(1000);
    // Until it is closed.
    let ended: io::Result<()> = loop {
        if let Err(error) = greedy.send(&block) {
            break Err(error);
        }
    };
    assert!(ended.is_err());
    let log = server.logged("memory_bytes_max (33554432)");
    assert!(log.contains("outboxes of connections: "), "{log}");
    let mut other = Client::connect(server.address("amqp"), 0).unwrap();
    other.declare("other").unwrap();
}

/// With a channel, a queue and a consumer.
#[test]
fn an_idle_connection_takes_at_most_10_kib() {
    const CONNECTIONS: usize = 400;
    let data = Folder::created();
    let server = start(&data, &[]);
    let connect = |number: usize| {
        let mut client = Client::connect(server.address("amqp"), 0).unwrap();
        let queue = format!("q{number}");
        client.declare(&queue).unwrap();
        client.consume(&queue).unwrap();
        client
    };
    // What all of them share, and what each thread keeps for itself.
    let _first: Vec<Client> = (0..50).map(connect).collect();
    let before = server.anonymous_bytes();
    let _clients: Vec<Client> = (50..50 + CONNECTIONS).map(connect).collect();
    let each = (server.anonymous_bytes() - before) / CONNECTIONS;
    assert!(each <= 10 << 10, "{each} bytes for each connection");
}
