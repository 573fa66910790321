//! A console with content on every page, for screenshots and for the accessibility checker.

use std::time::Duration;

use reqwest::blocking::Client;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::admin::{CreatedKey, client};
use crate::browser::Browser;
use crate::stack::Stack;
use crate::wait::{eventually, now};

/// Days of usage to report.
const DAYS: i64 = 8;

/// Control plane, Envoy, and keys in every state.
pub struct Tour {
    pub stack: Stack,
    used: CreatedKey,
    rotated: CreatedKey,
    bare: CreatedKey,
    admin_token: String,
    edge_token: String,
}

/// A page, and how a browser gets to it.
pub struct Stop {
    pub name: &'static str,
    way: Box<dyn Fn(&Browser)>,
}

impl Stop {
    fn at(name: &'static str, path: impl Into<String>) -> Self {
        let path = path.into();
        Self { name, way: Box::new(move |browser| browser.open(&path)) }
    }

    fn by(name: &'static str, way: impl Fn(&Browser) + 'static) -> Self {
        Self { name, way: Box::new(way) }
    }

    pub fn go(&self, browser: &Browser) {
        (self.way)(browser);
    }
}

impl Tour {
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
        let bare = create(
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
        let tour = Self { stack, used, rotated, bare, admin_token, edge_token };
        tour.report_use();
        tour
    }

    /// Reports usage of the last days, as a worker would have. The control plane accepts no older hours.
    fn report_use(&self) {
        let now = now().as_second();
        let used = &self.used;
        let mark: String = Sha256::digest(&used.secret).iter().take(4).map(|byte| format!("{byte:02x}")).collect();
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
        eventually("the use is counted", || {
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
    pub fn outside(&self) -> Vec<Stop> {
        vec![
            Stop::at("sign-in", "/console/sign-in"),
            Stop::by("sign-in-refused", |browser| {
                browser.open("/console/sign-in");
                browser.fill("#token", "lkadm_nobody");
                browser.press("Sign in");
            }),
            Stop::at("sign-in-dropped", "/console/sign-in/check"),
        ]
    }

    /// Pages for a platform admin, who sees everything.
    pub fn inside(&self) -> Vec<Stop> {
        let at = "/console/workspaces/acme";
        let key = |of: &CreatedKey| format!("{at}/keys/{}", of.id);
        let (used, bare, rotated) = (key(&self.used), key(&self.bare), key(&self.rotated));
        let (dialog, secret) = (used.clone(), self.bare.secret.clone());
        vec![
            Stop::at("workspaces", "/console/workspaces"),
            Stop::at("workspace-new", "/console/workspaces/new"),
            Stop::at("workspace-settings", at),
            Stop::at("keys", format!("{at}/keys")),
            Stop::at("keys-empty", "/console/workspaces/umbrella/keys"),
            Stop::at("keys-none-fits", format!("{at}/keys?q=nothing")),
            Stop::at("key-new", format!("{at}/keys/new")),
            Stop::by("key-new-refused", move |browser| {
                browser.open("/console/workspaces/acme/keys/new");
                browser.fill("#name", "Nightly export");
                browser.press("Only these addresses and ranges");
                browser.fill("#ip_allowlist", "192.0.2.7/24");
                browser.press("Create key");
            }),
            Stop::by("key-new-secret", move |browser| {
                browser.open("/console/workspaces/umbrella/keys/new");
                browser.fill("#name", "Nightly export");
                browser.press("Create key");
            }),
            Stop::at("key", used.clone()),
            Stop::at("key-warnings", bare.clone()),
            Stop::at("key-rotation", rotated.clone()),
            Stop::at("key-edit", format!("{used}/edit")),
            Stop::at("key-rotate", format!("{used}/rotate")),
            Stop::by("key-rotate-dialog", move |browser| {
                browser.open(&dialog);
                browser.press("Rotate");
            }),
            Stop::by("key-rotated-secret", move |browser| {
                browser.open(&format!("{rotated}/rotate"));
                browser.press("30 minutes");
                browser.press("Rotate key");
            }),
            Stop::at("key-deactivate", format!("{bare}/deactivate")),
            Stop::by("key-activated", move |browser| {
                browser.open(&format!("{bare}/deactivate"));
                browser.press("Deactivate key");
                browser.press("Activate");
            }),
            Stop::at("key-delete", format!("{used}/delete")),
            Stop::at("audit-trail", format!("{at}/audit")),
            Stop::at("audit-log", "/console/audit?action=key.create"),
            Stop::at("identify", "/console/identify"),
            Stop::by("identify-found", move |browser| {
                browser.open("/console/identify");
                browser.fill("#secret", &secret);
                browser.press("Find out");
            }),
            Stop::at("admin-tokens", "/console/admin-tokens"),
            Stop::at("admin-token-new", "/console/admin-tokens/new"),
            Stop::at("admin-token-revoke", format!("/console/admin-tokens/{}/revoke", self.admin_token)),
            Stop::at("edge-tokens", "/console/edge-tokens"),
            Stop::at("edge-token-new", "/console/edge-tokens/new"),
            Stop::at("edge-token-revoke", format!("/console/edge-tokens/{}/revoke", self.edge_token)),
            Stop::at("edges", "/console/edges"),
            Stop::at("nothing-here", "/console/nowhere"),
        ]
    }

    pub fn sign_in(&self, browser: &Browser) {
        browser.sign_in(&self.stack.control_plane.admin_token());
    }
}
