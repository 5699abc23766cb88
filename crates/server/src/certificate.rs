//! The user that a client's certificate names. The name has RabbitMQ's form, so that users who were set up there
//! are found here.

use ferrymq_model::Name;
use std::net::IpAddr;
use x509_cert::{
    Certificate,
    attr::AttributeTypeAndValue,
    der::{Decode as _, Tag, Tagged as _, asn1::ObjectIdentifier},
    ext::pkix::{SubjectAltName, name::GeneralName},
    name::RelativeDistinguishedName,
};

/// Where in a certificate the user's name stands.
#[derive(Clone, Debug, Default)]
pub struct LoginSource {
    /// In which part of it.
    pub part: LoginPart,
    /// Which kind of its alternative names.
    pub san_type: SanType,
    /// Which one of those, from 0.
    pub san_index: usize,
}

/// The part of a certificate in which the user's name stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LoginPart {
    /// None: nobody can log in with a certificate. This is the default, because some clients (py-amqp) choose
    /// EXTERNAL before any other mechanism if it is offered.
    #[default]
    None,
    /// The whole subject, in the form of RFC 4514.
    DistinguishedName,
    /// The common name in the subject; several are joined by commas.
    CommonName,
    /// An alternative name.
    SubjectAlternativeName,
}

/// Kinds of alternative names (RFC 5280, section 4.2.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SanType {
    /// A host's name.
    #[default]
    Dns,
    /// An address, in the usual notation.
    Ip,
    /// A mail address.
    Email,
    /// A URI.
    Uri,
    /// Another name that is a text, such as a principal's name.
    OtherName,
}

impl LoginSource {
    /// The user's name in a verified certificate.
    ///
    /// # Errors
    /// If the certificate has none: the reason, for the log.
    pub fn user(&self, certificate: &[u8]) -> Result<Name, String> {
        let certificate =
            Certificate::from_der(certificate).map_err(|error| format!("the certificate cannot be read: {error}"))?;
        let subject = certificate.tbs_certificate().subject();
        let found = match self.part {
            LoginPart::None => return Err("certificates do not name users (tls.login_from is none)".to_owned()),
            LoginPart::DistinguishedName => Some(distinguished_name(subject.iter_rdn())),
            LoginPart::CommonName => common_name(subject.iter()),
            LoginPart::SubjectAlternativeName => self.alternative_name(&certificate)?,
        };
        let user = found.filter(|name| !name.is_empty()).ok_or("the certificate has no such name (tls.login_from)")?;
        Name::parse(user.as_bytes()).map_err(|_| format!("the name in the certificate is too long for a user: {user}"))
    }

    fn alternative_name(&self, certificate: &Certificate) -> Result<Option<String>, String> {
        let extension = certificate.tbs_certificate().get_extension::<SubjectAltName>();
        let names = extension.map_err(|error| format!("its alternative names cannot be read: {error}"))?;
        let of_type = |name: &GeneralName| self.san_type.text_of(name);
        Ok(names.and_then(|(_, names)| names.0.iter().filter_map(of_type).nth(self.san_index)))
    }
}

impl SanType {
    /// The name as text, where it is of this type.
    fn text_of(self, name: &GeneralName) -> Option<String> {
        match (self, name) {
            (Self::Dns, GeneralName::DnsName(text))
            | (Self::Email, GeneralName::Rfc822Name(text))
            | (Self::Uri, GeneralName::UniformResourceIdentifier(text)) => Some(text.as_str().to_owned()),
            (Self::Ip, GeneralName::IpAddress(octets)) => address(octets.as_bytes()).map(|address| address.to_string()),
            (Self::OtherName, GeneralName::OtherName(other)) => text(other.value.tag(), other.value.value()),
            _ => None,
        }
    }
}

fn address(octets: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(octets).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(octets).map(IpAddr::from)).ok()
}

/// Attribute types that have a name; the others are written as numbers. RabbitMQ has no name for the street.
const TYPES: [(&str, &str); 16] = [
    ("2.5.4.4", "SN"),
    ("2.5.4.42", "GIVENNAME"),
    ("2.5.4.43", "INITIALS"),
    ("2.5.4.44", "GENERATIONQUALIFIER"),
    ("2.5.4.3", "CN"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "TITLE"),
    ("2.5.4.6", "C"),
    ("2.5.4.5", "SERIALNUMBER"),
    ("2.5.4.65", "PSEUDONYM"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "EMAILADDRESS"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// The last part first, as in RFC 4514.
fn distinguished_name<'a>(parts: impl Iterator<Item = &'a RelativeDistinguishedName>) -> String {
    let written = |part: &RelativeDistinguishedName| part.iter().map(attribute).collect::<Vec<_>>().join("+");
    let mut parts: Vec<String> = parts.map(written).collect();
    parts.reverse();
    parts.join(",")
}

fn attribute(attribute: &AttributeTypeAndValue) -> String {
    let number = attribute.oid.to_string();
    let known = TYPES.iter().find(|(known, _)| *known == number);
    let name = known.map_or(number.as_str(), |(_, name)| name);
    let value = text(attribute.value.tag(), attribute.value.value());
    // A value that is not text is written as its bytes (RFC 4514, section 2.4).
    let value = value.map_or_else(|| format!("#{}", hexadecimal(attribute.value.value())), |text| escaped(&text));
    format!("{name}={value}")
}

fn common_name<'a>(attributes: impl Iterator<Item = &'a AttributeTypeAndValue>) -> Option<String> {
    let names = attributes.filter(|attribute| attribute.oid == COMMON_NAME);
    let texts: Vec<String> =
        names.filter_map(|attribute| text(attribute.value.tag(), attribute.value.value())).collect();
    (!texts.is_empty()).then(|| texts.join(","))
}

/// A directory string. FerryMQ reads a teletex string as Latin-1, as RabbitMQ does.
fn text(tag: Tag, octets: &[u8]) -> Option<String> {
    match tag {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String => String::from_utf8(octets.to_vec()).ok(),
        Tag::TeletexString => Some(octets.iter().copied().map(char::from).collect()),
        Tag::BmpString => {
            let unit = |pair: &[u8]| pair.iter().fold(0, |unit, octet| unit << 8 | u16::from(*octet));
            String::from_utf16(&octets.chunks(2).map(unit).collect::<Vec<u16>>()).ok()
        }
        _ => None,
    }
}

/// Escapes a value as RabbitMQ does: as RFC 4514 says, and also each byte that is not printable, and the tilde.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    let last = text.len().saturating_sub(1);
    for (at, octet) in text.bytes().enumerate() {
        match octet {
            b' ' | b'#' if at == 0 => escaped.extend(['\\', char::from(octet)]),
            b' ' if at == last => escaped.push_str("\\ "),
            b'"' | b'+' | b',' | b';' | b'<' | b'>' | b'\\' => escaped.extend(['\\', char::from(octet)]),
            b' '..=b'}' => escaped.push(char::from(octet)),
            _ => escaped.push_str(&format!("\\{octet:02X}")),
        }
    }
    escaped
}

fn hexadecimal(octets: &[u8]) -> String {
    octets.iter().map(|octet| format!("{octet:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, pem::PemObject as _};

    use super::*;

    /// Made with OpenSSL 3.0: parts with unusual characters, two values of one attribute, types without a name, and
    /// one alternative name of each type.
    const CERTIFICATE: &[u8] = include_bytes!("certificate.pem");

    /// The text that RabbitMQ 3.10.8 makes of its subject.
    const SUBJECT: &str = "2.5.4.17=123,2.5.4.13=des\\7Ec,2.5.4.9=road 1,CN=\\#worker\\ ,OU=\\ lead#,OU=one+CN=plus,\
                           O=Ferry\\, \\\"Inc\\\"\\; \\<a\\+b\\>,L=Lund,ST=Sk\\C3\\A5ne,C=SE";

    fn user(part: LoginPart, san_type: SanType, san_index: usize) -> Result<Name, String> {
        let der = CertificateDer::from_pem_slice(CERTIFICATE).unwrap();
        LoginSource { part, san_type, san_index }.user(&der)
    }

    #[test]
    fn the_subject_is_written_as_rabbitmq_writes_it() {
        assert_eq!(&*user(LoginPart::DistinguishedName, SanType::Dns, 0).unwrap(), SUBJECT);
    }

    #[test]
    fn common_names_are_joined_as_they_are() {
        assert_eq!(&*user(LoginPart::CommonName, SanType::Dns, 0).unwrap(), "plus,#worker ");
    }

    #[test]
    fn alternative_names_are_chosen_by_type_and_number() {
        let named = |san_type, index| user(LoginPart::SubjectAlternativeName, san_type, index);
        for (san_type, index, expected) in [
            (SanType::Dns, 0, "first.example"),
            (SanType::Dns, 1, "second.example"),
            (SanType::Email, 0, "w@example.org"),
            (SanType::Uri, 0, "urn:w"),
            (SanType::Ip, 0, "10.1.2.3"),
            (SanType::OtherName, 0, "upn@example.org"),
        ] {
            assert_eq!(&*named(san_type, index).unwrap(), expected, "{san_type:?}");
        }
        assert!(named(SanType::Dns, 2).unwrap_err().contains("no such name"));
    }

    #[test]
    fn what_names_nobody_is_said_to() {
        assert!(user(LoginPart::None, SanType::Dns, 0).unwrap_err().contains("tls.login_from"));
        assert!(LoginSource::default().user(b"no certificate").unwrap_err().contains("cannot be read"));
    }
}
