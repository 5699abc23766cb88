//! The process around the node: the real clock, randomness, and who is told when something is due or broken.

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
/// Everything that the server waits for counts by the passing of time (Linux's `CLOCK_MONOTONIC`). The wall clock is read once
/// for that, when the process begins.
#[derive(Debug)]
pub struct Process {
    began: Instant,
    /// What the wall clock said then.
    began_at: Time,
    alarm: watch::Sender<Option<Time>>,
    /// Told when there is more to deliver than those who came upon it should do.
    deliveries: Notify,
    /// One permit for each processor.
    computing: Arc<Semaphore>,
    /// Where work is handed to threads; none where nothing is served.
    runtime: Option<Handle>,
    fault: watch::Sender<Option<String>>,
    log_limits: Arc<LogLimits>,
    /// A sabotage: connections keep their threads.
    #[cfg(test)]
    pub never_yields: std::sync::atomic::AtomicBool,
}

impl Process {
    /// A process whose moments count from now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            began_at: wall_clock(),
            alarm: watch::Sender::new(None),
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

    /// When `moment` is.
    #[must_use]
    pub fn instant(&self, moment: Moment) -> Instant {
        self.began + Duration::from_millis(moment.0)
    }

    /// How many lines the log takes of what clients can cause at will.
    #[must_use]
    pub fn log_limits(&self) -> &Arc<LogLimits> {
        &self.log_limits
    }

    /// When the node's next alarm is due.
    #[must_use]
    pub fn alarms(&self) -> watch::Receiver<Option<Time>> {
        self.alarm.subscribe()
    }

    /// Lets others have their turn.
    pub async fn give_way(&self) {
        #[cfg(test)]
        if self.never_yields.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        yield_now().await;
    }

    /// Resolves when there is more to deliver than those who came upon it should do.
    pub async fn deliveries_waiting(&self) {
        self.deliveries.notified().await;
    }

    /// Why the server must end, once it must.
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

    fn wall(&self) -> Time {
        wall_clock()
    }

    fn random(&self) -> u128 {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).expect("the operating system gives random bytes");
        u128::from_ne_bytes(bytes)
    }

    fn alarm(&self, due: Option<Time>) {
        self.alarm.send_if_modified(|current| std::mem::replace(current, due) != due);
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
            // It is never closed.
            let _permit = computing.acquire_owned().await;
            // What panics has said so.
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

/// 0 where it says that it is before 1970.
fn wall_clock() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    Time(since.map_or(0, millis))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
