//! Edits that open another path to the upstream, the control plane or Envoy's admin pages.

use serde_json::{Value, json};

use crate::bypasses::Probe;
use crate::printed_config::{
    ONE_ROUTE, add_cluster, add_listener, at, cluster, items, open_manager, routes, ruled, tcp_proxy, upstream_port,
};
use crate::refused::Row;

/// A route for all requests to this cluster.
fn to(cluster: &str) -> Value {
    json!({"match": {"prefix": "/"}, "route": {"cluster": cluster}})
}

pub fn rows() -> Vec<Row> {
    [of_the_upstream(), of_the_control_plane()].into_iter().flatten().collect()
}

fn of_the_upstream() -> Vec<Row> {
    const WITHOUT: &str = "leads to the cluster `upstream` without the filter";
    const INTO: &str = "put the filter and its guard into this chain";
    let second: Option<fn(&Probe) -> bool> = Some(Probe::has_an_unfiltered_listener);
    vec![
        Row {
            name: "a second listener",
            edit: |config| add_listener(config, open_manager(to("upstream"))),
            expected: ["listeners[2]", WITHOUT, INTO],
            bypass: second,
        },
        Row {
            name: "a second listener for connections",
            edit: |config| add_listener(config, tcp_proxy("upstream")),
            expected: ["listeners[2]", WITHOUT, INTO],
            bypass: second,
        },
        Row {
            name: "a part of a second listener's connections",
            edit: |config| {
                let mut proxy = tcp_proxy("upstream");
                let fields = at(&mut proxy, "/typed_config").as_object_mut().expect("an object");
                fields.remove("cluster");
                fields.insert("weightedClusters".to_owned(), json!({"clusters": [{"name": "upstream", "weight": 1}]}));
                add_listener(config, proxy);
            },
            expected: ["listeners[2]", WITHOUT, INTO],
            bypass: second,
        },
        Row {
            name: "a chain for other connections",
            edit: |config| {
                let public = at(config, "/static_resources/listeners/0");
                public["default_filter_chain"] = json!({"filters": [tcp_proxy("upstream")]});
                at(public, "/filter_chains/0")["filter_chain_match"] =
                    json!({"source_prefix_ranges": [{"address_prefix": "10.0.0.0", "prefix_len": 8}]});
            },
            expected: ["listeners[0].default_filter_chain", WITHOUT, INTO],
            bypass: Some(|probe| probe.reaches("/v1/reviews/1", &[])),
        },
        Row {
            name: "the upstream under another name",
            edit: |config| {
                let port = upstream_port(config);
                add_cluster(config, cluster("debug", &port));
                add_listener(config, open_manager(to("debug")));
            },
            expected: [
                "listeners[2]",
                "leads to the cluster `debug` without the filter, although `upstream` needs a key",
                INTO,
            ],
            bypass: second,
        },
        Row {
            name: "a second listener that needs no key",
            edit: |config| {
                let mut public = at(config, "/static_resources/listeners/0").clone();
                public["name"] = json!("second");
                *at(&mut public, "/address/socket_address/port_value") = json!(10001);
                *at(&mut public, "/filter_chains/0/filters/0/typed_config/route_config/virtual_hosts/0/routes") =
                    json!([ruled(json!({"prefix": "/"}), "public", json!({"cluster": "upstream"}))]);
                items(config, "/static_resources/listeners").push(public);
            },
            expected: [
                "listeners[2]",
                "leads to the same upstream as `/v1/reviews` (`reviews`), `/v1/webhooks` (`webhooks`) of another listener",
                "give both the same routes",
            ],
            bypass: second,
        },
        Row {
            name: "a tunnel to the upstream",
            edit: |config| {
                let action = json!({"cluster": "upstream", "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}]});
                routes(config).insert(0, ruled(json!({"connect_matcher": {}}), "public", action));
            },
            expected: ["routes[0]", "is a tunnel (`connect_config`)", "remove it"],
            bypass: None,
        },
    ]
}

fn of_the_control_plane() -> Vec<Row> {
    const LEADS: &str = "leads to the control plane, which accepts such requests as this edge's";
    vec![
        Row {
            name: "the listener `local` for anyone",
            edit: |config| {
                *at(config, "/static_resources/listeners/1/address/socket_address/address") = json!("0.0.0.0")
            },
            expected: ["listeners[1]", LEADS, "bind the listener to 127.0.0.1"],
            bypass: None,
        },
        Row {
            name: "the listener `local` at a second address",
            edit: |config| {
                at(config, "/static_resources/listeners/1")["additional_addresses"] =
                    json!([{"address": {"socket_address": {"address": "::", "port_value": 9903}}}])
            },
            expected: ["listeners[1]", LEADS, "bind the listener to 127.0.0.1"],
            bypass: None,
        },
        Row {
            name: "more of the control plane on `local`",
            edit: |config| *at(at(config, ONE_ROUTE), "/match") = json!({"prefix": "/"}),
            expected: ["listeners[1]", LEADS, "match as the listener `local` of `latchkey envoy-config` does"],
            bypass: None,
        },
        Row {
            name: "the control plane for clients",
            edit: |config| {
                routes(config).insert(0, ruled(json!({"prefix": "/edge/"}), "public", json!({"cluster": "latchkey"})))
            },
            expected: ["listeners[0]", LEADS, "remove the route"],
            bypass: Some(Probe::reaches_the_control_plane),
        },
        Row {
            name: "the control plane for clients with a key",
            edit: |config| {
                routes(config).insert(
                    0,
                    ruled(
                        json!({"prefix": "/edge/"}),
                        "optional",
                        json!({"weighted_clusters": {"clusters": [{"name": "latchkey", "weight": 1}]}}),
                    ),
                )
            },
            expected: ["listeners[0]", LEADS, "remove the route"],
            bypass: None,
        },
        Row {
            name: "a listener without the filter to the control plane",
            edit: |config| add_listener(config, tcp_proxy("latchkey")),
            expected: ["listeners[2]", "leads to the control plane (cluster `latchkey`)", "remove it"],
            bypass: None,
        },
        Row {
            name: "`local` through a listener for anyone",
            edit: |config| {
                add_cluster(config, cluster("way-round", &json!(9902)));
                let outer = listener_to("way-round");
                items(config, "/static_resources/listeners").push(outer);
            },
            expected: ["listeners[1]", LEADS, "bind the listener to 127.0.0.1, or remove the route"],
            bypass: None,
        },
        Row {
            name: "a client that names the cluster",
            edit: |config| *at(&mut routes(config)[2], "/route") = json!({"cluster_header": "x-cluster"}),
            expected: ["cluster_header", "lets a header of the request name the cluster", "name the cluster here"],
            bypass: Some(|probe| {
                probe.reaches("/healthz", &[("x-cluster", "upstream")]) || probe.can_choose_the_cluster()
            }),
        },
        Row {
            name: "admin pages for anyone",
            edit: |config| *at(config, "/admin/address/socket_address/address") = json!("0.0.0.0"),
            expected: ["admin.address", "is not loopback", "bind it to 127.0.0.1"],
            bypass: None,
        },
        Row {
            name: "admin pages through a listener",
            edit: |config| {
                let port = at(config, "/admin/address/socket_address/port_value").clone();
                add_cluster(config, cluster("pages", &port));
                add_listener(config, open_manager(to("pages")));
            },
            expected: [
                "listeners[2]",
                "leads to Envoy's admin pages",
                "match `path: /stats/prometheus` or `path: /ready` only",
            ],
            bypass: Some(Probe::shows_the_admin_pages),
        },
    ]
}

fn listener_to(name: &str) -> Value {
    crate::printed_config::listener(tcp_proxy(name))
}
