//! The member itself: the locks, a decision under them, the work after it, and its start.

pub(crate) mod check;
pub(crate) mod disk;
pub(crate) mod failed_queues;
pub(crate) mod fitting;
pub(crate) mod gets;
pub(crate) mod host;
pub(crate) mod node;
pub(crate) mod prepared;
pub(crate) mod pull_timers;
pub(crate) mod start;
pub(crate) mod touched;
pub(crate) mod transition;
