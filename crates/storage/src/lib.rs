//! The storage engine: one journal for all queues of a data directory, runs for what waits long, a checkpoint for the
//! rest. It knows messages, queues, sequences and opaque catalog entries, and speaks no protocol.
//!
//! [`open`] reads a data directory and gives a [`Store`], which is owned under the shard's lock and never waits for the
//! disk. Storage's own threads write, sync and read; they tell what they did through [`Notify`]. Files are opened
//! through [`Disk`] alone.
//!
//! A message's way: [`Store::enqueue`] writes it into the journal's memory, the flush thread writes and syncs that
//! ([`Notify::durable`]), [`Store::next`] finds it, [`Store::settle`] takes it out.

mod blob;
mod cache;
mod check;
mod checkpoint;
mod disk;
mod driver;
mod error;
mod extent;
mod fields;
mod filing;
mod image;
mod journal;
mod lookup;
mod manifest;
mod mark;
mod merge;
mod notify;
mod options;
mod queue;
mod read_ahead;
mod recover;
mod replay;
mod run;
mod sabotage;
mod segment;
mod spill;
mod stats;
mod store;
mod stored;
mod transient;

pub use check::Damage;
pub use disk::{Disk, DiskFile, DiskLock, Open, RealDisk, UnchangedDisk};
pub use driver::{Driver, Turn, Worker};
pub use error::{FatalError, OpenError};
pub use filing::{BodyFiles, Filing};
pub use journal::DiskWatch;
pub use lookup::{Handle, Next};
pub use notify::{Backpressure, Notify, Stall};
pub use options::Options;
pub use recover::{Recovered, RecoveredQueue, open, open_driven};
pub use stats::{Memory, QueueStats, Stats};
pub use store::Store;
