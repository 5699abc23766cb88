//! How long a message takes: an open loop with one producer and one consumer, at a given rate.
//!
//! The schedule of all messages is fixed before the first one is sent. The time of a message counts from its place
//! in the schedule. A server that stops for 100 ms delays all messages that were due in this time, and all of them
//! count, although the producer could not send them. A loop that waits for the server would leave out exactly these
//! messages (coordinated omission).

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::connection::Connection;
use super::consumer::Consumer;
use super::heartbeats::Heartbeats;
use super::load::{Load, LoadArgs, Spread};
use super::producer::{Batch, Confirms};
use super::target::{Target, TargetArgs};
use crate::bench::Failure;
use crate::bench::process::{Process, sleep_exactly};
use crate::bench::report::{Latency, Percentiles, ReportArgs};
use crate::bench::verify::{Arrivals, Verdict};

/// Messages are due at multiples of this, so that the client wakes up at most 5,000 times per second at a high
/// rate.
const TICK: Duration = Duration::from_micros(200);
const LOOK_UP_EVERY: Duration = Duration::from_millis(50);
/// The run ends with an error when it is this far behind its schedule, or when the server sends nothing for this
/// long.
const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Each message has a scheduled time, a multiple of 0.2 ms. The latency begins at this time, even if the \
    message is sent later. `sent late` is the delay before the message is sent, by the client itself or because the server \
    does not read. With a confirm window, confirms are on, but the producer never waits for them."
)]
pub struct LatencyArgs {
    #[command(flatten)]
    target: TargetArgs,
    #[command(flatten)]
    load: LoadArgs,
    /// Messages per second
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    rate: u64,
    /// How many seconds to measure
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// How many seconds to run before the measurement; the messages are checked but not counted
    #[arg(long, default_value_t = 1)]
    warm_up: u64,
    /// Also open an idle connection with this heartbeat interval, and report the longest time between two heartbeats
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u16).range(1..=60))]
    heartbeat: Option<u16>,
    #[command(flatten)]
    report: ReportArgs,
}

pub fn run(args: LatencyArgs) -> Result<(), Failure> {
    let target = args.target.resolve()?;
    let load = args.load.resolve()?;
    if load.spread != Spread::One {
        return Err(Failure::Option("latency is measured over one queue".to_owned()));
    }
    let server = args.report.server()?;
    sleep_exactly();

    let mut owner = load.set_up(&target)?;
    let schedule = Schedule::new(args.rate, args.warm_up, args.seconds);
    let run = Run::new(&target, &load, schedule)?;
    let heartbeats = args.heartbeat.map(|seconds| Heartbeats::start(&target, seconds)).transpose()?;
    let mut report = run.measure(&load, server)?;
    report.heartbeat_gap_ms_max = heartbeats.map(Heartbeats::finish).transpose()?.map(|gap| gap.as_secs_f64() * 1e3);
    load.tear_down(&mut owner)?;
    args.report.print(&report)
}

/// When each message is due, in nanoseconds from the start of the run.
#[derive(Debug, Clone, Copy)]
struct Schedule {
    rate: u64,
    /// Messages before this one are not counted.
    counted_from: u64,
    total: u64,
}

impl Schedule {
    fn new(rate: u64, warm_up_seconds: u64, seconds: u64) -> Schedule {
        Schedule { rate, counted_from: rate * warm_up_seconds, total: rate * (warm_up_seconds + seconds) }
    }

    fn due(&self, sequence: u64) -> Duration {
        let exact = u128::from(sequence) * 1_000_000_000 / u128::from(self.rate);
        let tick = TICK.as_nanos();
        Duration::from_nanos((exact.div_ceil(tick) * tick) as u64)
    }

    /// How many messages are due at this time.
    fn due_by(&self, elapsed: Duration) -> u64 {
        let ticks = elapsed.as_nanos() / TICK.as_nanos();
        // The first sequence whose exact time is after the tick, with the rounding of `due`.
        let past = (ticks * TICK.as_nanos() + 1) * u128::from(self.rate);
        (past.div_ceil(1_000_000_000) as u64).min(self.total)
    }
}

struct Run {
    schedule: Schedule,
    producer: Connection,
    writer: TcpStream,
    batch: Batch,
    confirms: bool,
    consumer: Consumer,
}

/// What the threads of a run share.
struct Shared {
    start: Instant,
    sent: AtomicU64,
    abandon: AtomicBool,
}

impl Shared {
    fn guard<T>(&self, body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let outcome = body();
        if outcome.is_err() {
            self.abandon.store(true, Relaxed);
        }
        outcome
    }

    fn abandoned(&self) -> bool {
        self.abandon.load(Relaxed)
    }
}

impl Run {
    fn new(target: &Target, load: &Load, schedule: Schedule) -> Result<Run, Failure> {
        let consumer = Consumer::start(target, load, 1, 0..1)?;
        let mut producer = Connection::open(target)?;
        if load.confirm_window.is_some() {
            producer.select_confirms()?;
        }
        producer.set_patience(LOOK_UP_EVERY)?;
        Ok(Run {
            schedule,
            writer: producer.writer()?,
            batch: Batch::new(load, 0, producer.body_bytes_max()),
            confirms: load.confirm_window.is_some(),
            producer,
            consumer,
        })
    }

    fn measure(self, load: &Load, server: Option<Process>) -> Result<Latency, Failure> {
        let Run { schedule, producer, writer, batch, confirms, consumer } = self;
        let shared = &Shared { start: Instant::now(), sent: AtomicU64::new(0), abandon: AtomicBool::new(false) };
        thread::scope(|scope| {
            let consuming = scope.spawn(move || shared.guard(|| consume(shared, schedule, consumer)));
            let hearing = scope.spawn(move || shared.guard(|| hear(shared, schedule, producer, confirms)));
            let sending = scope.spawn(move || shared.guard(|| send(shared, schedule, writer, batch)));

            let counted_at = schedule.due(schedule.counted_from);
            thread::sleep(counted_at.saturating_sub(shared.start.elapsed()));
            let server_seconds = || server.map(Process::cpu_seconds).transpose();
            let before = (Process::own().cpu_seconds()?, server_seconds()?);
            let sent_late = sending.join().expect("no thread of a run panics");
            let after = (Process::own().cpu_seconds()?, server_seconds()?);
            let seconds = (shared.start.elapsed() - counted_at).as_secs_f64();

            let consumed = consuming.join().expect("no thread of a run panics");
            let heard = hearing.join().expect("no thread of a run panics");
            // The listening thread has the server's error text; the others only see a closed connection.
            let confirmed = heard?;
            let ((arrivals, delivered), sent_late) = (consumed?, sent_late?);
            Ok(Latency {
                load: load.to_string(),
                rate: schedule.rate,
                seconds,
                delivery_us: Percentiles::of(&delivered),
                confirm_us: confirms.then(|| Percentiles::of(&confirmed)),
                sent_late_us: Percentiles::of(&sent_late),
                heartbeat_gap_ms_max: None,
                client_cpu_cores: (after.0 - before.0) / seconds,
                server_cpu_cores: before.1.zip(after.1).map(|(b, a)| (a - b) / seconds),
                checked_messages: arrivals.count(),
                verdict: Verdict::of(&[schedule.total], &[arrivals]),
            })
        })
    }
}

/// Sends each message when it is due, or as soon afterwards as the server allows. Returns how late the messages
/// left.
fn send(
    shared: &Shared,
    schedule: Schedule,
    mut writer: TcpStream,
    mut batch: Batch,
) -> Result<Histogram<u64>, Failure> {
    let mut late = histogram();
    let mut sent = 0;
    while sent < schedule.total && !shared.abandoned() {
        let elapsed = shared.start.elapsed();
        let count = (schedule.due_by(elapsed) - sent).min(batch.messages_max());
        if count == 0 {
            thread::sleep(schedule.due(sent).saturating_sub(elapsed));
            continue;
        }
        // Stored first: a confirm may arrive before the write returns.
        shared.sent.store(sent + count, Relaxed);
        writer.write_all(batch.encode(sent, count)).map_err(Failure::io("sending"))?;
        let elapsed = shared.start.elapsed();
        for sequence in sent..sent + count {
            record(&mut late, schedule, sequence, elapsed);
        }
        sent += count;
        if elapsed.saturating_sub(schedule.due(sent)) > PATIENCE {
            return Err(Failure::TooSlow { rate: schedule.rate, behind_seconds: PATIENCE.as_secs() });
        }
    }
    Ok(late)
}

/// Reads the producer's connection until everything is confirmed; without confirms, until everything is sent.
fn hear(
    shared: &Shared,
    schedule: Schedule,
    mut producer: Connection,
    expected: bool,
) -> Result<Histogram<u64>, Failure> {
    let mut latencies = histogram();
    let mut confirms = Confirms::default();
    let mut heard = Instant::now();
    loop {
        let done = if expected { confirms.through() } else { shared.sent.load(Relaxed) };
        if done == schedule.total || shared.abandoned() {
            return Ok(latencies);
        }
        if producer.wait()? {
            let elapsed = shared.start.elapsed();
            let sent = shared.sent.load(Relaxed);
            producer.take_confirms(|confirm| {
                confirms.take(confirm, sent, |tag| {
                    record(&mut latencies, schedule, tag - 1, elapsed);
                })
            })?;
            heard = Instant::now();
        } else if expected && confirms.through() == shared.sent.load(Relaxed) {
            heard = Instant::now();
        } else if expected && heard.elapsed() > PATIENCE {
            return Err(Failure::Unconfirmed {
                seconds: PATIENCE.as_secs(),
                missing: shared.sent.load(Relaxed) - confirms.through(),
            });
        }
    }
}

fn consume(shared: &Shared, schedule: Schedule, mut consumer: Consumer) -> Result<(Arrivals, Histogram<u64>), Failure> {
    let mut latencies = histogram();
    let mut heard = Instant::now();
    while consumer.count() < schedule.total && !shared.abandoned() {
        let came = consumer.take(|id| {
            record(&mut latencies, schedule, id.sequence, shared.start.elapsed());
        })?;
        if came || consumer.count() == shared.sent.load(Relaxed) {
            heard = Instant::now();
        } else if heard.elapsed() > PATIENCE {
            return Err(Failure::Stalled {
                seconds: PATIENCE.as_secs(),
                missing: shared.sent.load(Relaxed).saturating_sub(consumer.count()),
            });
        }
    }
    Ok((consumer.finish()?, latencies))
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 600_000_000_000, 3).expect("the bounds are in order")
}

fn record(latencies: &mut Histogram<u64>, schedule: Schedule, sequence: u64, elapsed: Duration) {
    if sequence >= schedule.counted_from {
        let latency = elapsed.saturating_sub(schedule.due(sequence));
        latencies.saturating_record(latency.as_nanos() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_due_by_a_time_is_due_at_it() {
        for rate in [1, 7, 999, 5_000, 5_001, 1_000_000] {
            let schedule = Schedule::new(rate, 0, 1_000_000);
            for sequence in [0, 1, 2, 3, 4, 5, 99, 100, 12_345] {
                let due = schedule.due(sequence);
                assert!(schedule.due_by(due) > sequence, "{rate} {sequence}");
                if let Some(before) = due.checked_sub(Duration::from_nanos(1)) {
                    assert!(schedule.due_by(before) <= sequence, "{rate} {sequence}");
                }
            }
        }
    }

    #[test]
    fn the_schedule_keeps_its_rate_and_ends() {
        let schedule = Schedule::new(10_000, 1, 2);
        assert_eq!(schedule.due_by(Duration::from_secs(2)), 20_001);
        assert_eq!(schedule.due_by(Duration::from_secs(9)), 30_000);
        assert_eq!(schedule.due(10_000), Duration::from_secs(1));
    }

    #[test]
    fn latency_counts_from_when_a_message_was_due() {
        let schedule = Schedule::new(1000, 1, 1);
        let mut latencies = histogram();
        record(&mut latencies, schedule, 999, Duration::from_secs(5));
        assert_eq!(latencies.len(), 0);
        record(&mut latencies, schedule, 1500, Duration::from_millis(1600));
        assert!(latencies.max().abs_diff(100_000_000) < 200_000);
    }
}
