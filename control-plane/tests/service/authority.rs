//! Authorization: each route, requested by each role.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Service};
use crate::openapi::{assert_documented, routes};

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    PlatformAdmins,
    /// With a token or without.
    Everybody,
    /// Of the platform or of any workspace; they see only what is theirs.
    AnyAdmin,
    /// Every role; they see only what is theirs.
    Anyone,
    /// Admins of the path's workspace.
    ItsAdmins,
    /// Members and admins of the path's workspace.
    ItsMembers,
}

const ROUTES: &[(&str, Audience)] = &[
    ("GET /healthz", Audience::Everybody),
    ("GET /readyz", Audience::Everybody),
    ("GET /openapi.json", Audience::Everybody),
    ("GET /metrics", Audience::PlatformAdmins),
    ("GET /v1/workspaces", Audience::Anyone),
    ("POST /v1/workspaces", Audience::PlatformAdmins),
    ("GET /v1/workspaces/{workspace}", Audience::ItsMembers),
    ("PATCH /v1/workspaces/{workspace}", Audience::ItsAdmins),
    ("GET /v1/workspaces/{workspace}/keys", Audience::ItsMembers),
    ("POST /v1/workspaces/{workspace}/keys", Audience::ItsAdmins),
    ("GET /v1/workspaces/{workspace}/keys/{key}", Audience::ItsMembers),
    ("PATCH /v1/workspaces/{workspace}/keys/{key}", Audience::ItsAdmins),
    ("DELETE /v1/workspaces/{workspace}/keys/{key}", Audience::ItsAdmins),
    ("POST /v1/workspaces/{workspace}/keys/{key}/rotate", Audience::ItsAdmins),
    ("POST /v1/workspaces/{workspace}/keys/{key}/activate", Audience::ItsAdmins),
    ("POST /v1/workspaces/{workspace}/keys/{key}/deactivate", Audience::ItsAdmins),
    ("POST /v1/workspaces/{workspace}/keys/{key}/end-overlap", Audience::ItsAdmins),
    ("GET /v1/workspaces/{workspace}/keys/{key}/usage", Audience::ItsMembers),
    ("POST /v1/keys/identify", Audience::AnyAdmin),
    ("POST /v1/keys/import", Audience::PlatformAdmins),
    ("POST /v1/workspaces/{workspace}/keys/import", Audience::ItsAdmins),
    ("POST /v1/workspaces/{workspace}/keys/deactivate-matching", Audience::ItsAdmins),
    ("POST /v1/workspaces/{workspace}/keys/delete-matching", Audience::ItsAdmins),
    ("GET /v1/workspaces/{workspace}/audit-events", Audience::ItsAdmins),
    ("GET /v1/audit-events", Audience::PlatformAdmins),
    ("GET /v1/admin-tokens", Audience::AnyAdmin),
    ("POST /v1/admin-tokens", Audience::AnyAdmin),
    ("GET /v1/admin-tokens/{token}", Audience::AnyAdmin),
    ("DELETE /v1/admin-tokens/{token}", Audience::AnyAdmin),
    ("GET /v1/edge-tokens", Audience::PlatformAdmins),
    ("POST /v1/edge-tokens", Audience::PlatformAdmins),
    ("GET /v1/edge-tokens/{token}", Audience::PlatformAdmins),
    ("DELETE /v1/edge-tokens/{token}", Audience::PlatformAdmins),
    ("GET /v1/edges", Audience::Anyone),
    ("DELETE /v1/edges", Audience::PlatformAdmins),
    ("DELETE /v1/edges/{instance}", Audience::PlatformAdmins),
    ("GET /v1/enforcement", Audience::Anyone),
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
    let (_, platform) = service.token("platform_admin", None).await;
    let (_, admin) = service.token("workspace_admin", Some("acme")).await;
    let (_, member) = service.token("workspace_member", Some("acme")).await;
    let (_, stranger) = service.token("workspace_admin", Some("other")).await;
    for (route, who) in ROUTES {
        let (method, path) = route.split_once(' ').unwrap();
        let method: Method = method.parse().unwrap();
        let path = path
            .replace("{workspace}", "acme")
            .replace("{key}", "key_00000000000000000000000000000000")
            .replace("{token}", "adt_00000000000000000000000000000000");
        use AccessOutcome::{Forbidden, MayAct, UnknownWorkspace};
        let expected = match who {
            Audience::PlatformAdmins => [MayAct, Forbidden, Forbidden, Forbidden],
            Audience::AnyAdmin => [MayAct, MayAct, Forbidden, MayAct],
            Audience::Everybody | Audience::Anyone => [MayAct, MayAct, MayAct, MayAct],
            Audience::ItsAdmins => [MayAct, MayAct, Forbidden, UnknownWorkspace],
            Audience::ItsMembers => [MayAct, MayAct, MayAct, UnknownWorkspace],
        };
        for (token, expected) in [&platform, &admin, &member, &stranger].into_iter().zip(expected) {
            // A body that no handler takes: nothing is changed, and a role that may not act doesn't learn that the body
            // is wrong.
            let answer = service.call_as(token, method.clone(), &path, json!({"no such field": 1}), &[]).await;
            assert_eq!(access_outcome(&answer), expected, "{route}: {}", answer.text());
            assert_documented(route, &answer);
        }
        let nobody = service.call_as("lkadm_wrong", method, &path, Value::Null, &[]).await;
        assert_documented(route, &nobody);
        match who {
            Audience::Everybody => assert_eq!(nobody.status, 200, "{route}"),
            _ => assert_eq!((nobody.status.as_u16(), nobody.code().as_str()), (401, "bad-token"), "{route}"),
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
