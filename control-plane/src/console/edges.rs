//! Edges: every known Envoy process, and the revision that it has.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::{Revision, UnixSeconds};

use super::enforcement::{Banner, Told};
use super::form::Posted;
use super::page::{Area, Frame, done, html};
use super::problems::Errors;
use super::query::Asked;
use super::session::Visit;
use super::words::{Moment, length};
use crate::api::Api;
use crate::api::authority::PlatformAdmin;
use crate::api::path::InstanceInPath;
use crate::edges::{Bound, Seen, State as EdgeState};
use crate::problem::Problem;

#[derive(Template)]
#[template(path = "edges.html")]
struct Page {
    frame: Frame,
    banner: Option<Banner>,
    is_platform: bool,
    revision: Revision,
    told: Told,
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
    denies: Option<Moment>,
    last_seen: Moment,
    first_seen: Moment,
    version: Option<String>,
    format: u16,
    address: Option<String>,
    may_be_removed: bool,
}

#[derive(Template)]
#[template(path = "edge_remove.html")]
struct RemovePage {
    frame: Frame,
    errors: Errors,
    edge: String,
    instance: String,
    last_seen: Moment,
}

pub(super) async fn show(State(api): State<Api>, visit: Visit, asked: Asked) -> Result<Response, Problem> {
    let revision = api.store.head().borrow().revision;
    let (now, is_platform) = (api.clock.now(), visit.principal.reach().is_none());
    let banner = Banner::of(&api, asked.done).await;
    let told = Told::now(&api, revision).await;
    let rows = api.edges.seen(revision).into_iter().map(|seen| row(&api, seen, revision, is_platform, now));
    let frame = Frame::new(&visit, Area::Edges);
    html(StatusCode::OK, &Page { frame, banner, is_platform, revision, told, rows: rows.collect() })
}

fn row(api: &Api, seen: Seen, revision: Revision, is_platform: bool, now: UnixSeconds) -> Row {
    let Seen { instance, facts, applied, state, .. } = seen;
    let have = applied.iter().filter(|applied| applied.is_some_and(|applied| applied >= revision)).count();
    let (word, meaning) = match state {
        EdgeState::Current => ("current", "Connected, and each worker has every change."),
        EdgeState::Behind => ("behind", "Connected, and some worker hasn't said that it has every change."),
        EdgeState::Disconnected => ("disconnected", "Silent for more than 30 seconds. It may go on with what it has."),
        EdgeState::Stale => ("stale", "Silent for longer than its bound: it denies every request by itself."),
    };
    Row {
        workers: format!("{have} of {}", instance.workers.len()),
        state: word,
        meaning,
        applied: facts.applied,
        lag: facts.lag(revision),
        bound: match instance.bound {
            Bound::Secs(secs) => length(secs),
            Bound::Never => "none".to_owned(),
        },
        denies: match state {
            EdgeState::Disconnected => facts.denies_at().map(|at| Moment::new(api.edges.wall(at), now)),
            EdgeState::Current | EdgeState::Behind | EdgeState::Stale => None,
        },
        last_seen: Moment::new(instance.last_seen_at, now),
        first_seen: Moment::new(instance.first_seen_at, now),
        version: instance.version,
        format: instance.format,
        address: instance.address.filter(|_| is_platform).map(|address| address.to_string()),
        may_be_removed: is_platform && matches!(state, EdgeState::Disconnected | EdgeState::Stale),
        edge: instance.edge,
        instance: instance.id,
    }
}

pub(super) async fn ask_remove(
    State(api): State<Api>,
    visit: Visit,
    _: PlatformAdmin,
    InstanceInPath(id): InstanceInPath,
) -> Result<Response, Problem> {
    html(StatusCode::OK, &remove_page(&api, &visit, &id, Errors::none())?)
}

pub(super) async fn remove(
    State(api): State<Api>,
    visit: Visit,
    PlatformAdmin(principal): PlatformAdmin,
    InstanceInPath(id): InstanceInPath,
    _: Posted,
) -> Result<Response, Problem> {
    match api.edges.remove(&id, principal.acting(&api.clock)).await {
        Ok(removed) => done("/console/edges", "edge-removed", removed.revision),
        Err(refused) => {
            let problem = Problem::from(refused);
            let (status, errors) = (problem.status(), Errors::of(problem)?);
            html(status, &remove_page(&api, &visit, &id, errors)?)
        }
    }
}

fn remove_page(api: &Api, visit: &Visit, id: &str, errors: Errors) -> Result<RemovePage, Problem> {
    let head = api.store.head().borrow().revision;
    let found = api.edges.seen(head).into_iter().find(|seen| seen.instance.id == id);
    let instance = found.ok_or_else(Problem::unknown_instance)?.instance;
    Ok(RemovePage {
        frame: Frame::new(visit, Area::Edges),
        errors,
        last_seen: Moment::new(instance.last_seen_at, api.clock.now()),
        edge: instance.edge,
        instance: instance.id,
    })
}
