//! POST …/keys/import: keys whose secrets somebody else made, by their digests, all or none.

use std::collections::HashMap;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Response;
use policy::{Digest, KeyId, Revision, WorkspaceId};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::digest_text::digest;
use crate::api::answer::done;
use crate::api::authority::{AdminOf, PlatformAdmin};
use crate::api::fields::{Fields, QueryFields, Refused};
use crate::api::idempotency::{self, IdempotencyKey};
use crate::api::lines::{Line, Lines};
use crate::api::principal::Principal;
use crate::api::requests::{ExpiredLines, ImportKey};
use crate::api::{Api, values};
use crate::problem::{FieldError, LineErrors, MAX_SHOWN_LINES, Problem};
use crate::secret::LastCharacters;
use crate::store::{Acting, ImportedKey, Made, NewKey, NewSecret, StoreError, Workspace};

/// The most keys of one import: all of it is held in memory, and written down in one transaction.
const MAX_LINES: usize = 100_000;

/// The most of a secret's end that is kept, as of our own.
const MAX_LAST_CHARACTERS: usize = 4;

/// What was imported.
#[derive(Serialize, ToSchema)]
#[schema(as = Imported)]
struct ImportedBody {
    imported: usize,
    /// Lines that were left out, because their keys had expired.
    skipped: usize,
    /// In the order of the lines.
    #[schema(value_type = Vec<String>)]
    key_ids: Vec<KeyId>,
}

/// Imports digests into a workspace: all lines or none.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/import",
    operation_id = "import_keys",
    request_body(content = ImportKey, content_type = "application/jsonl", description = "A key a line, at most 100,000"),
    params(("expired" = Option<ExpiredLines>, Query, description = "What becomes of lines whose `expires_at` has passed; they are refused by default")),
    responses((status = 200, description = "All were imported", body = ImportedBody))
)]
pub(in crate::api) async fn into_workspace(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    key: IdempotencyKey,
    query: ImportQuery,
    lines: Lines,
) -> Result<Response, Problem> {
    import(&api, Target::One(at.workspace), at.principal, &key, (query, lines)).await
}

/// Imports digests into the workspaces that the lines name: all lines or none.
#[utoipa::path(
    post,
    path = "/keys/import",
    operation_id = "import_keys_anywhere",
    request_body(content = ImportKey, content_type = "application/jsonl", description = "A key a line, at most 100,000"),
    params(("expired" = Option<ExpiredLines>, Query, description = "What becomes of lines whose `expires_at` has passed; they are refused by default")),
    responses((status = 200, description = "All were imported", body = ImportedBody))
)]
pub(in crate::api) async fn into_each(
    State(api): State<Api>,
    PlatformAdmin(principal): PlatformAdmin,
    key: IdempotencyKey,
    query: ImportQuery,
    lines: Lines,
) -> Result<Response, Problem> {
    import(&api, Target::Named(HashMap::new()), principal, &key, (query, lines)).await
}

async fn import(
    api: &Api,
    mut target: Target,
    principal: Principal,
    idempotency_key: &IdempotencyKey,
    (query, mut lines): (ImportQuery, Lines),
) -> Result<Response, Problem> {
    let acting = principal.acting(&api.clock);
    let (mut read, mut body) = (Read::default(), BodyDigest::new(query.digest));
    while let Some(Line { number, fields }) = lines.next().await? {
        if read.count == MAX_LINES {
            return Err(Problem::too_many_lines(MAX_LINES));
        }
        read.count = read.count.saturating_add(1);
        if idempotency_key.is_given() {
            body.add(fields.as_ref().ok());
        }
        match fields {
            Ok(fields) => match key(api, &mut target, &mut read, (number, fields), query.expired, &acting).await? {
                Ok(key) => read.keys.extend(key),
                Err(errors) => read.refuse(number, errors),
            },
            Err(error) => read.refuse(number, vec![error]),
        }
    }
    let (once, lines) = (idempotency_key.once(body.finish()), read.count);
    // A platform admin may know what is taken elsewhere.
    let guessing = target.own().filter(|_| principal.reach().is_some());
    let make = async {
        if let Some(workspace) = guessing {
            api.guesses.may_import(workspace)?;
        }
        let made = match read.finish()? {
            Ok(keys) => make(api, keys, Acting { once, ..acting }).await,
            Err(refused) => Err(refused),
        };
        let (key_ids, revision) = made.map_err(|error| refused(api, guessing, error))?;
        done(&ImportedBody::new(key_ids, lines), revision)
    };
    idempotency::answer(api, once, make, async |made| again(&made, lines)).await
}

async fn make(api: &Api, keys: Vec<ImportedKey>, acting: Acting) -> Result<(Vec<KeyId>, Revision), StoreError> {
    let key_ids: Vec<_> = keys.iter().map(|imported| imported.key.id).collect();
    if key_ids.is_empty() {
        // All lines were left out.
        return Ok((key_ids, api.store.head().borrow().revision));
    }
    let changed = api.store.import_keys(keys, acting).await?;
    Ok((key_ids, changed.revision))
}

/// What is said where the store refuses. Of digests that are taken elsewhere an admin of one workspace, `guessing`, learns that
/// there are some, and not too often.
fn refused(api: &Api, guessing: Option<WorkspaceId>, error: StoreError) -> Problem {
    match (guessing, error) {
        (Some(own), StoreError::DigestsTaken { lines }) if lines.iter().any(|(_, of)| *of != Some(own)) => {
            api.guesses.import_refused(own);
            Problem::refused_digests()
        }
        (_, error) => error.into(),
    }
}

/// The answer to a repeat: what was imported, of a body with so many lines.
fn again(made: &Made, lines: usize) -> Result<Response, Problem> {
    let key_ids = made.ids.iter().map(|id| id.parse().map_err(|_| Problem::fault())).collect::<Result<Vec<_>, _>>()?;
    done(&ImportedBody::new(key_ids, lines), made.revision)
}

impl ImportedBody {
    fn new(key_ids: Vec<KeyId>, lines: usize) -> Self {
        Self { imported: key_ids.len(), skipped: lines.saturating_sub(key_ids.len()), key_ids }
    }
}

/// What becomes of a line whose `expires_at` has passed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expired {
    Refused,
    Skipped,
}

/// How to import.
pub(in crate::api) struct ImportQuery {
    expired: Expired,
    /// Of all of it.
    digest: Digest,
}

impl<S: Sync> FromRequestParts<S> for ImportQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let QueryFields(mut fields) = QueryFields::from_request_parts(parts, state).await?;
        let digest = fields.digest();
        let expired = fields.optional("expired", expired).unwrap_or(Expired::Refused);
        fields.finish(|| Some(Self { expired, digest }))
    }
}

fn expired(value: Value) -> Result<Expired, Refused> {
    match values::string(value)?.as_str() {
        "refuse" => Ok(Expired::Refused),
        "skip" => Ok(Expired::Skipped),
        _ => Err(Refused::new("unknown-choice", "must be `refuse`, the default, or `skip`")),
    }
}

/// Of the query and all lines in their order, each by the digest of its JSON.
struct BodyDigest(Vec<u8>);

impl BodyDigest {
    fn new(query: Digest) -> Self {
        Self(query.0.to_vec())
    }

    /// `None` is a line that isn't a JSON object, whatever it is: nothing is made of a body with one.
    fn add(&mut self, line: Option<&Fields>) {
        self.0.extend(line.map_or([0; 32], |fields| fields.digest().0));
    }

    fn finish(self) -> Digest {
        Digest::of(&self.0)
    }
}

/// What was read so far.
#[derive(Default)]
struct Read {
    count: usize,
    keys: Vec<ImportedKey>,
    /// Each with its line.
    digests: HashMap<Digest, usize>,
    /// Lines with the digest of a token in a file of the control plane's, which the store doesn't know.
    taken: Vec<usize>,
    refused: Vec<LineErrors>,
    refused_count: usize,
}

impl Read {
    fn refuse(&mut self, line: usize, errors: Vec<FieldError>) {
        self.refused_count = self.refused_count.saturating_add(1);
        if self.refused.len() < MAX_SHOWN_LINES {
            self.refused.push(LineErrors { line, errors });
        }
        // Nothing will come of the others.
        self.keys = Vec::new();
    }

    /// The keys, or that some digests are taken already.
    fn finish(self) -> Result<Result<Vec<ImportedKey>, StoreError>, Problem> {
        if self.count == 0 {
            let message = "has no line; send a key a line".to_owned();
            return Err(Problem::invalid(vec![FieldError { field: String::new(), code: "empty", message }]));
        }
        if self.refused_count > 0 {
            return Err(Problem::refused_lines(self.refused, self.refused_count));
        }
        if !self.taken.is_empty() {
            let lines = self.taken.into_iter().map(|line| (line, None)).collect();
            return Ok(Err(StoreError::DigestsTaken { lines }));
        }
        Ok(Ok(self.keys))
    }
}

/// Where keys go.
enum Target {
    One(Workspace),
    /// Where each line says; what was asked for before, by id or slug.
    Named(HashMap<String, Option<Workspace>>),
}

impl Target {
    /// The one workspace that all lines are for.
    fn own(&self) -> Option<WorkspaceId> {
        match self {
            Self::One(own) => Some(own.id),
            Self::Named(_) => None,
        }
    }

    /// The workspace of a line, `None` when that was refused.
    async fn of(&mut self, api: &Api, fields: &mut Fields) -> Result<Option<Workspace>, Problem> {
        match self {
            Self::One(own) => {
                let named = fields.optional("workspace", values::string);
                if named.is_some_and(|name| name != own.slug && name != own.id.to_string()) {
                    let message = "is not the workspace of the path; leave it out, or import at /v1/keys/import";
                    fields.refuse("workspace", Refused::new("unknown-workspace", message));
                }
                Ok(Some(own.clone()))
            }
            Self::Named(known) => {
                let Some(name) = fields.required("workspace", values::string) else { return Ok(None) };
                if !known.contains_key(&name) {
                    let found = match api.store.workspace(values::workspace_name(&name)).await {
                        Ok(workspace) => Some(workspace),
                        Err(StoreError::NotFound) => None,
                        Err(error) => return Err(error.into()),
                    };
                    known.insert(name.clone(), found);
                }
                let found = known.get(&name).cloned().flatten();
                if found.is_none() {
                    fields.refuse(
                        "workspace",
                        Refused::new("unknown-workspace", "must be the id or slug of a workspace"),
                    );
                }
                Ok(found)
            }
        }
    }
}

/// The key of a line, `None` where it is left out; or all that is wrong with it.
async fn key(
    api: &Api,
    target: &mut Target,
    read: &mut Read,
    (line, mut fields): (usize, Fields),
    expired: Expired,
    acting: &Acting,
) -> Result<Result<Option<ImportedKey>, Vec<FieldError>>, Problem> {
    if expired == Expired::Skipped && values::has_expired(&fields, acting.at) {
        return Ok(Ok(None));
    }
    let workspace = target.of(api, &mut fields).await?;
    let digest = fields.required("digest", digest);
    let name = fields.required("name", values::name);
    let expires_at = values::expiration(&mut fields, acting.at);
    let scopes = fields.optional("scopes", |value| values::scopes(value, &api.config)).unwrap_or_default();
    let allowlist = fields.optional("ip_allowlist", values::allowlist).unwrap_or_default();
    let environment = fields.optional("environment", |value| values::environment(value, &api.config));
    let environment = environment.unwrap_or_else(|| api.config.first_environment());
    let metadata = fields.optional("metadata", values::metadata).unwrap_or_default();
    let active = fields.optional("active", values::boolean).unwrap_or(true);
    let last_characters = fields.optional("last_characters", last_characters).flatten();
    if let Some(digest) = digest {
        if let Some(other) = read.digests.insert(digest, line) {
            fields.refuse("digest", Refused::new("twice", format!("stands in line {other}, too")));
        }
        if api.admin_token.has(&digest) || api.edge_token.has(&digest) {
            read.taken.push(line);
        }
    }
    let errors = fields.errors();
    if !errors.is_empty() {
        return Ok(Err(errors));
    }
    let (Some(workspace), Some(digest), Some(name), Some(expires_at)) = (workspace, digest, name, expires_at) else {
        return Err(Problem::fault());
    };
    let secret = NewSecret { digest, last_characters: LastCharacters(last_characters.unwrap_or_default()) };
    let id = api.entropy.id(&api.clock)?;
    let key = NewKey { id, name, environment, scopes, allowlist, expires_at, metadata, active, secret };
    Ok(Ok(Some(ImportedKey { line, workspace: workspace.id, key })))
}

/// At most four: whoever sends the whole secret by mistake is told.
fn last_characters(value: Value) -> Result<Option<String>, Refused> {
    let Some(text) = values::optional_string(value)? else { return Ok(None) };
    if text.chars().count() > MAX_LAST_CHARACTERS {
        let message = format!("must have at most {MAX_LAST_CHARACTERS} characters; the whole secret has no place here");
        return Err(Refused::new("too-long", message));
    }
    if text.chars().any(char::is_control) {
        return Err(Refused::new("bad-characters", "has control characters; leave them out"));
    }
    Ok(Some(text).filter(|text| !text.is_empty()))
}
