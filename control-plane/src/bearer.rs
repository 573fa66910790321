//! Bearer tokens of requests (RFC 6750).

use axum::http::{HeaderMap, header};

use crate::problem::Problem;
use crate::tokens::Token;

/// The token that the request bears: in one header, with the scheme Bearer.
pub(crate) fn presented(headers: &HeaderMap) -> Option<&str> {
    let mut given = headers.get_all(header::AUTHORIZATION).iter();
    let (first, None) = (given.next()?, given.next()) else { return None };
    let (scheme, presented) = first.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| presented.trim_matches(' '))
}

/// That the request bears this token. `whose` says where the right one is found.
pub(crate) fn require(token: &Token, headers: &HeaderMap, whose: &'static str) -> Result<(), Problem> {
    let presented = presented(headers).ok_or_else(|| Problem::unauthenticated("missing-token", whose))?;
    if token.is(presented) { Ok(()) } else { Err(Problem::unauthenticated("bad-token", whose)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_token_in_one_bearer_header_passes() {
        let token = Token::of("lkadm_right");
        for (name, values, code) in [
            ("none", &[][..], Some("missing-token")),
            ("right", &["Bearer lkadm_right"], None),
            ("right, scheme in lower case", &["bearer  lkadm_right"], None),
            ("wrong", &["Bearer lkadm_wrong"], Some("bad-token")),
            ("empty", &["Bearer "], Some("bad-token")),
            ("no scheme", &["lkadm_right"], Some("missing-token")),
            ("another scheme", &["Basic lkadm_right"], Some("missing-token")),
            ("two", &["Bearer lkadm_right", "Bearer lkadm_right"], Some("missing-token")),
        ] {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(header::AUTHORIZATION, value.parse().unwrap());
            }
            assert_eq!(require(&token, &headers, "").err().map(|problem| problem.code()), code, "{name}");
        }
    }
}
