//! `Found a leaked key?`: what a found text is, whether it still gives access, and what to do about it.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Map;

use super::display::{Moment, role_by_name};
use super::form::{VerifiedForm, fields, with_field};
use super::page::{Area, Frame, html};
use super::problems::FormErrors;
use super::session::ConsoleSession;
use crate::api::Api;
use crate::api::authority::AnyAdmin;
use crate::api::identify::{self, IdentifiedBody};
use crate::store::WorkspaceName;
use crate::web::problem::Problem;

#[derive(Template)]
#[template(path = "identify.html")]
struct Page {
    frame: Frame,
    errors: FormErrors,
    /// A text was submitted, and it matches nothing that the principal may see.
    is_unknown: bool,
    identified: Option<IdentifiedSecret>,
}

/// What the text is.
struct IdentifiedSecret {
    /// It still gives access.
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

pub(super) async fn show(session: ConsoleSession, _: AnyAdmin) -> Result<Response, Problem> {
    let frame = Frame::new(&session, Area::Identify);
    html(StatusCode::OK, &Page { frame, errors: FormErrors::none(), is_unknown: false, identified: None })
}

/// Responds without a redirect, because it changes nothing. The form never repeats the text.
pub(super) async fn find(
    State(api): State<Api>,
    session: ConsoleSession,
    AnyAdmin(principal): AnyAdmin,
    form: VerifiedForm,
) -> Result<Response, Problem> {
    let frame = Frame::new(&session, Area::Identify);
    let input = with_field(Map::new(), "secret", form.text("secret").trim());
    match identify::find(&api, &principal, fields(input)).await {
        Ok(body) => {
            let identified = Some(identified_secret(&api, body).await?);
            html(StatusCode::OK, &Page { frame, errors: FormErrors::none(), is_unknown: false, identified })
        }
        Err(problem) if problem.code() == Problem::unknown_secret().code() => {
            html(StatusCode::OK, &Page { frame, errors: FormErrors::none(), is_unknown: true, identified: None })
        }
        Err(problem) => {
            let errors = FormErrors::from_problem(problem)?;
            html(StatusCode::UNPROCESSABLE_ENTITY, &Page { frame, errors, is_unknown: false, identified: None })
        }
    }
}

async fn identified_secret(api: &Api, body: IdentifiedBody) -> Result<IdentifiedSecret, Problem> {
    let workspace = match body.workspace_id {
        Some(id) => Some(api.store.workspace(WorkspaceName::Id(id)).await?),
        None => None,
    };
    let (is_live, headline, meaning) = assess(&body);
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
    Ok(IdentifiedSecret {
        is_live,
        headline,
        meaning,
        name: body.name,
        last_characters: body.last_characters,
        workspace: workspace.map(|workspace| workspace.name),
        role: body.role.map(role_by_name),
        edge: body.edge,
        created: Moment::optional(body.created_at, now),
        ended: Moment::optional(body.ended_at, now),
        key_href,
        is_key_active: body.key_status == Some("active"),
        revoke_href,
    })
}

/// Whether the text gives access, what it is, and what to do.
fn assess(body: &IdentifiedBody) -> (bool, &'static str, &'static str) {
    match (body.kind, body.status, body.key_status) {
        ("key", "current" | "previous", Some("inactive")) => (
            false,
            "A deactivated key.",
            "It gives no access now. Rotate the key before you activate it again, so that this text stays useless.",
        ),
        ("key", "current" | "previous", Some("expired")) => {
            (false, "An expired key.", "It no longer gives access, and never will again. You can delete the key.")
        }
        ("key", "current", _) => (
            true,
            "A key that works.",
            "Anyone who has this text can use the key. Deactivate the key to stop all use now, or rotate it to \
             continue with a new secret.",
        ),
        ("key", "previous", _) => (
            true,
            "An old secret of a key, which still works.",
            "The key was rotated with an overlap that hasn't ended. End the overlap on the key's page, or deactivate \
             the key.",
        ),
        ("key", "rotated_out", _) => {
            (false, "An old secret of a key.", "It was rotated out and gives no access. No action is needed.")
        }
        ("key", ..) => (false, "A deleted key.", "It gives no access, and never will again."),
        (_, "revoked", _) => (false, "A revoked token.", "It gives no access, and never will again."),
        (_, "expired", _) => (false, "An expired token.", "It no longer gives access."),
        ("admin_token", _, _) if body.token_id.is_none() => (
            true,
            "The platform admin's token, from its file.",
            "It gives full access. Replace it in the file of --admin-token-file, and restart the control plane.",
        ),
        ("admin_token", ..) => {
            (true, "An admin token that works.", "Anyone who has this text has the access of its role. Revoke it now.")
        }
        ("edge_token", _, _) if body.token_id.is_none() => (
            true,
            "The initial edge token, from its file.",
            "Anyone who has it can read the feed: digests, no secrets. Replace it in the file of --edge-token-file.",
        ),
        _ => (
            true,
            "An edge token that works.",
            "Anyone who has this text can read the feed: digests, no secrets. Create another edge \
             token, and revoke this one.",
        ),
    }
}
