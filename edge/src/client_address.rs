//! The client's address, as far as the operator's proxies are trusted.

use std::net::{IpAddr, SocketAddr};

use crate::host::{Header, Host};

/// The trusted client address. `None`, which matches no allowlist, if there is any doubt about it.
///
/// Without proxies of the operator it is Envoy's `source.address`. With `trusted_hops` proxies it is the entry of
/// `x-forwarded-for` that Envoy uses: Envoy appended its peer before filters ran, so skip that many entries from the
/// right. Envoy itself falls back to the peer if that entry is not a bare address, and on a redirected pass.
pub fn client_address(host: &dyn Host, headers: &[Header], trusted_hops: u32) -> Option<IpAddr> {
    match usize::try_from(trusted_hops).ok()? {
        0 => {
            let address: SocketAddr = str::from_utf8(&host.source_address()?).ok()?.parse().ok()?;
            Some(address.ip())
        }
        hops => {
            let lines = headers.iter().filter(|(name, _)| name == "x-forwarded-for");
            let mut entries = lines.rev().flat_map(|(_, value)| value.rsplit(|byte| *byte == b','));
            address(entries.nth(hops)?)
        }
    }
}

/// `192.0.2.7`, `192.0.2.7:443`, `2001:db8::7`, `[2001:db8::7]` or `[2001:db8::7]:443`; a mapped IPv4 address is that
/// address.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = str::from_utf8(entry.trim_ascii()).ok()?;
    let in_brackets = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    let address = match in_brackets {
        Some(text) => IpAddr::V6(text.parse().ok()?),
        None => text.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip())).ok()?,
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_envoy::FakeEnvoy;

    fn read(lines: &[&str], trusted_hops: u32) -> Option<String> {
        let lines: Vec<_> = lines.iter().map(|line| ("x-forwarded-for", line.as_bytes())).collect();
        let envoy = FakeEnvoy::new("GET", "/", &lines);
        let address = client_address(&envoy, &envoy.request_headers(), trusted_hops);
        assert_eq!(
            envoy.addresses_read.get(),
            u32::from(trusted_hops == 0),
            "source.address is read only without proxies"
        );
        address.map(|address| address.to_string())
    }

    #[test]
    fn without_proxies_it_is_envoy_s_peer() {
        assert_eq!(read(&["203.0.113.9"], 0).as_deref(), Some("192.0.2.7"));
    }

    #[test]
    fn behind_proxies_it_is_the_address_that_the_outermost_proxy_reported() {
        for (lines, hops, expected) in [
            (&["203.0.113.9,10.0.0.1"][..], 1, Some("203.0.113.9")),
            (&["198.51.100.1, 203.0.113.9 ,10.0.0.1"], 1, Some("203.0.113.9")),
            (&["198.51.100.1,203.0.113.9,10.0.0.1"], 2, Some("198.51.100.1")),
            (&["198.51.100.1", "203.0.113.9,10.0.0.1"], 1, Some("203.0.113.9")),
            (&["198.51.100.1,203.0.113.9", "10.0.0.1"], 1, Some("203.0.113.9")),
            (&["198.51.100.1", "203.0.113.9", "10.0.0.1"], 2, Some("198.51.100.1")),
            (&["203.0.113.9:55220,10.0.0.1"], 1, Some("203.0.113.9")),
            (&["2001:db8::7,10.0.0.1"], 1, Some("2001:db8::7")),
            (&["[2001:db8::7],10.0.0.1"], 1, Some("2001:db8::7")),
            (&["[2001:db8::7]:443,10.0.0.1"], 1, Some("2001:db8::7")),
            (&["::ffff:203.0.113.9,10.0.0.1"], 1, Some("203.0.113.9")),
            (&["[::ffff:203.0.113.9]:443,10.0.0.1"], 1, Some("203.0.113.9")),
        ] {
            assert_eq!(read(lines, hops).as_deref(), expected, "{lines:?} behind {hops}");
        }
    }

    #[test]
    fn an_entry_that_is_not_an_address_is_an_unknown_client() {
        for (lines, hops) in [
            (&[][..], 1),
            (&["10.0.0.1"], 1),
            (&["203.0.113.9,10.0.0.1"], 2),
            (&["203.0.113.9,10.0.0.1"], u32::MAX),
            (&["unknown,10.0.0.1"], 1),
            (&["203.0.113.9,,10.0.0.1"], 1),
            (&[",10.0.0.1"], 1),
            (&["203.0.113.9:,10.0.0.1"], 1),
            (&["203.0.113.9:99999,10.0.0.1"], 1),
            (&["203.0.113.09,10.0.0.1"], 1),
            (&["[203.0.113.9],10.0.0.1"], 1),
            (&["[2001:db8::7,10.0.0.1"], 1),
            (&["2001:db8::7]:443,10.0.0.1"], 1),
            (&["fe80::1%eth0,10.0.0.1"], 1),
            (&["203.0.113.9 198.51.100.1,10.0.0.1"], 1),
            (&["\"203.0.113.9\",10.0.0.1"], 1),
            (&["for=203.0.113.9,10.0.0.1"], 1),
            (&["example.com,10.0.0.1"], 1),
        ] {
            assert_eq!(read(lines, hops), None, "{lines:?} behind {hops}");
        }
    }
}
