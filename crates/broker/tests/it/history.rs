//! What `x-recent-history` exchanges keep, and for how long.

use ferrymq_broker::{Envelope, History, HistoryBudget, KeptMessage};
use ferrymq_model::{DeleteExchange, DialectId, Name, OwnedBody, OwnedMessage, Table, Value};

use crate::desk::{Desk, check};

/// A message of 1,000 bytes that is called `name`.
fn message(name: &str) -> KeptMessage {
    let message = OwnedMessage {
        dialect: DialectId(1),
        exchange: Name::from("x"),
        routing_key: name.as_bytes().into(),
        properties: Vec::new(),
        annotations: Box::default(),
        body: OwnedBody::Inline(vec![0; 1_000].into()),
    };
    KeptMessage { message, more_keys: Box::default(), persistent: false, priority: 0, expiration_ms: None }
}

fn publish(desk: &Desk, exchange: &str, name: &str, headers: &Table, budget: &HistoryBudget) -> usize {
    let keep = |history: &History| history.keep(message(name), budget);
    let envelope = Envelope { headers: &|| headers.clone(), keep: &keep, ..Envelope::EMPTY };
    let mut targets = Vec::new();
    desk.catalog.route("/", exchange, name.as_bytes(), &[], &envelope, &mut targets).unwrap();
    targets.len()
}

/// The names of what is kept, the oldest first.
fn kept(desk: &Desk, exchange: &str) -> String {
    let history = desk.catalog.history("/", exchange).unwrap();
    let name = |message: &KeptMessage| String::from_utf8_lossy(&message.message.routing_key).into_owned();
    history.messages().iter().map(|message| name(message)).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_last_messages_are_kept_wherever_they_come_from() {
    let (mut desk, budget) = (Desk::new(), HistoryBudget::new(1 << 20));
    desk.exchange("x x-recent-history x-recent-history-length=2").unwrap();
    desk.exchange("before fanout").unwrap();
    desk.bind_exchange("before", "x").unwrap();
    desk.queue("q").unwrap();
    let (none, not) = (Table::default(), ("x-recent-history-no-store".to_owned(), Value::Bool(true)));
    assert_eq!(publish(&desk, "x", "a", &none, &budget), 0);
    desk.bind("x", "q", Table::default()).unwrap();
    assert_eq!(publish(&desk, "before", "b", &none, &budget), 1);
    assert_eq!(publish(&desk, "x", "c", &Table(vec![not]), &budget), 1);
    assert_eq!(kept(&desk, "x"), "a b");
    assert_eq!(publish(&desk, "x", "d", &none, &budget), 1);
    assert_eq!(kept(&desk, "x"), "b d");
    assert!(desk.catalog.history("/", "before").is_none());
}

#[test]
fn a_history_goes_with_its_exchange_and_gives_back_what_it_took() {
    let (mut desk, budget) = (Desk::new(), HistoryBudget::new(1 << 20));
    desk.exchange("x x-recent-history durable").unwrap();
    for number in 0..30 {
        publish(&desk, "x", &number.to_string(), &Table::default(), &budget);
    }
    assert_eq!(desk.catalog.history("/", "x").unwrap().messages().len(), 20);
    assert!((20_000..40_000).contains(&budget.used()), "{}", budget.used());
    let delete = DeleteExchange { exchange: Name::from("x"), if_unused: false };
    let (user, vhost) = (desk.user.clone(), desk.vhost.clone());
    let caller = ferrymq_broker::Caller::of_user(&vhost, &user, ferrymq_model::ConnectionId(1));
    desk.catalog.delete_exchange(&caller, &delete, &mut desk.changes).unwrap();
    while desk.catalog.unbind_some(&mut desk.changes) {}
    assert_eq!(budget.used(), 0);
}

#[test]
fn all_histories_share_a_budget() {
    let (mut desk, budget) = (Desk::new(), HistoryBudget::new(4_000));
    desk.exchange("x x-recent-history").unwrap();
    desk.exchange("y x-recent-history").unwrap();
    for name in ["a", "b", "c", "d"] {
        publish(&desk, "x", name, &Table::default(), &budget);
    }
    assert_eq!(kept(&desk, "x"), "b c d");
    publish(&desk, "y", "e", &Table::default(), &budget);
    assert_eq!(kept(&desk, "y"), "", "others' messages stay");
    assert!(budget.used() <= 4_000);
}

#[test]
fn how_many_are_kept_is_a_number_from_one_up() {
    let mut desk = Desk::new();
    let refused =
        |value: &str| format!("Invalid argument {value}, 'x-recent-history-length' must be a positive integer");
    check(desk.exchange("x x-recent-history x-recent-history-length=0"), &refused("0"));
    check(desk.exchange("x x-recent-history x-recent-history-length=-3"), &refused("-3"));
    check(desk.exchange("x x-recent-history x-recent-history-length=many"), &refused("many"));
}
