//! Bindings with selectors: evaluated, recovered after a restart, removed when they are unbound.

use ferrymq_broker::{Cacheable, Envelope};
use ferrymq_model::{BindCommand, Destination, Name, QueueId, Table, Value};

use crate::desk::Desk;

fn selector(text: &str) -> Table {
    Table(vec![("rjms_erlang_selector".to_owned(), Value::Text(text.to_owned()))])
}

/// The targets of a message with the header `n`.
fn routed(desk: &Desk, n: i64) -> Vec<QueueId> {
    let headers = || Table(vec![("n".to_owned(), Value::Int(n))]);
    let envelope = Envelope { headers: &headers, ..Envelope::EMPTY };
    let mut targets = Vec::new();
    let holds = desk.catalog.route("/", "x", b"any", &[], &envelope, &mut targets).unwrap();
    assert_eq!(holds, Cacheable::No);
    targets
}

#[test]
fn selectors_outlive_a_restart_and_go_with_their_binding() {
    let mut desk = Desk::new();
    desk.exchange("x x-jms-topic durable").unwrap();
    let (low, high) = (desk.queue("low durable").unwrap(), desk.queue("high durable").unwrap());
    let below = selector("{'<',{'ident',<<\"n\">>},10}.");
    desk.bind("x", "low", below.clone()).unwrap();
    desk.bind("x", "high", selector("{'>=',{'ident',<<\"n\">>},5}.")).unwrap();
    // Another selector under the same key is another binding.
    desk.bind("x", "low", selector("{'=',{'ident',<<\"n\">>},20}.")).unwrap();

    let mut desk = desk.restarted();
    assert_eq!(routed(&desk, 1), [low]);
    assert_eq!(routed(&desk, 5), [low, high]);
    assert_eq!(routed(&desk, 10), [high]);
    assert_eq!(routed(&desk, 20), [low, high]);

    let request = BindCommand {
        destination: Destination::Queue(Name::from("low")),
        exchange: Name::from("x"),
        key: b"k".to_vec(),
        arguments: below,
    };
    let mut changes = Vec::new();
    let caller = ferrymq_broker::Caller::of_user(&desk.vhost, &desk.user, ferrymq_model::ConnectionId(1));
    desk.catalog.unbind(&caller, &request, &mut changes).unwrap();
    assert_eq!(routed(&desk, 1), []);
    assert_eq!(routed(&desk, 20), [low, high]);
}

#[test]
fn a_delayed_exchange_can_ask_selectors() {
    let mut desk = Desk::new();
    desk.exchange("x x-delayed-message x-delayed-type=x-jms-topic").unwrap();
    let queue = desk.queue("q").unwrap();
    desk.bind("x", "q", selector("{'=',{'ident',<<\"n\">>},1}.")).unwrap();
    desk.bind("x", "q", Table::default()).unwrap_err();
    assert_eq!(routed(&desk, 1), [queue]);
    assert_eq!(routed(&desk, 2), []);
}
