//! A key as pages show it.

use std::collections::HashMap;

use policy::UnixSeconds;

use crate::api::Api;
use crate::console::display::{self, Moment};
use crate::operations::choice::Choice as _;
use crate::store::{Key, Status, Workspace};
use crate::web::problem::Problem;

/// How long a key may be unused before its page warns.
const UNUSED_DAYS: i64 = 90;

const DAY: i64 = 86_400;

/// A key, formatted for pages.
pub(in crate::console) struct KeyView {
    /// The path of its page.
    pub(in crate::console) href: String,
    pub(in crate::console) id: String,
    pub(in crate::console) name: String,
    pub(in crate::console) environment: String,
    /// `…c4fa`; `not known` for an imported key without last characters.
    pub(in crate::console) mask: String,
    pub(in crate::console) status: &'static str,
    /// For the badge.
    pub(in crate::console) status_word: &'static str,
    pub(in crate::console) is_active: bool,
    pub(in crate::console) is_expired: bool,
    pub(in crate::console) scopes: Vec<String>,
    pub(in crate::console) networks: Vec<String>,
    pub(in crate::console) networks_summary: String,
    pub(in crate::console) metadata: Option<String>,
    pub(in crate::console) expires: Option<Moment>,
    pub(in crate::console) created: Moment,
    pub(in crate::console) created_by: String,
    pub(in crate::console) rotated: Option<Moment>,
    pub(in crate::console) last_used: Option<Moment>,
    pub(in crate::console) last_address: Option<String>,
    pub(in crate::console) warnings: Vec<&'static str>,
}

impl KeyView {
    /// `names` is the result of [`creator_names`].
    pub(in crate::console) fn new(
        key: &Key,
        workspace: &Workspace,
        names: &HashMap<String, String>,
        now: UnixSeconds,
    ) -> Self {
        let status = key.status(now);
        Self {
            href: href(workspace, key),
            id: key.id.to_string(),
            name: key.name.clone(),
            environment: key.environment.to_string(),
            mask: mask(key),
            status: display::status(status),
            status_word: status.as_str(),
            is_active: key.active,
            is_expired: status == Status::Expired,
            scopes: display::scopes(&key.scopes),
            networks: display::networks(&key.allowlist),
            networks_summary: display::networks_summary(&key.allowlist),
            metadata: (!key.metadata.is_empty()).then(|| metadata_text(key)),
            expires: Moment::optional(key.expires_at, now),
            created: Moment::new(key.created_at, now),
            created_by: names.get(&key.created_by).unwrap_or(&key.created_by).clone(),
            rotated: Moment::optional(key.rotated_at, now),
            last_used: Moment::optional(key.used.last_at, now),
            last_address: key.used.last_address.map(|address| address.to_string()),
            warnings: warnings(key, now),
        }
    }
}

/// The path of a key's page.
pub(in crate::console) fn href(workspace: &Workspace, key: &Key) -> String {
    format!("/console/workspaces/{}/keys/{}", workspace.slug, key.id)
}

/// The last characters, by which people tell secrets apart.
pub(in crate::console) fn mask(key: &Key) -> String {
    match key.last_characters.clone().into_option() {
        // No prefix: an imported secret can have any.
        Some(last) => format!("…{last}"),
        None => "not known".to_owned(),
    }
}

/// Metadata as formatted JSON, for people to read and edit.
pub(in crate::console) fn metadata_text(key: &Key) -> String {
    serde_json::to_string_pretty(&key.metadata).unwrap_or_default()
}

/// What would make the key safer.
fn warnings(key: &Key, now: UnixSeconds) -> Vec<&'static str> {
    let mut warnings = Vec::new();
    if key.is_expired(now) {
        return warnings;
    }
    if display::may_write(&key.scopes) && key.allowlist == policy::Allowlist::Any {
        warnings.push("The key can write from any address. Limit its allowlist to the addresses that it is used from.");
    }
    if key.expires_at.is_none() {
        warnings.push(
            "The key never expires. An expiration limits the damage of an unnoticed leak: create a key with one, and \
             delete this key.",
        );
    }
    if is_unused(key, now) {
        warnings.push("Unused for 90 days. If nobody needs the key, deactivate it first, and delete it later.");
    }
    warnings
}

/// Whether an active key was neither used nor created within [`UNUSED_DAYS`].
pub(in crate::console) fn is_unused(key: &Key, now: UnixSeconds) -> bool {
    let last = key.used.last_at.unwrap_or(key.created_at);
    key.active && last.saturating_add_secs(UNUSED_DAYS.saturating_mul(DAY)).is_reached(now)
}

/// The names of the creators of these keys, by `created_by`.
pub(in crate::console) async fn creator_names(api: &Api, keys: &[Key]) -> Result<HashMap<String, String>, Problem> {
    let mut ids: Vec<_> = keys.iter().map(|key| key.created_by.clone()).collect();
    ids.sort_unstable();
    ids.dedup();
    Ok(api.store.actor_names(ids).await?)
}
