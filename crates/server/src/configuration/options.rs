//! Every option, once.

use super::{
    Configuration,
    value::{self, Form, Unit},
};

/// One option.
pub struct Definition {
    /// Its key in the configuration file; before the dot stands the table.
    pub key: &'static str,
    /// What it takes.
    pub form: Form,
    /// What it does, for people.
    pub text: &'static str,
    show: fn(&Configuration) -> String,
    set: fn(&Self, &mut Configuration, &str) -> Result<(), String>,
}

impl std::fmt::Debug for Definition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Definition").field("key", &self.key).finish_non_exhaustive()
    }
}

impl Definition {
    /// Its flag, with the dashes.
    pub fn flag(&self) -> String {
        format!("--{}", self.key.replace(['.', '_'], "-"))
    }

    /// Its environment variable.
    pub fn variable(&self) -> String {
        format!("{}{}", super::PREFIX, self.key.replace('.', "_").to_uppercase())
    }

    /// The table of the file it stands in, empty for the top.
    pub fn table(&self) -> &'static str {
        self.key.split_once('.').map_or("", |(table, _)| table)
    }

    /// Whether it can be given several times, as a list.
    pub fn is_list(&self) -> bool {
        matches!(self.form, Form::Listeners | Form::Choices(_) | Form::Texts)
    }

    /// The value it has in `configuration`, as one would write it.
    pub fn show(&self, configuration: &Configuration) -> String {
        (self.show)(configuration)
    }

    /// Sets it.
    pub fn set(&self, configuration: &mut Configuration, value: &str) -> Result<(), String> {
        (self.set)(self, configuration, value)
    }
}

/// A number: the key is the path of the field, so the two cannot differ.
macro_rules! number {
    ($($field:ident).+, $unit:ident, $least:expr, $most:expr, $text:literal) => {
        Definition {
            key: key(concat!($(".", stringify!($field)),+)),
            form: Form::Number(Unit::$unit, $least..=$most),
            text: $text,
            show: |configuration| value::show_number(Unit::$unit, configuration.$($field).+ as u64),
            set: |_, configuration, text| {
                configuration.$($field).+ = value::number(text, Unit::$unit, &($least..=$most))?;
                Ok(())
            },
        }
    };
}

/// An option that `$read` understands.
macro_rules! other {
    ($($field:ident).+, $form:ident, $read:expr, $show:expr, $text:literal) => {
        Definition {
            key: key(concat!($(".", stringify!($field)),+)),
            form: Form::$form,
            text: $text,
            show: |configuration| $show(&configuration.$($field).+),
            set: |_, configuration, text| {
                configuration.$($field).+ = $read(text)?;
                Ok(())
            },
        }
    };
}

/// One of the words in `$names`.
macro_rules! choice {
    ($($field:ident).+, $names:expr, $text:literal) => {
        Definition {
            key: key(concat!($(".", stringify!($field)),+)),
            form: Form::Choice(|| value::names_of($names)),
            text: $text,
            show: |configuration| value::show_choice(&configuration.$($field).+, $names),
            set: |_, configuration, text| {
                configuration.$($field).+ = value::choice(text, $names)?;
                Ok(())
            },
        }
    };
}

/// The macros put a dot before every part of a path.
const fn key(dotted: &'static str) -> &'static str {
    dotted.split_at(1).1
}

/// Most seconds of a heartbeat: the protocol has 16 bits for them.
const HEARTBEAT_MS_MAX: u64 = 65_535_000;

/// All options, in the order in which the documentation lists them.
pub const OPTIONS: &[Definition] = &[
    other!(
        data_dir,
        Path,
        path,
        |dir: &std::path::Path| dir.display().to_string(),
        "Where everything durable is kept; made if it is not there. Only one server at a time can use it"
    ),
    other!(
        definitions,
        File,
        file,
        show_file,
        "Users, vhosts, permissions, policies, exchanges, queues and bindings that are set up at every start, in a file \
         that RabbitMQ exported (docs/definitions.md)"
    ),
    Definition {
        key: "auth_backends",
        form: Form::Choices(|| value::names_of(value::BACKENDS)),
        text: "Where users and their rights are looked for, one place after the other: among those that were set up here \
               (internal), or in a token that is shown as a password (oauth2; docs/oauth2.md)",
        show: |configuration| value::show_choices(&configuration.auth_backends, value::BACKENDS),
        set: |_, configuration, text| {
            configuration.auth_backends = value::choices(text, value::BACKENDS)?;
            Ok(())
        },
    },
    other!(
        listen,
        Listeners,
        value::listeners,
        show_listeners,
        "Serve a protocol on an address. Port 0 picks a free port. Can be given several times; as soon as one is given, \
         only the given ones open"
    ),
    other!(
        log_level,
        Level,
        value::level,
        |level: &tracing::Level| level.to_string().to_lowercase(),
        "How much is logged to standard error"
    ),
    number!(threads, Count, 0, 1_024, "How many threads serve connections; 0 is one for each processor"),
    other!(
        tls.certificate_file,
        File,
        file,
        show_file,
        "The server's certificate, and behind it those that lead to its authority, in PEM form. With it and its key, \
         amqps is served too"
    ),
    other!(tls.key_file, File, file, show_file, "The key of the server's certificate, in PEM form"),
    choice!(
        tls.client_certificates,
        value::CLIENT_CERTIFICATES,
        "Whether clients show certificates: they are not asked (none), whoever shows one must show a good one \
         (optional), or whoever has none is refused (required)"
    ),
    other!(
        tls.client_ca_file,
        File,
        file,
        show_file,
        "The authorities that clients' certificates must come from, in PEM form"
    ),
    choice!(
        tls.login_from,
        value::LOGIN_PARTS,
        "The part of a client's certificate that names the user, for clients that log in with the mechanism EXTERNAL \
         (docs/tls.md). With none, it is not offered"
    ),
    choice!(
        tls.login_san_type,
        value::SAN_TYPES,
        "Where the user's name is an alternative name of the certificate, of which type"
    ),
    number!(tls.login_san_index, Count, 0, 1_000, "Which of the alternative names of that type it is, from 0"),
    other!(
        oauth2.resource_server_id,
        Text,
        some_text,
        show_text,
        "What tokens for this server have in their audience, and their scopes begin with"
    ),
    other!(
        oauth2.scope_prefix,
        Text,
        |text: &str| Ok::<_, String>(Some(text.to_owned())),
        show_text,
        "What the scopes that concern this server begin with, where it is not its id and a dot; it may be empty"
    ),
    other!(
        oauth2.additional_scopes_key,
        Text,
        some_text,
        show_text,
        "A claim with further scopes; a.b is b in a. Several are separated by spaces"
    ),
    other!(
        oauth2.preferred_username_claims,
        Texts,
        value::texts,
        |claims: &[String]| if claims.is_empty() { "none".to_owned() } else { claims.join(", ") },
        "The claims that may name the user, before sub and client_id"
    ),
    choice!(oauth2.verify_aud, value::YES_OR_NO, "Whether a token must have this server in its audience"),
    other!(oauth2.jwks_file, File, file, show_file, "The keys that tokens are signed with, as a JSON Web Key Set"),
    other!(
        oauth2.public_key_file,
        File,
        file,
        show_file,
        "A public key that tokens are signed with whichever they name, or a certificate with it, in PEM form"
    ),
    other!(
        identity.product,
        Text,
        value::text,
        String::clone,
        "The product that AMQP clients see. Some of them, such as Celery, use features only where they know it"
    ),
    other!(
        identity.version,
        Text,
        value::text,
        String::clone,
        "The version that AMQP clients see, for the same reason; FerryMQ's own is sent as x-version"
    ),
    other!(identity.cluster, Text, value::text, String::clone, "The name of the cluster that AMQP clients see"),
    number!(limits.connections_max, Count, 1, 1_000_000, "Most connections at once; further ones are closed at once"),
    number!(
        limits.channels_max,
        Count,
        1,
        65_535,
        "Most channels of a connection. One more closes the connection (530)"
    ),
    number!(limits.frame_bytes_max, Bytes, 4_096, 16 << 20, "Largest frame. A larger one closes the connection (501)"),
    number!(
        limits.message_bytes_max,
        Bytes,
        1,
        512 << 20,
        "Largest body of a message. A larger one closes its channel (406)"
    ),
    number!(
        limits.heartbeat_ms,
        Named,
        0,
        HEARTBEAT_MS_MAX,
        "Heartbeat interval that is offered to clients, in milliseconds; who is silent for two of them is disconnected. 0 \
         is none"
    ),
    number!(limits.handshake_ms_max, Named, 100, 600_000, "How long a client may take to log in, in milliseconds"),
    number!(
        limits.unacked_max,
        Count,
        1,
        1 << 24,
        "Most unacknowledged deliveries of a channel, whatever its prefetch; at it, no further ones are sent"
    ),
    number!(
        limits.properties_bytes_max,
        Bytes,
        4 << 10,
        128 << 10,
        "Most bytes of a message's properties, headers included. More closes the channel (406)"
    ),
    number!(
        limits.uploads_bytes_max,
        Bytes,
        1 << 20,
        1 << 40,
        "Most bytes of messages that have arrived in part or wait for a commit, over all connections; who sends more is \
         disconnected (506)"
    ),
    number!(
        limits.histories_bytes_max,
        Bytes,
        0,
        1 << 40,
        "Most bytes of the messages that x-recent-history exchanges keep, over all of them; then they keep fewer"
    ),
    number!(
        limits.consumer_timeout_ms,
        Named,
        0,
        4_294_967_295,
        "How long a consumer may hold a delivery, in milliseconds, before its channel is closed; 0 is without end"
    ),
    choice!(
        events,
        value::NO_OR_YES,
        "Whether what happens (queues, exchanges, bindings, connections, logins) is told on the exchange amq.rabbitmq.event of \
         vhost / (docs/tracing.md)"
    ),
    choice!(
        limits.flow_can_stop,
        value::NO_OR_YES,
        "Whether a client may stop the deliveries of a channel with channel.flow, until it takes them again. RabbitMQ does \
         not allow it, and clients expect that (540)"
    ),
    number!(
        limits.outbox_bytes_max,
        Bytes,
        64 << 10,
        1 << 30,
        "Bytes that may wait for a slow client's socket; at it, its consumers pause until it reads on"
    ),
    number!(
        limits.batch_messages_max,
        Count,
        1,
        4_096,
        "Messages that one connection publishes before others have their turn"
    ),
    number!(
        limits.copy_bytes_max,
        Bytes,
        0,
        64 << 10,
        "Bodies up to this are copied, larger ones are shared. For measurements"
    ),
    number!(
        storage.file_bytes,
        Bytes,
        256 << 10,
        1 << 30,
        "Length of one journal file. Fixed when a data directory is made"
    ),
    number!(
        storage.files,
        Count,
        5,
        64,
        "How many journal files there are; one of them is kept for acknowledgements when the disk is full. Fixed when a \
         data directory is made"
    ),
    number!(
        storage.transient_bytes_max,
        Bytes,
        1 << 20,
        1 << 40,
        "How much of transient messages stays in memory; the rest waits on disk"
    ),
    number!(
        storage.read_bytes_max,
        Bytes,
        1 << 20,
        1 << 40,
        "How much of what was read back from disk stays in memory"
    ),
    number!(storage.own_file_bytes, Bytes, 64 << 10, 512 << 20, "Bodies over this get a file of their own"),
    number!(
        storage.merge_bytes,
        Bytes,
        4 << 10,
        1 << 40,
        "Length of a file of waiting messages that is written anew once three quarters of them are settled"
    ),
    number!(storage.extents_max, Count, 2, 1 << 20, "In how many such files a queue may be; in more, they are merged"),
    number!(storage.group_bytes, Bytes, 4 << 10, 16 << 20, "Under load, a flush waits until it has this much to write"),
    number!(
        storage.group_messages,
        Count,
        1,
        65_536,
        "With fewer messages than this to write, a flush does not wait for more"
    ),
    number!(storage.group_wait_us, Named, 0, 100_000, "The longest that a flush waits for more, in microseconds"),
    number!(
        storage.write_wait_ms,
        Named,
        1,
        1_000,
        "When acknowledgements are written at the latest, in milliseconds; only what was written outlives a killed process"
    ),
    number!(
        storage.sync_wait_ms,
        Named,
        1,
        1_000,
        "When acknowledgements are synced at the latest, in milliseconds; only what was synced outlives a power cut"
    ),
];

fn file(text: &str) -> Result<Option<std::path::PathBuf>, String> {
    path(text).map(Some)
}

fn show_file(file: &Option<std::path::PathBuf>) -> String {
    file.as_ref().map_or_else(|| "none".into(), |file| file.display().to_string())
}

fn some_text(text: &str) -> Result<Option<String>, String> {
    value::text(text).map(Some)
}

fn show_text(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "none".into())
}

fn path(text: &str) -> Result<std::path::PathBuf, String> {
    value::text(text).map(Into::into)
}

fn show_listeners(listen: &[value::Listen]) -> String {
    let shown: Vec<String> = if listen.is_empty() {
        crate::protocol::Service::all()
            .filter(|service| !service.is_secure)
            .map(|service| format!("{}=127.0.0.1:{}", service.name, service.port))
            .collect()
    } else {
        listen.iter().map(ToString::to_string).collect()
    };
    shown.join(", ")
}
