//! The HTTP interface over real sockets, with a server behind it whose health the test decides.

// A test may fail where it stands.
#![allow(clippy::unwrap_used)]

mod health;
mod limits;
mod site;
