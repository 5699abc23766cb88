//! The process around the node: the real clock, randomness, and notifications of timers and faults.

use std::{
    sync::Arc,
    thread::available_parallelism,
    time::{Duration, SystemTime},
};

use ferrymq_model::Time;
use ferrymq_node::Host;
use ferrymq_wire::Moment;
use tokio::{
    runtime::{Handle, RuntimeFlavor},
    sync::{Notify, Semaphore, watch},
    task::{block_in_place, yield_now},
    time::Instant,
};

use crate::{connection_log::LogLimits, memory};

/// The only place of the server that reads a clock or asks for randomness.
///
/// All waiting uses the monotonic clock (Linux's `CLOCK_MONOTONIC`). The wall clock is only read once, when the
/// process starts.
#[derive(Debug)]
pub struct Process {
    began: Instant,
    /// The wall clock at that moment.
    began_at: Time,
    timer: watch::Sender<Option<Time>>,
    /// Notified when there are more deliveries than the threads that found them should send.
    deliveries: Notify,
    /// One permit for each processor.
    computing: Arc<Semaphore>,
    /// The runtime that runs blocking work; none if nothing is served.
    runtime: Option<Handle>,
    fault: watch::Sender<Option<String>>,
    log_limits: Arc<LogLimits>,
    /// A sabotage: connections keep their threads.
    #[cfg(test)]
    pub never_yields: std::sync::atomic::AtomicBool,
}

impl Process {
    /// A process whose time begins now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            began_at: wall_clock(),
            timer: watch::Sender::new(None),
            deliveries: Notify::new(),
            computing: Arc::new(Semaphore::new(available_parallelism().map_or(1, usize::from))),
            runtime: Handle::try_current().ok(),
            fault: watch::Sender::new(None),
            log_limits: Arc::default(),
            #[cfg(test)]
            never_yields: Default::default(),
        }
    }

    /// Time since the process began.
    #[must_use]
    pub fn moment(&self) -> Moment {
        Moment(millis(self.began.elapsed()))
    }

    /// The time of `moment`.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> Instant {
        self.began + Duration::from_millis(moment.0)
    }

    /// The log limits for lines that clients can cause.
    #[must_use]
    pub fn log_limits(&self) -> &Arc<LogLimits> {
        &self.log_limits
    }

    /// When the node's next timer fires.
    #[must_use]
    pub fn timers(&self) -> watch::Receiver<Option<Time>> {
        self.timer.subscribe()
    }

    /// Lets other tasks run.
    pub async fn give_way(&self) {
        #[cfg(test)]
        if self.never_yields.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        yield_now().await;
    }

    /// Returns when there are more deliveries than the threads that found them should send.
    pub async fn deliveries_waiting(&self) {
        self.deliveries.notified().await;
    }

    /// Waits for a fault after which the server must end, and returns the reason.
    #[must_use]
    pub fn faults(&self) -> watch::Receiver<Option<String>> {
        self.fault.subscribe()
    }
}

impl Default for Process {
    fn default() -> Self {
        Self::new()
    }
}

impl Host for Process {
    fn now(&self) -> Time {
        self.began_at.after_ms(self.moment().0)
    }

    fn nanoseconds(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    fn wall(&self) -> Time {
        wall_clock()
    }

    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        u128::from_ne_bytes(bytes)
    }

    fn set_timer(&self, due: Option<Time>) {
        self.timer.send_if_modified(|current| std::mem::replace(current, due) != due);
    }

    fn deliveries_wait(&self) -> bool {
        self.deliveries.notify_one();
        true
    }

    fn lengthy(&self, work: &mut dyn FnMut()) {
        let on_worker =
            Handle::try_current().is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
        if on_worker { block_in_place(work) } else { work() }
    }

    fn compute(&self, work: Box<dyn FnOnce() + Send>) {
        let Some(runtime) = &self.runtime else { return work() };
        let computing = self.computing.clone();
        runtime.spawn(async move {
            // The semaphore is never closed.
            let _permit = computing.acquire_owned().await;
            // The panic hook has logged the panic.
            drop(tokio::task::spawn_blocking(work).await);
        });
    }

    fn memory_bytes(&self) -> Option<u64> {
        memory::own_bytes()
    }

    fn fault(&self, reason: String) {
        self.fault.send_replace(Some(reason));
    }
}

/// 0 if the clock is before 1970.
fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Time(since.map_or(0, millis))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
