//! Requests that a page of another site makes in a browser. A browser sends the user's login, or reaches a server on the
//! user's machine, for any page that is open in it.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, header};

use super::{problem::Problem, routes::Verb};

/// Checks the headers that a browser cannot be made to leave out or to forge.
///
/// A client on this machine must use a name that means this machine (`hosts` are more of them): a page can give its own
/// name the address 127.0.0.1. A request that changes something must not come from a page of another host.
///
/// # Errors
/// 421 for the name, 403 for the page.
pub fn check(headers: &HeaderMap, verb: Verb, peer: SocketAddr, hosts: &[String]) -> Result<(), Problem> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let host = text(header::HOST.as_str());
    if peer.ip().to_canonical().is_loopback() && !host.is_none_or(|host| is_own(host_name(host), hosts)) {
        return Err(Problem::misdirected(host.unwrap_or_default()));
    }
    if verb == Verb::Get {
        return Ok(());
    }
    let is_foreign = text(header::ORIGIN.as_str()).is_some_and(|origin| {
        let of = origin.split_once("://").map_or(origin, |(_, of)| of);
        Some(of) != host
    });
    if is_foreign || text("sec-fetch-site") == Some("cross-site") {
        return Err(Problem::cross_site());
    }
    Ok(())
}

/// The name or address in `NAME:PORT`.
fn host_name(host: &str) -> &str {
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        return address;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

/// Whether the name means this machine. An address does: nobody can give it another meaning.
fn is_own(name: &str, hosts: &[String]) -> bool {
    let is = |own: &str| name.trim_end_matches('.').eq_ignore_ascii_case(own);
    is("localhost") || name.parse::<IpAddr>().is_ok() || hosts.iter().any(|own| is(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(verb: Verb, peer: &str, headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| _ = map.insert(*name, value.parse().unwrap()));
        check(&map, verb, peer.parse().unwrap(), &["broker.example".to_owned()]).is_ok()
    }

    #[test]
    fn a_client_on_this_machine_must_name_this_machine() {
        for host in ["localhost", "LOCALHOST:15672", "127.0.0.1:15672", "[::1]:15672", "broker.example", "localhost.:1"]
        {
            assert!(checked(Verb::Get, "127.0.0.1:9", &[("host", host)]), "{host}");
        }
        for host in ["evil.example:15672", "localhost.evil.example", "127.0.0.1.evil.example", ""] {
            assert!(!checked(Verb::Get, "127.0.0.1:9", &[("host", host)]), "{host}");
            assert!(checked(Verb::Get, "192.0.2.1:9", &[("host", host)]), "from elsewhere, {host}");
        }
        assert!(!checked(Verb::Get, "[::ffff:127.0.0.1]:9", &[("host", "evil.example")]));
    }

    #[test]
    fn a_page_of_another_site_changes_nothing() {
        let host = ("host", "localhost:15672");
        assert!(checked(Verb::Put, "127.0.0.1:9", &[host]));
        assert!(checked(Verb::Put, "127.0.0.1:9", &[host, ("origin", "http://localhost:15672")]));
        for headers in [
            [host, ("origin", "http://evil.example")],
            [host, ("origin", "null")],
            [host, ("sec-fetch-site", "cross-site")],
        ] {
            assert!(!checked(Verb::Post, "127.0.0.1:9", &headers), "{headers:?}");
            assert!(checked(Verb::Get, "127.0.0.1:9", &headers), "{headers:?}");
        }
    }
}
