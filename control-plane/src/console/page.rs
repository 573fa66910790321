//! What all pages share: the frame around them, and how they become an answer.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use policy::Revision;
use policy::key_text::find_secret;

use super::assets;
use super::secret::Shown;
use super::session::Visit;
use super::words;
use crate::problem::Problem;
use crate::store::{Role, Workspace};

/// The frame of a page: who is signed in, and the navigation.
#[derive(Clone)]
pub(super) struct Frame {
    pub(super) account: Option<Account>,
    pub(super) groups: Vec<Group>,
}

/// Who is signed in.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) csrf: String,
}

/// A workspace, as a page names it.
#[derive(Clone)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) slug: String,
}

impl Place {
    pub(super) fn of(workspace: &Workspace) -> Self {
        Self { name: workspace.name.clone(), slug: workspace.slug.clone() }
    }
}

/// Links that belong together.
#[derive(Clone)]
pub(super) struct Group {
    pub(super) title: String,
    pub(super) links: Vec<Link>,
}

#[derive(Clone)]
pub(super) struct Link {
    pub(super) label: &'static str,
    pub(super) href: String,
    pub(super) is_current: bool,
}

/// A part of the console that the frame links to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Area {
    Keys,
    Audit,
    Workspace,
    Identify,
    Workspaces,
    AdminTokens,
    EdgeTokens,
    Edges,
    WholeAudit,
    /// None of them.
    Elsewhere,
}

impl Frame {
    /// For a page that belongs to no workspace.
    pub(super) fn new(visit: &Visit, area: Area) -> Self {
        Self::of(visit, visit.own.as_ref(), area)
    }

    /// For a page of a workspace.
    pub(super) fn within(visit: &Visit, workspace: &Workspace, area: Area) -> Self {
        Self::of(visit, Some(workspace), area)
    }

    /// For a page without a session.
    pub(super) fn outside() -> Self {
        Self { account: None, groups: Vec::new() }
    }

    fn of(visit: &Visit, workspace: Option<&Workspace>, area: Area) -> Self {
        let role = visit.principal.role();
        let account = Account {
            name: visit.principal.actor().name.clone(),
            role: words::role(role),
            csrf: visit.csrf.text().to_owned(),
        };
        let link = |of, label, href: &str| Link { label, href: href.to_owned(), is_current: of == area };
        let mut groups = Vec::new();
        if let Some(Workspace { name, slug, .. }) = workspace {
            let at = format!("/console/workspaces/{slug}");
            let mut links = vec![link(Area::Keys, "API Keys", &format!("{at}/keys"))];
            if role_is_admin(role) {
                links.push(link(Area::Audit, "Audit trail", &format!("{at}/audit")));
                links.push(link(Area::Workspace, "Settings", &at));
            }
            groups.push(Group { title: name.clone(), links });
        }
        let links = match role {
            Role::PlatformAdmin => vec![
                link(Area::Workspaces, "Workspaces", "/console/workspaces"),
                link(Area::Identify, "Found a leaked key?", "/console/identify"),
                link(Area::Edges, "Edges", "/console/edges"),
                link(Area::EdgeTokens, "Edge tokens", "/console/edge-tokens"),
                link(Area::AdminTokens, "Admin tokens", "/console/admin-tokens"),
                link(Area::WholeAudit, "Audit log", "/console/audit"),
            ],
            Role::WorkspaceAdmin(_) => vec![
                link(Area::Identify, "Found a leaked key?", "/console/identify"),
                link(Area::Edges, "Edges", "/console/edges"),
                link(Area::AdminTokens, "Admin tokens", "/console/admin-tokens"),
            ],
            Role::WorkspaceMember(_) => vec![link(Area::Edges, "Edges", "/console/edges")],
        };
        groups.push(Group { title: "Platform".to_owned(), links });
        Self { account: Some(account), groups }
    }

    /// For the hidden field of forms.
    pub(super) fn csrf(&self) -> &str {
        self.account.as_ref().map_or("", |account| &account.csrf)
    }

    pub(super) fn style(&self) -> &'static str {
        assets::style()
    }

    pub(super) fn script(&self) -> &'static str {
        assets::script()
    }

    pub(super) fn icon(&self) -> &'static str {
        assets::icon()
    }
}

/// Whether a role may change a workspace that it may see.
pub(super) fn role_is_admin(role: Role) -> bool {
    match role {
        Role::PlatformAdmin | Role::WorkspaceAdmin(_) => true,
        Role::WorkspaceMember(_) => false,
    }
}

/// A page as an answer. Keys and tokens are removed, wherever they were typed or stored; only [`html_with_secret`]
/// shows one.
pub(super) fn html(status: StatusCode, page: &impl Template) -> Result<Response, Problem> {
    Ok(of_text(status, without_secrets(rendered(page)?)))
}

/// The one page that shows a secret, as an answer.
pub(super) fn html_with_secret(status: StatusCode, page: &Shown<'_>) -> Result<Response, Problem> {
    Ok(of_text(status, rendered(page)?))
}

fn rendered(page: &impl Template) -> Result<String, Problem> {
    page.render().map_err(|cause| {
        tracing::error!(%cause, "a page can't be written");
        Problem::fault()
    })
}

fn of_text(status: StatusCode, text: String) -> Response {
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))];
    (status, kind, text).into_response()
}

fn without_secrets(mut text: String) -> String {
    while let Some(found) = find_secret(text.as_bytes()) {
        text.replace_range(found, "[removed]");
    }
    text
}

/// Redirects to another page, which the browser then requests by GET.
pub(super) fn see_other(location: &str) -> Result<Response, Problem> {
    let location = HeaderValue::try_from(location).map_err(|_| Problem::fault())?;
    Ok((StatusCode::SEE_OTHER, [(header::LOCATION, location)]).into_response())
}

/// Redirects to a page that reports what was done; `revision` is the one to be enforced.
pub(super) fn done(path: &str, word: &str, revision: Revision) -> Result<Response, Problem> {
    see_other(&format!("{path}?done={word}&revision={revision}"))
}
