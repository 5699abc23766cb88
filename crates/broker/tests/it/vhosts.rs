//! The settings of vhosts: a default queue type, and limits. The answers are RabbitMQ 3.10.8's.

use ferrymq_broker::QueueKind;
use ferrymq_model::{Name, UserLimits, VhostSettings};

use crate::desk::{Desk, check};

fn desk_with(settings: VhostSettings) -> Desk {
    let mut desk = Desk::new();
    desk.catalog.set_vhost_settings(&Name::from("/"), settings, &mut desk.changes).unwrap();
    desk
}

#[test]
fn queues_are_of_the_vhosts_type_where_they_can_be_and_name_none() {
    let settings = VhostSettings { default_queue_type: Some("quorum".to_owned()), ..VhostSettings::default() };
    let mut desk = desk_with(settings);
    for (words, kind) in [
        ("a durable", QueueKind::Quorum),
        ("a durable x-queue-type=quorum", QueueKind::Quorum),
        ("b", QueueKind::Classic),
        ("c durable exclusive", QueueKind::Classic),
        ("d durable auto-delete", QueueKind::Classic),
        ("e durable x-queue-type=classic", QueueKind::Classic),
    ] {
        let id = desk.queue(words).unwrap();
        assert_eq!(desk.catalog.queue_by_id(id).unwrap().kind, kind, "{words}");
    }
    let other =
        "inequivalent arg 'x-queue-type' for queue 'a' in vhost '/': received 'classic' but current is 'quorum'";
    check(desk.queue("a durable x-queue-type=classic"), other);
    let other =
        "inequivalent arg 'x-queue-type' for queue 'e' in vhost '/': received 'quorum' but current is 'classic'";
    check(desk.queue("e durable"), other);
    let priority = "invalid arg 'x-max-priority' for queue 'f' in vhost '/' of queue type rabbit_quorum_queue";
    check(desk.queue("f durable x-max-priority=3"), priority);
    check(desk.queue(" durable"), "Cannot declare a server-named queue for type rabbit_quorum_queue");
}

#[test]
fn a_vhost_holds_so_many_queues_and_old_ones_do_not_count_again() {
    let mut desk = desk_with(VhostSettings { queues_max: Some(1), ..VhostSettings::default() });
    desk.queue("a").unwrap();
    desk.queue("a").unwrap();
    check(desk.queue("b"), "cannot declare queue 'b': queue limit in vhost '/' (1) is reached");
    let mut none = desk_with(VhostSettings { queues_max: Some(0), ..VhostSettings::default() });
    check(none.queue("a"), "cannot declare queue 'a': queue limit in vhost '/' (0) is reached");
}

#[test]
fn settings_and_limits_outlive_a_restart_and_a_changed_password() {
    let settings = VhostSettings {
        description: "text".to_owned(),
        tags: vec!["tag".to_owned()],
        default_queue_type: Some("quorum".to_owned()),
        connections_max: Some(1),
        queues_max: Some(2),
    };
    let mut desk = desk_with(settings.clone());
    let (guest, limits) = (Name::from("guest"), UserLimits { connections_max: Some(3), channels_max: None });
    desk.catalog.set_user_limits(&guest, limits, &mut desk.changes).unwrap();
    desk.catalog.put_user(&guest, "another hash", &[], &mut desk.changes);
    let count = desk.changes.len();
    desk.catalog.set_vhost_settings(&Name::from("/"), settings.clone(), &mut desk.changes).unwrap();
    desk.catalog.set_user_limits(&guest, limits, &mut desk.changes).unwrap();
    assert_eq!(desk.changes.len(), count, "what is so already is not written again");
    let desk = desk.restarted();
    assert_eq!(desk.catalog.vhost_settings("/"), Ok(&settings));
    assert_eq!(desk.catalog.user_limits("guest"), limits);
    assert_eq!(desk.catalog.user_limits("nobody"), UserLimits::default());
}

#[test]
fn a_type_of_queue_that_there_is_not_is_no_default() {
    let mut desk = Desk::new();
    let settings = VhostSettings { default_queue_type: Some("lifo".to_owned()), ..VhostSettings::default() };
    let set = desk.catalog.set_vhost_settings(&Name::from("/"), settings, &mut desk.changes);
    check(set, "there is no queue type 'lifo'; allowed: classic, quorum, stream");
}
