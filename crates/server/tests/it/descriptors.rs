//! Descriptors that clients may not use: while as many clients are connected as allowed, health is answered and
//! messages are stored.

use std::{io::Read as _, net::TcpStream, process::Command};

use crate::{
    client::Client,
    running::{Folder, Running, ferrymq},
};

#[test]
fn clients_leave_descriptors_for_health_and_storage() {
    let data = Folder::created();
    let binary = ferrymq().get_program().to_owned();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 200; exec \"$0\" \"$@\""]).arg(binary);
    command.args(["serve", "--listen", "amqp=127.0.0.1:0", "--listen", "http=127.0.0.1:0"]);
    let server = Running::start_logged(&data, &mut command);
    let mut client = Client::connect(server.address("amqp"), 0).unwrap();
    let peers: Vec<TcpStream> = (0..300).map(|_| TcpStream::connect(server.address("amqp")).unwrap()).collect();
    let log = server.logged("a connection is refused: the limit of open files allows no more");
    assert!(!log.contains("cannot accept a connection"), "{log}");
    assert!(log.contains("allows 125 connections"), "{log}");
    assert_eq!(server.get("/health/live").0, "HTTP/1.1 200 OK");
    client.declare("q").unwrap();
    // A client above the limit is told so at once.
    assert_eq!(peers.last().unwrap().read(&mut [0]).unwrap_or(0), 0);
    drop(peers);
    // There are places again after their sockets are closed.
    while Client::connect(server.address("amqp"), 0).is_err() {}
}
