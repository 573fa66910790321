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
    pub(super) destination: Destination,
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected http:// or https:// and a host, with a port if needed and no path".to_owned();
        let uri = text.parse::<Uri>().map_err(|_| expected())?;
        let (Some(scheme @ ("http" | "https")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(expected());
        };
        let (has_tls, is_bare) = (scheme == "https", uri.path_and_query().is_none_or(|rest| rest.as_str() == "/"));
        let port = authority.port_u16().unwrap_or(if has_tls { 443 } else { 80 });
        let destination = Destination::new(authority.host(), port).filter(|_| is_bare && !text.contains('@'));
        Ok(Self { has_tls, authority: authority.clone(), destination: destination.ok_or_else(expected)? })
    }
}

impl Origin {
    /// What its certificate has to be for.
    pub(super) fn name(&self) -> String {
        let host = &self.destination.host;
        let san_type = if host.parse::<IpAddr>().is_ok() { "IP_ADDRESS" } else { "DNS" };
        format!("{{san_type: {san_type}, matcher: {{exact: {}}}}}", quoted(host))
    }

    /// One of the cluster's.
    pub(super) fn endpoint(&self) -> String {
        let Destination { host, port } = &self.destination;
        let address = format!("{{address: {}, port_value: {port}}}", quoted(host));
        format!("        - endpoint: {{address: {{socket_address: {address}}}}}")
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
