//! A key's page: details, use, denials and audit trail.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::chart::Chart;
use super::rotate::Question;
use super::rotation::Rotation;
use super::view::{View, names};
use crate::api::Api;
use crate::api::authority::{InWorkspace, MemberOf};
use crate::api::keys::of_key;
use crate::api::path::KeyInPath;
use crate::console::audit::{Entry, latest};
use crate::console::enforcement::Banner;
use crate::console::page::{Area, Frame, Place, html, role_is_admin};
use crate::console::query::Asked;
use crate::console::session::Visit;
use crate::console::words::{self, Moment};
use crate::problem::Problem;
use crate::store::Key;

#[derive(Template)]
#[template(path = "key.html")]
struct Page {
    frame: Frame,
    place: Place,
    banner: Option<Banner>,
    may_change: bool,
    key: View,
    rotation: Option<Rotation>,
    question: Option<Question>,
    chart: Chart,
    denials: Vec<DenialRow>,
    entries: Option<Vec<Entry>>,
    audit_href: String,
}

/// A denied request that had a secret of this key.
struct DenialRow {
    at: Moment,
    code: String,
    meaning: &'static str,
    address: Option<String>,
    method: String,
    path: String,
}

pub(in crate::console) async fn show(
    State(api): State<Api>,
    visit: Visit,
    MemberOf(at): MemberOf,
    KeyInPath(id): KeyInPath,
    asked: Asked,
) -> Result<Response, Problem> {
    let key = api.store.key(at.workspace.id, id).await.map_err(of_key)?;
    let banner = Banner::of(&api, asked.done).await;
    html(StatusCode::OK, &page(&api, &visit, &at, &key, banner).await?)
}

async fn page(api: &Api, visit: &Visit, at: &InWorkspace, key: &Key, banner: Option<Banner>) -> Result<Page, Problem> {
    let now = api.clock.now();
    let usage = api.store.usage(at.workspace.id, key.id, now).await.map_err(of_key)?;
    let names = names(api, std::slice::from_ref(key)).await?;
    let may_change = role_is_admin(at.principal.role());
    let view = View::new(key, &at.workspace, &names, now);
    let denials = usage.denials.iter().map(|denial| DenialRow {
        at: Moment::new(denial.at, now),
        code: denial.code.clone(),
        meaning: meaning(&denial.code),
        address: denial.address.map(|address| address.to_string()),
        method: denial.method.clone(),
        path: denial.path.clone(),
    });
    Ok(Page {
        frame: Frame::within(visit, &at.workspace, Area::Keys),
        place: Place::of(&at.workspace),
        banner,
        may_change,
        rotation: Rotation::of(key, &at.workspace, visit, now),
        question: if may_change && !view.is_expired { Some(Question::of(api, &view.href, key)?) } else { None },
        chart: Chart::of(&usage, now),
        denials: denials.collect(),
        // The audit trail is for admins, as in REST.
        entries: if may_change { Some(latest(api, at.workspace.id, &view.id).await?) } else { None },
        audit_href: format!("/console/workspaces/{}/audit?target={}", at.workspace.slug, view.id),
        key: view,
    })
}

/// What a code means, to find the cause of a denial.
fn meaning(code: &str) -> &'static str {
    match code {
        "rotated-key" => "An old secret: the client hasn't got the new one.",
        "inactive-key" => "The key was deactivated.",
        "expired-key" => "The key had expired.",
        "address-not-allowed" => "The client's address isn't on the allowlist.",
        "missing-scope" => "The route needs a scope, or a level, that the key doesn't have.",
        "wrong-workspace" => "The path belongs to another workspace.",
        "no-route-rule" => "The route has no rule, or one that denies.",
        "bad-authority" => "The host of the request held an API key.",
        "bad-path" => "The path is written in a way that no rule matches safely.",
        _ => "Denied.",
    }
}
