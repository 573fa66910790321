//! POST …/keys/import: imports keys of other systems by the digests of their secrets, all or none.
//!
//! The body is stored until it is complete. Only then does the import take a place among the running ones.

mod check;
mod line;

use std::collections::HashMap;
use std::panic::resume_unwind;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Response;
use policy::{Digest, KeyId, Revision, WorkspaceId};
use serde::Serialize;
use serde_json::Value;
use tokio::task::{JoinHandle, spawn_blocking};
use utoipa::ToSchema;

use self::check::{Checked, Refusal, check};
use self::line::{Expired, LineReader, Target};
use crate::api::answer::done;
use crate::api::authority::{AdminOf, PlatformAdmin};
use crate::api::fields::{QueryFields, Refused};
use crate::api::idempotency::{self, IdempotencyKey};
use crate::api::lines::{Lines, LinesBody};
use crate::api::principal::Principal;
use crate::api::requests::{ExpiredLines, ImportKey};
use crate::api::{Api, values};
use crate::problem::Problem;
use crate::store::{Acting, Import, Made, StoreError};

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
    body: LinesBody,
) -> Result<Response, Problem> {
    import(api, Target::One(at.workspace), at.principal, key, query, body).await
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
    body: LinesBody,
) -> Result<Response, Problem> {
    import(api, Target::Named(HashMap::new()), principal, key, query, body).await
}

/// An import whose body is complete.
struct CompleteImport {
    api: Api,
    target: Target,
    /// The workspace that all lines are for.
    own: Option<WorkspaceId>,
    /// The same if its own admin imports, who must not learn what is taken elsewhere; a platform admin may.
    guessing: Option<WorkspaceId>,
    acting: Acting,
    key: IdempotencyKey,
    query: ImportQuery,
    lines: Lines,
}

async fn import(
    api: Api,
    target: Target,
    principal: Principal,
    key: IdempotencyKey,
    query: ImportQuery,
    body: LinesBody,
) -> Result<Response, Problem> {
    let own = target.own();
    let guessing = own.filter(|_| principal.reach().is_some());
    let lines = body.complete(&api, guessing).await?;
    let acting = principal.acting(&api.clock);
    let import = CompleteImport { api, target, own, guessing, acting, key, query, lines };
    // A task of its own: if the client disconnects, nothing is left half done, and the import keeps its place.
    finished(tokio::spawn(import.answer())).await
}

impl CompleteImport {
    async fn answer(self) -> Result<Response, Problem> {
        let Self { api, target, own, guessing, acting, key, query, lines } = self;
        let once = key.once_of_any_body();
        let _running = once.map(|once| api.store.begin_once(once)).transpose()?;
        if let Some(once) = once
            && let Some(made) = api.store.made_once(once, api.clock.now()).await?
        {
            let (body, lines) = finished(spawn_blocking(move || check::digest(query.digest, lines))).await?;
            return idempotency::repeated(Some(body), made, async |made| again(&made, lines)).await;
        }
        if let Some(workspace) = guessing {
            api.guesses.may_import(workspace)?;
        }
        let _place = api.imports.take(own)?;
        let reader = LineReader::new(api.clone(), target, query.expired, acting.at);
        let (checking, wanted) = (api.clone(), once.map(|_| query.digest));
        let checked = finished(spawn_blocking(move || check(&checking, wanted, lines, reader))).await?;
        let Checked { digest, lines, outcome } = checked;
        let once = digest.and_then(|body| key.once(body));
        let make = async {
            let made = match outcome {
                Ok(import) => make(&api, Import { of_tenant: guessing, ..import }, Acting { once, ..acting }).await,
                Err(Refusal::Taken(error)) => Err(error),
                Err(Refusal::Lines(problem)) => return Err(problem),
            };
            let (key_ids, revision) = made.map_err(|error| refused(&api, guessing, error))?;
            done(&ImportedBody::new(key_ids, lines), revision)
        };
        idempotency::make_or_repeat(&api, once, make, async |made| again(&made, lines)).await
    }
}

/// The result of a task. Its panic becomes the request's.
async fn finished<T>(task: JoinHandle<Result<T, Problem>>) -> Result<T, Problem> {
    match task.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // Cancelled: the control plane is shutting down.
            Err(_) => Err(Problem::timeout()),
        },
    }
}

async fn make(api: &Api, import: Import, acting: Acting) -> Result<(Vec<KeyId>, Revision), StoreError> {
    if import.ids.is_empty() {
        // All lines were skipped.
        return Ok((import.ids, api.store.head().borrow().revision));
    }
    let changed = api.store.import_keys(import, acting).await?;
    Ok((changed.value, changed.revision))
}

/// The answer when the store refuses. An admin of one workspace, `guessing`, learns only that some digests are taken
/// elsewhere, and not too often.
fn refused(api: &Api, guessing: Option<WorkspaceId>, error: StoreError) -> Problem {
    match (guessing, error) {
        (Some(own), StoreError::DigestsTaken { lines }) if lines.iter().any(|(_, of)| *of != Some(own)) => {
            api.guesses.import_refused(own);
            Problem::refused_digests()
        }
        (_, error) => error.into(),
    }
}

/// The answer to a repeated request: what was imported from a body with this many lines.
fn again(made: &Made, lines: usize) -> Result<Response, Problem> {
    let key_ids = made.ids.iter().map(|id| id.parse().map_err(|_| Problem::fault())).collect::<Result<Vec<_>, _>>()?;
    done(&ImportedBody::new(key_ids, lines), made.revision)
}

impl ImportedBody {
    fn new(key_ids: Vec<KeyId>, lines: usize) -> Self {
        Self { imported: key_ids.len(), skipped: lines.saturating_sub(key_ids.len()), key_ids }
    }
}

/// How to import.
#[derive(Clone, Copy)]
pub(in crate::api) struct ImportQuery {
    expired: Expired,
    /// Of the whole query.
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
