//! How each model dispatches known inputs.

use super::UpstreamModel;

const REFUSED: &str = "refused";

/// Asserts what this model dispatches to, or `REFUSED`.
fn assert_dispatches(name: &str, rows: &[(&str, &str)]) {
    let model = UpstreamModel::ALL.into_iter().find(|model| model.name == name).expect("a model of this name");
    for (target, expected) in rows {
        let dispatched = model.resolve(target.as_bytes()).unwrap_or_else(|| REFUSED.into());
        let shown = dispatched.escape_ascii().to_string();
        assert_eq!(shown, *expected, "{name}: {target}");
    }
}

#[test]
fn all_models_resolve_an_ordinary_path_alike() {
    for model in UpstreamModel::ALL {
        for path in [
            "/",
            "/healthz",
            "/v1/reviews/1",
            "/v1/reviews/1/",
            "/v1/a..b/.well-known/v1.2/file.tar.gz",
            "/~a:@!$&'()*+,=",
        ] {
            let dispatched = model.resolve(path.as_bytes()).expect("no model refuses it");
            assert_eq!(dispatched, path.as_bytes(), "{}", model.name);
            assert_eq!(model.resolve(format!("{path}?a=/../b;%2e").as_bytes()).as_deref(), Some(path.as_bytes()));
        }
    }
}

#[test]
fn tomcat_cuts_parameters_before_it_resolves_dots() {
    assert_dispatches(
        "Tomcat 10.1",
        &[
            ("/healthz/..;/v1/reviews/1", "/v1/reviews/1"),
            ("/healthz/%2e%2e;x=/v1/reviews/1", "/v1/reviews/1"),
            ("/v1/webhooks;x/1", "/v1/webhooks/1"),
            ("/v1/webhooks%3bx/1", "/v1/webhooks;x/1"),
            ("/a//b/./c/..", "/a/b/"),
            ("/a/.", "/a/"),
            ("/..;/a", REFUSED),
            ("/a%2fb", REFUSED),
            ("/a%5cb", REFUSED),
            ("/a\\b", REFUSED),
            ("/a%00", REFUSED),
            ("/a%2", REFUSED),
            ("/a%zz", REFUSED),
            ("/a/%252e%252e/b", "/a/%2e%2e/b"),
            ("/a/..%c0%af/b", REFUSED),
        ],
    );
    assert_dispatches(
        "Tomcat 10.1 that decodes %2f",
        &[("/healthz/..%2fv1/reviews/1", "/v1/reviews/1"), ("/a%5cb", REFUSED)],
    );
    assert_dispatches(
        "Tomcat 10.1 that passes %2f through",
        &[("/a/..%2Fb/%2e%2e/c", "/a/c"), ("/a%2fb", "/a%2fb"), ("/a%252fb", "/a%252fb")],
    );
    assert_dispatches(
        "Tomcat 10.1 with allowBackslash",
        &[("/healthz/..\\v1/reviews/1", "/v1/reviews/1"), ("/healthz/%2e%2e%5cv1", "/v1")],
    );
}

#[test]
fn spring_cuts_and_decodes_and_resolves_no_dots() {
    assert_dispatches(
        "Spring, UrlPathHelper",
        &[
            ("/v1/webhooks;x/1", "/v1/webhooks/1"),
            ("/v1//webhooks", "/v1/webhooks"),
            ("/v1/%77ebhooks", "/v1/webhooks"),
            ("/healthz/..;/v1", "/healthz/../v1"),
            ("/v1%2fwebhooks", "/v1/webhooks"),
            ("/v1/webhooks%3bx", "/v1/webhooks;x"),
            ("/v1/%", REFUSED),
        ],
    );
    assert_dispatches("Spring, UrlPathHelper that decodes first", &[("/v1/webhooks%3bx/1", "/v1/webhooks/1")]);
    assert_dispatches(
        "Spring, PathPattern",
        &[("/v1/%77ebhooks;x/1", "/v1/webhooks/1"), ("/v1%2fwebhooks", "/v1%2Fwebhooks"), ("/v1//a", "/v1//a")],
    );
    assert_dispatches(
        "servlets that cut at the first semicolon",
        &[("/v1/webhooks;/../a", "/v1/webhooks"), ("/a/%2e%2e/b", "/b")],
    );
}

#[test]
fn nginx_decodes_once_and_then_resolves() {
    assert_dispatches(
        "nginx",
        &[
            ("/healthz/%2e%2e/v1/reviews", "/v1/reviews"),
            ("/healthz%2f..%2fv1", "/v1"),
            ("/a//b", "/a/b"),
            ("/a/..;/b", "/a/..;/b"),
            ("/%252e%252e/a", "/%2e%2e/a"),
            ("/a%00", REFUSED),
            ("/a%zz", REFUSED),
            ("/../a", REFUSED),
        ],
    );
    assert_dispatches("nginx without merge_slashes", &[("/a//b", "/a//b"), ("/a/%2E%2e/b", "/b")]);
}

#[test]
fn frameworks_decode_once_or_not_at_all() {
    assert_dispatches(
        "WSGI",
        &[("/v1%2fwebhooks", "/v1/webhooks"), ("/a/../b//c", "/a/../b//c"), ("/%zz%00", "/%zz\\x00")],
    );
    assert_dispatches("WSGI that merges slashes", &[("/v1/%2fwebhooks", "/v1/webhooks")]);
    assert_dispatches("Node, as sent", &[("/v1/%77ebhooks;x", "/v1/%77ebhooks;x")]);
    assert_dispatches(
        "Node, decodeURIComponent",
        &[("/v1/%77ebhooks", "/v1/webhooks"), ("/%ff", REFUSED), ("/%c0%af", REFUSED), ("/%", REFUSED)],
    );
    assert_dispatches(
        "Node, new URL()",
        &[
            ("//healthz/v1/webhooks", "/v1/webhooks"),
            ("/\\healthz/v1/webhooks", "/v1/webhooks"),
            ("//healthz", "/"),
            ("/healthz/.%2E/v1", "/v1"),
            ("/healthz/.\t./v1", "/v1"),
            ("/healthz/..%2fv1", "/healthz/..%2fv1"),
        ],
    );
    assert_dispatches("Node, static files", &[("/healthz/..%2fv1", "/v1"), ("/a%00", REFUSED), ("/%ff", REFUSED)]);
}

#[test]
fn iis_reads_paths_as_windows_reads_files() {
    assert_dispatches(
        "IIS with file paths",
        &[
            ("/healthz/..%u002fv1/reviews", "/v1/reviews"),
            ("/healthz/%u002e%u002E\\v1", "/v1"),
            ("/healthz/..%20/v1", "/v1"),
            ("/v1/webhooks%20/1", "/v1/webhooks/1"),
            ("/v1/.../a", "/v1/.../a"),
            ("/a%00", REFUSED),
            ("/a%u00", REFUSED),
        ],
    );
}

#[test]
fn lenient_models_make_the_known_mistakes() {
    assert_dispatches(
        "decodes twice",
        &[("/a/%252e%252e%252fb", "/b"), ("/a/%25252e./b", "/a/%2e./b"), ("/a\\b", "/a/b")],
    );
    assert_dispatches("decodes until nothing changes", &[("/a/%25252e./b", "/b"), ("/a/%zz", "/a/%zz")]);
    assert_dispatches("decodes until nothing changes, then cuts parameters", &[("/a/..%25253bx/b", "/b")]);
    assert_dispatches(
        "takes overlong UTF-8",
        &[
            ("/a/..%c0%afb", "/b"),
            ("/a/..%c1%9cb", "/b"),
            ("/a/%c0%ae%c0%ae/b", "/b"),
            ("/a/..%e0%80%afb", "/b"),
            ("/a/..%f0%80%80%afb", "/b"),
            ("/a/..%fc%80%80%80%80%afb", "/b"),
            ("/a/..%c0%2fb", "/b"),
            ("/a/caf%c3%a9", "/a/caf\\xc3\\xa9"),
        ],
    );
    assert_dispatches(
        "drops what is no UTF-8",
        &[("/a/.%ff./b", "/b"), ("/a/..%c0/b", "/b"), ("/%c3%a9", "/\\xc3\\xa9")],
    );
    assert_dispatches(
        "trims control bytes and blanks",
        &[("/a/..%09/b", "/b"), ("/a/%20../b", "/b"), ("/a/..%c2%a0/b", "/b"), ("/v1/webhooks%20/1", "/v1/webhooks/1")],
    );
    assert_dispatches(
        "drops control bytes",
        &[("/a/.%00./b", "/b"), ("/a/.%0a./b", "/b"), ("/v1/web%7fhooks", "/v1/webhooks")],
    );
    assert_dispatches(
        "cuts at a decoded ?, # or NUL",
        &[
            ("/v1/webhooks%3f/../a", "/v1/webhooks"),
            ("/v1/webhooks%23a", "/v1/webhooks"),
            ("/v1/webhooks%00.html", "/v1/webhooks"),
        ],
    );
    assert_dispatches(
        "all leniencies at once",
        &[("/a/%u002e%252e%09;x%5cb", "/b"), ("/v1/%77ebhooks%20;%3f", "/v1/webhooks"), ("/%", "/%")],
    );
}
