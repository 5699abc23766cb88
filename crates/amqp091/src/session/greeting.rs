//! The frame of connection.start, in which the server describes itself before the login.

use ferrymq_model::{Dialect, Dialects, Limits, Mechanism, ServerProperties};

use super::mechanism;
use crate::{
    codec::{
        frame::put_method,
        methods::ConnectionStart,
        table::{RawTable, RawValue, put_key, put_value},
    },
    mapping::PropertyList,
};

/// The capabilities that the server offers, with RabbitMQ's names. All of them are implemented.
const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

/// The part that all connections of a listener share. It is made once, and all their sessions use it.
#[derive(Debug)]
pub struct Greeting {
    /// The limits that the handshake offers, and that hold after it.
    pub(super) limits: Limits,
    /// The mechanisms by which clients may log in.
    pub(super) mechanisms: Vec<Mechanism>,
    /// The frame of connection.start.
    pub(super) start: Vec<u8>,
    /// The dialects of the messages that clients may get.
    pub(super) dialects: Dialects,
}

impl Greeting {
    /// The greeting of a server with these limits, on which clients log in with a password in one step.
    #[must_use]
    pub fn new(properties: &ServerProperties, limits: Limits) -> Self {
        Self::offering(mechanism::USUAL, properties, limits)
    }

    /// The same, for a server with these dialects. Without this there is only that of AMQP 0-9-1.
    #[must_use]
    pub fn with_dialects(self, dialects: Dialects) -> Self {
        Self { dialects, ..self }
    }

    /// The greeting of a server with these mechanisms, in the order in which it names them.
    #[must_use]
    pub fn offering(offered: &[Mechanism], properties: &ServerProperties, limits: Limits) -> Self {
        let mut capabilities = Vec::new();
        for capability in CAPABILITIES {
            put_key(&mut capabilities, capability);
            put_value(&mut capabilities, &RawValue::Bool(true));
        }
        let mut table = Vec::new();
        put_key(&mut table, "capabilities");
        put_value(&mut table, &RawValue::Table(RawTable::check(&capabilities).expect("we write well-formed tables")));
        let texts = [
            ("cluster_name", properties.cluster.as_str()),
            ("information", "compatible with the product named here; x-product says what it is"),
            ("platform", "Rust"),
            ("product", &properties.product),
            ("version", &properties.version),
            ("x-product", &properties.real_product),
            ("x-version", &properties.real_version),
        ];
        for (key, text) in texts {
            put_key(&mut table, key);
            put_value(&mut table, &RawValue::Text(text.as_bytes()));
        }
        let server_properties = RawTable::check(&table).expect("we write well-formed tables");
        let names = offered.iter().map(|mechanism| mechanism.name()).collect::<Vec<_>>().join(" ");
        let (mechanisms, locales) = (names.as_bytes(), &b"en_US"[..]);
        let start = ConnectionStart { version_major: 0, version_minor: 9, server_properties, mechanisms, locales };
        let mut frame = Vec::new();
        put_method(&mut frame, 0, &start);
        let own: &'static dyn Dialect = &PropertyList;
        Self { limits, mechanisms: offered.to_vec(), start: frame, dialects: Dialects::new([own]) }
    }
}
