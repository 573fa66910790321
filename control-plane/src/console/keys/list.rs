//! `Console > API Keys`: the keys of a workspace, a page at a time, or an introduction if there are none.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::view::{KeyView, creator_names};
use crate::api::Api;
use crate::api::authority::Within;
use crate::console::enforcement::Banner;
use crate::console::page::{Area, Frame, WorkspaceRef, html};
use crate::console::query::PageQuery;
use crate::console::session::ConsoleSession;
use crate::operations::choice::Choice as _;
use crate::operations::permissions::{Permission, may};
use crate::web::problem::Problem;

#[derive(Template)]
#[template(path = "keys.html")]
struct Page {
    frame: Frame,
    workspace: WorkspaceRef,
    banner: Option<Banner>,
    may_change: bool,
    may_revoke: bool,
    rows: Vec<KeyView>,
    /// Whether any filter is set.
    is_filtered: bool,
    is_first_page: bool,
    q: String,
    status: String,
    sort: &'static str,
    by_name: String,
    by_creation: String,
    next: Option<String>,
    first: String,
}

pub(in crate::console) async fn show(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::ReadKeys>,
    params: PageQuery,
) -> Result<Response, Problem> {
    let listed = api.operations().list_keys(&at, params.fields()).await?;
    let (now, names) = (api.clock.now(), creator_names(&api, &listed.page.items).await?);
    let (path, sort) = (format!("/console/workspaces/{}/keys", at.workspace.slug), listed.sort.as_str());
    let by = |first, second| params.url_with(&path, "sort", if sort == first { second } else { first });
    let filters = ["q", "status", "unused_days", "unrotated_days", "expiring_days", "name"];
    let page = Page {
        frame: Frame::within(&session, &at.workspace, Area::Keys),
        workspace: WorkspaceRef::of(&at.workspace),
        may_change: at.principal.may(Permission::ManageKeys),
        may_revoke: at.principal.may(Permission::RevokeKeys),
        rows: listed.page.items.iter().map(|key| KeyView::new(key, &at.workspace, &names, now)).collect(),
        is_filtered: filters.into_iter().any(|name| !params.text(name).is_empty()),
        is_first_page: params.text("cursor").is_empty(),
        q: params.text("q").to_owned(),
        status: params.text("status").to_owned(),
        sort,
        by_name: by("name", "-name"),
        by_creation: by("-created_at", "created_at"),
        next: listed.next_cursor.map(|next| params.url_with(&path, "cursor", &next)),
        first: params.url_with(&path, "cursor", ""),
        banner: Banner::of(&api, params.completed).await,
    };
    html(StatusCode::OK, &page)
}
