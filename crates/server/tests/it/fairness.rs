//! While a client sends as fast as it can, the server still handles heartbeats, health checks and signals.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use ferrymq_amqp091::codec::frame::HEARTBEAT;

use crate::{
    client::{Client, publish},
    running::{Folder, Running, ferrymq},
};

#[test]
fn heartbeats_health_and_signals_do_not_wait_for_a_flood() {
    let data = Folder::created();
    let listen = ["serve", "--listen", "amqp=127.0.0.1:0", "--listen", "http=127.0.0.1:0", "--threads", "1"];
    let server = Running::start_with(&data, ferrymq().args(listen));
    let mut quiet = Client::connect(server.address("amqp"), 2).unwrap();
    let mut flooder = Client::connect(server.address("amqp"), 0).unwrap();
    let block = publish("", "nobody", &[0; 16]).repeat(40_000);
    let begun = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            // Until the server has ended.
            while flooder.send(&block).is_ok() {
                begun.store(true, Ordering::Relaxed);
            }
        });
        while !begun.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        // Each of these waits for its answer; no answer arrives if only the fast client is served.
        for _ in 0..2 {
            assert!(quiet.receive().unwrap().is_heartbeat());
            assert_eq!(server.get("/health/live").0, "HTTP/1.1 200 OK");
            assert_eq!(server.get("/health/ready").0, "HTTP/1.1 200 OK");
        }
        assert!(server.terminate().success());
    });
}

/// A machine that was suspended, or a process that was stopped: the heartbeats of all living clients wait in the
/// sockets.
#[test]
fn a_pause_of_the_server_ends_no_connection_whose_heartbeats_wait() {
    let data = Folder::created();
    let server =
        Running::start_with(&data, ferrymq().args(["serve", "--listen", "amqp=127.0.0.1:0", "--threads", "1"]));
    let mut clients: Vec<Client> = (0..50).map(|_| Client::connect(server.address("amqp"), 1).unwrap()).collect();
    let heartbeats = |clients: &mut [Client], count: usize| {
        for _ in 0..count {
            clients.iter_mut().for_each(|client| client.send(&HEARTBEAT).unwrap());
            thread::sleep(Duration::from_millis(200));
        }
    };
    heartbeats(&mut clients, 3);
    server.signal("STOP");
    // Longer than the two intervals after which a silent client is disconnected.
    heartbeats(&mut clients, 15);
    server.signal("CONT");
    for (number, client) in clients.iter_mut().enumerate() {
        client.declare(&format!("q{number}")).unwrap();
    }
}
