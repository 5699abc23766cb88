//! Every option, once.

use super::{
    Configuration,
    value::{self, Form, Unit},
};

/// One option.
pub struct Definition {
    /// Its key in the configuration file; the table is the part before the dot.
    pub key: &'static str,
    /// The form of its value.
    pub form: Form,
    /// What it does, for users.
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

    /// Its value in `configuration`, as a user would write it.
    pub fn show(&self, configuration: &Configuration) -> String {
        (self.show)(configuration)
    }

    /// Sets it.
    pub fn set(&self, configuration: &mut Configuration, value: &str) -> Result<(), String> {
        (self.set)(self, configuration, value)
    }
}

/// A number. The key is the path of the field, so the two cannot differ.
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

/// Something that is on or off.
macro_rules! switch {
    ($($field:ident).+, $text:literal) => {
        Definition {
            key: key(concat!($(".", stringify!($field)),+)),
            form: Form::Switch,
            text: $text,
            show: |configuration| value::show_switch(configuration.$($field).+),
            set: |_, configuration, text| {
                configuration.$($field).+ = value::switch(text)?;
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

/// The maximum of a heartbeat, in seconds: the protocol has 16 bits for it.
const HEARTBEAT_MS_MAX: u64 = 65_535_000;

/// All options, in the order in which the documentation lists them.
pub const OPTIONS: &[Definition] = &[
    other!(
        data_dir,
        Path,
        path,
        |dir: &std::path::Path| dir.display().to_string(),
        "The directory for all durable data. FerryMQ creates it if it does not exist. Only one server at a time can use \
         it"
    ),
    other!(
        definitions,
        File,
        file,
        show_file,
        "A definitions file as RabbitMQ exports it (docs/definitions.md). At every start it sets up users, vhosts, \
         permissions, policies, exchanges, queues and bindings"
    ),
    switch!(
        definitions_strict,
        "Whether an entry of the definitions file that cannot be used, or an unknown key, stops the start; then the server \
         imports nothing. Otherwise it leaves such entries out and logs each of them"
    ),
    switch!(definitions_reload, "Whether the server also imports the definitions file on SIGHUP"),
    Definition {
        key: "auth_backends",
        form: Form::Choices(|| value::names_of(value::BACKENDS)),
        text: "Where the server looks for users and their permissions, in this order: in its own definitions \
               (internal), or in a token that the client sends as its password (oauth2; docs/oauth2.md)",
        show: |configuration| value::show_choices(&configuration.auth_backends, value::BACKENDS),
        set: |_, configuration, text| {
            configuration.auth_backends = value::choices(text, value::BACKENDS)?;
            Ok(())
        },
    },
    Definition {
        key: "auth_mechanisms",
        form: Form::Choices(|| value::names_of(value::MECHANISMS)),
        text: "The mechanisms by which clients log in, in the order in which the server names them. The server offers \
               EXTERNAL only under TLS and with tls.login_from (docs/tls.md). RABBIT-CR-DEMO is for tests of clients: it \
               is PLAIN in two steps",
        show: |configuration| value::show_choices(&configuration.auth_mechanisms, value::MECHANISMS),
        set: |_, configuration, text| {
            configuration.auth_mechanisms = value::choices(text, value::MECHANISMS)?;
            Ok(())
        },
    },
    other!(
        http_hosts,
        Texts,
        value::texts,
        |hosts: &[String]| if hosts.is_empty() { "none".to_owned() } else { hosts.join(", ") },
        "More names by which clients on this machine may call the HTTP API, besides localhost, addresses and the \
         machine's own name; for a proxy on this machine that passes on the name that its clients use. So no page in a \
         browser reaches the API by a name of its own"
    ),
    other!(
        listen,
        Listeners,
        value::listeners,
        show_listeners,
        "Serve a protocol on an address. Port 0 picks a free port. The option can be given several times. As soon as \
         one address is given, the default listeners do not open"
    ),
    other!(
        log_level,
        Level,
        value::level,
        |level: &tracing::Level| level.to_string().to_lowercase(),
        "How much the server logs to standard error. SIGHUP applies a new value"
    ),
    number!(threads, Count, 0, 1_024, "The number of threads that serve connections; 0 means one for each processor"),
    switch!(
        events,
        "Whether the server publishes events (of queues, exchanges, bindings, connections, logins) to the exchange \
         amq.rabbitmq.event of the vhost / (docs/tracing.md)"
    ),
    other!(
        tls.certificate_file,
        File,
        file,
        show_file,
        "The server's certificate in PEM form, followed by the intermediate certificates up to its authority. With \
         certificate and key, the default listeners also include amqps; if listen is given, it must name amqps. The server \
         reads the files again on SIGHUP"
    ),
    other!(tls.key_file, File, file, show_file, "The private key of the server's certificate, in PEM form"),
    choice!(
        tls.client_certificates,
        value::CLIENT_CERTIFICATES,
        "Whether the server asks clients for a certificate: never (none); a client may have none, but a wrong one is \
         refused (optional); a client without a good one is refused (required)"
    ),
    other!(
        tls.client_ca_file,
        File,
        file,
        show_file,
        "The authorities that must have signed the clients' certificates, in PEM form"
    ),
    choice!(
        tls.login_from,
        value::LOGIN_PARTS,
        "The part of a client's certificate that names the user, for the login mechanism EXTERNAL (docs/tls.md). With \
         none, the server does not offer EXTERNAL"
    ),
    choice!(
        tls.login_san_type,
        value::SAN_TYPES,
        "The type of the alternative name that names the user, with login_from subject_alternative_name"
    ),
    number!(
        tls.login_san_index,
        Count,
        0,
        1_000,
        "Which of the alternative names of that type names the user, counted from 0"
    ),
    other!(
        oauth2.resource_server_id,
        Text,
        some_text,
        show_text,
        "The name of this server in tokens: their audience must contain it, and scopes begin with it and a dot, unless \
         scope_prefix is given"
    ),
    other!(
        oauth2.scope_prefix,
        Text,
        |text: &str| Ok::<_, String>(Some(text.to_owned())),
        show_text,
        "The text with which scopes for this server begin, in place of resource_server_id and a dot. It may be empty"
    ),
    other!(
        oauth2.additional_scopes_key,
        Text,
        some_text,
        show_text,
        "A claim that contains further scopes; a.b means the claim b inside the claim a. Several are separated by \
         commas or spaces"
    ),
    other!(
        oauth2.preferred_username_claims,
        Texts,
        value::texts,
        |claims: &[String]| if claims.is_empty() { "none".to_owned() } else { claims.join(", ") },
        "The claims that can name the user, separated by commas or spaces. The first that a token has counts; then sub, \
         then client_id"
    ),
    switch!(oauth2.verify_aud, "Whether a token's audience must contain this server"),
    other!(oauth2.jwks_file, File, file, show_file, "The keys for the signatures of tokens, as a JSON Web Key Set"),
    other!(
        oauth2.public_key_file,
        File,
        file,
        show_file,
        "One public key for the signatures of tokens, or a certificate that contains it, in PEM form. It is tried \
         whatever key a token names"
    ),
    other!(
        identity.product,
        Text,
        value::text,
        String::clone,
        "The product name that AMQP clients see. Some clients, such as Celery, use certain features only with a product \
         that they know"
    ),
    other!(
        identity.version,
        Text,
        value::text,
        String::clone,
        "The version that AMQP clients see, for the same reason. FerryMQ's own version is sent as x-version"
    ),
    other!(identity.cluster, Text, value::text, String::clone, "The name of the cluster that AMQP clients see"),
    number!(
        limits.connections_max,
        Count,
        1,
        1_000_000,
        "The maximum number of open connections. The server closes a connection above it at once"
    ),
    number!(
        limits.channels_max,
        Count,
        1,
        65_535,
        "The maximum number of channels of one connection. One more closes the connection (530)"
    ),
    number!(
        limits.frame_bytes_max,
        Bytes,
        4_096,
        16 << 20,
        "The largest frame. A larger one closes the connection (501)"
    ),
    number!(
        limits.message_bytes_max,
        Bytes,
        1,
        512 << 20,
        "The largest body of a message. A larger one closes its channel (406)"
    ),
    number!(
        limits.heartbeat_ms,
        Named,
        0,
        HEARTBEAT_MS_MAX,
        "The heartbeat interval that the server offers to clients, in milliseconds. It disconnects a client that is \
         silent for two intervals. 0 means no heartbeats"
    ),
    number!(limits.handshake_ms_max, Named, 100, 600_000, "How long a client may take to log in, in milliseconds"),
    number!(
        limits.unacked_max,
        Count,
        1,
        1 << 24,
        "The maximum number of unacknowledged deliveries of one channel, whatever its prefetch. At the limit the \
         channel gets no more deliveries"
    ),
    number!(
        limits.properties_bytes_max,
        Bytes,
        4 << 10,
        128 << 10,
        "The largest properties of a message, headers included. Larger ones close the channel (406)"
    ),
    number!(
        limits.uploads_bytes_max,
        Bytes,
        1 << 20,
        1 << 40,
        "The memory for messages that have arrived only in part or wait for a commit, over all connections. Above it the \
         server reads no more from the connection that holds the most of it, and disconnects it after a second (506)"
    ),
    number!(
        limits.memory_bytes_max,
        Bytes,
        0,
        1 << 50,
        "The memory budget of the process; 0 means 40 % of the machine's memory, or of the cgroup's limit if there is one. Above \
         it, if connections hold more than half of it (messages in part, unread input, open transactions, output that \
         clients do not read), the server takes the user whose connections hold the most together, reads no more from the \
         largest of them, and disconnects it after a second (506)"
    ),
    number!(
        limits.incomplete_ms_max,
        Named,
        0,
        86_400_000,
        "How long a frame or a message may stay incomplete while nothing more of it arrives, in milliseconds. After that \
         time, or at most twice that time, the server disconnects the client (506). 0 means no limit"
    ),
    number!(
        limits.histories_bytes_max,
        Bytes,
        0,
        1 << 40,
        "The memory for the messages that all x-recent-history exchanges keep together. At the limit they keep fewer \
         messages"
    ),
    number!(
        limits.consumer_timeout_ms,
        Named,
        0,
        4_294_967_295,
        "The consumer timeout: how long a consumer may hold a delivery before its channel is closed, in milliseconds. 0 \
         means no timeout"
    ),
    switch!(
        limits.flow_can_stop,
        "Whether a client may stop the deliveries of a channel with channel.flow. RabbitMQ refuses this with 540, and \
         some clients expect the refusal"
    ),
    number!(
        limits.outbox_bytes_max,
        Bytes,
        64 << 10,
        1 << 30,
        "How many bytes may wait for a slow client's socket. At the limit its consumers pause until the client reads \
         again"
    ),
    number!(
        limits.batch_messages_max,
        Count,
        1,
        4_096,
        "How many messages one connection may publish before it is another connection's turn"
    ),
    number!(
        limits.copy_bytes_max,
        Bytes,
        0,
        64 << 10,
        "The largest body that the server copies; it shares larger ones. For measurements only"
    ),
    number!(
        storage.file_bytes,
        Bytes,
        256 << 10,
        1 << 30,
        "The length of one journal file. It is fixed when a data directory is created; another length is refused afterwards"
    ),
    number!(
        storage.files,
        Count,
        5,
        64,
        "The number of journal files. One of them is reserved for acknowledgements when the disk is full. The number is \
         fixed when a data directory is created; another number is refused afterwards"
    ),
    number!(
        storage.transient_bytes_max,
        Bytes,
        1 << 20,
        1 << 40,
        "The memory for transient messages. The rest waits on disk"
    ),
    number!(storage.read_bytes_max, Bytes, 1 << 20, 1 << 40, "The memory for messages that were read back from disk"),
    number!(storage.own_file_bytes, Bytes, 64 << 10, 512 << 20, "A body larger than this gets its own file"),
    number!(
        storage.merge_bytes,
        Bytes,
        4 << 10,
        1 << 40,
        "Messages that wait long are on disk in files called runs. The server rewrites a run of at least this length \
         when three quarters of its messages are settled"
    ),
    number!(
        storage.extents_max,
        Count,
        2,
        1 << 20,
        "The maximum number of runs that contain messages of one queue. Above it the server merges runs"
    ),
    number!(
        storage.group_bytes,
        Bytes,
        4 << 10,
        16 << 20,
        "Under load, a flush waits until there are this many bytes to write"
    ),
    number!(
        storage.group_messages,
        Count,
        1,
        65_536,
        "With fewer messages than this to write, a flush does not wait for more"
    ),
    number!(
        storage.group_wait_us,
        Named,
        0,
        100_000,
        "The longest time that a flush waits for more messages, in microseconds"
    ),
    number!(
        storage.write_wait_ms,
        Named,
        1,
        1_000,
        "The longest time until an acknowledgement is written, in milliseconds. Only what is written survives a killed \
         process"
    ),
    number!(
        storage.sync_wait_ms,
        Named,
        1,
        1_000,
        "The longest time until an acknowledgement is synced, in milliseconds. Only what is synced survives a power \
         loss"
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
