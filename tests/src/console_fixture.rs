//! A console with content on every page, for screenshots and for the accessibility checker.

use std::time::Duration;

use reqwest::blocking::Client;
use serde_json::{Value, json};
use test_support::digest;

use crate::admin::{CreatedKey, client};
use crate::browser::Browser;
use crate::stack::Stack;
use crate::wait::{eventually, now};

/// Days of usage to report.
const DAYS: i64 = 8;

/// Control plane, Envoy, and keys in every state.
pub struct ConsoleFixture {
    pub stack: Stack,
    used: CreatedKey,
    rotated: CreatedKey,
    unused: CreatedKey,
    admin_token: String,
    edge_token: String,
}

/// A page, and how a browser gets to it.
pub struct ConsolePage {
    pub name: &'static str,
    visit: Box<dyn Fn(&Browser)>,
}

impl ConsolePage {
    fn at(name: &'static str, path: impl Into<String>) -> Self {
        let path = path.into();
        Self { name, visit: Box::new(move |browser| browser.open(&path)) }
    }

    fn after(name: &'static str, visit: impl Fn(&Browser) + 'static) -> Self {
        Self { name, visit: Box::new(visit) }
    }

    pub fn open(&self, browser: &Browser) {
        (self.visit)(browser);
    }
}

impl ConsoleFixture {
    pub fn start() -> Self {
        let mut stack = Stack::start();
        let gateway = format!("gateway_url = \"http://127.0.0.1:{}/v1/reviews\"\n", stack.envoy.port);
        std::fs::write(stack.control_plane.folder().join("latchkey.toml"), gateway).expect("the configuration");
        stack.control_plane.process.kill();
        stack.control_plane.restart();
        let admin = &stack.admin;
        let create = |body: Value| admin.create_key_with("acme", &body);
        let soon = now().checked_add(Duration::from_secs(2)).expect("an instant").to_string();
        create(json!({"name": "Trial of a partner", "expires_at": soon, "scopes": {"reviews": "read"}}));
        let inactive = create(
            json!({"name": "Import of last year's reviews", "expires_in": "30d", "scopes": {"reviews": "write", "repositories": "read"}, "ip_allowlist": ["192.0.2.0/24", "198.51.100.7", "2001:db8::/32", "203.0.113.9"]}),
        );
        let unused = create(
            json!({"name": "Deployment robot", "expires_in": "none", "scopes": {"reviews": "write", "webhooks": "write", "security_scans": "write"}}),
        );
        let rotated = create(
            json!({"name": "Billing: <b>reconciliation</b> & more", "expires_in": "180d", "scopes": {"reviews": "read"}, "ip_allowlist": ["127.0.0.0/8"]}),
        );
        let used = create(
            json!({"name": "Nightly export to the data warehouse", "expires_in": "90d", "scopes": {"reviews": "read", "workspaces": "read"}, "ip_allowlist": ["127.0.0.0/8", "10.20.0.0/16"], "metadata": {"team": "analytics", "ticket": "DATA-1187"}}),
        );
        admin.act(&inactive, "deactivate");
        stack.wait_known(&rotated);
        admin.rotate_with(&rotated, &json!({"overlap": "12h"}));
        let post = |path: &str, body: Value| {
            let (status, answer) = admin.send("POST", path, Some(&body)).expect("an answer");
            assert_eq!(status, 201, "{answer}");
            answer["token"]["id"].as_str().unwrap_or_default().to_owned()
        };
        post("/v1/workspaces", json!({"name": "Umbrella Corporation", "slug": "umbrella"}));
        post("/v1/admin-tokens", json!({"name": "Terraform", "role": "platform_admin", "expires_in": "90d"}));
        let admin_token = post(
            "/v1/admin-tokens",
            json!({"name": "Jo of support", "role": "workspace_member", "workspace": "acme", "expires_in": "30d"}),
        );
        let edge_token = post("/v1/edge-tokens", json!({"name": "edge-1, since November", "edge": "edge-1"}));
        let fixture = Self { stack, used, rotated, unused, admin_token, edge_token };
        fixture.report_usage();
        fixture
    }

    /// Reports usage of the last days, as a worker would have. The control plane accepts no older hours.
    fn report_usage(&self) {
        let now = now().as_second();
        let used = &self.used;
        let mark = digest::mark(&used.secret);
        let days = (0..DAYS).map(|day| {
            let weekend = day % 7 >= 5;
            let allowed = if weekend { 40 } else { 900 + day * 37 % 400 };
            let denied =
                if day % 9 == 4 { json!({"address-not-allowed": 60 + day, "missing-scope": 12}) } else { json!({}) };
            let last = json!([{"secret": mark, "at": now - 185 - day * 86_400}]);
            json!({"key": used.id, "hour": now - day * 86_400, "allowed": allowed, "denied": denied, "used": last, "address": "10.20.4.7"})
        });
        let denial = |code: &str, secs: i64, address: &str, method: &str, path: &str| json!({"key": used.id, "code": code, "address": address, "at": now - secs, "method": method, "path": path});
        let body = json!({
            "edge": "test", "instance": self.instance(), "worker": "told", "sequence": 1,
            "keys": days.collect::<Vec<_>>(),
            "denials": [
                denial("missing-scope", 250_000, "10.20.4.7", "POST", "/v1/reviews"),
                denial("address-not-allowed", 4_000, "203.0.113.77", "GET", "/v1/reviews/2026-11"),
                denial("address-not-allowed", 95, "203.0.113.77", "GET", "/v1/reviews"),
            ],
        });
        let url = format!("{}/edge/v1/usage", self.stack.control_plane.url());
        let token = self.stack.control_plane.edge_token();
        let http: Client = client();
        eventually("the usage is counted", || {
            let answer = http.post(&url).bearer_auth(&token).json(&body).send().map_err(|error| error.to_string())?;
            if answer.status() == 200 { Ok(()) } else { Err(answer.text().unwrap_or_default()) }
        });
    }

    fn instance(&self) -> String {
        eventually("an edge is known", || {
            let edges = self.stack.admin.get("/v1/edges");
            edges["items"][0]["instance"].as_str().map(ToOwned::to_owned).ok_or_else(|| edges.to_string())
        })
    }

    /// Pages for a browser that isn't signed in.
    pub fn signed_out_pages(&self) -> Vec<ConsolePage> {
        vec![
            ConsolePage::at("sign-in", "/console/sign-in"),
            ConsolePage::after("sign-in-refused", |browser| {
                browser.open("/console/sign-in");
                browser.fill("#token", "lkadm_nobody");
                browser.press("Sign in");
            }),
            ConsolePage::at("sign-in-dropped", "/console/sign-in/check"),
        ]
    }

    /// Pages for a platform admin, who sees everything.
    pub fn signed_in_pages(&self) -> Vec<ConsolePage> {
        let at = "/console/workspaces/acme";
        let key = |of: &CreatedKey| format!("{at}/keys/{}", of.id);
        let (used, unused, rotated) = (key(&self.used), key(&self.unused), key(&self.rotated));
        let (dialog, secret) = (used.clone(), self.unused.secret.clone());
        vec![
            ConsolePage::at("workspaces", "/console/workspaces"),
            ConsolePage::at("workspace-new", "/console/workspaces/new"),
            ConsolePage::at("workspace-settings", at),
            ConsolePage::at("keys", format!("{at}/keys")),
            ConsolePage::at("keys-empty", "/console/workspaces/umbrella/keys"),
            ConsolePage::at("keys-none-fits", format!("{at}/keys?q=nothing")),
            ConsolePage::at("key-new", format!("{at}/keys/new")),
            ConsolePage::after("key-new-refused", move |browser| {
                browser.open("/console/workspaces/acme/keys/new");
                browser.fill("#name", "Nightly export");
                browser.press("Only these addresses and ranges");
                browser.fill("#ip_allowlist", "192.0.2.7/24");
                browser.press("Create key");
            }),
            ConsolePage::after("key-new-secret", move |browser| {
                browser.open("/console/workspaces/umbrella/keys/new");
                browser.fill("#name", "Nightly export");
                browser.press("Create key");
            }),
            ConsolePage::at("key", used.clone()),
            ConsolePage::at("key-warnings", unused.clone()),
            ConsolePage::at("key-rotation", rotated.clone()),
            ConsolePage::at("key-edit", format!("{used}/edit")),
            ConsolePage::at("key-rotate", format!("{used}/rotate")),
            ConsolePage::after("key-rotate-dialog", move |browser| {
                browser.open(&dialog);
                browser.press("Rotate");
            }),
            ConsolePage::after("key-rotated-secret", move |browser| {
                browser.open(&format!("{rotated}/rotate"));
                browser.press("30 minutes");
                browser.press("Rotate key");
            }),
            ConsolePage::at("key-deactivate", format!("{unused}/deactivate")),
            ConsolePage::after("key-activated", move |browser| {
                browser.open(&format!("{unused}/deactivate"));
                browser.press("Deactivate key");
                browser.press("Activate");
            }),
            ConsolePage::at("key-delete", format!("{used}/delete")),
            ConsolePage::at("audit-trail", format!("{at}/audit")),
            ConsolePage::at("audit-log", "/console/audit?action=key.create"),
            ConsolePage::at("identify", "/console/identify"),
            ConsolePage::after("identify-found", move |browser| {
                browser.open("/console/identify");
                browser.fill("#secret", &secret);
                browser.press("Find out");
            }),
            ConsolePage::at("admin-tokens", "/console/admin-tokens"),
            ConsolePage::at("admin-token-new", "/console/admin-tokens/new"),
            ConsolePage::at("admin-token-revoke", format!("/console/admin-tokens/{}/revoke", self.admin_token)),
            ConsolePage::at("edge-tokens", "/console/edge-tokens"),
            ConsolePage::at("edge-token-new", "/console/edge-tokens/new"),
            ConsolePage::at("edge-token-revoke", format!("/console/edge-tokens/{}/revoke", self.edge_token)),
            ConsolePage::at("edges", "/console/edges"),
            ConsolePage::at("nothing-here", "/console/nowhere"),
        ]
    }

    pub fn sign_in(&self, browser: &Browser) {
        browser.sign_in(&self.stack.control_plane.admin_token());
    }
}
