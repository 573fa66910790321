//! Templates: which wins, which are refused, and what they bind.

use super::*;
use crate::fixtures::test;
use crate::path::{PathKind, Paths};

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
    found_by(&Paths::default(), routes, method, path)
}

fn found_by(paths: &Paths, routes: &Routes, method: &str, path: &str) -> String {
    let Some(path) = paths.read(method.as_bytes(), path.as_bytes()) else { return "bad-path".to_owned() };
    match routes.find(method.as_bytes(), &path, Rule::Deny) {
        RouteRule::Rule { rule: Rule::Public, .. } => "public".to_owned(),
        RouteRule::Rule { rule: Rule::Deny, .. } => "deny".to_owned(),
        RouteRule::Rule { rule: Rule::AnyKey, workspace } => format!("key@{}", workspace.unwrap_or("-")),
        RouteRule::Rule { rule: Rule::Scope { scope, .. }, workspace } => {
            format!("{scope}@{}", workspace.unwrap_or("-"))
        }
        RouteRule::BadPath => "ambiguous".to_owned(),
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
fn an_escape_hides_no_template() {
    let routes = routes(
        r#"[{"path": "/v1/users:batch", "rule": "reviews"}, {"path": "/v1/caf%C3%A9", "rule": "webhooks"},
            {"path": "/v1/%7Braw%7D", "rule": "workspaces"}, {"path": "/{*rest}", "rule": "public"}]"#,
    )
    .unwrap();
    for (path, expected) in [
        ("/v1/users:batch", "reviews@-"),
        ("/v1/users%3Abatch", "reviews@-"),
        ("/v1/caf%C3%A9", "webhooks@-"),
        ("/v1/caf%c3%a9", "webhooks@-"),
        ("/v1/caf\u{e9}", "webhooks@-"),
        ("/v1/{raw}", "workspaces@-"),
        ("/v1/%7braw%7d", "workspaces@-"),
        ("/v1/users", "public"),
    ] {
        assert_eq!(found(&routes, "GET", path), expected, "{path}");
    }
}

#[test]
fn an_admitted_path_is_matched_as_its_readers_read_it() {
    let routes = routes(
        r#"[{"path": "/v1/webhooks/{*rest}", "rule": "webhooks"}, {"path": "/w/{workspace}/{*rest}", "rule": "key"},
            {"path": "/{*rest}", "rule": "public"}]"#,
    )
    .unwrap();
    let paths = Paths { allow: PathKind::ALL.into() };
    for (path, expected) in [
        ("/v1/webhooks;x/1", "webhooks@-"),
        ("/v1;y/webhooks;x", "webhooks@-"),
        ("/v1/%77ebhooks/1", "webhooks@-"),
        ("/v1//webhooks/1", "webhooks@-"),
        ("/v1/webhooks/a%2fb", "webhooks@-"),
        ("/v1/webhooks/a%3fb", "webhooks@-"),
        ("/v1%2fwebhooks/1", "ambiguous"),
        ("/v1/webhooks%2f1", "ambiguous"),
        ("/v1/webhooks%3f1", "ambiguous"),
        ("/w/acme;x/1", "key@acme"),
        ("/w/acme%2fx/1", "ambiguous"),
        ("/w/acme%23/1", "ambiguous"),
        ("/v1/%2e%2e;/webhooks", "bad-path"),
    ] {
        assert_eq!(found_by(&paths, &routes, "GET", path), expected, "{path}");
    }
}

#[test]
fn a_path_that_has_two_readings_finds_no_rule() {
    let routes = example();
    for path in ["", "*", "/v1/reviews/../workspaces", "/v1/%72eviews/1", "/v1/reviews;x=1"] {
        assert_eq!(found(&routes, "GET", path), "bad-path", "{path:?}");
    }
    assert_eq!(found(&routes, "CONNECT", ""), "deny", "CONNECT has no path to check");
}

#[test]
fn a_template_has_a_limit_of_parameters_and_of_bytes() {
    let parameters = |count: usize| (0..count).map(|number| format!("/{{p{number}}}")).collect::<String>();
    let bytes = |count: usize| format!("/{}", "a".repeat(count - 1));
    for (text, expected) in [
        (parameters(MAX_PARAMETERS), None),
        (bytes(MAX_TEMPLATE_BYTES), None),
        (parameters(MAX_PARAMETERS + 1), Some("at most 16 parameters")),
        (parameters(26), Some("at most 16 parameters")),
        (parameters(100), Some("at most 16 parameters")),
        (parameters(1000), Some("at most 1024 bytes")),
        (bytes(MAX_TEMPLATE_BYTES + 1), Some("at most 1024 bytes")),
    ] {
        let error = Template::compile(&text).err().map(|error| error.to_string());
        let json = format!(r#"[{{"path": "{text}", "rule": "key"}}]"#);
        assert_eq!(routes(&json).err().map(|error| error.to_string()), error, "routes and metadata agree");
        match expected {
            None => assert_eq!(error, None, "{text}"),
            Some(expected) => assert!(error.as_ref().is_some_and(|error| error.contains(expected)), "{error:?}"),
        }
    }
}

#[test]
fn an_invalid_template_is_named_in_the_error() {
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
        let refused = matches!(routes(&json), Err(RouteError::ShadowsWorkspace { .. }));
        assert_eq!(refused, hidden, "{other} beside {workspace}: {:?}", routes(&json).err());
        assert!(hidden || routes(&json).is_ok(), "{other} beside {workspace}: {:?}", routes(&json).err());
    }
}

#[test]
fn a_template_in_route_metadata_binds_its_workspace() {
    let template = Template::compile("/v1/workspaces/{workspace}/{*rest}").unwrap();
    let paths = Paths { allow: [PathKind::EncodedSlash].into() };
    for (path, expected) in [
        ("/v1/workspaces/acme/x", Binding::Match { workspace: Some("acme") }),
        ("/v1/workspaces/acme", Binding::Match { workspace: Some("acme") }),
        ("/v1/workspaces/acme/x%2fy", Binding::Match { workspace: Some("acme") }),
        ("/v1/workspaces/acme%2fx", Binding::Ambiguous),
        ("/v1/other", Binding::NoMatch),
    ] {
        let path = paths.read(b"GET", path.as_bytes()).unwrap();
        assert_eq!(template.bind(&path), expected, "{path:?}");
    }
    assert_eq!(template.bind(&RequestPath::default()), Binding::NoMatch, "CONNECT without a path");
    assert!(Template::compile("no template").is_err());
    assert!(Template::compile("").is_err());
}

#[test]
fn the_template_of_a_path_is_reported() {
    let routes = example();
    for (path, expected) in [
        ("/v1/reviews/7?a=b", Some("/v1/reviews/{*rest}")),
        ("/v1/reviews", Some("/v1/reviews/{*rest}")),
        ("/v1/webhooks", Some("/v1/webhooks")),
        ("/v1/workspaces/acme/settings", Some("/v1/workspaces/{workspace}/settings")),
        ("/v1/other", None),
    ] {
        assert_eq!(routes.template(&Paths::default().read(b"GET", path.as_bytes()).unwrap()), expected, "{path}");
    }
}

#[test]
fn a_rule_that_a_route_states_denies_what_does_not_fit() {
    let key = |workspace| RouteRule::Rule { rule: Rule::AnyKey, workspace };
    for (rule, binding, expected) in [
        ("key", None, key(None)),
        ("key", Some(Binding::Match { workspace: Some("acme") }), key(Some("acme"))),
        ("key", Some(Binding::NoMatch), RouteRule::Unknown),
        ("key", Some(Binding::Ambiguous), RouteRule::BadPath),
        ("no rule", None, RouteRule::Unknown),
    ] {
        assert_eq!(rule_from_metadata(rule, binding), expected, "{rule} {binding:?}");
    }
}
