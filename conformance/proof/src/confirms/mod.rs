//! Proves by the system calls of the real binary that no confirm is sent before the sync of its message.
//!
//! After SIGKILL the page cache is still there, so a killed process proves nothing about syncs. A tracer sees the order
//! of the system calls: the write to the journal, its fdatasync, and the write to the client's socket.

mod trace;

use std::path::Path;
use std::process::{Command, Stdio};

use crate::client::{Arrival, Client};
use crate::failure::{Failure, Outcome};
use crate::server::Launch;

const QUEUE: &str = "confirms";
/// The lengths of the batches, in messages. After each batch the publisher waits for the confirms.
const BATCHES: &[usize] = &[1, 1, 1, 5, 1, 40, 200, 1, 3, 500, 1];
const CALLS: &str = "trace=pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg,fsync,fdatasync";

/// Whether a tracer is installed.
pub fn can_run() -> bool {
    let version = Command::new("strace").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Publishes under a tracer, and checks the order of the server's system calls.
pub fn run(binary: &Path) -> Result<(), String> {
    // The journal files are small, because the log also contains the zeros with which they are created.
    let launch = Launch::new(binary, &["--storage-file-bytes", "1048576"])?;
    let log = launch.folder().join("calls");
    let log_name = log.display().to_string();
    // The tracer writes all octets, in hexadecimal.
    let tracer = ["strace", "-f", "-v", "-xx", "-s", "16777216", "-e", "signal=none", "-e", CALLS, "-o", &log_name];
    let launch = launch.under(&tracer);
    let server = launch.start()?;
    let published = publish(&server).map_err(|why| format!("{why}\n--- the server's log\n{}---", launch.log()))?;
    server.stop_under_tracer()?;
    let calls = std::fs::read_to_string(&log).map_err(|why| format!("{log_name}: {why}"))?;
    let checked = trace::check(&calls, &published).map_err(|why| format!("{why}\nkept: {log_name}"))?;
    launch.clean();
    println!(
        "confirms: {} messages, {} confirms in {} writes to the socket, {} syncs of files; none too early",
        published.len(),
        checked.confirms,
        checked.socket_writes,
        checked.syncs
    );
    Ok(())
}

/// A mark in the body of the message with this tag. It comes nowhere else.
fn mark(tag: u64) -> String {
    format!("<message {tag:08}>")
}

/// Publishes all batches. Returns the marks in the order of their tags.
fn publish(server: &crate::server::Server) -> Outcome<Vec<String>> {
    let mut client = Client::open(server.address())?;
    client.declare(QUEUE, true, false)?;
    client.select_confirms()?;
    let (mut marks, mut confirmed) = (Vec::new(), 0);
    for &batch in BATCHES {
        for _ in 0..batch {
            let mark = mark(marks.len() as u64 + 1);
            client.publish("", QUEUE, true, mark.as_bytes());
            marks.push(mark);
        }
        client.flush()?;
        while confirmed < marks.len() as u64 {
            match client.receive()? {
                Some(Arrival::Confirm { tag, multiple }) => confirmed = if multiple { tag } else { confirmed + 1 },
                _ => return Err(Failure::Wrong(format!("{} messages were not confirmed", marks.len()))),
            }
        }
    }
    client.close()?;
    Ok(marks)
}
