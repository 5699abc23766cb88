//! Arguments of queues and subscriptions: what is refused, and with which text. All were compared with RabbitMQ
//! 3.10.8.

use ferrymq_broker::{DeadLettering, Overflow, QueueSettings};
use ferrymq_model::{Name, Table, Value};

use crate::desk::{Desk, check};

/// A declaration of queue `q`, and why it is refused.
const REFUSED: &str = "\
x-queue-type=5 | invalid arg 'x-queue-type' for queue 'q' in vhost '/': {unacceptable_type,signedint}
x-queue-type=foo | invalid arg 'x-queue-type' for queue 'q' in vhost '/': \"unsupported queue type 'foo'\"
x-delivery-limit=5 | invalid arg 'x-delivery-limit' for queue 'q' in vhost '/' of queue type rabbit_classic_queue
x-dead-letter-strategy=at-most-once | invalid arg 'x-dead-letter-strategy' for queue 'q' in vhost '/' of queue type rabbit_classic_queue
x-queue-leader-locator=client-local | invalid arg 'x-queue-leader-locator' for queue 'q' in vhost '/' of queue type rabbit_classic_queue
x-max-age=1h | invalid arg 'x-max-age' for queue 'q' in vhost '/' of queue type rabbit_classic_queue
x-dead-letter-routing-key=a | invalid arg 'x-dead-letter-routing-key' for queue 'q' in vhost '/': routing_key_but_no_dlx_defined
x-dead-letter-exchange=5 | invalid type 'signedint' for arg 'x-dead-letter-exchange' in queue 'q' in vhost '/'
x-dead-letter-exchange=a x-dead-letter-routing-key=5 | invalid arg 'x-dead-letter-routing-key' for queue 'q' in vhost '/': {unacceptable_type,signedint}
x-max-priority=256 | invalid arg 'x-max-priority' for queue 'q' in vhost '/': {max_value_exceeded,256}
x-max-priority=-1 | invalid arg 'x-max-priority' for queue 'q' in vhost '/': {value_negative,-1}
x-max-priority=a | invalid arg 'x-max-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\"
x-overflow=a | invalid arg 'x-overflow' for queue 'q' in vhost '/': invalid_overflow
x-overflow=5 | invalid arg 'x-overflow' for queue 'q' in vhost '/': {unacceptable_type,signedint}
x-single-active-consumer=a | invalid arg 'x-single-active-consumer' for queue 'q' in vhost '/': {unacceptable_type,longstr}
x-max-length=-1 | invalid arg 'x-max-length' for queue 'q' in vhost '/': {value_negative,-1}
x-max-length=a | invalid arg 'x-max-length' for queue 'q' in vhost '/': \"expected integer, got longstr\"
x-expires=1099511627776 | invalid arg 'x-expires' for queue 'q' in vhost '/': {value_too_large,1099511627776}
x-message-ttl=1099511627776 | invalid arg 'x-message-ttl' for queue 'q' in vhost '/': {value_too_large,1099511627776}
x-expires=true | invalid arg 'x-expires' for queue 'q' in vhost '/': \"expected integer, got bool\"
x-expires=0 | invalid arg 'x-expires' for queue 'q' in vhost '/': {value_zero,0}
x-queue-mode=5 | invalid arg 'x-queue-mode' for queue 'q' in vhost '/': {unacceptable_type,signedint}
x-queue-mode=a | invalid arg 'x-queue-mode' for queue 'q' in vhost '/': \"unsupported queue mode 'a'\"
x-queue-version=3 | invalid arg 'x-queue-version' for queue 'q' in vhost '/': \"unsupported queue version '3'\"
x-queue-version=a | invalid arg 'x-queue-version' for queue 'q' in vhost '/': \"expected integer, got longstr\"
";

#[test]
fn arguments_are_refused_with_rabbitmqs_words() {
    let mut desk = Desk::new();
    for line in REFUSED.lines() {
        let (arguments, text) = line.split_once(" | ").unwrap();
        check(desk.queue(&format!("q {arguments}")), text);
    }
}

/// A binding's record contains its arguments twice, and the smallest journal file has 256 KiB.
#[test]
fn arguments_that_are_too_long_to_be_kept_are_refused() {
    let mut desk = Desk::new();
    desk.queue(&format!("q x-mine={}", "a".repeat(98_000))).unwrap();
    let refused = desk.queue(&format!("r x-mine={}", "a".repeat(98_400)));
    check(refused, "arguments of queue 'r' in vhost '/' take 98420 bytes, and may take 98304");
}

#[test]
fn what_changes_nothing_is_taken() {
    let mut desk = Desk::new();
    let taken = ["x-message-ttl=4294967296", "x-max-priority=0", "x-queue-mode=lazy", "x-queue-version=1", "x-mine=7"];
    for (number, arguments) in taken.into_iter().enumerate() {
        desk.queue(&format!("q{number} {arguments}")).unwrap();
    }
}

#[test]
fn arguments_say_what_the_queue_does() {
    let mut desk = Desk::new();
    let arguments = "x-message-ttl=1 x-expires=2 x-max-length=3 x-max-length-bytes=4 x-overflow=reject-publish-dlx \
                     x-dead-letter-exchange=x x-dead-letter-routing-key=k x-consumer-timeout=5";
    let id = desk.queue(&format!("q {arguments}")).unwrap();
    let expected = QueueSettings {
        vhost: desk.vhost.clone(),
        name: Name::from("q"),
        message_ttl_ms: Some(1),
        unused_ms_max: Some(2),
        messages_max: Some(3),
        bytes_max: Some(4),
        overflow: Overflow::RejectPublishDeadLetter,
        dead_letters: Some(DeadLettering {
            exchange: Name::from("x"),
            routing_key: Some(Name::from("k")),
            at_least_once: false,
        }),
        consumer_timeout_ms: Some(5),
        ..QueueSettings::default()
    };
    assert_eq!(desk.catalog.queue_by_id(id).unwrap().settings.as_ref(), &expected);
}

#[test]
fn a_redeclaration_compares_the_arguments_of_the_queues_type() {
    let mut desk = Desk::new();
    desk.queue("q x-message-ttl=5").unwrap();
    desk.queue("q x-message-ttl=5 x-delivery-limit=4 x-mine=1").unwrap();
    check(
        desk.queue("q x-message-ttl=5 x-queue-type=quorum"),
        "inequivalent arg 'x-queue-type' for queue 'q' in vhost '/': received the value 'quorum' of type 'longstr' but \
         current is none",
    );
}

#[test]
fn arguments_of_subscriptions_are_refused_with_rabbitmqs_words() {
    let mut desk = Desk::new();
    let id = desk.queue("q").unwrap();
    let queue = desk.catalog.queue_by_id(id).unwrap();
    let priority = |key: &str, value| queue.subscription_priority(&Table(vec![(key.to_owned(), value)]));
    assert_eq!(priority("x-priority", Value::Int(-5)), Ok(-5));
    assert_eq!(priority("x-cancel-on-ha-failover", Value::Bool(true)), Ok(0));
    assert_eq!(priority("x-stream-filter", Value::Void), Ok(0));
    let text = || Value::Text("a".to_owned());
    check(
        priority("x-priority", text()),
        "invalid arg 'x-priority' for queue 'q' in vhost '/': \"expected integer, got longstr\"",
    );
    check(
        priority("x-cancel-on-ha-failover", text()),
        "invalid arg 'x-cancel-on-ha-failover' for queue 'q' in vhost '/': {unacceptable_type,longstr}",
    );
    check(
        priority("x-stream-offset", text()),
        "invalid arg 'x-stream-offset' for queue 'q' in vhost '/' of queue type rabbit_classic_queue",
    );
    let timeout = |value| queue.subscription_timeout_ms(&Table(vec![("x-consumer-timeout".to_owned(), value)]));
    assert_eq!(timeout(Value::Int(7)), Ok(Some(7)));
    assert_eq!(queue.subscription_timeout_ms(&Table::default()), Ok(None));
    check(
        timeout(text()),
        "invalid arg 'x-consumer-timeout' for queue 'q' in vhost '/': \"expected integer, got longstr\"",
    );
}
