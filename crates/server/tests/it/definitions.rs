//! A definitions file, with the real binary: nobody is locked out, and errors are logged.

use ferrymq_conformance::{Tcp, identify};

use crate::running::{Folder, Running, fails, ferrymq};

/// Its user has a permission in a vhost that does not exist.
const ONE_MISTAKE: &str = r#"{"users": [{"name": "app", "password": "x"}],
    "permissions": [{"user": "app", "vhost": "prod", "configure": ".*", "write": ".*", "read": ".*"}]}"#;

/// Starts with definitions.
fn start(data: &Folder, definitions: &[u8], options: &[&str]) -> Running {
    let file = data.0.join("definitions.json");
    std::fs::write(&file, definitions).unwrap();
    let mut command = ferrymq();
    command.args(["--listen", "amqp=127.0.0.1:0"]).args(options).arg("--definitions").arg(&file);
    Running::start_logged(data, &mut command)
}

fn guest_can_log_in(server: &Running) -> bool {
    identify(&mut Tcp::new(server.address("amqp"))).is_ok()
}

#[test]
fn one_mistake_does_not_lock_everybody_out() {
    let data = Folder::created();
    let server = start(&data, ONE_MISTAKE.as_bytes(), &[]);
    assert!(guest_can_log_in(&server));
    let log = server.terminate_logged();
    let expected = "left out: permissions[0] ('app' in vhost 'prod'): vhost 'prod' is not there; add it to vhosts";
    assert!(log.contains(expected), "{log}");
    assert!(log.contains("user 'guest' keeps its default password, because nobody else could log in"), "{log}");
    assert!(log.contains("imported: 1 user; 1 left out"), "{log}");
}

#[test]
fn where_somebody_else_can_log_in_guest_goes() {
    let data = Folder::created();
    let whole = ONE_MISTAKE.replace("\"prod\"", "\"/\"");
    // With a byte order mark, as some editors write it.
    let server = start(&data, &[b"\xef\xbb\xbf", whole.as_bytes()].concat(), &["--definitions-strict"]);
    assert!(!guest_can_log_in(&server));
    let log = server.terminate_logged();
    assert!(log.contains("user 'guest' had its default password and was deleted"), "{log}");
}

#[test]
fn strictly_taken_a_mistake_stops_the_start_and_nothing_is_taken_in() {
    let data = Folder::created();
    let file = data.0.join("definitions.json");
    let vhost =
        r#"{"vhosts": [{"name": "v"}], "queues": [{"name": "q", "vhost": "v", "durable": true, "argument": {}}]}"#;
    std::fs::write(&file, vhost).unwrap();
    let mut command = ferrymq();
    command.args(["--listen", "amqp=127.0.0.1:0", "--definitions-strict", "yes", "--definitions"]).arg(&file);
    let (code, log) = fails(command.arg("--data-dir").arg(data.0.join("data")));
    assert_eq!(code, Some(1));
    let expected = "queues[0] ('q' in vhost 'v'): key 'argument' is not known; did you mean 'arguments'?";
    assert!(log.contains(expected), "{log}");
    assert!(log.contains("nothing was imported"), "{log}");
    // The same without the typing error: everything in it is new.
    let server = start(&data, vhost.replace("argument", "arguments").as_bytes(), &["--definitions-strict"]);
    assert!(guest_can_log_in(&server));
    assert!(server.terminate_logged().contains("imported: 1 vhost, 1 queue"));
}

#[test]
fn definitions_are_taken_in_again_on_request() {
    let data = Folder::created();
    let server = start(&data, b"{}", &["--definitions-reload", "yes"]);
    std::fs::write(data.0.join("definitions.json"), br#"{"vhosts": [{"name": "later"}]}"#).unwrap();
    server.signal("HUP");
    server.logged("imported: 1 vhost");
    std::fs::write(data.0.join("definitions.json"), "{").unwrap();
    server.signal("HUP");
    server.logged("line 1, column 1: this is not JSON");
    assert!(guest_can_log_in(&server), "the server goes on");
}
