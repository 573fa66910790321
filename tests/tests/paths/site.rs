//! Envoys with what `latchkey envoy-config` prints, each with other routes, before an upstream that parses nothing.

use end_to_end::{
    Connection, ControlPlane, CreatedKey, Process, Response, TargetEcho, eventually, free_port, latchkey, root,
    run_envoy,
};

/// Where a configuration has its rules, and what they are.
pub struct Setup {
    pub name: &'static str,
    /// `--route` flags.
    pub routes: &'static [&'static str],
    /// Replacements in the printed configuration; each must be found there.
    pub edits: &'static [(&'static str, &'static str)],
    pub paths: Paths,
    /// Prefixes of whole segments and the rule of each, the longest first.
    pub rules: &'static [(&'static str, &'static str)],
    /// The rule of every other path.
    pub otherwise: &'static str,
}

/// Whether Envoy resolves dots and merges slashes before it chooses a route.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Paths {
    Normalised,
    AsSent,
}

/// Removes Envoy's path options, so that the filter's own reading shows.
const AS_SENT: [(&str, &str); 3] = [
    ("          normalize_path: true\n", ""),
    ("          merge_slashes: true\n", ""),
    ("          path_with_escaped_slashes_action: REJECT_REQUEST\n", ""),
];

/// Rules in route metadata only.
pub const PRINTED: Setup = Setup {
    name: "as printed",
    routes: &["/healthz=public", "/v1/reviews=reviews", "/v1/webhooks=webhooks"],
    edits: &[],
    paths: Paths::Normalised,
    rules: &[("/v1/reviews", "reviews"), ("/v1/webhooks", "webhooks"), ("/healthz", "public")],
    otherwise: "deny",
};

/// Rules in `routes` of the plugin configuration.
pub const ROUTES: Setup = Setup {
    name: "routes of the plugin configuration",
    routes: &[],
    edits: &[
        AS_SENT[0],
        AS_SENT[1],
        AS_SENT[2],
        (
            "value: '{",
            r#"value: '{"routes": [
                {"path": "/healthz/{*rest}", "rule": "public"},
                {"path": "/v1/reviews/{*rest}", "rule": "reviews"},
                {"path": "/v1/webhooks/{*rest}", "rule": "webhooks"},
                {"path": "/v1/workspaces/{workspace}/{*rest}", "rule": "reviews"}
            ], "#,
        ),
    ],
    paths: Paths::AsSent,
    rules: TEMPLATES.rules,
    otherwise: "deny",
};

/// Rules in route metadata with a template of the path.
pub const TEMPLATES: Setup = Setup {
    name: "templates in metadata",
    routes: &[
        "/healthz=public",
        "/v1/reviews/{*rest}=reviews",
        "/v1/webhooks/{*rest}=webhooks",
        "/v1/workspaces/{workspace}/{*rest}=reviews",
    ],
    edits: &AS_SENT,
    paths: Paths::AsSent,
    rules: &[
        ("/v1/workspaces/acme", "reviews of acme"),
        ("/v1/workspaces", "reviews of another workspace"),
        ("/v1/reviews", "reviews"),
        ("/v1/webhooks", "webhooks"),
        ("/healthz", "public"),
    ],
    otherwise: "deny",
};

/// As printed, with a public route for everything that no other one matches.
pub const CATCH_ALL: Setup = Setup {
    name: "a public catch-all",
    routes: &["/=public", "/v1/reviews=reviews", "/v1/webhooks=webhooks"],
    edits: &[],
    paths: Paths::Normalised,
    rules: &[("/v1/reviews", "reviews"), ("/v1/webhooks", "webhooks")],
    otherwise: "public",
};

impl Setup {
    /// The rule of this path, if it has only one reading.
    pub fn rule(&self, path: &[u8]) -> &'static str {
        let is_below = |prefix: &str| matches!(path.strip_prefix(prefix.as_bytes()), Some([] | [b'/', ..]));
        self.rules.iter().find(|(prefix, _)| is_below(prefix)).map_or(self.otherwise, |(_, rule)| rule)
    }
}

/// A running setup.
pub struct Site<'a> {
    pub setup: &'a Setup,
    pub port: u16,
    /// May read reviews, and nothing else.
    pub key: CreatedKey,
    envoy: Process,
    _control_plane: ControlPlane,
    _folder: tempfile::TempDir,
}

impl<'a> Site<'a> {
    pub fn start(setup: &'a Setup) -> Self {
        Self::start_with_upstream(setup, TargetEcho::start().port)
    }

    /// With another upstream than [`TargetEcho`].
    pub fn start_with_upstream(setup: &'a Setup, upstream: u16) -> Self {
        let (control_plane, folder) = (ControlPlane::start(), tempfile::tempdir().expect("a folder"));
        let admin = control_plane.admin();
        admin.create_workspace("acme");
        let key = admin.create_key("acme", "may only read reviews");
        let [port, local, admin_port] = std::array::from_fn(|_| free_port());
        let file = |name: &str| folder.path().join(name).display().to_string();
        let mut flags = vec![
            "envoy-config".to_owned(),
            format!("--control-plane=http://127.0.0.1:{}", control_plane.port),
            "--insecure-http".to_owned(),
            "--edge=test".to_owned(),
            format!("--upstream=127.0.0.1:{upstream}"),
            format!("--listen=127.0.0.1:{port}"),
            format!("--local=127.0.0.1:{local}"),
            format!("--admin=127.0.0.1:{admin_port}"),
            format!("--token-file={}", control_plane.folder().join("edge-token").display()),
            format!("--token-secret={}", file("edge-token.yaml")),
            format!("--wasm={}", root().join("dist/latchkey_filter.wasm").display()),
            // One key sends all requests.
            "--rate-limit=1000000".to_owned(),
        ];
        flags.extend(setup.routes.iter().map(|route| format!("--route={route}")));
        let mut config = print(&flags);
        for (from, to) in setup.edits {
            assert!(config.contains(from), "latchkey envoy-config no longer prints {from:?}");
            config = config.replace(from, to);
        }
        std::fs::write(folder.path().join("envoy.yaml"), config).expect("the config");
        flags.push("--print=token-secret".to_owned());
        std::fs::write(folder.path().join("edge-token.yaml"), print(&flags)).expect("the token's secret");
        let envoy = run_envoy(&folder.path().join("envoy.yaml"));
        let mut site = Self { setup, port, key, envoy, _control_plane: control_plane, _folder: folder };
        site.wait_known(admin_port);
        site
    }

    /// Waits until every worker knows the key.
    fn wait_known(&mut self, admin_port: u16) {
        let Self { envoy, port, key, .. } = self;
        // The first worker to listen gets all connections until the others do.
        eventually("every worker listens", || {
            envoy.assert_runs();
            let stats = Connection::try_open(admin_port)?.try_get("/stats?filter=workers_started", &[])?.body;
            if stats.contains("workers_started: 1") { Ok(()) } else { Err(stats) }
        });
        // All open at the same time, so that each worker has its share of them.
        let mut connections: Vec<Connection> = (0..8).map(|_| Connection::open(*port)).collect();
        for connection in &mut connections {
            eventually("the key is known to every worker", || {
                envoy.assert_runs();
                let seen = connection.try_get("/v1/reviews", &[("x-api-key", &key.secret)])?.verdict();
                if seen == "200 -" { Ok(()) } else { Err(seen) }
            });
        }
    }

    /// A GET on a new connection, because Envoy closes one after a 400.
    pub fn get(&self, path: &str, key: Option<&str>) -> Response {
        let headers: Vec<(&str, &str)> = key.map(|key| ("x-api-key", key)).into_iter().collect();
        Connection::open(self.port).get(path, &headers)
    }

    /// Fails if a VM has trapped, or Envoy has ended.
    pub fn assert_no_vm_failed(&mut self) {
        self.envoy.assert_runs();
        let log = self.envoy.log();
        assert!(!log.contains("Proxy-Wasm plugin in-VM"), "a VM trapped:\n{log}");
    }
}

/// A GET of exactly this path.
pub fn request(path: &[u8], key: Option<&str>) -> Vec<u8> {
    let key = key.map_or(String::new(), |key| format!("x-api-key: {key}\r\n"));
    [b"GET ", path, format!(" HTTP/1.1\r\nhost: api.example\r\n{key}\r\n").as_bytes()].concat()
}

fn print(flags: &[String]) -> String {
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let (code, output) = latchkey(&flags);
    assert_eq!(code, Some(0), "{output}");
    output
}
