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
use crate::api::Api;
use crate::api::authority::Platform;
use crate::api::path::EdgeTokenInPath;
use crate::operations::WithSecret;
use crate::operations::cursor::CursorPage;
use crate::operations::edge_tokens::CreateEdgeToken;
use crate::operations::permissions::{Permission, may};
use crate::operations::request::RequestBody as _;
use crate::store::Precondition;
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
    may_manage: bool,
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
    _: Platform<may::ReadEdgeTokens>,
    params: PageQuery,
) -> Result<Response, Problem> {
    let CursorPage { items, next_cursor } = api.operations().list_edge_tokens(params.fields()).await?;
    let names = api.store.actor_names(items.iter().map(|token| token.created_by.clone()).collect()).await?;
    let now = api.clock.now();
    let rows = items.into_iter().map(|token| Row {
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
        next: next_cursor.map(|next| params.url_with(LIST, "cursor", &next)),
        is_first_page: params.text("cursor").is_empty(),
        may_manage: session.principal.may(Permission::ManageEdgeTokens),
        banner: Banner::of(&api, params.completed).await,
    };
    html(StatusCode::OK, &page)
}

pub(super) async fn new(
    State(api): State<Api>,
    session: ConsoleSession,
    _: Platform<may::ManageEdgeTokens>,
) -> Result<Response, Problem> {
    html(StatusCode::OK, &page(&api, &session, (FormErrors::none(), "", ""))?)
}

pub(super) async fn create(
    State(api): State<Api>,
    session: ConsoleSession,
    Platform(principal, ..): Platform<may::ManageEdgeTokens>,
    form: VerifiedForm,
) -> Result<Response, Problem> {
    let once_key = form.once_key()?;
    let input = with_field(with_field(form.fields(&[]), "name", form.text("name")), "edge", form.text("edge"));
    let (operations, principal) = (api.operations(), principal.once(once_key));
    let created = match CreateEdgeToken::parse(fields(input), &operations.context(&principal)) {
        Ok(request) => operations.create_edge_token(&principal, request).await,
        Err(error) => Err(error),
    };
    match created {
        Ok(WithSecret { changed: made, secret }) => {
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
        Err(error) => match FormErrors::of(error) {
            Ok(errors) => {
                let input = (errors, form.text("name"), form.text("edge"));
                html(StatusCode::UNPROCESSABLE_ENTITY, &page(&api, &session, input)?)
            }
            Err(error) => {
                let frame = Frame::new(&session, Area::EdgeTokens);
                already_created(&api, error, (once_key, frame, LIST), "Back to the tokens").await
            }
        },
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
    _: Platform<may::ManageEdgeTokens>,
    EdgeTokenInPath(id): EdgeTokenInPath,
) -> Result<Response, Problem> {
    let token = api.operations().edge_token(id).await?;
    let last_used = Moment::optional(token.last_used_at, api.clock.now());
    edge_token_revoke_page(Frame::new(&session, Area::EdgeTokens), LIST, token.id.to_string(), token.name, last_used)
}

pub(super) async fn revoke(
    State(api): State<Api>,
    Platform(principal, ..): Platform<may::ManageEdgeTokens>,
    EdgeTokenInPath(id): EdgeTokenInPath,
    _: VerifiedForm,
) -> Result<Response, Problem> {
    let revoked = api.operations().revoke_edge_token(&principal, id, Precondition::None).await?;
    redirect_done(LIST, "edge-token-revoked", revoked.revision)
}
