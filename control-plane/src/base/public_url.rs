//! The URL that people and scripts reach the control plane by.

use std::fmt;
use std::str::FromStr;

use axum::http::Uri;

/// Scheme and authority, such as `https://keys.example.com`, without a trailing slash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

/// The text is no such URL.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected http:// or https:// and a host, with a port if needed and no path: https://keys.example.com")]
pub struct ParsePublicUrlError;

impl PublicUrl {
    /// The URL that reaches a listener directly.
    pub(crate) fn of(scheme: &str, authority: &str) -> Self {
        Self(format!("{scheme}://{}", authority.to_ascii_lowercase()))
    }
}

impl PublicUrl {
    /// Whether this is the `Origin` that a browser sends from our own pages. On loopback `localhost`, `127.0.0.1` and
    /// `[::1]` are equal.
    pub(crate) fn is_origin(&self, origin: &str) -> bool {
        let own = origin_of(&self.0);
        own.is_some() && own == origin_of(origin)
    }

    /// Whether browsers treat this URL as secure, and so keep its `__Host-` cookie: HTTPS, or this machine.
    pub(crate) fn is_trusted_by_browsers(&self) -> bool {
        origin_of(&self.0).is_some_and(|(scheme, host, _)| scheme == "https" || host == "localhost")
    }
}

/// Scheme, host and port.
fn origin_of(text: &str) -> Option<(String, String, u16)> {
    let uri = text.parse::<Uri>().ok()?;
    let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
    let port = authority.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
    let host = match authority.host().to_ascii_lowercase() {
        // A listener on all addresses, without a configured name, is reached from this machine by localhost.
        host if matches!(host.as_str(), "localhost" | "127.0.0.1" | "[::1]" | "0.0.0.0" | "[::]") => {
            "localhost".to_owned()
        }
        host => host,
    };
    Some((scheme.to_owned(), host, port))
}

impl FromStr for PublicUrl {
    type Err = ParsePublicUrlError;

    fn from_str(text: &str) -> Result<Self, ParsePublicUrlError> {
        let uri = text.parse::<Uri>().map_err(|_| ParsePublicUrlError)?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(ParsePublicUrlError);
        };
        let is_bare = uri.path_and_query().is_none_or(|rest| rest.as_str() == "/");
        if !is_bare || authority.as_str().contains('@') {
            return Err(ParsePublicUrlError);
        }
        Ok(Self(format!("{scheme}://{}", authority.as_str().to_ascii_lowercase())))
    }
}

impl fmt::Display for PublicUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_page_of_this_address_has_its_origin() {
        for (own, origin, is_ours) in [
            ("https://keys.example.com", "https://keys.example.com", true),
            ("https://keys.example.com", "https://keys.example.com:443", true),
            ("https://keys.example.com", "https://KEYS.example.com", true),
            ("https://keys.example.com", "http://keys.example.com", false),
            ("https://keys.example.com", "https://keys.example.com:8443", false),
            ("https://keys.example.com", "https://keys.example.com.evil.example", false),
            ("https://keys.example.com", "null", false),
            ("https://keys.example.com", "", false),
            ("http://127.0.0.1:8080", "http://localhost:8080", true),
            ("http://127.0.0.1:8080", "http://[::1]:8080", true),
            ("http://0.0.0.0:8080", "http://localhost:8080", true),
            ("http://0.0.0.0:8080", "http://192.0.2.7:8080", false),
            ("http://127.0.0.1:8080", "http://localhost:8081", false),
            ("http://127.0.0.1:8080", "http://127.0.0.2:8080", false),
        ] {
            assert_eq!(own.parse::<PublicUrl>().unwrap().is_origin(origin), is_ours, "{own} {origin}");
        }
    }

    #[test]
    fn an_address_is_a_scheme_and_a_host_and_nothing_else() {
        for (text, expected) in [
            ("https://keys.example.com", Some("https://keys.example.com")),
            ("https://Keys.Example.com/", Some("https://keys.example.com")),
            ("http://[::1]:8080", Some("http://[::1]:8080")),
            ("https://keys.example.com/latchkey", None),
            ("https://keys.example.com/?a=b", None),
            ("https://me@keys.example.com", None),
            ("ftp://keys.example.com", None),
            ("keys.example.com", None),
            ("/", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<PublicUrl>().ok().map(|url| url.to_string()).as_deref(), expected, "{text}");
        }
    }
}
