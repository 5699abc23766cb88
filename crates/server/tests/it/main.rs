//! The real binary: what it prints, what it answers, and how it ends.

// A test may fail where it stands.
#![allow(clippy::unwrap_used)]

mod bench;
#[expect(dead_code, reason = "the unit tests of the server use other parts of it")]
mod client;
mod definitions;
mod descriptors;
mod fairness;
mod life;
mod login;
mod logs;
mod memory;
mod panics;
mod running;
mod tls;
