//! `latchkey keys create` and `rotate`: the operations that show a new secret once.

use clap::Args;
use serde_json::{Map, Value, json};

use super::{WorkspaceSession, key_card};
use crate::cli::client::Call;
use crate::cli::failure::Outcome;
use crate::cli::json::{given, object, part};
use crate::cli::new_secret;
use crate::cli::waiting::Wait;

/// The options of `latchkey keys create`.
#[derive(Args)]
pub(super) struct CreateOptions {
    /// Its name, for people.
    name: String,

    /// Its lifetime: none, 1h, 1d, 7d, 30d, 90d, 180d, 360d. It can't be changed later.
    #[arg(long, value_name = "TIME", required_unless_present = "expires_at", conflicts_with = "expires_at")]
    expires_in: Option<String>,

    /// When it expires: 2027-01-31T12:00:00Z.
    #[arg(long, value_name = "INSTANT")]
    expires_at: Option<String>,

    /// What it may do: reviews:read, webhooks:write; write includes read. May be given more than once.
    #[arg(long = "scope", value_name = "SCOPE:LEVEL", value_delimiter = ',', value_parser = scope)]
    scopes: Vec<(String, String)>,

    /// An address or CIDR range that it may be used from; any address by default. May be given more than once.
    #[arg(long = "allow", value_name = "ADDRESS", value_delimiter = ',')]
    allowlist: Vec<String>,

    /// One of the operator's environments; the first by default. It is part of the secret's text.
    #[arg(long)]
    environment: Option<String>,

    /// A JSON object of your own, at most 4 KiB.
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    metadata: Option<Value>,

    #[command(flatten)]
    wait: Wait,
}

/// The options of `latchkey keys rotate`.
#[derive(Args)]
pub(super) struct RotateOptions {
    /// Its id, key_….
    key: String,

    /// How long the old secret stays valid: 30m, 12h, 7d; at most 7 days. By default it ends immediately.
    #[arg(long, value_name = "TIME")]
    overlap: Option<String>,

    /// Replace only the current secret, and keep the previous one of a running overlap: for when the new secret was
    /// lost.
    #[arg(long, conflicts_with = "overlap")]
    replace: bool,

    #[command(flatten)]
    wait: Wait,
}

pub(super) fn create(at: &WorkspaceSession<'_>, options: &CreateOptions) -> anyhow::Result<Outcome> {
    let CreateOptions { name, expires_in, expires_at, scopes, allowlist, environment, metadata, wait } = options;
    let body = object([
        ("name", Some(json!(name))),
        ("expires_in", given(expires_in)),
        ("expires_at", given(expires_at)),
        ("scopes", Some(scopes_body(scopes))),
        ("ip_allowlist", (!allowlist.is_empty()).then(|| json!(allowlist))),
        ("environment", given(environment)),
        ("metadata", given(metadata)),
    ]);
    send_and_print(at, *wait, &[], body)
}

pub(super) fn rotate(at: &WorkspaceSession<'_>, options: &RotateOptions) -> anyhow::Result<Outcome> {
    let RotateOptions { key, overlap, replace, wait } = options;
    let body = object([("overlap", given(overlap)), ("replace", replace.then(|| json!(true)))]);
    send_and_print(at, *wait, &[key, "rotate"], body)
}

fn send_and_print(at: &WorkspaceSession<'_>, wait: Wait, below: &[&str], body: Value) -> anyhow::Result<Outcome> {
    let client = &at.session.client;
    let answer = client.send(wait.apply(Call::post_idempotent(&at.path(below), body)?))?;
    // Before anything else can fail: the secret can't be shown again.
    new_secret::print(&at.session, &answer.body, &key_card(part(&answer.body, &["key"])))?;
    wait.report(client, &answer)
}

pub(super) fn scopes_body(scopes: &[(String, String)]) -> Value {
    scopes.iter().map(|(scope, level)| (scope.clone(), json!(level))).collect::<Map<_, _>>().into()
}

/// `reviews:read`
pub(super) fn scope(text: &str) -> Result<(String, String), String> {
    match text.split_once(':') {
        Some((scope, level @ ("read" | "write"))) => Ok((scope.to_owned(), level.to_owned())),
        _ => Err("expected a scope and its level, as reviews:read or webhooks:write".to_owned()),
    }
}

/// A JSON object.
pub(super) fn json_object(text: &str) -> Result<Value, String> {
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err("expected a JSON object, as {\"team\": \"billing\"}".to_owned()),
        Err(error) => Err(format!("not JSON: {error}")),
    }
}
