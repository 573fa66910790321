//! `Console > API Keys`: the keys of a workspace, a page at a time, or an introduction if there are none.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::view::{View, names};
use crate::api::Api;
use crate::api::authority::MemberOf;
use crate::api::keys::list;
use crate::console::enforcement::Banner;
use crate::console::page::{Area, Frame, Place, html, role_is_admin};
use crate::console::query::Asked;
use crate::console::session::Visit;
use crate::problem::Problem;

#[derive(Template)]
#[template(path = "keys.html")]
struct Page {
    frame: Frame,
    place: Place,
    banner: Option<Banner>,
    may_change: bool,
    rows: Vec<View>,
    /// Whether any filter is set.
    is_filtered: bool,
    is_first_page: bool,
    q: String,
    status: String,
    sort: &'static str,
    by_name: String,
    by_age: String,
    next: Option<String>,
    first: String,
}

pub(in crate::console) async fn show(
    State(api): State<Api>,
    visit: Visit,
    MemberOf(at): MemberOf,
    asked: Asked,
) -> Result<Response, Problem> {
    let listed = list::page(&api, &at, asked.fields()).await?;
    let (now, names) = (api.clock.now(), names(&api, &listed.page.items).await?);
    let path = format!("/console/workspaces/{}/keys", at.workspace.slug);
    let by = |first, second| asked.with(&path, "sort", if listed.sort == first { second } else { first });
    let filters = ["q", "status", "unused_days", "unrotated_days", "expiring_days", "name"];
    let page = Page {
        frame: Frame::within(&visit, &at.workspace, Area::Keys),
        place: Place::of(&at.workspace),
        may_change: role_is_admin(at.principal.role()),
        rows: listed.page.items.iter().map(|key| View::new(key, &at.workspace, &names, now)).collect(),
        is_filtered: filters.into_iter().any(|name| !asked.text(name).is_empty()),
        is_first_page: asked.text("cursor").is_empty(),
        q: asked.text("q").to_owned(),
        status: asked.text("status").to_owned(),
        sort: listed.sort,
        by_name: by("name", "-name"),
        by_age: by("-created_at", "created_at"),
        next: listed.next_cursor.map(|next| asked.with(&path, "cursor", &next)),
        first: asked.with(&path, "cursor", ""),
        banner: Banner::of(&api, asked.done).await,
    };
    html(StatusCode::OK, &page)
}
