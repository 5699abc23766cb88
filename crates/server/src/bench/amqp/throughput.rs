//! How much a server carries: producers that send as fast as the server accepts, consumers that check everything.
//!
//! ```text
//!  producer threads ──> server ──> consumer threads        one connection each
//!        ^                               │
//!        └── published, lead allowed ─ delivered ──> the main thread samples, and sets the lead
//! ```
//!
//! A server that accepts more than it delivers would only show how much memory it has. So the producers have a
//! bounded lead: they wait while more messages are in the server than were delivered in the last half second.

use std::collections::VecDeque;
use std::io::{IsTerminal, stderr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::consumer::Consumer;
use super::load::{Load, LoadArgs};
use super::producer::{Batch, Confirms};
use super::target::{Target, TargetArgs};
use crate::bench::Failure;
use crate::bench::process::Process;
use crate::bench::report::Throughput;
use crate::bench::verify::{Arrivals, Verdict};

/// A waiting producer checks again after this time, or as soon as the server sends something.
const LOOK_UP_EVERY: Duration = Duration::from_millis(5);
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// After this time without a delivery, the run gives up the missing messages.
const PATIENCE: Duration = Duration::from_secs(10);
/// Samples over which the lead that producers may have is counted: half a second.
const LEAD_SAMPLES: usize = 5;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Producers keep a bounded lead: when more messages are on their way than were delivered in the last half \
    second, they wait, with confirms and without. So a slow server is not flooded, and what is left over when the time is \
    up stays below a second's traffic. The left-over is then drained, and every message of the run is checked."
)]
pub struct ThroughputArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Connections that publish
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    producers: u16,
    /// Connections that consume, all from the one queue, or each from its part of the queues
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    consumers: u16,
    /// How long to measure
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds before that, which are checked but not counted
    #[arg(long, default_value_t = 1)]
    warm_up: u64,
    /// Also report CPU and memory of this process, which is the server on this machine
    #[arg(long, value_name = "PID")]
    server_pid: Option<u32>,
    /// Print the report as one JSON object
    #[arg(long)]
    json: bool,
}

pub fn run(args: ThroughputArgs) -> Result<(), Failure> {
    let target = args.target.resolve()?;
    let load = args.load.resolve()?;
    let server = args.server_pid.map(Process::other).transpose()?;
    let plan = Plan { warm_up: Duration::from_secs(args.warm_up), measured: Duration::from_secs(args.seconds), server };
    let mut owner = load.set_up(&target)?;
    let run = Run::new(&target, &load, args.producers, args.consumers)?;
    let report = run.measure(&plan)?;
    load.tear_down(&mut owner)?;
    report.print(args.json);
    report.judge()
}

struct Plan {
    warm_up: Duration,
    measured: Duration,
    server: Option<Process>,
}

/// One run: its connections, and what its threads share.
struct Run<'a> {
    load: &'a Load,
    shared: Shared,
    producers: Vec<Connection>,
    consumers: Vec<Consumer>,
}

/// Each counter has one writer, which stores its own total once per batch.
struct Shared {
    /// Deliveries of each message that is published.
    copies: u64,
    published: Vec<AtomicU64>,
    delivered: Vec<AtomicU64>,
    /// How many messages may be in the server. The main thread sets it.
    lead_max: AtomicU64,
    /// Producers stop sending.
    stop: AtomicBool,
    /// All threads end, even if messages are missing.
    abandon: AtomicBool,
    /// The deliveries of what all producers sent, known when they are done.
    sent: AtomicU64,
}

impl<'a> Run<'a> {
    fn new(target: &Target, load: &'a Load, producers: u16, consumers: u16) -> Result<Run<'a>, Failure> {
        let counters = |count| (0..count).map(|_| AtomicU64::new(0)).collect();
        let queues = load.spread.queues();
        if u32::from(queues) * u32::from(producers) > u32::from(u16::MAX) {
            return Err(Failure::Option("queues times producers must be at most 65535".to_owned()));
        }
        let consumers = (0..consumers)
            .map(|consumer| {
                let own = (0..queues).filter(|queue| queues == 1 || queue % consumers == consumer);
                Consumer::start(target, load, producers, own)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let producers = (0..producers).map(|_| producer_connection(target, load)).collect::<Result<Vec<_>, _>>()?;
        Ok(Run {
            load,
            shared: Shared {
                copies: load.spread.copies(),
                published: counters(producers.len()),
                delivered: counters(consumers.len()),
                lead_max: AtomicU64::new(0),
                stop: AtomicBool::new(false),
                abandon: AtomicBool::new(false),
                sent: AtomicU64::new(u64::MAX),
            },
            producers,
            consumers,
        })
    }

    /// Runs it all, and compares what arrived with what was sent.
    fn measure(self, plan: &Plan) -> Result<Throughput, Failure> {
        let Run { load, shared, producers, consumers } = self;
        let shared = &shared;
        thread::scope(|scope| {
            let consuming: Vec<_> = (0..)
                .zip(consumers)
                .map(|(index, consumer)| scope.spawn(move || shared.guard(|| consume(shared, index, consumer))))
                .collect();
            let producing: Vec<_> = (0..)
                .zip(producers)
                .map(|(index, connection)| {
                    scope.spawn(move || shared.guard(|| produce(shared, index, connection, load)))
                })
                .collect();

            let figures = watch(shared, plan, load);
            shared.stop.store(true, Relaxed);
            // The connections stay open until the queue is empty.
            let sent = join_all(producing);
            if let Ok(sent) = &sent {
                let total: u64 = sent.iter().map(|(count, _)| count).sum();
                shared.sent.store(total * shared.copies, Relaxed);
                shared.wait_for_the_rest(&consuming);
            }
            shared.abandon.store(true, Relaxed);
            let arrivals = join_all(consuming);

            let (sent, arrivals) = (sent?, arrivals?);
            let of_queue = |queue| sent.iter().map(move |(count, _)| load.spread.share(*count, queue));
            let sent: Vec<u64> = (0..load.spread.queues()).flat_map(of_queue).collect();
            Ok(Throughput {
                checked_messages: arrivals.iter().map(Arrivals::count).sum(),
                verdict: Verdict::of(&sent, &arrivals),
                ..figures?
            })
        })
    }
}

impl Shared {
    fn published(&self) -> u64 {
        self.published.iter().map(|count| count.load(Relaxed)).sum()
    }

    fn delivered(&self) -> u64 {
        self.delivered.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Deliveries that are still to come of what was published.
    fn on_their_way(&self) -> u64 {
        (self.published() * self.copies).saturating_sub(self.delivered())
    }

    /// Messages that may be sent now without too much being on its way.
    fn lead_left(&self) -> u64 {
        let on_their_way = self.on_their_way();
        self.lead_max.load(Relaxed).saturating_sub(on_their_way) / self.copies
    }

    /// A thread that fails ends the run for all threads.
    fn guard<T>(&self, body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let outcome = body();
        if outcome.is_err() {
            self.stop.store(true, Relaxed);
            self.abandon.store(true, Relaxed);
        }
        outcome
    }

    /// Waits until the consumers have received everything, or have received nothing for a long time.
    fn wait_for_the_rest<T>(&self, consuming: &[ScopedJoinHandle<'_, T>]) {
        let (mut last, mut since) = (self.delivered(), Instant::now());
        while !consuming.iter().all(ScopedJoinHandle::is_finished) && since.elapsed() < PATIENCE {
            thread::sleep(LOOK_UP_EVERY);
            let delivered = self.delivered();
            if delivered != last {
                (last, since) = (delivered, Instant::now());
            }
        }
    }
}

fn producer_connection(target: &Target, load: &Load) -> Result<Connection, Failure> {
    let mut connection = Connection::open(target)?;
    if load.confirm_window.is_some() {
        connection.select_confirms()?;
    }
    connection.set_patience(LOOK_UP_EVERY)?;
    Ok(connection)
}

/// Sends until told to stop, then waits for the confirms. Returns how many messages were sent.
fn produce(
    shared: &Shared,
    index: usize,
    mut connection: Connection,
    load: &Load,
) -> Result<(u64, Connection), Failure> {
    let mut batch = Batch::new(load, index as u16, connection.body_bytes_max());
    let window = load.confirm_window.unwrap_or(u64::MAX);
    // A write for one or two messages costs too much.
    let worth_a_write = (window / 8).clamp(1, batch.messages_max());
    let (mut sent, mut confirms) = (0, Confirms::default());
    while !shared.stop.load(Relaxed) {
        let unconfirmed = if load.confirm_window.is_some() { sent - confirms.through() } else { 0 };
        let room = (window - unconfirmed).min(shared.lead_left()).min(batch.messages_max());
        if room >= worth_a_write {
            connection.send(batch.encode(sent, room))?;
            sent += room;
            shared.published[index].store(sent, Relaxed);
        } else if connection.wait()? {
            connection.take_confirms(|confirm| confirms.take(confirm, sent, |_| {}))?;
        }
    }
    if load.confirm_window.is_some() {
        await_confirms(&mut connection, &mut confirms, sent)?;
    }
    Ok((sent, connection))
}

fn await_confirms(connection: &mut Connection, confirms: &mut Confirms, sent: u64) -> Result<(), Failure> {
    let mut heard = Instant::now();
    while confirms.through() < sent {
        if connection.wait()? {
            connection.take_confirms(|confirm| confirms.take(confirm, sent, |_| {}))?;
            heard = Instant::now();
        } else if heard.elapsed() > PATIENCE {
            return Err(Failure::Unconfirmed { seconds: PATIENCE.as_secs(), missing: sent - confirms.through() });
        }
    }
    Ok(())
}

fn consume(shared: &Shared, index: usize, mut consumer: Consumer) -> Result<Arrivals, Failure> {
    while shared.delivered() < shared.sent.load(Relaxed) && !shared.abandon.load(Relaxed) {
        consumer.take(|_| {})?;
        shared.delivered[index].store(consumer.count(), Relaxed);
    }
    consumer.finish()
}

/// The counters at one moment.
struct Sample {
    at: Instant,
    published: u64,
    delivered: u64,
    client_cpu_seconds: f64,
    server_cpu_seconds: f64,
}

impl Sample {
    fn take(shared: &Shared, server: Option<Process>) -> Result<Sample, Failure> {
        Ok(Sample {
            at: Instant::now(),
            published: shared.published(),
            delivered: shared.delivered(),
            client_cpu_seconds: Process::own().cpu_seconds()?,
            server_cpu_seconds: server.map_or(Ok(0.0), Process::cpu_seconds)?,
        })
    }
}

/// Sets the lead and takes samples until the time is up or a thread has failed.
fn watch(shared: &Shared, plan: &Plan, load: &Load) -> Result<Throughput, Failure> {
    let lead_min = 8 * Batch::new(load, 0, load.body_bytes).messages_max() * shared.copies;
    shared.lead_max.store(lead_min, Relaxed);
    let mut progress = Progress::new();
    let start = Instant::now();
    let mut recent = VecDeque::from([0]);
    let mut memory_bytes_max = 0;
    let mut first = None;
    let mut moved = start;
    while start.elapsed() < plan.warm_up + plan.measured && !shared.stop.load(Relaxed) {
        if first.is_none() && start.elapsed() >= plan.warm_up {
            first = Some(Sample::take(shared, plan.server)?);
        }
        thread::sleep(SAMPLE_EVERY);
        let delivered = shared.delivered();
        if recent.back() != Some(&delivered) {
            moved = Instant::now();
        } else if moved.elapsed() > PATIENCE {
            return Err(Failure::Stalled { seconds: PATIENCE.as_secs(), missing: shared.on_their_way() });
        }
        recent.push_back(delivered);
        if recent.len() > LEAD_SAMPLES + 1 {
            recent.pop_front();
        }
        shared.lead_max.store(lead_min.max(delivered - recent[0]), Relaxed);
        if let Some(server) = plan.server {
            memory_bytes_max = memory_bytes_max.max(server.anonymous_bytes()?);
        }
        progress.show(delivered);
    }
    let last = Sample::take(shared, plan.server)?;
    let first = first.unwrap_or(Sample { at: start, ..last });
    Ok(figures(load, plan, &first, &last, memory_bytes_max))
}

fn figures(load: &Load, plan: &Plan, first: &Sample, last: &Sample, memory_bytes_max: u64) -> Throughput {
    let seconds = (last.at - first.at).as_secs_f64();
    let delivered = (last.delivered - first.delivered) as f64;
    let rate = delivered / seconds;
    let left_over = (last.published * load.spread.copies()).saturating_sub(last.delivered);
    let server_cpu_seconds = plan.server.map(|_| last.server_cpu_seconds - first.server_cpu_seconds);
    Throughput {
        load: load.to_string(),
        seconds,
        deliveries_per_second: rate,
        publishes_per_second: (last.published - first.published) as f64 / seconds,
        left_over_messages: left_over,
        left_over_seconds: if left_over == 0 { 0.0 } else { left_over as f64 / rate },
        client_cpu_cores: (last.client_cpu_seconds - first.client_cpu_seconds) / seconds,
        server_cpu_cores: server_cpu_seconds.map(|spent| spent / seconds),
        deliveries_per_server_cpu_second: server_cpu_seconds
            .filter(|&spent| spent > 0.0)
            .map(|spent| delivered / spent),
        server_anonymous_bytes_max: plan.server.map(|_| memory_bytes_max),
        checked_messages: 0,
        verdict: Verdict::default(),
    }
}

/// Prints one line per second for a person who watches.
struct Progress {
    watched: bool,
    second: u32,
    shown_at: Instant,
    delivered: u64,
}

impl Progress {
    fn new() -> Progress {
        Progress { watched: stderr().is_terminal(), second: 0, shown_at: Instant::now(), delivered: 0 }
    }

    fn show(&mut self, delivered: u64) {
        let elapsed = self.shown_at.elapsed().as_secs_f64();
        if !self.watched || elapsed < 1.0 {
            return;
        }
        self.second += 1;
        let rate = (delivered - self.delivered) as f64 / elapsed;
        eprintln!("{:>4} s  {rate:>10.0} deliveries/s", self.second);
        (self.shown_at, self.delivered) = (Instant::now(), delivered);
    }
}

/// All outcomes, or the first failure.
fn join_all<T>(threads: Vec<ScopedJoinHandle<'_, Result<T, Failure>>>) -> Result<Vec<T>, Failure> {
    let outcomes: Vec<_> =
        threads.into_iter().map(|thread| thread.join().expect("no thread of a run panics")).collect();
    outcomes.into_iter().collect()
}
