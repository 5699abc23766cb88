//! Proves that a long queue costs no memory: many messages are published, wait and are drained, while this program
//! measures the server's anonymous memory.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use crate::client::{Arrival, Client};
use crate::failure::{Failure, Outcome};
use crate::server::{Launch, Server};

const UNCONFIRMED_MAX: u64 = 2_000;
/// How many messages are sent at once. If they are long, they are fewer.
const BATCH: u64 = 200;
const BATCH_BYTES: u64 = 1 << 20;
/// The number of queues from which one connection consumes at the same time.
const CONSUMERS_AT_ONCE: u64 = 100;
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long the messages wait before they are drained. In this time the server moves messages to disk, and that may
/// take memory, too.
const REST: Duration = Duration::from_secs(2);

/// The messages, and the memory that they may cost.
#[derive(Debug, Clone, Copy)]
pub struct Backlog {
    pub messages: u64,
    pub queues: u64,
    pub persistent: bool,
    /// The length of each body, at least eight bytes.
    pub body_bytes: usize,
    pub bytes_max: u64,
}

/// The peaks of anonymous memory in the parts of the run.
#[derive(Debug, Default)]
struct Peaks {
    part: AtomicU64,
    bytes: [AtomicU64; PARTS.len()],
}

const PARTS: [&str; 4] = ["started", "published", "waited", "drained"];

/// Starts a server and runs one backlog through it. Fails if this costs more memory than it may.
pub fn run(binary: &Path, backlog: Backlog) -> Result<(), String> {
    let launch = Launch::new(binary, &[])?;
    let server = launch.start()?;
    let (peaks, done) = (Peaks::default(), AtomicBool::new(false));
    let begun = Instant::now();
    let played = thread::scope(|scope| {
        let watching = scope.spawn(|| watch(server.pid(), &peaks, &done));
        let played = play(&server, backlog, &peaks);
        done.store(true, Relaxed);
        let watched = watching.join().expect("the watcher does not panic");
        played.map_err(|why| why.to_string()).and(watched)
    });
    played.map_err(|why| format!("{why}\n--- the server's log\n{}---", launch.log()))?;
    drop(server);
    launch.clean();
    let mebibytes = |bytes: &AtomicU64| bytes.load(Relaxed) as f64 / f64::from(1 << 20);
    let figures: Vec<String> =
        PARTS.iter().zip(&peaks.bytes).map(|(part, bytes)| format!("{part} {:.1}", mebibytes(bytes))).collect();
    let kind = if backlog.persistent { "persistent" } else { "transient" };
    let line = format!(
        "memory: {} {kind} messages of {} B in {} queues, {:.0} s; peak RssAnon in MiB: {}",
        backlog.messages,
        backlog.body_bytes,
        backlog.queues,
        begun.elapsed().as_secs_f64(),
        figures.join(", ")
    );
    println!("{line}");
    let peak = peaks.bytes.iter().map(|bytes| bytes.load(Relaxed)).max().unwrap_or(0);
    if peak > backlog.bytes_max {
        Err(format!("more than {} MB: {line}", backlog.bytes_max / 1_000_000))
    } else {
        Ok(())
    }
}

fn watch(pid: u32, peaks: &Peaks, done: &AtomicBool) -> Result<(), String> {
    while !done.load(Relaxed) {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).map_err(|why| format!("memory: {why}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).ok_or("no RssAnon")?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().map_err(|why| format!("`{line}`: {why}"))?;
        peaks.bytes[peaks.part.load(Relaxed) as usize].fetch_max(kibibytes * 1024, Relaxed);
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

fn play(server: &Server, backlog: Backlog, peaks: &Peaks) -> Outcome<()> {
    let mut client = Client::open(server.address())?;
    for queue in 0..backlog.queues {
        client.declare(&name(queue), true, false)?;
    }
    peaks.part.store(1, Relaxed);
    publish(&mut client, backlog)?;
    peaks.part.store(2, Relaxed);
    thread::sleep(REST);
    peaks.part.store(3, Relaxed);
    let mut drained = 0;
    for first in (0..backlog.queues).step_by(CONSUMERS_AT_ONCE as usize) {
        drained += drain(server, backlog, first..backlog.queues.min(first + CONSUMERS_AT_ONCE))?;
    }
    if drained == backlog.messages {
        return Ok(());
    }
    Err(Failure::Wrong(format!("{} messages were published, and {drained} came", backlog.messages)))
}

fn name(queue: u64) -> String {
    format!("memory-{queue}")
}

/// Publishes to the queues in turn, with confirms.
fn publish(client: &mut Client, backlog: Backlog) -> Outcome<()> {
    client.select_confirms()?;
    let names: Vec<String> = (0..backlog.queues).map(name).collect();
    let mut body = vec![b'm'; backlog.body_bytes];
    let batch = BATCH.min(BATCH_BYTES / body.len() as u64).max(1);
    let (mut sent, mut confirmed) = (0, 0);
    while confirmed < backlog.messages {
        while sent < backlog.messages && sent - confirmed <= UNCONFIRMED_MAX - batch {
            let end = backlog.messages.min(sent + batch);
            for number in sent..end {
                body[..8].copy_from_slice(&number.to_be_bytes());
                let queue = &names[(number % backlog.queues) as usize];
                client.publish("", queue, backlog.persistent, &body);
            }
            client.flush()?;
            sent = end;
        }
        match client.receive()? {
            Some(Arrival::Confirm { tag, multiple }) => confirmed = if multiple { tag } else { confirmed + 1 },
            _ => return Err(Failure::Wrong(format!("{} messages were not confirmed", sent - confirmed))),
        }
    }
    Ok(())
}

/// Takes all messages out of these queues, and returns their number.
fn drain(server: &Server, backlog: Backlog, queues: std::ops::Range<u64>) -> Outcome<u64> {
    let mut asking = Client::open(server.address())?;
    let mut waiting = 0;
    for queue in queues.clone() {
        waiting += asking.declare(&name(queue), true, true)?;
    }
    asking.close()?;
    let mut client = Client::open(server.address())?;
    // Messages that come while consumers are being started must be counted, too. So this does not wait for the
    // consume-ok.
    for queue in queues {
        client.consume_later(&name(queue));
    }
    client.flush()?;
    let mut came = 0;
    while came < waiting {
        match client.receive()? {
            Some(Arrival::Delivery(delivery)) if delivery.body.len() == backlog.body_bytes => came += 1,
            _ => return Err(Failure::Wrong(format!("{waiting} messages wait, and {came} came"))),
        }
    }
    Ok(came)
}
