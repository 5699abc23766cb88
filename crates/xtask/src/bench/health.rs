//! Measures how long health checks take while a server is under load.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_millis(50);
/// A check that takes longer has failed.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends `GET /health/live` again and again, on its own thread and with a new connection each time.
#[derive(Debug)]
pub struct Checks {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Duration, String>>,
}

impl Checks {
    pub fn start(address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut longest = Duration::ZERO;
            while !stopped.load(Relaxed) {
                longest = longest.max(check(address)?);
                thread::sleep(EVERY);
            }
            Ok(longest)
        });
        Self { stop, thread }
    }

    /// The longest check.
    pub fn finish(self) -> Result<Duration, String> {
        self.stop.store(true, Relaxed);
        self.thread.join().map_err(|_| "the thread of the health checks panicked".to_owned())?
    }
}

fn check(address: SocketAddr) -> Result<Duration, String> {
    let start = Instant::now();
    let ask = || {
        let mut socket = TcpStream::connect_timeout(&address, TIMEOUT)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.write_all(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = ask().map_err(|why: std::io::Error| format!("GET /health/live: {why}"))?;
    if !answer.starts_with("HTTP/1.1 200") {
        return Err(format!("GET /health/live: {}", answer.lines().next().unwrap_or("no answer")));
    }
    Ok(start.elapsed())
}
