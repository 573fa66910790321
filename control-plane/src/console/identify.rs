//! `Found a leaked key?`: identifies a found text, with what to do about it.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Map;

use super::form::{Posted, fields, with};
use super::page::{Area, Frame, html};
use super::problems::Errors;
use super::session::Visit;
use super::words::{Moment, role_of_word};
use crate::api::Api;
use crate::api::authority::AnyAdmin;
use crate::api::identify::{self, IdentifiedBody};
use crate::problem::Problem;
use crate::store::WorkspaceName;

#[derive(Template)]
#[template(path = "identify.html")]
struct Page {
    frame: Frame,
    errors: Errors,
    /// A text was given, and it matches nothing within reach.
    is_unknown: bool,
    found: Option<Found>,
}

/// What the text is.
struct Found {
    /// It still works.
    is_live: bool,
    headline: &'static str,
    meaning: &'static str,
    name: String,
    last_characters: Option<String>,
    workspace: Option<String>,
    role: Option<&'static str>,
    edge: Option<String>,
    created: Option<Moment>,
    ended: Option<Moment>,
    /// The path of the key's page, if the key exists.
    key_href: Option<String>,
    is_key_active: bool,
    revoke_href: Option<String>,
}

pub(super) async fn show(visit: Visit, _: AnyAdmin) -> Result<Response, Problem> {
    let frame = Frame::new(&visit, Area::Identify);
    html(StatusCode::OK, &Page { frame, errors: Errors::none(), is_unknown: false, found: None })
}

/// Answers without a redirect, because it changes nothing. The form never repeats the text.
pub(super) async fn find(
    State(api): State<Api>,
    visit: Visit,
    AnyAdmin(principal): AnyAdmin,
    form: Posted,
) -> Result<Response, Problem> {
    let frame = Frame::new(&visit, Area::Identify);
    let given = with(Map::new(), "secret", form.text("secret").trim());
    match identify::find(&api, &principal, fields(given)).await {
        Ok(body) => {
            let found = Some(found(&api, body).await?);
            html(StatusCode::OK, &Page { frame, errors: Errors::none(), is_unknown: false, found })
        }
        Err(problem) if problem.code() == Problem::unknown_secret().code() => {
            html(StatusCode::OK, &Page { frame, errors: Errors::none(), is_unknown: true, found: None })
        }
        Err(problem) => {
            let errors = Errors::of(problem)?;
            html(StatusCode::UNPROCESSABLE_ENTITY, &Page { frame, errors, is_unknown: false, found: None })
        }
    }
}

async fn found(api: &Api, body: IdentifiedBody) -> Result<Found, Problem> {
    let workspace = match body.workspace_id {
        Some(id) => Some(api.store.workspace(WorkspaceName::Id(id)).await?),
        None => None,
    };
    let (is_live, headline, meaning) = said(&body);
    let now = api.clock.now();
    let key_href = match (&workspace, body.key_status, &body.key_id) {
        (Some(workspace), Some(_), Some(id)) => Some(format!("/console/workspaces/{}/keys/{id}", workspace.slug)),
        _ => None,
    };
    let revoke_href = match (body.kind, &body.token_id) {
        ("admin_token", Some(id)) if body.status != "revoked" => Some(format!("/console/admin-tokens/{id}/revoke")),
        ("edge_token", Some(id)) if body.status != "revoked" => Some(format!("/console/edge-tokens/{id}/revoke")),
        _ => None,
    };
    Ok(Found {
        is_live,
        headline,
        meaning,
        name: body.name,
        last_characters: body.last_characters,
        workspace: workspace.map(|workspace| workspace.name),
        role: body.role.map(role_of_word),
        edge: body.edge,
        created: Moment::maybe(body.created_at, now),
        ended: Moment::maybe(body.ended_at, now),
        key_href,
        is_key_active: body.key_status == Some("active"),
        revoke_href,
    })
}

/// Whether it works, what it is, and what to do.
fn said(body: &IdentifiedBody) -> (bool, &'static str, &'static str) {
    match (body.kind, body.status, body.key_status) {
        ("key", "current" | "previous", Some("inactive")) => (
            false,
            "A key that is deactivated.",
            "It opens nothing now. Rotate it before you activate the key again: then this text stays worthless.",
        ),
        ("key", "current" | "previous", Some("expired")) => {
            (false, "A key that has expired.", "It opens nothing any more, and never will. The key can be deleted.")
        }
        ("key", "current", _) => (
            true,
            "A key that works.",
            "Whoever has this text can use the key. Deactivate it to stop all use now, or rotate it to go on with a new secret.",
        ),
        ("key", "previous", _) => (
            true,
            "The old secret of a key, which still works.",
            "The key was rotated with an overlap that isn't over. End the overlap on the key's page, or deactivate the key.",
        ),
        ("key", "rotated_out", _) => (
            false,
            "An old secret of a key.",
            "It was rotated out and opens nothing. Nothing needs to be done about it.",
        ),
        ("key", ..) => (false, "A key that was deleted.", "It opens nothing, and never will again."),
        (_, "revoked", _) => (false, "A token that was revoked.", "It opens nothing, and never will again."),
        (_, "expired", _) => (false, "A token that has expired.", "It opens nothing any more."),
        ("admin_token", _, _) if body.token_id.is_none() => (
            true,
            "The platform admin's token, from its file.",
            "It opens everything. Put another one into the file of --admin-token-file, and start the control plane again.",
        ),
        ("admin_token", ..) => {
            (true, "An admin token that works.", "Whoever has this text can do what its role may. Revoke it now.")
        }
        ("edge_token", _, _) if body.token_id.is_none() => (
            true,
            "The token that edges start with, from its file.",
            "Whoever has it can read the feed: digests, no secrets. Put another one into the file of --edge-token-file.",
        ),
        _ => (
            true,
            "An edge token that works.",
            "Whoever has this text can read the feed: digests, no secrets. Make another one, and revoke this.",
        ),
    }
}
