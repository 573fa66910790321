//! Changes by admins over REST, and their effect on the oracle.

use axum::http::Method;
use policy::Revision;
use serde_json::{Value, json};

use crate::control_plane::Answer;
use crate::oracle::{Grant, Key};
use crate::steps::Step;
use crate::world::{World, pick};

/// The most keys at a time.
const MAX_KEYS: usize = 5;

const OVERLAP_SECS: i64 = 30 * 60;
const LIFE_SECS: i64 = 60 * 60;

impl World {
    /// Carries out an admin's step.
    pub(crate) async fn change(&mut self, step: &Step) {
        match *step {
            Step::Create { grant, is_restricted, lives_an_hour } => {
                self.create(grant, is_restricted, lives_an_hour).await;
            }
            Step::Update { key, grant, is_restricted } => {
                let body = json!({"scopes": scopes(grant), "ip_allowlist": networks(is_restricted)});
                let narrow = |key: &mut Key| (key.grant, key.is_restricted) = (grant, is_restricted);
                self.act(key, Method::PATCH, "", &body.to_string(), narrow).await;
            }
            Step::Rotate { key, overlaps } => self.rotate(key, overlaps).await,
            Step::EndOverlap { key } => {
                let now = self.time.now().0;
                self.act(key, Method::POST, "/end-overlap", "", |key| key.end_overlap(now)).await;
            }
            Step::Activate { key } => {
                self.act(key, Method::POST, "/activate", "", |key| key.is_active = true).await;
            }
            Step::Deactivate { key } => {
                self.act(key, Method::POST, "/deactivate", "", |key| key.is_active = false).await;
            }
            Step::Delete { key } => self.delete(key).await,
            _ => panic!("{step:?} is not a step of an admin"),
        }
    }

    async fn create(&mut self, grant: Grant, is_restricted: bool, lives_an_hour: bool) {
        if self.oracle.keys.len() >= MAX_KEYS {
            return;
        }
        let expires_in = if lives_an_hour { "1h" } else { "none" };
        let (scopes, networks) = (scopes(grant), networks(is_restricted));
        let body = json!({"name": "key", "expires_in": expires_in, "scopes": scopes, "ip_allowlist": networks});
        let made = self.control_plane().call(Method::POST, "/v1/workspaces/acme/keys", &body.to_string()).await;
        assert_eq!(made.status, 201, "{}", made.text());
        let (id, secret) = (text(&made.json()["key"]["id"]), text(&made.json()["secret"]));
        self.secrets.push(secret.clone());
        self.oracle.keys.push(Key {
            id,
            grant,
            is_restricted,
            is_active: true,
            expires_at: lives_an_hour.then(|| self.time.now().0 + LIFE_SECS),
            secrets: vec![(secret, None)],
        });
        self.record(&made);
    }

    async fn rotate(&mut self, key: u8, overlaps: bool) {
        let Some(id) = self.key_id(key) else { return };
        let now = self.time.now().0;
        let body = if overlaps { r#"{"overlap": "30m"}"# } else { "" };
        let answer = self.control_plane().call(Method::POST, &format!("{}/rotate", path(&id)), body).await;
        let key = self.oracle.keys.iter_mut().find(|key| key.id == id).expect("it was just there");
        if answer.status == 409 {
            assert!(key.expires_at.is_some_and(|at| at <= now + 1), "only an expired key can't be rotated");
            return;
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        let secret = text(&answer.json()["secret"]);
        key.rotate(secret.clone(), now, if overlaps { OVERLAP_SECS } else { 0 });
        self.secrets.push(secret);
        self.record(&answer);
    }

    pub(crate) async fn delete(&mut self, key: u8) {
        let Some(id) = self.key_id(key) else { return };
        let answer = self.control_plane().call(Method::DELETE, &path(&id), "").await;
        assert_eq!(answer.status, 204, "{}", answer.text());
        self.oracle.keys.retain(|key| key.id != id);
        self.record(&answer);
    }

    /// Changes one key. This always succeeds, even if it is repeated.
    async fn act(&mut self, key: u8, method: Method, action: &str, body: &str, change: impl FnMut(&mut Key)) {
        let Some(id) = self.key_id(key) else { return };
        let answer = self.control_plane().call(method, &format!("{}{action}", path(&id)), body).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.oracle.keys.iter_mut().find(|key| key.id == id).into_iter().for_each(change);
        self.record(&answer);
    }

    fn key_id(&self, number: u8) -> Option<String> {
        pick(&self.oracle.keys, number).map(|key| key.id.clone())
    }

    /// Records the keys from a change's revision on. A repeated request changed nothing, and returns an older revision.
    fn record(&mut self, answer: &Answer) {
        let revision = Revision(answer.revision());
        if revision > self.recorded {
            let head = self.head();
            assert_eq!(head.revision, revision, "the feed has a change when it is answered");
            self.oracle.record(head.epoch, head.revision);
            self.answered.push(revision.0);
            self.recorded = revision;
        }
    }
}

fn path(id: &str) -> String {
    format!("/v1/workspaces/acme/keys/{id}")
}

fn scopes(grant: Grant) -> Value {
    match grant {
        Grant::Nothing => json!({}),
        Grant::Read => json!({"reviews": "read"}),
        Grant::Write => json!({"reviews": "write"}),
    }
}

fn networks(is_restricted: bool) -> Value {
    if is_restricted { json!(["192.0.2.0/24"]) } else { Value::Null }
}

fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}
