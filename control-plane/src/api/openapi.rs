//! The OpenAPI document: the handlers' own declarations, completed with what all of them have in common.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::requests::{AuditSort, ExpiredLines, KeySort};
use super::{Api, router};
use crate::base::public_url::PublicUrl;
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
    components(schemas(problem::Body, KeySort, AuditSort, ExpiredLines))
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
    let mut bodies = Vec::new();
    let with_etag = with_etag(document.get("paths"));
    for (path, item) in members(document.get_mut("paths")) {
        let is_readable = item.get("get").is_some();
        for (method, operation) in members(Some(item)) {
            if let Value::Object(operation) = operation {
                let takes_if_match =
                    method != "get" && (with_etag.contains(path) || !is_readable && is_action_on(path, &with_etag));
                complete(path, method, operation, takes_if_match);
                bodies.extend(operation.get_mut("requestBody").and_then(|body| complete_body(method, body)));
            }
        }
    }
    if let Some(Value::Object(components)) = document.get_mut("components") {
        let scheme = json!({"type": "http", "scheme": "bearer", "description": "An admin token, `lkadm_…`"});
        components.insert("securitySchemes".to_owned(), json!({"admin_token": scheme}));
        components.insert("responses".to_owned(), problems());
        for (name, schema) in members(components.get_mut("schemas")) {
            if let Some(schema) = schema.as_object_mut().filter(|_| bodies.contains(name)) {
                // Unknown fields are refused.
                schema.insert("additionalProperties".to_owned(), json!(false));
            }
        }
    }
    let mut document = Value::Object(document);
    // Another crate in the build may make serde_json keep members in the order of insertion.
    document.sort_all_objects();
    document
}

fn members(of: Option<&mut Value>) -> impl Iterator<Item = (&String, &mut Value)> {
    of.and_then(Value::as_object_mut).into_iter().flatten()
}

/// Paths of single resources that can be read, and so have an ETag.
fn with_etag(paths: Option<&Value>) -> Vec<String> {
    let paths = paths.and_then(Value::as_object).into_iter().flatten();
    paths
        .filter(|(path, item)| path.ends_with('}') && item.get("get").is_some())
        .map(|(path, _)| path.clone())
        .collect()
}

/// Whether a path is an action on one of these resources: `…/{key}/rotate`.
fn is_action_on(path: &str, with_etag: &[String]) -> bool {
    path.rsplit_once('/').is_some_and(|(resource, _)| with_etag.iter().any(|path| path == resource))
}

/// Operations that take an idempotency key: those that create something, or can't be repeated without harm.
const TAKES_IDEMPOTENCY_KEY: [&str; 7] = [
    "create_workspace",
    "create_key",
    "rotate_key",
    "import_keys",
    "import_keys_anywhere",
    "create_admin_token",
    "create_edge_token",
];

/// Adds what the path and the method imply.
fn complete(path: &str, method: &str, operation: &mut Map<String, Value>, takes_if_match: bool) {
    let tag = TAGS.iter().find(|(start, _)| path.starts_with(start)).map_or("Operation", |(_, tag)| tag);
    operation.insert("tags".to_owned(), json!([tag]));
    let is_guarded = path.starts_with("/v1/") || path == "/metrics";
    let security = if is_guarded { json!([{"admin_token": []}]) } else { json!([]) };
    operation.insert("security".to_owned(), security);

    let query = match operation.remove("parameters") {
        Some(Value::Array(query)) => query,
        _ => Vec::new(),
    };
    let has_query = !query.is_empty();
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let mut parameters: Vec<_> = names.map(path_parameter).collect();
    parameters.extend(query);
    let mut header = |name: &str, description: &str, schema: Value| {
        parameters.push(json!({"name": name, "in": "header", "description": description, "schema": schema}));
    };
    if takes_if_match {
        let description = "Only if the resource is still at this revision: the ETag of a response";
        header("If-Match", description, json!({"type": "string"}));
    }
    let id = operation.get("operationId").and_then(Value::as_str).unwrap_or_default().to_owned();
    let takes_key = TAKES_IDEMPOTENCY_KEY.contains(&id.as_str());
    if takes_key {
        let description = "Random text, the same in each retry of this change: it is made once, and the response to a \
            retry within 24 hours shows the resource as it is now, without its secret";
        header("Idempotency-Key", description, json!({"type": "string", "pattern": "^[!-~]{1,128}$"}));
    }
    let is_change = method != "get" && id != "identify_secret";
    if is_change {
        let description = "`wait=S`: respond when the change is enforced, or after S seconds, at most 60 (RFC 7240)";
        header("Prefer", description, json!({"type": "string"}));
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
            401 | 429 | 500 => is_guarded,
            403 => is_guarded && id != "list_workspaces",
            404 => path.contains('{') || takes_key || id == "identify_secret" || id == "get_enforcement",
            409 => takes_key || id == "remove_edge",
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
    ("Forbidden", 403, "Forbidden: the token's role does not allow this"),
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

/// Makes an optional body optional instead of nullable, and adds the merge-patch type to a PATCH. Returns the name of
/// the body's schema.
fn complete_body(method: &str, body: &mut Value) -> Option<String> {
    let is_json = body.pointer("/content/application~1json").is_some();
    let kind = if is_json { "json" } else { "jsonl" };
    let schema = body.pointer_mut(&format!("/content/application~1{kind}/schema"))?;
    if let Some(given) = schema.pointer("/oneOf/0").cloned() {
        *schema = given;
    }
    let name = schema.get("$ref")?.as_str()?.rsplit('/').next()?.to_owned();
    if method == "patch" {
        // An empty body is `{}`, and changes nothing.
        let content = json!({"schema": schema.clone()});
        body.as_object_mut()?.insert("required".to_owned(), json!(false));
        body.get_mut("content")?.as_object_mut()?.insert("application/merge-patch+json".to_owned(), content);
    }
    Some(name)
}
