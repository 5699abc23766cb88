//! A disk that accepts no more or does not answer: the node reports it in the log, to publishers and in the health
//! check.

use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::node::Node;

/// If the disk does not answer for this time, it is not only slow.
const HANGS_AFTER: Duration = Duration::from_secs(5);
const HANGS: &str = "the disk does not answer";

impl Node {
    /// The reason why publishers wait for the disk, if they do.
    #[must_use]
    pub fn disk_trouble(&self) -> Option<String> {
        let full = self.disk_full.load(Ordering::Acquire).then(|| self.stall_reason.lock().clone());
        let hangs = || self.disk_hangs.load(Ordering::Acquire).then(|| HANGS.to_owned());
        full.or_else(|| self.long_bodies_wait.lock().clone()).or_else(hangs)
    }

    pub(crate) fn is_stalled(&self) -> bool {
        self.stalled.load(Ordering::Acquire) || self.disk_hangs.load(Ordering::Acquire)
    }

    /// The reason why publishers wait, if they do.
    pub(crate) fn stall_reason(&self) -> String {
        let stalled = self.stalled.load(Ordering::Acquire);
        if stalled { self.stall_reason.lock().clone() } else { HANGS.to_owned() }
    }

    /// Checks whether the disk still answers. The host calls this about once a second. Storage's own threads cannot
    /// check this, because they wait for the disk.
    pub fn look_at_disk(&self) {
        let unanswered = self.disk_watch.unanswered_for().filter(|time| *time >= HANGS_AFTER);
        if self.disk_hangs.swap(unanswered.is_some(), Ordering::AcqRel) == unanswered.is_some() {
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
