//! The Kubernetes files for Istio and Envoy Gateway, assembled as those do it, in a real Envoy.
//!
//! Neither of the two runs here, and the schemas of their resources aren't available: the resources are only read as
//! YAML.

use std::path::Path;

use end_to_end::{
    Connection, ControlPlane, Http2Upstream, Process, eventually, free_port, post_with_trailers, refused_by_envoy,
    root, run_envoy,
};
use serde_json::{Value, json};

/// What a mesh's file contains, as Envoy's settings.
struct Mesh {
    name: &'static str,
    /// The connection manager's settings.
    manager: Value,
    /// The filters between ours and the router: the guard first.
    behind: Vec<Value>,
    cluster: Value,
    plugin: Value,
    failure_policy: Value,
    /// As the mesh sets it.
    vm_id: &'static str,
}

fn resources(file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(root().join(file)).expect(file);
    serde_saphyr::from_multiple(&text).unwrap_or_else(|error| panic!("{file}: {error}"))
}

fn kind<'a>(resources: &'a [Value], kind: &str) -> &'a Value {
    resources.iter().find(|resource| resource["kind"] == kind).unwrap_or_else(|| panic!("no {kind}"))
}

fn istio() -> Mesh {
    let all = resources("envoy/istio.yaml");
    let plugin = &kind(&all, "WasmPlugin")["spec"];
    let patches = kind(&all, "EnvoyFilter")["spec"]["configPatches"].as_array().expect("patches").clone();
    let values = |to: &str| -> Vec<Value> {
        let patches = patches.iter().filter(|patch| patch["applyTo"] == to);
        patches.map(|patch| patch["patch"]["value"].clone()).collect()
    };
    let value = |to: &str| values(to).into_iter().next().unwrap_or_else(|| panic!("no patch of {to}"));
    // Each is inserted directly before the router, so after the earlier ones.
    let before_router = |patch: &&Value| patch["applyTo"] == "HTTP_FILTER";
    assert!(patches.iter().filter(before_router).all(|patch| patch["patch"]["operation"] == "INSERT_BEFORE"));
    Mesh {
        name: "Istio",
        manager: value("NETWORK_FILTER")["typed_config"].clone(),
        behind: values("HTTP_FILTER"),
        cluster: value("CLUSTER"),
        plugin: plugin["pluginConfig"].clone(),
        failure_policy: plugin["failStrategy"].clone(),
        vm_id: "",
    }
}

fn envoy_gateway() -> Mesh {
    let all = resources("envoy/envoy-gateway.yaml");
    let wasm = &kind(&all, "EnvoyExtensionPolicy")["spec"]["wasm"][0];
    assert_eq!(wasm["failOpen"], false);
    let patches = kind(&all, "EnvoyPatchPolicy")["spec"]["jsonPatches"].as_array().expect("patches").clone();
    let operations: Vec<&Value> = patches.iter().map(|patch| &patch["operation"]).collect();
    let at = |place: &'static str| {
        let is_there =
            move |operation: &&Value| operation["jsonPath"].as_str().is_some_and(|path| path.contains(place));
        operations.iter().copied().filter(is_there)
    };
    let mut manager = json!({});
    for operation in at("http_connection_manager") {
        manager[operation["path"].as_str().expect("a path").trim_start_matches('/')] = operation["value"].clone();
    }
    Mesh {
        name: "Envoy Gateway",
        manager,
        // Each takes the place of the router, which moves behind it.
        behind: at("http.router").map(|operation| operation["value"].clone()).collect(),
        cluster: operations[0]["value"].clone(),
        plugin: wasm["config"].clone(),
        failure_policy: at("http.wasm").next().expect("the policy")["value"].clone(),
        vm_id: "envoyextensionpolicy/default/latchkey/wasm/0",
    }
}

/// The ports of a test.
struct Ports {
    port: u16,
    admin_port: u16,
    upstream_port: u16,
    control_plane_port: u16,
}

impl Mesh {
    /// A complete config with this mesh's parts where the mesh puts them.
    fn config(&self, ports: &Ports, folder: &Path) -> Value {
        let address = |port: u16| json!({"socket_address": {"address": "127.0.0.1", "port_value": port}});
        let endpoint = |name: &str, port: u16| json!({"cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}]});
        let typed = |kind: &str| json!({"@type": format!("type.googleapis.com/{kind}")});
        let mut wasm = typed("envoy.extensions.filters.http.wasm.v3.Wasm");
        wasm["config"] = json!({
            "name": "latchkey", "root_id": "latchkey", "failure_policy": self.failure_policy,
            "configuration": {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": self.plugin.to_string()},
            "vm_config": {
                "vm_id": self.vm_id,
                "runtime": "envoy.wasm.runtime.v8",
                "code": {"local": {"filename": root().join("dist/latchkey_filter.wasm")}},
            },
        });
        let mut manager = self.manager.clone();
        let kind = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        manager["@type"] = typed(kind)["@type"].clone();
        manager["stat_prefix"] = json!("mesh");
        manager["route_config"] = json!({"virtual_hosts": [{
            "name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "upstream"}}],
        }]});
        let router = typed("envoy.extensions.filters.http.router.v3.Router");
        let mut filters = vec![json!({"name": "envoy.filters.http.wasm", "typed_config": wasm})];
        filters.extend(self.behind.iter().cloned());
        filters.push(json!({"name": "envoy.filters.http.router", "typed_config": router}));
        manager["http_filters"] = json!(filters);
        let filter = json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": manager});
        let listener =
            json!({"name": "mesh", "address": address(ports.port), "filter_chains": [{"filters": [filter]}]});
        let mut ours = self.cluster.clone();
        // The token's file is elsewhere on this machine.
        let at = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/http_filters/0\
                  /typed_config/credential/typed_config/credential/sds_config/path_config_source/path";
        *ours.pointer_mut(at).expect("the token's path") = json!(folder.join("edge-token.yaml"));
        let upstream = json!({
            "name": "upstream", "type": "STATIC", "load_assignment": endpoint("upstream", ports.upstream_port),
            "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }},
        });
        json!({
            "node": {"id": "mesh", "cluster": "mesh"},
            "admin": {"address": address(ports.admin_port)},
            "static_resources": {"listeners": [listener], "clusters": [upstream, ours]},
        })
    }
}

/// Writes the token as the file's Secret mounts it, with paths of this folder.
fn write_secret(all: &[Value], token: &str, folder: &Path) {
    let files = &kind(all, "Secret")["stringData"];
    let sds = files["edge-token.yaml"].as_str().expect("the secret's file");
    let here = folder.display().to_string();
    assert!(sds.contains("/run/latchkey/"), "{sds}");
    std::fs::write(folder.join("edge-token.yaml"), sds.replace("/run/latchkey", &here)).expect("a file");
    std::fs::write(folder.join("edge-token"), token).expect("a file");
}

fn start(config: &Value, folder: &Path) -> Process {
    let file = folder.join("envoy.json");
    std::fs::write(&file, config.to_string()).expect("the config");
    assert_eq!(refused_by_envoy(&file), None);
    run_envoy(&file)
}

fn assert_decides(mesh: &Mesh, file: &str) {
    let (control_plane, upstream) = (ControlPlane::start(), Http2Upstream::start());
    let admin = control_plane.admin();
    admin.create_workspace("acme");
    let key = admin.create_key("acme", "mesh");
    let folder = tempfile::tempdir().expect("a folder");
    write_secret(&resources(file), &control_plane.edge_token(), folder.path());
    let ports = Ports {
        port: free_port(),
        admin_port: free_port(),
        upstream_port: upstream.port,
        control_plane_port: control_plane.port,
    };
    let mut config = mesh.config(&ports, folder.path());

    // Unchanged, with TLS.
    let whole = folder.path().join("whole.json");
    std::fs::write(&whole, config.to_string()).expect("the config");
    assert_eq!(refused_by_envoy(&whole), None, "{}", mesh.name);

    // With a control plane of this machine, which has no certificate for that name.
    let ours = &mut config["static_resources"]["clusters"][1];
    ours.as_object_mut().expect("a cluster").remove("transport_socket").expect("TLS");
    let address =
        &mut ours["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"];
    *address = json!({"address": "127.0.0.1", "port_value": ports.control_plane_port});
    let mut envoy = start(&config, folder.path());
    let verdict = |method: &str, path: &str, headers: &[(&str, &str)]| {
        Connection::try_open(ports.port)?
            .try_request(method, path, headers)
            .map(|answer| (answer.verdict(), answer.body))
    };
    let right = [("x-api-key", key.secret.as_str())];
    let name = mesh.name;
    for _ in 0..8 {
        eventually(&format!("{name}: a valid key is accepted"), || {
            envoy.assert_runs();
            let (seen, _) = verdict("GET", "/v1/reviews", &right)?;
            if seen == "200 -" { Ok(()) } else { Err(seen) }
        });
    }
    let lie = ("x-latchkey-key-id", "key_of_another");
    for (method, path, headers, expected) in [
        ("GET", "/v1/reviews/7", vec![right[0], lie], "200 -"),
        ("GET", "/healthz", vec![], "200 -"),
        ("POST", "/v1/reviews", right.to_vec(), "403 missing-scope"),
        ("GET", "/v1/reviews", vec![], "401 missing-key"),
        ("GET", "/v1/other", right.to_vec(), "403 no-route-rule"),
        ("GET", "/v1/workspaces/umbrella/x", right.to_vec(), "403 wrong-workspace"),
        ("GET", "/v1/reviews", vec![right[0], ("x_latchkey_key_id", "a")], "400 -"),
    ] {
        let (seen, body) = verdict(method, path, &headers).expect("an answer");
        assert_eq!(seen, expected, "{name}: {method} {path} {headers:?}");
        assert!(!body.contains("key_of_another"), "{name}: a client's identity header reached the upstream: {body}");
    }
    let overrides = ["x-http-method-override", "x-method-override", "x-http-method", "x-original-url", "x-rewrite-url"];
    let mut sent: Vec<(&str, &str)> = overrides.iter().map(|name| (*name, "a")).collect();
    let (_, body) = verdict("GET", "/v1/reviews", &[&sent[..], &right].concat()).expect("an answer");
    assert!(overrides.iter().all(|name| !body.contains(name)), "{name}: an override header: {body}");
    sent.extend([
        ("checksum", "1"),
        ("x-latchkey-key-id", "a"),
        ("authorization", "Bearer a"),
        ("cookie", "a=b"),
        right[0],
    ]);
    let answer = post_with_trailers(ports.port, "/healthz", &[], &sent).expect("an answer");
    assert_eq!(answer.json()["trailers"], json!({"checksum": ["1"]}), "{name}");
    drop(envoy);

    // Without the filter nothing passes, whatever the reason for its absence.
    let filters = &mut config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]["http_filters"];
    filters.as_array_mut().expect("filters").remove(0);
    let _envoy = start(&config, folder.path());
    let answer = eventually(&format!("{name}: the guard answers"), || {
        Connection::try_open(ports.port)?.try_get("/v1/reviews", &right)
    });
    assert_eq!((answer.verdict().as_str(), answer.body.as_str()), ("403 -", "RBAC: access denied"), "{name}");
}

#[test]
fn the_file_for_istio_decides_requests_and_is_guarded() {
    let mesh = istio();
    assert_eq!(mesh.plugin["feed"], "worker", "Istio's VM id is empty");
    assert_decides(&mesh, "envoy/istio.yaml");
}

#[test]
fn the_file_for_envoy_gateway_decides_requests_and_is_guarded() {
    assert_decides(&envoy_gateway(), "envoy/envoy-gateway.yaml");
}
