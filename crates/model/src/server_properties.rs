//! How the server presents itself to clients.

/// The names and versions that the server sends to clients. Clients make decisions by product and version, so these two
/// are RabbitMQ's.
#[derive(Clone, Debug)]
pub struct ServerProperties {
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

impl Default for ServerProperties {
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
