//! The catalog alone: what it refuses and with which text, and what it recovers after a restart.

use ferrymq_broker::{Caller, Catalog, Envelope, HashKey};
use ferrymq_model::{
    Access, CatalogEntry, ConnectionId, DeleteExchange, Destination, EntryKind, Name, Object, Refusal, Table, Value,
};

use crate::desk::{Desk, check};

#[test]
fn queues_are_refused_with_rabbitmqs_words() {
    let mut desk = Desk::new();
    desk.queue("q durable x-message-ttl=1000").unwrap();
    desk.queue("q durable x-message-ttl=1000 x-queue-type=classic").unwrap();
    check(
        desk.queue("q x-message-ttl=1000"),
        "inequivalent arg 'durable' for queue 'q' in vhost '/': received 'false' but current is 'true'",
    );
    check(
        desk.queue("q durable auto-delete x-message-ttl=1000"),
        "inequivalent arg 'auto_delete' for queue 'q' in vhost '/': received 'true' but current is 'false'",
    );
    check(
        desk.queue("q durable x-message-ttl=5"),
        "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received '5' but current is '1000'",
    );
    check(
        desk.queue("q durable"),
        "inequivalent arg 'x-message-ttl' for queue 'q' in vhost '/': received none but current is the value '1000' of \
         type 'signedint'",
    );
    check(
        desk.queue("q durable x-message-ttl=1000 x-max-priority=10"),
        "inequivalent arg 'x-max-priority' for queue 'q' in vhost '/': received the value '10' of type 'signedint' but \
         current is none",
    );
    check(desk.queue("amq.q"), "queue name 'amq.q' contains reserved prefix 'amq.*'");
    check(desk.queue("none passive"), "no queue 'none' in vhost '/'");
    check(desk.queue("n x-expires=0"), "invalid arg 'x-expires' for queue 'n' in vhost '/': {value_zero,0}");
    check(
        desk.queue("n x-message-ttl=-1"),
        "invalid arg 'x-message-ttl' for queue 'n' in vhost '/': {value_negative,-1}",
    );
    check(
        desk.queue("n x-message-ttl=soon"),
        "invalid arg 'x-message-ttl' for queue 'n' in vhost '/': \"expected integer, got longstr\"",
    );
    check(
        desk.queue("n x-single-active-consumer=1"),
        "invalid arg 'x-single-active-consumer' for queue 'n' in vhost '/': {unacceptable_type,signedint}",
    );
    check(desk.queue("n x-queue-type=quorum"), "invalid property 'non-durable' for queue 'n' in vhost '/'");
    check(
        desk.queue("n durable x-queue-type=stream"),
        "invalid arg 'x-queue-type' for queue 'n' in vhost '/': queue type 'stream' not implemented",
    );
    check(
        desk.queue("n x-max-age=1h"),
        "invalid arg 'x-max-age' for queue 'n' in vhost '/' of queue type rabbit_classic_queue",
    );
    desk.queue("n x-queue-mode=lazy x-queue-version=2 x-queue-master-locator=min-masters x-of-mine=7").unwrap();
    desk.queue("mine exclusive").unwrap();
    desk.connection = 2;
    check(
        desk.queue("mine passive"),
        "cannot obtain exclusive access to locked queue 'mine' in vhost '/'. It could be originally declared on another \
         connection or the exclusive property value does not match that of the original declaration.",
    );
}

#[test]
fn exchanges_are_refused_with_rabbitmqs_words() {
    let mut desk = Desk::new();
    desk.exchange("x topic durable").unwrap();
    desk.exchange("amq.topic topic durable").unwrap();
    check(
        desk.exchange("x direct durable"),
        "inequivalent arg 'type' for exchange 'x' in vhost '/': received 'direct' but current is 'topic'",
    );
    check(
        desk.exchange("x topic durable internal"),
        "inequivalent arg 'internal' for exchange 'x' in vhost '/': received 'true' but current is 'false'",
    );
    check(desk.exchange("x strange"), "unknown exchange type 'strange'");
    check(desk.exchange(" direct"), "operation not permitted on the default exchange");
    check(desk.exchange("amq.x direct"), "exchange name 'amq.x' contains reserved prefix 'amq.*'");
    check(desk.exchange("none direct passive"), "no exchange 'none' in vhost '/'");
    check(
        desk.exchange("n direct alternate-exchange=5"),
        "invalid type 'signedint' for arg 'alternate-exchange' in exchange 'n' in vhost '/'",
    );
    desk.exchange("n direct alternate-exchange=none").unwrap();
    check(
        desk.exchange("n direct alternate-exchange=x"),
        "inequivalent arg 'alternate-exchange' for exchange 'n' in vhost '/': received 'x' but current is 'none'",
    );
    check(desk.bind("x", "q", Table::default()), "no queue 'q' in vhost '/'");
    desk.queue("q").unwrap();
    check(desk.bind("none", "q", Table::default()), "no exchange 'none' in vhost '/'");
    let wrong = Table(vec![("x-match".to_owned(), Value::Text("some".to_owned()))]);
    check(
        desk.bind("amq.headers", "q", wrong),
        "Invalid x-match field value \"some\"; expected all, any, all-with-x, or any-with-x",
    );
    let caller = Caller::of_user(&desk.vhost, &desk.user, ConnectionId(1));
    let delete = |name: &str, if_unused| DeleteExchange { exchange: Name::from(name), if_unused };
    check(
        desk.catalog.delete_exchange(&caller, &delete("amq.direct", false), &mut Vec::new()),
        "deletion of system exchange 'amq.direct' in vhost '/' not allowed",
    );
    check(
        desk.catalog.may_publish(&caller, "amq.rabbitmq.trace", b"", &[]),
        "cannot publish to internal exchange 'amq.rabbitmq.trace' in vhost '/'",
    );
}

#[test]
fn permissions_are_patterns_that_need_not_match_the_whole_name() {
    let mut desk = Desk::new();
    let (user, vhost) = (Name::from("u"), Name::from("/"));
    desk.catalog.put_user(&user, "", &[], &mut desk.changes);
    check(desk.catalog.may_enter("u", "/"), "access to vhost '/' refused for user 'u'");
    check(desk.catalog.may_enter("guest", "none"), "vhost none not found");
    desk.catalog.set_permission(&user, &vhost, ["^own-", "", "log"], &mut desk.changes).unwrap();
    desk.catalog.may_enter("u", "/").unwrap();
    let allowed = |access, name| desk.catalog.allowed("u", "/", access, Object::Queue, name);
    allowed(Access::Configure, "own-1").unwrap();
    allowed(Access::Read, "the-logs").unwrap();
    check(
        allowed(Access::Configure, "my-own-1"),
        "configure access to queue 'my-own-1' in vhost '/' refused for user 'u'",
    );
    check(allowed(Access::Write, "own-1"), "write access to queue 'own-1' in vhost '/' refused for user 'u'");
    check(
        desk.catalog.allowed("u", "/", Access::Write, Object::Exchange, ""),
        "write access to exchange 'amq.default' in vhost '/' refused for user 'u'",
    );
    let malformed = desk.catalog.set_permission(&user, &vhost, ["(", "", ""], &mut desk.changes);
    assert!(matches!(malformed, Err(Refusal::PreconditionFailed(_))), "{malformed:?}");
}

#[test]
fn ids_of_queues_are_never_given_twice() {
    let mut desk = Desk::new();
    let mut ids = Vec::new();
    for round in 0..3 {
        ids.extend((0..1500).map(|number| desk.queue(&format!("q{round}-{number}")).unwrap()));
        desk = desk.restarted();
    }
    assert!(ids.is_sorted_by(|a, b| a < b), "ids ascend, over restarts too");
    assert!(ids.iter().all(|id| *id == id.queue()), "an id leaves room for lanes");
}

/// The shard has written that the queue was deleted, and the crash came before the catalog could delete its
/// bindings.
#[test]
fn bindings_of_a_queue_that_went_in_a_crash_are_dropped() {
    let mut desk = Desk::new();
    desk.exchange("x direct durable auto-delete").unwrap();
    desk.exchange("kept direct durable").unwrap();
    let queue = desk.queue("q durable").unwrap();
    desk.bind("x", "q", Table::default()).unwrap();
    desk.bind("kept", "q", Table::default()).unwrap();
    desk.changes.push(CatalogEntry { kind: EntryKind::Queue, key: queue.0.to_be_bytes().to_vec(), value: None });
    let desk = desk.restarted().restarted();
    let bindings = desk.changes.iter().filter(|entry| entry.kind == EntryKind::Binding && entry.value.is_some());
    assert_eq!(bindings.count(), 0, "their tombstones were written");
    assert!(desk.catalog.exchange("/", "x").is_err(), "an auto-delete exchange goes with its last binding");
    assert!(desk.catalog.exchange("/", "kept").is_ok());
}

#[test]
fn bindings_between_exchanges_are_refused_with_rabbitmqs_words() {
    let mut desk = Desk::new();
    check(desk.bind_exchange("amq.fanout", "none"), "no exchange 'none' in vhost '/'");
    check(desk.bind_exchange("none", "amq.fanout"), "no exchange 'none' in vhost '/'");
    check(desk.bind_exchange("amq.fanout", ""), "operation not permitted on the default exchange");
    check(desk.bind_exchange("", "amq.fanout"), "operation not permitted on the default exchange");
    desk.bind_exchange("amq.fanout", "amq.rabbitmq.trace").unwrap();
    let (user, vhost) = (Name::from("u"), Name::from("/"));
    desk.catalog.put_user(&user, "", &[], &mut desk.changes);
    desk.catalog.set_permission(&user, &vhost, ["", "^amq.direct$", "^amq.topic$"], &mut desk.changes).unwrap();
    desk.user = user;
    check(
        desk.bind_exchange("amq.topic", "amq.fanout"),
        "write access to exchange 'amq.fanout' in vhost '/' refused for user 'u'",
    );
    check(
        desk.bind_exchange("amq.fanout", "amq.direct"),
        "read access to exchange 'amq.fanout' in vhost '/' refused for user 'u'",
    );
    desk.bind_exchange("amq.topic", "amq.direct").unwrap();
}

/// Deleting the last exchange of a chain also deletes the auto-delete ones before it, and that survives a restart.
#[test]
fn a_chain_of_auto_delete_exchanges_goes_with_its_end() {
    let mut desk = Desk::new();
    for name in ["a", "b", "c"] {
        desk.exchange(&format!("{name} fanout durable auto-delete")).unwrap();
    }
    desk.exchange("end fanout durable").unwrap();
    for (source, destination) in [("a", "b"), ("b", "c"), ("c", "c"), ("c", "end"), ("amq.fanout", "end")] {
        desk.bind_exchange(source, destination).unwrap();
    }
    let mut desk = desk.restarted();
    desk.bind_exchange("c", "c").unwrap();
    let (vhost, user) = (desk.vhost.clone(), desk.user.clone());
    let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
    for (name, left) in [("end", vec!["a", "b", "c"]), ("c", vec![])] {
        let delete = DeleteExchange { exchange: Name::from(name), if_unused: name == "end" };
        desk.catalog.delete_exchange(&caller, &delete, &mut desk.changes).unwrap();
        while desk.catalog.unbind_some(&mut desk.changes) {}
        let mut own: Vec<_> = desk.catalog.exchanges("/").map(|(name, _)| name.to_string()).collect();
        own.retain(|name| !name.is_empty() && !name.starts_with("amq."));
        own.sort();
        assert_eq!(own, left, "after {name}");
    }
    let desk = desk.restarted();
    let bindings = desk.changes.iter().filter(|entry| entry.kind == EntryKind::Binding && entry.value.is_some());
    assert_eq!(bindings.count(), 0);
}

#[test]
fn a_damaged_entry_is_named() {
    let desk = Desk::new();
    let mut entries = desk.changes;
    entries[0].value = Some(vec![0xc1]);
    let why = Catalog::load(&entries, HashKey::known(), &mut Vec::new()).unwrap_err();
    assert_eq!((why.kind, &why.key[..]), (EntryKind::Vhost, &b"/"[..]));
}

/// Whatever is missing, what belongs to it is dropped, and the rest is recovered.
#[test]
fn what_belongs_to_nothing_is_dropped_and_said() {
    let mut desk = Desk::new();
    desk.queue("q durable").unwrap();
    for exchange in ["x", "y"] {
        desk.exchange(&format!("{exchange} fanout durable")).unwrap();
        desk.bind(exchange, "q", Table::default()).unwrap();
    }
    desk.bind_exchange("x", "y").unwrap();
    desk.exchange("fleeting fanout durable auto-delete").unwrap();
    desk.bind_exchange("fleeting", "y").unwrap();
    let changes = &mut desk.changes;
    desk.catalog.set_topic_permission(&desk.user, &desk.vhost, &Name::from("x"), [".*"; 2], changes).unwrap();
    let named = |word: &[u8]| word.iter().map(|octet| format!("{octet:02x}")).collect::<String>();
    for (kind, key, dropped) in [
        (EntryKind::Vhost, "2f".to_owned(), 10),
        (EntryKind::User, named(b"guest"), 2),
        (EntryKind::Exchange, named(b"y"), 3),
        (EntryKind::Queue, String::new(), 2),
    ] {
        let hex = |entry: &CatalogEntry| named(&entry.key);
        let is_missing = |entry: &&CatalogEntry| entry.kind == kind && hex(entry).ends_with(&key);
        assert_eq!(desk.changes.iter().filter(is_missing).count(), 1, "{kind:?}");
        let rest: Vec<_> = desk.changes.iter().filter(|entry| !is_missing(entry)).cloned().collect();
        let mut changes = Vec::new();
        let loaded = Catalog::load(&rest, HashKey::known(), &mut changes).unwrap();
        assert_eq!(loaded.orphans.len(), dropped, "without a {kind:?}: {:#?}", loaded.orphans);
        assert!(changes.iter().all(|entry| entry.value.is_none()), "what is dropped is written down as gone");
        // After that is written, nothing is dropped again.
        let gone = |entry: &CatalogEntry| changes.iter().any(|gone| (gone.kind, &gone.key) == (entry.kind, &entry.key));
        let rest: Vec<_> = rest.iter().filter(|entry| !gone(entry)).cloned().collect();
        let (mut changes, shown) = (Vec::new(), loaded.catalog);
        let again = Catalog::load(&rest, HashKey::known(), &mut changes).unwrap();
        assert_eq!((again.orphans.len(), changes.len()), (0, 0), "without a {kind:?}");
        let names = |catalog: &Catalog| {
            let mut names: Vec<_> = catalog.exchanges("/").map(|(name, _)| name.to_string()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&again.catalog), names(&shown));
        if kind == EntryKind::Exchange {
            assert!(again.catalog.exchange("/", "x").is_ok(), "the rest is there");
            assert!(
                again.catalog.exchange("/", "fleeting").is_err(),
                "an auto-delete exchange goes with its last binding"
            );
        }
    }
}

#[test]
fn an_epoch_moves_with_what_may_change_a_route() {
    let mut desk = Desk::new();
    let epoch = desk.catalog.epoch("/").unwrap();
    let mut before = epoch.now();
    let mut moved = move |what: &str| {
        assert!(epoch.now() > before, "{what}");
        before = epoch.now();
    };
    let queue = desk.queue("q").unwrap();
    moved("a queue");
    desk.exchange("x direct").unwrap();
    moved("an exchange");
    desk.bind("x", "q", Table::default()).unwrap();
    moved("a binding");
    desk.catalog.forget_queue(queue);
    moved("a queue that is gone");
    desk.catalog.set_permission(&desk.user, &desk.vhost, [".*"; 3], &mut desk.changes).unwrap();
    moved("a permission");
}

/// After a crash between two portions, the start removes the bindings that are left. Auto-delete exchanges are deleted
/// with their last binding.
#[test]
fn bindings_that_were_not_reached_go_at_the_start() {
    let mut desk = Desk::new();
    let queue = desk.queue("q durable").unwrap();
    desk.exchange("x headers durable").unwrap();
    desk.exchange("y headers durable auto-delete").unwrap();
    for number in 0..300 {
        let table = Table(vec![("n".to_owned(), Value::Int(number))]);
        desk.bind("x", "q", table.clone()).unwrap();
        desk.bind("y", "q", table).unwrap();
    }
    desk.catalog.forget_queue(queue);
    // The entry that the shard writes when the queue is deleted.
    let entry = desk.changes.iter().find(|entry| entry.kind == EntryKind::Queue).unwrap();
    desk.changes.push(CatalogEntry { value: None, ..entry.clone() });
    assert!(desk.catalog.unbind_some(&mut desk.changes));
    let tombstones = |desk: &Desk| {
        let gone = desk.changes.iter().filter(|entry| entry.kind == EntryKind::Binding && entry.value.is_none());
        gone.count()
    };
    assert_eq!(tombstones(&desk), 128);
    let desk = desk.restarted();
    assert_eq!(desk.catalog.durable_bindings("/").count(), 0);
    assert!(desk.catalog.exchange("/", "x").is_ok() && desk.catalog.exchange("/", "y").is_err());
    assert_eq!(tombstones(&desk), 600);
}

/// Another connection declares an exchange again before all bindings of the deleted one are removed. It has none of
/// them.
#[test]
fn an_exchange_that_comes_back_at_once_has_no_bindings() {
    let mut desk = Desk::new();
    for exchange in ["x fanout durable", "y fanout durable"] {
        desk.exchange(exchange).unwrap();
    }
    for number in 0..300 {
        desk.queue(&format!("q{number} durable")).unwrap();
        desk.bind("x", &format!("q{number}"), Table::default()).unwrap();
        let table = Table(vec![("n".to_owned(), Value::Int(number))]);
        desk.bind_to(Destination::Exchange(Name::from("x")), "y", table).unwrap();
    }
    let (vhost, user) = (desk.vhost.clone(), desk.user.clone());
    let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
    let (exchange, if_unused) = (Name::from("x"), false);
    let delete = DeleteExchange { exchange, if_unused };
    let gone_before = desk.catalog.gone();
    desk.catalog.delete_exchange(&caller, &delete, &mut desk.changes).unwrap();
    assert!(desk.catalog.unbind_some(&mut desk.changes) && desk.catalog.is_unbinding(&(gone_before..u64::MAX)));
    desk.exchange("x fanout durable").unwrap();
    assert!(!desk.catalog.is_unbinding(&(gone_before..u64::MAX)));
    desk.bind("x", "q7", Table::default()).unwrap();
    let named = |desk: &Desk| {
        let bindings = desk.catalog.durable_bindings("/");
        bindings.map(|binding| format!("{} {}", binding.source, binding.target)).collect::<Vec<_>>()
    };
    assert_eq!(named(&desk), ["x q7"]);
    assert_eq!(named(&desk.restarted()), ["x q7"]);
}

/// The deletion of a queue with few bindings does not wait for one with many.
#[test]
fn few_bindings_go_before_many() {
    let mut desk = Desk::new();
    let queues = ["many", "few"].map(|queue| desk.queue(queue).unwrap());
    for number in 0..1_000 {
        let table = Table(vec![("n".to_owned(), Value::Int(number))]);
        desk.bind("amq.headers", if number < 900 { "many" } else { "few" }, table).unwrap();
    }
    desk.catalog.forget_queue(queues[0]);
    desk.catalog.unbind_some(&mut desk.changes);
    let gone_before = desk.catalog.gone();
    desk.catalog.forget_queue(queues[1]);
    assert!(desk.catalog.unbind_some(&mut desk.changes) && !desk.catalog.is_unbinding(&(gone_before..u64::MAX)));
    assert!(desk.catalog.is_unbinding(&(0..gone_before)), "who has deleted few works for nobody else");
}

/// While a deleted queue still has bindings, an exchange chooses among its other queues.
#[test]
fn no_exchange_chooses_a_queue_that_has_gone() {
    let mut desk = Desk::new();
    let queues = ["gone", "there"].map(|queue| desk.queue(queue).unwrap());
    for exchange in ["random x-random", "modulus x-modulus-hash", "share x-consistent-hash"] {
        desk.exchange(exchange).unwrap();
        let name = exchange.split(' ').next().unwrap();
        for queue in ["gone", "there"] {
            desk.bind_key(Destination::Queue(Name::from(queue)), name, "1", Table::default()).unwrap();
        }
    }
    for number in 0..300 {
        desk.bind("amq.headers", "gone", Table(vec![("n".to_owned(), Value::Int(number))])).unwrap();
    }
    desk.catalog.forget_queue(queues[0]);
    for exchange in ["random", "modulus", "share"] {
        for number in 0..20u64 {
            let (random, mut targets) = (|| number, Vec::new());
            let envelope = Envelope { random: &random, ..Envelope::EMPTY };
            desk.catalog.route("/", exchange, &number.to_be_bytes(), &[], &envelope, &mut targets).unwrap();
            assert_eq!(targets, [queues[1]], "{exchange} {number}");
        }
    }
}
