//! Credentials of a request: finds its keys, and the header edits that remove them.
//!
//! A key is removed whether the request is allowed or denied. So is the text of any Latchkey key in another place,
//! where no upstream expects it and where the upstream's log would keep it.

use std::borrow::Cow;

use policy::credential_source::{CredentialSource, is_framing_header};
use policy::key_text::{KEY_PREFIX, find_key};
use policy::path::escaped;

use crate::host::Header;

/// The result of searching a request's headers for keys.
#[derive(Debug, Default)]
pub struct CredentialScan<'a> {
    /// All keys, in the order of the headers. More than one is an error, even if they are equal.
    pub keys: Vec<Cow<'a, [u8]>>,
    /// How to change the request's headers before any other filter, log or upstream reads them.
    pub header_edits: Vec<HeaderEdit<'a>>,
    /// Whether the request's host holds a key, which can't be removed from there.
    pub in_authority: bool,
}

/// The change to a header that carried a key.
#[derive(Debug, PartialEq, Eq)]
pub enum HeaderEdit<'a> {
    /// The whole header is removed.
    Remove(&'a str),
    /// The header is replaced by the rest of its value, which stays as it was.
    Rewrite(&'a str, Vec<u8>),
}

/// The change to one line of a header.
enum LineEdit {
    Keep,
    Remove,
    Replace(Vec<u8>),
}

/// Replaces a key in a header where no key belongs.
const REMOVED: &[u8] = b"removed";

/// Searches all configured places for keys, and all other headers for stray ones.
pub fn find<'a>(headers: &'a [Header], sources: &[CredentialSource]) -> CredentialScan<'a> {
    let mut scan = CredentialScan::default();
    let mut changed: Vec<(usize, LineEdit)> = Vec::new();
    for (at, (name, value)) in headers.iter().enumerate() {
        let line = match name.as_str() {
            ":path" => scan_path(value, sources, &mut scan.keys),
            "cookie" => scan_cookie(value, sources, &mut scan.keys),
            ":authority" | "host" => {
                scan.in_authority |= find_key(value).is_some();
                LineEdit::Keep
            }
            name => scan_header(name, value, sources, &mut scan.keys),
        };
        if !matches!(line, LineEdit::Keep) {
            changed.push((at, line));
        }
    }
    for (number, (at, _)) in changed.iter().enumerate() {
        let Some((name, _)) = headers.get(*at) else { continue };
        let is_earlier = |(at, _): &(usize, LineEdit)| headers.get(*at).is_some_and(|(own, _)| own == name);
        if !changed.iter().take(number).any(is_earlier) {
            scan.header_edits.push(header_edit(name, headers, &changed));
        }
    }
    scan
}

/// The edit of a header with changed lines: the remaining lines are joined into one (RFC 9110 5.3, RFC 6265 5.4).
fn header_edit<'a>(name: &'a str, headers: &[Header], changed: &[(usize, LineEdit)]) -> HeaderEdit<'a> {
    let lines = headers.iter().enumerate().filter(|(_, (own, _))| own == name);
    let kept: Vec<&[u8]> = lines
        .filter_map(|(at, (_, value))| match changed.iter().find(|(own, _)| *own == at) {
            None | Some((_, LineEdit::Keep)) => Some(value.as_slice()),
            Some((_, LineEdit::Replace(value))) => Some(value),
            Some((_, LineEdit::Remove)) => None,
        })
        .collect();
    let separator: &[u8] = if name == "cookie" { b"; " } else { b"," };
    if kept.is_empty() { HeaderEdit::Remove(name) } else { HeaderEdit::Rewrite(name, kept.join(separator)) }
}

fn scan_header<'a>(
    name: &str,
    value: &'a [u8],
    sources: &[CredentialSource],
    keys: &mut Vec<Cow<'a, [u8]>>,
) -> LineEdit {
    for source in sources {
        let CredentialSource::Header { name: own, prefix } = source else { continue };
        if own != name {
            continue;
        }
        match prefix {
            None => {
                keys.push(Cow::Borrowed(value));
                return LineEdit::Remove;
            }
            Some(prefix) => {
                let (own, rest) = split_prefixed_keys(value, prefix);
                if !own.is_empty() {
                    keys.extend(own.into_iter().map(Cow::Borrowed));
                    // The rest of the value may hold a stray key, too.
                    return if rest.is_empty() {
                        LineEdit::Remove
                    } else {
                        LineEdit::Replace(redact_keys(&rest).unwrap_or(rest))
                    };
                }
            }
        }
    }
    match name {
        "sec-websocket-protocol" => scan_list(value),
        // Envoy reads these before this filter, and a client can't choose their text.
        ":method" | ":scheme" | ":protocol" => LineEdit::Keep,
        name if is_framing_header(name) => LineEdit::Keep,
        _ => redact_keys(value).map_or(LineEdit::Keep, LineEdit::Replace),
    }
}

/// The value with each key replaced by [`REMOVED`]; `None` when it holds no key.
fn redact_keys(value: &[u8]) -> Option<Vec<u8>> {
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

/// A list that the upstream chooses an entry from: entries that hold a key are removed.
fn scan_list(value: &[u8]) -> LineEdit {
    if find_key(value).is_none() {
        return LineEdit::Keep;
    }
    let entries = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
    let kept: Vec<&[u8]> = entries.filter(|entry| find_key(entry).is_none()).collect();
    if kept.is_empty() { LineEdit::Remove } else { LineEdit::Replace(kept.join(&b", "[..])) }
}

/// Splits a value into the keys after their prefix, in any case, and the rest. Envoy joins repeated `authorization`
/// headers by commas, so each part with the prefix begins a key. The key extends to the next part with the prefix,
/// since a foreign key may contain commas; a Latchkey key also ends before another scheme. A prefix with nothing after
/// it is an empty key, also without the space at its end, which HTTP strips.
fn split_prefixed_keys<'a>(value: &'a [u8], prefix: &str) -> (Vec<&'a [u8]>, Vec<u8>) {
    let mut keys: Vec<&[u8]> = Vec::new();
    let mut others: Vec<&[u8]> = Vec::new();
    let mut rest = value;
    while !rest.is_empty() {
        let (part, behind) = split_once(rest, b',');
        let Some(start) = key_start(part, prefix) else {
            others.push(part.trim_ascii());
            rest = behind;
            continue;
        };
        let key = rest.get(start..).unwrap_or_default();
        let is_latchkey_key = key.trim_ascii_start().starts_with(KEY_PREFIX);
        let end = if is_latchkey_key && begins_with_scheme(behind) {
            part.len().saturating_sub(start)
        } else {
            next_prefixed_key(key, prefix).unwrap_or(key.len())
        };
        let (key, behind) = key.split_at_checked(end).unwrap_or((key, b""));
        keys.push(key.trim_ascii());
        rest = behind.strip_prefix(b",").unwrap_or(behind);
    }
    (keys, others.join(&b", "[..]))
}

/// Whether this begins like a credential with its own scheme: a word, a space, and more (RFC 9110 11.4).
fn begins_with_scheme(bytes: &[u8]) -> bool {
    let (scheme, rest) = split_once(bytes.trim_ascii_start(), b' ');
    !scheme.is_empty()
        && !scheme.starts_with(KEY_PREFIX)
        && scheme.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && !rest.trim_ascii().is_empty()
}

/// The offset of the key in a part that has the prefix.
fn key_start(part: &[u8], prefix: &str) -> Option<usize> {
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

/// The offset of the comma before the next key.
fn next_prefixed_key(rest: &[u8], prefix: &str) -> Option<usize> {
    let commas = rest.iter().enumerate().filter(|(_, byte)| **byte == b',').map(|(at, _)| at);
    commas.into_iter().find(|comma| {
        let behind = rest.get(comma.saturating_add(1)..).unwrap_or_default();
        key_start(split_once(behind, b',').0, prefix).is_some()
    })
}

/// `?a=1&api_key=…&b=2`: names and values are percent-decoded before they are compared.
fn scan_path<'a>(path: &'a [u8], sources: &[CredentialSource], keys: &mut Vec<Cow<'a, [u8]>>) -> LineEdit {
    let Some(at) = path.iter().position(|byte| *byte == b'?') else { return LineEdit::Keep };
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
        return LineEdit::Keep;
    }
    let mut rewritten = plain.to_vec();
    if !kept.is_empty() {
        rewritten.push(b'?');
        rewritten.extend(kept.join(&b'&'));
    }
    LineEdit::Replace(rewritten)
}

/// `a=1; api_key=…; b=2`.
fn scan_cookie<'a>(value: &'a [u8], sources: &[CredentialSource], keys: &mut Vec<Cow<'a, [u8]>>) -> LineEdit {
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
        _ if !any => LineEdit::Keep,
        [] => LineEdit::Remove,
        kept => LineEdit::Replace(kept.join(&b"; "[..])),
    }
}

/// Whether a parameter or cookie holds a key, percent-encoded or not.
fn holds_key(part: &[u8]) -> bool {
    find_key(part).is_some() || (part.contains(&b'%') && find_key(&percent_decoded(part)).is_some())
}

/// A cookie's value without its double quotes, if it has them (RFC 6265 4.1.1).
fn unquoted(value: &[u8]) -> &[u8] {
    value.strip_prefix(b"\"").and_then(|value| value.strip_suffix(b"\"")).unwrap_or(value)
}

/// The bytes before and after the first `separator`; none after it if there is no separator.
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
