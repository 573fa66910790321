//! Bearer tokens of requests (RFC 6750).

use axum::http::{HeaderMap, header};

/// The bearer token of a request, from exactly one `Authorization` header with the scheme Bearer.
pub(crate) fn token(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (first, None) = (values.next()?, values.next()) else { return None };
    let (scheme, token) = first.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_in_exactly_one_bearer_header() {
        for (name, values, expected) in [
            ("none", &[][..], None),
            ("one", &["Bearer lkadm_a"], Some("lkadm_a")),
            ("the scheme in lower case", &["bearer  lkadm_a"], Some("lkadm_a")),
            ("empty", &["Bearer "], Some("")),
            ("no scheme", &["lkadm_a"], None),
            ("another scheme", &["Basic lkadm_a"], None),
            ("two", &["Bearer lkadm_a", "Bearer lkadm_a"], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(token(&headers), expected, "{name}");
        }
    }
}
