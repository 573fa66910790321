//! Finding the key in a request, and what the request looks like without it.
//!
//! What an edge takes for a key is removed, whatever becomes of the request; so is the text of any key of ours that a client
//! put somewhere else, where no upstream expects it and where its log would keep it.

use std::borrow::Cow;

use policy::config::CredentialSource;
use policy::key_text::{KEY_PREFIX, find_key};
use policy::path::escaped;

use crate::host::Header;

/// What a request carries where keys may stand.
#[derive(Debug, Default)]
pub struct Found<'a> {
    /// All keys, in the order of the headers; more than one is one too many, even if they are equal.
    pub keys: Vec<Cow<'a, [u8]>>,
    /// What to do to the request's headers before anybody else sees them.
    pub removals: Vec<Removal<'a>>,
    /// Whether the request's host holds a key, which can't be removed from there.
    pub in_authority: bool,
}

/// A header that carried a key.
#[derive(Debug, PartialEq, Eq)]
pub enum Removal<'a> {
    /// All of it goes.
    Header(&'a str),
    /// It carried something else beside the key, which stays as it was.
    Rewrite(&'a str, Vec<u8>),
}

/// What one line of a header becomes.
enum Line {
    Stays,
    Goes,
    Becomes(Vec<u8>),
}

/// What stands for a key in a header where none belongs.
const REMOVED: &[u8] = b"removed";

/// Looks at all places that may carry a key, and at all others for one that was put there.
pub fn find<'a>(headers: &'a [Header], sources: &[CredentialSource]) -> Found<'a> {
    let mut found = Found::default();
    let mut changed: Vec<(usize, Line)> = Vec::new();
    for (at, (name, value)) in headers.iter().enumerate() {
        let line = match name.as_str() {
            ":path" => in_path(value, sources, &mut found.keys),
            "cookie" => in_cookie(value, sources, &mut found.keys),
            ":authority" | "host" => {
                found.in_authority |= find_key(value).is_some();
                Line::Stays
            }
            name => in_header(name, value, sources, &mut found.keys),
        };
        if !matches!(line, Line::Stays) {
            changed.push((at, line));
        }
    }
    for (number, (at, _)) in changed.iter().enumerate() {
        let Some((name, _)) = headers.get(*at) else { continue };
        let is_earlier = |(at, _): &(usize, Line)| headers.get(*at).is_some_and(|(own, _)| own == name);
        if !changed.iter().take(number).any(is_earlier) {
            found.removals.push(removal(name, headers, &changed));
        }
    }
    found
}

/// What a header with changed lines becomes: its other lines stay, in one (RFC 9110 5.3, RFC 6265 5.4).
fn removal<'a>(name: &'a str, headers: &[Header], changed: &[(usize, Line)]) -> Removal<'a> {
    let lines = headers.iter().enumerate().filter(|(_, (own, _))| own == name);
    let kept: Vec<&[u8]> = lines
        .filter_map(|(at, (_, value))| match changed.iter().find(|(own, _)| *own == at) {
            None | Some((_, Line::Stays)) => Some(value.as_slice()),
            Some((_, Line::Becomes(value))) => Some(value),
            Some((_, Line::Goes)) => None,
        })
        .collect();
    let separator: &[u8] = if name == "cookie" { b"; " } else { b"," };
    if kept.is_empty() { Removal::Header(name) } else { Removal::Rewrite(name, kept.join(separator)) }
}

fn in_header<'a>(name: &str, value: &'a [u8], sources: &[CredentialSource], keys: &mut Vec<Cow<'a, [u8]>>) -> Line {
    for source in sources {
        let CredentialSource::Header { name: own, prefix } = source else { continue };
        if own != name {
            continue;
        }
        match prefix {
            None => {
                keys.push(Cow::Borrowed(value));
                return Line::Goes;
            }
            Some(prefix) => {
                let (own, rest) = behind_prefix(value, prefix);
                if !own.is_empty() {
                    keys.extend(own.into_iter().map(Cow::Borrowed));
                    // What stands beside a key may be one in another place.
                    return if rest.is_empty() {
                        Line::Goes
                    } else {
                        Line::Becomes(without_keys(&rest).unwrap_or(rest))
                    };
                }
            }
        }
    }
    match name {
        "sec-websocket-protocol" => in_list(value),
        // They say how the request is framed, so Envoy reads them before anybody; none of them is a client's to fill.
        ":method" | ":scheme" | ":protocol" | "connection" | "content-length" | "expect" | "http2-settings"
        | "keep-alive" | "proxy-connection" | "te" | "trailer" | "transfer-encoding" | "upgrade" => Line::Stays,
        _ => without_keys(value).map_or(Line::Stays, Line::Becomes),
    }
}

/// The value with a word in place of each key; `None` when it has none.
fn without_keys(value: &[u8]) -> Option<Vec<u8>> {
    let mut kept = Vec::new();
    let mut rest = value;
    while let Some(at) = find_key(rest) {
        kept.extend_from_slice(rest.get(..at.start).unwrap_or_default());
        kept.extend_from_slice(REMOVED);
        rest = rest.get(at.end..).unwrap_or_default();
    }
    if kept.is_empty() {
        return None;
    }
    kept.extend_from_slice(rest);
    Some(kept)
}

/// A list whose entries the upstream chooses from: those that hold a key go.
fn in_list(value: &[u8]) -> Line {
    if find_key(value).is_none() {
        return Line::Stays;
    }
    let entries = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let kept: Vec<&[u8]> = entries.filter(|entry| find_key(entry).is_none()).collect();
    if kept.is_empty() { Line::Goes } else { Line::Becomes(kept.join(&b", "[..])) }
}

/// The keys behind their prefix, whatever the prefix's case, and what else the value has. Envoy joins repeated
/// `authorization` headers by commas, so a part that has the prefix begins a key. All up to the next part with the prefix
/// belongs to it, since a text from elsewhere may hold commas; a key of ours ends before another scheme, too. A prefix with
/// nothing behind it carries the empty key, also without the space at its end, which HTTP strips.
fn behind_prefix<'a>(value: &'a [u8], prefix: &str) -> (Vec<&'a [u8]>, Vec<u8>) {
    let mut keys: Vec<&[u8]> = Vec::new();
    let mut others: Vec<&[u8]> = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let (part, behind) = split_once(rest, b',');
        let Some(start) = start_of_key(part, prefix) else {
            others.push(part.trim_ascii());
            rest = behind;
            continue;
        };
        let key = rest.get(start..).unwrap_or_default();
        let is_ours = key.trim_ascii_start().starts_with(KEY_PREFIX);
        let end = if is_ours && begins_with_scheme(behind) {
            part.len().saturating_sub(start)
        } else {
            next_key(key, prefix).unwrap_or(key.len())
        };
        let (key, behind) = key.split_at_checked(end).unwrap_or((key, b""));
        keys.push(key.trim_ascii());
        rest = behind.strip_prefix(b",").unwrap_or(behind);
    }
    (keys, others.join(&b", "[..]))
}

/// Whether this begins as a credential with a scheme of its own does: a word, a blank, and more (RFC 9110 11.4).
fn begins_with_scheme(bytes: &[u8]) -> bool {
    let (scheme, rest) = split_once(bytes.trim_ascii_start(), b' ');
    !scheme.is_empty()
        && !scheme.starts_with(KEY_PREFIX)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !rest.trim_ascii().is_empty()
}

/// Where the key begins in a part that has the prefix.
fn start_of_key(part: &[u8], prefix: &str) -> Option<usize> {
    let trimmed = part.trim_ascii_start();
    let blank = part.len().saturating_sub(trimmed.len());
    let bare = prefix.trim_end();
    let length = match trimmed.split_at_checked(prefix.len()) {
        Some((start, _)) if start.eq_ignore_ascii_case(prefix.as_bytes()) => prefix.len(),
        _ if trimmed.trim_ascii_end().eq_ignore_ascii_case(bare.as_bytes()) => bare.len(),
        _ => return None,
    };
    Some(blank + length)
}

/// Where, behind a key, the comma stands that another one follows.
fn next_key(rest: &[u8], prefix: &str) -> Option<usize> {
    let commas = rest.iter().enumerate().filter(|(_, byte)| **byte == b',').map(|(at, _)| at);
    commas.into_iter().find(|comma| {
        let behind = rest.get(comma.saturating_add(1)..).unwrap_or_default();
        start_of_key(split_once(behind, b',').0, prefix).is_some()
    })
}

/// `?a=1&api_key=…&b=2`: names and values are percent-decoded before they are compared.
fn in_path<'a>(path: &'a [u8], sources: &[CredentialSource], keys: &mut Vec<Cow<'a, [u8]>>) -> Line {
    let Some(at) = path.iter().position(|byte| *byte == b'?') else { return Line::Stays };
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
            keys.push(percent_decoded(value));
        } else if holds_key(part) {
            any = true;
        } else {
            kept.push(part);
        }
    }
    if !any {
        return Line::Stays;
    }
    let mut rewritten = plain.to_vec();
    if !kept.is_empty() {
        rewritten.push(b'?');
        rewritten.extend(kept.join(&b'&'));
    }
    Line::Becomes(rewritten)
}

/// `a=1; api_key=…; b=2`.
fn in_cookie<'a>(value: &'a [u8], sources: &[CredentialSource], keys: &mut Vec<Cow<'a, [u8]>>) -> Line {
    let is_ours = |name: &[u8]| {
        let ours = |source: &CredentialSource| matches!(source, CredentialSource::Cookie { name: own } if own.as_bytes() == name);
        sources.iter().any(ours)
    };
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut any = false;
    for pair in value.split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
        let (name, value) = split_once(pair, b'=');
        if is_ours(name.trim_ascii()) {
            any = true;
            keys.push(Cow::Borrowed(unquoted(value.trim_ascii())));
        } else if holds_key(pair) {
            any = true;
        } else {
            kept.push(pair);
        }
    }
    match kept.as_slice() {
        _ if !any => Line::Stays,
        [] => Line::Goes,
        kept => Line::Becomes(kept.join(&b"; "[..])),
    }
}

/// Whether a parameter or cookie holds a key, percent-encoded or not.
fn holds_key(part: &[u8]) -> bool {
    find_key(part).is_some() || (part.contains(&b'%') && find_key(&percent_decoded(part)).is_some())
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
        let decoded_byte = match (first, after) {
            (b'%', [high, low, behind @ ..]) => escaped(*high, *low).map(|byte| (byte, behind)),
            _ => None,
        };
        decoded.push(match decoded_byte {
            Some((byte, behind)) => {
                rest = behind;
                byte
            }
            None if *first == b'+' => b' ',
            None => *first,
        });
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests;
