//! The mechanisms by which clients log in, and a login of several steps.

use ferrymq_amqp091::codec::methods::ConnectionSecureOk;

use crate::{
    client::{Client, method},
    running::{Folder, Running, fails, ferrymq},
};

/// connection.close, secure and tune.
const CLOSE: (u16, u16) = (10, 50);
const SECURE: (u16, u16) = (10, 20);
const TUNE: (u16, u16) = (10, 30);

fn serve(folder: &Folder, mechanisms: &str) -> Running {
    Running::start_with(folder, ferrymq().args(["--listen", "amqp=127.0.0.1:0", "--auth-mechanisms", mechanisms]))
}

/// A client that was asked for its password.
fn asked(server: &Running) -> Client {
    let mut client = Client::begin(server.address("amqp"), "RABBIT-CR-DEMO", b"guest").unwrap();
    let challenge = client.until(SECURE).unwrap();
    assert_eq!(challenge.payload[4..], *b"\0\0\0\x1cPlease tell me your password");
    client
}

fn respond(client: &mut Client, response: &[u8]) {
    client.send(&method(0, &ConnectionSecureOk { response })).unwrap();
}

#[test]
fn a_login_in_two_steps_succeeds_where_it_is_switched_on() {
    let folder = Folder::created();
    let server = serve(&folder, "RABBIT-CR-DEMO");
    let mut client = asked(&server);
    respond(&mut client, b"My password is guest");
    client.until(TUNE).unwrap();
    let mut wrong = asked(&server);
    respond(&mut wrong, b"guest");
    let close = wrong.until(CLOSE).unwrap();
    assert_eq!(close.payload[4..6], 502_u16.to_be_bytes());
}

#[test]
fn mechanisms_that_are_not_switched_on_are_refused() {
    let refused = |server: &Running, mechanism, response| {
        let mut client = Client::begin(server.address("amqp"), mechanism, response).unwrap();
        assert_eq!(client.until(CLOSE).unwrap().payload[4..6], 503_u16.to_be_bytes());
    };
    let folder = Folder::created();
    refused(&Running::start(&folder), "RABBIT-CR-DEMO", b"guest");
    let folder = Folder::created();
    refused(&serve(&folder, "AMQPLAIN,RABBIT-CR-DEMO"), "PLAIN", b"\0guest\0guest");
}

#[test]
fn a_listener_on_which_nobody_could_log_in_is_not_opened() {
    let folder = Folder::created();
    let mut command = ferrymq();
    command.args(["--listen", "amqp=127.0.0.1:0", "--auth-mechanisms", "EXTERNAL"]);
    let (_, why) = fails(command.arg("--data-dir").arg(folder.0.join("data")));
    assert!(why.contains("auth_mechanisms has none for the listener amqp"), "{why}");
}
