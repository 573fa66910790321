//! The address under which people and scripts reach the control plane.

use std::fmt;
use std::str::FromStr;

use axum::http::Uri;

/// Scheme and authority, as `https://keys.example.com`, without a slash behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicUrl(String);

/// A text that is no such address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected http:// or https:// and a host, with a port if needed and no path: https://keys.example.com")]
pub struct ParsePublicUrlError;

impl PublicUrl {
    /// Where a listener is reached directly.
    pub(crate) fn of(scheme: &str, address: std::net::SocketAddr) -> Self {
        Self(format!("{scheme}://{address}"))
    }
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
