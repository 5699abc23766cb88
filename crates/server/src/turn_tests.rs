//! Fairness between connections: how often a client gets its turn while another one sends as fast as it can, on one
//! thread.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread,
};

use ferrymq_amqp091::PropertyList;
use ferrymq_model::{Dialect, Dialects, Limits, ServerProperties};
use ferrymq_node::{Backend, Node, NodeSettings};
use ferrymq_storage::{Options, RealDisk};
use tokio::runtime::{Builder, Runtime};

use self::client::{Client, publish};
use crate::{
    connection,
    process::Process,
    protocol::{PROTOCOLS, Transport},
};

#[path = "../tests/it/client.rs"]
#[expect(dead_code, reason = "the tests of the binary use other parts of it")]
mod client;

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
    let server = InProcess::start(sabotage);
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

/// A server with one thread in this process.
struct InProcess {
    address: SocketAddr,
    node: Arc<Node>,
    workers: Option<Runtime>,
    folder: std::path::PathBuf,
}

impl InProcess {
    fn start(sabotage: impl FnOnce(&Process)) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("ferrymq-turns-{}-{number}", std::process::id()));
        let workers = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let process = Arc::new(Process::new());
        sabotage(&process);
        let settings = NodeSettings {
            directory: folder.clone(),
            limits: Limits::default(),
            storage: Options { file_bytes: 1 << 20, ..Options::default() },
            fixed: Default::default(),
            dialects: Dialects::new([&PropertyList as &'static dyn Dialect]),
            backends: vec![Backend::Internal],
            events: false,
        };
        let node = Node::open(settings, Arc::new(RealDisk), process.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (served, handle) = (node.clone(), workers.handle().clone());
        // Ends with the process: a client may have connected after the test.
        thread::spawn(move || {
            let Transport::Sessions { open, .. } = PROTOCOLS[0].transport else { unreachable!("AMQP has sessions") };
            let new_session = open(&ServerProperties::default(), served.limits(), false);
            for stream in listener.incoming() {
                let stream: TcpStream = stream.unwrap();
                stream.set_nonblocking(true).unwrap();
                let (session, node, process) = (new_session(), served.clone(), process.clone());
                handle.spawn(async move {
                    let stream = tokio::net::TcpStream::from_std(stream).unwrap();
                    connection::serve(stream, None, session, node, process).await;
                });
            }
        });
        Self { address, node, workers: Some(workers), folder }
    }

    fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        // Connections end before the node.
        drop(self.workers.take());
        self.node.stop().expect("everything can be written");
        // If a folder cannot be removed, the system cleans it up later.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
