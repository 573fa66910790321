//! POST …/keys/deactivate-matching, /delete-matching: bulk clean-up of unused keys, with a dry run.

use axum::extract::State;
use axum::response::Response;
use policy::KeyId;
use serde::Serialize;
use utoipa::ToSchema;

use super::{filter, key_problem};
use crate::api::authority::{AdminOf, InWorkspace};
use crate::api::fields::{Fields, InvalidValue};
use crate::api::requests::MatchingKeys;
use crate::api::response::bulk_summary;
use crate::api::{Api, values};
use crate::store::{CleanUpAction, KeyFilter, MatchingKey};
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
    AdminOf(at): AdminOf,
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
    AdminOf(at): AdminOf,
    fields: Fields,
) -> Result<Response, Problem> {
    clean_up(&api, &at, fields, CleanUpAction::Delete).await
}

async fn clean_up(api: &Api, at: &InWorkspace, mut fields: Fields, action: CleanUpAction) -> Result<Response, Problem> {
    let context = at.principal.change_context(&api.clock);
    let dry_run = fields.required("dry_run", values::boolean);
    let filter = filter::read(&mut fields, context.at);
    if filter == KeyFilter::default() && !fields.has_errors() {
        let message = "send at least one of unused_days, unrotated_days, expiring_days, name and status: otherwise all \
                       keys would match";
        fields.refuse("", InvalidValue::new("required", message));
    }
    let dry_run = fields.finish(|| dry_run)?;
    let workspace = at.workspace.id;
    let found = if dry_run {
        api.store.matching_keys(workspace, filter, action, context.at).await
    } else {
        api.store.clean_up(workspace, filter, action, context).await
    };
    let found = found.map_err(key_problem)?;
    let keys = found.value.first.into_iter().map(|MatchingKey { id, name }| MatchedBody { id, name }).collect();
    bulk_summary(&MatchingBody { dry_run, matched: found.value.count, keys }, found.revision)
}
