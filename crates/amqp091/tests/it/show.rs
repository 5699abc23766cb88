//! Shows commands as text, for scripts. False and empty fields are left out.

use std::fmt::Write;

use ferrymq_model::{
    Answer, Ask, Body, Command, Credit, CreditOf, DeclareExchange, DeclareQueue, Deliveries, Destination, Login,
    Outcome, Publish, Request, SetCredit, Settlement, Span, Table,
};

/// The text for a command that a session returned while it read `input`.
pub fn show(command: &Command, input: &[u8]) -> String {
    match command {
        Command::Login(Login::Password { user, password }) => format!("login {user} {}", password.escape_ascii()),
        Command::Login(Login::Begin { mechanism, response }) => {
            format!("begin-login {} {}", mechanism.name(), response.escape_ascii())
        }
        Command::Login(Login::Respond(response)) => format!("respond {}", response.escape_ascii()),
        Command::Login(Login::Certificate) => "login by-certificate".to_owned(),
        Command::Publish(publish) => show_publish(publish, input),
        Command::Settle(settle) => {
            let which = match settle.deliveries {
                Deliveries::One(tag) => tag.to_string(),
                Deliveries::UpTo(tag) => format!("{tag} multiple"),
                Deliveries::All => "0 multiple".to_owned(),
                Deliveries::Range { first, last } => format!("{first}-{last}"),
            };
            let outcome = match settle.outcome {
                Outcome::Settled(Settlement::Release { delay_ms: 0 }) => "Release".to_owned(),
                Outcome::Settled(Settlement::Fail { delay_ms: 0 }) => "Fail".to_owned(),
                Outcome::Settled(settlement) => format!("{settlement:?}"),
                other => format!("{other:?}"),
            };
            format!("settle {} {which} {outcome}", settle.origin.channel)
        }
        Command::Request(request) => show_request(request),
    }
}

fn show_request(request: &Request) -> String {
    let channel = request.origin.channel;
    let is_answered = request.origin.answer != Answer::Nobody;
    let no_wait = ("no-wait", !is_answered);
    match &request.ask {
        Ask::OpenVhost { vhost, .. } => format!("open-vhost {vhost}"),
        Ask::OpenChannel(_) => format!("open-channel {channel}"),
        Ask::CloseChannel => format!("close-channel {channel}{}", flags(&[("reply", is_answered)])),
        Ask::CloseConnection => format!("close-connection{}", flags(&[("reply", is_answered)])),
        Ask::Subscribe(consume) => {
            let flags = flags(&[("no-ack", consume.no_ack), ("exclusive", consume.exclusive), no_wait]);
            format!("consume '{}' '{}'{flags}{}", consume.queue, consume.tag, entries(&consume.arguments))
        }
        Ask::Unsubscribe(tag) => format!("cancel {tag}{}", flags(&[no_wait])),
        Ask::Get(get) => format!("get '{}'{}", get.queue, flags(&[("no-ack", get.no_ack)])),
        Ask::SetCredit(SetCredit { of, credit: Credit::Window(prefetch) }) => {
            format!("qos {prefetch}{}", flags(&[("global", *of == CreditOf::Channel)]))
        }
        Ask::Flow { active } => format!("flow {}", if *active { "active" } else { "stopped" }),
        Ask::SelectConfirms(_) => format!("confirm-select{}", flags(&[no_wait])),
        Ask::SubscribeReplies { tag, prefix } => format!("consume-replies '{tag}' {prefix}{}", flags(&[no_wait])),
        Ask::Recover => format!("recover{}", flags(&[("reply", is_answered)])),
        Ask::SelectTransactions => format!("tx-select {channel}"),
        Ask::Commit(_) => format!("tx-commit {channel}"),
        Ask::RollBack(_) => format!("tx-rollback {channel}"),
        Ask::RenewLogin(secret) => format!("renew-login {}", secret.escape_ascii()),
        topology => show_topology(topology, no_wait),
    }
}

fn show_topology(ask: &Ask, no_wait: (&str, bool)) -> String {
    match ask {
        Ask::DeclareExchange(declare) => show_exchange(declare, no_wait),
        Ask::DeclareQueue(declare) => show_queue(declare, no_wait),
        Ask::DeleteExchange(delete) => {
            format!("delete-exchange {}{}", delete.exchange, flags(&[("if-unused", delete.if_unused), no_wait]))
        }
        Ask::DeleteQueue(delete) => {
            let (unused, empty) = (("if-unused", delete.if_unused), ("if-empty", delete.if_empty));
            format!("delete-queue '{}'{}", delete.queue, flags(&[unused, empty, no_wait]))
        }
        Ask::PurgeQueue(queue) => format!("purge-queue '{queue}'{}", flags(&[no_wait])),
        Ask::Bind(bind) | Ask::Unbind(bind) => {
            let word = if matches!(ask, Ask::Bind(_)) { "bind" } else { "unbind" };
            let kind = if matches!(bind.destination, Destination::Exchange(_)) { "exchange " } else { "" };
            let (key, no_wait) = (bind.key.escape_ascii(), flags(&[no_wait]));
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

fn show_exchange(declare: &DeclareExchange, no_wait: (&str, bool)) -> String {
    let flags = flags(&[
        ("passive", declare.passive),
        ("durable", declare.durable),
        ("auto-delete", declare.auto_delete),
        ("internal", declare.internal),
        no_wait,
    ]);
    format!("declare-exchange {} {}{flags}{}", declare.exchange, declare.kind, entries(&declare.arguments))
}

fn show_queue(declare: &DeclareQueue, no_wait: (&str, bool)) -> String {
    let flags = flags(&[
        ("passive", declare.passive),
        ("durable", declare.durable),
        ("exclusive", declare.exclusive),
        ("auto-delete", declare.auto_delete),
        no_wait,
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
