//! Known attacks, written by hand: 400 before any credential is checked.

use end_to_end::Response;

use crate::site::{Paths, Site};

/// 400 in every setup.
const ATTACKS: [&str; 62] = [
    // Parameters of a segment.
    "/healthz/%2e%2e;/v1/reviews/1",
    "/healthz/%2e;/%2E%2e;/v1/reviews/1",
    "/healthz/..%3b/v1/reviews/1",
    "/healthz/..%253b/v1/reviews/1",
    "/v1/reviews/%2e%2e;/webhooks/1",
    "/v1/webhooks;x/1",
    "/v1/webhooks;/1",
    "/v1/webhooks%3bx/1",
    "/v1/webhooks%253bx/1",
    "/v1;x/webhooks/1",
    // Decoded twice, or until nothing changes.
    "/healthz/%252e%252e%252fv1/reviews/1",
    "/healthz/%252e%252e/v1/reviews/1",
    "/healthz/..%252fv1/reviews/1",
    "/healthz/%25252e%25252e/v1/reviews/1",
    "/healthz/%25%32%65%25%32%65/v1/reviews/1",
    "/healthz/%%32%65%%32%65/v1/reviews/1",
    "/v1%252fwebhooks/1",
    "/v1/%2577ebhooks/1",
    // Slashes by other names.
    "/healthz/..%2fv1/reviews/1",
    "/healthz/%2e%2e%2Fv1/reviews/1",
    "/healthz/..%5cv1/reviews/1",
    "/healthz/%2e%2e%5Cv1/reviews/1",
    "/v1%2fwebhooks/1",
    "/v1%5cwebhooks/1",
    // Overlong or invalid UTF-8.
    "/healthz/..%c0%afv1/reviews/1",
    "/healthz/..%C0%AFv1/reviews/1",
    "/healthz/..%c1%9cv1/reviews/1",
    "/healthz/..%c0%2fv1/reviews/1",
    "/healthz/%c0%ae%c0%ae/v1/reviews/1",
    "/healthz/..%e0%80%afv1/reviews/1",
    "/healthz/%e0%80%ae%e0%80%ae/v1/reviews/1",
    "/healthz/..%f0%80%80%afv1/reviews/1",
    "/healthz/..%f8%80%80%80%afv1/reviews/1",
    "/healthz/..%fc%80%80%80%80%afv1/reviews/1",
    "/healthz/.%ff./v1/reviews/1",
    "/healthz/..%ff/v1/reviews/1",
    "/healthz/caf%e9",
    "/healthz/%ed%a0%80",
    "/healthz/%f4%90%80%80",
    // UTF-16 units.
    "/healthz/..%u002fv1/reviews/1",
    "/healthz/%u002e%u002e/v1/reviews/1",
    "/healthz/..%u2215v1/reviews/1",
    // Control bytes and blanks.
    "/healthz/..%09/v1/reviews/1",
    "/healthz/..%00/v1/reviews/1",
    "/healthz/..%0d%0a/v1/reviews/1",
    "/healthz/.%00./v1/reviews/1",
    "/healthz/..%20/v1/reviews/1",
    "/healthz/%20../v1/reviews/1",
    "/healthz/..%7f/v1/reviews/1",
    "/healthz/x%20",
    "/healthz/%20",
    "/healthz/x%20/y",
    "/v1/webhooks%20/1",
    "/v1/webhooks%00/1",
    "/healthz/a%01b",
    // Escapes of what would end a path.
    "/healthz/..%3f/v1/reviews/1",
    "/healthz/..%23/v1/reviews/1",
    "/v1/webhooks%3f/1",
    // Malformed escapes.
    "/healthz/%",
    "/healthz/%2",
    "/healthz/%zz",
    "/healthz/%2%65",
];

/// 400 where Envoy keeps paths as sent. Where Envoy normalises them, each is decided as the path beside it.
const NORMALISED: [(&str, &str); 12] = [
    ("/healthz/../v1/reviews/1", "/v1/reviews/1"),
    ("/healthz/%2e%2e/v1/reviews/1", "/v1/reviews/1"),
    ("/healthz;/../v1/reviews/1", "/v1/reviews/1"),
    // Envoy takes this for a dot segment, because it isn't encoded.
    ("/healthz/..;/v1/reviews/1", "/v1/reviews/1"),
    ("/healthz/..;x=1/v1/reviews/1", "/v1/reviews/1"),
    ("/healthz/.;/..;/v1/reviews/1", "/v1/reviews/1"),
    ("/v1/%77ebhooks/1", "/v1/webhooks/1"),
    ("/healthz/..\\v1/reviews/1", "/v1/reviews/1"),
    ("/healthz\\..\\v1\\reviews\\1", "/v1/reviews/1"),
    ("//v1//webhooks/1", "/v1/webhooks/1"),
    ("/v1/./webhooks/1", "/v1/webhooks/1"),
    ("/healthz//../v1/reviews/1", "/healthz/v1/reviews/1"),
];

/// No key, an unknown key, and a malformed one.
const KEYS: [Option<&str>; 3] = [None, Some("lk_live_000000000000000000000000000000004cjNQE"), Some("k")];

/// The attacks that get a wrong answer.
pub fn passed(site: &Site<'_>) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut check = |path: &str, is_right: &dyn Fn(&Response, Option<&str>) -> bool| {
        for key in KEYS {
            let answer = site.get(path, key);
            if !is_right(&answer, key) {
                wrong.push(format!("{path}, with {}: {} instead of 400", key.unwrap_or("no key"), answer.verdict()));
            }
        }
    };
    for path in ATTACKS {
        check(path, &|answer, _| is_bad_path(answer));
    }
    for (path, plain) in NORMALISED {
        match site.setup.paths {
            Paths::AsSent => check(path, &|answer, _| is_bad_path(answer)),
            Paths::Normalised => check(path, &|answer, key| answer.verdict() == site.get(plain, key).verdict()),
        }
    }
    wrong
}

/// The filter's 400, or Envoy's own.
fn is_bad_path(answer: &Response) -> bool {
    matches!(answer.verdict().as_str(), "400 bad-path" | "400 -")
}
