//! Two hundred ordinary paths: each passes, or is denied for its key alone, and reaches the upstream as it was sent.

use end_to_end::{ReceivedRequest, UpstreamModel, send_all};

use crate::site::{Site, request};

const PREFIXES: [&str; 4] = ["/healthz", "/v1/reviews", "/v1/webhooks", "/v1/workspaces/acme"];

const SUFFIXES: [&str; 62] = [
    "",
    "/",
    "/1",
    "/1/",
    "/1/comments/2",
    "/UPPER/Case",
    "/a-b_c",
    "/0",
    // UTF-8, in both spellings of hex digits.
    "/caf%C3%A9",
    "/caf%c3%a9",
    "/%E6%97%A5%E6%9C%AC%E8%AA%9E",
    "/%D0%BF%D1%83%D1%82%D1%8C/%D0%BA",
    "/%F0%9F%98%80",
    "/e%CC%81",
    // U+FF0F looks like a slash, but is none to a server that decodes UTF-8.
    "/a%EF%BC%8Fb",
    "/a%20b",
    "/a%20b/c%20d",
    // What needs no escape in a segment.
    "/~user",
    "/a~",
    "/12:30",
    "/a:b",
    "/@scope/pkg",
    "/user@example.com",
    "/a+b",
    "/a=b",
    "/a,b,c",
    "/wow!",
    "/$filter",
    "/a&b",
    "/it's",
    "/f(x)",
    "/*",
    "/a*b",
    "/(a=1,b=2)",
    // The same and others, escaped.
    "/%40at",
    "/%3A",
    "/%2B1",
    "/a%3Db",
    "/a%26b",
    "/%24x",
    "/a%2Cb",
    "/%21",
    "/%27",
    "/%28x%29",
    "/%2A",
    "/%22quoted%22",
    "/%3Ctag%3E",
    "/%5Bx%5D",
    "/%7Bid%7D",
    "/a%7Cb",
    "/a%5Eb",
    "/a%60b",
    // Dots that aren't dot segments.
    "/.well-known/openid-configuration",
    "/.hidden",
    "/..a",
    "/a..b",
    "/v1.2",
    "/.../x",
    "/...",
    "/file.tar.gz",
    // A query is not the path.
    "?page=2&of=/../%2e%2e;%00%ff//",
    "/1?",
];

/// The paths that get another answer than their route's rule gives, or that reach the upstream changed.
pub fn refused(site: &Site<'_>) -> Vec<String> {
    let long = format!("/{}", "long-".repeat(400));
    let deep = "/deep".repeat(100);
    let suffixes = SUFFIXES.into_iter().chain([long.as_str(), &deep]);
    let paths: Vec<String> = suffixes.flat_map(|suffix| PREFIXES.map(|prefix| format!("{prefix}{suffix}"))).collect();
    assert!(paths.len() >= 200);
    let requests: Vec<Vec<u8>> = paths.iter().map(|path| request(path.as_bytes(), Some(&site.key.secret))).collect();
    let mut wrong = Vec::new();
    for (path, answer) in paths.iter().zip(send_all(site.port, &requests)) {
        let answer = answer.unwrap_or_else(|| panic!("{path}: the connection was closed"));
        let expected = match site.setup.rule(UpstreamModel::path_of(path.as_bytes())) {
            "public" | "reviews" | "reviews of acme" => "200 -",
            "deny" => "403 no-route-rule",
            _ => "403 missing-scope",
        };
        if answer.verdict() != expected {
            wrong.push(format!("{path}: {} instead of {expected}", answer.verdict()));
        }
        let received = ReceivedRequest::parse(&answer.body).map(|request| request.target);
        if received.as_ref().is_some_and(|received| received != path.as_bytes()) {
            wrong.push(format!("{path} reached the upstream as {}", received.unwrap_or_default().escape_ascii()));
        }
    }
    wrong
}
