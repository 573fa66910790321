//! POST …/keys/deactivate-matching, /delete-matching: bulk removal of unneeded keys, with a dry run.

use axum::extract::State;
use axum::response::Response;
use policy::KeyId;
use serde::Serialize;
use utoipa::ToSchema;

use super::{filter, of_key};
use crate::api::answer::done;
use crate::api::authority::{AdminOf, InWorkspace};
use crate::api::fields::{Fields, Refused};
use crate::api::requests::MatchingKeys;
use crate::api::{Api, values};
use crate::problem::Problem;
use crate::store::{Cleaning, KeyFilter, Matched};

/// The keys that fit.
#[derive(Serialize, ToSchema)]
#[schema(as = Matching)]
struct MatchingBody {
    /// Whether nothing was changed.
    dry_run: bool,
    matched: u64,
    /// The first 1,000 of them, oldest first.
    keys: Vec<MatchedBody>,
}

/// A key that fits.
#[derive(Serialize, ToSchema)]
#[schema(as = Matched)]
struct MatchedBody {
    #[schema(value_type = String)]
    id: KeyId,
    name: String,
}

/// Deactivates all active keys that fit, or says which those are.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/deactivate-matching",
    operation_id = "deactivate_matching_keys",
    request_body = MatchingKeys,
    responses((status = 200, description = "The keys that fit", body = MatchingBody))
)]
pub(in crate::api) async fn deactivate(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    fields: Fields,
) -> Result<Response, Problem> {
    clean_up(&api, &at, fields, Cleaning::Deactivate).await
}

/// Deletes all keys that fit, for good, or says which those are.
#[utoipa::path(
    post,
    path = "/workspaces/{workspace}/keys/delete-matching",
    operation_id = "delete_matching_keys",
    request_body = MatchingKeys,
    responses((status = 200, description = "The keys that fit", body = MatchingBody))
)]
pub(in crate::api) async fn delete(
    State(api): State<Api>,
    AdminOf(at): AdminOf,
    fields: Fields,
) -> Result<Response, Problem> {
    clean_up(&api, &at, fields, Cleaning::Delete).await
}

async fn clean_up(api: &Api, at: &InWorkspace, mut fields: Fields, cleaning: Cleaning) -> Result<Response, Problem> {
    let acting = at.principal.acting(&api.clock);
    let dry_run = fields.required("dry_run", values::boolean);
    let filter = filter::read(&mut fields, acting.at);
    if filter == KeyFilter::default() && !fields.has_refused() {
        let message =
            "name at least one of unused_days, unrotated_days, expiring_days, name and status: else all keys would fit";
        fields.refuse("", Refused::new("required", message));
    }
    let dry_run = fields.finish(|| dry_run)?;
    let workspace = at.workspace.id;
    let found = if dry_run {
        api.store.matching_keys(workspace, filter, cleaning, acting.at).await
    } else {
        api.store.clean_up(workspace, filter, cleaning, acting).await
    };
    let found = found.map_err(of_key)?;
    let keys = found.value.first.into_iter().map(|Matched { id, name }| MatchedBody { id, name }).collect();
    done(&MatchingBody { dry_run, matched: found.value.count, keys }, found.revision)
}
