//! Storage from outside: what was confirmed must be there again after every kind of end.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod basics;
mod bench;
mod faults;
mod filing;
mod fixtures;
mod fuzz;
mod merging;
mod packed;
mod promises;
mod rig;
mod sabotages;
mod simulation;
mod spill;
mod story;
mod unchanged;
