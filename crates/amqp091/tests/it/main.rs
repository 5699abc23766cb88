//! Tests: byte vectors, an independent codec as oracle, hostile input, and scripted conversations.

// A test may panic anywhere.
#![allow(clippy::unwrap_used)]

mod conversations;
mod deaths;
mod hostile;
mod hot_path;
mod oracle;
mod parts;
mod show;
mod text;
mod vectors;
