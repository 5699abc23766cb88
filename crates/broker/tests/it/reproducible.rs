//! The same calls have the same results, though the seeds of the catalog's hash tables differ: each table has another
//! one.

use std::cell::RefCell;
use std::sync::Arc;

use ferrymq_broker::{Envelope, History};
use ferrymq_model::{CatalogEntry, Destination, Name, Table};

use crate::desk::Desk;

/// So many that two tables with different seeds do not have the same order by chance.
const MANY: usize = 20;

fn names(prefix: &str) -> Vec<Name> {
    (0..MANY).map(|number| Name::from(&*format!("{prefix}{number}"))).collect()
}

/// Users with permissions everywhere, and exchanges, queues and bindings in vhost `v0`.
fn desk_with_many() -> Desk {
    let mut desk = Desk::new();
    let (users, vhosts, exchanges) = (names("u"), names("v"), names("x"));
    let Desk { catalog, changes, .. } = &mut desk;
    vhosts.iter().for_each(|vhost| catalog.put_vhost(vhost, changes));
    users.iter().for_each(|user| catalog.put_user(user, "", &[], changes));
    for (user, vhost) in users.iter().flat_map(|user| vhosts.iter().map(move |vhost| (user, vhost))) {
        catalog.set_permission(user, vhost, [".*"; 3], changes).unwrap();
    }
    for (user, exchange) in users.iter().flat_map(|user| exchanges.iter().map(move |exchange| (user, exchange))) {
        catalog.set_topic_permission(user, &vhosts[0], exchange, [".*"; 2], changes).unwrap();
    }
    (desk.user, desk.vhost) = (users[0].clone(), vhosts[0].clone());
    for exchange in &exchanges {
        desk.exchange(&format!("{exchange} x-delayed-message durable x-delayed-type=fanout")).unwrap();
        desk.queue(&format!("q-{exchange} durable")).unwrap();
        desk.bind(exchange, &format!("q-{exchange}"), Table::default()).unwrap();
    }
    desk
}

#[test]
fn what_a_deletion_writes_has_an_order() {
    let deleted = || -> Vec<CatalogEntry> {
        let mut desk = desk_with_many();
        let Desk { catalog, changes, .. } = &mut desk;
        let (users, vhosts) = (names("u"), names("v"));
        changes.clear();
        catalog.clear_topic_permissions(&users[1], &vhosts[0], None, changes);
        catalog.delete_user(&users[2], changes).unwrap();
        catalog.delete_vhost(&vhosts[0], changes).unwrap();
        desk.changes
    };
    let first = deleted();
    assert!(first.len() > 10 * MANY, "{}", first.len());
    assert_eq!(first, deleted());
}

#[test]
fn lists_have_an_order() {
    let desk = desk_with_many();
    let catalog = &desk.catalog;
    assert!(catalog.vhosts().is_sorted());
    assert!(catalog.users().map(|(name, _)| name).is_sorted());
    assert!(catalog.exchanges("v0").map(|(name, _)| name).is_sorted());
    assert!(catalog.queues().map(|queue| queue.id).is_sorted());
    // As they were declared and bound.
    let targets: Vec<_> = catalog.durable_bindings("v0").map(|binding| binding.source).collect();
    assert_eq!(targets, names("x"));
    let mut scheduled = names("x");
    scheduled.sort();
    assert_eq!(catalog.schedules().map(|(_, settings)| settings.exchange).collect::<Vec<_>>(), scheduled);
}

#[test]
fn a_message_for_a_deleted_queue_goes_to_the_same_other_one() {
    let routes = || {
        let mut desk = Desk::new();
        desk.exchange("x x-consistent-hash").unwrap();
        let queues: Vec<_> = names("q").iter().map(|queue| desk.queue(queue).unwrap()).collect();
        for queue in names("q") {
            desk.bind_key(Destination::Queue(queue), "x", "1", Table::default()).unwrap();
        }
        // Their bindings are still there.
        queues.iter().skip(1).step_by(2).for_each(|queue| desk.catalog.forget_queue(*queue));
        let mut found = Vec::new();
        for key in names("key") {
            let mut targets = Vec::new();
            desk.catalog.route("/", "x", key.as_bytes(), &[], &Envelope::EMPTY, &mut targets).unwrap();
            found.push(targets);
        }
        let is_there = |queue| queues.iter().step_by(2).any(|there| there == queue);
        assert!(found.iter().all(|targets| targets.len() == 1 && is_there(&targets[0])), "{found:?}");
        found
    };
    assert_eq!(routes(), routes());
}

#[test]
fn exchanges_behind_a_topic_exchange_are_reached_in_the_order_of_their_names() {
    let mut desk = Desk::new();
    let words = ["f", "b", "d", "a", "e", "c"];
    let mut histories: Vec<(&str, Arc<History>)> = Vec::new();
    for word in words {
        desk.exchange(&format!("{word} x-recent-history")).unwrap();
        let destination = Destination::Exchange(Name::from(word));
        desk.bind_key(destination, "amq.topic", &format!("#.{word}.#"), Table::default()).unwrap();
        histories.push((word, desk.catalog.history("/", word).unwrap()));
    }
    let kept = RefCell::new(Vec::new());
    let keep = |history: &History| {
        let found = histories.iter().find(|(_, other)| std::ptr::eq(&**other, history));
        kept.borrow_mut().push(found.unwrap().0);
    };
    let envelope = Envelope { keep: &keep, ..Envelope::EMPTY };
    // The key has more words than the tree has behind `#`.
    desk.catalog.route("/", "amq.topic", b"e.a.c.b.f.d.x.y", &[], &envelope, &mut Vec::new()).unwrap();
    assert_eq!(kept.take(), ["a", "b", "c", "d", "e", "f"]);
}
