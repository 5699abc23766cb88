//! Which server to measure, and as which user: from a URI or from single options.

use std::net::{SocketAddr, ToSocketAddrs};

use crate::bench::Failure;

/// Where the server is.
#[derive(Debug, Clone, clap::Args)]
pub struct TargetArgs {
    /// The address, the user and the vhost in one: amqp://USER:PASSWORD@HOST:PORT/VHOST; single options override it
    #[arg(long)]
    uri: Option<String>,
    /// Host name or address [default: 127.0.0.1]
    #[arg(long)]
    host: Option<String>,
    /// TCP port [default: 5672]
    #[arg(long)]
    port: Option<u16>,
    /// User name [default: guest]
    #[arg(long)]
    user: Option<String>,
    /// Password [default: guest]
    #[arg(long)]
    password: Option<String>,
    /// Virtual host [default: /]
    #[arg(long)]
    vhost: Option<String>,
}

/// A server, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub address: SocketAddr,
    pub user: String,
    pub password: String,
    pub vhost: String,
}

impl TargetArgs {
    pub fn resolve(self) -> Result<Target, Failure> {
        let uri = match &self.uri {
            Some(uri) => parse_uri(uri).ok_or_else(|| {
                Failure::Option(format!("--uri {uri} is not of the form amqp://USER:PASSWORD@HOST:PORT/VHOST"))
            })?,
            None => TargetUri::default(),
        };
        let or = |option: Option<String>, part: Option<String>, default: &str| {
            option.or(part).unwrap_or_else(|| default.to_owned())
        };
        let host = or(self.host, uri.host, "127.0.0.1");
        let port = self.port.or(uri.port).unwrap_or(5672);
        Ok(Target {
            address: resolve(&host, port)?,
            user: or(self.user, uri.user, "guest"),
            password: or(self.password, uri.password, "guest"),
            vhost: or(self.vhost, uri.vhost, "/"),
        })
    }
}

fn resolve(host: &str, port: u16) -> Result<SocketAddr, Failure> {
    let found = (host, port).to_socket_addrs().map(|mut all| all.next());
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(Failure::Option(format!("{host} has no address"))),
        Err(source) => Err(Failure::Connect { address: format!("{host}:{port}"), source }),
    }
}

#[derive(Debug, Default, PartialEq, Eq)]
struct TargetUri {
    host: Option<String>,
    port: Option<u16>,
    user: Option<String>,
    password: Option<String>,
    vhost: Option<String>,
}

/// Reads RabbitMQ's URI form. A missing part stays `None`; a `/` at the end means the vhost with the empty name.
fn parse_uri(uri: &str) -> Option<TargetUri> {
    let rest = uri.strip_prefix("amqp://")?;
    let rest = rest.split('?').next()?;
    let (authority, vhost) = match rest.split_once('/') {
        Some((authority, vhost)) => (authority, Some(percent_decoded(vhost)?)),
        None => (rest, None),
    };
    let (login, place) = match authority.rsplit_once('@') {
        Some((login, place)) => (Some(login), place),
        None => (None, authority),
    };
    let (user, password) = match login.map(|login| login.split_once(':').unwrap_or((login, ""))) {
        Some((user, password)) => (Some(percent_decoded(user)?), Some(percent_decoded(password)?)),
        None => (None, None),
    };
    let (host, port) = split_port(place)?;
    Some(TargetUri { host: (!host.is_empty()).then(|| host.to_owned()), port, user, password, vhost })
}

/// `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`.
fn split_port(place: &str) -> Option<(&str, Option<u16>)> {
    if let Some(bracketed) = place.strip_prefix('[') {
        let (host, rest) = bracketed.split_once(']')?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None => rest.is_empty().then_some((host, None)),
        };
    }
    match place.split_once(':') {
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
        None => Some((place, None)),
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let high = char::from(rest.next()?).to_digit(16)?;
                let low = char::from(rest.next()?).to_digit(16)?;
                (high * 16 + low) as u8
            }
            plain => plain,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(
        user: Option<&str>,
        password: Option<&str>,
        host: Option<&str>,
        port: Option<u16>,
        vhost: Option<&str>,
    ) -> Option<TargetUri> {
        Some(TargetUri {
            host: host.map(str::to_owned),
            port,
            user: user.map(str::to_owned),
            password: password.map(str::to_owned),
            vhost: vhost.map(str::to_owned),
        })
    }

    #[test]
    fn uris_are_read() {
        let table = [
            ("amqp://", uri(None, None, None, None, None)),
            ("amqp://h", uri(None, None, Some("h"), None, None)),
            ("amqp://h:1/", uri(None, None, Some("h"), Some(1), Some(""))),
            ("amqp://u:p@h:56/v", uri(Some("u"), Some("p"), Some("h"), Some(56), Some("v"))),
            (
                "amqp://u%40x:p%2f@[::1]:9/%2F?heartbeat=1",
                uri(Some("u@x"), Some("p/"), Some("::1"), Some(9), Some("/")),
            ),
            ("amqp://[::1]", uri(None, None, Some("::1"), None, None)),
            ("http://h", None),
            ("amqp://h:port", None),
            ("amqp://h/%2", None),
            ("amqp://[::1", None),
        ];
        for (text, expected) in table {
            assert_eq!(parse_uri(text), expected, "{text}");
        }
    }

    #[test]
    fn options_win_over_the_uri() {
        let args = TargetArgs {
            uri: Some("amqp://u:p@127.0.0.2:56/v".to_owned()),
            host: None,
            port: Some(57),
            user: None,
            password: Some("q".to_owned()),
            vhost: None,
        };
        let target = args.resolve().unwrap();
        assert_eq!(target.address, "127.0.0.2:57".parse().unwrap());
        assert_eq!((&*target.user, &*target.password, &*target.vhost), ("u", "q", "v"));
    }
}
