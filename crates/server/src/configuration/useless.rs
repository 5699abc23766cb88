//! Refuses an option that is set and has no effect together with the others. The error says what the option needs.

use ferrymq_model::Mechanism;

use super::{Configuration, ConfigurationError};
use crate::{certificate::LoginPart, protocol::Service, token_options::BackendName};

impl Configuration {
    /// # Errors
    /// The first option that is set and would have no effect, and what it needs.
    pub fn check(&self) -> Result<(), ConfigurationError> {
        let refuse = |key: &str, problem: String| {
            Err(ConfigurationError { place: key.to_owned(), problem: format!("it has no effect: {problem}") })
        };
        for key in &self.given {
            if let Some(problem) = self.why_useless(key) {
                return refuse(key, problem);
            }
        }
        Ok(())
    }

    /// What an option that is set lacks, if anything.
    fn why_useless(&self, key: &str) -> Option<String> {
        let by_san = self.tls.login_from == LoginPart::SubjectAlternativeName;
        match key {
            "definitions_strict" | "definitions_reload" if self.definitions.is_none() => {
                Some("definitions names no file".to_owned())
            }
            "tls.certificate_file" | "tls.key_file" if !self.listens_securely() => Some(format!(
                "listen is given, and names no listener for TLS; add one, such as --listen {}",
                secure_example()
            )),
            "tls.login_san_type" | "tls.login_san_index" if !by_san => {
                Some("tls.login_from is not subject_alternative_name".to_owned())
            }
            "tls.login_from" if !self.auth_mechanisms.contains(&Mechanism::External) => {
                Some("auth_mechanisms does not name EXTERNAL".to_owned())
            }
            key if key.starts_with("tls.") && !self.tls.are_given() => {
                Some("TLS needs tls.certificate_file and tls.key_file".to_owned())
            }
            key if key.starts_with("oauth2.") && !self.auth_backends.contains(&BackendName::Tokens) => {
                Some("auth_backends does not name oauth2".to_owned())
            }
            _ => None,
        }
    }

    /// Whether there will be a TLS listener once there is a certificate.
    fn listens_securely(&self) -> bool {
        self.listen.is_empty() || self.listen.iter().any(|listen| listen.service.is_secure)
    }
}

/// A TLS listener, as a user would write it.
fn secure_example() -> String {
    let secure = Service::all().find(|service| service.is_secure);
    secure.map_or_else(String::new, |service| format!("{}=127.0.0.1:{}", service.name, service.port))
}

#[cfg(test)]
mod tests {
    use super::super::OPTIONS;
    use super::*;

    fn check(flags: &[(&str, &str)]) -> Result<(), String> {
        let option = |key: &str| OPTIONS.iter().find(|option| option.key == key).unwrap();
        let given = flags.iter().map(|(key, value)| (option(key), (*value).to_owned()));
        Configuration::read(None, [], given).unwrap().check().map_err(|error| error.to_string())
    }

    #[test]
    fn an_option_that_would_do_nothing_is_refused() {
        let pair = [("tls.certificate_file", "c.pem"), ("tls.key_file", "k.pem")];
        let plain = [pair[0], pair[1], ("listen", "amqp=127.0.0.1:0")];
        assert_eq!(
            check(&plain).unwrap_err(),
            "tls.certificate_file: it has no effect: listen is given, and names no listener for TLS; add one, such as \
             --listen amqps=127.0.0.1:5671"
        );
        check(&pair).unwrap();
        check(&[pair[0], pair[1], ("listen", "amqps=127.0.0.1:0")]).unwrap();
        for (key, value, why) in [
            ("definitions_strict", "yes", "definitions names no file"),
            ("definitions_reload", "yes", "definitions names no file"),
            ("tls.client_certificates", "required", "TLS needs tls.certificate_file and tls.key_file"),
            ("tls.client_ca_file", "ca.pem", "TLS needs tls.certificate_file and tls.key_file"),
            ("tls.login_from", "common_name", "TLS needs tls.certificate_file and tls.key_file"),
            ("tls.login_san_type", "dns", "tls.login_from is not subject_alternative_name"),
            ("oauth2.verify_aud", "no", "auth_backends does not name oauth2"),
            ("oauth2.jwks_file", "keys.json", "auth_backends does not name oauth2"),
        ] {
            assert_eq!(check(&[(key, value)]).unwrap_err(), format!("{key}: it has no effect: {why}"));
        }
    }
}
