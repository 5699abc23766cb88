//! Measures whether heartbeats come on time, with an idle connection that only sends and receives them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::frames::{HEARTBEAT, Outgoing};
use super::target::Target;
use crate::bench::Failure;

const LOOK_UP_EVERY: Duration = Duration::from_millis(50);

/// An idle connection with heartbeats, on its own thread.
#[derive(Debug)]
pub struct Heartbeats {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Duration, Failure>>,
}

impl Heartbeats {
    /// Opens the connection. The server must send a heartbeat in each of these intervals.
    pub fn start(target: &Target, interval_seconds: u16) -> Result<Heartbeats, Failure> {
        let mut connection = Connection::open_with_heartbeats(target, interval_seconds)?;
        connection.set_patience(LOOK_UP_EVERY)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let own_every = Duration::from_secs(interval_seconds.into()) / 2;
        let thread = thread::spawn(move || exchange(connection, own_every, &stopped));
        Ok(Heartbeats { stop, thread })
    }

    /// The longest time without a heartbeat of the server, including the time since the last one.
    pub fn finish(self) -> Result<Duration, Failure> {
        self.stop.store(true, Relaxed);
        self.thread.join().expect("no thread of a run panics")
    }
}

fn exchange(mut connection: Connection, own_every: Duration, stop: &AtomicBool) -> Result<Duration, Failure> {
    let mut own = Outgoing::default();
    own.frame(HEARTBEAT, 0, |_| {});
    let (mut heard, mut sent, mut gap) = (Instant::now(), Instant::now(), Duration::ZERO);
    while !stop.load(Relaxed) {
        connection.wait()?;
        gap = gap.max(heard.elapsed());
        while let Some(frame) = connection.next_frame()? {
            if frame.kind == HEARTBEAT {
                heard = Instant::now();
            }
        }
        if sent.elapsed() >= own_every {
            connection.send(&own.0)?;
            sent = Instant::now();
        }
    }
    Ok(gap)
}
