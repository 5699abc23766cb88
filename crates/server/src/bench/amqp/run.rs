//! A run of producers and consumers, each with its own connection and thread, and the rules by which they wait.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::connection::Connection;
use super::consumer::Consumer;
use super::load::Load;
use super::producer::{Batch, Confirms};
use super::target::Target;
use crate::bench::Failure;
use crate::bench::verify::{Arrivals, Verdict};

/// A waiting producer checks again after this time, or as soon as the server sends something.
const LOOK_UP_EVERY: Duration = Duration::from_millis(5);
/// A consumer that may not take anything now checks again after this time.
const PAUSE: Duration = Duration::from_micros(200);
/// After this time without a delivery, the run gives up the missing messages.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How producers and consumers wait for each other.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// Producers wait while too many messages are in the server. In addition to these, this many deliveries always
    /// wait.
    Lead { backlog: u64 },
    /// Producers do not wait for consumers. They send at this rate together, or as fast as the server reads. Until they
    /// stop, consumers take this part of the published messages, in per cent.
    Lag { rate: Option<u64>, percent: u64 },
}

/// One run: its connections, and what its threads share.
pub struct Run<'a> {
    load: &'a Load,
    shared: Shared,
    producers: Vec<Connection>,
    consumers: Vec<Consumer>,
}

/// Each counter has one writer, which stores its own total once per batch.
pub struct Shared {
    /// Deliveries of each message that is published.
    copies: u64,
    pace: Pace,
    start: Instant,
    published: Vec<AtomicU64>,
    delivered: Vec<AtomicU64>,
    /// How many messages may be in the server in addition to the backlog. The main thread sets it.
    lead_max: AtomicU64,
    /// The longest time that a consumer waited for a delivery that it was ready to take, in nanoseconds.
    gap_ns_max: AtomicU64,
    /// Producers stop sending.
    stop: AtomicBool,
    /// All threads end, even if messages are missing.
    abandon: AtomicBool,
    /// The deliveries of what all producers sent, known when they are done.
    sent: AtomicU64,
}

/// The result of a run after all messages were consumed.
pub struct Outcome<T> {
    pub figures: T,
    /// The time from the stop of the producers until the last delivery.
    pub drain: Duration,
    pub drained_messages: u64,
    pub checked_messages: u64,
    pub verdict: Verdict,
}

impl<'a> Run<'a> {
    pub fn new(
        target: &Target,
        load: &'a Load,
        producers: u16,
        consumers: u16,
        pace: Pace,
    ) -> Result<Run<'a>, Failure> {
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
                pace,
                start: Instant::now(),
                published: counters(producers.len()),
                delivered: counters(consumers.len()),
                lead_max: AtomicU64::new(0),
                gap_ns_max: AtomicU64::new(0),
                stop: AtomicBool::new(false),
                abandon: AtomicBool::new(false),
                sent: AtomicU64::new(u64::MAX),
            },
            producers,
            consumers,
        })
    }

    /// Runs producers and consumers, and compares the messages that arrived with those that were sent. The producers
    /// stop when `watch` returns. `draining` is called again and again until the rest has been delivered.
    pub fn measure<T>(
        mut self,
        watch: impl FnOnce(&Shared) -> Result<T, Failure>,
        draining: impl FnMut(&Shared),
    ) -> Result<Outcome<T>, Failure> {
        self.shared.start = Instant::now();
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

            let figures = watch(shared);
            let (stopped, before) = (Instant::now(), shared.delivered());
            shared.stop.store(true, Relaxed);
            // The connections stay open until the queue is empty.
            let sent = join_all(producing);
            if let Ok(sent) = &sent {
                let total: u64 = sent.iter().map(|(count, _)| count).sum();
                shared.sent.store(total * shared.copies, Relaxed);
                shared.wait_for_the_rest(&consuming, draining);
            }
            let (drain, drained_messages) = (stopped.elapsed(), shared.delivered() - before);
            shared.abandon.store(true, Relaxed);
            let arrivals = join_all(consuming);

            let (sent, arrivals) = (sent?, arrivals?);
            let of_queue = |queue| sent.iter().map(move |(count, _)| load.spread.share(*count, queue));
            let sent: Vec<u64> = (0..load.spread.queues()).flat_map(of_queue).collect();
            Ok(Outcome {
                figures: figures?,
                drain,
                drained_messages,
                checked_messages: arrivals.iter().map(Arrivals::count).sum(),
                verdict: Verdict::of(&sent, &arrivals),
            })
        })
    }
}

impl Shared {
    pub fn published(&self) -> u64 {
        self.published.iter().map(|count| count.load(Relaxed)).sum()
    }

    pub fn delivered(&self) -> u64 {
        self.delivered.iter().map(|count| count.load(Relaxed)).sum()
    }

    /// Deliveries that are still to come of what was published.
    pub fn on_their_way(&self) -> u64 {
        (self.published() * self.copies).saturating_sub(self.delivered())
    }

    /// The longest time until now that a consumer waited for a delivery that it was ready to take.
    pub fn gap_max(&self) -> Duration {
        Duration::from_nanos(self.gap_ns_max.load(Relaxed))
    }

    /// Sets how many messages may be in the server in addition to the backlog.
    pub fn set_lead(&self, messages: u64) {
        self.lead_max.store(messages, Relaxed);
    }

    /// A thread has failed, or the producers were told to stop.
    pub fn stopped(&self) -> bool {
        self.stop.load(Relaxed)
    }

    /// Messages that may be sent now.
    fn room(&self) -> u64 {
        match self.pace {
            Pace::Lead { backlog } => {
                (backlog + self.lead_max.load(Relaxed)).saturating_sub(self.on_their_way()) / self.copies
            }
            Pace::Lag { rate: None, .. } => u64::MAX,
            Pace::Lag { rate: Some(rate), .. } => {
                let due = (self.start.elapsed().as_secs_f64() * rate as f64) as u64;
                // Each producer may send its part.
                due.saturating_sub(self.published()) / self.published.len() as u64
            }
        }
    }

    /// Whether consumers may take a message now.
    fn may_take(&self) -> bool {
        if self.stopped() {
            return true;
        }
        match self.pace {
            Pace::Lead { backlog } => backlog == 0 || self.on_their_way() >= backlog,
            Pace::Lag { percent, .. } => self.delivered() * 100 < self.published() * self.copies * percent,
        }
    }

    /// Waits until the backlog has been published.
    pub fn wait_for_backlog(&self) -> Result<(), Failure> {
        let Pace::Lead { backlog } = self.pace else { return Ok(()) };
        let (mut last, mut since) = (0, Instant::now());
        while self.on_their_way() < backlog && !self.stopped() {
            thread::sleep(LOOK_UP_EVERY);
            let published = self.published();
            if published != last {
                (last, since) = (published, Instant::now());
            } else if since.elapsed() > PATIENCE {
                let missing = backlog.saturating_sub(self.on_their_way());
                return Err(Failure::Stalled { seconds: PATIENCE.as_secs(), missing });
            }
        }
        Ok(())
    }

    /// Ends the run for all threads if one of them fails.
    fn guard<T>(&self, body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
        let outcome = body();
        if outcome.is_err() {
            self.stop.store(true, Relaxed);
            self.abandon.store(true, Relaxed);
        }
        outcome
    }

    /// Waits until the consumers have received everything, or have received nothing for a long time.
    fn wait_for_the_rest<T>(&self, consuming: &[ScopedJoinHandle<'_, T>], mut draining: impl FnMut(&Shared)) {
        let (mut last, mut since) = (self.delivered(), Instant::now());
        while !consuming.iter().all(ScopedJoinHandle::is_finished) && since.elapsed() < PATIENCE {
            thread::sleep(LOOK_UP_EVERY);
            draining(self);
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
    // A write for one or two messages costs too much, unless each is delivered many times.
    let worth_a_write = (window / 8).clamp(1, batch.messages_max().div_ceil(shared.copies));
    let (mut sent, mut confirms) = (0, Confirms::default());
    while !shared.stopped() {
        let unconfirmed = if load.confirm_window.is_some() { sent - confirms.through() } else { 0 };
        let room = (window - unconfirmed).min(shared.room()).min(batch.messages_max());
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
    let mut ready_since = None;
    while shared.delivered() < shared.sent.load(Relaxed) && !shared.abandon.load(Relaxed) {
        if !shared.may_take() {
            ready_since = None;
            thread::sleep(PAUSE);
            continue;
        }
        let since = *ready_since.get_or_insert_with(Instant::now);
        let (before, waited) = (consumer.count(), shared.on_their_way() > 0);
        consumer.take(|_| {})?;
        if waited {
            shared.gap_ns_max.fetch_max(since.elapsed().as_nanos() as u64, Relaxed);
        }
        if consumer.count() > before || !waited {
            ready_since = None;
            shared.delivered[index].store(consumer.count(), Relaxed);
        }
    }
    consumer.finish()
}

/// All outcomes, or the first failure.
fn join_all<T>(threads: Vec<ScopedJoinHandle<'_, Result<T, Failure>>>) -> Result<Vec<T>, Failure> {
    let outcomes: Vec<_> =
        threads.into_iter().map(|thread| thread.join().expect("no thread of a run panics")).collect();
    outcomes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shared(pace: Pace, published: u64, delivered: u64) -> Shared {
        Shared {
            copies: 1,
            pace,
            start: Instant::now(),
            published: vec![AtomicU64::new(published)],
            delivered: vec![AtomicU64::new(delivered)],
            lead_max: AtomicU64::new(10),
            gap_ns_max: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            abandon: AtomicBool::new(false),
            sent: AtomicU64::new(u64::MAX),
        }
    }

    #[test]
    fn a_backlog_stays_until_producers_stop() {
        let shared = shared(Pace::Lead { backlog: 100 }, 199, 100);
        assert!(!shared.may_take());
        assert_eq!(shared.room(), 11);
        shared.published[0].store(200, Relaxed);
        assert!(shared.may_take());
        shared.delivered[0].store(150, Relaxed);
        shared.stop.store(true, Relaxed);
        assert!(shared.may_take());
    }

    #[test]
    fn a_lagging_consumer_takes_its_share_and_then_the_rest() {
        let lag = |delivered| shared(Pace::Lag { rate: None, percent: 50 }, 200, delivered);
        assert!(lag(99).may_take());
        assert!(!lag(100).may_take());
        assert_eq!(lag(0).room(), u64::MAX);
        let stopped = lag(100);
        stopped.stop.store(true, Relaxed);
        assert!(stopped.may_take());
    }

    #[test]
    fn a_rate_leaves_no_room_before_its_time() {
        let none_due = shared(Pace::Lag { rate: Some(1), percent: 50 }, 1_000_000, 0);
        assert_eq!(none_due.room(), 0);
    }
}
