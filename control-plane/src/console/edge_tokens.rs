//! Pages to list, create and revoke edge tokens.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;

use super::admin_tokens::edge_token_revoke_page;
use super::display::Moment;
use super::enforcement::Banner;
use super::form::{VerifiedForm, fields, with_field};
use super::page::{Area, Frame, html, html_with_secret, redirect_done};
use super::problems::FormErrors;
use super::query::PageQuery;
use super::secret::{SecretPage, ShellCommand, already_created};
use super::session::ConsoleSession;
use crate::api::authority::PlatformAdmin;
use crate::api::edge_tokens::{create_token, token_problem};
use crate::api::path::EdgeTokenInPath;
use crate::api::{Api, cursor, values};
use crate::store::{Precondition, TokenQuery};
use crate::web::problem::Problem;

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
    errors: FormErrors,
    name: String,
    edge: String,
    nonce: String,
}

pub(super) async fn list(
    State(api): State<Api>,
    session: ConsoleSession,
    _: PlatformAdmin,
    params: PageQuery,
) -> Result<Response, Problem> {
    let mut fields = params.fields();
    let after = fields.optional("cursor", |value| cursor::decode(&values::string(value)?));
    let query = fields.finish(|| Some(TokenQuery { limit: values::DEFAULT_LIMIT, after }))?;
    let page = api.store.list_edge_tokens(query).await?;
    let next = page.items.last().filter(|_| page.more).map(|last| cursor::encode(&last.id));
    let names = api.store.actor_names(page.items.iter().map(|token| token.created_by.clone()).collect()).await?;
    let now = api.clock.now();
    let rows = page.items.into_iter().map(|token| Row {
        id: token.id.to_string(),
        name: token.name,
        edge: token.edge,
        last_characters: token.last_characters.0,
        created: Moment::new(token.created_at, now),
        created_by: names.get(&token.created_by).cloned().unwrap_or(token.created_by),
        last_used: Moment::optional(token.last_used_at, now),
    });
    let page = ListPage {
        frame: Frame::new(&session, Area::EdgeTokens),
        rows: rows.collect(),
        next: next.map(|next| params.url_with(LIST, "cursor", &next)),
        is_first_page: params.text("cursor").is_empty(),
        banner: Banner::of(&api, params.completed).await,
    };
    html(StatusCode::OK, &page)
}

pub(super) async fn new(
    State(api): State<Api>,
    session: ConsoleSession,
    _: PlatformAdmin,
) -> Result<Response, Problem> {
    html(StatusCode::OK, &page(&api, &session, (FormErrors::none(), "", ""))?)
}

pub(super) async fn create(
    State(api): State<Api>,
    session: ConsoleSession,
    PlatformAdmin(principal): PlatformAdmin,
    form: VerifiedForm,
) -> Result<Response, Problem> {
    let once_key = form.once_key()?;
    let input = with_field(with_field(form.fields(&[]), "name", form.text("name")), "edge", form.text("edge"));
    match create_token(&api, &principal.once(once_key), fields(input)).await {
        Ok((made, secret)) => {
            let text = format!("export LATCHKEY_EDGE_TOKEN='{}'", secret.expose());
            let page = SecretPage {
                frame: Frame::new(&session, Area::EdgeTokens),
                title: "Your new edge token".to_owned(),
                name: &made.value.name,
                secret: secret.expose(),
                command: Some(ShellCommand { label: "For Envoy's environment", text, hint: None }),
                steps: Vec::new(),
                enforcement: None,
                continue_href: LIST.to_owned(),
                continue_label: "I have copied it: back to the tokens",
            };
            html_with_secret(StatusCode::CREATED, &page)
        }
        Err(problem) if problem.errors().is_empty() => {
            let frame = Frame::new(&session, Area::EdgeTokens);
            already_created(&api, problem, (once_key, frame, LIST), "Back to the tokens").await
        }
        Err(problem) => {
            let input = (FormErrors::from_problem(problem)?, form.text("name"), form.text("edge"));
            html(StatusCode::UNPROCESSABLE_ENTITY, &page(&api, &session, input)?)
        }
    }
}

fn page(
    api: &Api,
    session: &ConsoleSession,
    (errors, name, edge): (FormErrors, &str, &str),
) -> Result<NewPage, Problem> {
    let frame = Frame::new(session, Area::EdgeTokens);
    let nonce = api.entropy.text()?.expose().to_owned();
    Ok(NewPage { frame, errors, name: name.to_owned(), edge: edge.to_owned(), nonce })
}

pub(super) async fn confirm_revoke(
    State(api): State<Api>,
    session: ConsoleSession,
    _: PlatformAdmin,
    EdgeTokenInPath(id): EdgeTokenInPath,
) -> Result<Response, Problem> {
    let token = api.store.edge_token(id).await.map_err(token_problem)?;
    let last_used = Moment::optional(token.last_used_at, api.clock.now());
    edge_token_revoke_page(Frame::new(&session, Area::EdgeTokens), LIST, token.id.to_string(), token.name, last_used)
}

pub(super) async fn revoke(
    State(api): State<Api>,
    PlatformAdmin(principal): PlatformAdmin,
    EdgeTokenInPath(id): EdgeTokenInPath,
    _: VerifiedForm,
) -> Result<Response, Problem> {
    let context = principal.change_context(&api.clock);
    let revoked = api.store.revoke_edge_token(id, Precondition::None, context).await.map_err(token_problem)?;
    redirect_done(LIST, "edge-token-revoked", revoked.revision)
}
