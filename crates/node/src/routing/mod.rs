//! What the node routes itself: dead letters, delayed messages, replies, events and trace messages.

pub(crate) mod dead_letters;
pub(crate) mod envelope;
pub(crate) mod internal_messages;
pub(crate) mod replies;
pub(crate) mod schedules;
