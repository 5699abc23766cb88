//! Why a measurement ended without a figure, in words that say what to do about it.

use std::fmt;
use std::io;
use std::net::SocketAddr;

/// Everything that can end a measurement early or make its figure worthless.
#[derive(Debug)]
pub enum Failure {
    /// An option makes no sense, alone or beside another.
    Option(String),
    /// No TCP connection could be opened.
    Connect { address: String, source: io::Error },
    /// The server closed the connection, or did not answer in time.
    Io { doing: &'static str, source: io::Error },
    /// The server sent AMQP that the protocol does not allow at this point.
    Protocol(String),
    /// The server closed the channel or the connection, with a reason.
    Closed { code: u16, text: String },
    /// The server sent a nack for a message.
    Nacked { tag: u64 },
    /// Nothing was delivered for so long that the run gave up.
    Stalled { seconds: u64, missing: u64 },
    /// Messages were accepted, but not confirmed for so long that the run gave up.
    Unconfirmed { seconds: u64, missing: u64 },
    /// The server cannot keep up with the rate of an open loop.
    TooSlow { rate: u64, behind_seconds: u64 },
    /// The backlog at the end was more than the traffic of one second, so the server did not keep up.
    LeftBehind { seconds: f64 },
    /// The messages that arrived are not those that were sent.
    Unverified(String),
    /// The process named by `--server-pid` could not be read.
    Process { pid: u32, source: io::Error },
}

impl Failure {
    /// For `map_err` on a socket call.
    pub fn io(doing: &'static str) -> impl Fn(io::Error) -> Failure {
        move |source| Failure::Io { doing, source }
    }

    pub fn connect(address: &SocketAddr, source: io::Error) -> Failure {
        Failure::Connect { address: address.to_string(), source }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Option(what) => f.write_str(what),
            Failure::Connect { address, source } => write!(
                f,
                "cannot connect to {address}: {source}. Is the server running there? Name another one with --uri or --host and --port"
            ),
            Failure::Io { doing, source } if timed_out(source) => write!(
                f,
                "the server did not answer while {doing}. Its log may say why: a memory or disk alarm stops it from reading publishers"
            ),
            Failure::Io { doing, source } => write!(
                f,
                "the connection broke while {doing}: {source}. The server's log should say why; wrong credentials look like this too"
            ),
            Failure::Protocol(what) => {
                write!(f, "the server does not speak AMQP 0-9-1 as expected: {what}. Is this the right port?")
            }
            Failure::Closed { code, text } => {
                write!(f, "the server closed: {code} {}. {}", text.trim_end_matches('.'), remedy(*code))
            }
            Failure::Nacked { tag } => write!(
                f,
                "the server refused to confirm message {tag}. The queue is limited or the server is in trouble; its log should say which"
            ),
            Failure::Stalled { seconds, missing } => write!(
                f,
                "nothing arrived for {seconds} s while {missing} messages were on their way. They are lost, or the server is stuck"
            ),
            Failure::Unconfirmed { seconds, missing } => write!(
                f,
                "no confirm came for {seconds} s while {missing} messages were waiting for one. The server is stuck, or its disk is"
            ),
            Failure::TooSlow { rate, behind_seconds } => write!(
                f,
                "the server is {behind_seconds} s behind a schedule of {rate} messages/s: choose a lower --rate, below what `throughput` reports"
            ),
            Failure::LeftBehind { seconds } => write!(
                f,
                "the figure above is void: {seconds:.1} s of traffic were left over, more than one second's. Run longer, or with fewer producers"
            ),
            Failure::Unverified(what) => {
                write!(f, "the figure above is void, messages did not arrive as they were sent: {what}")
            }
            Failure::Process { pid, source } => write!(
                f,
                "cannot read /proc/{pid}: {source}. --server-pid wants the process id of a server on this Linux machine"
            ),
        }
    }
}

fn timed_out(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn remedy(code: u16) -> &'static str {
    match code {
        403 => "Check --user and --password, and that the user may configure, write and read the queue",
        404 => "Somebody deleted the queue during the run",
        405 | 406 => "The queue exists with other properties: choose another --queue or delete that one",
        530 => "Check --vhost",
        _ => "The server's log may say more",
    }
}
