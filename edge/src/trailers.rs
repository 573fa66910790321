//! Request trailers: removes those that a client could use to bypass the checks of headers.

use policy::config::Config;
use policy::credential_source::CredentialSource;
use policy::key_text::find_key;

use crate::host::Host;
use crate::request::IDENTITY_PREFIX;

/// Headers that make an upstream handle another request than the one that was decided.
const OVERRIDES: [&str; 5] =
    ["x-http-method-override", "x-http-method", "x-method-override", "x-original-url", "x-rewrite-url"];

/// Removes trailers that an upstream that treats trailers as headers could read as an identity, a credential or another
/// request, and any trailer that holds a key. The request was decided at its headers; a trailer is no credential.
pub fn on_request_trailers(host: &dyn Host, config: &Config) {
    for (name, value) in host.request_trailers() {
        let may_carry_key = config
            .credentials
            .iter()
            .any(|source| matches!(source, CredentialSource::Header { name: own, .. } if *own == name));
        let is_read_as_header = may_carry_key
            || name == "cookie"
            || name.starts_with(IDENTITY_PREFIX)
            || OVERRIDES.contains(&name.as_str());
        if is_read_as_header || find_key(&value).is_some() {
            host.remove_request_trailer(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::Edge;
    use crate::fake_envoy::FakeEnvoy;

    #[test]
    fn trailers_carry_no_identity_no_credential_and_no_key() {
        let edge = Edge::parse(br#"{"control_plane": {"cluster": "latchkey", "authority": "latchkey"}}"#).unwrap();
        let envoy = FakeEnvoy::new("POST", "/", &[("x-latchkey-key-id", b"ours")]);
        let key: &[u8] = b"a, lk_live_000000000000000000000000000000004cjNQE";
        let sent: [(&str, &[u8]); 10] = [
            ("checksum", b"1"),
            ("x-latchkey-key-id", b"forged"),
            ("x-latchkey-anything", b"forged"),
            ("x-api-key", b"a"),
            ("authorization", b"Basic a"),
            ("cookie", b"a=b"),
            ("x-original-url", b"/v1/webhooks"),
            ("note", key),
            ("note", b"the same name"),
            ("bytes", b"\xff\xfe"),
        ];
        envoy.trailers.replace(sent.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect());
        on_request_trailers(&envoy, &edge.config);
        let left: Vec<_> = envoy.trailers.borrow().iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(left, ["checksum", "bytes"]);
        assert_eq!(envoy.forwarded("x-latchkey-key-id"), ["ours"], "headers are not touched");
    }
}
