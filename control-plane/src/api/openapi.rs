//! The OpenAPI document: the handlers' own declarations, completed with what all of them have in common.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use utoipa::openapi::{RefOr, response};
use utoipa::{OpenApi, ToResponse};

use super::keys::import::ExpiredLine;
use super::{Api, router};
use crate::base::public_url::PublicUrl;
use crate::store::{Order, Sort};
use crate::web::problem;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Latchkey",
        description = "API keys for Envoy, enforced at the edge: the control plane.\n\n\
            A change is on disk when it is answered, and the response has `Latchkey-Revision`. GET and changes of a \
            workspace, key or token respond with `ETag`; a change with `If-Match` is refused if the resource was changed \
            in the meantime. A change with `Idempotency-Key` is made once, and can be retried if the response was lost. \
            Errors are `application/problem+json` (RFC 9457) with a `code` for programs. Each response has \
            `X-Request-Id`. Unknown fields and parameters are refused.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    components(schemas(problem::Body, Sort, Order, ExpiredLine))
)]
struct Base;

/// Tags of operations, by the beginning of their paths. The first match counts.
const TAGS: [(&str, &str); 9] = [
    ("/v1/workspaces/{workspace}/keys", "Keys"),
    ("/v1/keys", "Keys"),
    ("/v1/workspaces/{workspace}/audit-events", "Audit log"),
    ("/v1/audit-events", "Audit log"),
    ("/v1/workspaces", "Workspaces"),
    ("/v1/admin-tokens", "Admin tokens"),
    ("/v1/edge-tokens", "Edge tokens"),
    ("/v1/edges", "Edges"),
    ("/v1/enforcement", "Edges"),
];

/// Shows this document.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "get_openapi",
    responses((status = 200, description = "This document", body = Object))
)]
pub(super) async fn show(State(api): State<Api>) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], api.document())
}

/// The document of a control plane at this address. Its `servers` depend on the deployment, so the committed document
/// has none.
pub(super) fn with_servers(at: &PublicUrl) -> String {
    let mut document = document();
    if let Some(document) = document.as_object_mut() {
        document.insert("servers".to_owned(), json!([{"url": at.to_string()}]));
    }
    document.to_string()
}

/// The document, indented: docs/openapi.json.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).unwrap_or_default();
    text.push('\n');
    text
}

/// The document. Costs some milliseconds.
pub fn document() -> Value {
    let routes = Base::openapi().merge_from(router::openapi_document());
    let Ok(Value::Object(mut document)) = serde_json::to_value(routes) else { return Value::Null };
    for (path, item) in members(document.get_mut("paths")) {
        for (method, operation) in members(Some(item)) {
            if let Value::Object(operation) = operation {
                complete(path, method, operation);
                if let Some(body) = operation.get_mut("requestBody") {
                    complete_body(method, body);
                }
            }
        }
    }
    if let Some(Value::Object(components)) = document.get_mut("components") {
        let scheme = json!({"type": "http", "scheme": "bearer", "description": "An admin token, `lkadm_…`"});
        components.insert("securitySchemes".to_owned(), json!({"admin_token": scheme}));
        components.insert("responses".to_owned(), problems());
    }
    let mut document = Value::Object(document);
    // Another crate in the build may make serde_json keep members in the order of insertion.
    document.sort_all_objects();
    document
}

fn members(of: Option<&mut Value>) -> impl Iterator<Item = (&String, &mut Value)> {
    of.and_then(Value::as_object_mut).into_iter().flatten()
}

/// Marks an operation that changes nothing, although its method isn't GET. Not part of the document.
const READ_ONLY: &str = "x-read-only";

/// A refusal that a handler declares, because its path and parameters don't imply it.
pub(super) struct NotFound;

/// As [`NotFound`].
pub(super) struct Conflict;

impl<'r> ToResponse<'r> for NotFound {
    fn response() -> (&'r str, RefOr<response::Response>) {
        ("NotFound", response::Response::new("").into())
    }
}

impl<'r> ToResponse<'r> for Conflict {
    fn response() -> (&'r str, RefOr<response::Response>) {
        ("Conflict", response::Response::new("").into())
    }
}

/// Adds what the path, the method and the declared parameters imply.
fn complete(path: &str, method: &str, operation: &mut Map<String, Value>) {
    let tag = TAGS.iter().find(|(start, _)| path.starts_with(start)).map_or("Operation", |(_, tag)| tag);
    operation.insert("tags".to_owned(), json!([tag]));
    let is_guarded = path.starts_with("/v1/") || path == "/metrics";
    let security = if is_guarded { json!([{"admin_token": []}]) } else { json!([]) };
    operation.insert("security".to_owned(), security);

    let declared = match operation.remove("parameters") {
        Some(Value::Array(declared)) => declared,
        _ => Vec::new(),
    };
    let takes = |name: &str| declared.iter().any(|parameter| parameter.get("name").is_some_and(|own| own == name));
    let has_query = declared.iter().any(|parameter| parameter.get("in").is_some_and(|place| place == "query"));
    let (takes_if_match, takes_key) = (takes("If-Match"), takes("Idempotency-Key"));
    let is_change = method != "get" && operation.remove(READ_ONLY).is_none();
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<_> = names.map(path_parameter).collect();
    parameters.extend(declared);
    if is_change {
        let description = "`wait=S`: respond when the change is enforced, or after S seconds, at most 60 (RFC 7240)";
        let schema = json!({"type": "string"});
        parameters.push(json!({
            "name": "Prefer", "in": "header", "required": false, "description": description, "schema": schema,
        }));
    }
    operation.insert("parameters".to_owned(), Value::Array(parameters));

    let has_body = operation.contains_key("requestBody");
    let Some(Value::Object(responses)) = operation.get_mut("responses") else { return };
    // A bulk change shows no single resource.
    let changes_many = ["/import", "-matching"].iter().any(|end| path.ends_with(end));
    let shows_one = is_change && method != "delete" && !changes_many || method == "get" && path.ends_with('}');
    for (status, response) in responses.iter_mut().filter(|(status, _)| status.starts_with('2')) {
        if let Some(response) = response.as_object_mut().filter(|_| is_change || shows_one) {
            let mut headers = answer_headers(is_change, shows_one && status != "204");
            if takes_key {
                let description = "`true` if a request with the same `Idempotency-Key` made this change before";
                let header = json!({"description": description, "required": false, "schema": {"type": "string"}});
                headers.insert("Idempotency-Replayed".to_owned(), header);
            }
            response.insert("headers".to_owned(), Value::Object(headers));
        }
    }
    for (name, status, _) in PROBLEMS {
        let applies = match status {
            400 | 422 => has_body || has_query,
            401 | 403 | 429 | 500 => is_guarded,
            404 => path.contains('{') || takes_key,
            409 => takes_key,
            412 => takes_if_match,
            413 | 415 => has_body,
            503 => is_guarded || path == "/readyz",
            _ => false,
        };
        if applies {
            let response = json!({"$ref": format!("#/components/responses/{name}")});
            responses.insert(status.to_string(), response);
        }
    }
}

fn answer_headers(is_change: bool, shows_one: bool) -> Map<String, Value> {
    let mut headers = Map::new();
    let mut header = |name: &str, description, kind| {
        let header = json!({"description": description, "required": true, "schema": {"type": kind}});
        headers.insert(name.to_owned(), header);
    };
    if is_change {
        header("Latchkey-Revision", "The revision from which on the change is in effect", "integer");
    }
    if shows_one {
        header("ETag", "The resource's last revision, for `If-Match`", "string");
    }
    if is_change {
        let description = "With `Prefer: wait=S`: `enforced=true, edges=3, workers=15, disconnected=0, elapsed_ms=9`, or \
            `enforced=false, …, bounded_at=` an instant or `never`";
        let header = json!({"description": description, "required": false, "schema": {"type": "string"}});
        headers.insert("Latchkey-Enforcement".to_owned(), header);
    }
    headers
}

/// Name, status and description. docs/api.md lists the codes of each.
const PROBLEMS: [(&str, u16, &str); 12] = [
    ("NotJson", 400, "Bad Request: the body isn't JSON, or the query or `Idempotency-Key` can't be read"),
    ("Unauthenticated", 401, "Unauthorized: no valid token was sent"),
    (
        "Forbidden",
        403,
        "Forbidden: the token's role does not allow this, or the token may not be used from this address",
    ),
    ("NotFound", 404, "Not Found: it does not exist, or the token may not see it"),
    (
        "Conflict",
        409,
        "Conflict: the slug is taken, the key has expired, the edge is connected, or the request is in progress",
    ),
    ("Stale", 412, "Precondition Failed: the resource was changed in the meantime"),
    ("TooLarge", 413, "Content Too Large: the body is too large"),
    ("UnsupportedMediaType", 415, "Unsupported Media Type: the body has another type than the operation accepts"),
    ("Invalid", 422, "Unprocessable Content: `errors` lists the invalid fields, `lines` the invalid lines"),
    (
        "TooManyAttempts",
        429,
        "Too Many Requests: too many invalid tokens from this address, or a limit of imports is reached",
    ),
    ("Fault", 500, "Internal Server Error: a fault; `detail` states whether a change may have been made"),
    ("Unavailable", 503, "Service Unavailable: the storage is unavailable, or the request took too long"),
];

fn problems() -> Value {
    let content = json!({"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}});
    let response = |when| json!({"description": when, "content": content});
    Value::Object(PROBLEMS.iter().map(|(name, _, when)| ((*name).to_owned(), response(when))).collect())
}

fn path_parameter(name: &str) -> Value {
    let description = match name {
        "workspace" => "A workspace's id or slug",
        "key" => "A key's id",
        "instance" => "An instance's id",
        _ => "A token's id",
    };
    json!({"name": name, "in": "path", "required": true, "description": description, "schema": {"type": "string"}})
}

/// Makes an optional body optional instead of nullable, and adds the merge-patch type to a PATCH.
fn complete_body(method: &str, body: &mut Value) {
    let Some(schema) = body.pointer_mut("/content/application~1json/schema") else { return };
    if let Some(given) = schema.pointer("/oneOf/0").cloned() {
        *schema = given;
    }
    if method == "patch" {
        let content = json!({"schema": schema.clone()});
        if let Some(Value::Object(kinds)) = body.get_mut("content") {
            kinds.insert("application/merge-patch+json".to_owned(), content);
        }
        if let Value::Object(body) = body {
            // An empty body is `{}`, and changes nothing.
            body.insert("required".to_owned(), json!(false));
        }
    }
}
