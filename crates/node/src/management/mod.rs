//! What operators see and change: definitions, counters, limits, events and the trace.

pub(crate) mod catalog_change;
pub(crate) mod client_facts;
pub(crate) mod counters;
pub(crate) mod definition_entries;
pub(crate) mod definition_import;
pub(crate) mod definition_limits;
pub(crate) mod definitions;
pub(crate) mod durable_changes;
pub(crate) mod erlang_terms;
pub(crate) mod events;
pub(crate) mod operations;
pub(crate) mod operator_client;
pub(crate) mod operator_login;
pub(crate) mod queries;
pub(crate) mod trace;
pub(crate) mod usage;
