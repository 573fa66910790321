//! POST …/keys/deactivate-matching, /delete-matching: bulk clean-up of unused keys, with a dry run.

use axum::extract::State;
use axum::response::Response;
use policy::KeyId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::authority::Within;
use crate::api::response::bulk_summary;
use crate::operations::fields::Fields;
use crate::operations::keys::clean_up::MatchingKeys;
use crate::operations::permissions::may;
use crate::operations::principal::InWorkspace;
use crate::operations::request::RequestBody as _;
use crate::store::{CleanUpAction, MatchingKey};
use crate::web::problem::Problem;

/// The keys that match.
#[derive(Serialize, ToSchema)]
#[schema(as = Matching)]
struct MatchingBody {
    /// Whether nothing was changed.
    dry_run: bool,
    matched: u64,
    /// The first 1,000 of them, oldest first.
    keys: Vec<MatchedBody>,
}

/// A key that matches.
#[derive(Serialize, ToSchema)]
#[schema(as = Matched)]
struct MatchedBody {
    #[schema(value_type = String)]
    id: KeyId,
    name: String,
}

/// Deactivates all active keys that match, or lists them with `dry_run`.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/deactivate-matching",
    operation_id = "deactivate_matching_keys",
    request_body = MatchingKeys,
    responses((status = 200, description = "The keys that match", body = MatchingBody))
)]
pub(in crate::api) async fn deactivate(
    State(api): State<Api>,
    Within(at, ..): Within<may::RevokeKeys>,
    fields: Fields,
) -> Result<Response, Problem> {
    clean_up(&api, &at, fields, CleanUpAction::Deactivate).await
}

/// Deletes all keys that match permanently, or lists them with `dry_run`.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/delete-matching",
    operation_id = "delete_matching_keys",
    request_body = MatchingKeys,
    responses((status = 200, description = "The keys that match", body = MatchingBody))
)]
pub(in crate::api) async fn delete(
    State(api): State<Api>,
    Within(at, ..): Within<may::ManageKeys>,
    fields: Fields,
) -> Result<Response, Problem> {
    clean_up(&api, &at, fields, CleanUpAction::Delete).await
}

async fn clean_up(api: &Api, at: &InWorkspace, fields: Fields, action: CleanUpAction) -> Result<Response, Problem> {
    let operations = api.operations();
    let request = MatchingKeys::parse(fields, &operations.context_in(at))?;
    let dry_run = request.dry_run;
    let found = operations.clean_up(at, action, request).await?;
    let keys = found.value.first.into_iter().map(|MatchingKey { id, name }| MatchedBody { id, name }).collect();
    bulk_summary(&MatchingBody { dry_run, matched: found.value.count, keys }, found.revision)
}
