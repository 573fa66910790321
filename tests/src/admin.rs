//! A REST client with the platform admin's token.

use std::time::Duration;

use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};

/// Time limit of a large request on a busy machine.
const LONG: Duration = Duration::from_secs(300);

/// A key, as the answer to its creation or rotation shows it.
#[derive(Clone, Debug)]
pub struct CreatedKey {
    pub id: String,
    pub workspace: String,
    pub secret: String,
}

impl CreatedKey {
    /// Its path in REST.
    pub fn path(&self) -> String {
        format!("/v1/workspaces/{}/keys/{}", self.workspace, self.id)
    }
}

/// A platform admin's REST client. A method that returns no status fails the test on an unexpected answer.
#[derive(Clone)]
pub struct Admin {
    client: Client,
    base: String,
    token: String,
}

impl Admin {
    pub fn new(base: &str, token: &str) -> Self {
        Self { client: client(), base: base.to_owned(), token: token.to_owned() }
    }

    /// Sends any request; returns status and body, or `None` when there was no answer.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Option<(u16, Value)> {
        let method = method.parse().expect("a method");
        let mut request = self.client.request(method, format!("{}{path}", self.base)).bearer_auth(&self.token);
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().ok()?;
        Some((answer.status().as_u16(), json_of(answer)))
    }

    /// A POST of JSON lines, which may take minutes.
    pub fn send_lines(&self, path: &str, lines: String) -> (u16, Value) {
        self.try_send_lines(path, lines).unwrap_or_else(|| panic!("POST {path}: no answer"))
    }

    /// As [`Self::send_lines`]; `None` when there was no answer.
    pub fn try_send_lines(&self, path: &str, lines: String) -> Option<(u16, Value)> {
        let request = self.client.post(format!("{}{path}", self.base)).bearer_auth(&self.token).timeout(LONG);
        let answer = request.header("content-type", "application/jsonl").body(lines).send().ok()?;
        Some((answer.status().as_u16(), json_of(answer)))
    }

    /// The whole audit log, as JSON lines.
    pub fn export_audit(&self) -> String {
        let request = self.client.get(format!("{}/v1/audit-events", self.base)).bearer_auth(&self.token);
        let answer = request.header("accept", "application/jsonl").send().expect("an answer");
        assert_eq!(answer.status(), 200);
        answer.text().expect("an export")
    }

    fn expect(&self, expected: u16, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.send(method, path, body).unwrap_or_else(|| panic!("{method} {path}: no answer"));
        assert_eq!(status, expected, "{method} {path} was answered {answer}");
        answer
    }

    pub fn get(&self, path: &str) -> Value {
        self.expect(200, "GET", path, None)
    }

    /// A new workspace; its slug is its name.
    pub fn create_workspace(&self, slug: &str) -> Value {
        self.expect(201, "POST", "/v1/workspaces", Some(&json!({"name": slug, "slug": slug})))
    }

    /// A new key that may read reviews and never expires.
    pub fn create_key(&self, workspace: &str, name: &str) -> CreatedKey {
        self.create_key_with(workspace, &json!({"name": name, "expires_in": "none", "scopes": {"reviews": "read"}}))
    }

    pub fn create_key_with(&self, workspace: &str, body: &Value) -> CreatedKey {
        let answer = self.expect(201, "POST", &format!("/v1/workspaces/{workspace}/keys"), Some(body));
        created(workspace, &answer)
    }

    /// Rotates the secret; the old one ends immediately.
    pub fn rotate(&self, key: &CreatedKey) -> CreatedKey {
        self.rotate_with(key, &json!({}))
    }

    pub fn rotate_with(&self, key: &CreatedKey, body: &Value) -> CreatedKey {
        created(&key.workspace, &self.expect(200, "POST", &format!("{}/rotate", key.path()), Some(body)))
    }

    /// `activate`, `deactivate` or `end-overlap`.
    pub fn act(&self, key: &CreatedKey, action: &str) -> Value {
        self.expect(200, "POST", &format!("{}/{action}", key.path()), None)
    }

    pub fn delete(&self, key: &CreatedKey) {
        self.expect(204, "DELETE", &key.path(), None);
    }

    pub fn key(&self, key: &CreatedKey) -> Value {
        self.get(&key.path())
    }
}

/// A client for addresses of this machine, which uses no proxy.
pub(crate) fn client() -> Client {
    Client::builder().no_proxy().build().expect("a client")
}

fn created(workspace: &str, answer: &Value) -> CreatedKey {
    let text = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no text in {answer}")).to_owned();
    CreatedKey { id: text(&answer["key"]["id"]), workspace: workspace.to_owned(), secret: text(&answer["secret"]) }
}

fn json_of(answer: Response) -> Value {
    let text = answer.text().unwrap_or_default();
    serde_json::from_str(&text).unwrap_or(Value::String(text))
}
