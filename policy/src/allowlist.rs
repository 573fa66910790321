//! Source networks a key may be used from.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// The most networks one key may list.
pub const MAX_NETWORKS: usize = 100;

/// Where a key may be used from. As JSON `null`, or a list of addresses and CIDR ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Option<Vec<String>>", into = "Option<Vec<String>>")]
pub enum Allowlist {
    /// Any address.
    #[default]
    Any,
    /// Only these networks. Never empty: see [`Networks`].
    Only(Networks),
}

/// One to 100 networks, in the order given. An IPv4-mapped IPv6 network is stored as IPv4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Networks(Vec<IpNet>);

/// Why a list of networks is refused. `at` counts entries from 0.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowlistError {
    /// A list without networks. It could mean any address or none.
    #[error("an empty allowlist is ambiguous: use null for any address, or list the networks")]
    Empty,
    /// More than [`MAX_NETWORKS`] entries. Checked before any entry is parsed.
    #[error("an allowlist holds at most {MAX_NETWORKS} networks; this one has {count}")]
    TooMany {
        /// The entries of the refused list.
        count: usize,
    },
    /// An entry that is neither an address nor a range, such as a host name or `192.0.2.7/33`.
    #[error("entry {at}, `{entry}`, is not an IP address or CIDR range")]
    NotANetwork {
        /// The entry's index.
        at: usize,
        /// Its first 60 characters. It may be a secret in the wrong field: redact it before anyone sees it.
        entry: String,
    },
    /// A range with bits set after its prefix, such as `192.0.2.7/24`.
    #[error("entry {at}, `{entry}`, has host bits set; the range is `{meant}`")]
    HostBits {
        /// The entry's index.
        at: usize,
        /// The entry as it was given.
        entry: String,
        /// The range with these bits cleared, in CIDR notation: `192.0.2.0/24`.
        meant: String,
    },
}

impl Networks {
    /// Parses addresses (`192.0.2.7`, `2001:db8::1`) and ranges (`192.0.2.0/24`).
    pub fn parse<S: AsRef<str>>(entries: &[S]) -> Result<Self, AllowlistError> {
        match entries.len() {
            0 => return Err(AllowlistError::Empty),
            count if count > MAX_NETWORKS => return Err(AllowlistError::TooMany { count }),
            _ => {}
        }
        let networks = entries.iter().enumerate().map(|(at, entry)| parse_network(at, entry.as_ref()));
        networks.collect::<Result<_, _>>().map(Self)
    }

    /// The networks, in the order given.
    pub fn as_slice(&self) -> &[IpNet] {
        &self.0
    }
}

impl Allowlist {
    /// The networks that it lists; none where any address is allowed.
    pub fn networks(&self) -> &[IpNet] {
        match self {
            Self::Any => &[],
            Self::Only(networks) => networks.as_slice(),
        }
    }

    /// Whether `other` allows every address that this allows. False where only several networks of `other` together
    /// cover one of this.
    pub fn is_within(&self, other: &Self) -> bool {
        match (self, other) {
            (_, Self::Any) => true,
            (Self::Any, Self::Only(_)) => false,
            (Self::Only(own), Self::Only(others)) => {
                own.0.iter().all(|network| others.0.iter().any(|other| other.contains(network)))
            }
        }
    }
}

fn parse_network(at: usize, entry: &str) -> Result<IpNet, AllowlistError> {
    let not_a_network = || AllowlistError::NotANetwork { at, entry: entry.chars().take(60).collect() };
    let network: IpNet = match entry.parse::<IpAddr>() {
        Ok(address) => address.into(),
        Err(_) => entry.parse().map_err(|_| not_a_network())?,
    };
    if network.trunc() != network {
        let meant = text(&network.trunc());
        return Err(AllowlistError::HostBits { at, entry: entry.to_owned(), meant });
    }
    // ::ffff:192.0.2.0/120 means 192.0.2.0/24: its addresses arrive as IPv4 addresses.
    if let IpNet::V6(v6) = network
        && let (Some(v4), Some(length)) = (v6.addr().to_ipv4_mapped(), v6.prefix_len().checked_sub(96))
    {
        return ipnet::Ipv4Net::new(v4, length).map(IpNet::V4).map_err(|_| not_a_network());
    }
    Ok(network)
}

/// A single address without its prefix length, a range with it.
fn text(network: &IpNet) -> String {
    if network.prefix_len() == network.max_prefix_len() { network.addr().to_string() } else { network.to_string() }
}

impl TryFrom<Option<Vec<String>>> for Allowlist {
    type Error = AllowlistError;

    fn try_from(entries: Option<Vec<String>>) -> Result<Self, AllowlistError> {
        match entries {
            None => Ok(Self::Any),
            Some(entries) => Networks::parse(&entries).map(Self::Only),
        }
    }
}

impl From<Allowlist> for Option<Vec<String>> {
    fn from(allowlist: Allowlist) -> Self {
        match allowlist {
            Allowlist::Any => None,
            Allowlist::Only(networks) => Some(networks.0.iter().map(text).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::test;

    fn parsed(json: &str) -> Result<Allowlist, String> {
        serde_json::from_str(json).map_err(|error| error.to_string())
    }

    fn normal(json: &str) -> String {
        serde_json::to_string(&parsed(json).unwrap()).unwrap()
    }

    #[test]
    fn null_is_any_and_an_empty_list_is_ambiguous() {
        assert_eq!(parsed("null"), Ok(Allowlist::Any));
        assert_eq!(normal("null"), "null");
        assert!(parsed("[]").unwrap_err().contains("ambiguous"));
    }

    #[test]
    fn addresses_and_ranges_keep_their_shortest_form() {
        for (json, expected) in [
            (r#"["192.0.2.7"]"#, r#"["192.0.2.7"]"#),
            (r#"["192.0.2.7/32"]"#, r#"["192.0.2.7"]"#),
            (r#"["192.0.2.0/24","2001:DB8::/32"]"#, r#"["192.0.2.0/24","2001:db8::/32"]"#),
            (r#"["::ffff:192.0.2.7"]"#, r#"["192.0.2.7"]"#),
            (r#"["::ffff:192.0.2.0/120"]"#, r#"["192.0.2.0/24"]"#),
            (r#"["0.0.0.0/0","::/0"]"#, r#"["0.0.0.0/0","::/0"]"#),
        ] {
            assert_eq!(normal(json), expected);
        }
    }

    #[test]
    fn host_bits_are_refused_with_the_range_that_was_meant() {
        let error = parsed(r#"["10.0.0.0/8","192.0.2.7/24"]"#).unwrap_err();
        assert!(error.contains("entry 1") && error.contains("`192.0.2.0/24`"), "{error}");
    }

    #[test]
    fn an_entry_that_is_not_a_network_is_refused() {
        for entry in ["", "localhost", "192.0.2", "192.0.2.7/33", "192.0.2.7 ", "::1/129", "010.0.0.1"] {
            let error = Networks::parse(&[entry]).unwrap_err();
            assert!(matches!(error, AllowlistError::NotANetwork { at: 0, .. }), "{entry:?}: {error}");
        }
    }

    #[test]
    fn a_list_is_within_another_where_each_of_its_networks_is() {
        for (own, other, expected) in [
            ("null", "null", true),
            (r#"["10.0.0.0/8"]"#, "null", true),
            ("null", r#"["0.0.0.0/0","::/0"]"#, false),
            (r#"["10.1.0.0/16","10.2.0.7"]"#, r#"["192.0.2.1","10.0.0.0/8"]"#, true),
            (r#"["10.1.0.0/16","192.0.2.2"]"#, r#"["10.0.0.0/8","192.0.2.1"]"#, false),
            (r#"["10.0.0.0/7"]"#, r#"["10.0.0.0/8"]"#, false),
            (r#"["10.0.0.0/8"]"#, r#"["::/0"]"#, false),
            (r#"["::ffff:10.0.0.1"]"#, r#"["10.0.0.0/8"]"#, true),
        ] {
            assert_eq!(parsed(own).unwrap().is_within(&parsed(other).unwrap()), expected, "{own} within {other}");
        }
    }

    #[test]
    fn a_list_has_at_most_a_hundred_networks() {
        let entry = |n: usize| format!("10.0.0.{n}");
        assert!(Networks::parse(&(0..100).map(entry).collect::<Vec<_>>()).is_ok());
        let error = Networks::parse(&(0..101).map(entry).collect::<Vec<_>>()).unwrap_err();
        assert_eq!(error, AllowlistError::TooMany { count: 101 });
    }
}
