//! Edges: every known Envoy process with its revision, and the confirmation that one is gone.

use crate::base::staleness_bound::StalenessBound;
use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::{Revision, UnixSeconds};

use super::display::{Moment, duration};
use super::enforcement::{Banner, EnforcementStatus};
use super::form::VerifiedForm;
use super::page::{Area, Frame, html, redirect_done};
use super::problems::FormErrors;
use super::query::PageQuery;
use super::session::ConsoleSession;
use crate::api::Api;
use crate::api::authority::{Anywhere, Platform};
use crate::api::path::InstanceInPath;
use crate::edges::{InstanceError, InstanceView, State as EdgeState};
use crate::operations::permissions::{Permission, may};
use crate::operations::principal::Principal;
use crate::web::problem::Problem;

#[derive(Template)]
#[template(path = "edges.html")]
struct Page {
    frame: Frame,
    banner: Option<Banner>,
    is_platform: bool,
    may_create_token: bool,
    revision: Revision,
    enforcement: EnforcementStatus,
    rows: Vec<Row>,
}

struct Row {
    edge: String,
    instance: String,
    state: &'static str,
    meaning: &'static str,
    /// `3 of 3`
    workers: String,
    applied: Option<Revision>,
    lag: u64,
    bound: String,
    denies_at: Option<Moment>,
    last_seen: Moment,
    first_seen: Moment,
    version: Option<String>,
    format: u16,
    address: Option<String>,
    is_removable: bool,
}

#[derive(Template)]
#[template(path = "edge_remove.html")]
struct RemovePage {
    frame: Frame,
    errors: FormErrors,
    edge: String,
    instance: String,
    last_seen: Moment,
}

pub(super) async fn show(
    State(api): State<Api>,
    session: ConsoleSession,
    _: Anywhere<may::ReadEdges>,
    params: PageQuery,
) -> Result<Response, Problem> {
    let revision = api.store.head().borrow().revision;
    let (now, principal) = (api.clock.now(), &session.principal);
    let is_platform = principal.reach().is_none();
    let banner = Banner::of(&api, params.completed).await;
    let enforcement = EnforcementStatus::now(&api, revision).await;
    let rows = api.edges.views(revision).into_iter().map(|view| row(&api, view, revision, principal, now));
    let frame = Frame::new(&session, Area::Edges);
    let page = Page {
        frame,
        banner,
        is_platform,
        may_create_token: principal.may(Permission::ManageEdgeTokens),
        revision,
        enforcement,
        rows: rows.collect(),
    };
    html(StatusCode::OK, &page)
}

fn row(api: &Api, view: InstanceView, revision: Revision, principal: &Principal, now: UnixSeconds) -> Row {
    let InstanceView { instance, facts, applied, state, .. } = view;
    let current = applied.iter().filter(|applied| applied.is_some_and(|applied| applied >= revision)).count();
    let (word, meaning) = match state {
        EdgeState::Current => ("current", "Connected, and each worker has every change."),
        EdgeState::Behind => ("behind", "Connected, but some workers haven't acknowledged every change."),
        EdgeState::Disconnected => {
            ("disconnected", "No contact for more than 30 seconds. It may continue with the keys it has.")
        }
        EdgeState::Stale => ("stale", "No contact for longer than its staleness bound: it denies every request."),
    };
    Row {
        workers: format!("{current} of {}", instance.workers.len()),
        state: word,
        meaning,
        applied: facts.applied,
        lag: facts.lag(revision),
        bound: match instance.bound {
            StalenessBound::Secs(secs) => duration(secs),
            StalenessBound::Never => "none".to_owned(),
        },
        denies_at: match state {
            EdgeState::Disconnected => facts.denies_at().map(|at| Moment::new(api.edges.wall_clock(at), now)),
            EdgeState::Current | EdgeState::Behind | EdgeState::Stale => None,
        },
        last_seen: Moment::new(instance.last_seen_at, now),
        first_seen: Moment::new(instance.first_seen_at, now),
        version: instance.version,
        format: instance.format,
        address: instance.address.filter(|_| principal.reach().is_none()).map(|address| address.to_string()),
        is_removable: principal.may(Permission::ManageEdges)
            && matches!(state, EdgeState::Disconnected | EdgeState::Stale),
        edge: instance.edge,
        instance: instance.id,
    }
}

/// Why an instance can't be removed.
const CONNECTED: &str =
    "This instance sent a request less than 30 s ago; end its process or revoke its token, and try again.";

pub(super) async fn confirm_remove(
    State(api): State<Api>,
    session: ConsoleSession,
    _: Platform<may::ManageEdges>,
    InstanceInPath(id): InstanceInPath,
) -> Result<Response, Problem> {
    html(StatusCode::OK, &remove_page(&api, &session, &id, FormErrors::none())?)
}

pub(super) async fn remove(
    State(api): State<Api>,
    session: ConsoleSession,
    Platform(principal, ..): Platform<may::ManageEdges>,
    InstanceInPath(id): InstanceInPath,
    _: VerifiedForm,
) -> Result<Response, Problem> {
    match api.edges.remove(&id, principal.change_context(&api.clock)).await {
        Ok(removed) => redirect_done("/console/edges", "edge-removed", removed.revision),
        Err(InstanceError::Connected) => {
            let errors = FormErrors::summary(CONNECTED);
            html(StatusCode::CONFLICT, &remove_page(&api, &session, &id, errors)?)
        }
        Err(other) => Err(other.into()),
    }
}

fn remove_page(api: &Api, session: &ConsoleSession, id: &str, errors: FormErrors) -> Result<RemovePage, Problem> {
    let head = api.store.head().borrow().revision;
    let view = api.edges.views(head).into_iter().find(|view| view.instance.id == id);
    let instance = view.ok_or_else(Problem::unknown_instance)?.instance;
    Ok(RemovePage {
        frame: Frame::new(session, Area::Edges),
        errors,
        last_seen: Moment::new(instance.last_seen_at, api.clock.now()),
        edge: instance.edge,
        instance: instance.id,
    })
}
