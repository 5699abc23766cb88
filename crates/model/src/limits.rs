//! Every limit in one place, each with the refusal that follows when it is exceeded.

/// Limits for every connection and queue of a node. Operators can set all of them; these are the documented defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest frame in bytes that a peer may send, offered in the handshake. Over it: a malformed frame.
    pub frame_bytes_max: u32,
    /// Most channels of a connection, offered in the handshake. Over it: [`crate::Refusal::NotAllowed`].
    pub channels_max: u16,
    /// Largest message body in bytes. Over it: [`crate::Refusal::PreconditionFailed`].
    pub message_bytes_max: u64,
    /// Most bytes of a message's properties, headers included: everything that is stored of a message except its body must
    /// fit into the smallest journal file. Over it: [`crate::Refusal::PreconditionFailed`].
    pub properties_bytes_max: usize,
    /// Heartbeat interval in milliseconds, offered in the handshake; a peer silent for two of them is closed.
    pub heartbeat_ms: u64,
    /// How long a handshake may take, in milliseconds. Over it the connection is closed.
    pub handshake_ms_max: u64,
    /// Most unsettled deliveries on one channel. At it, no further deliveries go to the channel.
    pub unacked_max: u32,
    /// Bytes that may wait for a connection's socket. At it, its subscriptions pause.
    pub outbox_bytes_max: usize,
    /// The consumer timeout: how long a consumer may hold a delivery, in milliseconds; 0 means no timeout.
    pub consumer_timeout_ms: u64,
    /// Whether a client may stop the deliveries of a channel. If not: [`crate::Refusal::NotImplemented`].
    pub flow_can_stop: bool,
    /// Messages that are decided while a shard is locked once.
    pub batch_messages_max: usize,
    /// A body of up to this many bytes is copied; a larger one is shared.
    pub copy_bytes_max: usize,
    /// Bytes of messages that have arrived only in part or wait for a commit, over all connections. Over it, the connection
    /// that holds the most is read no further, and closed if that lasts: [`crate::Refusal::ResourceLimit`].
    pub uploads_bytes_max: usize,
    /// Bytes of memory of the process; 0 means no limit. Over it, if connections hold more than half of it, the connection that holds the most is
    /// read no further, and closed if that lasts: [`crate::Refusal::ResourceLimit`].
    pub memory_bytes_max: u64,
    /// How long a frame or message may stay incomplete while nothing more of it arrives, in milliseconds; at most twice as
    /// long may pass until the connection is closed. 0 means no limit.
    pub incomplete_ms_max: u64,
    /// Bytes of the messages that all `x-recent-history` exchanges keep together. Over it they keep fewer.
    pub histories_bytes_max: usize,
    /// Most connections at once. Over it new ones are closed at once.
    pub connections_max: u32,
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
