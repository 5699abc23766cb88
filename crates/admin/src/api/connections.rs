//! Connections, channels and consumers.

use axum::response::Response;
use ferrymq_model::{Change, ChannelReport, ConnectionId, ConnectionReport, ConsumerReport, Name, Which};
use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::{
    Ask, json,
    list::List,
    overview::NODE,
    problem::Problem,
    respond,
    routes::{To, Verb},
};

pub async fn answer(to: To, ask: &Ask) -> Result<Response, Problem> {
    match (to, ask.verb) {
        (To::Connection | To::UserConnections, Verb::Delete) => close(to, ask).await,
        (To::Connection, _) => Ok(respond::json(&shown(&owned(ask, find(ask)?)?))),
        (To::ConnectionChannels, _) => {
            let connection = owned(ask, find(ask)?)?;
            list_channels(ask, &[connection])
        }
        (To::Channel, _) => {
            let name = ask.part("channel");
            let mut found = None;
            ask.management.connections(&mut |connection| {
                if connection.channels.iter().any(|channel| channel_name(&connection, channel) == name) {
                    found = Some(connection);
                }
            });
            let connection = owned(ask, found.ok_or_else(Problem::not_found)?)?;
            let channel = connection.channels.iter().find(|channel| channel_name(&connection, channel) == name);
            channel.map(|channel| respond::json(&shown_channel(&connection, channel))).ok_or_else(Problem::not_found)
        }
        (To::Channels, _) => list_channels(ask, &seen(ask)),
        (To::VhostChannels, _) => list_channels(ask, &in_vhost(ask)?),
        (To::VhostConnections, _) => list(ask, &in_vhost(ask)?),
        (To::UserConnections, _) => {
            let user = ask.part("user");
            let own: Vec<_> = seen(ask).into_iter().filter(|connection| *connection.user == *user).collect();
            list(ask, &own)
        }
        (To::Consumers, _) => list_consumers(ask),
        _ => list(ask, &seen(ask)),
    }
}

/// The connections that the user may see.
fn seen(ask: &Ask) -> Vec<ConnectionReport> {
    let mut found = Vec::new();
    ask.management.connections(&mut |connection| {
        if ask.tags.monitors() || connection.user == ask.actor.user {
            found.push(connection);
        }
    });
    found
}

fn in_vhost(ask: &Ask) -> Result<Vec<ConnectionReport>, Problem> {
    let vhost = ask.check_vhost()?;
    Ok(seen(ask).into_iter().filter(|connection| connection.vhost == vhost).collect())
}

/// The connection in the path, whoever has it.
fn find(ask: &Ask) -> Result<ConnectionReport, Problem> {
    let (name, mut found) = (ask.part("connection"), None);
    ask.management.connections(&mut |connection| {
        if connection.name == name {
            found = Some(connection);
        }
    });
    found.ok_or_else(Problem::not_found)
}

/// The connection, if it is the user's own or the user has a tag for it.
fn owned(ask: &Ask, connection: ConnectionReport) -> Result<ConnectionReport, Problem> {
    let may = if ask.verb == Verb::Delete { ask.tags.administrator } else { ask.tags.monitors() };
    if may || connection.user == ask.actor.user {
        return Ok(connection);
    }
    Err(Problem::not_authorised("User not authorised to access object"))
}

async fn close(to: To, ask: &Ask) -> Result<Response, Problem> {
    let given = ask.headers.get("x-reason").and_then(|reason| reason.to_str().ok());
    let reason = given.unwrap_or("Closed via management plugin").to_owned();
    let closed = match to {
        To::Connection => vec![owned(ask, find(ask)?)?],
        _ => seen(ask).into_iter().filter(|connection| *connection.user == *ask.part("user")).collect(),
    };
    for connection in closed {
        let change = Change::CloseConnection { serial: connection.serial, reason: reason.clone() };
        // One that has ended meanwhile is closed, too.
        let _ = ask.change(change).await;
    }
    Ok(respond::nothing())
}

fn list(ask: &Ask, connections: &[ConnectionReport]) -> Result<Response, Problem> {
    let (query, mut list) = (ask.list_query()?, List::new());
    connections.iter().for_each(|connection| list.add(&query, &connection.name, shown(connection)));
    list.answer(&query)
}

fn list_channels(ask: &Ask, connections: &[ConnectionReport]) -> Result<Response, Problem> {
    let (query, mut list) = (ask.list_query()?, List::new());
    for connection in connections {
        for channel in &connection.channels {
            let object = shown_channel(connection, channel);
            list.add(&query, &channel_name(connection, channel), object);
        }
    }
    list.answer(&query)
}

/// The peer's address in a connection's name, which is `HOST:PORT -> HOST:PORT`.
fn peer(connection: &ConnectionReport) -> (String, u16) {
    let from = connection.name.split(" -> ").next().unwrap_or_default();
    let (host, port) = from.rsplit_once(':').unwrap_or((from, ""));
    (host.trim_matches(['[', ']']).to_owned(), port.parse().unwrap_or_default())
}

fn own_address(connection: &ConnectionReport) -> (String, u16) {
    let to = connection.name.split(" -> ").nth(1).unwrap_or_default();
    let (host, port) = to.rsplit_once(':').unwrap_or((to, ""));
    (host.trim_matches(['[', ']']).to_owned(), port.parse().unwrap_or_default())
}

fn shown(connection: &ConnectionReport) -> Value {
    let ((peer_host, peer_port), (host, port)) = (peer(connection), own_address(connection));
    let mut object = json!({
        "name": connection.name,
        "node": NODE,
        "type": "network",
        "user": &*connection.user,
        "user_who_performed_action": &*connection.user,
        "vhost": &*connection.vhost,
        "connected_at": connection.connected_at.0,
        "peer_host": peer_host,
        "peer_port": peer_port,
        "host": host,
        "port": port,
        "channels": connection.channels.len(),
        "protocol": connection.client.protocol,
        "auth_mechanism": connection.client.mechanism,
        "client_properties": json::of_table(&connection.client.properties),
        "channel_max": connection.client.channels_max,
        "frame_max": connection.client.frame_bytes_max,
        "timeout": connection.client.heartbeat_ms / 1000,
        "state": if connection.is_blocked { "blocked" } else { "running" },
    });
    if let Some(name) = connection.client.properties.get("connection_name") {
        object["user_provided_name"] = json::of_value(name);
    }
    object
}

fn channel_name(connection: &ConnectionReport, channel: &ChannelReport) -> String {
    format!("{} ({})", connection.name, channel.number)
}

fn connection_details(connection: &ConnectionReport) -> Value {
    let (peer_host, peer_port) = peer(connection);
    json!({"name": connection.name, "peer_host": peer_host, "peer_port": peer_port})
}

fn shown_channel(connection: &ConnectionReport, channel: &ChannelReport) -> Value {
    json!({
        "name": channel_name(connection, channel),
        "number": channel.number,
        "node": NODE,
        "user": &*connection.user,
        "user_who_performed_action": &*connection.user,
        "vhost": &*connection.vhost,
        "confirm": channel.confirms,
        "transactional": channel.is_transactional,
        "consumer_count": channel.consumers.len(),
        "messages_unacknowledged": channel.unacked,
        "prefetch_count": channel.later_window,
        "global_prefetch_count": channel.window,
        "state": "running",
        "connection_details": connection_details(connection),
        "consumer_details": channel.consumers.iter().map(|consumer| {
            shown_consumer(connection, channel, consumer)
        }).collect::<Vec<_>>(),
    })
}

fn shown_consumer(connection: &ConnectionReport, channel: &ChannelReport, consumer: &ConsumerReport) -> Value {
    let (peer_host, peer_port) = peer(connection);
    json!({
        "consumer_tag": &*consumer.tag,
        "queue": {"name": &*consumer.queue, "vhost": &*connection.vhost},
        "ack_required": !consumer.no_ack,
        "prefetch_count": consumer.window,
        "active": true,
        "activity_status": "up",
        "messages_unacknowledged": consumer.unacked,
        "channel_details": {
            "name": channel_name(connection, channel),
            "number": channel.number,
            "node": NODE,
            "user": &*connection.user,
            "connection_name": connection.name,
            "peer_host": peer_host,
            "peer_port": peer_port,
        },
    })
}

fn list_consumers(ask: &Ask) -> Result<Response, Problem> {
    let (query, mut list) = (ask.list_query()?.without_pages(), List::new());
    let vhost = ask.part_if_any("vhost").map(|_| ask.check_vhost()).transpose()?;
    for connection in seen(ask).iter().filter(|one| vhost.as_ref().is_none_or(|vhost| *vhost == one.vhost)) {
        for channel in &connection.channels {
            for consumer in &channel.consumers {
                list.add(&query, &consumer.tag, shown_consumer(connection, channel, consumer));
            }
        }
    }
    list.answer(&query)
}

/// The owner of an exclusive queue.
pub fn owner_details(ask: &Ask, owner: ConnectionId) -> Option<Value> {
    let mut found = None;
    ask.management.connections(&mut |connection| {
        if connection.id == owner {
            found = Some(connection_details(&connection));
        }
    });
    found
}

/// The consumers of a queue, whoever has them.
pub fn consumers_of(ask: &Ask, vhost: &Name, queue: &Name) -> Vec<Value> {
    let mut found = Vec::new();
    ask.management.connections(&mut |connection| {
        for channel in connection.channels.iter().filter(|_| connection.vhost == *vhost) {
            let own = channel.consumers.iter().filter(|consumer| consumer.queue == *queue);
            found.extend(own.map(|consumer| shown_consumer(&connection, channel, consumer)));
        }
    });
    found
}

/// The numbers of connections, channels and consumers that the user may see.
pub fn counts(ask: &Ask) -> (usize, usize, usize) {
    let seen = seen(ask);
    let channels = seen.iter().map(|connection| connection.channels.len()).sum();
    let consumers =
        seen.iter().flat_map(|connection| &connection.channels).map(|channel| channel.consumers.len()).sum();
    (seen.len(), channels, consumers)
}

/// Messages in the queues that the user may see: ready and unacknowledged, and the number of queues.
pub fn queue_totals(ask: &Ask) -> (u64, u64, usize) {
    let (mut ready, mut unacked, mut queues) = (0, 0, 0);
    let mut visible: BTreeMap<Name, bool> = BTreeMap::new();
    ask.management.queues(&Which::All, false, &mut |queue| {
        if *visible.entry(queue.vhost.clone()).or_insert_with(|| ask.sees(&queue.vhost)) {
            ready += queue.counts.ready;
            unacked += queue.counts.unacked;
            queues += 1;
        }
    });
    (ready, unacked, queues)
}
