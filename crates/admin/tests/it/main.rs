//! Tests of the HTTP interface over real sockets. The test sets the health of the server behind it.

// A test may panic anywhere.
#![allow(clippy::unwrap_used)]

mod api;
mod health;
mod limits;
mod site;
