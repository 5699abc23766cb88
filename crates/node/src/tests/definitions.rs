//! Importing definitions into a catalog.

use ferrymq_auth::passwords;
use ferrymq_broker::{Caller, Catalog, Envelope, HashKey};
use ferrymq_model::{Access, CatalogEntry, ConnectionId, Name, Object};

use crate::management::{
    definition_import::{Import, stored_passwords},
    definitions::Imported,
};

/// As RabbitMQ 3.10.8 exports it, with an older user added.
const EXPORTED: &str = include_str!("definitions.json");

fn fresh() -> Catalog {
    Catalog::fresh(&passwords::hash(b"guest", [7; 16]), HashKey::known(), &mut Vec::new())
}

fn import(catalog: &mut Catalog, json: &str) -> (Imported, Vec<CatalogEntry>) {
    let file = serde_json::from_str(json).unwrap();
    let before = |user: &str| catalog.user(user).map(|user| user.password_hash.clone());
    let passwords = stored_passwords(&file, before, || [7; 16]);
    let mut import = Import::new(catalog, &passwords);
    import.take_in(&file);
    (std::mem::take(&mut import.imported), import.made().changes)
}

#[test]
fn what_rabbitmq_exports_is_taken_in_and_works() {
    let mut catalog = fresh();
    let (imported, _) = import(&mut catalog, EXPORTED);
    assert_eq!(
        imported.left_out,
        ["bindings[3] ('hidden' in vhost 'orders'): exchange 'hidden' is not there; add it to exchanges. rabbitmqctl \
         leaves internal exchanges out of what it exports"]
    );
    assert_eq!(
        imported.summary(),
        "2 users, 2 vhosts, 2 permissions, 1 topic permission, 3 exchanges, 1 policy, 2 parameters, 1 global parameter, \
         2 queues, 3 bindings"
    );
    assert!(passwords::matches(b"secret", &catalog.user("worker").unwrap().password_hash));
    assert_eq!(catalog.user("boss").unwrap().tags, ["administrator", "monitoring"]);
    assert!(catalog.user("guest").is_none(), "its password is known to everybody");
    assert_eq!(catalog.vhost_settings("orders").unwrap().tags, ["prod", "eu"]);
    catalog.may_enter("worker", "orders").unwrap();
    let refused = catalog.allowed("worker", "orders", Access::Configure, Object::Queue, "theirs");
    assert!(refused.is_err());
    let (vhost, user) = (Name::from("orders"), Name::from("worker"));
    let caller = Caller::of_user(&vhost, &user, ConnectionId(1));
    catalog.may_publish(&caller, "events", b"worker.made", &[]).unwrap();
    assert!(catalog.may_publish(&caller, "events", b"boss.made", &[]).is_err(), "a topic permission");
    let (mut targets, envelope) = (Vec::new(), Envelope::EMPTY);
    catalog.route("orders", "events", b"worker.made", &[], &envelope, &mut targets).unwrap();
    assert_eq!(targets.len(), 1, "over a bound exchange");
    let queue = catalog.queue_by_id(targets[0]).unwrap();
    assert_eq!((&*queue.settings.name, queue.settings.message_ttl_ms), ("made", Some(60_000)));
    assert_eq!(queue.settings.messages_max, Some(100_000), "an operator policy, as pairs");
    catalog.route("orders", "events", b"worker.lost", &[], &envelope, &mut targets).unwrap();
    assert_eq!(targets.len(), 1, "over the alternate exchange of a policy");
    assert_eq!(imported.passed_over.len(), 3, "{:?}", imported.passed_over);
}

#[test]
fn a_second_import_changes_no_queue_exchange_or_binding() {
    let mut catalog = fresh();
    import(&mut catalog, EXPORTED);
    let (_, changes) = import(&mut catalog, EXPORTED);
    let kinds = changes.iter().map(|entry| entry.kind as u8);
    assert!(kinds.clone().all(|kind| [3, 8, 9].contains(&kind)), "{:?}", kinds.collect::<Vec<_>>());
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_would_be_right() {
    for (json, expected) in [
        (r#"{"users": 5}"#, "users: it must be a list, in []"),
        (r#"{"permission": []}"#, "key 'permission' is not known; did you mean 'permissions'?"),
        (
            r#"{"queues": [{"name": "q", "vhost": "none", "durable": true}]}"#,
            "queues[0] ('q' in vhost 'none'): vhost 'none' is not there; add it to vhosts",
        ),
        (r#"{"queues": [{"name": "q"}]}"#, "queues[0] ('q'): key 'durable' is missing; add it, as true or false"),
        (r#"{"vhosts": [{}]}"#, "vhosts[0]: key 'name' is missing; add it"),
        (
            r#"{"vhosts": [{"name": "v", "metadata": {"tags": 5}}]}"#,
            "vhosts[0] ('v'): key 'tags' is 5; it must be a list of texts, such as [\"a\", \"b\"]",
        ),
        (
            r#"{"permissions": [{"user": "u", "vhost": "/", "configure": "", "write": "", "read": ""}]}"#,
            "permissions[0] ('u' in vhost '/'): no user 'u'; add it to users",
        ),
        (
            r#"{"policies": [{"name": "p", "vhost": "/", "pattern": "q", "definition": {"max-lenght": 1}}]}"#,
            "policies[0] ('p' in vhost '/'): policy setting 'max-lenght' is not known; did you mean 'max-length'?",
        ),
        (
            r#"{"users": [{"name": "u", "passwrod": "x"}]}"#,
            "users[0] ('u'): key 'passwrod' is not known; did you mean 'password'?",
        ),
        (
            r#"{"users": [{"name": "u", "password_hash": "AAAA"}]}"#,
            "users[0] ('u'): password_hash is not 4 bytes of salt and 32 of digest in base 64; export it again, or \
             give a password instead",
        ),
        (
            r#"{"exchanges": [{"name": "x", "vhost": "/", "type": "x-rtopic", "durable": true}]}"#,
            "exchanges[0] ('x' in vhost '/'): exchanges of type 'x-rtopic' are not built; take it out of the file, with \
             its bindings",
        ),
    ] {
        assert_eq!(import(&mut fresh(), json).0.left_out, [expected]);
    }
}

/// Each entry is imported as a whole or not at all, whatever is wrong with it.
#[test]
fn an_entry_that_cannot_be_used_leaves_nothing_behind() {
    for json in [
        r#"{"users": [{"name": "new", "password": "x", "limits": {"max-queues": 5}}]}"#,
        r#"{"vhosts": [{"name": "new", "default_queue_type": "mirrored"}]}"#,
        r#"{"vhosts": [{"name": "new", "limits": 5}]}"#,
        r#"{"vhosts": [{"name": "new", "tracing": "yes"}]}"#,
        r#"{"queues": [{"name": "new", "durable": true, "arguments": {"x-message-ttl": "soon"}}]}"#,
        r#"{"exchanges": [{"name": "new", "type": "topic", "durable": true, "arguments": {"alternate-exchange": 5}}]}"#,
        r#"{"policies": [{"name": "new", "pattern": "(", "definition": {"max-length": 5}}]}"#,
    ] {
        let mut catalog = fresh();
        let (imported, changes) = import(&mut catalog, json);
        assert_eq!(imported.left_out.len(), 1, "{json}: {imported:?}");
        assert!(changes.is_empty(), "{json} has changed {changes:?}");
        assert!(catalog.user("new").is_none() && catalog.vhosts().count() == 1 && catalog.queues().count() == 0);
    }
}

#[test]
fn the_default_user_goes_only_where_somebody_else_can_log_in() {
    let permission = r#"{"user": "app", "vhost": "/", "configure": "", "write": "", "read": ""}"#;
    for (users, permissions, stays) in [
        (r#"[{"name": "app", "password": "x"}]"#, permission, false),
        (r#"[{"name": "app", "password": "x"}]"#, r#"{"user": "app", "vhost": "prod"}"#, true),
        (r#"[{"name": "app", "passwrod": "x"}]"#, permission, true),
        (r#"[{"name": "app", "password_hash": "AAAA"}]"#, permission, true),
        (r#"[{"name": "guest", "password": "guest"}, {"name": "app", "password": "x"}]"#, permission, true),
        ("[]", permission, true),
    ] {
        let mut catalog = fresh();
        let json = format!(r#"{{"users": {users}, "permissions": [{permissions}]}}"#);
        let (imported, _) = import(&mut catalog, &json);
        assert_eq!(catalog.user("guest").is_some(), stays, "{json}: {imported:?}");
        let brought = users.contains("app") && !users.contains("guest");
        assert_eq!(imported.passed_over.len(), usize::from(brought), "{json}: a line says what became of guest");
    }
}

#[test]
fn entries_without_a_vhost_are_for_the_one_that_was_exported() {
    let mut catalog = fresh();
    let json = r#"{"original_vhost_name": "v", "vhosts": [{"name": "v"}], "queues": [{"name": "q", "durable": true}]}"#;
    let imported = import(&mut catalog, json).0;
    assert_eq!((imported.left_out, imported.passed_over), (vec![], vec![]));
    assert!(catalog.has_queue("v", "q") && !catalog.has_queue("/", "q"));
    let mut catalog = fresh();
    let json = r#"{"queues": [{"name": "q", "durable": true, "arguments": [], "auto_delete": null}]}"#;
    let said = import(&mut catalog, json).0.passed_over;
    assert!(catalog.has_queue("/", "q"));
    assert!(
        said[0].starts_with("entries without the key 'vhost' (1) are for vhost '/'; for another one, add"),
        "{said:?}"
    );
}

/// A draft gives the same result as the catalog itself, and the catalog does not change.
#[test]
fn definitions_can_be_tried_on_a_draft() {
    let mut catalog = fresh();
    import(&mut catalog, EXPORTED);
    let more = r#"{"queues": [{"name": "made", "vhost": "orders", "durable": true}, {"name": "q", "vhost": "none", "durable": true}],
        "bindings": [{"source": "events", "vhost": "orders", "destination": "lost", "destination_type": "queue"}],
        "permissions": [{"user": "boss", "vhost": "orders", "configure": "", "write": "", "read": ""}]}"#;
    let on_draft = import(&mut catalog.draft().unwrap(), more).0;
    assert!(catalog.may_enter("boss", "orders").is_err(), "the catalog stays as it was");
    assert_eq!(on_draft.left_out.len(), 1);
    assert_eq!(on_draft, import(&mut catalog, more).0);
}

#[test]
fn each_user_has_a_salt_and_an_unchanged_password_keeps_its_own() {
    let file = serde_json::json!({"users": [
        {"name": "anna", "password": "secret"},
        {"name": "bert", "password": "secret"},
        {"name": "carl", "password_hash": ""},
    ]});
    let mut salts = 0;
    let mut stored = |before: &dyn Fn(&str) -> Option<String>| {
        stored_passwords(&file, before, || {
            salts += 1;
            [salts; 16]
        })
    };
    let first = stored(&|_| None);
    assert_eq!(first.keys().collect::<Vec<_>>(), ["anna", "bert"]);
    assert_ne!(first["anna"], first["bert"], "equal passwords do not look equal");
    let second = stored(&|user| first.get(user).filter(|_| user == "anna").cloned());
    assert_eq!(second["anna"], first["anna"]);
    assert_ne!(second["bert"], first["bert"]);
    assert!(second.values().all(|stored| passwords::matches(b"secret", stored)));
}
