//! Pages to list, create and configure workspaces.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::display::{Moment, item_count};
use super::enforcement::Banner;
use super::form::{VerifiedForm, fields, with_field};
use super::page::{Area, Frame, html, redirect_done};
use super::problems::FormErrors;
use super::query::PageQuery;
use super::session::ConsoleSession;
use crate::api::Api;
use crate::api::authority::{Platform, Within};
use crate::operations::cursor::CursorPage;
use crate::operations::permissions::{Permission, may};
use crate::operations::request::RequestBody as _;
use crate::operations::workspaces::{CreateWorkspace, UpdateWorkspace};
use crate::store::Precondition;
use crate::web::problem::Problem;

#[derive(Template)]
#[template(path = "workspaces.html")]
struct ListPage {
    frame: Frame,
    banner: Option<Banner>,
    rows: Vec<Row>,
    next: Option<String>,
    is_first_page: bool,
    may_create: bool,
    count: String,
}

struct Row {
    name: String,
    slug: String,
    id: String,
    created: Moment,
}

#[derive(Template)]
#[template(path = "workspace_new.html")]
struct NewPage {
    frame: Frame,
    errors: FormErrors,
    name: String,
    slug: String,
}

#[derive(Template)]
#[template(path = "workspace.html")]
struct SettingsPage {
    frame: Frame,
    banner: Option<Banner>,
    errors: FormErrors,
    name: String,
    slug: String,
    id: String,
    created: Moment,
}

pub(super) async fn list(
    State(api): State<Api>,
    session: ConsoleSession,
    Platform(principal, ..): Platform<may::ReadKeys>,
    params: PageQuery,
) -> Result<Response, Problem> {
    let CursorPage { items, next_cursor } = api.operations().list_workspaces(&principal, params.fields()).await?;
    let now = api.clock.now();
    let rows: Vec<_> = items
        .into_iter()
        .map(|workspace| Row {
            name: workspace.name,
            slug: workspace.slug,
            id: workspace.id.to_string(),
            created: Moment::new(workspace.created_at, now),
        })
        .collect();
    let page = ListPage {
        frame: Frame::new(&session, Area::Workspaces),
        is_first_page: params.text("cursor").is_empty(),
        may_create: principal.may(Permission::CreateWorkspaces),
        next: next_cursor.map(|next| params.url_with("/console/workspaces", "cursor", &next)),
        count: item_count(rows.len(), "workspace"),
        banner: Banner::of(&api, params.completed).await,
        rows,
    };
    html(StatusCode::OK, &page)
}

pub(super) async fn new(session: ConsoleSession, _: Platform<may::CreateWorkspaces>) -> Result<Response, Problem> {
    let frame = Frame::new(&session, Area::Workspaces);
    html(StatusCode::OK, &NewPage { frame, errors: FormErrors::none(), name: String::new(), slug: String::new() })
}

pub(super) async fn create(
    State(api): State<Api>,
    session: ConsoleSession,
    Platform(principal, ..): Platform<may::CreateWorkspaces>,
    form: VerifiedForm,
) -> Result<Response, Problem> {
    let input = with_field(with_field(form.fields(&[]), "name", form.text("name")), "slug", form.text("slug"));
    let operations = api.operations();
    let created = match CreateWorkspace::parse(fields(input), &operations.context(&principal)) {
        Ok(request) => operations.create_workspace(&principal, request).await,
        Err(error) => Err(error),
    };
    match created {
        Ok(made) => {
            redirect_done(&format!("/console/workspaces/{}/keys", made.value.slug), "workspace-created", made.revision)
        }
        Err(error) => {
            let errors = FormErrors::of(error)?;
            let (name, slug) = (form.text("name").to_owned(), form.text("slug").to_owned());
            let frame = Frame::new(&session, Area::Workspaces);
            html(StatusCode::UNPROCESSABLE_ENTITY, &NewPage { frame, errors, name, slug })
        }
    }
}

pub(super) async fn show(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::RenameWorkspaces>,
    params: PageQuery,
) -> Result<Response, Problem> {
    let page = SettingsPage {
        frame: Frame::within(&session, &at.workspace, Area::Workspace),
        banner: Banner::of(&api, params.completed).await,
        errors: FormErrors::none(),
        created: Moment::new(at.workspace.created_at, api.clock.now()),
        id: at.workspace.id.to_string(),
        name: at.workspace.name,
        slug: at.workspace.slug,
    };
    html(StatusCode::OK, &page)
}

pub(super) async fn rename(
    State(api): State<Api>,
    session: ConsoleSession,
    Within(at, ..): Within<may::RenameWorkspaces>,
    form: VerifiedForm,
) -> Result<Response, Problem> {
    let input = with_field(form.fields(&[]), "name", form.text("name"));
    let operations = api.operations();
    let renamed = match UpdateWorkspace::parse(fields(input), &operations.context_in(&at)) {
        Ok(request) => operations.update_workspace(&at, Precondition::None, request).await,
        Err(error) => Err(error),
    };
    match renamed {
        Ok(renamed) => {
            redirect_done(&format!("/console/workspaces/{}", at.workspace.slug), "renamed", renamed.revision)
        }
        Err(error) => {
            let page = SettingsPage {
                frame: Frame::within(&session, &at.workspace, Area::Workspace),
                banner: None,
                errors: FormErrors::of(error)?,
                created: Moment::new(at.workspace.created_at, api.clock.now()),
                id: at.workspace.id.to_string(),
                name: form.text("name").to_owned(),
                slug: at.workspace.slug,
            };
            html(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}
