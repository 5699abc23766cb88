//! Permissions: for every method the missing permission and RabbitMQ's text for it, as recorded from 3.10.8 with
//! `rabbitmqctl set_permissions`. (3.13 puts the access before them, as here.)

use ferrymq_broker::{Caller, Rights, Scopes};
use ferrymq_model::{
    Access, CatalogEntry, ConnectionId, DeleteExchange, Destination, EntryKind, Name, Object, QueueId, Refusal, Table,
};

use crate::desk::{Desk, check};

fn queue(desk: &Desk, name: &str, access: Access) -> Result<(), Refusal> {
    desk.catalog.queue(&desk.caller(), name, Some(access)).map(drop)
}

fn delete_exchange(desk: &mut Desk, name: &str) -> Result<(), Refusal> {
    let request = DeleteExchange { exchange: Name::from(name), if_unused: false };
    let (user, vhost) = (desk.user.clone(), desk.vhost.clone());
    let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
    desk.catalog.delete_exchange(&caller, &request, &mut desk.changes)
}

fn publish(desk: &Desk, exchange: &str, key: &str) -> Result<(), Refusal> {
    desk.catalog.may_publish(&desk.caller(), exchange, key.as_bytes(), &[])
}

fn to_exchange(name: &str) -> Destination {
    Destination::Exchange(Name::from(name))
}

type Method = fn(&mut Desk) -> Result<(), Refusal>;

/// The method, with the required permissions (configure, write, read), and what is refused.
const TABLE: [(&str, Method, [&str; 3], &str); 17] = [
    ("queue.declare", |d| d.queue("q").map(drop), ["", ".*", ".*"], "configure access to queue 'q'"),
    ("queue.declare, not there", |d| d.queue("none").map(drop), ["", ".*", ".*"], "configure access to queue 'none'"),
    ("queue.delete", |d| queue(d, "q", Access::Configure), ["", ".*", ".*"], "configure access to queue 'q'"),
    ("queue.purge", |d| queue(d, "q", Access::Read), [".*", ".*", ""], "read access to queue 'q'"),
    ("basic.consume", |d| queue(d, "none", Access::Read), [".*", ".*", ""], "read access to queue 'none'"),
    ("dead letters: read", dead_letters, [".*", ".*", ""], "read access to queue 'new'"),
    ("dead letters: write", dead_letters, [".*", "", ".*"], "write access to exchange 'x'"),
    ("exchange.declare", |d| d.exchange("x fanout"), ["", ".*", ".*"], "configure access to exchange 'x'"),
    ("alternate: read", alternate, [".*", ".*", ""], "read access to exchange 'new'"),
    ("alternate: write", alternate, [".*", "", ".*"], "write access to exchange 'x'"),
    ("exchange.delete", |d| delete_exchange(d, "x"), ["", ".*", ".*"], "configure access to exchange 'x'"),
    ("queue.bind: queue", |d| d.bind("x", "q", Table::default()), [".*", "", ".*"], "write access to queue 'q'"),
    ("queue.bind: exchange", |d| d.bind("x", "q", Table::default()), [".*", ".*", ""], "read access to exchange 'x'"),
    ("exchange.bind: to", |d| d.bind_exchange("x", "y"), [".*", "", ".*"], "write access to exchange 'y'"),
    ("exchange.bind: from", |d| d.bind_exchange("x", "y"), [".*", ".*", ""], "read access to exchange 'x'"),
    ("basic.publish", |d| publish(d, "x", ""), [".*", "", ".*"], "write access to exchange 'x'"),
    ("basic.publish, default", |d| publish(d, "", "q"), [".*", "^q$", ".*"], "write access to exchange 'amq.default'"),
];

fn dead_letters(desk: &mut Desk) -> Result<(), Refusal> {
    desk.queue("new x-dead-letter-exchange=x").map(drop)
}

fn alternate(desk: &mut Desk) -> Result<(), Refusal> {
    desk.exchange("new fanout alternate-exchange=x")
}

#[test]
fn every_method_asks_for_its_permission() {
    for (method, call, patterns, refused) in TABLE {
        let mut desk = Desk::new();
        desk.queue("q").unwrap();
        desk.exchange("x fanout").unwrap();
        desk.exchange("y fanout").unwrap();
        desk.become_user("u", patterns);
        let text = format!("{refused} in vhost '/' refused for user 'u'");
        assert_eq!(call(&mut desk), Err(Refusal::AccessRefused(text)), "{method}");
    }
}

#[test]
fn a_passive_declaration_needs_no_permission() {
    let mut desk = Desk::new();
    desk.queue("q").unwrap();
    desk.exchange("x fanout").unwrap();
    desk.become_user("u", ["", "", ""]);
    desk.queue("q passive").unwrap();
    desk.exchange("x fanout passive").unwrap();
}

#[test]
fn topic_permissions_look_at_routing_keys() {
    let mut desk = Desk::new();
    desk.queue("q").unwrap();
    desk.exchange("x topic durable").unwrap();
    desk.become_user("u.v", [".*"; 3]);
    let topic = Name::from("amq.topic");
    let patterns = ["^{username}\\.", "^{vhost}|k"];
    let (user, vhost) = (desk.user.clone(), desk.vhost.clone());
    desk.catalog.set_topic_permission(&user, &vhost, &topic, patterns, &mut desk.changes).unwrap();
    let mut desk = Desk { user, ..desk.restarted() };
    desk.queue("q").unwrap();
    publish(&desk, "amq.topic", "u.v.x").unwrap();
    publish(&desk, "x", "anything").unwrap();
    check(
        publish(&desk, "amq.topic", "uxv.x"),
        "write access to topic 'uxv.x' in exchange 'amq.topic' in vhost '/' refused for user 'u.v'",
    );
    let more = [b"other".to_vec()];
    check(
        desk.catalog.may_publish(&desk.caller(), "amq.topic", b"u.v.x", &more),
        "write access to topic 'other' in exchange 'amq.topic' in vhost '/' refused for user 'u.v'",
    );
    desk.bind("amq.topic", "q", Table::default()).unwrap();
    desk.catalog.clear_topic_permissions(&desk.user, &desk.vhost, Some(&topic), &mut desk.changes);
    publish(&desk, "amq.topic", "uxv.x").unwrap();
    desk.catalog.set_topic_permission(&desk.user, &desk.vhost, &topic, ["", ""], &mut desk.changes).unwrap();
    let bound = desk.bind_to(to_exchange("amq.fanout"), "amq.topic", Table::default());
    check(bound, "read access to topic 'k' in exchange 'amq.topic' in vhost '/' refused for user 'u.v'");
    let malformed = desk.catalog.set_topic_permission(&desk.user, &desk.vhost, &topic, ["(", ""], &mut desk.changes);
    assert!(matches!(malformed, Err(Refusal::PreconditionFailed(_))), "{malformed:?}");
}

#[test]
fn only_an_impersonator_speaks_for_others() {
    let mut desk = Desk::new();
    let user = Name::from("u");
    desk.catalog.put_user(&user, "", &[], &mut desk.changes);
    let vhost = Name::from("/");
    let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
    desk.catalog.check_claim(&caller, "u").unwrap();
    check(desk.catalog.check_claim(&caller, "guest"), "user_id property set to 'guest' but authenticated user was 'u'");
    desk.catalog.put_user(&user, "", &["impersonator".to_owned()], &mut desk.changes);
    desk.catalog.check_claim(&caller, "guest").unwrap();
}

#[test]
fn a_token_says_what_its_holder_may_do_in_place_of_the_catalog() {
    let mut desk = Desk::new();
    desk.become_user("u", [".*"; 3]);
    let scopes = Scopes::parse(["write:*/amq.default", "write:*/amq.topic/a.*", "tag:impersonator"]);
    let with = |rights| Caller { rights, ..desk.caller() };
    let publish = |rights, exchange, key: &[u8]| desk.catalog.may_publish(&with(rights), exchange, key, &[]);
    let token = Rights::OfToken(&scopes);
    publish(token, "", b"q").unwrap();
    publish(token, "amq.topic", b"a.b").unwrap();
    check(publish(token, "amq.fanout", b""), "write access to exchange 'amq.fanout' in vhost '/' refused for user 'u'");
    let topic = "write access to topic 'b' in exchange 'amq.topic' in vhost '/' refused for user 'u'";
    check(publish(token, "amq.topic", b"b"), topic);
    desk.catalog.check_entry(&with(token)).unwrap();
    desk.catalog.check_claim(&with(token), "somebody").unwrap();
    // Expired, it may do nothing, whatever permissions the catalog has for that name.
    let default = "write access to exchange 'amq.default' in vhost '/' (the token has expired) refused for user 'u'";
    check(publish(Rights::Expired, "", b"q"), default);
    check(desk.catalog.check_entry(&with(Rights::Expired)), "access to vhost '/' refused for user 'u'");
    check(
        desk.catalog.check_claim(&with(Rights::Expired), "somebody"),
        "user_id property set to 'somebody' but authenticated user was 'u'",
    );
}

#[test]
fn a_user_goes_with_its_permissions() {
    let mut desk = Desk::new();
    desk.become_user("u", [".*"; 3]);
    let (user, vhost, x) = (desk.user.clone(), desk.vhost.clone(), Name::from("x"));
    desk.catalog.set_topic_permission(&user, &vhost, &x, ["", ""], &mut desk.changes).unwrap();
    desk.catalog.delete_user(&user, &mut desk.changes).unwrap();
    check(desk.catalog.delete_user(&user, &mut desk.changes), "no user 'u'");
    check(desk.catalog.set_permission(&user, &vhost, [""; 3], &mut desk.changes), "no user 'u'");
    let mut desk = desk.restarted();
    desk.catalog.put_user(&user, "", &[], &mut desk.changes);
    check(desk.catalog.may_enter("u", "/"), "access to vhost '/' refused for user 'u'");
}

#[test]
fn a_vhost_goes_with_all_that_is_in_it() {
    let mut desk = Desk::new();
    let (guest, other) = (desk.user.clone(), Name::from("other"));
    check(desk.catalog.set_permission(&guest, &other, [".*"; 3], &mut desk.changes), "vhost other not found");
    desk.catalog.put_vhost(&other, &mut desk.changes);
    desk.catalog.set_permission(&guest, &other, [".*"; 3], &mut desk.changes).unwrap();
    let root = std::mem::replace(&mut desk.vhost, other.clone());
    let ids = ["a durable", "b"].map(|words| desk.queue(words).unwrap());
    for words in ["x fanout durable auto-delete", "y topic durable"] {
        desk.exchange(words).unwrap();
    }
    desk.bind("x", "a", Table::default()).unwrap();
    desk.bind_exchange("y", "x").unwrap();
    desk.catalog.set_topic_permission(&guest, &other, &Name::from("y"), ["", ""], &mut desk.changes).unwrap();
    assert_eq!(desk.catalog.delete_vhost(&other, &mut desk.changes).unwrap(), ids);
    // The shard says that the queues are gone.
    let gone = |id: &QueueId| CatalogEntry { kind: EntryKind::Queue, key: id.0.to_be_bytes().to_vec(), value: None };
    desk.changes.extend(ids.iter().map(gone));
    desk.vhost = root;
    let desk = desk.restarted();
    let living = desk.changes.iter().filter(|entry| entry.value.is_some()).map(|entry| entry.kind);
    let expected = [EntryKind::Vhost, EntryKind::User, EntryKind::Permission, EntryKind::Counter];
    assert_eq!(living.collect::<Vec<_>>(), expected);
    assert!(desk.catalog.allowed("guest", "other", Access::Read, Object::Queue, "a").is_err());
}
