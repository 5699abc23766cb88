//! The real binary: what it prints, what it answers, and how it ends.

// A test may fail where it stands.
#![allow(clippy::unwrap_used)]

mod life;
mod running;
mod tls;
