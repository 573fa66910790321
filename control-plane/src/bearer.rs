//! Bearer tokens of requests (RFC 6750).

use axum::http::{HeaderMap, header};

/// The token that the request bears: in one header, with the scheme Bearer.
pub(crate) fn presented(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (first, None) = (given.next()?, given.next()) else { return None };
    let (scheme, presented) = first.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| presented.trim_matches(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_stands_in_one_bearer_header() {
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
            assert_eq!(presented(&headers), expected, "{name}");
        }
    }
}
