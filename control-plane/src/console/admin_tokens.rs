//! Pages to list, create and revoke admin tokens.

use std::collections::HashMap;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::{UnixSeconds, WorkspaceId};

use super::display::{self, Moment};
use super::enforcement::Banner;
use super::form::{VerifiedForm, fields, with_field};
use super::keys::new::{LIFETIMES, with_expiration};
use super::page::{Area, Frame, html, html_with_secret, redirect_done};
use super::problems::FormErrors;
use super::query::PageQuery;
use super::secret::{SecretPage, ShellCommand, already_created};
use super::session::ConsoleSession;
use crate::api::Api;
use crate::api::authority::Anywhere;
use crate::api::path::AdminTokenInPath;
use crate::operations::admin_tokens::CreateAdminToken;
use crate::operations::cursor::CursorPage;
use crate::operations::fields::Fields;
use crate::operations::permissions::{Permission, includes, may};
use crate::operations::principal::Principal;
use crate::operations::request::RequestBody as _;
use crate::operations::{OperationError, WithSecret};
use crate::store::{AdminToken, Precondition, Role, RoleName, Workspace, WorkspaceQuery};
use crate::web::problem::Problem;

const LIST: &str = "/console/admin-tokens";

/// Roles: the name in REST, the label, and what the role may do.
const ROLES: [(&str, &str, &str); 7] = [
    ("platform_admin", "Platform admin", "manages everything, in every workspace"),
    ("platform_viewer", "Platform viewer", "can see everything, but change nothing"),
    ("responder", "Responder", "identifies leaked texts and deactivates keys, in every workspace"),
    ("edge_operator", "Edge operator", "manages edges and their tokens, and sees no keys"),
    ("metrics", "Metrics", "can read the control plane's metrics, for a monitoring system"),
    ("workspace_admin", "Workspace admin", "manages one workspace, its keys and its tokens"),
    ("workspace_member", "Workspace member", "can see one workspace and its keys, but change nothing"),
];

#[derive(Template)]
#[template(path = "admin_tokens.html")]
struct ListPage {
    frame: Frame,
    banner: Option<Banner>,
    rows: Vec<Row>,
    next: Option<String>,
    is_first_page: bool,
    may_manage: bool,
}

struct Row {
    id: String,
    name: String,
    role: &'static str,
    workspace: Option<String>,
    last_characters: String,
    is_expired: bool,
    expires: Option<Moment>,
    created: Moment,
    created_by: String,
    last_used: Option<Moment>,
}

#[derive(Template)]
#[template(path = "admin_token_new.html")]
struct NewPage {
    frame: Frame,
    errors: FormErrors,
    name: String,
    role: String,
    roles: Vec<(&'static str, &'static str, &'static str)>,
    /// Slug and name; empty where there is no choice.
    workspaces: Vec<(String, String)>,
    workspace: String,
    lifetime: String,
    expires_at: String,
    lifetimes: [(&'static str, &'static str); 8],
    /// When the principal's own token expires; the new one may not expire later.
    own_expiration: Option<Moment>,
    nonce: String,
}

#[derive(Template)]
#[template(path = "token_revoke.html")]
struct RevokePage {
    frame: Frame,
    noun: &'static str,
    list: &'static str,
    id: String,
    name: String,
    last_used: Option<Moment>,
    consequence: &'static str,
}

pub(super) async fn list(
    State(api): State<Api>,
    session: ConsoleSession,
    Anywhere(principal, ..): Anywhere<may::ReadAdminTokens>,
    params: PageQuery,
) -> Result<Response, Problem> {
    let CursorPage { items, next_cursor } = api.operations().list_admin_tokens(&principal, params.fields()).await?;
    let names = api.store.actor_names(items.iter().map(|token| token.created_by.clone()).collect()).await?;
    let workspaces: HashMap<_, _> =
        workspaces(&api, &principal).await?.into_iter().map(|workspace| (workspace.id, workspace.name)).collect();
    let now = api.clock.now();
    let row = |token: AdminToken| row(token, &names, |id| workspaces.get(&id).cloned(), now);
    let page = ListPage {
        frame: Frame::new(&session, Area::AdminTokens),
        rows: items.into_iter().map(row).collect(),
        next: next_cursor.map(|next| params.url_with(LIST, "cursor", &next)),
        is_first_page: params.text("cursor").is_empty(),
        may_manage: session.principal.may(Permission::ManageAdminTokens),
        banner: Banner::of(&api, params.completed).await,
    };
    html(StatusCode::OK, &page)
}

fn row(
    token: AdminToken,
    names: &HashMap<String, String>,
    workspace: impl Fn(policy::WorkspaceId) -> Option<String>,
    now: UnixSeconds,
) -> Row {
    Row {
        is_expired: token.is_expired(now),
        id: token.id.to_string(),
        role: display::role(token.role),
        workspace: token.role.workspace().map(|id| workspace(id).unwrap_or_else(|| id.to_string())),
        last_characters: token.last_characters.0,
        expires: Moment::optional(token.expires_at, now),
        created: Moment::new(token.created_at, now),
        created_by: names.get(&token.created_by).cloned().unwrap_or(token.created_by),
        last_used: Moment::optional(token.last_used_at, now),
        name: token.name,
    }
}

/// The workspaces to choose from, at most one page. Others can be chosen over REST.
async fn workspaces(api: &Api, principal: &Principal) -> Result<Vec<Workspace>, Problem> {
    let limit = std::num::NonZeroU32::MIN.saturating_add(199);
    Ok(api.store.list_workspaces(WorkspaceQuery { limit, after: None, within: principal.reach() }).await?.items)
}

pub(super) async fn new(
    State(api): State<Api>,
    session: ConsoleSession,
    Anywhere(principal, ..): Anywhere<may::ManageAdminTokens>,
) -> Result<Response, Problem> {
    let page = page(&api, &session, &principal, FormErrors::none()).await?;
    html(StatusCode::OK, &NewPage { lifetime: "90d".to_owned(), ..page })
}

pub(super) async fn create(
    State(api): State<Api>,
    session: ConsoleSession,
    Anywhere(principal, ..): Anywhere<may::ManageAdminTokens>,
    form: VerifiedForm,
) -> Result<Response, Problem> {
    let once_key = form.once_key()?;
    let input = with_field(form.fields(&["role", "workspace"]), "name", form.text("name"));
    let input = with_expiration(input, &form);
    let acting = principal.clone().once(once_key);
    let error = match create_token(&api, &acting, fields(input)).await {
        Ok(WithSecret { changed: made, secret }) => {
            let page = SecretPage {
                frame: Frame::new(&session, Area::AdminTokens),
                title: "Your new admin token".to_owned(),
                name: &made.value.name,
                secret: secret.expose(),
                command: Some(ShellCommand::with_admin_token(&api, &secret)),
                steps: Vec::new(),
                enforcement: None,
                continue_href: LIST.to_owned(),
                continue_label: "I have copied it: back to the tokens",
            };
            return html_with_secret(StatusCode::CREATED, &page);
        }
        Err(error) => error,
    };
    let errors = match FormErrors::of(error) {
        Ok(errors) => errors,
        Err(error) => {
            let frame = Frame::new(&session, Area::AdminTokens);
            return already_created(&api, error, (once_key, frame, LIST), "Back to the tokens").await;
        }
    };
    let page = page(&api, &session, &principal, errors).await?;
    let page = NewPage {
        name: form.text("name").to_owned(),
        role: form.text("role").to_owned(),
        workspace: form.text("workspace").to_owned(),
        lifetime: form.text("expires_in").to_owned(),
        expires_at: form.text("expires_at").to_owned(),
        ..page
    };
    html(StatusCode::UNPROCESSABLE_ENTITY, &page)
}

/// Whether a principal may create a token with this role, in some workspace if it is one of a workspace.
fn may_create(principal: &Principal, role: &str) -> bool {
    let own = principal.role();
    // For a principal without one, any workspace stands for all of them.
    let workspace = own.workspace().unwrap_or(WorkspaceId::from_bytes([0; 16]));
    let requested = RoleName::parse(role).and_then(|name| Role::new(name, name.is_of_workspace().then_some(workspace)));
    requested.is_some_and(|requested| includes(own, requested))
}

async fn create_token(
    api: &Api,
    principal: &Principal,
    fields: Fields,
) -> Result<WithSecret<AdminToken>, OperationError> {
    let operations = api.operations();
    let context = operations.context_for(principal, &fields).await?;
    operations.create_admin_token(principal, CreateAdminToken::parse(fields, &context)?).await
}

async fn page(
    api: &Api,
    session: &ConsoleSession,
    principal: &Principal,
    errors: FormErrors,
) -> Result<NewPage, Problem> {
    let is_platform = principal.reach().is_none();
    let workspaces = if is_platform { workspaces(api, principal).await? } else { Vec::new() };
    Ok(NewPage {
        frame: Frame::new(session, Area::AdminTokens),
        errors,
        name: String::new(),
        role: "workspace_member".to_owned(),
        roles: ROLES.into_iter().filter(|(name, ..)| may_create(principal, name)).collect(),
        workspaces: workspaces.into_iter().map(|workspace| (workspace.slug, workspace.name)).collect(),
        workspace: String::new(),
        lifetime: String::new(),
        expires_at: String::new(),
        lifetimes: LIFETIMES,
        own_expiration: Moment::optional(principal.expires_at(), api.clock.now()),
        nonce: api.entropy.text()?.expose().to_owned(),
    })
}

pub(super) async fn confirm_revoke(
    State(api): State<Api>,
    session: ConsoleSession,
    Anywhere(principal, ..): Anywhere<may::ManageAdminTokens>,
    AdminTokenInPath(id): AdminTokenInPath,
) -> Result<Response, Problem> {
    let token = api.operations().admin_token(&principal, id).await?;
    let page = RevokePage {
        frame: Frame::new(&session, Area::AdminTokens),
        noun: "admin token",
        list: LIST,
        id: token.id.to_string(),
        name: token.name,
        last_used: Moment::optional(token.last_used_at, api.clock.now()),
        consequence: "Scripts that use it are refused from their next request on, and people who signed in to the \
                      console with it are signed out. Keys that were created with it keep working.",
    };
    html(StatusCode::OK, &page)
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Anywhere(principal, ..): Anywhere<may::ManageAdminTokens>,
    AdminTokenInPath(id): AdminTokenInPath,
    _: VerifiedForm,
) -> Result<Response, Problem> {
    let revoked = api.operations().revoke_admin_token(&principal, id, Precondition::None).await?;
    redirect_done(LIST, "token-revoked", revoked.revision)
}

/// The page that asks for confirmation before an edge token is revoked.
pub(super) fn edge_token_revoke_page(
    frame: Frame,
    list: &'static str,
    id: String,
    name: String,
    last_used: Option<Moment>,
) -> Result<Response, Problem> {
    let consequence = "Edges that use it no longer receive changes. They continue with the keys they have until their \
                       staleness bound has passed, and then deny every request.";
    html(StatusCode::OK, &RevokePage { frame, noun: "edge token", list, id, name, last_used, consequence })
}
