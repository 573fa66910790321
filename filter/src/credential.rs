//! Finding the key in a request's headers.

use policy::config::CredentialSource;
use policy::decide::Credential;

use crate::host::Header;

/// What was found: the credential, and the headers to remove before anybody else sees them.
pub struct Found<'a> {
    pub credential: Credential<'a>,
    /// Names of the headers that carried a key, each once.
    pub carriers: Vec<&'a str>,
}

/// Looks at all places that may carry a key. Two keys, even equal ones, are [`Credential::Multiple`].
pub fn find<'a>(headers: &'a [Header], sources: &[CredentialSource]) -> Found<'a> {
    let mut found = Found { credential: Credential::Missing, carriers: Vec::new() };
    for (name, value) in headers {
        for source in sources.iter().filter(|source| source.header == *name) {
            let Some(key) = without_prefix(value, source.prefix.as_deref()) else { continue };
            found.credential = match found.credential {
                Credential::Missing => Credential::One(key),
                Credential::One(_) | Credential::Multiple => Credential::Multiple,
            };
            if !found.carriers.contains(&name.as_str()) {
                found.carriers.push(name);
            }
            break;
        }
    }
    found
}

/// The value behind its prefix, whatever the prefix's case. A prefix with nothing behind it carries the empty key, also
/// without the space at its end, which HTTP strips. `None`: the value is something else.
fn without_prefix<'a>(value: &'a [u8], prefix: Option<&str>) -> Option<&'a [u8]> {
    let Some(prefix) = prefix else { return Some(value) };
    match value.split_at_checked(prefix.len()) {
        Some((start, key)) if start.eq_ignore_ascii_case(prefix.as_bytes()) => Some(key.trim_ascii_start()),
        Some(_) => None,
        None if value.eq_ignore_ascii_case(prefix.trim_end().as_bytes()) => Some(b""),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Vec<CredentialSource> {
        vec![
            CredentialSource { header: "x-api-key".to_owned(), prefix: None },
            CredentialSource { header: "authorization".to_owned(), prefix: Some("Bearer ".to_owned()) },
        ]
    }

    #[test]
    fn a_key_is_found_wherever_it_may_stand() {
        let one = Some("k");
        for (name, headers, expected, carriers) in [
            ("nothing", &[("host", "a")][..], None, &[][..]),
            ("header", &[("x-api-key", "k")], one, &["x-api-key"]),
            ("bearer", &[("authorization", "Bearer k")], one, &["authorization"]),
            ("any case", &[("authorization", "bEARER k")], one, &["authorization"]),
            ("more spaces", &[("authorization", "Bearer   k")], one, &["authorization"]),
            ("another scheme stays", &[("authorization", "Basic k")], None, &[]),
            ("a scheme beside a key", &[("authorization", "Basic b"), ("x-api-key", "k")], one, &["x-api-key"]),
            ("empty", &[("x-api-key", "")], Some(""), &["x-api-key"]),
            ("empty bearer", &[("authorization", "Bearer")], Some(""), &["authorization"]),
            ("twice", &[("x-api-key", "k"), ("x-api-key", "k")], Some("multiple"), &["x-api-key"]),
            (
                "in two places",
                &[("authorization", "Bearer k"), ("x-api-key", "k")],
                Some("multiple"),
                &["authorization", "x-api-key"],
            ),
        ] {
            let headers: Vec<Header> =
                headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
            let found = find(&headers, &sources());
            let credential = match found.credential {
                Credential::Missing => None,
                Credential::One(key) => Some(str::from_utf8(key).unwrap()),
                Credential::Multiple => Some("multiple"),
            };
            assert_eq!(credential, expected, "{name}");
            assert_eq!(found.carriers, carriers, "{name}");
        }
    }
}
