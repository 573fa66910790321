//! `Found a leaked key?`: what a found text is, whether it still gives access, and what to do about it.

use std::fmt::Display;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::UnixSeconds;
use serde_json::Map;

use super::display::{self, Moment};
use super::form::{VerifiedForm, fields, with_field};
use super::page::{Area, Frame, html};
use super::problems::FormErrors;
use super::session::ConsoleSession;
use crate::api::Api;
use crate::api::authority::Anywhere;
use crate::operations::identify::{Identified, IdentifySecret};
use crate::operations::permissions::may;
use crate::operations::request::RequestBody as _;
use crate::operations::{OperationError, Resource};
use crate::store::{AdminToken, EdgeToken, Role, SecretRecord, SecretStatus, Status, TOKEN_FILE_NAME, WorkspaceName};
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

pub(super) async fn show(session: ConsoleSession, _: Anywhere<may::IdentifySecrets>) -> Result<Response, Problem> {
    let frame = Frame::new(&session, Area::Identify);
    html(StatusCode::OK, &Page { frame, errors: FormErrors::none(), is_unknown: false, identified: None })
}

/// Responds without a redirect, because it changes nothing. The form never repeats the text.
pub(super) async fn find(
    State(api): State<Api>,
    session: ConsoleSession,
    Anywhere(principal, ..): Anywhere<may::IdentifySecrets>,
    form: VerifiedForm,
) -> Result<Response, Problem> {
    let frame = Frame::new(&session, Area::Identify);
    let input = with_field(Map::new(), "secret", form.text("secret").trim());
    let operations = api.operations();
    let found = match IdentifySecret::parse(fields(input), &operations.context(&principal)) {
        Ok(request) => operations.identify(&principal, request).await,
        Err(error) => Err(error),
    };
    match found {
        Ok((found, now)) => {
            let identified = Some(identified_secret(&api, found, now).await?);
            html(StatusCode::OK, &Page { frame, errors: FormErrors::none(), is_unknown: false, identified })
        }
        Err(OperationError::NotFound(Resource::Secret)) => {
            html(StatusCode::OK, &Page { frame, errors: FormErrors::none(), is_unknown: true, identified: None })
        }
        Err(error) => {
            let errors = FormErrors::of(error)?;
            html(StatusCode::UNPROCESSABLE_ENTITY, &Page { frame, errors, is_unknown: false, identified: None })
        }
    }
}

async fn identified_secret(api: &Api, found: Identified, now: UnixSeconds) -> Result<IdentifiedSecret, Problem> {
    let (is_live, headline, meaning) = assess(&found, now);
    let page = IdentifiedSecret {
        is_live,
        headline,
        meaning,
        name: TOKEN_FILE_NAME.to_owned(),
        last_characters: None,
        workspace: None,
        role: None,
        edge: None,
        created: None,
        ended: None,
        key_href: None,
        is_key_active: false,
        revoke_href: None,
    };
    Ok(match found {
        Identified::Secret(secret) => {
            let workspace = api.store.workspace(WorkspaceName::Id(secret.workspace)).await?;
            let href = || format!("/console/workspaces/{}/keys/{}", workspace.slug, secret.key);
            IdentifiedSecret {
                key_href: secret.key_status.map(|_| href()),
                is_key_active: secret.key_status == Some(Status::Active),
                name: secret.name,
                last_characters: secret.last_characters.into_option(),
                workspace: Some(workspace.name),
                created: Some(Moment::new(secret.created_at, now)),
                ended: Moment::optional(secret.ended_at, now),
                ..page
            }
        }
        Identified::AdminToken(token) => IdentifiedSecret {
            workspace: match token.role.workspace() {
                Some(id) => Some(api.store.workspace(WorkspaceName::Id(id)).await?.name),
                None => None,
            },
            role: Some(display::role(token.role)),
            revoke_href: revoke_href("admin-tokens", &token.id, token.revoked_at),
            name: token.name,
            last_characters: token.last_characters.into_option(),
            created: Some(Moment::new(token.created_at, now)),
            ended: Moment::optional(token.revoked_at, now),
            ..page
        },
        Identified::EdgeToken(token) => IdentifiedSecret {
            revoke_href: revoke_href("edge-tokens", &token.id, token.revoked_at),
            name: token.name,
            last_characters: token.last_characters.into_option(),
            edge: Some(token.edge),
            created: Some(Moment::new(token.created_at, now)),
            ended: Moment::optional(token.revoked_at, now),
            ..page
        },
        Identified::AdminTokenFile(last) => IdentifiedSecret {
            last_characters: last.into_option(),
            role: Some(display::role(Role::PLATFORM_ADMIN)),
            ..page
        },
        Identified::EdgeTokenFile(last) => IdentifiedSecret { last_characters: last.into_option(), ..page },
    })
}

/// The path of the form that revokes a token; `None` if it is revoked.
fn revoke_href(list: &str, id: &impl Display, revoked_at: Option<UnixSeconds>) -> Option<String> {
    revoked_at.is_none().then(|| format!("/console/{list}/{id}/revoke"))
}

/// Whether the text gives access, what it is, and what to do.
fn assess(found: &Identified, now: UnixSeconds) -> (bool, &'static str, &'static str) {
    match found {
        Identified::Secret(secret) => assess_secret(secret),
        Identified::AdminToken(AdminToken { revoked_at: Some(_), .. })
        | Identified::EdgeToken(EdgeToken { revoked_at: Some(_), .. }) => {
            (false, "A revoked token.", "It gives no access, and never will again.")
        }
        Identified::AdminToken(token) if token.is_expired(now) => {
            (false, "An expired token.", "It no longer gives access.")
        }
        Identified::AdminToken(_) => {
            (true, "An admin token that works.", "Anyone who has this text has the access of its role. Revoke it now.")
        }
        Identified::AdminTokenFile(_) => (
            true,
            "The platform admin's token, from its file.",
            "It gives full access. Replace it in the file of --admin-token-file, and restart the control plane.",
        ),
        Identified::EdgeTokenFile(_) => (
            true,
            "The initial edge token, from its file.",
            "Anyone who has it can read the feed: digests, no secrets. Replace it in the file of --edge-token-file.",
        ),
        Identified::EdgeToken(_) => (
            true,
            "An edge token that works.",
            "Anyone who has this text can read the feed: digests, no secrets. Create another edge \
             token, and revoke this one.",
        ),
    }
}

fn assess_secret(secret: &SecretRecord) -> (bool, &'static str, &'static str) {
    let is_valid = match secret.status {
        SecretStatus::Current | SecretStatus::Previous => true,
        SecretStatus::RotatedOut | SecretStatus::Deleted => false,
    };
    match (secret.status, secret.key_status) {
        (_, Some(Status::Inactive)) if is_valid => (
            false,
            "A deactivated key.",
            "It gives no access now. Rotate the key before you activate it again, so that this text stays useless.",
        ),
        (_, Some(Status::Expired)) if is_valid => {
            (false, "An expired key.", "It no longer gives access, and never will again. You can delete the key.")
        }
        (SecretStatus::Current, _) => (
            true,
            "A key that works.",
            "Anyone who has this text can use the key. Deactivate the key to stop all use now, or rotate it to \
             continue with a new secret.",
        ),
        (SecretStatus::Previous, _) => (
            true,
            "An old secret of a key, which still works.",
            "The key was rotated with an overlap that hasn't ended. End the overlap on the key's page, or deactivate \
             the key.",
        ),
        (SecretStatus::RotatedOut, _) => {
            (false, "An old secret of a key.", "It was rotated out and gives no access. No action is needed.")
        }
        (SecretStatus::Deleted, _) => (false, "A deleted key.", "It gives no access, and never will again."),
    }
}
