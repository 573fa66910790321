//! Which paths have one reading, and what an operator may admit beyond them.

use super::*;
use crate::fixtures::test;

fn read(allow: &[PathKind], path: &[u8]) -> Option<String> {
    let paths = Paths { allow: allow.iter().copied().collect() };
    let read = paths.read(b"GET", path)?;
    Some(match read.readings() {
        (plain, None) => plain.to_owned(),
        (plain, Some(decoded)) => format!("{plain} or {decoded}"),
    })
}

#[test]
fn an_ordinary_path_passes_as_it_is() {
    for path in [
        "/",
        "/v1",
        "/v1/",
        "/v1/reviews/7",
        "/.well-known/security.txt",
        "/...",
        "/..a/.b/c..",
        "/a..b/v1.2/file.tar.gz",
        "/~user/(a)/b,c=d!e$f&g'h*i+j:k@l",
        "/v1/users:batch",
        "/a[0]/{b}/\"c\"/<d>/^|`",
        "/caf\u{e9}/\u{6f22}\u{5b57}",
    ] {
        assert_eq!(read(&[], path.as_bytes()).as_deref(), Some(path));
        assert_eq!(read(&[], format!("{path}?a=/../;%2e#").as_bytes()).as_deref(), Some(path), "with a query");
    }
    let long = format!("/{}", "segment/".repeat(1000));
    assert_eq!(read(&[], long.as_bytes()), Some(long));
}

#[test]
fn escapes_that_every_reader_decodes_alike_are_decoded() {
    for (path, plain) in [
        ("/caf%C3%A9%20x", "/caf\u{e9} x"),
        ("/caf%c3%a9", "/caf\u{e9}"),
        ("/a%3Ab%40c%2Bd%2Ce%3D", "/a:b@c+d,e="),
        ("/%7Bid%7D", "/{id}"),
        ("/%E2%82%AC/%F0%9F%98%80", "/\u{20ac}/\u{1f600}"),
    ] {
        assert_eq!(read(&[], path.as_bytes()).as_deref(), Some(plain), "{path}");
    }
}

#[test]
fn a_path_that_two_readers_may_read_differently_is_bad() {
    for path in [
        &b""[..],
        b"*",
        b"v1",
        b"?a=b",
        b"http://host/v1",
        b"/.",
        b"/..",
        b"/a/./b",
        b"/a/../b",
        b"/a/..?b",
        b"//a",
        b"/a//b",
        b"/a//",
        b"/a\\b",
        b"/..\\a",
        b"/a#b",
        b"/a b",
        b"/a\tb",
        b"/a\x01",
        b"/a\x7f",
        b"/a\xff",
        b"/a\xc0\xaf",
        b"/a\xc2\x85",
        b"/a;b",
        b"/a;",
        b"/..;/a",
        b"/%2e%2e;/a",
        b"/%2e%2e/a",
        b"/.%2e/a",
        b"/%2e/a",
        b"/%61",
        b"/a%2db",
        b"/a%7E",
        b"/a%2fb",
        b"/a%5cb",
        b"/a%5C..%5Cb",
        b"/a%3b",
        b"/a%3fb",
        b"/a%23b",
        b"/a%25",
        b"/a%252e",
        b"/..%252f",
        b"/a%00",
        b"/a%09",
        b"/..%09",
        b"/a%0d%0a",
        b"/a%7f",
        b"/a%C2%85",
        b"/a%20",
        b"/%20a",
        b"/..%20",
        b"/%20",
        b"/a%C2%A0",
        b"/..%E3%80%80/a",
        b"/..%20./a",
        b"/.%C2%A0.",
        b"/a%EF%BB%BF",
        b"/..%EF%BB%BF/a",
        b"/..%c0%af",
        b"/%c0%ae%c0%ae/a",
        b"/%e0%80%af",
        b"/%f0%80%80%af",
        b"/a%ff",
        b"/a%c3",
        b"/a%c3/%a9",
        b"/a%",
        b"/a%2",
        b"/a%zz",
        b"/a%u002f",
        b"/a%+1",
    ] {
        assert_eq!(read(&[], path), None, "{}", path.escape_ascii());
    }
}

#[test]
fn each_kind_admits_its_own_spelling_and_no_dot_segment() {
    use PathKind::{DoubleSlash, EncodedQuery, EncodedSlash, EncodedUnreserved, Semicolon};
    let all = &PathKind::ALL[..];
    for (kinds, path, expected) in [
        (&[Semicolon][..], "/a;x=1/b;y", Some("/a/b")),
        (&[Semicolon], "/a/;x", Some("/a/")),
        (&[Semicolon], "/a/;x/b", None),
        (&[Semicolon, DoubleSlash], "/a/;x/b", Some("/a/b")),
        (&[Semicolon], "/..;x/b", None),
        (&[Semicolon], "/a;/../b", None),
        (&[Semicolon], "/.;/a", None),
        (&[Semicolon], "/a%3bx", None),
        (&[Semicolon], "/%2e%2e;/a", None),
        (&[EncodedSlash], "/a%2fb", Some("/a%2fb or /a/b")),
        (&[EncodedSlash], "/a%2F..%2Fb", None),
        (&[EncodedSlash], "/..%2fb", None),
        (&[EncodedSlash], "/a%2f%2fb", None),
        (&[EncodedSlash], "/a/%2fb", None),
        (&[EncodedSlash], "/a%5cb", None),
        (&[EncodedSlash, DoubleSlash], "/a%2f%2fb", Some("/a%2f%2fb or /a/b")),
        (&[EncodedUnreserved], "/%61%2Db%2etxt", Some("/a-b.txt")),
        (&[EncodedUnreserved], "/%2e%2e/a", None),
        (&[EncodedUnreserved], "/.%2e/a", None),
        (&[EncodedUnreserved], "/%2e", None),
        (&[EncodedUnreserved], "/a%252e", None),
        (&[DoubleSlash], "//a///b//", Some("/a/b/")),
        (&[DoubleSlash], "/a//../b", None),
        (&[EncodedQuery], "/a%3fb%23c", Some("/a%3fb%23c or /a")),
        (&[EncodedQuery], "/..%3f/a", None),
        (&[EncodedQuery], "/.%23/a", None),
        (all, "/..%3b/a", None),
        (all, "/%2e%2e%2f", None),
        (all, "/..;%2f", None),
        (all, "/..%3f;x/a", None),
        (all, "/..;x%3f/a", None),
        (all, "/a%20;x/b", None),
        (all, "/a%5c..", None),
        (all, "/a\\..", None),
        (all, "/%c0%ae%c0%ae/", None),
        (all, "/a%00", None),
        (all, "/%252e%252e/", None),
    ] {
        assert_eq!(read(kinds, path.as_bytes()).as_deref(), expected, "{kinds:?} {path}");
        for kind in kinds.iter().filter(|_| expected.is_some()) {
            let others: Vec<_> = kinds.iter().copied().filter(|own| own != kind).collect();
            assert_eq!(read(&others, path.as_bytes()), None, "{path} without {kind:?}");
        }
    }
}

#[test]
fn connect_needs_no_path() {
    let paths = Paths::default();
    assert_eq!(paths.read(b"CONNECT", b""), Some(RequestPath::default()));
    assert_eq!(paths.read(b"GET", b""), None);
    assert_eq!(paths.read(b"CONNECT", b"/a/../b"), None, "extended CONNECT has one");
}

#[test]
fn kinds_are_written_as_words() {
    let text = r#"{"allow":["semicolon","encoded-slash","encoded-unreserved","double-slash","encoded-query"]}"#;
    let paths: Paths = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&paths).unwrap(), text);
    assert_eq!(serde_json::from_str::<Paths>("{}").unwrap(), Paths::default());
    assert!(serde_json::from_str::<Paths>(r#"{"allow": ["dots"]}"#).is_err());
    assert!(serde_json::from_str::<Paths>(r#"{"allows": []}"#).is_err());
}
