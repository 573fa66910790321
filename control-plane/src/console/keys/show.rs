//! A key's page: details, use, denials and audit trail.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::DenyReason;

use super::chart::Chart;
use super::rotate::RotateForm;
use super::rotation::Rotation;
use super::view::{KeyView, creator_names};
use crate::api::Api;
use crate::api::authority::Within;
use crate::api::path::KeyInPath;
use crate::console::audit::{AuditEntry, latest};
use crate::console::display::{self, Moment};
use crate::console::enforcement::Banner;
use crate::console::page::{Area, Frame, WorkspaceRef, html};
use crate::console::query::PageQuery;
use crate::console::session::ConsoleSession;
use crate::operations::permissions::{Permission, may};
use crate::operations::principal::InWorkspace;
use crate::store::Key;
use crate::web::problem::Problem;

#[derive(Template)]
#[template(path = "key.html")]
struct Page {
    frame: Frame,
    workspace: WorkspaceRef,
    banner: Option<Banner>,
    may_change: bool,
    may_revoke: bool,
    key: KeyView,
    rotation: Option<Rotation>,
    rotate_form: Option<RotateForm>,
    chart: Chart,
    denials: Vec<DenialRow>,
    entries: Option<Vec<AuditEntry>>,
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
    session: ConsoleSession,
    Within(at, ..): Within<may::ReadKeys>,
    KeyInPath(id): KeyInPath,
    params: PageQuery,
) -> Result<Response, Problem> {
    let key = api.operations().key(&at, id).await?;
    let banner = Banner::of(&api, params.completed).await;
    html(StatusCode::OK, &page(&api, &session, &at, &key, banner).await?)
}

async fn page(
    api: &Api,
    session: &ConsoleSession,
    at: &InWorkspace,
    key: &Key,
    banner: Option<Banner>,
) -> Result<Page, Problem> {
    let now = api.clock.now();
    let usage = api.operations().key_usage(at, key.id).await?;
    let names = creator_names(api, std::slice::from_ref(key)).await?;
    let may_change = at.principal.may(Permission::ManageKeys);
    let view = KeyView::new(key, &at.workspace, &names, now);
    let denials = usage.denials.iter().map(|denial| DenialRow {
        at: Moment::new(denial.at, now),
        code: denial.code.clone(),
        meaning: meaning(&denial.code),
        address: denial.address.map(|address| address.to_string()),
        method: denial.method.clone(),
        path: denial.path.clone(),
    });
    Ok(Page {
        frame: Frame::within(session, &at.workspace, Area::Keys),
        workspace: WorkspaceRef::of(&at.workspace),
        banner,
        may_change,
        may_revoke: at.principal.may(Permission::RevokeKeys),
        rotation: Rotation::of(key, &at.workspace, session, now),
        rotate_form: if may_change && !view.is_expired { Some(RotateForm::of(api, &view.href, key)?) } else { None },
        chart: Chart::of(&usage, now),
        denials: denials.collect(),
        entries: if at.principal.may(Permission::ReadAudit) {
            Some(latest(api, at.workspace.id, &view.id).await?)
        } else {
            None
        },
        audit_href: format!("/console/workspaces/{}/audit?target={}", at.workspace.slug, view.id),
        key: view,
    })
}

/// What a code means, to find the cause of a denial.
fn meaning(code: &str) -> &'static str {
    // A newer edge may report another code.
    let Some(reason) = DenyReason::from_code(code) else { return "Denied." };
    match reason {
        DenyReason::RotatedKey => "An old secret: the client doesn't have the new one yet.",
        DenyReason::InactiveKey => "The key was deactivated.",
        DenyReason::ExpiredKey => "The key had expired.",
        DenyReason::AddressNotAllowed => "The client's address isn't on the allowlist.",
        DenyReason::MissingScope => "The route needs a scope, or a level, that the key doesn't have.",
        DenyReason::WrongWorkspace => "The path belongs to another workspace.",
        DenyReason::NoRouteRule => "The route has no rule, or one that denies.",
        DenyReason::BadAuthority => "The request's host contained an API key.",
        DenyReason::BadPath => "The path has a form that rules can't match safely.",
        // Without a correct secret: no report of a key's denials has them.
        DenyReason::MissingKey
        | DenyReason::MultipleKeys
        | DenyReason::MalformedKey
        | DenyReason::WrongEnvironment
        | DenyReason::NotReady
        | DenyReason::Stale
        | DenyReason::UnknownKey => "Denied.",
    }
}
