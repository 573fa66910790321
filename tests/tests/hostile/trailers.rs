//! Request trailers over HTTP/2 bring the upstream no identity, key or override header.

use end_to_end::{HTTP2_CLUSTER, Http2Upstream, Stack, post_with_trailers};
use serde_json::json;

#[test]
fn with_the_demo_configuration_no_trailer_is_an_identity_or_a_key() {
    let upstream = Http2Upstream::start();
    let stack = Stack::start_with(|config| {
        config.upstream_port = upstream.port;
        let cluster = "  - name: upstream\n    type: STATIC\n";
        config.replace(cluster, &format!("{cluster}{HTTP2_CLUSTER}"));
    });
    let key = stack.admin.create_key("acme", "sync");
    stack.wait_known(&key);
    let bearer = format!("Bearer {}", key.secret);
    let sent = [
        ("x-latchkey-key-id", "key_1"),
        ("x-latchkey-workspace", "another"),
        ("checksum", "1"),
        ("x-api-key", key.secret.as_str()),
        ("x-api-key", "another"),
        ("authorization", bearer.as_str()),
        ("cookie", "api_key=a"),
        ("x-http-method-override", "DELETE"),
        ("x-original-url", "/v1/webhooks"),
    ];
    for (path, headers) in [("/healthz", &[][..]), ("/v1/reviews", &[("authorization", bearer.as_str())])] {
        let answer = post_with_trailers(stack.envoy.port, path, headers, &sent).expect("an answer");
        // The key may only read.
        let expected = if path == "/healthz" { "200 -" } else { "403 missing-scope" };
        assert_eq!(answer.verdict(), expected, "{path}: {answer:?}");
        if answer.status == 200 {
            assert_eq!(answer.json()["trailers"], json!({"checksum": ["1"]}), "{path}");
        }
    }
    // Trailers are not read as headers: a key there allows nothing.
    let answer = post_with_trailers(stack.envoy.port, "/v1/reviews", &[], &sent).expect("an answer");
    assert_eq!(answer.verdict(), "401 missing-key");
    stack.envoy.assert_no_vm_failed();
}
