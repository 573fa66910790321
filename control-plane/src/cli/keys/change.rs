//! `latchkey keys edit`, `activate` and `end-overlap`: changes of one key that show no secret.

use clap::Args;
use serde_json::{Value, json};

use super::create::{json_object, scope, scopes_body};
use super::{KeyActionOptions, WorkspaceSession};
use crate::cli::client::Call;
use crate::cli::failure::{Failure, Outcome};
use crate::cli::json::{given, object};
use crate::cli::waiting::Wait;

/// The options of `latchkey keys edit`.
#[derive(Args)]
pub(super) struct EditOptions {
    /// Its id, key_….
    key: String,

    /// Its new name.
    #[arg(long)]
    name: Option<String>,

    /// Its new scopes, in place of the current ones: reviews:read, webhooks:write. May be given more than once.
    #[arg(long = "scope", value_name = "SCOPE:LEVEL", value_delimiter = ',', value_parser = scope, conflicts_with = "no_scopes")]
    scopes: Vec<(String, String)>,

    /// Remove all scopes: it can then use only routes that need none.
    #[arg(long)]
    no_scopes: bool,

    /// An address or CIDR range that it may be used from, in place of the current ones. May be given more than once.
    #[arg(long = "allow", value_name = "ADDRESS", value_delimiter = ',', conflicts_with = "any_address")]
    allowlist: Vec<String>,

    /// Allow its use from any address.
    #[arg(long)]
    any_address: bool,

    /// A JSON object to merge into its metadata: `null` removes a field.
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    metadata: Option<Value>,

    /// Only if the key is still at this revision, as `latchkey keys show` shows it.
    #[arg(long, value_name = "REVISION")]
    if_revision: Option<u64>,

    #[command(flatten)]
    wait: Wait,
}

pub(super) fn edit(at: &WorkspaceSession<'_>, options: &EditOptions) -> anyhow::Result<Outcome> {
    let EditOptions { key, name, scopes, no_scopes, allowlist, any_address, metadata, if_revision, wait } = options;
    let allowlist = if *any_address { Some(Value::Null) } else { (!allowlist.is_empty()).then(|| json!(allowlist)) };
    let body = object([
        ("name", given(name)),
        ("scopes", (*no_scopes || !scopes.is_empty()).then(|| scopes_body(scopes))),
        ("ip_allowlist", allowlist),
        ("metadata", given(metadata)),
    ]);
    if body == json!({}) {
        let message = "nothing to change: give --name, --scope, --no-scopes, --allow, --any-address or --metadata";
        return Err(Failure::Usage(message.to_owned()).into());
    }
    let call = Call::patch(&at.path(&[key]), body);
    let call = match if_revision {
        Some(revision) => call.header("if-match", format!("\"{revision}\"")),
        None => call,
    };
    change(at, *wait, call)
}

/// `POST …/keys/{key}/{action}`
pub(super) fn act(
    at: &WorkspaceSession<'_>,
    KeyActionOptions { key, wait }: &KeyActionOptions,
    action: &str,
) -> anyhow::Result<Outcome> {
    change(at, *wait, at.post(&[key, action], json!({})))
}

fn change(at: &WorkspaceSession<'_>, wait: Wait, call: Call) -> anyhow::Result<Outcome> {
    let answer = at.session.client.send(wait.apply(call))?;
    at.print_key(&answer.body)?;
    wait.report(&at.session.client, &answer)
}
