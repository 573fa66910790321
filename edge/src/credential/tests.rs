//! Which keys are found in a request, and which headers remain without them.

use super::*;

fn sources() -> Vec<CredentialSource> {
    serde_json::from_str(
        r#"[{"header": "x-api-key"}, {"header": "authorization", "prefix": "Bearer "}, {"query": "api_key"}, {"cookie": "api_key"}]"#,
    )
    .unwrap()
}

/// The keys, and the header edits: `-name` for a removed header, `name=value` for a rewritten one.
fn keys_and_edits(headers: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
    let headers: Vec<Header> =
        headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let scan = find(&headers, &sources());
    let edit_text = |edit: &HeaderEdit<'_>| match edit {
        HeaderEdit::Remove(name) => format!("-{name}"),
        HeaderEdit::Rewrite(name, value) => format!("{name}={}", text(value)),
    };
    (scan.keys.iter().map(|key| text(key)).collect(), scan.header_edits.iter().map(edit_text).collect())
}

#[test]
fn a_key_is_found_in_each_configured_place_and_only_the_key_is_removed() {
    for (name, headers, keys, edits) in [
        ("nothing", &[("host", "a"), (":path", "/a?b=c"), ("cookie", "a=b")][..], &[][..], &[][..]),
        ("header", &[("x-api-key", "k")], &["k"], &["-x-api-key"]),
        ("bearer", &[("authorization", "Bearer k")], &["k"], &["-authorization"]),
        ("any case", &[("authorization", "bEARER k")], &["k"], &["-authorization"]),
        ("more spaces", &[("authorization", "Bearer   k")], &["k"], &["-authorization"]),
        ("another scheme stays", &[("authorization", "Basic k")], &[], &[]),
        ("a scheme beside a key", &[("authorization", "Basic b"), ("x-api-key", "k")], &["k"], &["-x-api-key"]),
        ("empty", &[("x-api-key", "")], &[""], &["-x-api-key"]),
        ("empty bearer", &[("authorization", "Bearer")], &[""], &["-authorization"]),
        ("twice", &[("x-api-key", "k"), ("x-api-key", "k")], &["k", "k"], &["-x-api-key"]),
        ("joined by Envoy", &[("authorization", "Bearer k,Bearer l")], &["k", "l"], &["-authorization"]),
        ("joined with something else", &[("authorization", "Bearer k,l")], &["k,l"], &["-authorization"]),
        ("three joined", &[("authorization", "Bearer k, bearer l ,Bearer")], &["k", "l", ""], &["-authorization"]),
        ("joined schemes", &[("authorization", "Basic b,Bearer k")], &["k"], &["authorization=Basic b"]),
        (
            "two lines",
            &[("authorization", "Basic b"), ("authorization", "Bearer k")],
            &["k"],
            &["authorization=Basic b"],
        ),
        (
            "in two places",
            &[("authorization", "Bearer k"), ("x-api-key", "k")],
            &["k", "k"],
            &["-authorization", "-x-api-key"],
        ),
        ("query", &[(":path", "/a?api_key=k")], &["k"], &[":path=/a"]),
        ("query among others", &[(":path", "/a?x=1&api_key=k&y=%26")], &["k"], &[":path=/a?x=1&y=%26"]),
        ("encoded name", &[(":path", "/a?api%5Fkey=k")], &["k"], &[":path=/a"]),
        ("encoded value", &[(":path", "/a?api_key=%6b%6C")], &["kl"], &[":path=/a"]),
        ("query twice", &[(":path", "/a?api_key=k&api_key=l")], &["k", "l"], &[":path=/a"]),
        ("empty query value", &[(":path", "/a?api_key=&b")], &[""], &[":path=/a?b"]),
        ("name without value", &[(":path", "/a?api_key")], &[""], &[":path=/a"]),
        ("half an escape", &[(":path", "/a?api_key=%6")], &["%6"], &[":path=/a"]),
        ("the name elsewhere", &[(":path", "/api_key=k?xapi_key=k")], &[], &[]),
        ("cookie", &[("cookie", "api_key=k")], &["k"], &["-cookie"]),
        ("cookie among others", &[("cookie", "a=1; api_key=k; b=\"2\"")], &["k"], &["cookie=a=1; b=\"2\""]),
        ("quoted cookie", &[("cookie", "api_key=\"k\"")], &["k"], &["-cookie"]),
        ("cookie headers", &[("cookie", "a=1"), ("cookie", "api_key=k")], &["k"], &["cookie=a=1"]),
    ] {
        let (found_keys, found_edits) = keys_and_edits(headers);
        assert_eq!(found_keys, keys, "{name}");
        assert_eq!(found_edits, edits, "{name}");
    }
}

/// A key that was never issued, with a valid checksum.
const KEY: &str = "lk_live_000000000000000000000000000000004cjNQE";

#[test]
fn a_latchkey_key_ends_where_the_next_credential_begins() {
    for (value, keys, edit) in [
        (format!("Bearer {KEY}, Basic b"), &[KEY][..], "authorization=Basic b".to_owned()),
        (format!("Basic b,Bearer {KEY},Digest d"), &[KEY], "authorization=Basic b, Digest d".to_owned()),
        (format!("Bearer {KEY},Bearer {KEY}"), &[KEY, KEY], "-authorization".to_owned()),
        (format!("Bearer {KEY},{KEY}"), &[&format!("{KEY},{KEY}")], "-authorization".to_owned()),
        (format!("Bearer {KEY},x"), &[&format!("{KEY},x")], "-authorization".to_owned()),
        (format!("Bearer {KEY},{KEY} x"), &[&format!("{KEY},{KEY} x")], "-authorization".to_owned()),
        (format!("Bearer {KEY} x"), &[&format!("{KEY} x")], "-authorization".to_owned()),
    ] {
        let (found_keys, edits) = keys_and_edits(&[("authorization", &value)]);
        assert_eq!((found_keys, edits), (keys.iter().map(|key| (*key).to_owned()).collect(), vec![edit]), "{value}");
    }
}

#[test]
fn a_stray_key_is_removed_and_is_not_a_credential() {
    let encoded = KEY.replace('_', "%5F").replace('l', "%6c");
    for (name, headers, edit) in [
        ("bare", [("authorization", KEY.to_owned())], Some("authorization=removed")),
        ("another scheme", [("authorization", format!("Token {KEY}"))], Some("authorization=Token removed")),
        ("another header", [("x-token", KEY.to_owned())], Some("x-token=removed")),
        (
            "a referer",
            [("referer", format!("https://a.example/?k={KEY}&b"))],
            Some("referer=https://a.example/?k=removed&b"),
        ),
        ("JSON", [("x-context", format!(r#"{{"key":"{KEY}"}}"#))], Some(r#"x-context={"key":"removed"}"#)),
        ("two of them", [("x-list", format!("{KEY},a,{KEY}"))], Some("x-list=removed,a,removed")),
        ("a query parameter", [(":path", format!("/a?x=1&key={KEY}&y"))], Some(":path=/a?x=1&y")),
        ("an encoded one", [(":path", format!("/a?x=1&key={encoded}"))], Some(":path=/a?x=1")),
        ("a parameter's name", [(":path", format!("/a?{KEY}"))], Some(":path=/a")),
        ("a cookie", [("cookie", format!("a=1; token={KEY}; b=2"))], Some("cookie=a=1; b=2")),
        ("an encoded cookie", [("cookie", format!("token=\"{encoded}\""))], Some("-cookie")),
        (
            "a subprotocol",
            [("sec-websocket-protocol", format!("chat, {KEY},v2"))],
            Some("sec-websocket-protocol=chat, v2"),
        ),
        ("the only subprotocol", [("sec-websocket-protocol", KEY.to_owned())], Some("-sec-websocket-protocol")),
        ("a path", [(":path", format!("/a/{KEY}"))], None),
        ("framing", [("connection", format!("close, {KEY}"))], None),
        ("a typo", [("x-token", KEY.replace("4cj", "4cJ"))], None),
    ] {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let (keys, edits) = keys_and_edits(&headers);
        assert_eq!(edits, Vec::from_iter(edit.map(str::to_owned)), "{name}");
        assert_eq!(keys, [""; 0], "{name}");
    }
}

#[test]
fn a_line_without_a_key_is_unchanged() {
    for (headers, edits) in [
        (&[("x-token", KEY), ("x-token", "a, b")][..], &["x-token=removed,a, b"][..]),
        (&[("x-api-key", KEY), ("x-token", "a"), ("x-other", KEY)], &["-x-api-key", "x-other=removed"]),
        (&[("authorization", "Basic b"), ("authorization", KEY)], &["authorization=Basic b,removed"]),
    ] {
        assert_eq!(keys_and_edits(headers).1, edits, "{headers:?}");
    }
}

#[test]
fn a_key_in_the_host_is_seen() {
    for name in [":authority", "host"] {
        let header = |value: &str| vec![(name.to_owned(), value.as_bytes().to_vec())];
        assert!(find(&header(&format!("{KEY}.example")), &sources()).in_authority, "{name}");
        assert!(!find(&header("a_b.example"), &sources()).in_authority, "{name}");
    }
}
