//! Tests of a whole node, with a clock that stands still and a disk that can be blocked.

pub(crate) mod catalog;
mod check;
pub(crate) mod confirms;
pub(crate) mod credit;
pub(crate) mod definitions;
pub(crate) mod doubling;
pub(crate) mod gets;
pub(crate) mod ledger;
pub(crate) mod login;
pub(crate) mod management;
pub(crate) mod messages;
pub(crate) mod pacing;
pub(crate) mod port;
pub(crate) mod prepared;
pub(crate) mod publish;
pub(crate) mod rig;
pub(crate) mod session;
pub(crate) mod settle;
pub(crate) mod talk;
pub(crate) mod unbinding;
