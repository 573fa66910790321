//! Trusted proxies in front of the control plane, which name a request's client.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use axum::http::HeaderMap;
use ipnet::IpNet;

use super::address::UNIX;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// An entry of `--trusted-proxies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    Network(IpNet),
    /// All peers of our Unix sockets.
    Unix,
}

/// The other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Peer {
    Address(SocketAddr),
    /// A peer of a Unix socket, which has no address.
    Unix,
}

/// All entries of `--trusted-proxies`. Clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct TrustedProxies(Arc<[TrustedProxy]>);

impl Peer {
    pub(super) fn address(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address.ip().to_canonical()),
            Self::Unix => None,
        }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Unix => f.write_str("a Unix socket"),
        }
    }
}

impl TrustedProxies {
    pub(super) fn new(proxies: &[TrustedProxy]) -> Self {
        Self(proxies.into())
    }

    /// Whether a peer with this address is a trusted proxy; `None` is a peer of a Unix socket.
    pub(super) fn has(&self, address: Option<IpAddr>) -> bool {
        self.0.iter().any(|proxy| match (proxy, address) {
            (TrustedProxy::Network(network), Some(address)) => network.contains(&address),
            (TrustedProxy::Unix, None) => true,
            (TrustedProxy::Network(_), None) | (TrustedProxy::Unix, Some(_)) => false,
        })
    }

    /// The client of a request that `peer` sent: the last address in `x-forwarded-for` that is not a proxy's, because
    /// each proxy appends the address that it received the request from. It is `peer` itself if that is no proxy,
    /// because its headers could claim anything. An entry that is no address ends the search at the proxy that appended
    /// it.
    pub(super) fn client(&self, peer: Peer, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer.address();
        let lines: Vec<&[u8]> = headers.get_all(FORWARDED_FOR).iter().map(|line| line.as_bytes()).collect();
        let entries = lines.iter().rev().flat_map(|line| line.rsplit(|byte| *byte == b','));
        for entry in entries {
            if !self.has(client) {
                break;
            }
            let Some(address) = str::from_utf8(entry).ok().and_then(|entry| address(entry.trim())) else { break };
            client = Some(address);
        }
        client
    }
}

/// An address as proxies write it: with or without a port, IPv6 with or without brackets.
fn address(entry: &str) -> Option<IpAddr> {
    let bare = entry.strip_prefix('[').and_then(|entry| entry.strip_suffix(']')).unwrap_or(entry);
    let parsed = bare.parse().or_else(|_| entry.parse::<SocketAddr>().map(|address| address.ip()));
    parsed.ok().map(|address: IpAddr| address.to_canonical())
}

impl FromStr for TrustedProxy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == UNIX { Ok(Self::Unix) } else { network(text).map(Self::Network) }
    }
}

/// Parses a network, or a single address, as an operator writes it.
fn network(text: &str) -> Result<IpNet, String> {
    let parsed = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network =
        parsed.map_err(|_| "not an address or a network, as in 10.0.0.0/8 or 2001:db8::1, nor unix:".to_owned())?;
    if network.addr() == network.network() {
        Ok(network)
    } else {
        Err(format!("host bits are set; the network is {}", network.trunc()))
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn peer_at(address: &str) -> Peer {
        Peer::Address(SocketAddr::new(ip(address), 40_000))
    }

    #[test]
    fn the_client_is_the_last_address_that_is_no_proxy_s() {
        let proxies = TrustedProxies::new(&["10.0.0.0/8", "2001:db8::/32"].map(|text| text.parse().unwrap()));
        for (peer, lines, client) in [
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.7, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.7, 203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.7", "203.0.113.9,10.0.0.2", "2001:db8::5"], "203.0.113.9"),
            ("2001:db8::1", &["203.0.113.9:55220"], "203.0.113.9"),
            ("10.0.0.1", &["[2001:dead::9]:443"], "2001:dead::9"),
            ("10.0.0.1", &["[2001:dead::9]"], "2001:dead::9"),
            ("10.0.0.1", &["2001:dead::9"], "2001:dead::9"),
            ("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9, ,10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["203.0.113.9,"], "10.0.0.1"),
            ("10.0.0.1", &["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ] {
            let headers: HeaderMap =
                lines.iter().map(|line| (FORWARDED_FOR.parse().unwrap(), HeaderValue::from_static(line))).collect();
            assert_eq!(proxies.client(peer_at(peer), &headers), Some(ip(client)), "{peer} {lines:?}");
        }
        let nobody = TrustedProxies::default();
        let headers = HeaderMap::from_iter([(FORWARDED_FOR.parse().unwrap(), HeaderValue::from_static("203.0.113.9"))]);
        let (local, client) = (peer_at("127.0.0.1"), ip("203.0.113.9"));
        assert_eq!(nobody.client(local, &headers), local.address(), "without the option nobody is trusted");
        // A peer of a Unix socket has no address, and is a proxy only if `unix:` is configured.
        let local = TrustedProxies::new(&["127.0.0.0/8".parse().unwrap()]);
        let unix = TrustedProxies::new(&["unix:".parse().unwrap()]);
        for (proxies, expected) in [(&nobody, None), (&local, None), (&unix, Some(client))] {
            assert_eq!(proxies.client(Peer::Unix, &headers), expected, "{proxies:?}");
            assert_eq!(proxies.client(Peer::Unix, &HeaderMap::new()), None, "{proxies:?}");
        }
        assert_eq!(unix.client(peer_at("127.0.0.1"), &headers), Some(ip("127.0.0.1")));
    }

    #[test]
    fn networks_are_parsed_and_errors_explain_what_is_wrong() {
        for (text, expected) in [("10.0.0.0/8", "10.0.0.0/8"), ("192.0.2.1", "192.0.2.1/32"), ("::1", "::1/128")] {
            assert_eq!(network(text).map(|network| network.to_string()), Ok(expected.to_owned()));
        }
        assert_eq!(network("10.1.0.0/8"), Err("host bits are set; the network is 10.0.0.0/8".to_owned()));
        for text in ["", "proxy", "10.0.0.0/33"] {
            assert!(network(text).unwrap_err().starts_with("not an address or a network"), "{text:?}");
        }
    }
}
