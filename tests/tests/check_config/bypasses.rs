//! The bypasses as a client sees them: one real Envoy runs each edited listener beside the printed one.

use std::collections::BTreeSet;
use std::path::Path;

use end_to_end::{Connection, ControlPlane, Echo, Response, eventually, free_port, refused_by_envoy, run_envoy};
use serde_json::{Value, json};

use crate::printed_config::{Addresses, add_cluster, at, items, printed_config, routes, ruled};
use crate::refused::{Row, rows};

const CLIENT: &str = "203.0.113.7";

/// A client's view of one configuration.
pub struct Probe {
    port: u16,
    /// The port of the listener that an edit has added.
    second: Option<u16>,
    /// A key that may read reviews.
    reader: String,
    /// The same, from one address only.
    bound: String,
}

impl Probe {
    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Response {
        Connection::open(self.port).get(path, headers)
    }

    /// Whether a request reaches reviews without a key.
    pub fn reaches(&self, path: &str, headers: &[(&str, &str)]) -> bool {
        arrived(&self.get(path, headers), "/v1/reviews/1")
    }

    pub fn arrives_at(&self, path: &str, target: &str) -> bool {
        arrived(&self.get(path, &[]), target)
    }

    /// Whether a public route lends its rule to another, once the header by which Envoy chose it is removed.
    pub fn lends_a_public_rule(&self) -> bool {
        arrived(&self.get("/v1/webhooks", &[("x-api-key", "anything"), ("x-skip", "yes")]), "/v1/webhooks")
    }

    /// Whether an upgrade reached the upstream, which answers 200 because it has no WebSocket.
    pub fn upgrades(&self) -> bool {
        self.get("/v1/reviews/1", &[("connection", "upgrade"), ("upgrade", "websocket")]).status == 200
    }

    /// Whether the upstream receives an identity header, or one that it may take for that.
    pub fn forges(&self, path: &str, headers: &[(&str, &str)], name: &str) -> bool {
        let answer = self.get(path, headers);
        answer.status == 200 && answer.json()["headers"][name].is_array()
    }

    /// Whether a stolen key works from another address, because the client can spoof its own.
    pub fn can_spoof_its_address(&self) -> bool {
        arrived(&self.get("/v1/reviews/1", &[("x-api-key", &self.bound), ("x-forwarded-for", CLIENT)]), "/v1/reviews/1")
    }

    /// Whether a key without the scope for this path gets through.
    pub fn ignores_the_scope_of(&self, path: &str) -> bool {
        arrived(&self.get(path, &[("authorization", &format!("Bearer {}", self.reader))]), path)
    }

    /// Whether a second listener reaches the upstream without a key.
    pub fn has_an_unfiltered_listener(&self) -> bool {
        self.second.is_some_and(|port| arrived(&Connection::open(port).get("/v1/reviews/1", &[]), "/v1/reviews/1"))
    }

    /// Whether a request reaches the control plane with the edge token that Envoy adds.
    pub fn reaches_the_control_plane(&self) -> bool {
        let answer = Connection::open(self.port).request("DELETE", "/edge/v1/instances/none", &[]);
        !matches!(answer.status, 401 | 403 | 503)
    }

    /// Whether a header makes another server than the upstream answer.
    pub fn can_choose_the_cluster(&self) -> bool {
        let answer = self.get("/healthz", &[("x-cluster", "latchkey")]);
        answer.status == 200 && !answer.body.contains("body_bytes")
    }

    pub fn shows_the_admin_pages(&self) -> bool {
        self.second
            .is_some_and(|port| Connection::open(port).get("/server_info", &[]).body.contains("command_line_options"))
    }
}

/// Whether the upstream received this path.
fn arrived(answer: &Response, path: &str) -> bool {
    answer.status == 200 && answer.body.contains("body_bytes") && answer.json()["path"] == path
}

/// Adds a public route that a client's header chooses. The guard must not let it lend its rule.
fn lend(config: &mut Value) {
    let header = json!({"name": "x-api-key", "present_match": true});
    let matched = json!({"path_separated_prefix": "/v1/webhooks", "headers": [header]});
    routes(config).insert(0, ruled(matched, "public", json!({"cluster": "upstream"})));
}

/// An edit, and the ports of its listeners.
struct Bypass {
    name: &'static str,
    is_open: fn(&Probe) -> bool,
    port: u16,
    second: Option<u16>,
}

/// Adds the listeners of an edited configuration, under new names and ports, and its clusters to `all`.
fn add(all: &mut Value, edited: Value, row: &Row, is_open: fn(&Probe) -> bool) -> Bypass {
    let mut edited = edited;
    let known: BTreeSet<String> =
        items(all, "/static_resources/clusters").iter().map(|one| one["name"].to_string()).collect();
    for cluster in items(&mut edited, "/static_resources/clusters").clone() {
        if !known.contains(&cluster["name"].to_string()) {
            add_cluster(all, cluster);
        }
    }
    let mut ports = Vec::new();
    for mut listener in items(&mut edited, "/static_resources/listeners").clone() {
        if listener["name"] == "local" {
            continue;
        }
        let port = free_port();
        listener["name"] = json!(format!("{}: {}", row.name, listener["name"]));
        *at(&mut listener, "/address/socket_address") = json!({"address": "127.0.0.1", "port_value": port});
        items(all, "/static_resources/listeners").push(listener);
        ports.push(port);
    }
    Bypass { name: row.name, is_open, port: ports[0], second: ports.get(1).copied() }
}

fn run(config: &Value, folder: &Path) -> end_to_end::Process {
    let file = folder.join("envoy.json");
    std::fs::write(&file, config.to_string()).expect("the config");
    assert_eq!(refused_by_envoy(&file), None);
    run_envoy(&file)
}

#[test]
fn each_refused_bypass_is_open_to_a_request_and_the_printed_configuration_has_none() {
    let (control_plane, echo) = (ControlPlane::start(), Echo::start());
    let folder = tempfile::tempdir().expect("a folder");
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    let reader = admin.create_key("acme", "reader").secret;
    let bound = json!({"name": "bound", "expires_in": "none", "scopes": {"reviews": "read"}, "ip_allowlist": [CLIENT]});
    let bound = admin.create_key_with("acme", &bound).secret;
    let (status, token) =
        admin.send("POST", "/v1/edge-tokens", Some(&json!({"name": "edge", "edge": "edge"}))).expect("an answer");
    assert_eq!(status, 201, "{token}");
    std::fs::write(folder.path().join("edge-token"), token["secret"].as_str().expect("a token")).expect("a file");
    let addresses = Addresses {
        control_plane_port: control_plane.port,
        upstream_port: echo.port,
        listen: "127.0.0.1",
        port: free_port(),
        local_port: free_port(),
        admin_port: free_port(),
    };
    let mut base = printed_config(&addresses, folder.path());
    let printed = base.clone();
    lend(&mut base);

    let mut all = base.clone();
    let mut bypasses = Vec::new();
    for row in rows() {
        let Some(is_open) = row.bypass else { continue };
        let mut edited = printed.clone();
        (row.edit)(&mut edited);
        lend(&mut edited);
        bypasses.push(add(&mut all, edited, &row, is_open));
    }
    assert!(bypasses.len() >= 25, "{} bypasses", bypasses.len());
    let mut envoy = run(&all, folder.path());
    let local = addresses.local_port;
    eventually("Envoy has its keys", || {
        envoy.assert_runs();
        let answer = Connection::try_open(local)?.try_get("/latchkey/ready", &[])?;
        if answer.status == 200 { Ok(()) } else { Err(answer.verdict()) }
    });
    let probe = |port, second| Probe { port, second, reader: reader.clone(), bound: bound.clone() };
    eventually("the keys are known", || {
        let seen = probe(addresses.port, None).get("/v1/reviews/1", &[("x-api-key", &reader)]).verdict();
        if seen == "200 -" { Ok(()) } else { Err(seen) }
    });
    let mut wrong = Vec::new();
    for Bypass { name, is_open, port, second } in bypasses {
        if is_open(&probe(addresses.port, None)) {
            wrong.push(format!("{name}: open in the printed configuration"));
        }
        if !is_open(&probe(port, second)) {
            wrong.push(format!("{name}: no bypass"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
