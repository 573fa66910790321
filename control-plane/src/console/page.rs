//! What all pages share: the frame around them, and the responses they are sent in.

use askama::Template;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use policy::Revision;
use policy::key_text::find_secret;

use super::secret::SecretPage;
use super::session::ConsoleSession;
use super::{assets, display};
use crate::operations::permissions::Permission;
use crate::operations::principal::Principal;
use crate::store::Workspace;
use crate::web::problem::Problem;

/// The frame of a page: the signed-in principal and the navigation.
#[derive(Clone)]
pub(super) struct Frame {
    pub(super) account: Option<Account>,
    pub(super) groups: Vec<NavGroup>,
}

/// The signed-in principal.
#[derive(Clone)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) role: &'static str,
    pub(super) csrf: String,
}

/// A workspace's name and slug, for titles and links.
#[derive(Clone)]
pub(super) struct WorkspaceRef {
    pub(super) name: String,
    pub(super) slug: String,
}

impl WorkspaceRef {
    pub(super) fn of(workspace: &Workspace) -> Self {
        Self { name: workspace.name.clone(), slug: workspace.slug.clone() }
    }
}

/// A titled group of links.
#[derive(Clone)]
pub(super) struct NavGroup {
    pub(super) title: String,
    pub(super) links: Vec<NavLink>,
}

#[derive(Clone)]
pub(super) struct NavLink {
    pub(super) label: &'static str,
    pub(super) href: String,
    pub(super) is_current: bool,
}

/// An entry of the navigation, so that it can be marked as the current one.
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
    /// A page that the navigation doesn't link to.
    Elsewhere,
}

/// Where a principal must have the permission for a link.
#[derive(Clone, Copy)]
enum LinkReach {
    /// On the whole platform.
    Platform,
    /// There, or in its own workspace.
    Any,
}

/// The links outside of a workspace: who may follow each, and its entry, label and path.
const PLATFORM_LINKS: [(Permission, LinkReach, Area, &str, &str); 6] = [
    (Permission::ReadKeys, LinkReach::Platform, Area::Workspaces, "Workspaces", "/console/workspaces"),
    (Permission::IdentifySecrets, LinkReach::Any, Area::Identify, "Found a leaked key?", "/console/identify"),
    (Permission::ReadEdges, LinkReach::Any, Area::Edges, "Edges", "/console/edges"),
    (Permission::ReadEdgeTokens, LinkReach::Platform, Area::EdgeTokens, "Edge tokens", "/console/edge-tokens"),
    (Permission::ReadAdminTokens, LinkReach::Any, Area::AdminTokens, "Admin tokens", "/console/admin-tokens"),
    (Permission::ReadAudit, LinkReach::Platform, Area::WholeAudit, "Audit log", "/console/audit"),
];

impl Frame {
    /// For a page that belongs to no workspace.
    pub(super) fn new(session: &ConsoleSession, area: Area) -> Self {
        Self::of(session, session.workspace.as_ref(), area)
    }

    /// For a page of a workspace.
    pub(super) fn within(session: &ConsoleSession, workspace: &Workspace, area: Area) -> Self {
        Self::of(session, Some(workspace), area)
    }

    /// For a page without a session.
    pub(super) fn signed_out() -> Self {
        Self { account: None, groups: Vec::new() }
    }

    fn of(session: &ConsoleSession, workspace: Option<&Workspace>, area: Area) -> Self {
        let principal = &session.principal;
        let account = Account {
            name: principal.actor().name.clone(),
            role: display::role(principal.role()),
            csrf: session.csrf.text().to_owned(),
        };
        let link = |of, label, href: &str| NavLink { label, href: href.to_owned(), is_current: of == area };
        let mut groups = Vec::new();
        if let Some(Workspace { name, slug, .. }) = workspace {
            let at = format!("/console/workspaces/{slug}");
            let links = [
                (Permission::ReadKeys, Area::Keys, "API Keys", format!("{at}/keys")),
                (Permission::ReadAudit, Area::Audit, "Audit trail", format!("{at}/audit")),
                (Permission::RenameWorkspaces, Area::Workspace, "Settings", at),
            ];
            let links = links.into_iter().filter(|(needed, ..)| principal.may(*needed));
            let links = links.map(|(_, area, label, href)| link(area, label, &href)).collect();
            groups.push(NavGroup { title: name.clone(), links });
        }
        let links = PLATFORM_LINKS.iter().filter(|(needed, reach, ..)| may_follow(principal, *needed, *reach));
        let links = links.map(|(_, _, area, label, href)| link(*area, label, href)).collect();
        groups.push(NavGroup { title: "Platform".to_owned(), links });
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

/// Whether the page of a link is for the principal.
fn may_follow(principal: &Principal, needed: Permission, reach: LinkReach) -> bool {
    let reaches = match reach {
        LinkReach::Platform => principal.reach().is_none(),
        LinkReach::Any => true,
    };
    reaches && principal.may(needed)
}

/// The first page that the principal may see; `None` if there is none.
pub(super) fn first_page(principal: &Principal) -> Option<&'static str> {
    let mut links = PLATFORM_LINKS.iter().filter(|(needed, reach, ..)| may_follow(principal, *needed, *reach));
    links.next().map(|(.., href)| *href)
}

/// Renders a page as a response. Keys and tokens in its text are redacted, wherever they were typed or stored; only
/// [`html_with_secret`] shows one.
pub(super) fn html(status: StatusCode, page: &impl Template) -> Result<Response, Problem> {
    Ok(html_response(status, redact_secrets(render(page)?)))
}

/// Renders the one page that shows a secret.
pub(super) fn html_with_secret(status: StatusCode, page: &SecretPage<'_>) -> Result<Response, Problem> {
    Ok(html_response(status, render(page)?))
}

fn render(page: &impl Template) -> Result<String, Problem> {
    page.render().map_err(|cause| {
        tracing::error!(%cause, "can't render a page");
        Problem::fault()
    })
}

fn html_response(status: StatusCode, text: String) -> Response {
    let kind = [(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"))];
    (status, kind, text).into_response()
}

fn redact_secrets(mut text: String) -> String {
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

/// Redirects after a change to a page that reports it: `action` is one of `COMPLETED_ACTIONS`, and `revision` is the
/// change's, whose enforcement the page shows.
pub(super) fn redirect_done(path: &str, action: &str, revision: Revision) -> Result<Response, Problem> {
    see_other(&format!("{path}?done={action}&revision={revision}"))
}
