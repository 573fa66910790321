//! POST …/keys/import: imports keys of other systems by the digests of their secrets, all or none.
//!
//! The body is stored until it is complete. Only then does the import count among the running ones, which are limited.

mod check;
mod line;

use std::collections::HashMap;
use std::panic::resume_unwind;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::Response;
use policy::{Digest, KeyId, Revision, WorkspaceId};
use serde::Serialize;
use tokio::task::{JoinHandle, spawn_blocking};
use utoipa::openapi::path::{Parameter, ParameterIn};
use utoipa::{IntoParams, ToSchema};

use self::check::{CheckedImport, ImportRefusal, check};
pub(in crate::api) use self::line::ExpiredLine;
use self::line::{ImportKey, ImportTarget, LineReader};
use crate::api::Api;
use crate::api::authority::{Platform, Within};
use crate::api::idempotency::{self, IdempotencyKey};
use crate::api::json_lines::{Lines, LinesBody};
use crate::api::query::{QueryFields, query_parameter};
use crate::api::response::bulk_summary;
use crate::operations::choice::Choice as _;
use crate::operations::permissions::may;
use crate::operations::principal::Principal;
use crate::operations::request::reference;
use crate::store::{ChangeContext, Import, OnceResult, StoreError};
use crate::web::problem::Problem;

/// The result of an import.
#[derive(Serialize, ToSchema)]
#[schema(as = Imported)]
struct ImportedBody {
    imported: usize,
    /// Lines that were skipped, because their keys had expired.
    skipped: usize,
    /// In the order of the lines.
    #[schema(value_type = Vec<String>)]
    key_ids: Vec<KeyId>,
}

/// The parameter `expired`, as the document describes it.
struct ExpiredParam;

impl IntoParams for ExpiredParam {
    fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
        let text = "What to do with lines whose `expires_at` has passed; they are refused by default";
        vec![query_parameter("expired", text, reference::<ExpiredLine>()).build()]
    }
}

/// Imports digests into a workspace: all lines or none.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/import",
    operation_id = "import_keys",
    request_body(content = ImportKey, content_type = "application/jsonl", description = "One key per line, at most 100,000"),
    params(ExpiredParam, IdempotencyKey),
    responses((status = 200, description = "All were imported", body = ImportedBody))
)]
pub(in crate::api) async fn into_workspace(
    State(api): State<Api>,
    Within(at, ..): Within<may::ManageKeys>,
    key: IdempotencyKey,
    query: ImportQuery,
    body: LinesBody,
) -> Result<Response, Problem> {
    import(api, ImportTarget::One(at.workspace), at.principal, key, query, body).await
}

/// Imports digests into the workspaces that the lines name: all lines or none.
#[utoipa::path(
    post,
    path = "/keys/import",
    operation_id = "import_keys_anywhere",
    request_body(content = ImportKey, content_type = "application/jsonl", description = "One key per line, at most 100,000"),
    params(ExpiredParam, IdempotencyKey),
    responses((status = 200, description = "All were imported", body = ImportedBody))
)]
pub(in crate::api) async fn into_each(
    State(api): State<Api>,
    Platform(principal, ..): Platform<may::ManageKeys>,
    key: IdempotencyKey,
    query: ImportQuery,
    body: LinesBody,
) -> Result<Response, Problem> {
    import(api, ImportTarget::Named(HashMap::new()), principal, key, query, body).await
}

/// An import whose body is complete.
struct CompleteImport {
    api: Api,
    target: ImportTarget,
    /// The workspace that all lines are for.
    own: Option<WorkspaceId>,
    /// The same workspace, if its own admin imports, who must not learn which digests are taken in other workspaces.
    /// `None` for a platform admin, who may.
    tenant: Option<WorkspaceId>,
    principal: Principal,
    context: ChangeContext,
    key: IdempotencyKey,
    query: ImportQuery,
    lines: Lines,
}

async fn import(
    api: Api,
    target: ImportTarget,
    principal: Principal,
    key: IdempotencyKey,
    query: ImportQuery,
    body: LinesBody,
) -> Result<Response, Problem> {
    let own = target.own();
    let tenant = own.filter(|_| principal.reach().is_some());
    let lines = body.complete(&api, tenant).await?;
    let context = principal.change_context(&api.clock);
    let import = CompleteImport { api, target, own, tenant, principal, context, key, query, lines };
    // A separate task: if the client disconnects, the import still completes, and counts as running until then.
    join(tokio::spawn(import.answer())).await
}

impl CompleteImport {
    async fn answer(self) -> Result<Response, Problem> {
        let Self { api, target, own, tenant, principal, context, key, query, lines } = self;
        let once = key.for_any_body();
        let _running = once.map(|once| api.store.begin_once(once)).transpose()?;
        if let Some(once) = once
            && let Some(made) = api.store.once_result(once, api.clock.now()).await?
        {
            let (body, lines) = join(spawn_blocking(move || check::digest(query.digest, lines))).await?;
            return idempotency::replay(Some(body), made, async |made| replay(&made, lines)).await;
        }
        if let Some(workspace) = tenant {
            api.auth_failures.check_import(workspace)?;
        }
        let _slot = api.imports.acquire(own)?;
        let reader = LineReader::new(api.clone(), target, principal, query.expired, context.at);
        let (checking, wanted) = (api.clone(), once.map(|_| query.digest));
        let checked = join(spawn_blocking(move || check(&checking, wanted, lines, reader))).await?;
        let CheckedImport { digest, lines, outcome } = checked;
        let once = digest.and_then(|body| key.for_body(body));
        let run = async {
            let made = match outcome {
                Ok(import) => {
                    run_import(&api, Import { of_tenant: tenant, ..import }, ChangeContext { once, ..context }).await
                }
                Err(ImportRefusal::Taken(error)) => Err(error),
                Err(ImportRefusal::Lines(problem)) => return Err(problem),
            };
            let (key_ids, revision) = made.map_err(|error| store_problem(&api, tenant, error))?;
            bulk_summary(&ImportedBody::new(key_ids, lines), revision)
        };
        idempotency::run_or_replay(&api, once, run, async |made| replay(&made, lines)).await
    }
}

/// The result of a task. Its panic becomes the request's.
async fn join<T>(task: JoinHandle<Result<T, Problem>>) -> Result<T, Problem> {
    match task.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => resume_unwind(panic),
            // Cancelled: the control plane is shutting down.
            Err(_) => Err(Problem::timeout()),
        },
    }
}

async fn run_import(api: &Api, import: Import, context: ChangeContext) -> Result<(Vec<KeyId>, Revision), StoreError> {
    if import.ids.is_empty() {
        // All lines were skipped.
        return Ok((import.ids, api.store.head().borrow().revision));
    }
    let changed = api.store.import_keys(import, context).await?;
    Ok((changed.value, changed.revision))
}

/// The problem when the store refuses. An admin of one workspace, `tenant`, learns only that some digests are taken in
/// other workspaces, and only a limited number of times.
fn store_problem(api: &Api, tenant: Option<WorkspaceId>, error: StoreError) -> Problem {
    match (tenant, error) {
        (Some(own), StoreError::DigestsTaken { lines }) if lines.iter().any(|(_, of)| *of != Some(own)) => {
            api.auth_failures.record_refused_import(own);
            Problem::refused_digests()
        }
        (_, error) => error.into(),
    }
}

/// The response to a retry: what was imported from a body with this many lines.
fn replay(made: &OnceResult, lines: usize) -> Result<Response, Problem> {
    let key_ids = made.ids.iter().map(|id| id.parse().map_err(|_| Problem::fault())).collect::<Result<Vec<_>, _>>()?;
    bulk_summary(&ImportedBody::new(key_ids, lines), made.revision)
}

impl ImportedBody {
    fn new(key_ids: Vec<KeyId>, lines: usize) -> Self {
        Self { imported: key_ids.len(), skipped: lines.saturating_sub(key_ids.len()), key_ids }
    }
}

/// The parameters of an import.
#[derive(Clone, Copy)]
pub(in crate::api) struct ImportQuery {
    expired: ExpiredLine,
    /// The digest of the whole query.
    digest: Digest,
}

impl<S: Sync> FromRequestParts<S> for ImportQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let QueryFields(mut fields) = QueryFields::from_request_parts(parts, state).await?;
        let digest = fields.digest();
        let expired = fields.optional("expired", ExpiredLine::from_value).unwrap_or(ExpiredLine::Refuse);
        Ok(fields.finish(|| Some(Self { expired, digest }))?)
    }
}
