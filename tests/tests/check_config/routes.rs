//! Edits of routes by which one takes requests that another route should protect.

use serde_json::json;

use crate::printed_config::{at, route, routes, ruled};
use crate::refused::Row;

pub fn rows() -> Vec<Row> {
    vec![
        Row {
            name: "a public route before the others",
            edit: |config| {
                routes(config).insert(0, ruled(json!({"prefix": "/"}), "public", json!({"cluster": "upstream"})))
            },
            expected: [
                "routes[0]",
                "`/` is `public` and takes the requests of `/v1/reviews` (`reviews`), `/v1/webhooks` (`webhooks`)",
                "put it behind that, or narrow it",
            ],
            bypass: Some(|probe| probe.reaches("/v1/reviews/1", &[])),
        },
        Row {
            name: "a weaker route before a stronger one",
            edit: |config| {
                routes(config)
                    .insert(0, ruled(json!({"pathSeparatedPrefix": "/v1"}), "key", json!({"cluster": "upstream"})))
            },
            expected: ["routes[0]", "`/v1` is `key` and takes the requests of", "put it behind that, or narrow it"],
            bypass: Some(|probe| probe.ignores_the_scope_of("/v1/webhooks/1")),
        },
        Row {
            name: "a public route that leads there by another path",
            edit: |config| {
                let action = json!({"cluster": "upstream", "prefix_rewrite": "/"});
                routes(config).insert(0, ruled(json!({"prefix": "/static/"}), "public", action));
            },
            expected: [
                "routes[0]",
                "`/static/` is `public` and leads by another path to the upstream of `/v1/reviews` (`reviews`)",
                "give it their rule, or a narrower path",
            ],
            bypass: Some(|probe| probe.arrives_at("/static/v1/reviews/1", "/v1/reviews/1")),
        },
        Row {
            name: "a rule that isn't one",
            edit: |config| {
                *at(route(config, "/v1/reviews"), "/metadata/filter_metadata/latchkey/rule") = json!("Reviews")
            },
            expected: [
                "routes[1].metadata.filter_metadata.latchkey",
                "`rule` is `Reviews`",
                "the route denies every request",
            ],
            bypass: None,
        },
        Row {
            name: "a route that adds an identity",
            edit: |config| {
                routes(config)[2]["request_headers_to_add"] =
                    json!([{"header": {"key": "x-latchkey-workspace-id", "value": "ws_of_another"}}])
            },
            expected: ["request_headers_to_add[0]", "sets `x-latchkey-workspace-id`", "remove it"],
            bypass: Some(|probe| probe.forges("/healthz", &[], "x-latchkey-workspace-id")),
        },
    ]
}
