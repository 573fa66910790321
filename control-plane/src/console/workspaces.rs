//! Pages to list, create and configure workspaces.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::enforcement::Banner;
use super::form::{Posted, fields, with};
use super::page::{Area, Frame, done, html};
use super::problems::Errors;
use super::query::Asked;
use super::session::Visit;
use super::words::{Moment, counted};
use crate::api::authority::{AdminOf, PlatformAdmin};
use crate::api::{Api, cursor, values, workspaces};
use crate::problem::Problem;
use crate::store::{Precondition, WorkspaceQuery};

#[derive(Template)]
#[template(path = "workspaces.html")]
struct ListPage {
    frame: Frame,
    banner: Option<Banner>,
    rows: Vec<Row>,
    next: Option<String>,
    is_first_page: bool,
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
    errors: Errors,
    name: String,
    slug: String,
}

#[derive(Template)]
#[template(path = "workspace.html")]
struct SettingsPage {
    frame: Frame,
    banner: Option<Banner>,
    errors: Errors,
    name: String,
    slug: String,
    id: String,
    created: Moment,
}

pub(super) async fn list(
    State(api): State<Api>,
    visit: Visit,
    PlatformAdmin(principal): PlatformAdmin,
    asked: Asked,
) -> Result<Response, Problem> {
    let mut given = asked.fields();
    let after = given.optional("cursor", |value| cursor::read(&values::string(value)?));
    let query =
        given.finish(|| Some(WorkspaceQuery { limit: values::DEFAULT_LIMIT, after, within: principal.reach() }))?;
    let page = api.store.list_workspaces(query).await?;
    let now = api.clock.now();
    let last = page.items.last().filter(|_| page.more).map(|last| cursor::write(&last.id));
    let rows: Vec<_> = page
        .items
        .into_iter()
        .map(|workspace| Row {
            name: workspace.name,
            slug: workspace.slug,
            id: workspace.id.to_string(),
            created: Moment::new(workspace.created_at, now),
        })
        .collect();
    let page = ListPage {
        frame: Frame::new(&visit, Area::Workspaces),
        is_first_page: asked.text("cursor").is_empty(),
        next: last.map(|last| asked.with("/console/workspaces", "cursor", &last)),
        count: counted(rows.len(), "workspace"),
        banner: Banner::of(&api, asked.done).await,
        rows,
    };
    html(StatusCode::OK, &page)
}

pub(super) async fn new(visit: Visit, _: PlatformAdmin) -> Result<Response, Problem> {
    let frame = Frame::new(&visit, Area::Workspaces);
    html(StatusCode::OK, &NewPage { frame, errors: Errors::none(), name: String::new(), slug: String::new() })
}

pub(super) async fn create(
    State(api): State<Api>,
    visit: Visit,
    PlatformAdmin(principal): PlatformAdmin,
    form: Posted,
) -> Result<Response, Problem> {
    let given = with(with(form.fields(&[]), "name", form.text("name")), "slug", form.text("slug"));
    match workspaces::make(&api, &principal, fields(given)).await {
        Ok(made) => done(&format!("/console/workspaces/{}/keys", made.value.slug), "workspace-created", made.revision),
        Err(problem) => {
            let errors = Errors::of(problem)?;
            let (name, slug) = (form.text("name").to_owned(), form.text("slug").to_owned());
            let frame = Frame::new(&visit, Area::Workspaces);
            html(StatusCode::UNPROCESSABLE_ENTITY, &NewPage { frame, errors, name, slug })
        }
    }
}

pub(super) async fn show(
    State(api): State<Api>,
    visit: Visit,
    AdminOf(at): AdminOf,
    asked: Asked,
) -> Result<Response, Problem> {
    let page = SettingsPage {
        frame: Frame::within(&visit, &at.workspace, Area::Workspace),
        banner: Banner::of(&api, asked.done).await,
        errors: Errors::none(),
        created: Moment::new(at.workspace.created_at, api.clock.now()),
        id: at.workspace.id.to_string(),
        name: at.workspace.name,
        slug: at.workspace.slug,
    };
    html(StatusCode::OK, &page)
}

pub(super) async fn rename(
    State(api): State<Api>,
    visit: Visit,
    AdminOf(at): AdminOf,
    form: Posted,
) -> Result<Response, Problem> {
    let given = with(form.fields(&[]), "name", form.text("name"));
    match workspaces::rename(&api, &at, Precondition::None, fields(given)).await {
        Ok(renamed) => done(&format!("/console/workspaces/{}", at.workspace.slug), "renamed", renamed.revision),
        Err(problem) => {
            let page = SettingsPage {
                frame: Frame::within(&visit, &at.workspace, Area::Workspace),
                banner: None,
                errors: Errors::of(problem)?,
                created: Moment::new(at.workspace.created_at, api.clock.now()),
                id: at.workspace.id.to_string(),
                name: form.text("name").to_owned(),
                slug: at.workspace.slug,
            };
            html(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}
