//! Pages to list, create and revoke edge tokens.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::admin_tokens::revoke_page;
use super::enforcement::Banner;
use super::form::{Posted, fields, with};
use super::page::{Area, Frame, done, html, html_with_secret};
use super::problems::Errors;
use super::query::Asked;
use super::secret::{Line, Shown, made_before};
use super::session::Visit;
use super::words::Moment;
use crate::api::authority::PlatformAdmin;
use crate::api::edge_tokens::{make, of_token};
use crate::api::path::EdgeTokenInPath;
use crate::api::{Api, cursor, values};
use crate::problem::Problem;
use crate::store::{Precondition, TokenQuery};

const LIST: &str = "/console/edge-tokens";

#[derive(Template)]
#[template(path = "edge_tokens.html")]
struct ListPage {
    frame: Frame,
    banner: Option<Banner>,
    rows: Vec<Row>,
    next: Option<String>,
    is_first_page: bool,
}

struct Row {
    id: String,
    name: String,
    edge: String,
    last_characters: String,
    created: Moment,
    created_by: String,
    last_used: Option<Moment>,
}

#[derive(Template)]
#[template(path = "edge_token_new.html")]
struct NewPage {
    frame: Frame,
    errors: Errors,
    name: String,
    edge: String,
    nonce: String,
}

pub(super) async fn list(
    State(api): State<Api>,
    visit: Visit,
    _: PlatformAdmin,
    asked: Asked,
) -> Result<Response, Problem> {
    let mut given = asked.fields();
    let after = given.optional("cursor", |value| cursor::read(&values::string(value)?));
    let query = given.finish(|| Some(TokenQuery { limit: values::DEFAULT_LIMIT, after }))?;
    let page = api.store.list_edge_tokens(query).await?;
    let next = page.items.last().filter(|_| page.more).map(|last| cursor::write(&last.id));
    let names = api.store.actor_names(page.items.iter().map(|token| token.created_by.clone()).collect()).await?;
    let now = api.clock.now();
    let rows = page.items.into_iter().map(|token| Row {
        id: token.id.to_string(),
        name: token.name,
        edge: token.edge,
        last_characters: token.last_characters.0,
        created: Moment::new(token.created_at, now),
        created_by: names.get(&token.created_by).cloned().unwrap_or(token.created_by),
        last_used: Moment::maybe(token.last_used_at, now),
    });
    let page = ListPage {
        frame: Frame::new(&visit, Area::EdgeTokens),
        rows: rows.collect(),
        next: next.map(|next| asked.with(LIST, "cursor", &next)),
        is_first_page: asked.text("cursor").is_empty(),
        banner: Banner::of(&api, asked.done).await,
    };
    html(StatusCode::OK, &page)
}

pub(super) async fn new(State(api): State<Api>, visit: Visit, _: PlatformAdmin) -> Result<Response, Problem> {
    html(StatusCode::OK, &page(&api, &visit, (Errors::none(), "", ""))?)
}

pub(super) async fn create(
    State(api): State<Api>,
    visit: Visit,
    PlatformAdmin(principal): PlatformAdmin,
    form: Posted,
) -> Result<Response, Problem> {
    let once = form.once()?;
    let given = with(with(form.fields(&[]), "name", form.text("name")), "edge", form.text("edge"));
    match make(&api, &principal.once(once), fields(given)).await {
        Ok((made, secret)) => {
            let text = format!("export LATCHKEY_EDGE_TOKEN='{}'", secret.expose());
            let page = Shown {
                frame: Frame::new(&visit, Area::EdgeTokens),
                title: "Your new edge token".to_owned(),
                name: &made.value.name,
                secret: secret.expose(),
                line: Some(Line { label: "For Envoy's environment", text, hint: None }),
                steps: Vec::new(),
                enforcement: None,
                on: LIST.to_owned(),
                on_label: "I have copied it: back to the tokens",
            };
            html_with_secret(StatusCode::CREATED, &page)
        }
        Err(problem) if problem.errors().is_empty() => {
            let frame = Frame::new(&visit, Area::EdgeTokens);
            made_before(&api, problem, (once, frame, LIST), "Open the tokens").await
        }
        Err(problem) => {
            let typed = (Errors::of(problem)?, form.text("name"), form.text("edge"));
            html(StatusCode::UNPROCESSABLE_ENTITY, &page(&api, &visit, typed)?)
        }
    }
}

fn page(api: &Api, visit: &Visit, (errors, name, edge): (Errors, &str, &str)) -> Result<NewPage, Problem> {
    let frame = Frame::new(visit, Area::EdgeTokens);
    let nonce = api.entropy.text()?.expose().to_owned();
    Ok(NewPage { frame, errors, name: name.to_owned(), edge: edge.to_owned(), nonce })
}

pub(super) async fn ask_revoke(
    State(api): State<Api>,
    visit: Visit,
    _: PlatformAdmin,
    EdgeTokenInPath(id): EdgeTokenInPath,
) -> Result<Response, Problem> {
    let token = api.store.edge_token(id).await.map_err(of_token)?;
    let last_used = Moment::maybe(token.last_used_at, api.clock.now());
    revoke_page(Frame::new(&visit, Area::EdgeTokens), LIST, token.id.to_string(), token.name, last_used)
}

pub(super) async fn revoke(
    State(api): State<Api>,
    PlatformAdmin(principal): PlatformAdmin,
    EdgeTokenInPath(id): EdgeTokenInPath,
    _: Posted,
) -> Result<Response, Problem> {
    let acting = principal.acting(&api.clock);
    let revoked = api.store.revoke_edge_token(id, Precondition::None, acting).await.map_err(of_token)?;
    done(LIST, "edge-token-revoked", revoked.revision)
}
