//! A load of clients that bind and unbind, declare and delete, or subscribe and cancel again and again. Other loads are
//! measured beside it.
//!
//! Each client sends a hundred requests at once and reads their replies. Then it undoes them in the same way.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::frames::*;
use super::target::{Target, TargetArgs};
use crate::bench::Failure;
use crate::bench::process::Process;
use crate::bench::report::{Churn, ReportArgs};

/// The number of requests that are sent at once.
const REQUESTS: usize = 100;

/// What the clients do and undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    /// Bind a queue to a topic exchange by a hundred keys, and unbind it
    Binds,
    /// Declare transient queues, and delete them
    Declares,
    /// Start consumers of one queue, and cancel them
    Subscribes,
}

#[derive(Debug, clap::Args)]
pub struct ChurnArgs {
    #[command(flatten)]
    target: TargetArgs,
    /// What the clients do and undo
    #[arg(long, value_enum)]
    kind: Kind,
    /// The number of connections
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    clients: u16,
    /// How many seconds to measure
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    #[command(flatten)]
    report: ReportArgs,
}

pub fn run(args: ChurnArgs) -> Result<(), Failure> {
    let target = args.target.resolve()?;
    let server = args.report.server()?;
    let clients =
        (0..args.clients).map(|number| Client::new(&target, args.kind, number)).collect::<Result<Vec<_>, _>>()?;
    let server_seconds = || server.map(Process::cpu_seconds).transpose();
    let (start, before, operations) = (Instant::now(), server_seconds()?, AtomicU64::new(0));
    let until = start + Duration::from_secs(args.seconds);
    thread::scope(|scope| {
        let running: Vec<_> =
            clients.into_iter().map(|client| scope.spawn(|| client.repeat(until, &operations))).collect();
        running.into_iter().try_for_each(|client| client.join().expect("no thread of a run panics"))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let report = Churn {
        load: format!("{} clients, {}", args.clients, args.kind.text()),
        seconds,
        operations_per_second: operations.load(Relaxed) as f64 / seconds,
        server_cpu_cores: before.zip(server_seconds()?).map(|(before, after)| (after - before) / seconds),
    };
    args.report.print(&report)
}

impl Kind {
    fn text(self) -> &'static str {
        match self {
            Kind::Binds => "queue.bind and queue.unbind at a topic exchange",
            Kind::Declares => "queue.declare and queue.delete",
            Kind::Subscribes => "basic.consume and basic.cancel",
        }
    }
}

struct Client {
    connection: Connection,
    exchange: String,
    queue: String,
    make: Outgoing,
    made: MethodId,
    take_back: Outgoing,
    taken_back: MethodId,
}

impl Client {
    fn new(target: &Target, kind: Kind, number: u16) -> Result<Client, Failure> {
        let mut connection = Connection::open(target)?;
        let queue = format!("bench-churn-{}-{number}", std::process::id());
        let exchange = format!("{queue}-exchange");
        connection.declare_queue(&queue, false)?;
        connection.declare_exchange(&exchange, "topic")?;
        let (mut make, mut take_back) = (Outgoing::default(), Outgoing::default());
        let (made, taken_back) = match kind {
            Kind::Binds => (QUEUE_BIND_OK, QUEUE_UNBIND_OK),
            Kind::Declares => (QUEUE_DECLARE_OK, QUEUE_DELETE_OK),
            Kind::Subscribes => (BASIC_CONSUME_OK, BASIC_CANCEL_OK),
        };
        for one in 0..REQUESTS {
            let (key, other) = (format!("bench.{one}.*"), format!("{queue}-{one}"));
            match kind {
                Kind::Binds => {
                    make.method(CHANNEL, QUEUE_BIND, |out| {
                        out.u16(0).short(&queue).short(&exchange).short(&key).u8(0).u32(0);
                    });
                    take_back.method(CHANNEL, QUEUE_UNBIND, |out| {
                        out.u16(0).short(&queue).short(&exchange).short(&key).u32(0);
                    });
                }
                Kind::Declares => {
                    make.method(CHANNEL, QUEUE_DECLARE, |out| {
                        out.u16(0).short(&other).u8(0).u32(0);
                    });
                    take_back.method(CHANNEL, QUEUE_DELETE, |out| {
                        out.u16(0).short(&other).u8(0);
                    });
                }
                Kind::Subscribes => {
                    make.method(CHANNEL, BASIC_CONSUME, |out| {
                        out.u16(0).short(&queue).short(&other).u8(0).u32(0);
                    });
                    take_back.method(CHANNEL, BASIC_CANCEL, |out| {
                        out.short(&other).u8(0);
                    });
                }
            }
        }
        Ok(Client { connection, exchange, queue, make, made, take_back, taken_back })
    }

    /// Sends requests and undoes them until the time is over. Then deletes the queue and the exchange of the client.
    fn repeat(mut self, until: Instant, operations: &AtomicU64) -> Result<(), Failure> {
        while Instant::now() < until {
            self.connection.call_all(&self.make, self.made, REQUESTS)?;
            self.connection.call_all(&self.take_back, self.taken_back, REQUESTS)?;
            operations.fetch_add(2 * REQUESTS as u64, Relaxed);
        }
        self.connection.delete_queue(&self.queue)?;
        self.connection.delete_exchange(&self.exchange)
    }
}
