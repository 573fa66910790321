//! GET /v1/workspaces/{workspace}/keys: lists keys, a page at a time.

use axum::extract::State;
use axum::response::Response;

use super::KeyBody;
use crate::api::Api;
use crate::api::authority::Within;
use crate::api::query::{PageParams, QueryFields};
use crate::api::response::{PageBody, ok_json};
use crate::operations::keys::list::KeyPage;
use crate::operations::permissions::may;
use crate::store::{Sort, Status};
use crate::web::problem::Problem;

/// Lists the keys of a workspace.
#[utoipa::path(
    get,
    path = "/workspaces/{workspace}/keys",
    operation_id = "list_keys",
    params(
        PageParams,
        ("status" = Option<Status>, Query, description = "Only keys with this status"),
        ("q" = Option<String>, Query, description = "Part of the name, the whole id, or the last 4 characters", max_length = 100),
        ("unused_days" = Option<u32>, Query, description = "Only keys that were created, or last used, at least this many days ago", minimum = 1, maximum = 36500),
        ("unrotated_days" = Option<u32>, Query, description = "Only keys that were created, or last rotated, at least this many days ago", minimum = 1, maximum = 36500),
        ("expiring_days" = Option<u32>, Query, description = "Only keys that expire within this many days", minimum = 1, maximum = 36500),
        ("name" = Option<String>, Query, description = "Only keys of this name; `*` stands for any text, `?` for any character", min_length = 1, max_length = 100),
        ("sort" = Option<Sort>, Query, description = "Newest first by default"),
    ),
    responses((status = 200, description = "A page", body = PageBody<KeyBody>))
)]
pub(in crate::api) async fn list(
    State(api): State<Api>,
    Within(at, ..): Within<may::ReadKeys>,
    QueryFields(fields): QueryFields,
) -> Result<Response, Problem> {
    let (KeyPage { page, next_cursor, .. }, now) = (api.operations().list_keys(&at, fields).await?, api.clock.now());
    ok_json(&PageBody { items: page.items.into_iter().map(|key| KeyBody::new(key, now)).collect(), next_cursor })
}
