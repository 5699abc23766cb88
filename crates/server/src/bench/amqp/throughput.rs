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
use std::thread;
use std::time::{Duration, Instant};

use super::load::{Load, LoadArgs};
use super::producer::Batch;
use super::run::{PATIENCE, Pace, Run, Shared};
use super::target::TargetArgs;
use crate::bench::Failure;
use crate::bench::process::Process;
use crate::bench::report::{ReportArgs, Throughput};
use crate::bench::verify::Verdict;

const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// Samples over which the lead that producers may have is counted: half a second.
const LEAD_SAMPLES: usize = 5;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Producers wait while more messages are in the server than were delivered in the last half second, with \
    confirms and without. So a slow server does not get too many messages, and at the end less than a second's traffic is \
    left. These messages are then consumed, and all messages of the run are checked. With --backlog, producers wait while the \
    server has eight writes more than the backlog; use a prefetch, or the backlog is in sockets and not in the queue."
)]
pub struct ThroughputArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// The number of connections that publish
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    producers: u16,
    /// The number of connections that consume; with several queues, each consumes from a part of them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    consumers: u16,
    /// How many seconds to measure
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How many seconds to run before the measurement; the messages are checked but not counted
    #[arg(long, default_value_t = 1)]
    warm_up: u64,
    /// Keep this many messages waiting: consumers take none while fewer are in the server
    #[arg(long, value_name = "MESSAGES", default_value_t = 0)]
    backlog: u64,
    #[command(flatten)]
    report: ReportArgs,
}

pub fn run(args: ThroughputArgs) -> Result<(), Failure> {
    let target = args.target.resolve()?;
    let load = args.load.resolve()?;
    let server = args.report.server()?;
    let plan = Plan {
        warm_up: Duration::from_secs(args.warm_up),
        measured: Duration::from_secs(args.seconds),
        backlog: args.backlog,
        server,
    };
    let mut owner = load.set_up(&target)?;
    let run = Run::new(&target, &load, args.producers, args.consumers, Pace::Lead { backlog: args.backlog })?;
    let outcome = run.measure(|shared| watch(shared, &plan, &load), |_| {})?;
    let report = Throughput { checked_messages: outcome.checked_messages, verdict: outcome.verdict, ..outcome.figures };
    load.tear_down(&mut owner)?;
    args.report.print(&report)
}

struct Plan {
    warm_up: Duration,
    measured: Duration,
    /// Deliveries that wait all the time.
    backlog: u64,
    server: Option<Process>,
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
    let messages_max = Batch::new(load, 0, load.body_bytes).messages_max();
    let lead_min = 8 * messages_max.div_ceil(load.spread.copies()) * load.spread.copies();
    shared.set_lead(lead_min);
    shared.wait_for_backlog()?;
    let mut progress = Progress::new();
    let start = Instant::now();
    let mut recent = VecDeque::from([0]);
    let mut memory_bytes_max = 0;
    let mut first = None;
    let mut moved = start;
    while start.elapsed() < plan.warm_up + plan.measured && !shared.stopped() {
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
        if plan.backlog == 0 {
            shared.set_lead(lead_min.max(delivered - recent[0]));
        }
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
    let left_over = (last.published * load.spread.copies()).saturating_sub(last.delivered + plan.backlog);
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
