//! Measures a server whose consumer takes only a part of the published messages.
//!
//! Producers never wait for the consumer: they send at a fixed rate, or as fast as the server reads. The consumer
//! takes, for example, half of the messages while they are published. Then the producers stop, and the rest is consumed
//! and checked.

use std::cell::RefCell;
use std::thread;
use std::time::{Duration, Instant};

use super::load::{Load, LoadArgs};
use super::run::{PATIENCE, Pace, Run, Shared};
use super::target::TargetArgs;
use crate::bench::Failure;
use crate::bench::process::Process;
use crate::bench::report::{Lag, LagSample, ReportArgs};

/// How often the memory is measured.
const LOOK_UP_EVERY: Duration = Duration::from_millis(100);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Producers do not wait for the consumer, so what waits grows all the time: the disk must have room for it, \
    about (1 - share) x rate x seconds messages. With --rate it is known beforehand. The gap is the longest time that the \
    consumer waited for a delivery while it was ready to take one."
)]
pub struct LagArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// The number of connections that publish
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1000))]
    producers: u16,
    /// Messages per second of all producers together; without it, as many as the server reads
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: Option<u64>,
    /// The part of the published messages that the consumer takes, in per cent
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=100))]
    share: u64,
    /// How many seconds the producers publish
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Seconds between two samples of the report
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    sample_seconds: u64,
    #[command(flatten)]
    report: ReportArgs,
}

pub fn run(args: LagArgs) -> Result<(), Failure> {
    let target = args.target.resolve()?;
    let load = args.load.resolve()?;
    let server = args.report.server()?;
    let mut owner = load.set_up(&target)?;
    let run = Run::new(&target, &load, args.producers, 1, Pace::Lag { rate: args.rate, percent: args.share })?;
    let samples = RefCell::new(Samples::new(server, Duration::from_secs(args.sample_seconds)));
    let watch = |shared: &Shared| watch(shared, &samples, server, Duration::from_secs(args.seconds));
    let drained = RefCell::new(Ok(()));
    let outcome = run.measure(watch, |shared| {
        if let Err(failure) = samples.borrow_mut().look(shared) {
            *drained.borrow_mut() = Err(failure);
        }
    })?;
    drained.into_inner()?;
    load.tear_down(&mut owner)?;
    let samples = samples.into_inner();
    let lagging = outcome.figures;
    let drain_seconds = outcome.drain.as_secs_f64();
    let report = Lag {
        load: description(&load, args.rate, args.share),
        seconds: lagging.seconds,
        publishes_per_second: lagging.published as f64 / lagging.seconds,
        deliveries_per_second: lagging.delivered as f64 / lagging.seconds,
        consumer_gap_ms_max: lagging.gap.as_secs_f64() * 1e3,
        backlog_messages: outcome.drained_messages,
        drain_seconds,
        drained_per_second: outcome.drained_messages as f64 / drain_seconds,
        server_cpu_cores: lagging.server_cpu_seconds.map(|spent| spent / lagging.seconds),
        server_anonymous_bytes_max: server.map(|_| samples.memory_bytes_max),
        samples: samples.taken,
        checked_messages: outcome.checked_messages,
        verdict: outcome.verdict,
    };
    args.report.print(&report)
}

fn description(load: &Load, rate: Option<u64>, share: u64) -> String {
    let rate = rate.map_or("as fast as they are taken".to_owned(), |rate| format!("at {rate}/s"));
    format!("{load}, published {rate}, of which the consumer takes {share} %")
}

/// The counts while the producers ran.
struct Lagging {
    seconds: f64,
    published: u64,
    delivered: u64,
    gap: Duration,
    server_cpu_seconds: Option<f64>,
}

fn watch(
    shared: &Shared,
    samples: &RefCell<Samples>,
    server: Option<Process>,
    time: Duration,
) -> Result<Lagging, Failure> {
    let server_seconds = || server.map(Process::cpu_seconds).transpose();
    let (start, before) = (Instant::now(), server_seconds()?);
    let (mut last, mut moved) = (0, start);
    while start.elapsed() < time && !shared.stopped() {
        thread::sleep(LOOK_UP_EVERY);
        samples.borrow_mut().look(shared)?;
        let delivered = shared.delivered();
        if delivered != last {
            (last, moved) = (delivered, Instant::now());
        } else if moved.elapsed() > PATIENCE {
            return Err(Failure::Stalled { seconds: PATIENCE.as_secs(), missing: shared.on_their_way() });
        }
    }
    Ok(Lagging {
        seconds: start.elapsed().as_secs_f64(),
        published: shared.published(),
        delivered: shared.delivered(),
        gap: shared.gap_max(),
        server_cpu_seconds: before.zip(server_seconds()?).map(|(before, after)| after - before),
    })
}

/// The samples so far, and the counts of the last one.
struct Samples {
    server: Option<Process>,
    every: Duration,
    start: Instant,
    looked_at: Instant,
    last_at: Instant,
    published: u64,
    delivered: u64,
    memory_bytes_max: u64,
    taken: Vec<LagSample>,
}

impl Samples {
    fn new(server: Option<Process>, every: Duration) -> Samples {
        let start = Instant::now();
        Samples {
            server,
            every,
            start,
            looked_at: start,
            last_at: start,
            published: 0,
            delivered: 0,
            memory_bytes_max: 0,
            taken: Vec::new(),
        }
    }

    /// Measures the memory, and takes a sample when it is due.
    fn look(&mut self, shared: &Shared) -> Result<(), Failure> {
        if self.looked_at.elapsed() < LOOK_UP_EVERY {
            return Ok(());
        }
        self.looked_at = Instant::now();
        let memory = self.server.map(Process::anonymous_bytes).transpose()?;
        self.memory_bytes_max = self.memory_bytes_max.max(memory.unwrap_or(0));
        let seconds = self.last_at.elapsed().as_secs_f64();
        if seconds < self.every.as_secs_f64() {
            return Ok(());
        }
        let (published, delivered) = (shared.published(), shared.delivered());
        self.taken.push(LagSample {
            seconds: self.start.elapsed().as_secs_f64(),
            publishes_per_second: (published - self.published) as f64 / seconds,
            deliveries_per_second: (delivered - self.delivered) as f64 / seconds,
            server_anonymous_bytes: memory,
        });
        (self.published, self.delivered, self.last_at) = (published, delivered, Instant::now());
        Ok(())
    }
}
