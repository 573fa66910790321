//! GET /v1/workspaces/{workspace}/keys: lists keys, a page at a time.

use axum::extract::State;
use axum::response::Response;
use policy::KeyId;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{KeyBody, filter, key_problem};
use crate::api::authority::{InWorkspace, MemberOf};
use crate::api::fields::{Fields, InvalidValue, QueryFields};
use crate::api::requests::{KeySort, KeyStatus};
use crate::api::response::{PageBody, ok_json};
use crate::api::{Api, cursor, values};
use crate::store::{Key, KeyQuery, Page, Sort};
use crate::web::problem::Problem;

/// The maximum length of a search text, in characters.
const MAX_SEARCH: usize = 100;

/// The position where a page ended: the order of the list, and the name and id of its last key.
#[derive(Serialize, Deserialize)]
struct KeyPosition(String, String, KeyId);

/// Lists the keys of a workspace.
#[utoipa::path(
    get,
    path = "/workspaces/{workspace}/keys",
    operation_id = "list_keys",
    params(
        ("limit" = Option<u32>, Query, description = "Items of a page; 50 by default", minimum = 1, maximum = 200),
        ("cursor" = Option<String>, Query, description = "The `next_cursor` of the previous page"),
        ("status" = Option<KeyStatus>, Query, description = "Only keys with this status"),
        ("q" = Option<String>, Query, description = "Part of the name, the whole id, or the last 4 characters", max_length = 100),
        ("unused_days" = Option<u32>, Query, description = "Only keys that were created, or last used, at least this many days ago", minimum = 1, maximum = 36500),
        ("unrotated_days" = Option<u32>, Query, description = "Only keys that were created, or last rotated, at least this many days ago", minimum = 1, maximum = 36500),
        ("expiring_days" = Option<u32>, Query, description = "Only keys that expire within this many days", minimum = 1, maximum = 36500),
        ("name" = Option<String>, Query, description = "Only keys of this name; `*` stands for any text, `?` for any character", min_length = 1, max_length = 100),
        ("sort" = Option<KeySort>, Query, description = "Newest first by default"),
    ),
    responses((status = 200, description = "A page", body = PageBody<KeyBody>))
)]
pub(in crate::api) async fn list(
    State(api): State<Api>,
    MemberOf(at): MemberOf,
    QueryFields(fields): QueryFields,
) -> Result<Response, Problem> {
    let (KeyPage { page, next_cursor, .. }, now) = (page(&api, &at, fields).await?, api.clock.now());
    ok_json(&PageBody { items: page.items.into_iter().map(|key| KeyBody::new(key, now)).collect(), next_cursor })
}

/// A page of keys, with the order of its list.
pub(crate) struct KeyPage {
    pub(crate) page: Page<Key>,
    pub(crate) next_cursor: Option<String>,
    pub(crate) sort: &'static str,
}

/// The page that the fields select.
pub(crate) async fn page(api: &Api, at: &InWorkspace, fields: Fields) -> Result<KeyPage, Problem> {
    let query = read(fields, api)?;
    let sort = sort_name(query.sort);
    let page = api.store.list_keys(at.workspace.id, query).await.map_err(key_problem)?;
    let last = page.items.last().filter(|_| page.more);
    let next_cursor = last.map(|last| cursor::encode(&KeyPosition(sort.to_owned(), last.name.clone(), last.id)));
    Ok(KeyPage { page, next_cursor, sort })
}

fn read(mut fields: Fields, api: &Api) -> Result<KeyQuery, Problem> {
    let limit = fields.optional("limit", values::limit).unwrap_or(values::DEFAULT_LIMIT);
    let sort = fields.optional("sort", sort).unwrap_or(Sort::Newest);
    let after = fields.optional("cursor", |value| after(value, sort));
    let search = fields.optional("q", search).filter(|search| !search.is_empty());
    let now = api.clock.now();
    let filter = filter::read(&mut fields, now);
    fields.finish(|| Some(KeyQuery { limit, sort, after, filter, search, now }))
}

/// Refuses a cursor of a list in another order, which would skip keys.
fn after(value: Value, sort: Sort) -> Result<(String, KeyId), InvalidValue> {
    let KeyPosition(order, name, id) = cursor::decode(&values::string(value)?)?;
    if order == sort_name(sort) {
        Ok((name, id))
    } else {
        Err(InvalidValue::new("bad-cursor", "belongs to a list in another order"))
    }
}

fn sort(value: Value) -> Result<Sort, InvalidValue> {
    match values::string(value)?.as_str() {
        "created_at" => Ok(Sort::Oldest),
        "-created_at" => Ok(Sort::Newest),
        "name" => Ok(Sort::Name),
        "-name" => Ok(Sort::NameDescending),
        _ => Err(InvalidValue::new("unknown-sort", "must be one of created_at, -created_at, name, -name")),
    }
}

fn sort_name(sort: Sort) -> &'static str {
    match sort {
        Sort::Oldest => "created_at",
        Sort::Newest => "-created_at",
        Sort::Name => "name",
        Sort::NameDescending => "-name",
    }
}

fn search(value: Value) -> Result<String, InvalidValue> {
    let text = values::string(value)?;
    if text.chars().count() > MAX_SEARCH {
        return Err(InvalidValue::new("too-long", format!("must have at most {MAX_SEARCH} characters")));
    }
    Ok(text)
}
