//! All limits, each with the refusal that a client gets when it exceeds the limit.

/// Limits for every connection and queue of a node. Operators can set all of them; these are the documented defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest frame that a peer may send, in bytes; offered in the handshake. A larger frame is malformed.
    pub frame_bytes_max: u32,
    /// The maximum number of channels of a connection; offered in the handshake. Over it:
    /// [`crate::Refusal::NotAllowed`].
    pub channels_max: u16,
    /// The largest message body, in bytes. Over it: [`crate::Refusal::PreconditionFailed`].
    pub message_bytes_max: u64,
    /// The maximum length of a message's properties with its headers, in bytes: all of a message except its body must
    /// fit into the smallest journal file. Over it: [`crate::Refusal::PreconditionFailed`].
    pub properties_bytes_max: usize,
    /// The heartbeat interval in milliseconds; offered in the handshake. If a peer sends nothing for two intervals, its
    /// connection is closed.
    pub heartbeat_ms: u64,
    /// How long a handshake may take, in milliseconds. After that the connection is closed.
    pub handshake_ms_max: u64,
    /// The maximum number of unsettled deliveries on one channel. At the maximum, the channel gets no further
    /// deliveries.
    pub unacked_max: u32,
    /// How many bytes may wait for a connection's socket. At the limit, the connection's subscriptions pause.
    pub outbox_bytes_max: usize,
    /// The consumer timeout: how long a consumer may hold a delivery, in milliseconds; 0 means no timeout.
    pub consumer_timeout_ms: u64,
    /// Whether a client may stop the deliveries of a channel. If not: [`crate::Refusal::NotImplemented`].
    pub flow_can_stop: bool,
    /// The maximum number of messages that are decided while a shard is locked once.
    pub batch_messages_max: usize,
    /// The length up to which a body is copied, in bytes. A longer body is shared.
    pub copy_bytes_max: usize,
    /// How many bytes of messages may have arrived only in part or wait for a commit, over all connections. Over the
    /// limit, the server reads no more from the connection that holds the most, and closes it if that lasts:
    /// [`crate::Refusal::ResourceLimit`].
    pub uploads_bytes_max: usize,
    /// The memory of the process, in bytes; 0 means no limit. Over the limit, if connections hold more than half of it,
    /// the server takes the user whose connections hold the most together. It reads no more from that user's connection
    /// that holds the most, and closes it if that lasts: [`crate::Refusal::ResourceLimit`].
    pub memory_bytes_max: u64,
    /// How long a frame or message may stay incomplete while no more of it arrives, in milliseconds. The connection is
    /// closed after this time, or after twice this time at the latest. 0 means no limit.
    pub incomplete_ms_max: u64,
    /// How many bytes of messages all `x-recent-history` exchanges may keep together. At the limit they keep fewer
    /// messages.
    pub histories_bytes_max: usize,
    /// The maximum number of connections at the same time. Further connections are closed at once.
    pub connections_max: u32,
}

impl Limits {
    /// The maximum length of the name of a prepared transaction, in bytes.
    pub const PREPARED_NAME_BYTES_MAX: usize = 255;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            frame_bytes_max: 131_072,
            channels_max: 2_047,
            message_bytes_max: 128 << 20,
            properties_bytes_max: 128 << 10,
            heartbeat_ms: 60_000,
            handshake_ms_max: 10_000,
            unacked_max: 1 << 20,
            outbox_bytes_max: 1 << 20,
            consumer_timeout_ms: 30 * 60_000,
            flow_can_stop: false,
            batch_messages_max: 128,
            copy_bytes_max: 2_048,
            uploads_bytes_max: 512 << 20,
            memory_bytes_max: 0,
            incomplete_ms_max: 60_000,
            histories_bytes_max: 64 << 20,
            connections_max: 100_000,
        }
    }
}
