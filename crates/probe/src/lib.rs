//! A small line protocol for tests, which uses every part of the port between a protocol's crate and the node. It is
//! not part of the server.
//!
//! A client sends `LINES 1`, and then one request in each line. Answers begin with the number of their channel; 0 is the
//! connection. A refused request is answered with `CHANNEL refused REASON`, and the next one is carried out.
//!
//! Channels 1 and 2 are open. Their deliveries are written in pieces of four octets, one in each line, and each piece
//! takes one from the window of its channel. Answers wait behind the deliveries of their channel; returned messages pass
//! them. On all other channels a delivery is one line.
//!
//! ```text
//! declare Q                          1 queue has N
//! subscribe CHANNEL Q                CHANNEL subscribed      (deliveries are settled when they are sent)
//! publish Q TEXT                     CHANNEL TEXT            (to subscribers; the last piece with a full stop)
//! return TEXT                        1 returned
//! window CHANNEL N                   (N pieces more)
//! ping                               pong
//!
//! open CHANNEL [u16|u32] [ends]      CHANNEL open            (ends: a refusal ends the channel)
//! close CHANNEL                      CHANNEL closed
//! queue CHANNEL Q [durable|own|dead:QUEUE]   CHANNEL queue Q has N   (- for a name that the server chooses)
//! bind CHANNEL Q KEY [NUMBER]        CHANNEL bound           (to amq.topic)
//! confirms CHANNEL                   CHANNEL confirms        (each put is answered)
//! put CHANNEL Q TEXT [with PROPERTIES] [tx N]   CHANNEL put N OUTCOME   (durable; N counts the puts of the connection)
//! topic CHANNEL KEY TEXT             (to amq.topic)
//! get CHANNEL Q                      CHANNEL empty, or CHANNEL got #ID TEXT
//! take CHANNEL Q TAG CREDIT          CHANNEL taking TAG
//! take-all CHANNEL Q...              CHANNEL took yes no ... (one answer for several subscriptions)
//! credit CHANNEL TAG CREDIT          CHANNEL credit
//! tell CHANNEL IDS OUTCOME [tx N]    (IDS: 5, -5 up to 5, 2-4, all)
//! begin|commit|rollback CHANNEL N    CHANNEL begun|committed|rolled back
//! prepare CHANNEL N NAME             CHANNEL prepared
//! decide commit|rollback NAME        0 committed|rolled back
//! prepared                           0 prepared NAME...
//! attach NAME fresh|kept MS          0 attached new|old CHANNEL#ID...   (ids that are kept)
//! keep MS                            0 kept
//! bye                                0 bye
//! ```
//! CREDIT is `window N`, `grant N` or `pull N MS`. OUTCOME is `accept`, `keep` (accepted, id kept), `release MS`, `fail MS`,
//! `reject` or `extend MS`. A delivery is `CHANNEL TAG #ID TEXT {PROPERTIES}`, with `!` after the id where it may not be the
//! first, without braces where it has no properties, and with `by NUMBER` for each binding that asks to be named. The end of a pull is `CHANNEL TAG lapsed N`.

// A test may fail where it stands.
#![allow(clippy::unwrap_used)]

mod client;
mod dialect;
mod encoder;
mod request;
mod session;

pub use client::LineClient;
pub use dialect::{DIALECT, Pairs};
pub use session::{HEADER, Lines};
