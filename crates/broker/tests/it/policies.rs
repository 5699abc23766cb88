//! Policies: what is refused, which of several applies, and what changes.

use std::sync::Arc;

use ferrymq_broker::{DeadLettering, Envelope, Overflow, QueueSettings, Shard};
use ferrymq_model::{ApplyTo, Name, PolicyScope, PolicySpec, QueueId, Refusal, Table, Time, Value};

use crate::desk::{Desk, check};

/// Sets a policy: name, pattern, what it applies to, priority, and `key=value` settings.
fn set(desk: &mut Desk, scope: PolicyScope, words: &str) -> Result<Vec<(QueueId, Arc<QueueSettings>)>, Refusal> {
    let mut words = words.split(' ');
    let mut next = || words.next().unwrap();
    let (name, pattern, apply_to, priority) = (Name::from(next()), next(), next(), next());
    let definition: Table = words
        .map(|setting| {
            let (key, value) = setting.split_once('=').unwrap();
            (key.to_owned(), value.parse().map_or_else(|_| Value::Text(value.to_owned()), Value::Int))
        })
        .collect();
    let spec = PolicySpec {
        pattern: pattern.to_owned(),
        apply_to: ApplyTo::parse(apply_to)?,
        priority: priority.parse().unwrap(),
        definition,
    };
    desk.catalog.set_policy(&desk.vhost, scope, &name, &spec, &mut desk.changes)
}

#[test]
fn definitions_are_refused_with_the_setting_and_the_value() {
    let mut desk = Desk::new();
    let mut user = |words: &str, text: &str| check(set(&mut desk, PolicyScope::User, words), text);
    user("p q all 0", "no policy provided");
    user("p q all 0 foo=1", "policy setting 'foo' is not known");
    user("p q all 0 foo=a bar=1", "policy settings 'foo', 'bar' are not known");
    user("p q all 0 max-length=a", "policy setting 'max-length' is 'a', which is not a valid maximum length");
    user("p q all 0 max-length=-1", "policy setting 'max-length' is -1, which is not a valid maximum length");
    user("p q all 0 overflow=x", "policy setting 'overflow' is 'x', which is not a valid overflow value");
    user("p q all 0 message-ttl=b", "policy setting 'message-ttl' is 'b', which is not a valid message TTL");
    user("p q all 0 expires=0", "policy setting 'expires' is 0, which is not a valid queue expiry");
    let texts = [
        ("dead-letter-exchange=5", "dead letter exchange name"),
        ("dead-letter-routing-key=5", "dead letter routing key"),
        ("alternate-exchange=5", "alternate exchange name"),
        ("delivery-limit=-1", "delivery limit"),
    ];
    for (setting, noun) in texts {
        let (key, value) = setting.split_once('=').unwrap();
        user(
            &format!("p q all 0 {setting}"),
            &format!("policy setting '{key}' is {value}, which is not a valid {noun}"),
        );
    }
    user("p q all 0 queue-mode=x", "policy setting 'queue-mode' is 'x', which is not a valid queue-mode value");
    let mut operator = |words: &str, text: &str| check(set(&mut desk, PolicyScope::Operator, words), text);
    let text = "policy setting 'dead-letter-exchange' is not one that an operator's policy can have";
    operator("p q all 0 dead-letter-exchange=x", text);
    let pattern = set(&mut desk, PolicyScope::User, "p ( all 0 ha-mode=all").unwrap_err();
    assert_eq!(pattern.to_string(), "pattern '(' is not a valid regular expression: unclosed group");
    let applied = set(&mut desk, PolicyScope::User, "p q foo 0 ha-mode=all").unwrap_err();
    assert!(applied.to_string().starts_with("apply-to 'foo' unrecognised; should be one of: 'queues'"), "{applied}");
}

#[test]
fn settings_of_plugins_and_clusters_are_kept() {
    let mut desk = Desk::new();
    let kept =
        "ha-sync-batch-size=10 federation-upstream=u stream-filter-size-bytes=32 shards-per-node=2 routing-key=1";
    set(&mut desk, PolicyScope::User, &format!("p q all 0 {kept}")).unwrap();
    set(&mut desk, PolicyScope::Operator, "o q queues 0 ha-mode=all queue-version=2 overflow=reject-publish").unwrap();
    // A stream's setting says that the policy is for streams.
    set(&mut desk, PolicyScope::User, "p q all 0 ha-sync-batch-size=10 federation-upstream=u max-length=5").unwrap();
    desk.queue("q durable").unwrap();
    let settings = |desk: &Desk| desk.catalog.queues().next().unwrap().settings.clone();
    assert_eq!(settings(&desk).messages_max, Some(5));
    assert_eq!(settings(&desk).overflow, Overflow::RejectPublish, "an operator's");
    set(&mut desk, PolicyScope::User, "p q all 0 overflow=drop-head max-length=5").unwrap();
    assert_eq!(settings(&desk).overflow, Overflow::RejectPublish, "an operator's goes before a user's");
}

fn routes(desk: &Desk, exchange: &str) -> bool {
    let mut targets = Vec::new();
    let envelope = Envelope::EMPTY;
    desk.catalog.route("/", exchange, b"k", &[], &envelope, &mut targets).unwrap();
    !targets.is_empty()
}

#[test]
fn an_alternate_exchange_may_come_from_a_policy() {
    let mut desk = Desk::new();
    desk.queue("q durable").unwrap();
    desk.bind("amq.fanout", "q", Table::default()).unwrap();
    for words in ["x direct durable", "own direct durable alternate-exchange=none", "y direct durable"] {
        desk.exchange(words).unwrap();
    }
    assert!(!routes(&desk, "x"));
    set(&mut desk, PolicyScope::User, "p ^(x|own|late)$ exchanges 0 alternate-exchange=amq.fanout").unwrap();
    desk.exchange("late direct durable").unwrap();
    assert!(routes(&desk, "x") && routes(&desk, "late"));
    assert!(!routes(&desk, "own"), "an argument goes before a policy");
    assert!(!routes(&desk, "y"), "its name does not match");
    let mut desk = desk.restarted();
    assert!(routes(&desk, "x") && routes(&desk, "late"), "after a restart");
    set(&mut desk, PolicyScope::User, "higher x all 1 alternate-exchange=none").unwrap();
    assert!(!routes(&desk, "x"), "a higher priority goes first");
    set(&mut desk, PolicyScope::User, "queues-only x queues 2 alternate-exchange=amq.fanout").unwrap();
    assert!(!routes(&desk, "x"), "one for queues does not apply to exchanges");
    desk.catalog.clear_policy(&desk.vhost, PolicyScope::User, &Name::from("higher"), &mut desk.changes).unwrap();
    assert!(routes(&desk, "x"));
    let again = desk.catalog.clear_policy(&desk.vhost, PolicyScope::User, &Name::from("higher"), &mut desk.changes);
    check(again, "no policy 'higher' in vhost '/'");
    assert!(routes(&desk.restarted(), "x"));
}

#[test]
fn of_two_limits_the_lower_holds_and_a_declaration_s_address_goes_first() {
    let mut desk = Desk::new();
    desk.queue("own durable x-max-length=5 x-dead-letter-exchange=mine").unwrap();
    let plain = desk.queue("plain durable").unwrap();
    let own = desk.catalog.queues().find(|queue| queue.id != plain).unwrap().id;
    let policy = "p . queues 0 max-length=7 message-ttl=100 dead-letter-exchange=theirs dead-letter-routing-key=k";
    let changed = set(&mut desk, PolicyScope::User, policy).unwrap();
    assert_eq!(changed.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [own, plain]);
    let address = |exchange: &str| {
        Some(DeadLettering { exchange: Name::from(exchange), routing_key: Some(Name::from("k")), at_least_once: false })
    };
    let seen = |desk: &Desk, id| {
        let settings = &desk.catalog.queue_by_id(id).unwrap().settings;
        (settings.messages_max, settings.message_ttl_ms, settings.dead_letters.clone())
    };
    assert_eq!(seen(&desk, own), (Some(5), Some(100), address("mine")));
    assert_eq!(seen(&desk, plain), (Some(7), Some(100), address("theirs")));
    // An operator's limits are merged with that.
    let changed = set(&mut desk, PolicyScope::Operator, "o own queues 0 max-length=6 message-ttl=50").unwrap();
    assert_eq!(changed.len(), 1, "the limit of the declaration is lower, the time is not");
    assert_eq!(seen(&desk, own), (Some(5), Some(50), address("mine")));
    let mut desk = desk.restarted();
    assert_eq!(seen(&desk, own), (Some(5), Some(50), address("mine")), "after a restart");
    assert_eq!(seen(&desk, plain), (Some(7), Some(100), address("theirs")), "after a restart");
    let late = desk.queue("late").unwrap();
    assert_eq!(seen(&desk, late), (Some(7), Some(100), address("theirs")), "a queue made later");
    let changed = desk.catalog.clear_policy(&desk.vhost, PolicyScope::User, &Name::from("p"), &mut desk.changes);
    assert_eq!(changed.unwrap().len(), 3);
    assert_eq!(seen(&desk, plain), (None, None, None));
    assert_eq!(seen(&desk, own).1, Some(50));
}

#[test]
fn a_policy_is_for_the_types_of_queues_that_have_its_settings() {
    let mut desk = Desk::new();
    let classic = desk.queue("classic").unwrap();
    let quorum = desk.queue("quorum durable x-queue-type=quorum x-delivery-limit=9").unwrap();
    let ids = |changed: Vec<(QueueId, Arc<QueueSettings>)>| changed.into_iter().map(|(id, _)| id).collect::<Vec<_>>();
    let changed = set(&mut desk, PolicyScope::User, "a . all 2 delivery-limit=3 max-length=1").unwrap();
    assert_eq!(ids(changed), [quorum], "classic queues have no delivery limit, so it is none of theirs");
    assert_eq!(desk.catalog.queue_by_id(quorum).unwrap().settings.attempts_max, Some(3));
    let changed = set(&mut desk, PolicyScope::User, "b . classic_queues 1 max-length=2").unwrap();
    assert_eq!(ids(changed), [classic], "the next in priority applies instead");
    let changed = set(&mut desk, PolicyScope::User, "c . quorum_queues 3 max-length=4").unwrap();
    assert_eq!(ids(changed), [quorum]);
    let settings = &desk.catalog.queue_by_id(quorum).unwrap().settings;
    assert_eq!((settings.attempts_max, settings.messages_max), (Some(9), Some(4)), "one policy, not two");
}

/// A queue's settings take memory once, also after they have changed.
#[test]
fn catalog_and_shard_share_the_settings_of_a_queue() {
    let (mut desk, mut shard) = (Desk::new(), Shard::new());
    let id = desk.queue("q x-max-length=7").unwrap();
    let shared = |desk: &Desk| Arc::strong_count(&desk.catalog.queue_by_id(id).unwrap().settings);
    shard.open(id, desk.catalog.queue_by_id(id).unwrap().settings.clone(), &[], Time(0));
    assert_eq!(shared(&desk), 2);
    for (id, settings) in set(&mut desk, PolicyScope::User, "p ^q all 0 message-ttl=5").unwrap() {
        shard.configure(id, settings, Time(0));
    }
    assert_eq!(desk.catalog.queue_by_id(id).unwrap().settings.message_ttl_ms, Some(5));
    assert_eq!(shared(&desk), 2);
}
