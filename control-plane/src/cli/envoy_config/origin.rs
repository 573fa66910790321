//! Where Envoy connects to: the control plane and the upstream, as flags name them.

use std::net::IpAddr;
use std::str::FromStr;

use axum::http::Uri;
use axum::http::uri::Authority;

use super::quoted;

/// Scheme and authority of the control plane.
#[derive(Clone)]
pub(super) struct Origin {
    pub(super) has_tls: bool,
    pub(super) authority: Authority,
    endpoint: Endpoint,
}

/// How Envoy reaches it.
#[derive(Clone)]
enum Endpoint {
    Network(Destination),
    /// The path of a Unix socket.
    Unix(String),
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            if !path.starts_with('/') {
                return Err("a Unix socket needs its whole path: unix:/run/latchkey/edges.sock".to_owned());
            }
            let endpoint = Endpoint::Unix(path.to_owned());
            return Ok(Self { has_tls: false, authority: Authority::from_static("localhost"), endpoint });
        }
        let expected = || {
            "expected http:// or https:// and a host, with a port if needed and no path; or unix: and a path".to_owned()
        };
        let uri = text.parse::<Uri>().map_err(|_| expected())?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(expected());
        };
        let (has_tls, is_bare) = (scheme == "https", uri.path_and_query().is_none_or(|rest| rest.as_str() == "/"));
        let port = authority.port_u16().unwrap_or(if has_tls { 443 } else { 80 });
        let destination = Destination::new(authority.host(), port).filter(|_| is_bare && !text.contains('@'));
        let endpoint = Endpoint::Network(destination.ok_or_else(expected)?);
        Ok(Self { has_tls, authority: authority.clone(), endpoint })
    }
}

impl Origin {
    /// Whether the connection stays on this machine.
    pub(super) fn is_unix(&self) -> bool {
        matches!(self.endpoint, Endpoint::Unix(_))
    }

    /// The name that Envoy requests in a TLS handshake; empty for a Unix socket.
    pub(super) fn host(&self) -> &str {
        match &self.endpoint {
            Endpoint::Network(destination) => &destination.host,
            Endpoint::Unix(_) => "",
        }
    }

    /// The name that its certificate must have, as a matcher.
    pub(super) fn name(&self) -> String {
        let host = self.host();
        let san_type = if host.parse::<IpAddr>().is_ok() { "IP_ADDRESS" } else { "DNS" };
        format!("{{san_type: {san_type}, matcher: {{exact: {}}}}}", quoted(host))
    }

    /// Its endpoint in the cluster.
    pub(super) fn endpoint(&self) -> String {
        let address = match &self.endpoint {
            Endpoint::Network(Destination { host, port }) => {
                format!("socket_address: {{address: {}, port_value: {port}}}", quoted(host))
            }
            Endpoint::Unix(path) => format!("pipe: {{path: {}}}", quoted(path)),
        };
        format!("        - endpoint: {{address: {{{address}}}}}")
    }
}

/// A host and a port that Envoy connects to.
#[derive(Clone)]
pub(super) struct Destination {
    pub(super) host: String,
    pub(super) port: u16,
}

impl Destination {
    fn new(host: &str, port: u16) -> Option<Self> {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let is_name =
            !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
        (is_name || host.parse::<IpAddr>().is_ok()).then(|| Self { host: host.to_ascii_lowercase(), port })
    }
}

impl FromStr for Destination {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let parsed = text.rsplit_once(':').and_then(|(host, port)| Self::new(host, port.parse().ok()?));
        parsed.ok_or("expected a host and a port: 127.0.0.1:8081")
    }
}
