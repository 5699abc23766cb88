//! Client sessions: what belongs to a client and may outlive its connection.

pub(crate) mod attach;
pub(crate) mod redelivery;
pub(crate) mod table;
