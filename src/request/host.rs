//! Finds the host of a request.

use http::{HeaderMap, Uri};

/// Returns the host of a request without its port: that of the URI, else of the `host` header.
pub(crate) fn of<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> &'a str {
    let in_header = || headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or_default();
    uri.host().unwrap_or_else(|| {
        let host = in_header();
        host.rsplit_once(':')
            .filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
            .map_or(host, |host| host.0)
    })
}

/// Returns true if a host is this domain or one of its subdomains.
pub(crate) fn is_in(host: &str, domain: &str) -> bool {
    let Some(at) = host.len().checked_sub(domain.len()) else { return false };
    let (head, tail) = host.as_bytes().split_at(at);
    tail.eq_ignore_ascii_case(domain.as_bytes()) && matches!(head.last(), None | Some(b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_is_that_of_the_address_else_that_of_the_header() {
        for (uri, header, expected) in [
            ("https://api.openai.com:443/v1", "other", "api.openai.com"),
            ("/v1", "api.openai.com:443", "api.openai.com"),
            ("/v1", "api.openai.com", "api.openai.com"),
            ("/v1", "[::1]:80", "[::1]"),
        ] {
            let request = http::Request::get(uri).header("host", header).body(()).unwrap();
            assert_eq!(of(request.uri(), request.headers()), expected, "{uri} {header}");
        }
        assert_eq!(of(&Uri::from_static("/v1"), &HeaderMap::new()), "");
    }

    #[test]
    fn a_domain_has_its_subdomains_and_no_others() {
        for (host, domain, expected) in [
            ("googleapis.com", "googleapis.com", true),
            ("Generativelanguage.GoogleApis.com", "googleapis.com", true),
            ("notgoogleapis.com", "googleapis.com", false),
            ("googleapis.com.example", "googleapis.com", false),
            ("", "googleapis.com", false),
        ] {
            assert_eq!(is_in(host, domain), expected, "{host}");
        }
    }
}
