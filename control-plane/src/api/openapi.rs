//! The OpenAPI document: what each handler declares, completed by what holds for all of them.

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::Api;
use super::requests::{AuditSort, ExpiredLines, KeySort};
use super::router;
use crate::problem;
use crate::public_url::PublicUrl;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Latchkey",
        description = "API keys for Envoy, enforced at the edge: the control plane.\n\n\
            Changes are on disk when they are answered, and answer with `Latchkey-Revision`. GET and changes of a workspace, \
            key or token answer with `ETag`; a change with `If-Match` is refused when it was changed meanwhile. A change with \
            `Idempotency-Key` is made once, and may be sent again by who lost the answer. Refusals are \
            `application/problem+json` (RFC 9457) with a `code` for programs. Each answer has `X-Request-Id`. Unknown \
            fields and parameters are refused.",
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
pub(super) fn served(at: &PublicUrl) -> String {
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
    let routes = Base::openapi().merge_from(router::documented());
    let Ok(Value::Object(mut document)) = serde_json::to_value(routes) else { return Value::Null };
    let mut bodies = Vec::new();
    let tagged = tagged(document.get("paths"));
    for (path, item) in members(document.get_mut("paths")) {
        let is_shown = item.get("get").is_some();
        for (method, operation) in members(Some(item)) {
            if let Value::Object(operation) = operation {
                let changes_tagged = method != "get" && (tagged.contains(path) || !is_shown && acts_on(path, &tagged));
                complete(path, method, operation, changes_tagged);
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
fn tagged(paths: Option<&Value>) -> Vec<String> {
    let paths = paths.and_then(Value::as_object).into_iter().flatten();
    paths
        .filter(|(path, item)| path.ends_with('}') && item.get("get").is_some())
        .map(|(path, _)| path.clone())
        .collect()
}

/// Whether a path is an action on one of these resources: `…/{key}/rotate`.
fn acts_on(path: &str, tagged: &[String]) -> bool {
    path.rsplit_once('/').is_some_and(|(thing, _)| tagged.iter().any(|path| path == thing))
}

/// Changes that take an idempotency key: those that create something, or can't be repeated without harm.
const MADE_ONCE: [&str; 7] = [
    "create_workspace",
    "create_key",
    "rotate_key",
    "import_keys",
    "import_keys_anywhere",
    "create_admin_token",
    "create_edge_token",
];

/// Adds what follows from a path and a method.
fn complete(path: &str, method: &str, operation: &mut Map<String, Value>, changes_tagged: bool) {
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
    if changes_tagged {
        let description = "Only if it is still at this revision: the ETag of an answer";
        header("If-Match", description, json!({"type": "string"}));
    }
    let id = operation.get("operationId").and_then(Value::as_str).unwrap_or_default().to_owned();
    let is_made_once = MADE_ONCE.contains(&id.as_str());
    if is_made_once {
        let description = "Random text, the same in each retry of this change: it is made once, and a repeat within 24 \
            hours is answered with what was made as it is now, without its secret";
        header("Idempotency-Key", description, json!({"type": "string", "pattern": "^[!-~]{1,128}$"}));
    }
    let is_change = method != "get" && id != "identify_secret";
    if is_change {
        let description = "`wait=S`: answer when the change is enforced, or after S seconds, at most 60 (RFC 7240)";
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
            if is_made_once {
                let description = "`true` where a request with the same `Idempotency-Key` made this change before";
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
            404 => path.contains('{') || is_made_once || id == "identify_secret" || id == "get_enforcement",
            409 => is_made_once || id == "remove_edge",
            412 => changes_tagged,
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
        header("Latchkey-Revision", "The revision from which on the change holds", "integer");
    }
    if shows_one {
        header("ETag", "Its last revision, for `If-Match`", "string");
    }
    if is_change {
        let description = "With `Prefer: wait=S`: `enforced=true, edges=3, workers=15, disconnected=0, elapsed_ms=9`, or \
            `enforced=false, …, bounded_at=` an instant or `never`";
        let header = json!({"description": description, "required": false, "schema": {"type": "string"}});
        headers.insert("Latchkey-Enforcement".to_owned(), header);
    }
    headers
}

/// Name, status and condition. docs/api.md lists the codes of each.
const PROBLEMS: [(&str, u16, &str); 12] = [
    ("NotJson", 400, "The body is no JSON, or the query or `Idempotency-Key` can't be read"),
    ("Unauthenticated", 401, "No token, or none that works"),
    ("Forbidden", 403, "The token's role does not reach this"),
    ("NotFound", 404, "It is not there, or not yours to know"),
    ("Conflict", 409, "The slug is taken, the key has expired, the edge is connected, or an equal request is running"),
    ("Stale", 412, "It was changed meanwhile"),
    ("TooLarge", 413, "The body is too large"),
    ("UnsupportedMediaType", 415, "The body's type is not taken"),
    ("Invalid", 422, "Some values don't fit; `errors` names them"),
    ("TooManyAttempts", 429, "Too many wrong tokens came from this address, or a limit of imports is reached"),
    ("Fault", 500, "The control plane is at fault; nothing was changed"),
    ("Unavailable", 503, "The storage is unavailable, or the request took too long"),
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

/// Makes a body that may be left out optional instead of nullable, and adds the merge-patch type to a PATCH. Returns
/// the name of the body's schema.
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
