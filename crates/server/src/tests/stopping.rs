//! An encoder that stops in the middle of a message, and goes on when the client opens its window.

use std::{net::TcpStream, sync::Arc};

use ferrymq_model::Limits;

use ferrymq_probe::{LineClient, Lines};

use super::in_process::InProcess;
use crate::process::Process;

fn server(limits: Limits) -> InProcess {
    InProcess::start(Process::new(), limits, None, |_| Arc::new(|| Box::new(Lines::default())))
}

fn client(server: &InProcess) -> LineClient<TcpStream> {
    LineClient::new(TcpStream::connect(server.address()).unwrap())
}

#[test]
fn a_message_goes_on_where_it_stopped_and_others_follow_it() {
    let server = server(Limits::default());
    let mut client = client(&server);
    client.send("declare q\nsubscribe 1 q\nwindow 1 2\npublish q abcdefghijkl\npublish q 1234\nping");
    client.expect(&["1 queue has 0", "1 subscribed", "1 abcd", "1 efgh", "pong"]);
    client.send("window 1 1\nping");
    client.expect(&["1 ijkl.", "pong"]);
    client.send("window 1 1\nping");
    client.expect(&["1 1234.", "pong"]);
}

#[test]
fn frames_of_the_session_and_what_needs_no_window_pass_and_answers_wait() {
    let server = server(Limits::default());
    let mut client = client(&server);
    client.send("declare q\nsubscribe 1 q\npublish q abcdefgh\ndeclare later\nreturn nobody\nping");
    client.expect(&["1 queue has 0", "1 subscribed", "1 returned", "pong"]);
    client.send("window 1 1\nping");
    client.expect(&["1 abcd", "pong"]);
    client.send("window 1 1\nping");
    client.expect(&["1 efgh.", "1 queue has 0", "pong"]);
}

#[test]
fn other_channels_and_other_connections_go_on() {
    let server = server(Limits::default());
    let mut stopped = client(&server);
    stopped.send("declare one\nsubscribe 1 one\ndeclare two\nsubscribe 2 two\nwindow 2 9");
    stopped.expect(&["1 queue has 0", "1 subscribed", "1 queue has 0", "2 subscribed"]);
    let mut publisher = client(&server);
    publisher.send("publish one lost\npublish two abcdef\npublish one more\nping");
    publisher.expect(&["pong"]);
    stopped.expect(&["2 abcd", "2 ef."]);
    stopped.send("window 1 2");
    stopped.expect(&["1 lost.", "1 more."]);
}

/// What waits for a window counts as backlog: the queue keeps the rest, and gives it when the window opens.
#[test]
fn a_shut_window_stops_deliveries_and_the_client_is_still_read() {
    const MESSAGES: usize = 2_000;
    let server = server(Limits { outbox_bytes_max: 4_096, ..Limits::default() });
    let mut stopped = client(&server);
    stopped.send("declare q\nsubscribe 1 q");
    stopped.expect(&["1 queue has 0", "1 subscribed"]);
    let mut publisher = client(&server);
    for number in 0..MESSAGES {
        publisher.send(&format!("publish q {number:04}"));
    }
    publisher.send("ping");
    publisher.expect(&["pong"]);
    publisher.send("declare q");
    let answer = publisher.line();
    let ready: usize = answer.strip_prefix("1 queue has ").unwrap().parse().unwrap();
    assert!(ready > MESSAGES * 9 / 10, "{ready} messages are ready");
    for number in 0..MESSAGES {
        stopped.send("window 1 1");
        stopped.expect(&[&format!("1 {number:04}.")]);
    }
}
