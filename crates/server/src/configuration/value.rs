//! How values are written, in every source.

use std::{fmt, ops::RangeInclusive, str::FromStr};

use ferrymq_model::Mechanism;

use crate::{
    certificate::{LoginPart, SanType},
    protocol::Service,
    tls::ClientCertificates,
    token_options::BackendName,
};

/// The form of an option's value.
#[derive(Clone, Debug)]
pub enum Form {
    /// A whole number.
    Number(Unit, RangeInclusive<u64>),
    /// A folder.
    Path,
    /// A file.
    File,
    /// Yes or no; `true` and `false` are accepted, too.
    Switch,
    /// One of several words, which are in a [`Names`].
    Choice(fn() -> Vec<&'static str>),
    /// Several of such words, in an order.
    Choices(fn() -> Vec<&'static str>),
    /// Any text.
    Text,
    /// Any texts.
    Texts,
    /// How much is logged.
    Level,
    /// Protocols and the addresses they are served on.
    Listeners,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Bytes; `64 KiB`, `16 MiB` and `1 GiB` are accepted.
    Bytes,
    /// The unit is the end of the option's name.
    Named,
}

/// Suffixes of bytes, largest first.
const SUFFIXES: &[(&str, u64)] = &[("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

impl Form {
    /// The placeholder for a value in the help and the documents.
    pub fn placeholder(&self) -> &'static str {
        match self {
            Self::Number(Unit::Bytes, _) => "BYTES",
            Self::Number(..) => "NUMBER",
            Self::Path => "DIR",
            Self::File => "FILE",
            Self::Switch => "YES|NO",
            Self::Choice(_) | Self::Choices(_) => "WORD",
            Self::Text => "TEXT",
            Self::Texts => "TEXT,TEXT",
            Self::Level => "LEVEL",
            Self::Listeners => "PROTOCOL=HOST:PORT",
        }
    }

    /// The allowed values, in words; empty if all are allowed.
    pub fn allowed(&self) -> String {
        match self {
            Self::Number(unit, range) => {
                format!("{} to {}", show_number(*unit, *range.start()), show_number(*unit, *range.end()))
            }
            Self::Level => "error, warn, info, debug, trace".into(),
            Self::Switch => "yes, no".into(),
            Self::Choice(names) | Self::Choices(names) => names().join(", "),
            Self::Path | Self::File | Self::Text | Self::Texts | Self::Listeners => String::new(),
        }
    }
}

/// Reads a number for a field of any width.
pub fn number<T: TryFrom<u64>>(text: &str, unit: Unit, range: &RangeInclusive<u64>) -> Result<T, String> {
    let allowed = || Form::Number(unit, range.clone()).allowed();
    let wanted = match unit {
        Unit::Bytes => "a number of bytes, such as 65536 or 64 KiB",
        Unit::Count | Unit::Named => "a whole number",
    };
    let value = read_number(text, unit).ok_or_else(|| format!("'{text}' is not {wanted}; allowed: {}", allowed()))?;
    if !range.contains(&value) {
        return Err(format!("{text} is out of range; allowed: {}", allowed()));
    }
    Ok(T::try_from(value).ok().expect("the range of an option fits its field"))
}

fn read_number(text: &str, unit: Unit) -> Option<u64> {
    let text = text.trim();
    if unit == Unit::Bytes {
        for (suffix, factor) in SUFFIXES {
            if let Some(count) = text.strip_suffix(suffix) {
                return count.trim_end().parse::<u64>().ok()?.checked_mul(*factor);
            }
        }
    }
    text.parse().ok()
}

/// A number as a person would write it.
pub fn show_number(unit: Unit, value: u64) -> String {
    let suffix = SUFFIXES.iter().find(|(_, factor)| value >= *factor && value.is_multiple_of(*factor));
    match (unit, suffix) {
        (Unit::Bytes, Some((name, factor))) => format!("{} {name}", value / factor),
        _ => value.to_string(),
    }
}

/// Reads a level of logging.
pub fn level(text: &str) -> Result<tracing::Level, String> {
    let known = matches!(text, "error" | "warn" | "info" | "debug" | "trace");
    let level = if known { tracing::Level::from_str(text).ok() } else { None };
    level.ok_or_else(|| format!("'{text}' is not a level; allowed: {}", Form::Level.allowed()))
}

/// Reads a text that must not be empty.
pub fn text(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it is empty; write something, or leave it out".into()) } else { Ok(text.into()) }
}

/// The words that an option of form [`Form::Choice`] accepts, each with its meaning.
pub type Names<T> = [(&'static str, T)];

/// Whether clients show certificates.
pub const CLIENT_CERTIFICATES: &Names<ClientCertificates> = &[
    ("none", ClientCertificates::None),
    ("optional", ClientCertificates::Optional),
    ("required", ClientCertificates::Required),
];

/// Where a certificate names its user.
pub const LOGIN_PARTS: &Names<LoginPart> = &[
    ("none", LoginPart::None),
    ("distinguished_name", LoginPart::DistinguishedName),
    ("common_name", LoginPart::CommonName),
    ("subject_alternative_name", LoginPart::SubjectAlternativeName),
];

/// Kinds of alternative names.
pub const SAN_TYPES: &Names<SanType> = &[
    ("dns", SanType::Dns),
    ("ip", SanType::Ip),
    ("email", SanType::Email),
    ("uri", SanType::Uri),
    ("other_name", SanType::OtherName),
];

/// Reads a switch.
pub fn switch(text: &str) -> Result<bool, String> {
    match text {
        "yes" | "true" => Ok(true),
        "no" | "false" => Ok(false),
        _ => Err(format!("'{text}' is not known; allowed: {}", Form::Switch.allowed())),
    }
}

/// A switch, as a user would write it.
pub fn show_switch(on: bool) -> String {
    if on { "yes" } else { "no" }.to_owned()
}

/// User backends.
pub const BACKENDS: &Names<BackendName> = &[("internal", BackendName::Internal), ("oauth2", BackendName::Tokens)];

/// Ways to log in.
pub const MECHANISMS: &Names<Mechanism> = &[
    (Mechanism::Plain.name(), Mechanism::Plain),
    (Mechanism::AmqPlain.name(), Mechanism::AmqPlain),
    (Mechanism::External.name(), Mechanism::External),
    (Mechanism::RabbitCrDemo.name(), Mechanism::RabbitCrDemo),
];

/// Reads several of these words, separated by commas, each at most once.
pub fn choices<T: Copy + PartialEq>(text: &str, names: &Names<T>) -> Result<Vec<T>, String> {
    let mut chosen = Vec::new();
    for word in text.split(',').map(str::trim) {
        let one = choice(word, names)?;
        if chosen.contains(&one) {
            return Err(format!("'{word}' appears twice"));
        }
        chosen.push(one);
    }
    Ok(chosen)
}

/// The words, as a user would write them.
pub fn show_choices<T: PartialEq>(values: &[T], names: &Names<T>) -> String {
    values.iter().map(|value| show_choice(value, names)).collect::<Vec<_>>().join(", ")
}

/// Reads texts, separated by commas or spaces.
pub fn texts(texts: &str) -> Result<Vec<String>, String> {
    let found: Vec<String> = texts.split([',', ' ']).filter(|one| !one.is_empty()).map(str::to_owned).collect();
    if found.is_empty() { text("").map(|_| Vec::new()) } else { Ok(found) }
}

/// Reads one of these words.
pub fn choice<T: Copy>(text: &str, names: &Names<T>) -> Result<T, String> {
    let found = names.iter().find(|(name, _)| *name == text);
    let allowed = || names_of(names).join(", ");
    found.map(|(_, value)| *value).ok_or_else(|| format!("'{text}' is not known; allowed: {}", allowed()))
}

/// The words alone.
pub fn names_of<T>(names: &Names<T>) -> Vec<&'static str> {
    names.iter().map(|(name, _)| *name).collect()
}

/// The word, as a user would write it.
pub fn show_choice<T: PartialEq>(value: &T, names: &Names<T>) -> String {
    names.iter().find(|(_, known)| known == value).map_or_else(String::new, |(name, _)| (*name).to_owned())
}

/// A protocol and its address.
#[derive(Clone, Debug)]
pub struct Listen {
    /// What is spoken there.
    pub service: Service,
    /// An address, or a name that stands for one or more.
    pub host: String,
    /// 0 picks a free port.
    pub port: u16,
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { service, host, port } = self;
        if host.contains(':') {
            write!(f, "{}=[{host}]:{port}", service.name)
        } else {
            write!(f, "{}={host}:{port}", service.name)
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not PROTOCOL=HOST:PORT, such as amqp=127.0.0.1:5672 or amqp=[::1]:5672");
        let (name, address) = text.split_once('=').ok_or_else(wrong)?;
        let service = Service::find(name).ok_or_else(|| {
            let known: Vec<&str> = Service::all().map(|service| service.name).collect();
            format!("there is no protocol '{name}'; allowed: {}", known.join(", "))
        })?;
        let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[') {
            Some(bracketed) => bracketed.strip_suffix(']').ok_or_else(wrong)?,
            // Without brackets it is not clear which colon is before the port.
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        if host.is_empty() {
            return Err(wrong());
        }
        let port = port.parse().map_err(|_| format!("'{port}' is not a port; allowed: 0 (any free one) to 65535"))?;
        Ok(Self { service, host: host.into(), port })
    }
}

/// Reads listeners, separated by commas.
pub fn listeners(text: &str) -> Result<Vec<Listen>, String> {
    text.split(',').map(|listen| listen.trim().parse()).collect()
}
