//! Tokens: which are accepted, and what they allow. Those of `tokens.json` were signed with OpenSSL 3.0.

use base64ct::{Base64, Base64UrlUnpadded, Encoding};
use ferrymq_auth::{SCOPES_MAX, Token, TokenKeys, TokenSettings};
use ferrymq_model::{Name, Time};
use ring::hmac;
use serde_json::{Value as Json, json};

/// Ten minutes before those tokens expire.
const NOW: Time = Time(1_700_000_000_000);

const SECRET: &[u8] = b"a secret of thirty-two bytes!!!!";

fn made_by_openssl() -> Json {
    serde_json::from_str(include_str!("tokens.json")).unwrap()
}

fn settings() -> TokenSettings {
    let mut keys = TokenKeys::default();
    keys.add_set(made_by_openssl()["set"].to_string().as_bytes()).unwrap();
    TokenSettings { resource_server_id: "ferry".to_owned(), verify_aud: true, keys, ..TokenSettings::default() }
}

fn signed(claims: &Json) -> String {
    with_header(&json!({"alg": "HS256", "kid": "secret"}), claims)
}

fn with_header(header: &Json, claims: &Json) -> String {
    let part = |json: &Json| Base64UrlUnpadded::encode_string(json.to_string().as_bytes());
    let message = format!("{}.{}", part(header), part(claims));
    let mac = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", Base64UrlUnpadded::encode_string(mac.as_ref()))
}

fn check(settings: &TokenSettings, claims: &Json) -> Result<Token, String> {
    settings.check(signed(claims).as_bytes(), NOW)
}

/// The result of a token with these claims, after `change` was applied to the settings.
fn scopes_of(claims: &Json, change: impl FnOnce(&mut TokenSettings)) -> Vec<String> {
    let mut settings = settings();
    change(&mut settings);
    check(&settings, claims).unwrap().scopes
}

#[test]
fn every_algorithm_is_checked_with_the_key_that_it_belongs_to() {
    let made = made_by_openssl();
    let tokens = made["tokens"].as_object().unwrap();
    assert_eq!(tokens.len(), 12);
    for (algorithm, token) in tokens {
        let checked = settings().check(token.as_str().unwrap().as_bytes(), NOW);
        let token_of_worker = Token {
            user: Name::from("worker"),
            scopes: vec!["read:*/*".to_owned(), "tag:monitoring".to_owned()],
            expires: Some(NOW.after_ms(600_000)),
        };
        assert_eq!(checked, Ok(token_of_worker), "{algorithm}");
    }
}

#[test]
fn public_keys_are_taken_as_certificates_have_them() {
    let made = made_by_openssl();
    for (key, algorithm) in [("rsa", "RS256"), ("p256", "ES256"), ("p384", "ES384"), ("ed", "EdDSA")] {
        let mut keys = TokenKeys::default();
        keys.add_public(&Base64::decode_vec(made["public"][key].as_str().unwrap()).unwrap()).unwrap();
        let settings = TokenSettings { keys, ..settings() };
        for (signed_by, token) in made["tokens"].as_object().unwrap() {
            let is_taken = settings.check(token.as_str().unwrap().as_bytes(), NOW).is_ok();
            let is_its_own = signed_by == algorithm || (key == "rsa" && ["RS", "PS"].contains(&&signed_by[..2]));
            assert_eq!(is_taken, is_its_own, "{key} {signed_by}");
        }
    }
    assert!(TokenKeys::default().add_public(b"no key").is_err());
}

#[test]
fn what_was_not_signed_by_a_known_key_is_refused() {
    let made = made_by_openssl();
    let refused = |token: &str| settings().check(token.as_bytes(), NOW).unwrap_err();
    assert!(refused(made["forged"].as_str().unwrap()).contains("HS256"), "a public key is no secret");
    let claims = json!({"sub": "worker", "aud": "ferry"});
    let good = signed(&claims);
    assert!(settings().check(good.as_bytes(), NOW).is_ok());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, _) = message.split_once('.').unwrap();
    let other = signed(&json!({"sub": "boss", "aud": "ferry"}));
    let other_claims = other.split('.').nth(1).unwrap();
    assert!(refused(&format!("{header}.{other_claims}.{signature}")).contains("signature"));
    let none = with_header(&json!({"alg": "none"}), &claims);
    assert!(refused(&format!("{}.", none.rsplit_once('.').unwrap().0)).contains("signature by none"));
    assert!(refused(&with_header(&json!({"alg": "HS256", "kid": "p256"}), &claims)).contains("signature"));
    assert!(refused(&with_header(&json!({"alg": "HS256", "kid": "lost"}), &claims)).contains("there is no key 'lost'"));
    assert!(refused(&with_header(&json!({"alg": "HS256", "crit": ["b64"]}), &claims)).contains("crit"));
    assert!(
        settings().check(with_header(&json!({"alg": "HS256"}), &claims).as_bytes(), NOW).is_ok(),
        "any key may fit"
    );
    for rubbish in ["", ".", "..", "guest", "a.b.c", &good[..good.len() - 1], &format!("{good}."), &format!("{good}.x")]
    {
        assert!(!refused(rubbish).is_empty(), "{rubbish}");
    }
}

#[test]
fn a_token_is_for_this_server_and_for_now() {
    let taken = |claims: Json| check(&settings(), &claims).map(|token| token.expires);
    let seconds = NOW.0 / 1000;
    assert_eq!(taken(json!({"aud": "ferry"})), Ok(None));
    assert_eq!(taken(json!({"aud": "other ferry"})), Ok(None));
    assert_eq!(taken(json!({"aud": ["other", "ferry"]})), Ok(None));
    for wrong in [json!({}), json!({"aud": "ferryman"}), json!({"aud": ["other"]}), json!({"aud": 5})] {
        assert!(taken(wrong.clone()).unwrap_err().contains("aud"), "{wrong}");
    }
    let careless = TokenSettings { verify_aud: false, ..settings() };
    assert!(check(&careless, &json!({})).is_ok());
    assert_eq!(taken(json!({"aud": "ferry", "exp": seconds + 1})), Ok(Some(NOW.after_ms(1000))));
    assert_eq!(taken(json!({"aud": "ferry", "exp": seconds as f64 + 1.9})), Ok(Some(NOW.after_ms(1000))));
    for over in [json!(seconds), json!(0), json!(-5), json!(seconds as f64 + 0.5)] {
        assert!(taken(json!({"aud": "ferry", "exp": over})).unwrap_err().contains("expired"), "{over}");
    }
    assert!(taken(json!({"aud": "ferry", "exp": "tomorrow"})).unwrap_err().contains("exp"));
}

#[test]
fn the_user_is_named_by_the_first_claim_that_does() {
    let named = |preferred: &[&str], claims: Json| {
        let preferred_username_claims = preferred.iter().map(|claim| (*claim).to_owned()).collect();
        let settings = TokenSettings { preferred_username_claims, verify_aud: false, ..settings() };
        check(&settings, &claims).unwrap().user.to_string()
    };
    let claims = json!({"sub": "s", "client_id": "c", "email": "e", "number": 5});
    assert_eq!(named(&[], claims.clone()), "s");
    assert_eq!(named(&["email"], claims.clone()), "e");
    assert_eq!(named(&["none", "number", "email"], claims), "e");
    assert_eq!(named(&[], json!({"client_id": "c"})), "c");
    assert_eq!(named(&[], json!({})), "unknown");
    let long = json!({"aud": "ferry", "sub": "x".repeat(256)});
    assert!(check(&settings(), &long).unwrap_err().contains("too long"));
}

#[test]
fn scopes_are_ours_by_their_prefix_and_may_stand_in_several_places() {
    let claims = json!({
        "aud": "ferry",
        "scope": ["ferry.read:a/*", "other.read:b/*", "read:c/*"],
        "roles": "ferry.read:d/* read:e/*",
        "deep": {"er": [{"scopes": ["ferry.read:f/*"]}, {"scopes": "ferry.read:g/*"}, 5]},
        "by_server": {"ferry": ["read:h/*"], "other": ["read:i/*"]},
        "authorization": {"permissions": [{"scopes": ["ferry.read:j/*"]}]},
    });
    let of = |prefix: Option<&str>, key: &str| {
        scopes_of(&claims, |settings| {
            settings.scope_prefix = prefix.map(str::to_owned);
            settings.additional_scopes_key = Some(key.to_owned());
        })
    };
    assert_eq!(of(None, ""), ["read:a/*", "read:j/*"]);
    assert_eq!(of(None, "roles"), ["read:a/*", "read:d/*", "read:j/*"]);
    assert_eq!(of(None, "deep.er.scopes"), ["read:a/*", "read:f/*", "read:g/*", "read:j/*"]);
    assert_eq!(of(None, "by_server"), ["read:a/*", "read:h/*", "read:j/*"]);
    assert_eq!(of(Some("other."), ""), ["read:b/*"]);
    // Without a prefix all are ours, also those that mean nothing here.
    let all = ["ferry.read:a/*", "other.read:b/*", "read:c/*", "ferry.read:d/*", "read:e/*", "ferry.read:j/*"];
    assert_eq!(of(Some(""), "roles"), all);
    let many: Vec<String> = (0..=SCOPES_MAX).map(|number| format!("ferry.read:*/{number}")).collect();
    assert!(check(&settings(), &json!({"aud": "ferry", "scope": many})).unwrap_err().contains("2048"));
}

#[test]
fn claims_in_scopes_stand_for_their_letters() {
    let claims =
        |sub: &str| json!({"aud": "ferry", "sub": sub, "n": 7, "scope": ["ferry.read:*/{sub}-{n}-{none}-{vhost}"]});
    // Scopes are patterns of letters, `*` and octets in hexadecimal.
    for (sub, expected) in [("worker", "worker"), ("*", "%2A"), ("a/b c+", "a%2Fb%20c%2B"), ("{n}", "%7Bn%7D")] {
        assert_eq!(scopes_of(&claims(sub), |_| {}), [format!("read:*/{expected}-7-{{none}}-{{vhost}}")], "{sub}");
    }
}

#[test]
fn a_set_of_keys_that_cannot_be_used_is_refused_with_the_reason() {
    for (set, expected) in [
        ("", "not a JSON Web Key Set"),
        ("{}", "not a JSON Web Key Set"),
        (r#"{"keys": []}"#, "no key"),
        (r#"{"keys": [{"kty": "oct", "use": "enc", "k": "AAAA"}]}"#, "no key"),
        (r#"{"keys": [{"kty": "oct"}]}"#, "key 0 in it: it has no k"),
        (r#"{"keys": [{"kty": "oct", "k": ""}]}"#, "key 0 in it: k is not in base 64"),
        (r#"{"keys": [{"kty": "RSA", "n": "!", "e": "AQAB"}]}"#, "key 0 in it: n is not in base 64"),
        (r#"{"keys": [{"kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA"}]}"#, "32 bytes"),
    ] {
        let why = TokenKeys::default().add_set(set.as_bytes()).unwrap_err();
        assert!(why.contains(expected), "{set}: {why}");
    }
}
