//! A disk that accepts no more or does not answer: the node reports it in the log, to publishers and in the health
//! check.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferrymq_model::Time;
use ferrymq_storage::{DiskWatch, Stall};
use parking_lot::Mutex;

use crate::core::node::Node;

/// If the disk does not answer for this time, it is not only slow.
const HANGS_AFTER: Duration = Duration::from_secs(5);
const HANGS: &str = "the disk does not answer";

/// The same reason why publishers wait is logged once in this time: beside a busy disk they may wait many times a
/// second.
const LOG_EVERY_MS: u64 = 10_000;

/// A wait that lasts this long is logged in any case.
const LASTS_MS: u64 = 1_000;

/// What the node knows of the disk.
#[derive(Debug)]
pub(crate) struct DiskState {
    watch: DiskWatch,
    /// Publishers wait because the disk does not answer.
    hangs: AtomicBool,
    log: Mutex<StallLog>,
}

impl DiskState {
    pub(crate) fn new(watch: DiskWatch) -> Self {
        Self { watch, hangs: AtomicBool::new(false), log: Mutex::default() }
    }
}

/// What was logged of publishers that wait.
#[derive(Debug, Default)]
struct StallLog {
    /// The last reason, and when it was logged.
    last: Option<(Stall, Time)>,
    /// How often publishers waited for that reason since then.
    more: u64,
    /// The last wait was logged, and its end was not.
    is_open: bool,
    /// A wait that was not logged and goes on, and when it began.
    unlogged: Option<(Stall, Time)>,
}

impl StallLog {
    /// Publishers wait. Returns whether this is to be logged, and how many such waits were not.
    fn begins(&mut self, reason: &Stall, now: Time) -> Option<u64> {
        let is_known = self.last.as_ref().is_some_and(|(last, at)| last == reason && now.since_ms(*at) < LOG_EVERY_MS);
        if is_known {
            // The same wait may be told again before it ends.
            if !self.is_open {
                self.unlogged = Some((reason.clone(), now));
                self.more += 1;
            }
            return None;
        }
        self.last = Some((reason.clone(), now));
        (self.is_open, self.unlogged) = (true, None);
        Some(std::mem::take(&mut self.more))
    }

    /// The wait that goes on and is to be logged now after all, because it lasts.
    fn lasts(&mut self, now: Time) -> Option<Stall> {
        let (reason, _) = self.unlogged.take_if(|(_, since)| now.since_ms(*since) >= LASTS_MS)?;
        self.last = None;
        Some(reason)
    }

    /// Publishers go on. Returns whether this is to be logged.
    fn ends(&mut self) -> bool {
        self.unlogged = None;
        std::mem::take(&mut self.is_open)
    }
}

impl Node {
    /// Publishers wait for storage.
    pub(crate) fn log_stall(&self, reason: &Stall) {
        let Some(more) = self.disk.log.lock().begins(reason, self.now()) else { return };
        let memory: Vec<String> =
            self.memory().iter().map(|(owner, bytes)| format!("{owner} {} KiB", bytes >> 10)).collect();
        let memory = memory.join(", ");
        let more = if more == 0 { String::new() } else { format!("; {more} such waits were not logged") };
        tracing::warn!("publishers wait: {reason}; memory: {memory}{more}");
    }

    /// Publishers go on.
    pub(crate) fn log_end_of_stall(&self) {
        if self.disk.log.lock().ends() {
            tracing::info!("publishers continue");
        }
    }

    /// The reason why publishers wait for the disk, if they do.
    #[must_use]
    pub fn disk_trouble(&self) -> Option<String> {
        let full = self.disk_full.load(Ordering::Acquire).then(|| self.stall_reason.lock().clone());
        let hangs = || self.disk.hangs.load(Ordering::Acquire).then(|| HANGS.to_owned());
        full.or_else(|| self.long_bodies_wait.lock().clone()).or_else(hangs)
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire) || self.disk.hangs.load(Ordering::Acquire)
    }

    /// The reason why publishers wait, if they do.
    pub(crate) fn stall_reason(&self) -> String {
        let stalled = self.stalled.load(Ordering::Acquire);
        if stalled { self.stall_reason.lock().clone() } else { HANGS.to_owned() }
    }

    /// Checks whether the disk still answers. The host calls this about once a second. Storage's own threads cannot
    /// check this, because they wait for the disk.
    pub fn look_at_disk(&self) {
        let lasting = self.disk.log.lock().lasts(self.now());
        if let Some(reason) = lasting {
            self.log_stall(&reason);
        }
        let unanswered = self.disk.watch.unanswered_for().filter(|time| *time >= HANGS_AFTER);
        if self.disk.hangs.swap(unanswered.is_some(), Ordering::AcqRel) == unanswered.is_some() {
            return;
        }
        match unanswered {
            Some(time) => tracing::warn!(
                "publishers wait: the disk has not answered for {} s; nothing is confirmed until it does. Look at the \
                 system's log and at the load of the disk",
                time.as_secs()
            ),
            None => tracing::info!("the disk answers again"),
        }
        self.wake_connections();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_logged_once_in_a_while_with_its_end() {
        let mut log = StallLog::default();
        assert_eq!((log.begins(&Stall::JournalFull, Time(1)), log.ends(), log.ends()), (Some(0), true, false));
        assert_eq!((log.begins(&Stall::JournalFull, Time(2)), log.ends()), (None, false));
        assert_eq!((log.begins(&Stall::MemoryFull, Time(3)), log.ends()), (Some(1), true), "another reason");
        assert_eq!(log.begins(&Stall::MemoryFull, Time(3 + LOG_EVERY_MS)), Some(0));
    }

    #[test]
    fn a_wait_that_lasts_is_logged() {
        let mut log = StallLog::default();
        assert_eq!((log.begins(&Stall::JournalFull, Time(1)), log.ends()), (Some(0), true));
        assert_eq!(log.begins(&Stall::JournalFull, Time(2)), None);
        assert_eq!(log.lasts(Time(3)), None);
        assert_eq!(log.lasts(Time(2 + LASTS_MS)), Some(Stall::JournalFull));
        assert_eq!((log.begins(&Stall::JournalFull, Time(2 + LASTS_MS)), log.ends()), (Some(1), true));
        assert_eq!((log.begins(&Stall::JournalFull, Time(3 + LASTS_MS)), log.ends()), (None, false));
        assert_eq!(log.lasts(Time(9 + 2 * LASTS_MS)), None, "it is over");
    }

    #[test]
    fn a_wait_that_is_told_twice_is_one() {
        let mut log = StallLog::default();
        assert_eq!(
            (log.begins(&Stall::JournalFull, Time(1)), log.begins(&Stall::JournalFull, Time(2))),
            (Some(0), None)
        );
        assert_eq!((log.lasts(Time(2 + LASTS_MS)), log.ends()), (None, true));
        assert_eq!(log.begins(&Stall::MemoryFull, Time(3 + LASTS_MS)), Some(0), "none was left out");
    }
}
