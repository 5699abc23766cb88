//! Two protocols on one port.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::Arc,
};

use ferrymq_amqp091::codec::frame::{PROTOCOL_HEADER, PROTOCOL_HEADER_0_9};
use ferrymq_model::Limits;

use ferrymq_probe::{HEADER, LineClient, Lines};

use super::{
    client::Client,
    in_process::{InProcess, amqp091},
};
use crate::{
    choosing::{Choice, sessions_of},
    process::Process,
};

/// A server that speaks AMQP 0-9-1 and lines on one port.
fn both(limits: Limits) -> InProcess {
    InProcess::start(Process::new(), limits, None, |node| {
        let lines = Choice { headers: &[HEADER], new_session: Arc::new(|| Box::new(Lines::default())) };
        let headers: &[&[u8]] = &[&PROTOCOL_HEADER, &PROTOCOL_HEADER_0_9];
        sessions_of(vec![Choice { headers, new_session: amqp091(node.limits()) }, lines])
    })
}

fn connect(server: &InProcess) -> TcpStream {
    let stream = TcpStream::connect(server.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// What the server sends to a client that sends these bytes and then nothing more, until it closes the connection.
fn answer(server: &InProcess, bytes: &[u8]) -> Vec<u8> {
    let (mut stream, mut answer) = (connect(server), Vec::new());
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn each_client_gets_what_it_speaks() {
    let server = both(Limits::default());
    let mut amqp = Client::connect(&server.address(), 0).unwrap();
    let mut lines = LineClient::new(connect(&server));
    amqp.declare("shared").unwrap();
    amqp.consume("shared").unwrap();
    amqp.round_trip("shared").unwrap();
    lines.send("declare shared\nping");
    lines.expect(&["1 queue has 0", "pong"]);
}

#[test]
fn a_header_that_comes_byte_by_byte_is_understood() {
    let server = both(Limits::default());
    for (header, answer) in
        [(HEADER, &b"pong\n"[..]), (&PROTOCOL_HEADER, b"\x01\0\0"), (&PROTOCOL_HEADER_0_9, b"\x01\0\0")]
    {
        let mut stream = connect(&server);
        header.iter().for_each(|byte| stream.write_all(&[*byte]).unwrap());
        if header == HEADER {
            stream.write_all(b"ping\n").unwrap();
        }
        let mut got = vec![0; answer.len()];
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, answer, "{}", header.escape_ascii());
    }
}

#[test]
fn what_follows_the_header_in_the_same_write_is_read_once() {
    let server = both(Limits::default());
    let mut stream = connect(&server);
    stream.write_all(&[HEADER, b"declare q\npublish q once\ndeclare q\nping\n"].concat()).unwrap();
    let mut got = vec![0; b"1 queue has 0\n1 queue has 1\npong\n".len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, b"1 queue has 0\n1 queue has 1\npong\n");
}

/// A client that speaks neither, or stops in the middle of a header, gets the same as where only AMQP 0-9-1 is spoken.
#[test]
fn the_first_protocol_answers_wrong_headers_as_if_it_were_alone() {
    let (alone, both) = (InProcess::of_amqp091(|_| {}), both(Limits::default()));
    let wrong: [&[u8]; 10] = [
        b"",
        b"A",
        b"AMQP\0\0\x09",
        b"AMQP\0\0\x09\x02",
        b"AMQP\0\x01\0\0",
        b"AMQP\x03\x01\0\0",
        b"AMQX",
        b"LINE",
        b"LINES 2\n",
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    ];
    for bytes in wrong {
        let (ours, theirs) = (answer(&both, bytes), answer(&alone, bytes));
        // `L` could be the beginning of the other header, but it is not the beginning of AMQP's.
        let expected = if bytes == b"LINE" { Vec::new() } else { theirs };
        assert_eq!(ours, expected, "{}", bytes.escape_ascii());
    }
    assert_eq!(answer(&both, b"LINES 2\n"), PROTOCOL_HEADER);
}

/// The time for a handshake begins when the connection is accepted, and not with the choice.
#[test]
fn a_client_that_does_not_say_what_it_speaks_is_closed() {
    let server = both(Limits { handshake_ms_max: 50, ..Limits::default() });
    for bytes in [&b""[..], b"A", b"AMQP\0\0\x09"] {
        let (mut stream, mut got) = (connect(&server), Vec::new());
        stream.write_all(bytes).unwrap();
        stream.read_to_end(&mut got).unwrap();
        assert_eq!(got, b"", "{}", bytes.escape_ascii());
    }
}
