//! Queues.

use axum::response::Response;
use ferrymq_model::{
    Ask as Request, Change, DeclareQueue, DeleteQueue, Name, QueueCounts, QueueDetails, QueueId, QueueOwner,
    QueueReport, Which,
};
use serde_json::{Value, json};

use super::{
    Ask, body, connections, exchanges, json,
    list::LongList,
    overview::NODE,
    problem::Problem,
    respond,
    routes::{To, Verb},
};

/// How many queues are made for the answer at once.
const PORTION: usize = 128;

pub async fn answer(to: To, ask: Ask) -> Result<Response, Problem> {
    if to == To::Queues {
        return list(ask);
    }
    let (vhost, queue) = (ask.vhost()?, body::name(ask.part("name"), "queue")?);
    match (to, ask.verb) {
        (To::Contents, _) => {
            find(&ask, &vhost, &queue, false).ok_or_else(Problem::not_found)?;
            let request = Request::PurgeQueue(queue);
            ask.change(Change::Request { vhost, ask: request }).await.map(|_| respond::nothing())
        }
        (_, Verb::Get) => {
            let found = find(&ask, &vhost, &queue, true).ok_or_else(Problem::not_found)?;
            let mut object = shown(&found);
            if let Some(QueueOwner::Connection(owner)) = found.details.as_ref().map(|details| details.owner) {
                object["owner_pid_details"] = json!(connections::owner_details(&ask, owner));
            }
            object["consumer_details"] = Value::Array(connections::consumers_of(&ask, &vhost, &queue));
            Ok(respond::json(&object))
        }
        (_, Verb::Delete) => {
            find(&ask, &vhost, &queue, false).ok_or_else(Problem::not_found)?;
            let (if_unused, if_empty) = (ask.parameters.is_true("if-unused"), ask.parameters.is_true("if-empty"));
            let request = Request::DeleteQueue(DeleteQueue { queue, if_unused, if_empty });
            ask.change(Change::Request { vhost, ask: request }).await.map(|_| respond::nothing())
        }
        (_, Verb::Put | Verb::Post) => {
            let is_new = find(&ask, &vhost, &queue, false).is_none();
            let fields = ask.fields()?;
            let declare = DeclareQueue {
                queue,
                passive: false,
                durable: fields.flag("durable")?.unwrap_or(false),
                exclusive: false,
                auto_delete: fields.flag("auto_delete")?.unwrap_or(false),
                arguments: fields.table("arguments")?,
            };
            let request = Request::DeclareQueue(declare);
            ask.change(Change::Request { vhost, ask: request }).await.map(|_| respond::made(is_new))
        }
    }
}

/// The queue of this name.
pub fn find(ask: &Ask, vhost: &Name, queue: &Name, details: bool) -> Option<QueueReport> {
    let (mut found, which) = (None, Which::Named(vhost.clone(), queue.clone()));
    ask.management.queues(&which, details, &mut |report| found = Some(report));
    found
}

/// First the queues that are wanted are found, by their names and states alone, unless the order asks for more. Then
/// those of the page are made.
fn list(ask: Ask) -> Result<Response, Problem> {
    let (query, mut list) = (ask.list_query()?, LongList::<QueueId>::new());
    let needs_details = query.sort.is_some();
    ask.management.queues(&exchanges::which(&ask)?, needs_details, &mut |report| {
        if ask.sees(&report.vhost) {
            let place = format!("{}\0{}", report.vhost, report.name);
            list.add(&query, &report.name, place, report.id, || shown(&report));
        }
    });
    let management = ask.management;
    list.answer(query, PORTION, move |ids| {
        let mut made = Vec::with_capacity(ids.len());
        management.queues(&Which::Queues(ids), true, &mut |report| made.push(shown(&report)));
        made
    })
}

fn shown(report: &QueueReport) -> Value {
    let counts = &report.counts;
    let mut object = state(counts);
    object["name"] = json!(&*report.name);
    object["vhost"] = json!(&*report.vhost);
    object["node"] = json!(NODE);
    if let Some(details) = &report.details {
        add_details(&mut object, details, counts);
    }
    object
}

fn state(counts: &QueueCounts) -> Value {
    let QueueCounts { ready, unacked, ready_bytes, unacked_bytes, subscriptions, .. } = *counts;
    json!({
        "messages": ready + unacked + counts.delayed_retries + counts.pending_dead_letters,
        "messages_ready": ready,
        "messages_unacknowledged": unacked,
        "message_bytes": ready_bytes + unacked_bytes + counts.pending_dead_letter_bytes,
        "message_bytes_ready": ready_bytes,
        "message_bytes_unacknowledged": unacked_bytes,
        "messages_delayed_retry": counts.delayed_retries,
        "messages_dlx": counts.pending_dead_letters,
        "consumers": subscriptions,
    })
}

fn add_details(object: &mut Value, details: &QueueDetails, counts: &QueueCounts) {
    let QueueDetails { kind, spec, owner, policies, failure } = details;
    object["type"] = json!(kind);
    object["durable"] = json!(spec.durable);
    object["auto_delete"] = json!(spec.auto_delete);
    object["exclusive"] = json!(matches!(owner, QueueOwner::Connection(_)));
    object["arguments"] = json::of_table(&spec.arguments);
    object["state"] = json!(if failure.is_some() { "crashed" } else { "running" });
    if let Some(failure) = failure {
        object["failure"] = json!(failure);
    }
    object["policy"] = json!(policies.user.as_deref());
    object["operator_policy"] = json!(policies.operator.as_deref());
    object["effective_policy_definition"] = json::of_table(&policies.effective);
    let counters = &counts.counters;
    let delivered = counters.delivered + counters.delivered_no_ack;
    object["message_stats"] = json!({
        "publish": counters.published,
        "deliver": counters.delivered,
        "deliver_no_ack": counters.delivered_no_ack,
        "get": counters.got,
        "get_no_ack": counters.got_no_ack,
        "get_empty": counters.got_empty,
        "deliver_get": delivered + counters.got + counters.got_no_ack,
        "redeliver": counters.redelivered,
        "ack": counters.accepted,
        "reject": counters.rejected,
        "requeue": counters.released,
        "expired": counters.expired,
        "dropped": counters.dropped,
        "refused": counters.refused,
        "dead_lettered": counters.dead_lettered,
    });
}

/// What definitions say of a queue.
pub fn declaration(report: &QueueReport) -> Option<Value> {
    let spec = &report.details.as_ref()?.spec;
    Some(json!({
        "name": &*report.name,
        "vhost": &*report.vhost,
        "durable": spec.durable,
        "auto_delete": spec.auto_delete,
        "arguments": json::of_table(&spec.arguments),
    }))
}
