//! Finding the key in a request, and what the request looks like without it.

use std::borrow::Cow;

use policy::config::CredentialSource;

use crate::host::Header;

/// What a request carries where keys may stand.
#[derive(Debug, Default)]
pub struct Found<'a> {
    /// All keys, in the order of the headers; more than one is one too many, even if they are equal.
    pub keys: Vec<Cow<'a, [u8]>>,
    /// What to do to the request's headers before anybody else sees them.
    pub removals: Vec<Removal<'a>>,
}

/// A header that carried a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Removal<'a> {
    /// All of it goes.
    Header(&'a str),
    /// It carried something else beside the key, which stays as it was.
    Rewrite(&'a str, Vec<u8>),
}

/// Looks at all places that may carry a key.
pub fn find<'a>(headers: &'a [Header], sources: &[CredentialSource]) -> Found<'a> {
    let mut found = Found::default();
    let takes_query = sources.iter().any(|source| matches!(source, CredentialSource::Query { .. }));
    let takes_cookie = sources.iter().any(|source| matches!(source, CredentialSource::Cookie { .. }));
    for (name, value) in headers {
        match name.as_str() {
            ":path" if takes_query => find_in_path(value, sources, &mut found),
            "cookie" if takes_cookie => {}
            name => find_in_header(name, value, sources, &mut found),
        }
    }
    if takes_cookie {
        find_in_cookies(headers, sources, &mut found);
    }
    found
}

fn find_in_header<'a>(name: &'a str, value: &'a [u8], sources: &[CredentialSource], found: &mut Found<'a>) {
    for source in sources {
        let CredentialSource::Header { name: own, prefix } = source else { continue };
        if own != name {
            continue;
        }
        let keys = match prefix {
            None => vec![value],
            Some(prefix) => behind_prefix(value, prefix),
        };
        if keys.is_empty() {
            continue;
        }
        found.keys.extend(keys.into_iter().map(Cow::Borrowed));
        let removal = Removal::Header(name);
        if !found.removals.contains(&removal) {
            found.removals.push(removal);
        }
        return;
    }
}

/// The keys behind their prefix, whatever the prefix's case. Envoy joins repeated `authorization` headers by commas, so a
/// part that has the prefix begins a key; all behind it up to the next one belongs to it, and makes it malformed. A prefix
/// with nothing behind it carries the empty key, also without the space at its end, which HTTP strips. None: the value is
/// something else, and stays.
fn behind_prefix<'a>(value: &'a [u8], prefix: &str) -> Vec<&'a [u8]> {
    let mut keys = Vec::new();
    let mut rest = value;
    while let Some(start) = start_of_key(rest, prefix) {
        rest = rest.get(start..).unwrap_or_default();
        let end = next_key(rest, prefix).unwrap_or(rest.len());
        let (key, behind) = rest.split_at_checked(end).unwrap_or((rest, b""));
        keys.push(key.trim_ascii());
        rest = behind;
    }
    keys
}

/// Where the key begins behind the first part of `value` that has the prefix.
fn start_of_key(value: &[u8], prefix: &str) -> Option<usize> {
    let mut at = 0;
    for part in value.split(|byte| *byte == b',') {
        let trimmed = part.trim_ascii_start();
        let blank = part.len().saturating_sub(trimmed.len());
        let bare = prefix.trim_end();
        let length = match trimmed.split_at_checked(prefix.len()) {
            Some((start, _)) if start.eq_ignore_ascii_case(prefix.as_bytes()) => Some(prefix.len()),
            _ => trimmed.trim_ascii_end().eq_ignore_ascii_case(bare.as_bytes()).then_some(bare.len()),
        };
        if let Some(length) = length {
            return Some(at + blank + length);
        }
        at += part.len() + 1;
    }
    None
}

/// Where, behind a key, the comma stands that another one follows.
fn next_key(rest: &[u8], prefix: &str) -> Option<usize> {
    let commas = rest.iter().enumerate().filter(|(_, byte)| **byte == b',').map(|(at, _)| at);
    commas.into_iter().find(|comma| {
        let behind = rest.get(comma.saturating_add(1)..).unwrap_or_default();
        let part = behind.split(|byte| *byte == b',').next().unwrap_or_default();
        start_of_key(part, prefix).is_some()
    })
}

/// `?a=1&api_key=…&b=2`: names and values are percent-decoded before they are compared.
fn find_in_path<'a>(path: &'a [u8], sources: &[CredentialSource], found: &mut Found<'a>) {
    let Some(at) = path.iter().position(|byte| *byte == b'?') else { return };
    let (plain, query) = path.split_at_checked(at).unwrap_or((path, b""));
    let query = query.strip_prefix(b"?").unwrap_or(query);
    let is_ours = |name: &[u8]| {
        let ours = |source: &CredentialSource| matches!(source, CredentialSource::Query { name: own } if own.as_bytes() == name);
        sources.iter().any(ours)
    };
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut any = false;
    for part in query.split(|byte| *byte == b'&') {
        let (name, value) = split_once(part, b'=');
        if is_ours(&percent_decoded(name)) {
            any = true;
            found.keys.push(percent_decoded(value));
        } else {
            kept.push(part);
        }
    }
    if any {
        let mut rewritten = plain.to_vec();
        if !kept.is_empty() {
            rewritten.push(b'?');
            rewritten.extend(kept.join(&b'&'));
        }
        found.removals.push(Removal::Rewrite(":path", rewritten));
    }
}

/// `a=1; api_key=…; b=2`, in one header or in several.
fn find_in_cookies<'a>(headers: &'a [Header], sources: &[CredentialSource], found: &mut Found<'a>) {
    let is_ours = |name: &[u8]| {
        let ours = |source: &CredentialSource| matches!(source, CredentialSource::Cookie { name: own } if own.as_bytes() == name);
        sources.iter().any(ours)
    };
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut any = false;
    for (_, value) in headers.iter().filter(|(name, _)| name == "cookie") {
        for pair in value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let (name, value) = split_once(pair, b'=');
            if is_ours(name.trim_ascii()) {
                any = true;
                found.keys.push(Cow::Borrowed(unquoted(value.trim_ascii())));
            } else {
                kept.push(pair);
            }
        }
    }
    if any {
        found.removals.push(match kept.as_slice() {
            [] => Removal::Header("cookie"),
            kept => Removal::Rewrite("cookie", kept.join(&b"; "[..])),
        });
    }
}

/// A cookie's value may stand in double quotes (RFC 6265 4.1.1).
fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// What stands before and behind the first `separator`; nothing behind it when there is none.
fn split_once(bytes: &[u8], separator: u8) -> (&[u8], &[u8]) {
    let mut parts = bytes.splitn(2, |byte| *byte == separator);
    (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
}

/// Percent-decoded once; a `%` without two digits stays as it is, `+` is a space.
pub(crate) fn percent_decoded(bytes: &[u8]) -> Cow<'_, [u8]> {
    if !bytes.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(bytes);
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        let escaped = match (first, after) {
            (b'%', [high, low, behind @ ..]) => hex(*high).zip(hex(*low)).map(|digits| (digits, behind)),
            _ => None,
        };
        decoded.push(match escaped {
            Some(((high, low), behind)) => {
                rest = behind;
                (high << 4) | low
            }
            None if *first == b'+' => b' ',
            None => *first,
        });
    }
    Cow::Owned(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources() -> Vec<CredentialSource> {
        serde_json::from_str(
            r#"[{"header": "x-api-key"}, {"header": "authorization", "prefix": "Bearer "}, {"query": "api_key"}, {"cookie": "api_key"}]"#,
        )
        .unwrap()
    }

    /// Keys, and what becomes of the headers: `-name` for one that goes, `name=value` for one that is rewritten.
    fn found(headers: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let headers: Vec<Header> =
            headers.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let found = find(&headers, &sources());
        let removal = |removal: &Removal<'_>| match removal {
            Removal::Header(name) => format!("-{name}"),
            Removal::Rewrite(name, value) => format!("{name}={}", text(value)),
        };
        (found.keys.iter().map(|key| text(key)).collect(), found.removals.iter().map(removal).collect())
    }

    #[test]
    fn a_key_is_found_wherever_it_may_stand_and_only_it_is_removed() {
        for (name, headers, keys, removals) in [
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
            ("joined schemes", &[("authorization", "Basic b,Bearer k")], &["k"], &["-authorization"]),
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
            let (found_keys, found_removals) = found(headers);
            assert_eq!(found_keys, keys, "{name}");
            assert_eq!(found_removals, removals, "{name}");
        }
    }
}
