//! `/v1/edge-tokens`: tokens for the feed, each bound to the name of an edge.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use policy::{EdgeTokenId, Revision, UnixSeconds};
use serde::Serialize;
use utoipa::ToSchema;

use super::Api;
use super::authority::Platform;
use super::idempotency::{self, IdempotencyKey};
use super::path::EdgeTokenInPath;
use super::precondition::IfMatch;
use super::query::{PageParams, QueryFields};
use super::response::{PageBody, changed_resource, no_content, ok_json, resource};
use crate::base::instant;
use crate::operations::WithSecret;
use crate::operations::cursor::CursorPage;
use crate::operations::edge_tokens::CreateEdgeToken;
use crate::operations::fields::Fields;
use crate::operations::permissions::may;
use crate::operations::request::RequestBody as _;
use crate::store::{EdgeToken, OnceResult};
use crate::web::problem::Problem;

/// A token as JSON. All fields are present, `null` where there is nothing.
#[derive(Serialize, ToSchema)]
#[schema(as = EdgeToken)]
struct TokenBody {
    #[schema(value_type = String)]
    id: EdgeTokenId,
    name: String,
    edge: String,
    last_characters: String,
    #[serde(serialize_with = "instant::serialize")]
    #[schema(value_type = String, format = DateTime)]
    created_at: UnixSeconds,
    created_by: String,
    #[serde(serialize_with = "instant::optional::serialize")]
    #[schema(value_type = Option<String>, format = DateTime, required)]
    last_used_at: Option<UnixSeconds>,
    #[schema(value_type = u64)]
    revision: Revision,
}

impl From<EdgeToken> for TokenBody {
    fn from(token: EdgeToken) -> Self {
        let EdgeToken { id, last_characters, name, edge, created_at, created_by, last_used_at, revision, .. } = token;
        Self { id, name, edge, last_characters: last_characters.0, created_at, created_by, last_used_at, revision }
    }
}

/// The only response that shows a token's text.
#[derive(Serialize, ToSchema)]
#[schema(as = EdgeTokenWithSecret)]
struct TokenWithSecret<'a> {
    token: TokenBody,
    /// `null` in the response to a retry: the text is shown only once.
    #[schema(required)]
    secret: Option<&'a str>,
}

/// Creates an edge token, and shows its text once.
#[utoipa::path(
    post,
    path = "/edge-tokens",
    operation_id = "create_edge_token",
    params(IdempotencyKey),
    request_body = CreateEdgeToken,
    responses((status = 201, description = "The token and its text", body = TokenWithSecret))
)]
pub(super) async fn create(
    State(api): State<Api>,
    Platform(principal, ..): Platform<may::ManageEdgeTokens>,
    key: IdempotencyKey,
    fields: Fields,
) -> Result<Response, Problem> {
    let once = key.for_body(fields.digest());
    let principal = principal.once(once);
    let run = async {
        let operations = api.operations();
        let request = CreateEdgeToken::parse(fields, &operations.context(&principal))?;
        let WithSecret { changed: made, secret } = operations.create_edge_token(&principal, request).await?;
        let body = TokenWithSecret { token: made.value.into(), secret: Some(secret.expose()) };
        changed_resource(StatusCode::CREATED, &body, made.revision)
    };
    idempotency::run_once(&api, once, run, |made| replay(&api, made)).await
}

/// The response to a retry: the token as it is now.
async fn replay(api: &Api, made: OnceResult) -> Result<Response, Problem> {
    let id = made.ids.first().and_then(|id| id.parse().ok()).ok_or_else(Problem::unknown_token)?;
    let token = api.operations().edge_token(id).await?;
    let revision = token.revision;
    changed_resource(StatusCode::CREATED, &TokenWithSecret { token: token.into(), secret: None }, revision)
}

/// Lists the edge tokens, oldest first.
#[utoipa::path(
    get,
    path = "/edge-tokens",
    operation_id = "list_edge_tokens",
    params(PageParams),
    responses((status = 200, description = "A page", body = PageBody<TokenBody>))
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Platform<may::ReadEdgeTokens>,
    QueryFields(fields): QueryFields,
) -> Result<Response, Problem> {
    let CursorPage { items, next_cursor } = api.operations().list_edge_tokens(fields).await?;
    ok_json(&PageBody { items: items.into_iter().map(TokenBody::from).collect(), next_cursor })
}

/// Shows an edge token.
#[utoipa::path(
    get,
    path = "/edge-tokens/{token}",
    operation_id = "get_edge_token",
    responses((status = 200, description = "The token", body = TokenBody))
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Platform<may::ReadEdgeTokens>,
    EdgeTokenInPath(id): EdgeTokenInPath,
) -> Result<Response, Problem> {
    let token = api.operations().edge_token(id).await?;
    let revision = token.revision;
    resource(&TokenBody::from(token), revision)
}

/// Revokes an edge token permanently, with immediate effect.
#[utoipa::path(
    delete,
    path = "/edge-tokens/{token}",
    operation_id = "revoke_edge_token",
    params(IfMatch),
    responses((status = 204, description = "It is revoked"))
)]
pub(super) async fn revoke(
    State(api): State<Api>,
    Platform(principal, ..): Platform<may::ManageEdgeTokens>,
    EdgeTokenInPath(id): EdgeTokenInPath,
    IfMatch(precondition): IfMatch,
) -> Result<Response, Problem> {
    Ok(no_content(api.operations().revoke_edge_token(&principal, id, precondition).await?.revision))
}
