//! Requests without a path, or whose path isn't checked: readiness, `OPTIONS *`, CONNECT.

use end_to_end::{Connection, eventually};

use crate::site::{Site, TEMPLATES};

#[test]
fn readiness_and_requests_without_a_path_get_their_usual_answers() {
    let site = Site::start(&TEMPLATES);
    let verdict = |method: &str, path: &str| Connection::open(site.port).request(method, path, &[]).verdict();
    // A query is not the path. A worker that has its keys is ready a little later.
    for path in ["/latchkey/ready", "/latchkey/ready?a=/../%2e%2e;"] {
        eventually("a worker is ready", || match verdict("GET", path) {
            seen if seen == "200 -" => Ok(()),
            seen => Err(format!("{path}: {seen}")),
        });
    }
    for path in [
        "//latchkey/ready",
        "/latchkey/./ready",
        "/latchkey/%72eady",
        "/latchkey/ready;x",
        "/latchkey/..;/latchkey/ready",
    ] {
        assert_eq!(verdict("GET", path), "400 bad-path", "{path}");
    }
    for (method, target, expected) in [
        ("GET", "/latchkey/ready/", "401 missing-key"),
        // No route takes it.
        ("OPTIONS", "*", "404 -"),
        // By the last route, which has no rule.
        ("CONNECT", "a:443", "401 missing-key"),
        ("GET", "http://api.example/healthz", "200 -"),
        ("GET", "http://api.example/healthz/..;/v1/reviews/1", "400 bad-path"),
    ] {
        assert_eq!(verdict(method, target), expected, "{method} {target}");
    }
}
