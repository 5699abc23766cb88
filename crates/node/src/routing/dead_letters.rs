//! Dead-lettering: a dead letter's annotations, its routing keys, and its target queues.

use ferrymq_broker::{Catalog, Dead, History, KeptMessage, RoutedMessage};
use ferrymq_model::{DeadLetter, Death, DeathReason, Dialects, Facts, MessageRef, Name, OwnedMessage, QueueId, Time};

use super::envelope::with_envelope;

/// Makes the dead letter of a message that leaves its queue at the time `wall`. None if its exchange is missing or
/// routes it to no queue, or if it is in a cycle.
pub fn dead_letter(
    catalog: &Catalog,
    dialects: &Dialects,
    dead: &Dead<'_>,
    message: &MessageRef<'_>,
    wall: Time,
    keeper: &dyn Fn(&History, KeptMessage),
) -> Option<RoutedMessage> {
    let address = dead.queue.dead_letters.as_ref()?;
    let death =
        Death { queue: &dead.queue.name, reason: dead.reason, new_key: address.routing_key.is_some(), at: wall };
    let made = DeadLetter::of(message, dialects.get(message.dialect)?, &death);
    // AMQP-57
    let routing_key = address.routing_key.as_ref().map_or(message.routing_key, |key| key.as_bytes());
    let mut targets = Vec::new();
    let vhost = &dead.queue.vhost;
    let sent = MessageRef { exchange: &address.exchange, routing_key, annotations: &made.annotations, ..*message };
    let keep = |history: &History| {
        let kept = KeptMessage {
            message: sent.owned(),
            more_keys: made.more_keys.clone().into(),
            persistent: made.persistent,
            priority: dead.facts.priority,
            expiration_ms: None,
        };
        keeper(history, kept);
    };
    // No random numbers under the shard's lock: dead letters of one moment go to the same queue of an x-random
    // exchange.
    let (routed, matched) = with_envelope(dialects, &sent, &|| dead.at.0, &keep, |envelope| {
        catalog.route(vhost, &address.exchange, routing_key, &made.more_keys, envelope, &mut targets)
    });
    if !sent.fits() {
        tracing::warn!(queue = %dead.queue.name, "a dead letter has become too long and is dropped");
        return None;
    }
    if routed.is_err() {
        // As in RabbitMQ: a dead-letter exchange may be declared later, or never. (AMQP-61)
        tracing::debug!(queue = %dead.queue.name, exchange = %address.exchange, "a dead letter has no exchange");
        return None;
    }
    if dead.reason != DeathReason::Rejected {
        targets.retain(|target| !is_circle(catalog, *target, &made.deaths));
    }
    let dead_letter = RoutedMessage {
        message: OwnedMessage {
            dialect: message.dialect,
            exchange: address.exchange.clone(),
            routing_key: routing_key.into(),
            properties: message.properties.to_vec(),
            annotations: made.annotations.into(),
            body: message.body.into(),
        },
        // AMQP-60
        facts: Facts { expires: None, arrived: dead.at, ..*dead.facts },
        persistent: made.persistent,
        targets,
        matched,
    };
    (!dead_letter.targets.is_empty()).then_some(dead_letter)
}

/// Whether the dead letter has been in the queue before, and no consumer has rejected it since. (AMQP-59)
fn is_circle(catalog: &Catalog, target: QueueId, deaths: &[(String, bool)]) -> bool {
    let Some(queue) = catalog.queue_by_id(target) else { return false };
    let name: &Name = &queue.settings.name;
    match deaths.iter().position(|(queue, _)| **queue == **name) {
        Some(at) => deaths[..=at].iter().all(|(_, rejected)| !rejected),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use ferrymq_broker::{Caller, Content, DeadLettering, HashKey, QueueSettings};
    use ferrymq_model::{Arguments, BodyRef, ConnectionId, DeathRecord, DeclareQueue, Dialect, DialectId, Head, Time};

    use super::*;

    /// Properties that contain the names of the queues in which the message was dead-lettered, each with `!` if it was
    /// rejected.
    struct Names;

    impl Dialect for Names {
        fn id(&self) -> DialectId {
            DialectId(1)
        }

        fn read<'a>(&self, message: &MessageRef<'a>) -> Head<'a> {
            let names = std::str::from_utf8(message.properties).expect("they are names");
            let record = |name: &'a str| DeathRecord {
                queue: Cow::Borrowed(name.trim_end_matches('!')),
                reason: Some(if name.ends_with('!') { DeathReason::Rejected } else { DeathReason::Expired }),
                count: 1,
                ..DeathRecord::default()
            };
            Head { deaths: names.split_whitespace().map(record).collect(), ..Head::default() }
        }

        fn write(&self, _: &Head<'_>) -> Option<Vec<u8>> {
            None
        }
    }

    fn catalog_with(queue: &str) -> Catalog {
        let mut catalog = Catalog::fresh("", HashKey::known(), &mut Vec::new());
        let (vhost, user) = (Name::from("/"), Name::from("guest"));
        let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
        let declare = DeclareQueue {
            queue: Name::from(queue),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            arguments: Arguments::default(),
        };
        catalog.declare_queue(&caller, &declare, 0, &mut Vec::new()).expect("nothing stands against it");
        catalog
    }

    fn dies(catalog: &Catalog, address: DeadLettering, reason: DeathReason, before: &str) -> Option<RoutedMessage> {
        let queue = QueueSettings {
            vhost: Name::from("/"),
            name: Name::from("from"),
            dead_letters: Some(address),
            ..QueueSettings::default()
        };
        let message = MessageRef {
            dialect: DialectId(1),
            exchange: "amq.direct",
            routing_key: b"to",
            properties: before.as_bytes(),
            annotations: &[],
            body: BodyRef::Inline(b"body"),
        };
        let facts = Facts { body_bytes: 4, priority: 3, expires: Some(Time(7)), arrived: Time(1) };
        let content = Content::Passing(&message);
        let dead = Dead { queue: &queue, content, facts: &facts, reason, at: Time(9) };
        dead_letter(catalog, &Dialects::new([&Names as &dyn Dialect]), &dead, &message, Time(9), &|_, _| {})
    }

    fn to(exchange: &str, key: Option<&str>) -> DeadLettering {
        DeadLettering { exchange: Name::from(exchange), routing_key: key.map(Name::from), at_least_once: false }
    }

    #[test]
    fn a_dead_letter_goes_where_its_exchange_sends_it() {
        let catalog = catalog_with("to");
        let dead_letter =
            dies(&catalog, to("", None), DeathReason::Expired, "").expect("there is a queue of that name");
        assert_eq!(dead_letter.targets.len(), 1);
        assert_eq!(&*dead_letter.message.exchange, "");
        assert_eq!(&*dead_letter.message.routing_key, b"to");
        let facts = Facts { body_bytes: 4, priority: 3, expires: None, arrived: Time(9) };
        assert_eq!(dead_letter.facts, facts);

        let other = catalog_with("other");
        assert!(dies(&other, to("", None), DeathReason::Expired, "").is_none(), "unroutable");
        let renamed = dies(&other, to("", Some("other")), DeathReason::Expired, "").expect("the new key leads there");
        assert_eq!(&*renamed.message.routing_key, b"other");
        assert!(dies(&catalog, to("missing", None), DeathReason::Expired, "").is_none());
    }

    #[test]
    fn a_circle_ends_unless_somebody_rejects_in_it() {
        let catalog = catalog_with("to");
        let goes_on = |reason, before| dies(&catalog, to("", None), reason, before).is_some();
        assert!(goes_on(DeathReason::Expired, "elsewhere"));
        assert!(!goes_on(DeathReason::Expired, "to"));
        assert!(!goes_on(DeathReason::MaxLength, "elsewhere to before"));
        assert!(goes_on(DeathReason::Expired, "elsewhere! to"), "rejected on the way round");
        assert!(goes_on(DeathReason::Expired, "to!"), "rejected there itself");
        assert!(!goes_on(DeathReason::Expired, "to before!"), "a rejection before the circle does not count");
        assert!(goes_on(DeathReason::Rejected, "to"));
    }
}
