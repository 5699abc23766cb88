//! What the tests of several crates share: folders, a clock that moves when a test says so, disks that wait or fail, and
//! a count of instructions.
//!
//! Only tests depend on this crate. It implements no trait of `node` or `server`: their unit tests are other crates than the
//! ones that this one would depend on, so each of them makes its hosts and peers of these parts.

// A test may fail where it stands.
#![allow(clippy::unwrap_used)]

mod callgrind;
mod clock;
mod fake_disk;
mod folder;
mod gate;

pub use callgrind::{Callgrind, counting};
pub use clock::{Clock, START};
pub use fake_disk::{Chance, FakeDisk, Faults};
pub use folder::Folder;
pub use gate::{Gate, GatedDisk};
