//! A line of an import: the key that it describes, and the workspace that it goes into.

use std::collections::HashMap;

use policy::{Digest, KeyId, UnixSeconds, WorkspaceId};
use serde_json::Value;
use tokio::runtime::Handle;

use crate::api::fields::{Fields, InvalidValue};
use crate::api::keys::digest_text::digest;
use crate::api::{Api, expiration, values};
use crate::base::secret::LastCharacters;
use crate::store::{ImportedKey, NewKey, NewSecret, StoreError, Workspace};
use crate::web::problem::{FieldError, Problem};

/// How many last characters of a secret are stored, as for our own secrets.
const MAX_LAST_CHARACTERS: usize = 4;

/// Reads lines, all as of one instant. May block on the store, so it must not run on async threads.
pub(super) struct LineReader {
    api: Api,
    target: ImportTarget,
    expired: ExpiredLine,
    at: UnixSeconds,
    runtime: Handle,
}

/// The workspaces that keys are imported into.
pub(super) enum ImportTarget {
    One(Workspace),
    /// The workspace that each line names. Caches look-ups, by id or slug.
    Named(HashMap<String, Option<WorkspaceId>>),
}

/// What happens to a line whose `expires_at` has passed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ExpiredLine {
    Refuse,
    Skip,
}

/// The result of reading a line.
pub(super) enum LineOutcome {
    Key(Box<ImportedKey>),
    /// The key has expired, and the line is skipped.
    Skipped,
    Refused(Vec<FieldError>),
}

impl ImportTarget {
    /// The one workspace that all lines are for.
    pub(super) fn own(&self) -> Option<WorkspaceId> {
        match self {
            Self::One(own) => Some(own.id),
            Self::Named(_) => None,
        }
    }
}

impl LineReader {
    /// Blocks on the runtime that this is called on.
    pub(super) fn new(api: Api, target: ImportTarget, expired: ExpiredLine, at: UnixSeconds) -> Self {
        Self { api, target, expired, at, runtime: Handle::current() }
    }

    /// Reads a line with these fields. `check_digest` gets its digest and may refuse it; `id` is called only for valid
    /// keys.
    pub(super) fn read(
        &mut self,
        mut fields: Fields,
        check_digest: impl FnOnce(&Digest, &mut Fields),
        id: impl FnOnce() -> Result<KeyId, Problem>,
    ) -> Result<LineOutcome, Problem> {
        if self.expired == ExpiredLine::Skip && expiration::has_expired(&fields, self.at) {
            return Ok(LineOutcome::Skipped);
        }
        let workspace = self.workspace(&mut fields)?;
        let config = &self.api.config;
        let digest = fields.required("digest", digest);
        let name = fields.required("name", values::name);
        let expires_at = expiration::parse(&mut fields, self.at);
        let scopes = fields.optional("scopes", |value| values::scopes(value, config)).unwrap_or_default();
        let allowlist = fields.optional("ip_allowlist", values::allowlist).unwrap_or_default();
        let environment = fields.optional("environment", |value| values::environment(value, config));
        let environment = environment.unwrap_or_else(|| config.first_environment());
        let metadata = fields.optional("metadata", values::metadata).unwrap_or_default();
        let active = fields.optional("active", values::boolean).unwrap_or(true);
        let last_characters = fields.optional("last_characters", last_characters).flatten();
        if let Some(digest) = &digest {
            check_digest(digest, &mut fields);
        }
        let errors = fields.errors();
        if !errors.is_empty() {
            return Ok(LineOutcome::Refused(errors));
        }
        let (Some(workspace), Some(digest), Some(name), Some(expires_at)) = (workspace, digest, name, expires_at)
        else {
            return Err(Problem::fault());
        };
        let secret = NewSecret { digest, last_characters: LastCharacters(last_characters.unwrap_or_default()) };
        let id = id()?;
        let key = NewKey { id, name, environment, scopes, allowlist, expires_at, metadata, active, secret };
        Ok(LineOutcome::Key(Box::new(ImportedKey { workspace, key })))
    }

    /// The workspace of a line; `None` if it was refused.
    fn workspace(&mut self, fields: &mut Fields) -> Result<Option<WorkspaceId>, Problem> {
        match &mut self.target {
            ImportTarget::One(own) => {
                let named = fields.optional("workspace", values::string);
                if named.is_some_and(|name| name != own.slug && name != own.id.to_string()) {
                    let message = "is not the workspace of the path; leave it out, or import at /v1/keys/import";
                    fields.refuse("workspace", InvalidValue::new("unknown-workspace", message));
                }
                Ok(Some(own.id))
            }
            ImportTarget::Named(known) => {
                let Some(name) = fields.required("workspace", values::string) else { return Ok(None) };
                let found = match known.get(&name) {
                    Some(found) => *found,
                    None => {
                        let lookup = self.api.store.workspace(values::workspace_name(&name));
                        let found = match self.runtime.block_on(lookup) {
                            Ok(workspace) => Some(workspace.id),
                            Err(StoreError::NotFound) => None,
                            Err(error) => return Err(error.into()),
                        };
                        known.insert(name, found);
                        found
                    }
                };
                if found.is_none() {
                    let message = "must be the id or slug of a workspace";
                    fields.refuse("workspace", InvalidValue::new("unknown-workspace", message));
                }
                Ok(found)
            }
        }
    }
}

/// At most four, so that a whole secret that is sent by mistake is refused.
fn last_characters(value: Value) -> Result<Option<String>, InvalidValue> {
    let Some(text) = values::optional_string(value)? else { return Ok(None) };
    if text.chars().count() > MAX_LAST_CHARACTERS {
        let message = format!("must have at most {MAX_LAST_CHARACTERS} characters; never send the whole secret");
        return Err(InvalidValue::new("too-long", message));
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidValue::new("bad-characters", "has control characters; leave them out"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}
