//! Authorization: each route, requested by each role.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Service};
use crate::openapi::{assert_documented, routes};
use crate::roles::{
    ADMINS, EVERYBODY, MANAGE_EDGES, PLATFORM_ADMIN, READ_ADMIN_TOKENS, READ_AUDIT, READ_EDGE_TOKENS, READ_EDGES,
    READ_KEYS, READ_METRICS, READ_WHOLE_AUDIT, RESPOND, ROLES, Roles,
};

const ROUTES: &[(&str, Roles)] = &[
    ("GET /healthz", EVERYBODY),
    ("GET /readyz", EVERYBODY),
    ("GET /openapi.json", EVERYBODY),
    ("GET /metrics", READ_METRICS),
    ("GET /v1/workspaces", READ_KEYS),
    ("POST /v1/workspaces", PLATFORM_ADMIN),
    ("GET /v1/workspaces/{workspace}", READ_KEYS),
    ("PATCH /v1/workspaces/{workspace}", ADMINS),
    ("GET /v1/workspaces/{workspace}/keys", READ_KEYS),
    ("POST /v1/workspaces/{workspace}/keys", ADMINS),
    ("GET /v1/workspaces/{workspace}/keys/{key}", READ_KEYS),
    ("PATCH /v1/workspaces/{workspace}/keys/{key}", ADMINS),
    ("DELETE /v1/workspaces/{workspace}/keys/{key}", ADMINS),
    ("POST /v1/workspaces/{workspace}/keys/{key}/rotate", ADMINS),
    ("POST /v1/workspaces/{workspace}/keys/{key}/activate", ADMINS),
    ("POST /v1/workspaces/{workspace}/keys/{key}/deactivate", RESPOND),
    ("POST /v1/workspaces/{workspace}/keys/{key}/end-overlap", RESPOND),
    ("GET /v1/workspaces/{workspace}/keys/{key}/usage", READ_KEYS),
    ("POST /v1/keys/identify", RESPOND),
    ("POST /v1/keys/import", PLATFORM_ADMIN),
    ("POST /v1/workspaces/{workspace}/keys/import", ADMINS),
    ("POST /v1/workspaces/{workspace}/keys/deactivate-matching", RESPOND),
    ("POST /v1/workspaces/{workspace}/keys/delete-matching", ADMINS),
    ("GET /v1/workspaces/{workspace}/audit-events", READ_AUDIT),
    ("GET /v1/audit-events", READ_WHOLE_AUDIT),
    ("GET /v1/admin-tokens", READ_ADMIN_TOKENS),
    ("POST /v1/admin-tokens", ADMINS),
    ("GET /v1/admin-tokens/{token}", READ_ADMIN_TOKENS),
    ("DELETE /v1/admin-tokens/{token}", ADMINS),
    ("GET /v1/edge-tokens", READ_EDGE_TOKENS),
    ("POST /v1/edge-tokens", MANAGE_EDGES),
    ("GET /v1/edge-tokens/{token}", READ_EDGE_TOKENS),
    ("DELETE /v1/edge-tokens/{token}", MANAGE_EDGES),
    ("GET /v1/edges", READ_EDGES),
    ("DELETE /v1/edges", MANAGE_EDGES),
    ("DELETE /v1/edges/{instance}", MANAGE_EDGES),
    ("GET /v1/enforcement", READ_EDGES),
];

/// The outcome for a role. `MayAct` covers every answer of the handler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AccessOutcome {
    MayAct,
    Forbidden,
    /// As if the path's workspace didn't exist.
    UnknownWorkspace,
}

fn access_outcome(answer: &Answer) -> AccessOutcome {
    match answer.status.as_u16() {
        401 => panic!("not taken as a token: {}", answer.text()),
        403 => {
            assert_eq!(answer.code(), "forbidden");
            AccessOutcome::Forbidden
        }
        404 if answer.code() == "unknown-workspace" => AccessOutcome::UnknownWorkspace,
        _ => AccessOutcome::MayAct,
    }
}

#[tokio::test]
async fn each_route_is_for_the_roles_that_it_is_meant_for_and_no_route_is_left_out() {
    let table: BTreeMap<_, _> = ROUTES.iter().copied().collect();
    for route in routes() {
        assert!(table.contains_key(route.as_str()), "{route} has no authorization case: add it to ROUTES");
    }
    assert_eq!(routes().len(), ROUTES.len(), "ROUTES has a case without a route");

    let service = Service::start().await;
    service.workspace("acme").await;
    service.workspace("other").await;
    let mut tokens = Vec::new();
    for (role, workspace) in ROLES {
        tokens.push((role, service.token(role, workspace).await.1));
    }
    let (_, stranger) = service.token("workspace_admin", Some("other")).await;
    for (route, roles) in ROUTES {
        let (method, path) = route.split_once(' ').unwrap();
        let method: Method = method.parse().unwrap();
        let is_of_workspace = path.contains("{workspace}");
        let path = path
            .replace("{workspace}", "acme")
            .replace("{key}", "key_00000000000000000000000000000000")
            .replace("{token}", "adt_00000000000000000000000000000000");
        let may_act = |role: &str| match roles.is_empty() || roles.contains(&role) {
            true => AccessOutcome::MayAct,
            false => AccessOutcome::Forbidden,
        };
        let own = tokens.iter().map(|(role, token)| (*role, token, may_act(role)));
        let others = match is_of_workspace {
            true => AccessOutcome::UnknownWorkspace,
            false => may_act("workspace_admin"),
        };
        for (role, token, expected) in own.chain([("workspace_admin of another", &stranger, others)]) {
            // A body that no handler takes: nothing is changed, and a role that may not act doesn't learn that the body
            // is wrong.
            let answer = service.call_as(token, method.clone(), &path, json!({"no such field": 1}), &[]).await;
            assert_eq!(access_outcome(&answer), expected, "{role}: {route}: {}", answer.text());
            assert_documented(route, &answer);
        }
        let nobody = service.call_as("lkadm_wrong", method, &path, Value::Null, &[]).await;
        assert_documented(route, &nobody);
        match roles.is_empty() {
            true => assert_eq!(nobody.status, 200, "{route}"),
            false => assert_eq!((nobody.status.as_u16(), nobody.code().as_str()), (401, "bad-token"), "{route}"),
        }
    }
}

#[tokio::test]
async fn a_stranger_can_not_tell_a_workspace_that_is_there_from_one_that_is_not() {
    let service = Service::start().await;
    let id = service.workspace("acme").await;
    service.workspace("other").await;
    let (_, stranger) = service.token("workspace_member", Some("other")).await;
    let ask = async |path: String| {
        let answer = service.call_as(&stranger, Method::GET, &path, Value::Null, &[]).await;
        (answer.status, answer.text())
    };
    let nowhere = ask("/v1/workspaces/nowhere".to_owned()).await;
    assert_eq!(nowhere.0, 404);
    for path in ["acme".to_owned(), "acme/keys".to_owned(), id.clone(), format!("{id}/audit-events")] {
        assert_eq!(ask(format!("/v1/workspaces/{path}")).await, nowhere, "{path}");
    }
}

#[tokio::test]
async fn a_token_of_a_workspace_lists_that_workspace_alone() {
    let service = Service::start().await;
    service.workspace("acme").await;
    service.workspace("other").await;
    let (_, member) = service.token("workspace_member", Some("acme")).await;
    let page = service.call_as(&member, Method::GET, "/v1/workspaces", Value::Null, &[]).await.json();
    let slugs: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| item["slug"].as_str().unwrap()).collect();
    assert_eq!(slugs, ["acme"]);
}
