//! Tokens as passwords: JSON Web Tokens (RFC 7519) of an identity provider, read as RabbitMQ's OAuth 2 plugin reads
//! them. The time is an argument.

use base64ct::{Base64UrlUnpadded, Encoding};
use ferrymq_model::{Name, Time};
use serde::Deserialize;
use serde_json::{Map, Value as Json};

use crate::token_keys::TokenKeys;

/// The maximum number of scopes for this server in a token, as in RabbitMQ. A token with more is refused.
pub const SCOPES_MAX: usize = 2048;

/// Which tokens are accepted, and which claims name the user.
#[derive(Clone, Debug, Default)]
pub struct TokenSettings {
    /// The server's name in the audience of tokens.
    pub resource_server_id: String,
    /// The prefix of scopes for this server; `None`: its id and a dot.
    pub scope_prefix: Option<String>,
    /// A claim with further scopes; `a.b` means the claim b inside the claim a. Several are separated by spaces.
    pub additional_scopes_key: Option<String>,
    /// The claims that can name the user, before `sub` and `client_id`.
    pub preferred_username_claims: Vec<String>,
    /// Whether the audience is checked.
    pub verify_aud: bool,
    /// The keys that sign tokens.
    pub keys: TokenKeys,
}

/// A checked token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The user, as the first claim that names one says.
    pub user: Name,
    /// What the user may do: scopes as RabbitMQ reads them, such as `read:*/*` or `tag:administrator`, without the
    /// prefix of this server. `{vhost}` in them stands for the vhost of a request. At most [`SCOPES_MAX`], in the order
    /// of the token; some may mean nothing here.
    pub scopes: Vec<String>,
    /// When the token expires, by the wall clock; `None`: never.
    pub expires: Option<Time>,
}

impl Token {
    /// Whether the token has expired at `now`, a time of the wall clock.
    pub fn has_expired(&self, now: Time) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    /// Extensions that a reader must understand; FerryMQ understands none.
    crit: Option<Json>,
}

/// Where Keycloak puts the scopes of a requesting-party token.
const REQUESTING_PARTY_SCOPES: &str = "authorization.permissions.scopes";

/// The default claims for the user's name.
const USERNAME_CLAIMS: [&str; 2] = ["sub", "client_id"];

/// The user of a token that names nobody, as in RabbitMQ.
const UNKNOWN: &str = "unknown";

impl TokenSettings {
    /// Checks a token, a signed JSON Web Token in its compact form (RFC 7515, section 3.1), and reads it: its
    /// signature, its audience, its user and scopes, and whether it is still valid at `now`, a time of the wall clock.
    ///
    /// # Errors
    /// Why it is refused, for the log; the text does not contain the token.
    pub fn check(&self, token: &[u8], now: Time) -> Result<Token, String> {
        let claims = self.verified(token)?;
        self.check_audience(&claims)?;
        let token = Token { user: self.user(&claims)?, scopes: self.scopes(&claims)?, expires: expiry(&claims)? };
        if token.has_expired(now) { Err("the token has expired".to_owned()) } else { Ok(token) }
    }

    /// The claims of a token with a good signature (RFC 7515, section 5.2).
    fn verified(&self, token: &[u8]) -> Result<Map<String, Json>, String> {
        let no_token = || "it is not a JSON Web Token".to_owned();
        let text = std::str::from_utf8(token).map_err(|_| no_token())?;
        let (message, signature) = text.rsplit_once('.').ok_or_else(no_token)?;
        let (header, claims) = message.split_once('.').ok_or_else(no_token)?;
        let decoded = |part: &str| Base64UrlUnpadded::decode_vec(part).map_err(|_| no_token());
        let header: Header = serde_json::from_slice(&decoded(header)?).map_err(|_| no_token())?;
        if header.crit.is_some() {
            return Err("it has extensions that are not known (crit)".to_owned());
        }
        self.keys.check(&header.alg, header.kid.as_deref(), message.as_bytes(), &decoded(signature)?)?;
        serde_json::from_slice(&decoded(claims)?).map_err(|_| no_token())
    }

    fn check_audience(&self, claims: &Map<String, Json>) -> Result<(), String> {
        let id = &self.resource_server_id;
        let is_meant = match claims.get("aud") {
            _ if !self.verify_aud => true,
            Some(Json::String(audience)) => audience.split(' ').any(|one| one == id),
            Some(Json::Array(audience)) => audience.iter().any(|one| one.as_str() == Some(id)),
            _ => false,
        };
        if is_meant { Ok(()) } else { Err(format!("its audience (aud) has no '{id}'")) }
    }

    fn user(&self, claims: &Map<String, Json>) -> Result<Name, String> {
        let preferred = self.preferred_username_claims.iter().map(String::as_str);
        let named = preferred.chain(USERNAME_CLAIMS).find_map(|claim| claims.get(claim)?.as_str());
        Name::parse(named.unwrap_or(UNKNOWN).as_bytes()).map_err(|_| "the user's name in it is too long".to_owned())
    }

    fn scopes(&self, claims: &Map<String, Json>) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        self.collect(claims.get("scope"), &mut found);
        let further = self.additional_scopes_key.as_deref().unwrap_or_default();
        let further = further.split([',', ' ']).filter(|key| !key.is_empty());
        for path in further.chain([REQUESTING_PARTY_SCOPES]) {
            let steps: Vec<&str> = path.split('.').collect();
            // A claim whose own name contains dots, too.
            self.collect(claims.get(path).filter(|_| steps.len() > 1), &mut found);
            self.descend(claims, &steps, &mut found);
        }
        let prefix = self.scope_prefix.clone().unwrap_or_else(|| format!("{}.", self.resource_server_id));
        let ours: Vec<String> =
            found.iter().filter_map(|scope| scope.strip_prefix(&prefix)).map(|scope| filled(scope, claims)).collect();
        if ours.len() > SCOPES_MAX {
            return Err(format!("it has more than {SCOPES_MAX} scopes"));
        }
        Ok(ours)
    }

    fn descend(&self, claims: &Map<String, Json>, steps: &[&str], found: &mut Vec<String>) {
        let Some((first, rest)) = steps.split_first() else { return };
        let value = claims.get(*first);
        match value {
            _ if rest.is_empty() => self.collect(value, found),
            Some(Json::Object(inner)) => self.descend(inner, rest, found),
            Some(Json::Array(list)) => {
                list.iter().filter_map(Json::as_object).for_each(|inner| self.descend(inner, rest, found));
            }
            _ => {}
        }
    }

    /// Scopes as a list, as words, or as either of these under the id of their server.
    fn collect(&self, value: Option<&Json>, found: &mut Vec<String>) {
        match value {
            Some(Json::String(words)) => found.extend(words.split_whitespace().map(str::to_owned)),
            Some(Json::Array(list)) => found.extend(list.iter().filter_map(Json::as_str).map(str::to_owned)),
            Some(Json::Object(by_server)) => {
                let (id, mut own) = (&self.resource_server_id, Vec::new());
                self.collect(by_server.get(id).filter(|own| !own.is_object()), &mut own);
                found.extend(own.iter().map(|scope| format!("{id}.{scope}")));
            }
            _ => {}
        }
    }
}

/// The scope with the values of claims in place of their names in braces. `{vhost}` stays: it is replaced at each
/// permission check.
fn filled(scope: &str, claims: &Map<String, Json>) -> String {
    let (mut filled, mut rest) = (String::new(), scope);
    while let Some((before, behind)) = rest.split_once('{') {
        filled.push_str(before);
        let (name, after) = behind.split_once('}').unwrap_or((behind, ""));
        match claims.get(name).filter(|_| name != "vhost") {
            Some(Json::String(text)) => filled.push_str(&letters(text)),
            Some(Json::Number(number)) => filled.push_str(&letters(&number.to_string())),
            _ => {
                filled.push('{');
                rest = behind;
                continue;
            }
        }
        rest = after;
    }
    filled + rest
}

/// A pattern that matches exactly this text.
fn letters(text: &str) -> String {
    let plain = |octet: u8| octet.is_ascii_alphanumeric() || b"-._~".contains(&octet);
    let written = |octet| if plain(octet) { char::from(octet).to_string() } else { format!("%{octet:02X}") };
    text.bytes().map(written).collect()
}

/// Seconds since 1970, perhaps with a fraction (RFC 7519, section 4.1.4).
fn expiry(claims: &Map<String, Json>) -> Result<Option<Time>, String> {
    let Some(exp) = claims.get("exp") else { return Ok(None) };
    let seconds = exp.as_f64().ok_or("its expiry (exp) is not a number")?;
    // Whole seconds, as in RabbitMQ; the conversion saturates.
    Ok(Some(Time((seconds as u64).saturating_mul(1000))))
}
