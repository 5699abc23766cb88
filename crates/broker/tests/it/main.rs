//! The broker from outside: against its reference model, its matching against tables of examples, and single
//! behaviours.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests say what they need, shortly")]

mod access;
mod arguments;
mod catalog;
mod dead_letters;
mod desk;
mod doubling;
mod hashing;
mod history;
mod jms;
mod matching;
mod named;
mod policies;
mod port;
mod queues;
mod random;
mod reference;
mod reproducible;
mod retry;
mod schedules;
mod sequences;
mod vhosts;
mod world;
