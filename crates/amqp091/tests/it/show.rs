//! Shows commands as text, for scripts. False and empty fields are left out.

use std::fmt::Write;

use ferrymq_model::{Body, Command, DeclareExchange, DeclareQueue, Destination, Login, Publish, Span, Table};

/// The text for a command that a session returned while it read `input`.
pub fn show(command: &Command, input: &[u8]) -> String {
    match command {
        Command::Login(Login::Password { user, password }) => format!("login {user} {}", password.escape_ascii()),
        Command::Login(Login::Certificate) => "login by-certificate".to_owned(),
        Command::OpenVhost { vhost, .. } => format!("open-vhost {vhost}"),
        Command::OpenChannel(origin) => format!("open-channel {}", origin.channel),
        Command::CloseChannel { origin, reply } => {
            format!("close-channel {}{}", origin.channel, flags(&[("reply", *reply)]))
        }
        Command::CloseConnection { reply, .. } => format!("close-connection{}", flags(&[("reply", *reply)])),
        Command::Publish(publish) => show_publish(publish, input),
        Command::Settle(settle) => {
            let multiple = flags(&[("multiple", settle.multiple)]);
            format!("settle {} {}{multiple} {:?}", settle.origin.channel, settle.delivery_tag, settle.settlement)
        }
        Command::Consume(consume) => {
            let flags =
                flags(&[("no-ack", consume.no_ack), ("exclusive", consume.exclusive), ("no-wait", consume.no_wait)]);
            format!("consume '{}' '{}'{flags}{}", consume.queue, consume.tag, entries(&consume.arguments))
        }
        Command::Cancel { tag, no_wait, .. } => format!("cancel {tag}{}", flags(&[("no-wait", *no_wait)])),
        Command::Get(get) => format!("get '{}'{}", get.queue, flags(&[("no-ack", get.no_ack)])),
        Command::Qos(qos) => format!("qos {}{}", qos.prefetch, flags(&[("global", qos.global)])),
        Command::Flow { active, .. } => format!("flow {}", if *active { "active" } else { "stopped" }),
        Command::ConfirmSelect { no_wait, .. } => format!("confirm-select{}", flags(&[("no-wait", *no_wait)])),
        Command::ConsumeReplies { tag, prefix, no_wait, .. } => {
            format!("consume-replies '{tag}' {prefix}{}", flags(&[("no-wait", *no_wait)]))
        }
        Command::Recover { reply, .. } => format!("recover{}", flags(&[("reply", *reply)])),
        Command::TxSelect(origin) => format!("tx-select {}", origin.channel),
        Command::TxCommit(origin) => format!("tx-commit {}", origin.channel),
        Command::TxRollback(origin) => format!("tx-rollback {}", origin.channel),
        Command::RenewLogin { secret, .. } => format!("renew-login {}", secret.escape_ascii()),
        topology => show_topology(topology),
    }
}

fn show_topology(command: &Command) -> String {
    match command {
        Command::DeclareExchange(declare) => show_exchange(declare),
        Command::DeclareQueue(declare) => show_queue(declare),
        Command::DeleteExchange(delete) => {
            let flags = flags(&[("if-unused", delete.if_unused), ("no-wait", delete.no_wait)]);
            format!("delete-exchange {}{flags}", delete.exchange)
        }
        Command::DeleteQueue(delete) => {
            let (unused, empty) = (("if-unused", delete.if_unused), ("if-empty", delete.if_empty));
            format!("delete-queue '{}'{}", delete.queue, flags(&[unused, empty, ("no-wait", delete.no_wait)]))
        }
        Command::PurgeQueue { queue, no_wait, .. } => {
            format!("purge-queue '{queue}'{}", flags(&[("no-wait", *no_wait)]))
        }
        Command::Bind(bind) | Command::Unbind(bind) => {
            let word = if matches!(command, Command::Bind(_)) { "bind" } else { "unbind" };
            let kind = if matches!(bind.destination, Destination::Exchange(_)) { "exchange " } else { "" };
            let (key, no_wait) = (bind.key.escape_ascii(), flags(&[("no-wait", bind.no_wait)]));
            format!(
                "{word} {kind}'{}' {} '{key}'{no_wait}{}",
                bind.destination.name(),
                bind.exchange,
                entries(&bind.arguments)
            )
        }
        other => panic!("there is no text for {other:?}"),
    }
}

fn show_exchange(declare: &DeclareExchange) -> String {
    let flags = flags(&[
        ("passive", declare.passive),
        ("durable", declare.durable),
        ("auto-delete", declare.auto_delete),
        ("internal", declare.internal),
        ("no-wait", declare.no_wait),
    ]);
    format!("declare-exchange {} {}{flags}{}", declare.exchange, declare.kind, entries(&declare.arguments))
}

fn show_queue(declare: &DeclareQueue) -> String {
    let flags = flags(&[
        ("passive", declare.passive),
        ("durable", declare.durable),
        ("exclusive", declare.exclusive),
        ("auto-delete", declare.auto_delete),
        ("no-wait", declare.no_wait),
    ]);
    format!("declare-queue '{}'{flags}{}", declare.queue, entries(&declare.arguments))
}

fn show_publish(publish: &Publish, input: &[u8]) -> String {
    let of = publish.source(input);
    let wants_replies = publish.rare.as_ref().is_some_and(|rare| rare.wants_replies);
    let user = publish.rare.as_ref().and_then(|rare| rare.user.as_ref());
    let text = |span: Span| span.of(of).escape_ascii().to_string();
    let flags = flags(&[
        ("mandatory", publish.mandatory),
        ("persistent", publish.persistent),
        ("wants-replies", wants_replies),
    ]);
    let (exchange, key) = (text(publish.exchange), text(publish.routing_key));
    let mut line = format!("publish {} '{exchange}' '{key}'{flags}", publish.origin.channel);
    publish.priority.iter().for_each(|priority| write!(line, " priority={priority}").unwrap());
    publish.expiration_ms.iter().for_each(|ms| write!(line, " expires={ms}").unwrap());
    user.iter().for_each(|user| write!(line, " user={user}").unwrap());
    for key in publish.more_keys() {
        write!(line, " also={}", key.escape_ascii()).unwrap();
    }
    let body = match &publish.body {
        Body::Span(span) => text(*span),
        Body::Shared(bytes) => format!("shared {}", bytes.escape_ascii()),
        Body::Filed(filed) => format!("filed {}", filed.bytes.escape_ascii()),
    };
    write!(line, " {}: {body}", publish.properties.len).unwrap();
    line
}

fn flags(flags: &[(&str, bool)]) -> String {
    flags.iter().filter(|(_, set)| *set).fold(String::new(), |text, (name, _)| text + " " + name)
}

fn entries(table: &Table) -> String {
    table.iter().fold(String::new(), |text, (key, value)| format!("{text} {key}={value:?}"))
}
