//! Addresses to listen on, as flags name them.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::str::FromStr;

/// The prefix of a Unix socket's path. [`super::proxies`] uses it alone for all peers of such sockets.
pub(super) const UNIX: &str = "unix:";

/// An address and a port, a name and a port, or a Unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    Address(SocketAddr),
    /// All addresses that it resolves to.
    Name {
        host: String,
        port: u16,
    },
    Unix(PathBuf),
}

/// The addresses that a name resolves to, each once.
pub(super) fn resolved(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    let mut all: Vec<SocketAddr> = Vec::new();
    for address in (host, port).to_socket_addrs()? {
        if !all.contains(&address) {
            all.push(address);
        }
    }
    Ok(all)
}

impl FromStr for ListenAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix(UNIX) {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                return Err("a Unix socket needs an absolute path: unix:/run/latchkey/admin.sock".to_owned());
            }
            return Ok(Self::Unix(path));
        }
        if let Ok(address) = text.parse() {
            return Ok(Self::Address(address));
        }
        let expected = || {
            "expected an address and a port (127.0.0.1:8080, [::]:8080), a name and a port (localhost:8080), or \
             unix:/run/latchkey/admin.sock"
                .to_owned()
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(expected)?;
        let is_name = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_'));
        // A text of only digits and dots is an invalid address, not a name.
        let is_name = is_name && host.bytes().any(|byte| byte.is_ascii_alphabetic()) && host.parse::<IpAddr>().is_err();
        let port = port.parse().ok().filter(|_| is_name).ok_or_else(expected)?;
        Ok(Self::Name { host: host.to_owned(), port })
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_names_and_paths_are_distinguished() {
        let name = |host: &str, port| ListenAddress::Name { host: host.to_owned(), port };
        for (text, expected) in [
            ("127.0.0.1:8080", Some(ListenAddress::Address("127.0.0.1:8080".parse().unwrap()))),
            ("[::1]:0", Some(ListenAddress::Address("[::1]:0".parse().unwrap()))),
            ("localhost:8080", Some(name("localhost", 8080))),
            ("keys-1.internal:443", Some(name("keys-1.internal", 443))),
            ("unix:/run/latchkey/admin.sock", Some(ListenAddress::Unix("/run/latchkey/admin.sock".into()))),
            ("unix:admin.sock", None),
            ("unix:", None),
            ("localhost", None),
            (":8080", None),
            ("8080", None),
            ("127.0.0.256:8080", None),
            ("localhost:65536", None),
            ("http://localhost:8080", None),
            ("::1:8080", None),
        ] {
            let parsed = text.parse::<ListenAddress>();
            assert_eq!(parsed.as_ref().ok(), expected.as_ref(), "{text}: {parsed:?}");
            assert!(parsed.is_err() || parsed.unwrap().to_string() == text, "{text}");
        }
    }

    #[test]
    fn a_name_resolves_to_each_of_its_addresses_once() {
        let all = resolved("localhost", 8080).unwrap();
        assert!(all.contains(&"127.0.0.1:8080".parse().unwrap()), "{all:?}");
        assert!(all.iter().all(|address| all.iter().filter(|other| *other == address).count() == 1), "{all:?}");
    }
}
