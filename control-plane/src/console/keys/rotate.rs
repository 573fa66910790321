//! Rotating a key: how long the old secret keeps working, and the one page that shows the new one.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::view::{href, mask};
use crate::api::Api;
use crate::api::authority::{AdminOf, InWorkspace};
use crate::api::keys::{WithSecret, of_key, rotate as api_rotate};
use crate::api::path::KeyInPath;
use crate::console::enforcement::Told;
use crate::console::form::{Posted, fields};
use crate::console::page::{Area, Frame, Place, html, html_with_secret};
use crate::console::problems::Errors;
use crate::console::secret::{Line, Shown, made_before};
use crate::console::session::Visit;
use crate::console::words::Moment;
use crate::problem::Problem;
use crate::store::{Key, Precondition};

/// How long the old secret may keep working: the name in REST, and the label.
pub(super) const OVERLAPS: [(&str, &str); 6] = [
    ("", "Stop the old secret at once"),
    ("30m", "30 minutes"),
    ("1h", "1 hour"),
    ("12h", "12 hours"),
    ("1d", "1 day"),
    ("7d", "7 days"),
];

/// The form of a rotation, on its own page or in a dialog on the key's.
pub(super) struct Question {
    pub(super) href: String,
    pub(super) overlap: String,
    pub(super) overlaps: [(&'static str, &'static str); 6],
    pub(super) nonce: String,
    /// Whether an earlier overlap is still running, which a rotation ends.
    pub(super) ends_previous: bool,
    pub(super) is_inactive: bool,
}

#[derive(Template)]
#[template(path = "key_rotate.html")]
struct Page {
    frame: Frame,
    place: Place,
    errors: Errors,
    name: String,
    mask: String,
    last_used: Option<Moment>,
    question: Question,
}

impl Question {
    pub(super) fn of(api: &Api, href: &str, key: &Key) -> Result<Self, Problem> {
        Ok(Self {
            href: href.to_owned(),
            overlap: String::new(),
            overlaps: OVERLAPS,
            nonce: api.entropy.text()?.expose().to_owned(),
            ends_previous: key.previous_secret_expires_at(api.clock.now()).is_some(),
            is_inactive: !key.active,
        })
    }
}

pub(in crate::console) async fn show(
    State(api): State<Api>,
    visit: Visit,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
) -> Result<Response, Problem> {
    let key = api.store.key(at.workspace.id, id).await.map_err(of_key)?;
    html(StatusCode::OK, &page(&api, &visit, &at, &key, Errors::none())?)
}

pub(in crate::console) async fn rotate(
    State(api): State<Api>,
    visit: Visit,
    AdminOf(at): AdminOf,
    KeyInPath(id): KeyInPath,
    form: Posted,
) -> Result<Response, Problem> {
    let once = form.once()?;
    let at = at.once(once);
    let problem =
        match api_rotate::give_secret(&api, &at, id, Precondition::None, fields(form.fields(&["overlap"]))).await {
            Ok(made) => return shown(&api, &visit, &at, made, form.has("overlap")).await,
            Err(problem) => problem,
        };
    let key = api.store.key(at.workspace.id, id).await.map_err(of_key)?;
    if problem.errors().is_empty() && problem.code() != "expired-key" {
        let (frame, here) = (Frame::within(&visit, &at.workspace, Area::Keys), href(&at.workspace, &key));
        return made_before(&api, problem, (once, frame, &here), "Open the key").await;
    }
    let (status, errors) = (problem.status(), Errors::of(problem)?);
    let mut page = page(&api, &visit, &at, &key, errors)?;
    form.text("overlap").clone_into(&mut page.question.overlap);
    html(status, &page)
}

async fn shown(
    api: &Api,
    visit: &Visit,
    at: &InWorkspace,
    WithSecret { changed, secret }: WithSecret,
    has_overlap: bool,
) -> Result<Response, Problem> {
    let mut steps = vec![
        "Copy the new secret into your vault, as a new version.",
        "Update the system that uses the key, and reload it.",
        "See on the key's page that the new secret is used.",
    ];
    steps.extend(has_overlap.then_some("End the overlap, so that the old secret stops."));
    steps.push("Remove the old secret from the vault.");
    let page = Shown {
        frame: Frame::within(visit, &at.workspace, Area::Keys),
        title: "The key's new secret".to_owned(),
        name: &changed.value.name,
        secret: secret.expose(),
        line: Some(Line::of_key(api, &secret)),
        steps,
        enforcement: Some(Told::of(api, changed.revision).await),
        on: href(&at.workspace, &changed.value),
        on_label: "I have copied it: open the key",
    };
    html_with_secret(StatusCode::OK, &page)
}

fn page(api: &Api, visit: &Visit, at: &InWorkspace, key: &Key, errors: Errors) -> Result<Page, Problem> {
    Ok(Page {
        frame: Frame::within(visit, &at.workspace, Area::Keys),
        place: Place::of(&at.workspace),
        errors,
        name: key.name.clone(),
        mask: mask(key),
        last_used: Moment::maybe(key.used.last_at, api.clock.now()),
        question: Question::of(api, &href(&at.workspace, key), key)?,
    })
}
