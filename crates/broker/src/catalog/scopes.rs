//! What a token allows: scopes as RabbitMQ reads them, such as `read:vhost/queue` and `write:vhost/exchange/key`,
//! in which `*` matches any text.

use ferrymq_model::Access;

/// The permissions of a token, in place of the catalog's permissions of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scopes {
    grants: Vec<Grant>,
    tags: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    access: Access,
    vhost: Wildcard,
    name: Wildcard,
    /// For the routing key of a topic exchange. Without it, no key is allowed.
    key: Option<Wildcard>,
}

/// The parts of a pattern between its stars, decoded; `{vhost}` in them is replaced by the vhost of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wildcard(Vec<Vec<u8>>);

impl Scopes {
    /// The permissions of these scopes, which have no prefix any more. Unknown scopes are ignored.
    pub fn parse<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Self {
        let mut parsed = Self::default();
        for scope in scopes {
            if let Some(tag) = scope.strip_prefix("tag:") {
                parsed.tags.push(tag.to_owned());
            } else {
                parsed.grants.extend(Grant::parse(scope));
            }
        }
        parsed
    }

    /// The user's tags, such as `administrator`.
    #[must_use]
    pub fn tags(&self) -> &[String] {
        &self.tags
    }

    pub(super) fn enter(&self, vhost: &str) -> bool {
        self.grants.iter().any(|grant| grant.vhost.matches(vhost, vhost.as_bytes()))
    }

    pub(super) fn allow(&self, access: Access, vhost: &str, name: &str) -> bool {
        self.grants.iter().any(|grant| grant.is_of(access, vhost, name))
    }

    pub(super) fn allow_topic(&self, access: Access, vhost: &str, exchange: &str, key: &[u8]) -> bool {
        let covers = |grant: &Grant| grant.key.as_ref().is_some_and(|pattern| pattern.matches(vhost, key));
        self.grants.iter().any(|grant| grant.is_of(access, vhost, exchange) && covers(grant))
    }
}

impl Grant {
    fn parse(scope: &str) -> Option<Self> {
        let (access, patterns) = scope.split_once(':')?;
        let access = match access {
            "configure" => Access::Configure,
            "write" => Access::Write,
            "read" => Access::Read,
            _ => return None,
        };
        let patterns: Vec<&str> = patterns.split('/').collect();
        let (vhost, name, key) = match patterns[..] {
            [vhost, name] => (vhost, name, None),
            [vhost, name, key] => (vhost, name, Some(Wildcard::parse(key)?)),
            _ => return None,
        };
        Some(Self { access, vhost: Wildcard::parse(vhost)?, name: Wildcard::parse(name)?, key })
    }

    fn is_of(&self, access: Access, vhost: &str, name: &str) -> bool {
        self.access == access
            && self.vhost.matches(vhost, vhost.as_bytes())
            && self.name.matches(vhost, name.as_bytes())
    }
}

impl Wildcard {
    /// `None` if a percent sign is not followed by two digits.
    fn parse(pattern: &str) -> Option<Self> {
        pattern.split('*').map(decoded).collect::<Option<_>>().map(Self)
    }

    fn matches(&self, vhost: &str, subject: &[u8]) -> bool {
        let part = |at: usize| filled(&self.0[at], vhost);
        let last = self.0.len() - 1;
        if last == 0 {
            return part(0) == subject;
        }
        let Some(mut rest) = subject.strip_prefix(&part(0)[..]) else { return false };
        for at in 1..last {
            let part = part(at);
            match (0..=rest.len()).find(|start| rest[*start..].starts_with(&part)) {
                Some(start) => rest = &rest[start + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(&part(last))
    }
}

/// The part with the vhost's name in it. The name is literal: a star in it is an ordinary character.
fn filled(part: &[u8], vhost: &str) -> Vec<u8> {
    const VARIABLE: &[u8] = b"{vhost}";
    let (mut filled, mut rest) = (Vec::with_capacity(part.len()), part);
    while let Some((first, behind)) = rest.split_first() {
        if let Some(behind) = rest.strip_prefix(VARIABLE) {
            filled.extend_from_slice(vhost.as_bytes());
            rest = behind;
        } else {
            filled.push(*first);
            rest = behind;
        }
    }
    filled
}

/// A decoded part of a URL's query.
fn decoded(part: &str) -> Option<Vec<u8>> {
    let (mut decoded, mut rest) = (Vec::with_capacity(part.len()), part.as_bytes());
    while let Some((first, behind)) = rest.split_first() {
        rest = behind;
        match first {
            b'+' => decoded.push(b' '),
            b'%' => {
                let (digits, behind) = rest.split_at_checked(2)?;
                let value = |digit: u8| char::from(digit).to_digit(16);
                let octet = value(digits[0])? * 16 + value(digits[1])?;
                decoded.push(u8::try_from(octet).expect("two digits of 16 fit an octet"));
                rest = behind;
            }
            other => decoded.push(*other),
        }
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(scope: &str, vhost: &str, name: &str) -> bool {
        Scopes::parse([scope]).allow(Access::Read, vhost, name)
    }

    #[test]
    fn a_star_stands_for_any_letters_and_nothing_else_does() {
        for (pattern, name, expected) in [
            ("q", "q", true),
            ("q", "qq", false),
            ("", "", true),
            ("", "q", false),
            ("*", "", true),
            ("*", "anything", true),
            ("a*", "abc", true),
            ("a*", "ba", false),
            ("*a", "ba", true),
            ("*ab", "abab", true),
            ("a*b*c", "abc", true),
            ("a*b*c", "abcbc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("**", "x", true),
            (".", "x", false),
            ("a%2Fb", "a/b", true),
            ("a%2a", "a*", true),
            ("a%2a", "ab", false),
            ("a+b", "a b", true),
            ("a%2Bb", "a+b", true),
            ("a%2", "a%2", false),
            ("a%zz", "a%zz", false),
        ] {
            assert_eq!(allows(&format!("read:*/{pattern}"), "/", name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn access_vhost_and_name_must_all_be_granted_by_one_scope() {
        assert!(allows("read:%2F/q", "/", "q"));
        assert!(!allows("read:%2F/q", "other", "q"));
        assert!(!allows("write:%2F/q", "/", "q"));
        assert!(!Scopes::parse(["read:a/x", "read:b/y"]).allow(Access::Read, "a", "y"));
        for none in ["read:q", "read:a/b/c/d", "delete:*/*", "read", "", "tag:administrator"] {
            assert!(!allows(none, "/", "q"), "{none}");
        }
        let scopes = Scopes::parse(["configure:a*/none"]);
        assert!(scopes.enter("ab"));
        assert!(!scopes.enter("b"));
    }

    #[test]
    fn routing_keys_need_a_scope_that_names_them() {
        let scopes = Scopes::parse(["write:*/x", "write:*/y/a.*"]);
        let topic = |exchange, key: &[u8]| scopes.allow_topic(Access::Write, "/", exchange, key);
        assert!(scopes.allow(Access::Write, "/", "x") && scopes.allow(Access::Write, "/", "y"));
        assert!(!topic("x", b"a.b"));
        assert!(topic("y", b"a.b"));
        assert!(!topic("y", b"b"));
    }

    #[test]
    fn the_vhost_stands_for_its_letters() {
        assert!(allows("read:*/{vhost}-*", "red", "red-1"));
        assert!(!allows("read:*/{vhost}-*", "red", "blue-1"));
        assert!(!allows("read:*/{vhost}-1", "*", "red-1"));
        assert!(allows("read:{vhost}/{vhost}{vhost}", "a", "aa"));
    }

    #[test]
    fn tags_are_kept() {
        assert_eq!(Scopes::parse(["tag:administrator", "read:*/*", "tag:x"]).tags(), ["administrator", "x"]);
    }
}
