//! Changes that operators make, and their results.

use crate::{Ask, Name, OwnedMessage, PolicyScope, PolicySpec, Reply, Settlement, Time, UserLimits, VhostSettings};

/// Who makes a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The user.
    pub user: Name,
    /// The user's tags: what the user may do besides the permissions.
    pub tags: Vec<String>,
    /// Where the user is, for logs and events.
    pub address: String,
    /// What a token says of the permissions. Without one, the permissions are those of the user.
    pub token: Option<TokenScopes>,
}

/// What a token allows its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenScopes {
    /// Its scopes, without a prefix.
    pub scopes: Vec<String>,
    /// When it expires, by the wall clock; `None`: never.
    pub expires: Option<Time>,
}

/// Something to change.
#[derive(Clone, Debug)]
pub enum Change {
    /// Add a vhost, or change its settings.
    PutVhost {
        /// Its name.
        vhost: Name,
        /// All of its settings.
        settings: VhostSettings,
        /// Whether the vhost is traced; `None`: as before.
        is_traced: Option<bool>,
    },
    /// Delete a vhost with everything in it. Its connections are closed.
    DeleteVhost(Name),
    /// Add a user, or change one. The limits stay as they are.
    PutUser {
        /// The name.
        user: Name,
        /// The stored form of the password, or the password.
        password: NewPassword,
        /// The tags.
        tags: Vec<String>,
    },
    /// Delete a user with all permissions. Connections of the user are closed.
    DeleteUser(Name),
    /// Set all limits of a user.
    SetUserLimits(Name, UserLimits),
    /// Set a user's permissions in a vhost.
    SetPermission {
        /// The user.
        user: Name,
        /// The vhost.
        vhost: Name,
        /// Regular expressions for configure, write and read.
        patterns: [String; 3],
    },
    /// Remove a user's permissions in a vhost.
    ClearPermission {
        /// The user.
        user: Name,
        /// The vhost.
        vhost: Name,
    },
    /// Set a user's permissions for the routing keys of a topic exchange.
    SetTopicPermission {
        /// The user.
        user: Name,
        /// The vhost.
        vhost: Name,
        /// The exchange, which need not exist.
        exchange: Name,
        /// Regular expressions for write and read.
        patterns: [String; 2],
    },
    /// Remove a user's permissions for routing keys in a vhost.
    ClearTopicPermissions {
        /// The user.
        user: Name,
        /// The vhost.
        vhost: Name,
        /// The exchange; `None`: all.
        exchange: Option<Name>,
    },
    /// Add a policy, or change it.
    SetPolicy {
        /// Its vhost.
        vhost: Name,
        /// Its kind.
        scope: PolicyScope,
        /// Its name.
        policy: Name,
        /// What it says.
        spec: PolicySpec,
    },
    /// Remove a policy.
    ClearPolicy {
        /// Its vhost.
        vhost: Name,
        /// Its kind.
        scope: PolicyScope,
        /// Its name.
        policy: Name,
    },
    /// NewPassword definitions, as RabbitMQ exports them in JSON. What cannot be used is left out.
    ImportDefinitions(Vec<u8>),
    /// What a client of the vhost may ask: declare and delete exchanges and queues, bind, unbind, purge.
    Request {
        /// The vhost.
        vhost: Name,
        /// What is asked.
        ask: Ask,
    },
    /// Publish a message. The answer comes when it is as safe as its queues promise.
    Publish {
        /// The vhost.
        vhost: Name,
        /// The message.
        message: Box<OwnedMessage>,
    },
    /// Take messages from a queue, and settle all of them.
    Get {
        /// The vhost.
        vhost: Name,
        /// The queue.
        queue: Name,
        /// How many, at most.
        messages: u32,
        /// How they are settled.
        settlement: Settlement,
    },
    /// Close a connection.
    CloseConnection {
        /// Its number since the start of the server: see [`super::ConnectionReport::serial`].
        serial: u64,
        /// The reason, which the client is told.
        reason: String,
    },
}

/// A password that is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NewPassword {
    /// The password, which is hashed.
    Password(Vec<u8>),
    /// A hash as RabbitMQ exports it, with the name of its algorithm; `None`: SHA-256.
    Hash {
        /// In base 64. Empty: no password is right.
        hash: String,
        /// Such as `rabbit_password_hashing_sha512`.
        algorithm: Option<String>,
    },
}

/// The result of a change.
#[derive(Clone, Debug)]
pub enum Changed {
    /// It is made.
    Done,
    /// It is made, and the object is new.
    Created,
    /// The answer to [`Change::Request`] and [`Change::Publish`].
    Answered(Reply),
    /// The messages for [`Change::Get`].
    Got(Vec<GotMessage>),
    /// How definitions were imported: sentences about what was left out, and about what has no meaning here.
    Imported {
        /// What cannot be used.
        left_out: Vec<String>,
        /// What has no meaning here.
        passed_over: Vec<String>,
    },
}

/// A message that was taken from a queue.
#[derive(Clone, Debug)]
pub struct GotMessage {
    /// The message.
    pub message: OwnedMessage,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// How many ready messages were left in the queue.
    pub remaining: u64,
}
