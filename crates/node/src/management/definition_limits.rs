//! What definitions say about vhosts and users besides their names: descriptions, the default queue type, and
//! limits, in the forms of RabbitMQ's versions.

use ferrymq_model::{UserLimits, VhostSettings};
use serde_json::Value as Json;

use crate::management::definition_entries::Entry;

/// The component of the parameters that limit vhosts.
pub const VHOST_LIMITS: &str = "vhost-limits";

/// A vhost's settings from its entry. Limits stay as they were if the entry has none. The keys of the metadata may
/// also be in the entry itself, as in some versions.
pub fn vhost_settings(entry: Entry<'_>, before: &VhostSettings) -> Result<VhostSettings, String> {
    // Without metadata, everything is in the entry itself.
    let metadata = entry.inner("metadata")?.unwrap_or(entry);
    let text = |key| Ok::<_, String>(metadata.text_if_any(key)?.or(entry.text_if_any(key)?));
    let default_queue_type = text("default_queue_type")?.and_then(queue_type);
    if let Some(kind) = default_queue_type.filter(|kind| !QUEUE_TYPES.contains(kind)) {
        let allowed = QUEUE_TYPES.join(", ");
        return Err(format!("key 'default_queue_type' is '{kind}'; it must be one of {allowed}"));
    }
    let tags = metadata.texts("tags")?.or(entry.texts("tags")?);
    let settings = VhostSettings {
        description: text("description")?.unwrap_or_default().to_owned(),
        tags: tags.unwrap_or_default(),
        default_queue_type: default_queue_type.map(str::to_owned),
        ..before.clone()
    };
    limited(settings, entry.any("limits"))
}

const QUEUE_TYPES: [&str; 3] = ["classic", "quorum", "stream"];

/// RabbitMQ may write the name of its module. An empty name and `undefined` mean that no type is set.
fn queue_type(kind: &str) -> Option<&str> {
    match kind {
        "" | "undefined" => None,
        "rabbit_classic_queue" => Some("classic"),
        "rabbit_quorum_queue" => Some("quorum"),
        "rabbit_stream_queue" => Some("stream"),
        other => Some(other),
    }
}

/// The settings with these limits.
pub fn limited(mut settings: VhostSettings, limits: &Json) -> Result<VhostSettings, String> {
    for (key, max) in entries(limits)? {
        match &*key {
            "max-connections" => settings.connections_max = max,
            "max-queues" => settings.queues_max = max,
            _ => return Err(format!("limit '{key}' is not known; allowed: max-connections, max-queues")),
        }
    }
    Ok(settings)
}

/// The limits of a user.
pub fn user_limits(limits: &Json) -> Result<UserLimits, String> {
    let mut of_user = UserLimits::default();
    for (key, max) in entries(limits)? {
        match &*key {
            "max-connections" => of_user.connections_max = max,
            "max-channels" => of_user.channels_max = max,
            _ => return Err(format!("limit '{key}' is not known; allowed: max-connections, max-channels")),
        }
    }
    Ok(of_user)
}

/// Names and numbers: an object or a list of pairs. A negative number means no limit.
fn entries(limits: &Json) -> Result<Vec<(String, Option<u32>)>, String> {
    let pair = |item: &Json| Some((item.get(0)?.as_str()?.to_owned(), item.get(1)?.clone()));
    let pairs: Option<Vec<(String, Json)>> = match limits {
        Json::Null => Some(Vec::new()),
        Json::Object(map) => Some(map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
        Json::Array(list) => list.iter().map(pair).collect(),
        _ => None,
    };
    let pairs = pairs.ok_or("limits must be an object, such as {\"max-connections\": 100}")?;
    let limit = |(key, value): (String, Json)| match value.as_i64() {
        Some(number) => Ok((key, u32::try_from(number).ok())),
        None => Err(format!("limit '{key}' is {value}; it must be a whole number, where a negative one is no limit")),
    };
    pairs.into_iter().map(limit).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "a test reads better so")]
    fn settings(json: Json) -> Result<VhostSettings, String> {
        vhost_settings(Entry::of(&json).unwrap(), &VhostSettings::default())
    }

    #[test]
    fn every_version_says_it_in_its_way() {
        let expected = VhostSettings {
            description: "d".to_owned(),
            tags: vec!["t".to_owned()],
            default_queue_type: Some("quorum".to_owned()),
            connections_max: Some(2),
            queues_max: None,
        };
        // The forms of 3.10, of 3.13, and of the management page.
        for definition in [
            json!({"name": "v", "limits": [["max-connections", 2], ["max-queues", -1]],
                "metadata": {"description": "d", "tags": ["t"], "default_queue_type": "quorum"}}),
            json!({"name": "v", "limits": {"max-connections": 2},
                "metadata": {"description": "d", "tags": ["t"], "default_queue_type": "rabbit_quorum_queue"}}),
            json!({"name": "v", "limits": [["max-connections", 2]],
                "metadata": {"description": "d", "tags": "t,", "default_queue_type": "quorum"}}),
            json!({"name": "v", "limits": {"max-connections": 2}, "description": "d", "tags": ["t"],
                "default_queue_type": "quorum", "metadata": {"tracing": false}, "tracing": false}),
        ] {
            assert_eq!(settings(definition.clone()), Ok(expected.clone()), "{definition}");
        }
        let plain = settings(json!({"name": "v", "metadata": {"default_queue_type": "undefined"}}));
        assert_eq!(plain, Ok(VhostSettings::default()));
        let wrong = settings(json!({"name": "v", "default_queue_type": "mirrored"})).unwrap_err();
        assert_eq!(wrong, "key 'default_queue_type' is 'mirrored'; it must be one of classic, quorum, stream");
    }

    #[test]
    fn limits_are_numbers_with_known_names() {
        assert_eq!(
            user_limits(&json!({"max-connections": 0, "max-channels": -1})),
            Ok(UserLimits { connections_max: Some(0), channels_max: None })
        );
        assert_eq!(user_limits(&json!([["max-channels", 3]])).unwrap().channels_max, Some(3));
        for (limits, expected) in [
            (json!({"max-queues": 5}), "limit 'max-queues' is not known"),
            (json!({"max-channels": "5"}), "must be a whole number"),
            (json!({"max-channels": 1.5}), "must be a whole number"),
            (json!("none"), "must be an object"),
            (json!([5]), "must be an object"),
        ] {
            let why = user_limits(&limits).unwrap_err();
            assert!(why.contains(expected), "{limits}: {why}");
        }
    }
}
