//! What `latchkey envoy-config` prints, in a real Envoy: TLS on both sides, the token in a file, the shutdown.

use std::path::Path;
use std::process::Command;

use end_to_end::{
    Admin, Authority, Connection, ControlPlane, CreatedKey, Echo, Process, eventually, free_port, latchkey,
    refused_by_envoy, root, run_envoy, run_in_shell, serve_command,
};
use serde_json::{Value, json};

/// A control plane and a sidecar that use TLS with each other and with clients, with certificates of one authority.
struct Site {
    envoy: Process,
    _control_plane: Process,
    /// The earlier control plane, whose files the present one uses.
    _plain: ControlPlane,
    _echo: Echo,
    folder: tempfile::TempDir,
    control_plane_port: u16,
    edge_port: u16,
    port: u16,
    local_port: u16,
    admin_port: u16,
    key: CreatedKey,
    /// May be used from [`CLIENT`] only.
    bound: CreatedKey,
    token_id: String,
    admin_token: String,
}

const CLIENT: &str = "203.0.113.7";

impl Site {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = |name: &str| folder.path().join(name).display().to_string();
        let authority = Authority::new(folder.path(), "authority");
        authority.issue("server", &["localhost", "127.0.0.1"]);
        authority.issue("edge", &["shop.example"]);
        let echo = Echo::start();

        // Everything that needs no TLS is created first.
        let mut plain = ControlPlane::start();
        let admin = plain.admin();
        admin.create_workspace("acme");
        let key = admin.create_key("acme", "sidecar");
        let scopes = json!({"reviews": "read"});
        let bound = json!({"name": "bound", "expires_in": "none", "scopes": scopes, "ip_allowlist": [CLIENT]});
        let bound = admin.create_key_with("acme", &bound);
        let token = edge_token(&admin, "first");
        std::fs::write(folder.path().join("edge-token"), token.1).expect("the edge token");
        plain.process.kill();

        let [control_plane_port, edge_port, port, local_port, admin_port] = std::array::from_fn(|_| free_port());
        let edge_listen = format!("127.0.0.1:{edge_port}");
        let (certificate, tls_key, ca) = (file("server.pem"), file("server.key"), file("authority.pem"));
        let flags = [
            ("edge-listen", edge_listen.as_str()),
            ("tls-certificate", &certificate),
            ("tls-key", &tls_key),
            ("edge-client-ca", &ca),
        ];
        let mut command = serve_command(plain.folder(), control_plane_port, &flags);
        let control_plane = Process::start("the control plane", &mut command, &folder.path().join("control-plane.log"));
        let admin_token = std::fs::read_to_string(plain.folder().join("admin-token")).expect("the admin token");

        let upstream = format!("127.0.0.1:{}", echo.port);
        let flags = [
            format!("--control-plane=https://localhost:{edge_port}"),
            format!("--upstream={upstream}"),
            format!("--listen=127.0.0.1:{port}"),
            format!("--local=127.0.0.1:{local_port}"),
            format!("--admin=127.0.0.1:{admin_port}"),
            format!("--token-file={}", file("edge-token")),
            format!("--token-secret={}", file("edge-token.yaml")),
            format!("--tls-certificate={certificate}"),
            format!("--tls-key={tls_key}"),
            format!("--control-plane-ca={ca}"),
            format!("--client-certificate={}", file("edge.pem")),
            format!("--client-key={}", file("edge.key")),
            format!("--wasm={}", root().join("dist/latchkey_filter.wasm").display()),
            "--edge=shop".to_owned(),
            "--trusted-hops=1".to_owned(),
            "--rate-limit=50".to_owned(),
            "--route=/v1/reviews=reviews".to_owned(),
        ];
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        print_to(&flags, &folder.path().join("envoy.yaml"));
        print_to(&[flags.as_slice(), &["--print=token-secret"]].concat(), &folder.path().join("edge-token.yaml"));
        let envoy = run_envoy(&folder.path().join("envoy.yaml"));
        let mut site = Self {
            envoy,
            _control_plane: control_plane,
            _plain: plain,
            _echo: echo,
            control_plane_port,
            edge_port,
            port,
            local_port,
            admin_port,
            key,
            bound,
            token_id: token.0,
            admin_token: admin_token.trim().to_owned(),
            folder,
        };
        eventually("the sidecar has its keys", || {
            site.envoy.assert_runs();
            let answer = Connection::try_open(site.local_port)?.try_get("/latchkey/ready", &[])?;
            if answer.status == 200 { Ok(()) } else { Err(answer.verdict()) }
        });
        site
    }

    fn authority(&self) -> String {
        self.folder.path().join("authority.pem").display().to_string()
    }

    /// The verdict of a client's request over TLS, such as `200` or `401 unknown-key`.
    fn verdict(&self, secret: &str, flags: &str) -> String {
        let (authority, port) = (self.authority(), self.port);
        let url = format!("https://localhost:{port}/v1/reviews");
        run_in_shell(&format!("curl -si --noproxy '*' --cacert {authority} {flags} -H 'x-api-key: {secret}' {url}")).0
    }

    /// REST of the control plane, over TLS.
    fn rest(&self, method: &str, path: &str, body: &str) -> Value {
        let (authority, port, token) = (self.authority(), self.control_plane_port, &self.admin_token);
        let (_, answer) = run_in_shell(&format!(
            "curl -s --noproxy '*' --cacert {authority} -X {method} -H 'authorization: Bearer {token}' \
             -H 'content-type: application/json' -d '{body}' https://localhost:{port}{path}"
        ));
        serde_json::from_str(&answer).unwrap_or(Value::String(answer))
    }
}

/// The id and the text of a new token for the edge `shop`.
fn edge_token(admin: &Admin, name: &str) -> (String, String) {
    let (status, created) =
        admin.send("POST", "/v1/edge-tokens", Some(&json!({"name": name, "edge": "shop"}))).expect("an answer");
    assert_eq!(status, 201, "{created}");
    token_of(&created)
}

fn token_of(created: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {created}")).to_owned();
    (text(&created["token"]["id"]), text(&created["secret"]))
}

/// Runs `latchkey envoy-config` with these flags; writes its output to `file`.
fn print_to(flags: &[&str], file: &Path) {
    let (code, output) = latchkey(&[&["envoy-config"], flags].concat());
    assert_eq!(code, Some(0), "{output}");
    std::fs::write(file, output).expect("the config");
}

#[test]
fn a_request_is_decided_with_tls_on_both_sides() {
    let site = Site::start();
    assert_eq!(site.verdict(&site.key.secret, ""), "200");
    assert_eq!(site.verdict(&site.key.secret, "--http1.1"), "200");
    assert_eq!(site.verdict("lk_live_000000000000000000000000000000004cjNQE", ""), "401 unknown-key");

    // The proxy in front names the client. An address that the client names itself is ignored.
    assert_eq!(site.verdict(&site.bound.secret, &format!("-H 'x-forwarded-for: {CLIENT}'")), "200");
    let lie = format!("-H 'x-forwarded-for: {CLIENT}, 198.51.100.9'");
    assert_eq!(site.verdict(&site.bound.secret, &lie), "403 address-not-allowed");
    assert_eq!(site.verdict(&site.bound.secret, ""), "403 address-not-allowed");

    // The control plane accepts no edge without a certificate.
    let url = format!("https://localhost:{}/healthz", site.edge_port);
    let (answer, _) = run_in_shell(&format!("curl -si --noproxy '*' --cacert {} {url}", site.authority()));
    assert_eq!(answer, "", "without a client certificate there is no answer");

    // Envoy's health checks present one.
    let healthy = format!("latchkey::127.0.0.1:{}::health_flags::healthy\n", site.edge_port);
    eventually("the control plane is healthy for Envoy", || {
        let clusters = Connection::open(site.admin_port).get("/clusters", &[]).body;
        if clusters.contains(&healthy) { Ok(()) } else { Err(clusters) }
    });

    let dump = Connection::open(site.admin_port).get("/config_dump?include_eds", &[]).body;
    assert!(dump.contains("latchkey-edge-token") && !dump.contains("lkedge_"), "the token shows in /config_dump");
    let allowed = format!("\"latchkey_key_id\":\"{}\",\"latchkey_verdict\":\"allowed\"", site.key.id);
    eventually("the access log has key and verdict", || {
        let log = site.envoy.log();
        if log.contains(&allowed) { Ok(()) } else { Err(log) }
    });
    let log = site.envoy.log();
    assert!(!log.contains("lk_live_") && !log.contains("lkedge_"), "a secret is in the log:\n{log}");
    assert!(!log.contains("Attempted call to restricted"), "the capability list withholds something:\n{log}");
}

#[test]
fn a_token_that_is_moved_into_place_is_used_without_a_restart() {
    let site = Site::start();
    let created = site.rest("POST", "/v1/edge-tokens", r#"{"name": "second", "edge": "shop"}"#);
    let (_, token) = token_of(&created);
    let (new, file) = (site.folder.path().join("edge-token.new"), site.folder.path().join("edge-token"));
    std::fs::write(&new, format!("{token}\n")).expect("the new token");
    std::fs::rename(&new, &file).expect("the new token in its place");
    // From here on the first token is revoked, and the request that waits with it is answered.
    site.rest("DELETE", &format!("/v1/edge-tokens/{}", site.token_id), "{}");
    site.rest("POST", &format!("{}/deactivate", site.key.path()), "{}");
    eventually("the change arrives with the new token", || match site.verdict(&site.key.secret, "") {
        seen if seen == "401 inactive-key" => Ok(()),
        seen => Err(seen),
    });
}

#[test]
fn a_key_over_its_rate_limit_is_answered_429() {
    let site = Site::start();
    let requests = format!("--next -s -o /dev/null -w '%{{http_code}} ' --cacert {}", site.authority());
    let url = format!("https://localhost:{}/v1/reviews", site.port);
    let many: String = (0..300).map(|_| format!(" {requests} -H 'x-api-key: {}' {url}", site.key.secret)).collect();
    let (_, answers) =
        run_in_shell(&format!("curl -s --noproxy '*' {}", many.trim_start().trim_start_matches("--next")));
    let (allowed, limited) = (answers.matches("200").count(), answers.matches("429").count());
    assert!(allowed >= 50 && limited >= 1 && allowed + limited == 300, "{allowed} allowed, {limited} limited");
}

#[test]
fn leave_retires_the_instance_and_ends_envoy() {
    let mut site = Site::start();
    assert_eq!(site.rest("GET", "/v1/edges", "")["items"].as_array().map(Vec::len), Some(1));
    let mut leave = Command::new(root().join("envoy/leave"));
    leave.env("LATCHKEY_ADMIN", format!("127.0.0.1:{}", site.admin_port));
    leave.env("LATCHKEY_LOCAL", format!("127.0.0.1:{}", site.local_port)).env("LATCHKEY_DRAIN_SECS", "1");
    let output = leave.output().expect("envoy/leave");
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.starts_with("leave: retired instance ") && stderr.lines().count() == 1, "{stderr}");
    assert!(site.envoy.wait_for_exit().success());
    let edges = site.rest("GET", "/v1/edges", "");
    assert_eq!(edges["items"], json!([]), "no change waits for it any more");
}

#[test]
fn an_envoy_on_the_control_plane_s_machine_is_served_by_a_unix_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let [rest_port, port, local_port, admin_port] = std::array::from_fn(|_| free_port());
    let socket = format!("unix:{}", file("edges.sock"));
    let mut serve = serve_command(folder.path(), rest_port, &[("edge-listen", &socket)]);
    let _control_plane = Process::start("the control plane", &mut serve, &folder.path().join("control-plane.log"));
    eventually("the control plane answers", || Connection::try_open(rest_port)?.try_get("/readyz", &[]).map(drop));
    let token = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a token").trim().to_owned();
    let admin = Admin::new(&format!("http://127.0.0.1:{rest_port}"), &token("admin-token"));
    admin.create_workspace("acme");
    let scopes = json!({"reviews": "read"});
    let key = admin.create_key_with("acme", &json!({"name": "near", "expires_in": "none", "scopes": scopes}));

    let echo = Echo::start();
    let flags = [
        // A Unix socket can't be intercepted, so plain HTTP needs no further flag.
        format!("--control-plane={socket}"),
        format!("--upstream=127.0.0.1:{}", echo.port),
        format!("--listen=127.0.0.1:{port}"),
        format!("--local=127.0.0.1:{local_port}"),
        format!("--admin=127.0.0.1:{admin_port}"),
        format!("--token-file={}", file("edge-token")),
        format!("--token-secret={}", file("edge-token.yaml")),
        format!("--wasm={}", root().join("dist/latchkey_filter.wasm").display()),
        "--route=/v1/reviews=reviews".to_owned(),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    print_to(&[&flags, &["--print=token-secret"][..]].concat(), &folder.path().join("edge-token.yaml"));
    let config = folder.path().join("envoy.yaml");
    print_to(&flags, &config);
    let (code, output) = latchkey(&["check-config", &config.display().to_string()]);
    assert_eq!(code, Some(0), "{output}");
    let _envoy = run_envoy(&config);
    let verdict = || -> Result<String, String> {
        let mut connection = Connection::try_open(port)?;
        Ok(connection.try_get("/v1/reviews", &[("x-api-key", &key.secret)])?.verdict())
    };
    eventually("the key is accepted", || match verdict()?.as_str() {
        "200 -" => Ok(()),
        other => Err(other.to_owned()),
    });
    admin.act(&key, "deactivate");
    eventually("the change is enforced", || {
        let seen = admin.get("/v1/enforcement");
        if seen["enforced"] == json!(true) { Ok(()) } else { Err(seen.to_string()) }
    });
    assert_eq!(verdict(), Ok("401 inactive-key".to_owned()));
    let edges = admin.get("/v1/edges");
    assert_eq!(edges["items"][0]["address"], Value::Null, "its connections have no address: {edges}");
}

#[test]
fn envoy_takes_every_config_that_is_printed() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = |name: &str| folder.path().join(name).display().to_string();
    let authority = Authority::new(folder.path(), "authority");
    authority.issue("server", &["localhost"]);
    let wasm = format!("--wasm={}", root().join("dist/latchkey_filter.wasm").display());
    let secret = format!("--token-secret={}", file("edge-token.yaml"));
    let token = format!("--token-file={}", file("edge-token"));
    let ca = format!("--control-plane-ca={}", file("authority.pem"));
    let (certificate, key) = (file("server.pem"), file("server.key"));
    let tls = [format!("--tls-certificate={certificate}"), format!("--tls-key={key}")];
    let mutual = [format!("--client-certificate={certificate}"), format!("--client-key={key}")];
    let least = ["--upstream=127.0.0.1:8081", &wasm, &secret, &token, &ca];
    let tls: Vec<&str> = tls.iter().chain(&mutual).map(String::as_str).collect();
    let routes =
        ["--route=/=key", "--route=/healthz=public", "--route=/v1/workspaces/{workspace}/{*rest}=workspaces:read"];
    for (name, flags) in [
        ("least", vec!["--control-plane=https://keys.example.com"]),
        (
            "several",
            vec!["--control-plane=https://keys-1.example.com", "--control-plane=https://keys-2.example.com:8444"],
        ),
        ("plain", vec!["--control-plane=http://keys:8080", "--insecure-http", "--foreign-keys"]),
        ("a Unix socket", vec!["--control-plane=unix:/run/latchkey/edges.sock"]),
        ("all TLS, IPv6", [vec!["--control-plane=https://[::1]:8444", "--listen=[::]:8443"], tls].concat()),
        ("routes", [vec!["--control-plane=https://keys.example.com", "--trusted-hops=2"], routes.to_vec()].concat()),
        ("override headers", vec!["--control-plane=https://keys.example.com", "--keep-override-headers"]),
    ] {
        let path = folder.path().join("envoy.yaml");
        print_to(
            &[least.as_slice(), &flags, &["--print=token-secret"]].concat(),
            &folder.path().join("edge-token.yaml"),
        );
        print_to(&[least.as_slice(), &flags].concat(), &path);
        assert_eq!(refused_by_envoy(&path), None, "{name}");
        // There the last route accepts any key, beside a route that needs more.
        let warnings = if name == "routes" { "with 1 warning:" } else { "with 0 warnings:" };
        let (code, output) = latchkey(&["check-config", &path.display().to_string()]);
        assert!(code == Some(0) && output.contains(&format!("accepted, {warnings}")), "{name}: {output}");
        let text = std::fs::read_to_string(&path).expect("the config");
        assert!(!text.contains("${") && !text.contains("#if") && !text.contains("#end"), "{name}: {text}");
    }
    // Each kind of spelling. Those that change Envoy's own settings are checked in Envoy, too.
    let kinds = ["semicolon", "encoded-slash", "encoded-unreserved", "double-slash", "encoded-query"];
    for allowed in kinds.iter().map(|kind| (*kind).to_owned()).chain([kinds.join(",")]) {
        let path = folder.path().join("envoy.yaml");
        let flag = format!("--allow-in-paths={allowed}");
        let flags = ["--control-plane=https://keys.example.com", "--route=/v1/reviews=reviews", &flag];
        print_to(&[least.as_slice(), &flags].concat(), &path);
        let text = std::fs::read_to_string(&path).expect("the config");
        for kind in allowed.split(',') {
            assert!(text.contains(&format!("\"{kind}\"")), "{kind} is not in the plugin configuration: {text}");
        }
        if allowed.contains("-slash") {
            assert_eq!(refused_by_envoy(&path), None, "{allowed}");
        }
    }
}

#[test]
fn wrong_flags_are_refused_in_one_line_with_the_next_step() {
    let least = ["envoy-config", "--control-plane=https://keys.example.com", "--upstream=127.0.0.1:8081"];
    for (flags, expected) in [
        (vec!["envoy-config", "--control-plane=http://keys:80", "--upstream=a:1"], "--insecure-http"),
        ([least.as_slice(), &["--route=/v1/reviews=Reviews"]].concat(), "a rule is"),
        ([least.as_slice(), &["--control-plane=http://keys"]].concat(), "all of them in the same way"),
        ([least.as_slice(), &["--control-plane=unix:/a.sock"]].concat(), "all of them in the same way"),
        (
            vec![
                "envoy-config",
                "--control-plane=http://a",
                "--control-plane=unix:/a",
                "--insecure-http",
                "--upstream=a:1",
            ],
            "a Unix socket here and an address there",
        ),
        ([least.as_slice(), &["--edge=the shop"]].concat(), "`edge`"),
        ([least.as_slice(), &["--max-staleness-secs=3"]].concat(), "at least 10"),
        ([least.as_slice(), &["--admin=0.0.0.0:9901"]].concat(), "loopback"),
        (
            [least.as_slice(), &["--route=/=public", "--route=/v1/webhooks=webhooks", "--allow-in-paths=semicolon"]]
                .concat(),
            "--allow-in-paths semicolon: Envoy can take /=public for a request that the upstream reads as /v1/webhooks=webhooks",
        ),
    ] {
        let (code, output) = latchkey(&flags);
        assert_eq!(code, Some(1), "{flags:?}: {output}");
        assert!(output.contains(expected) && output.trim().lines().count() == 1, "{flags:?}: {output}");
    }
}
