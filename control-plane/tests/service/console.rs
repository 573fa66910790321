//! Security of the console: who may open a page, which forms are accepted, and what a page may load.

use std::collections::BTreeSet;

use axum::body::Body;
use axum::http::{Method, Request};
use serde_json::json;

use crate::harness::{ADMIN, PUBLIC_URL, Service};
use crate::roles::{
    ADMINS, MANAGE_EDGES, PLATFORM_ADMIN, READ_ADMIN_TOKENS, READ_AUDIT, READ_EDGE_TOKENS, READ_EDGES, READ_KEYS,
    READ_WHOLE_AUDIT, RESPOND, ROLES, Roles,
};
use crate::visitor::{Form as _, Visitor, hidden};

/// Who may open a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Audience {
    Everybody,
    AnyoneSignedIn,
    Only(Roles),
}

/// Roles of the platform that see its workspaces; others have no list of them.
const READ_WORKSPACES: Roles = &["platform_admin", "platform_viewer", "responder"];

/// Roles with pages.
const PAGES: Roles =
    &["platform_admin", "platform_viewer", "responder", "edge_operator", "workspace_admin", "workspace_member"];

const ROUTES: &[(&str, Audience)] = &[
    ("GET /", Audience::Everybody),
    ("GET /console/", Audience::Everybody),
    ("GET /console/sign-in", Audience::Everybody),
    ("POST /console/sign-in", Audience::Everybody),
    ("GET /console/sign-in/check", Audience::Everybody),
    ("GET /console/assets/{file}", Audience::Everybody),
    ("GET /console", Audience::Only(PAGES)),
    ("POST /console/sign-out", Audience::AnyoneSignedIn),
    ("POST /console/sign-out-everywhere", Audience::AnyoneSignedIn),
    ("GET /console/workspaces", Audience::Only(READ_WORKSPACES)),
    ("POST /console/workspaces", Audience::Only(PLATFORM_ADMIN)),
    ("GET /console/workspaces/new", Audience::Only(PLATFORM_ADMIN)),
    ("GET /console/workspaces/{workspace}", Audience::Only(ADMINS)),
    ("POST /console/workspaces/{workspace}", Audience::Only(ADMINS)),
    ("GET /console/workspaces/{workspace}/keys", Audience::Only(READ_KEYS)),
    ("POST /console/workspaces/{workspace}/keys", Audience::Only(ADMINS)),
    ("GET /console/workspaces/{workspace}/keys/new", Audience::Only(ADMINS)),
    ("GET /console/workspaces/{workspace}/keys/{key}", Audience::Only(READ_KEYS)),
    ("GET /console/workspaces/{workspace}/keys/{key}/edit", Audience::Only(ADMINS)),
    ("POST /console/workspaces/{workspace}/keys/{key}/edit", Audience::Only(ADMINS)),
    ("GET /console/workspaces/{workspace}/keys/{key}/rotate", Audience::Only(ADMINS)),
    ("POST /console/workspaces/{workspace}/keys/{key}/rotate", Audience::Only(ADMINS)),
    ("GET /console/workspaces/{workspace}/keys/{key}/rotation", Audience::Only(READ_KEYS)),
    ("POST /console/workspaces/{workspace}/keys/{key}/end-overlap", Audience::Only(RESPOND)),
    ("POST /console/workspaces/{workspace}/keys/{key}/activate", Audience::Only(ADMINS)),
    ("GET /console/workspaces/{workspace}/keys/{key}/deactivate", Audience::Only(RESPOND)),
    ("POST /console/workspaces/{workspace}/keys/{key}/deactivate", Audience::Only(RESPOND)),
    ("GET /console/workspaces/{workspace}/keys/{key}/delete", Audience::Only(ADMINS)),
    ("POST /console/workspaces/{workspace}/keys/{key}/delete", Audience::Only(ADMINS)),
    ("GET /console/workspaces/{workspace}/audit", Audience::Only(READ_AUDIT)),
    ("GET /console/workspaces/{workspace}/audit/export", Audience::Only(READ_AUDIT)),
    ("GET /console/audit", Audience::Only(READ_WHOLE_AUDIT)),
    ("GET /console/audit/export", Audience::Only(READ_WHOLE_AUDIT)),
    ("GET /console/identify", Audience::Only(RESPOND)),
    ("POST /console/identify", Audience::Only(RESPOND)),
    ("GET /console/admin-tokens", Audience::Only(READ_ADMIN_TOKENS)),
    ("POST /console/admin-tokens", Audience::Only(ADMINS)),
    ("GET /console/admin-tokens/new", Audience::Only(ADMINS)),
    ("GET /console/admin-tokens/{token}/revoke", Audience::Only(ADMINS)),
    ("POST /console/admin-tokens/{token}/revoke", Audience::Only(ADMINS)),
    ("GET /console/edge-tokens", Audience::Only(READ_EDGE_TOKENS)),
    ("POST /console/edge-tokens", Audience::Only(MANAGE_EDGES)),
    ("GET /console/edge-tokens/new", Audience::Only(MANAGE_EDGES)),
    ("GET /console/edge-tokens/{token}/revoke", Audience::Only(MANAGE_EDGES)),
    ("POST /console/edge-tokens/{token}/revoke", Audience::Only(MANAGE_EDGES)),
    ("GET /console/edges", Audience::Only(READ_EDGES)),
    ("GET /console/edges/{instance}/remove", Audience::Only(MANAGE_EDGES)),
    ("POST /console/edges/{instance}/remove", Audience::Only(MANAGE_EDGES)),
    ("GET /console/enforcement", Audience::Only(READ_EDGES)),
    ("GET /console/{*rest}", Audience::AnyoneSignedIn),
    ("POST /console/{*rest}", Audience::AnyoneSignedIn),
];

/// The routes in the console's own file.
fn routes_of_the_source() -> BTreeSet<String> {
    let source = include_str!("../../src/console/router.rs");
    let routes = source.split(".route(").skip(1).map(|rest| {
        let path = rest.split('"').nth(1).unwrap();
        let methods = rest.split('"').nth(2).unwrap();
        (path, methods.contains("get("), methods.contains("post("))
    });
    let mut all = BTreeSet::new();
    for (path, get, post) in routes {
        all.extend(get.then(|| format!("GET {path}")));
        all.extend(post.then(|| format!("POST {path}")));
    }
    all
}

#[tokio::test]
async fn each_page_is_for_the_roles_that_it_is_meant_for_and_no_page_is_left_out() {
    let table: BTreeSet<_> = ROUTES.iter().map(|(route, _)| (*route).to_owned()).collect();
    assert_eq!(routes_of_the_source(), table);
    let service = Service::start().await;
    service.workspace("acme").await;
    service.workspace("other").await;
    let mut visitors = Vec::new();
    for (role, workspace) in ROLES.into_iter().chain([("workspace_admin", Some("other"))]) {
        let (_, token) = service.token(role, workspace).await;
        visitors.push((role, workspace, Visitor::sign_in(&service, &token).await));
    }
    let nobody = Visitor { service: &service, cookie: String::new() };
    for (route, who) in ROUTES {
        let (method, path) = route.split_once(' ').unwrap();
        let is_of_workspace = path.contains("{workspace}");
        let path = path
            .replace("{workspace}", "acme")
            .replace("{key}", "key_00000000000000000000000000000000")
            .replace("{token}", "adt_00000000000000000000000000000000")
            .replace("{*rest}", "nowhere");
        let ask = async |visitor: &Visitor<'_>| match method {
            "GET" => visitor.get(&path).await,
            // Without a proof that the form comes from a page: a role that may act gets that error, and nothing
            // changes.
            _ => visitor.service.send(Request::post(&path).header("cookie", &visitor.cookie).form(&[])).await,
        };
        let unsigned = ask(&nobody).await;
        match who {
            Audience::Everybody => {
                assert!(!unsigned.header("location").is_some_and(|to| to.contains("sign-in")), "{route}")
            }
            _ => {
                let to = unsigned.header("location").unwrap_or_default();
                assert!(unsigned.status == 303 && to.starts_with("/console/sign-in"), "{route}: {}", unsigned.text());
            }
        }
        // 0: may act, 1: forbidden, 2: not found.
        for (role, workspace, visitor) in &visitors {
            let expected = match who {
                Audience::Everybody | Audience::AnyoneSignedIn => 0,
                Audience::Only(_) if is_of_workspace && *workspace == Some("other") => 2,
                Audience::Only(roles) => u8::from(!roles.contains(role)),
            };
            let answer = ask(visitor).await;
            let outcome = match (answer.status.as_u16(), answer.text()) {
                (403, text) if text.contains("<code>forbidden</code>") => 1,
                (404, text) if text.contains("<code>unknown-workspace</code>") => 2,
                (500.., text) => panic!("{route}: {text}"),
                _ => 0,
            };
            assert_eq!(outcome, expected, "{role}: {route}: {} {}", answer.status, answer.text());
        }
    }
}

#[tokio::test]
async fn pages_offer_each_role_what_it_may_do_and_nothing_else() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (key, _) = service.key("acme", json!({})).await;
    let path = key.replace("/v1/", "/console/");
    // In this order: on the key's page, in the navigation of that page.
    let offers = ["/edit\"", "/rotate\"", "/deactivate\"", "/delete\""];
    let links = [
        "/console/workspaces\"",
        "/console/identify\"",
        "/console/edge-tokens\"",
        "/console/admin-tokens\"",
        "/audit\"",
    ];
    for (role, workspace, offered, linked) in [
        ("platform_admin", None, [true; 4], [true; 5]),
        ("platform_viewer", None, [false; 4], [true, false, true, true, true]),
        ("responder", None, [false, false, true, false], [true, true, false, false, true]),
        ("workspace_admin", Some("acme"), [true; 4], [false, true, false, true, true]),
        ("workspace_member", Some("acme"), [false; 4], [false; 5]),
    ] {
        let (_, token) = service.token(role, workspace).await;
        let page = Visitor::sign_in(&service, &token).await.page(&path).await;
        assert_eq!(offers.map(|offer| page.contains(&format!("{path}{offer}"))), offered, "{role}: {page}");
        assert_eq!(links.map(|link| page.contains(link)), linked, "{role}: {page}");
    }
    // A role without keys begins at its first page, and one without pages gets an explanation.
    let (_, operator) = service.token("edge_operator", None).await;
    let home = Visitor::sign_in(&service, &operator).await.get("/console").await;
    assert_eq!(home.header("location"), Some("/console/edges"));
    let (_, metrics) = service.token("metrics", None).await;
    assert_eq!(Visitor::sign_in(&service, &metrics).await.get("/console").await.status, 403);
}

#[tokio::test]
async fn the_form_for_a_token_offers_the_roles_that_its_creator_includes() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (_, admin) = service.token("workspace_admin", Some("acme")).await;
    let offered = async |visitor: Visitor<'_>| {
        let page = visitor.page("/console/admin-tokens/new").await;
        ROLES.map(|(role, _)| page.contains(&format!("value=\"{role}\"")))
    };
    assert_eq!(offered(Visitor::admin(&service).await).await, [true; 7]);
    let within = ROLES.map(|(_, workspace)| workspace.is_some());
    assert_eq!(offered(Visitor::sign_in(&service, &admin).await).await, within);
}

#[tokio::test]
async fn a_form_counts_only_when_a_page_of_this_address_and_this_session_sent_it() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let (key, _) = service.key("acme", json!({})).await;
    let (visitor, other) = (Visitor::admin(&service).await, Visitor::admin(&service).await);
    let (csrf, others) = (visitor.csrf().await, other.csrf().await);
    assert_ne!(csrf, others);
    let path = key.replace("/v1/", "/console/") + "/deactivate";
    let ours = [("origin", PUBLIC_URL)];
    for (name, headers, csrf, code) in [
        ("no origin", &[][..], csrf.as_str(), "foreign-form"),
        ("another origin", &[("origin", "https://evil.example")], &csrf, "foreign-form"),
        ("an opaque origin", &[("origin", "null")], &csrf, "foreign-form"),
        ("plain HTTP", &[("origin", "http://keys.example.com")], &csrf, "foreign-form"),
        ("another site", &[("sec-fetch-site", "cross-site")], &csrf, "foreign-form"),
        ("a sibling site", &[("sec-fetch-site", "same-site")], &csrf, "foreign-form"),
        (
            "another origin, and a right site",
            &[("origin", "https://evil.example"), ("sec-fetch-site", "same-origin")],
            &csrf,
            "foreign-form",
        ),
        ("no token", &ours, "", "stale-form"),
        ("another session's token", &ours, &others, "stale-form"),
    ] {
        let mut request = Request::post(&path).header("cookie", &visitor.cookie);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = service.send(request.form(&[("csrf", csrf)])).await;
        assert!(answer.status == 403 && answer.text().contains(code), "{name}: {} {}", answer.status, answer.text());
        assert_eq!(service.get(&key).await.json()["active"], true, "{name}");
    }
    let json = Request::post(&path).header("cookie", &visitor.cookie).header("origin", PUBLIC_URL);
    let json = json.header("content-type", "text/plain").body(Body::from(format!("csrf={csrf}"))).unwrap();
    assert_eq!(service.send(json).await.status, 415);
    for headers in
        [("origin", PUBLIC_URL), ("origin", "https://keys.example.com:443"), ("sec-fetch-site", "same-origin")]
    {
        let request = Request::post(&path).header("cookie", &visitor.cookie).header(headers.0, headers.1);
        assert_eq!(service.send(request.form(&[("csrf", &csrf)])).await.status, 303, "{headers:?}");
    }
    assert_eq!(service.get(&key).await.json()["active"], false);
}

#[tokio::test]
async fn signing_in_is_for_our_own_form_alone() {
    let service = Service::start().await;
    for origin in [None, Some("https://evil.example"), Some("null")] {
        let mut request = Request::post("/console/sign-in");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        let answer = service.send(request.form(&[("token", ADMIN)])).await;
        assert!(answer.status == 403 && answer.header("set-cookie").is_none(), "{origin:?}");
    }
}

#[tokio::test]
async fn every_answer_limits_what_a_page_may_load_and_forbids_caching() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let visitor = Visitor::admin(&service).await;
    for (path, status) in [
        ("/console/sign-in", 200),
        ("/console", 303),
        ("/console/workspaces/acme/keys", 200),
        ("/console/nowhere", 404),
        ("/console/workspaces/nowhere/keys", 404),
        ("/console/workspaces/acme/keys?status=x", 422),
        ("/console/audit/export", 200),
    ] {
        let answer = visitor.get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        let policy = answer.header("content-security-policy").unwrap_or_default();
        for part in
            ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]
        {
            assert!(policy.contains(part) && !policy.contains("unsafe"), "{path}: {policy}");
        }
        assert_eq!(answer.header("cache-control"), Some("no-store"), "{path}");
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{path}");
        let page = answer.text();
        for inline in ["<script>", "<style>", " style=\"", " onclick=", "javascript:", "http://", "https://"] {
            assert!(!page.contains(inline), "{path} has {inline}");
        }
    }
}

#[tokio::test]
async fn files_are_named_by_what_is_in_them_and_kept() {
    let service = Service::start().await;
    let page = Visitor { service: &service, cookie: String::new() }.page("/console/sign-in").await;
    let files: BTreeSet<_> =
        page.split("/console/assets/").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        let path = format!("/console/assets/{file}");
        let answer = service.send(Request::get(&path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.status, 200, "{file}");
        assert_eq!(answer.header("cache-control"), Some("public, max-age=31536000, immutable"), "{file}");
        let hash = policy::Digest::of(&answer.bytes).0.iter().take(8).map(|b| format!("{b:02x}")).collect::<String>();
        assert!(file.contains(&hash), "{file}");
    }
    let old = Request::get("/console/assets/console-0000000000000000.css").body(Body::empty()).unwrap();
    assert_eq!(service.send(old).await.status, 404);
}

#[tokio::test]
async fn hostile_names_are_text_and_nothing_else() {
    let service = Service::start().await;
    service.workspace("acme").await;
    let name = "\"><script>alert(1)</script><img src=x onerror=alert(2)> ' & {{7*7}}";
    let (key, _) = service.key("acme", json!({"name": name, "metadata": {name: name}})).await;
    service.call(Method::PATCH, "/v1/workspaces/acme", json!({"name": name})).await;
    service.post("/v1/admin-tokens", json!({"name": name, "role": "platform_admin"})).await;
    service.post("/v1/edge-tokens", json!({"name": name, "edge": "e"})).await;
    service.edge("/edge/v1/feed?format=1&edge=e&instance=i1&wait=0").await;
    let visitor = Visitor::admin(&service).await;
    let key = key.replace("/v1/", "/console/");
    let mut paths = vec![key.clone()];
    paths.extend(["edit", "rotate", "deactivate", "delete"].map(|page| format!("{key}/{page}")));
    let search = "/console/workspaces/acme/keys?q=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E";
    paths.extend(
        ["/console/workspaces", "/console/workspaces/acme", "/console/workspaces/acme/keys", search, "/console/audit"]
            .map(str::to_owned),
    );
    paths.extend(["/console/admin-tokens", "/console/admin-tokens/new", "/console/edge-tokens"].map(str::to_owned));
    for path in paths {
        let page = visitor.page(&path).await;
        assert!(!page.contains("<script>alert") && !page.contains("<img src=x"), "{path}: {page}");
        assert!(page.contains("alert(1)"), "{path} shows the name");
    }
    let refused = visitor
        .post_from(
            "/console/workspaces/acme/keys/new",
            "/console/workspaces/acme/keys",
            &[("name", name), ("allow", "only"), ("ip_allowlist", "</textarea><script>alert(3)</script>")],
        )
        .await;
    assert_eq!(refused.status, 422);
    assert!(!refused.text().contains("<script>alert") && refused.text().contains("alert(3)"), "{}", refused.text());
}

#[tokio::test]
async fn nobody_is_led_out_of_the_console() {
    let service = Service::start().await;
    let visitor = Visitor::admin(&service).await;
    for next in [
        "https://evil.example/",
        "//evil.example/console",
        "/console/%5C%5Cevil.example",
        "/v1/workspaces",
        "javascript:alert(1)",
    ] {
        let answer = visitor.get(&format!("/console/sign-in/check?next={next}")).await;
        let to = answer.header("location").unwrap();
        assert!(to.starts_with("/console"), "{next}: {to}");
        assert!(!to.contains("evil") || to.starts_with("/console/"), "{next}: {to}");
        let page = visitor.page(&format!("/console/sign-in?next={next}")).await;
        assert_eq!(hidden(&page, "next").unwrap_or_default(), "", "{next}");
    }
    let redirect =
        Visitor { service: &service, cookie: String::new() }.get("/console/workspaces/acme/keys?q=a%20b").await;
    let to = redirect.header("location").unwrap().to_owned();
    assert!(to.starts_with("/console/sign-in?next=%2Fconsole%2F"), "{to}");
    let page = visitor.page(&to).await;
    assert_eq!(hidden(&page, "next").as_deref(), Some("/console/workspaces/acme/keys?q=a%20b"));
}
