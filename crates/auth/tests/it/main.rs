//! Tokens from outside, against tokens and keys that another program made.

#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, reason = "tests say what they need, shortly")]

mod tokens;
