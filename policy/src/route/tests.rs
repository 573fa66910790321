//! Templates: which wins, which are refused, and what they bind.

use super::*;
use crate::fixtures::test;

fn routes(json: &str) -> Result<Routes, RouteError> {
    Routes::compile(&serde_json::from_str::<Vec<Route>>(json).unwrap())
}

fn example() -> Routes {
    routes(
        r#"[{"path": "/v1/reviews/{*rest}", "rule": "reviews"},
            {"path": "/v1/workspaces/{workspace}/{*rest}", "rule": "workspaces"},
            {"path": "/v1/workspaces/{workspace}/settings", "rule": "key"},
            {"methods": ["POST"], "path": "/v1/scans/search", "rule": "security_scans:read"},
            {"path": "/v1/webhooks/{*rest}", "rule": "webhooks"},
            {"path": "/v1/webhooks", "rule": "key"},
            {"path": "/healthz", "rule": "public"}]"#,
    )
    .unwrap()
}

fn found(routes: &Routes, method: &str, path: &str) -> String {
    match routes.find(method.as_bytes(), path.as_bytes(), Rule::Deny) {
        RouteRule::Rule { rule: Rule::Public, .. } => "public".to_owned(),
        RouteRule::Rule { rule: Rule::Deny, .. } => "deny".to_owned(),
        RouteRule::Rule { rule: Rule::AnyKey, workspace } => format!("key@{}", workspace.unwrap_or("-")),
        RouteRule::Rule { rule: Rule::Scope { scope, .. }, workspace } => {
            format!("{scope}@{}", workspace.unwrap_or("-"))
        }
        RouteRule::BadPath => "bad-path".to_owned(),
        RouteRule::Unknown => "unknown".to_owned(),
    }
}

#[test]
fn the_most_specific_template_wins() {
    let routes = example();
    for (method, path, expected) in [
        ("GET", "/v1/reviews", "reviews@-"),
        ("GET", "/v1/reviews/", "reviews@-"),
        ("GET", "/v1/reviews/7/comments", "reviews@-"),
        ("GET", "/v1/reviewsx", "deny"),
        ("GET", "/v1/reviews?api_key=x/../", "reviews@-"),
        ("GET", "/v1/workspaces/acme", "workspaces@acme"),
        ("GET", "/v1/workspaces/acme/", "workspaces@acme"),
        ("GET", "/v1/workspaces/acme/members/1", "workspaces@acme"),
        ("GET", "/v1/workspaces/acme/settings", "key@acme"),
        ("GET", "/v1/workspaces", "deny"),
        ("GET", "/v1/webhooks", "key@-"),
        ("GET", "/v1/webhooks/", "webhooks@-"),
        ("POST", "/v1/scans/search", "security_scans@-"),
        ("GET", "/v1/scans/search", "unknown"),
        ("GET", "/healthz", "public"),
        ("GET", "/healthz/", "deny"),
        ("GET", "", "bad-path"),
        ("GET", "*", "bad-path"),
    ] {
        assert_eq!(found(&routes, method, path), expected, "{method} {path}");
    }
}

#[test]
fn what_others_may_read_in_another_way_is_a_bad_path() {
    let routes = example();
    for path in [
        "/v1/reviews/../workspaces",
        "/v1/reviews/.",
        "/v1/reviews//7",
        "//healthz",
        "/v1\\reviews",
        "/v1/reviews;x=1",
        "/v1/%72eviews/1",
        "/v1/reviews/%2e%2e/x",
        "/v1/reviews%2F7",
        "/v1/reviews%5c7",
        "/v1/reviews/%25",
        "/v1/reviews/%3b",
        "/v1/reviews/%7E",
        "/v1/reviews/%",
        "/v1/reviews/%zz",
        "/v1/reviews/%00",
        "/v1/reviews/\x01",
        "healthz",
    ] {
        assert_eq!(found(&routes, "GET", path), "bad-path", "{path:?}");
    }
    assert_eq!(found(&routes, "GET", "/v1/reviews/caf%C3%A9%20x"), "reviews@-");
}

#[test]
fn wrong_templates_name_themselves() {
    for (json, expected) in [
        (r#"[{"path": "v1", "rule": "key"}]"#, "`v1` is not a path template"),
        (r#"[{"path": "/v1/{*rest}/x", "rule": "key"}]"#, "`/v1/{*rest}/x` is not a path template"),
        (r#"[{"path": "/v1/%72", "rule": "key"}]"#, "`/v1/%72` is not a path template"),
        (r#"[{"path": "/a", "rule": "key"}, {"path": "/a", "rule": "public"}]"#, "`/a` is given twice"),
        (r#"[{"path": "/a", "rule": "key", "methods": ["get"]}]"#, "`/a` has a method"),
        (r#"[{"path": "/v1?x", "rule": "key"}]"#, "`/v1?x` is not a path template"),
        (r#"[{"path": "/v1/{{x}}", "rule": "key"}]"#, "`/v1/{{x}}` is not a path template"),
        (r#"[{"path": "/w/{*workspace}", "rule": "key"}]"#, "`{workspace}` must be a whole segment"),
        (r#"[{"path": "/w/ws-{workspace}", "rule": "key"}]"#, "`{workspace}` must be a whole segment"),
        (r#"[{"path": "/w/{workspace}/{workspace}", "rule": "key"}]"#, "`{workspace}` must be a whole segment"),
    ] {
        let error = routes(json).unwrap_err().to_string();
        assert!(error.contains(expected), "{json}: {error}");
    }
}

#[test]
fn a_template_that_would_hide_a_workspace_is_refused() {
    for (workspace, other, hidden) in [
        ("/w/{workspace}/a", "/w/{id}/{*rest}", true),
        ("/w/{workspace}/{*rest}", "/w/{id}/b", true),
        ("/w/{workspace}/{*rest}", "/w/a{id}/{*rest}", true),
        ("/w/{workspace}/{*rest}", "/w/{id}.json", true),
        ("/w/{workspace}/a", "/w/a{*rest}", true),
        ("/{org}/{workspace}/a", "/acme/{id}/a", true),
        ("/{org}/{workspace}/a", "/acme/{*rest}", true),
        ("/{org}/{workspace}/a", "/a{*rest}", true),
        ("/{org}/w/{workspace}", "/acme/{x}/{id}", true),
        ("/w/{workspace}/a", "/w/settings", false),
        ("/w/{workspace}/a", "/w/settings/{id}", false),
        ("/w/{workspace}/a", "/w/{workspace}/{id}", false),
        ("/w/{workspace}/a", "/{*rest}", false),
        ("/w/{workspace}/a", "/{x}/{id}/a", false),
        ("/w/{workspace}/a", "/w", false),
        ("/w/{workspace}/a", "/v{*rest}", false),
    ] {
        let json = format!(r#"[{{"path": "{workspace}", "rule": "key"}}, {{"path": "{other}", "rule": "key"}}]"#);
        let refused = matches!(routes(&json), Err(RouteError::HidesWorkspace { .. }));
        assert_eq!(refused, hidden, "{other} beside {workspace}: {:?}", routes(&json).err());
        assert!(hidden || routes(&json).is_ok(), "{other} beside {workspace}: {:?}", routes(&json).err());
    }
}

#[test]
fn a_template_in_route_metadata_binds_its_workspace() {
    let template = "/v1/workspaces/{workspace}/{*rest}";
    for (path, expected) in [
        ("/v1/workspaces/acme/x", RouteRuleBinding::Fits { workspace: Some("acme") }),
        ("/v1/workspaces/acme", RouteRuleBinding::Fits { workspace: Some("acme") }),
        ("/v1/other", RouteRuleBinding::NoFit),
        ("/v1/workspaces/acme/%2e", RouteRuleBinding::BadPath),
    ] {
        assert_eq!(bind(template, path.as_bytes()), expected, "{path}");
    }
    assert_eq!(bind("no template", b"/v1"), RouteRuleBinding::NoFit);
}

#[test]
fn whoever_asks_is_told_the_template_that_decided() {
    let routes = example();
    for (path, expected) in [
        ("/v1/reviews/7?a=b", Some("/v1/reviews/{*rest}")),
        ("/v1/reviews", Some("/v1/reviews/{*rest}")),
        ("/v1/webhooks", Some("/v1/webhooks")),
        ("/v1/workspaces/acme/settings", Some("/v1/workspaces/{workspace}/settings")),
        ("/v1/other", None),
        ("/v1/reviews/../other", None),
    ] {
        assert_eq!(routes.template(path.as_bytes()), expected, "{path}");
    }
}

#[test]
fn a_rule_that_a_route_states_denies_what_does_not_fit() {
    let key = |workspace| RouteRule::Rule { rule: Rule::AnyKey, workspace };
    for (rule, template, path, expected) in [
        ("key", None, "/a/../b", key(None)),
        ("key", Some("/w/{workspace}"), "/w/acme", key(Some("acme"))),
        ("key", Some("/w/{workspace}"), "/x/acme", RouteRule::Unknown),
        ("key", Some("/w/{workspace}"), "/w/a;b", RouteRule::BadPath),
        ("key", Some("no template"), "/w/acme", RouteRule::Unknown),
        ("no rule", None, "/w/acme", RouteRule::Unknown),
    ] {
        assert_eq!(stated(rule, template, path.as_bytes()), expected, "{rule} {template:?} {path}");
    }
}
