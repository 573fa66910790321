//! A line of an import: the key that it describes, and the workspace that it goes into.

use std::collections::HashMap;

use policy::{Allowlist, Digest, Environment, KeyId, Scopes, UnixSeconds, WorkspaceId};
use serde_json::Value;
use tokio::runtime::Handle;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{ObjectBuilder, Schema};

use crate::api::Api;
use crate::api::keys::digest_text::digest;
use crate::base::secret::LastCharacters;
use crate::operations::choice::choice;
use crate::operations::expiration::{Expiration, has_expired};
use crate::operations::field_types::Name;
use crate::operations::fields::{FieldError, Fields, InvalidValue};
use crate::operations::principal::Principal;
use crate::operations::request::{
    BodyField, BodyValue, NamedSchemas, OrNull, RequestBody as _, RequestContext, WorkspaceOfRequest, request_body,
    string_schema,
};
use crate::operations::values;
use crate::store::{ImportedKey, Metadata, NewKey, NewSecret, StoreError, Workspace};
use crate::web::problem::Problem;

/// How many last characters of a secret are stored, as for our own secrets.
const MAX_LAST_CHARACTERS: usize = 4;

request_body! {
    /// A key of another system, by the digest of its secret. One of `expires_in` and `expires_at` is required.
    pub(super) struct ImportKey {
        /// Id or slug. Required if the path has none; otherwise it may be left out.
        workspace: LineWorkspace,
        /// SHA-256 of the secret's text: 64 hexadecimal digits, or base64, optionally with the prefix `sha256:`.
        digest: Digest,
        name: Name,
        expiration: Expiration,
        /// Scopes of the operator's catalogue; none by default.
        scopes: Option<Scopes>,
        /// Addresses and CIDR ranges that the key may be used from; `null`, the default, is any.
        ip_allowlist: Option<Allowlist>,
        /// One of the operator's; the first by default.
        environment: Option<Environment>,
        /// At most 4 KiB as JSON.
        metadata: Option<Metadata>,
        /// Whether it can be used; `true` by default.
        active: Option<bool>,
        /// The secret's last characters, to tell keys apart; `null`, the default, if they aren't known.
        last_characters: Option<OrNull<GivenLastCharacters>>,
    }
}

/// The workspace that a key is imported into.
struct LineWorkspace(WorkspaceId);

/// A secret's last characters, which only its owner can tell.
struct GivenLastCharacters(String);

/// Reads lines, all as of one instant. May block on the store, so it must not run on async threads.
pub(super) struct LineReader {
    api: Api,
    target: ImportTarget,
    principal: Principal,
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
pub(in crate::api) enum ExpiredLine {
    Refuse,
    Skip,
}

choice!(
    "What to do with lines of an import whose key has expired.",
    ExpiredLine as "ExpiredLines",
    "unknown-choice",
    Self::Refuse => "refuse",
    Self::Skip => "skip",
);

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

    /// The workspace that a line is about, after its look-up.
    fn of_line(&self, fields: &Fields) -> WorkspaceOfRequest<'_> {
        match self {
            Self::One(own) => WorkspaceOfRequest::Path(own),
            Self::Named(known) => {
                WorkspaceOfRequest::Body(named_workspace(fields).and_then(|name| known.get(name).copied().flatten()))
            }
        }
    }
}

impl LineReader {
    /// Blocks on the runtime that this is called on.
    pub(super) fn new(
        api: Api,
        target: ImportTarget,
        principal: Principal,
        expired: ExpiredLine,
        at: UnixSeconds,
    ) -> Self {
        Self { api, target, principal, expired, at, runtime: Handle::current() }
    }

    /// Reads a line with these fields. `check_digest` gets its digest and may refuse it; `id` is called only for valid
    /// keys.
    pub(super) fn read(
        &mut self,
        mut fields: Fields,
        check_digest: impl FnOnce(&Digest, &mut Fields),
        id: impl FnOnce() -> Result<KeyId, Problem>,
    ) -> Result<LineOutcome, Problem> {
        if self.expired == ExpiredLine::Skip && has_expired(&fields, self.at) {
            return Ok(LineOutcome::Skipped);
        }
        // Found even if another field is refused, so that all errors are reported.
        let digest = fields.peek("digest").cloned().and_then(|value| digest(value).ok());
        self.look_up_workspace(&fields)?;
        let Self { api, target, principal, .. } = self;
        let (config, workspace) = (&api.config, target.of_line(&fields));
        let key = ImportKey::take(&mut fields, &RequestContext { config, now: self.at, principal, workspace });
        if let Some(digest) = digest {
            check_digest(&digest, &mut fields);
        }
        let errors = fields.errors();
        if !errors.is_empty() {
            return Ok(LineOutcome::Refused(errors));
        }
        let key = key.ok_or_else(Problem::fault)?;
        let last_characters = key.last_characters.and_then(|OrNull(given)| given);
        let last_characters = LastCharacters(last_characters.map(|given| given.0).unwrap_or_default());
        let new = NewKey {
            id: id()?,
            name: key.name.0,
            environment: key.environment.unwrap_or_else(|| config.first_environment()),
            scopes: key.scopes.unwrap_or_default(),
            allowlist: key.ip_allowlist.unwrap_or_default(),
            expires_at: key.expiration.0,
            metadata: key.metadata.unwrap_or_default(),
            active: key.active.unwrap_or(true),
            secret: NewSecret { digest: key.digest, last_characters },
        };
        Ok(LineOutcome::Key(Box::new(ImportedKey { workspace: key.workspace.0, key: new })))
    }

    /// Looks up the workspace that a line names.
    fn look_up_workspace(&mut self, fields: &Fields) -> Result<(), Problem> {
        let ImportTarget::Named(known) = &mut self.target else { return Ok(()) };
        let Some(name) = named_workspace(fields).filter(|name| !known.contains_key(*name)) else { return Ok(()) };
        let found = match self.runtime.block_on(self.api.store.workspace(values::workspace_name(name))) {
            Ok(workspace) => Some(workspace.id),
            Err(StoreError::NotFound) => None,
            Err(error) => return Err(error.into()),
        };
        known.insert(name.to_owned(), found);
        Ok(())
    }
}

fn named_workspace(fields: &Fields) -> Option<&str> {
    fields.peek("workspace").and_then(Value::as_str)
}

impl BodyField for LineWorkspace {
    fn take(fields: &mut Fields, name: &str, context: &RequestContext<'_>) -> Option<Self> {
        let message = match context.workspace {
            WorkspaceOfRequest::Path(own) => {
                let named = <Option<String> as BodyField>::take(fields, name, context)?;
                if named.is_none_or(|named| named == own.slug || named == own.id.to_string()) {
                    return Some(Self(own.id));
                }
                "is not the workspace of the path; leave it out, or import at /v1/keys/import"
            }
            WorkspaceOfRequest::Body(found) => {
                <String as BodyField>::take(fields, name, context)?;
                if let Some(found) = found {
                    return Some(Self(found));
                }
                "must be the id or slug of a workspace"
            }
        };
        fields.refuse(name, InvalidValue::new("unknown-workspace", message));
        None
    }

    fn describe(name: &str, description: Option<&str>, body: ObjectBuilder) -> ObjectBuilder {
        <Option<String> as BodyField>::describe(name, description, body)
    }

    fn schemas(_: &mut NamedSchemas) {}
}

impl BodyValue for Digest {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        digest(value)
    }

    fn schema() -> RefOr<Schema> {
        let pattern = "^(sha256:)?([0-9A-Fa-f]{64}|[0-9A-Za-z+/_-]{43}=?)$";
        Schema::Object(string_schema().pattern(Some(pattern)).build()).into()
    }
}

impl BodyValue for GivenLastCharacters {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        last_characters(value).map(Self)
    }

    fn schema() -> RefOr<Schema> {
        Schema::Object(string_schema().max_length(Some(MAX_LAST_CHARACTERS)).build()).into()
    }
}

/// At most four, so that a whole secret that is sent by mistake is refused.
fn last_characters(value: Value) -> Result<String, InvalidValue> {
    let text = values::string(value)?;
    if text.chars().count() > MAX_LAST_CHARACTERS {
        let message = format!("must have at most {MAX_LAST_CHARACTERS} characters; never send the whole secret");
        return Err(InvalidValue::new("too-long", message));
    }
    if text.chars().any(char::is_control) {
        return Err(InvalidValue::new("bad-characters", "has control characters; leave them out"));
    }
    Ok(text)
}
