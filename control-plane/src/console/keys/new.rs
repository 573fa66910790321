//! `New API Key`: the form, and the one page that shows the secret.

use std::net::IpAddr;

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value};

use super::fields::Common;
use crate::api::Api;
use crate::api::authority::{AdminOf, InWorkspace};
use crate::api::keys::WithSecret;
use crate::api::keys::create;
use crate::console::enforcement::Told;
use crate::console::form::{Posted, fields, instant_of};
use crate::console::page::{Area, Frame, Place, html, html_with_secret};
use crate::console::problems::Errors;
use crate::console::secret::{Line, Shown, made_before};
use crate::console::session::Visit;
use crate::problem::Problem;

/// How long a key may be valid: the name in REST, and the label.
pub(in crate::console) const LIFETIMES: [(&str, &str); 8] = [
    ("1h", "1 hour"),
    ("1d", "1 day"),
    ("7d", "7 days"),
    ("30d", "30 days"),
    ("90d", "90 days"),
    ("180d", "180 days"),
    ("360d", "360 days"),
    ("none", "Never"),
];

/// Long enough for a quarter, short enough that somebody reviews the key.
const USUAL_LIFETIME: &str = "90d";

/// The choice of a custom expiration.
const AT: &str = "at";

#[derive(Template)]
#[template(path = "key_new.html")]
struct Page {
    frame: Frame,
    place: Place,
    errors: Errors,
    common: Common,
    lifetime: String,
    expires_at: String,
    lifetimes: [(&'static str, &'static str); 8],
    environments: Vec<String>,
    environment: String,
    address: Option<IpAddr>,
    nonce: String,
}

pub(in crate::console) async fn show(
    State(api): State<Api>,
    visit: Visit,
    AdminOf(at): AdminOf,
) -> Result<Response, Problem> {
    let page = Page {
        common: Common::empty(&api.config),
        lifetime: USUAL_LIFETIME.to_owned(),
        expires_at: String::new(),
        environment: api.config.first_environment().to_string(),
        ..page(&api, &visit, &at, Errors::none())?
    };
    html(StatusCode::OK, &page)
}

pub(in crate::console) async fn create(
    State(api): State<Api>,
    visit: Visit,
    AdminOf(at): AdminOf,
    form: Posted,
) -> Result<Response, Problem> {
    let typed = Common::typed(&form, &api.config);
    if form.has("check") {
        let typed = Common { allowlist: typed.allowlist.checked(), ..typed };
        return again(&api, &visit, &at, (typed, &form, Errors::none()), StatusCode::OK);
    }
    let given = match typed.given() {
        Ok(given) => given,
        Err(errors) => return again(&api, &visit, &at, (typed, &form, errors), StatusCode::UNPROCESSABLE_ENTITY),
    };
    let once = form.once()?;
    let at = at.once(once);
    match create::make(&api, &at, fields(with_expiration(given, &form))).await {
        Ok(made) => shown(&api, &visit, &at, made).await,
        Err(problem) if problem.errors().is_empty() => {
            let frame = Frame::within(&visit, &at.workspace, Area::Keys);
            let list = format!("/console/workspaces/{}/keys", at.workspace.slug);
            made_before(&api, problem, (once, frame, &list), "Open the key").await
        }
        Err(problem) => {
            let errors = Errors::of(problem)?;
            again(&api, &visit, &at, (typed, &form, errors), StatusCode::UNPROCESSABLE_ENTITY)
        }
    }
}

/// The page with the secret.
async fn shown(api: &Api, visit: &Visit, at: &InWorkspace, made: WithSecret) -> Result<Response, Problem> {
    let WithSecret { changed, secret } = made;
    let page = Shown {
        frame: Frame::within(visit, &at.workspace, Area::Keys),
        title: "Your new API key".to_owned(),
        name: &changed.value.name,
        secret: secret.expose(),
        line: Some(Line::of_key(api, &secret)),
        steps: Vec::new(),
        enforcement: Some(Told::of(api, changed.revision).await),
        on: super::view::href(&at.workspace, &changed.value),
        on_label: "I have copied it: open the key",
    };
    html_with_secret(StatusCode::CREATED, &page)
}

/// The form again, with what was typed.
fn again(
    api: &Api,
    visit: &Visit,
    at: &InWorkspace,
    (common, form, errors): (Common, &Posted, Errors),
    status: StatusCode,
) -> Result<Response, Problem> {
    let page = Page {
        common,
        lifetime: form.text("expires_in").to_owned(),
        expires_at: form.text("expires_at").to_owned(),
        environment: form.text("environment").to_owned(),
        ..page(api, visit, at, errors)?
    };
    html(status, &page)
}

fn page(api: &Api, visit: &Visit, at: &InWorkspace, errors: Errors) -> Result<Page, Problem> {
    Ok(Page {
        frame: Frame::within(visit, &at.workspace, Area::Keys),
        place: Place::of(&at.workspace),
        errors,
        common: Common::empty(&api.config),
        lifetime: String::new(),
        expires_at: String::new(),
        lifetimes: LIFETIMES,
        environments: api.config.environments.iter().map(ToString::to_string).collect(),
        environment: String::new(),
        address: visit.principal.address(),
        nonce: api.entropy.text()?.expose().to_owned(),
    })
}

/// Adds the chosen environment and expiration. A custom one is a day and a time, UTC, as browsers send them.
pub(in crate::console) fn with_expiration(mut given: Map<String, Value>, form: &Posted) -> Map<String, Value> {
    match form.text("expires_in") {
        "" => {}
        AT => {
            given.insert("expires_at".to_owned(), Value::from(instant_of(form.text("expires_at"))));
        }
        lifetime => {
            given.insert("expires_in".to_owned(), Value::from(lifetime));
        }
    }
    for name in ["environment"] {
        if form.has(name) {
            given.insert(name.to_owned(), Value::from(form.text(name)));
        }
    }
    given
}
