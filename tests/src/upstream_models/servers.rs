//! Web servers and frameworks other than servlet containers.

use super::escapes::{Malformed, decode, decode_strictly, decode_with_units};
use super::segments::{AboveRoot, backslashes_to_slashes, clean, map, merge_slashes, resolve_dots};

/// Decodes once, merges slashes, then resolves dots; refuses NUL and a path above the root.
pub(super) fn nginx(path: &[u8]) -> Option<Vec<u8>> {
    resolve_dots(&merge_slashes(&nginx_decoded(path)?), AboveRoot::Refuse)
}

/// With `merge_slashes off`.
pub(super) fn nginx_without_merging(path: &[u8]) -> Option<Vec<u8>> {
    resolve_dots(&nginx_decoded(path)?, AboveRoot::Refuse)
}

fn nginx_decoded(path: &[u8]) -> Option<Vec<u8>> {
    decode_strictly(path).filter(|decoded| !decoded.contains(&0))
}

/// `PATH_INFO`: decoded once, nothing resolved.
pub(super) fn wsgi(path: &[u8]) -> Option<Vec<u8>> {
    Some(decode(path))
}

/// As the routers of Werkzeug and Rails.
pub(super) fn wsgi_that_merges_slashes(path: &[u8]) -> Option<Vec<u8>> {
    Some(merge_slashes(&decode(path)))
}

/// `req.url`: Express and others match it without decoding.
pub(super) fn as_sent(path: &[u8]) -> Option<Vec<u8>> {
    Some(path.to_vec())
}

/// Decodes once, and refuses what is not UTF-8 then.
pub(super) fn decode_uri_component(path: &[u8]) -> Option<Vec<u8>> {
    decode_strictly(path).filter(|decoded| std::str::from_utf8(decoded).is_ok())
}

/// `new URL(req.url, "http://localhost").pathname`: drops tabs, takes `\` for `/` and `//host` for a host, and resolves
/// dots, including `%2e`. Other escapes stay.
pub(super) fn whatwg_url(path: &[u8]) -> Option<Vec<u8>> {
    let without_tabs: Vec<u8> = path.iter().copied().filter(|byte| *byte != b'\t').collect();
    let slashes = backslashes_to_slashes(&without_tabs);
    let path = match slashes.strip_prefix(b"//") {
        Some(after) => {
            let after = &after[after.iter().take_while(|byte| **byte == b'/').count()..];
            &after[after.iter().position(|byte| *byte == b'/').unwrap_or(after.len())..]
        }
        None => slashes.as_slice(),
    };
    let dots = map(path, |segment| match segment.to_ascii_lowercase().as_slice() {
        b"%2e" => b".".to_vec(),
        b".%2e" | b"%2e." | b"%2e%2e" => b"..".to_vec(),
        _ => segment.to_vec(),
    });
    if dots.is_empty() { Some(b"/".to_vec()) } else { resolve_dots(&dots, AboveRoot::Stay) }
}

/// Decodes once and refuses NUL, as `send` does; then cleans the path like one of files.
pub(super) fn static_files(path: &[u8]) -> Option<Vec<u8>> {
    let decoded = decode_uri_component(path)?;
    let cleaned = clean(&decoded)?;
    (!decoded.contains(&0)).then_some(cleaned)
}

/// Decodes `%uXXXX` as a UTF-16 unit, takes `\` for `/`, and drops blanks at a segment's end, as Windows does in file
/// paths. Refuses NUL. Windows also drops dots there: a suffix like `.json`, against which only a final `deny`
/// protects.
pub(super) fn iis(path: &[u8]) -> Option<Vec<u8>> {
    let decoded = backslashes_to_slashes(&decode_with_units(path, Malformed::Refuse)?);
    let trimmed = map(&decoded, |segment| without(segment, b" ").to_vec());
    clean(&trimmed).filter(|_| !decoded.contains(&0))
}

/// The segment without these bytes at its end.
fn without<'a>(segment: &'a [u8], bytes: &[u8]) -> &'a [u8] {
    let end = segment.iter().rposition(|byte| !bytes.contains(byte)).map_or(0, |last| last + 1);
    &segment[..end]
}
