//! Fairness between connections: how often a client gets its turn while another one sends as fast as it can, on one
//! thread.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use super::{
    client::{Client, publish},
    in_process::InProcess,
};
use crate::process::Process;

/// How much a client sends while the round trips of the other one are counted.
const FLOOD_BYTES: usize = 256 << 20;

/// The minimum of round trips of the other client meanwhile: one for each 16 MiB, which are eight turns or more.
const TRIPS: usize = 16;

#[test]
fn a_neighbour_is_served_beside_a_flood() {
    for body_bytes in [16, 1024, 64 << 10] {
        let trips = trips_beside_a_flood(body_bytes, |_| {});
        assert!(trips >= TRIPS, "{trips} trips beside messages of {body_bytes} bytes");
    }
}

#[test]
fn a_connection_that_does_not_yield_is_noticed() {
    // On a busy machine the sender may have nothing to send for a moment, and the thread is free: but not in all of
    // these rounds.
    let trips = || trips_beside_a_flood(16, |process| process.never_yields.store(true, Ordering::Relaxed));
    assert!((0..8).any(|_| trips() < TRIPS), "a client kept its thread, and its neighbour had its trips");
}

/// How many round trips a client makes while another one sends [`FLOOD_BYTES`] in messages of that length. One
/// thread serves both.
fn trips_beside_a_flood(body_bytes: usize, sabotage: impl FnOnce(&Process)) -> usize {
    let server = InProcess::of_amqp091(sabotage);
    let mut neighbour = Client::connect(&server.address(), 0).unwrap();
    neighbour.declare("neighbour").unwrap();
    neighbour.consume("neighbour").unwrap();
    neighbour.round_trip("neighbour").unwrap();
    let mut flooder = Client::connect(&server.address(), 0).unwrap();
    let block = publish("", "nobody", &vec![0; body_bytes]).repeat((4 << 20) / body_bytes.max(64));
    let (over, trips) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                neighbour.round_trip("neighbour").unwrap();
                trips.fetch_add(1, Ordering::Relaxed);
            }
        });
        let mut sent = 0;
        while sent < FLOOD_BYTES {
            flooder.send(&block).unwrap();
            sent += block.len();
        }
        let made = trips.load(Ordering::Relaxed);
        over.store(true, Ordering::Relaxed);
        made
    })
}
