//! The room's tests: byte vectors, an independent codec as oracle, and hostile input.

// A test may fail where it stands.
#![allow(clippy::unwrap_used)]

mod hostile;
mod oracle;
mod vectors;
