//! The frame of connection.start, in which the server describes itself before the login.

use ferrymq_model::Limits;

use super::mechanism::{self, Mechanism};
use crate::codec::{
    frame::put_method,
    methods::ConnectionStart,
    table::{RawTable, RawValue, put_key, put_value},
};

/// The names and versions that the server sends to clients. Clients make decisions by product and version, so these two
/// are RabbitMQ's.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `product`
    pub product: String,
    /// `version`
    pub version: String,
    /// `x-product`: the real product.
    pub real_product: String,
    /// `x-version`
    pub real_version: String,
    /// `cluster_name`
    pub cluster: String,
}

impl Default for Identity {
    fn default() -> Self {
        Self {
            product: "RabbitMQ".into(),
            version: "3.13.7".into(),
            real_product: "FerryMQ".into(),
            real_version: env!("CARGO_PKG_VERSION").into(),
            cluster: "ferrymq".into(),
        }
    }
}

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
    pub(super) mechanisms: &'static [Mechanism],
    /// The frame of connection.start.
    pub(super) start: Vec<u8>,
}

impl Greeting {
    /// The greeting of a server with these limits.
    #[must_use]
    pub fn new(identity: &Identity, limits: Limits) -> Self {
        Self::offering(mechanism::WITH_PASSWORDS, identity, limits)
    }

    /// The same, for a listener on which a client's certificate can name the user.
    #[must_use]
    pub fn with_certificates(identity: &Identity, limits: Limits) -> Self {
        Self::offering(mechanism::WITH_CERTIFICATES, identity, limits)
    }

    fn offering(offered: &'static [Mechanism], identity: &Identity, limits: Limits) -> Self {
        let mut capabilities = Vec::new();
        for capability in CAPABILITIES {
            put_key(&mut capabilities, capability);
            put_value(&mut capabilities, &RawValue::Bool(true));
        }
        let mut properties = Vec::new();
        put_key(&mut properties, "capabilities");
        put_value(
            &mut properties,
            &RawValue::Table(RawTable::check(&capabilities).expect("we write well-formed tables")),
        );
        let texts = [
            ("cluster_name", identity.cluster.as_str()),
            ("information", "compatible with the product named here; x-product says what it is"),
            ("platform", "Rust"),
            ("product", &identity.product),
            ("version", &identity.version),
            ("x-product", &identity.real_product),
            ("x-version", &identity.real_version),
        ];
        for (key, text) in texts {
            put_key(&mut properties, key);
            put_value(&mut properties, &RawValue::Text(text.as_bytes()));
        }
        let server_properties = RawTable::check(&properties).expect("we write well-formed tables");
        let names = offered.iter().map(|mechanism| mechanism.name()).collect::<Vec<_>>().join(" ");
        let (mechanisms, locales) = (names.as_bytes(), &b"en_US"[..]);
        let start = ConnectionStart { version_major: 0, version_minor: 9, server_properties, mechanisms, locales };
        let mut frame = Vec::new();
        put_method(&mut frame, 0, &start);
        Self { limits, mechanisms: offered, start: frame }
    }
}
