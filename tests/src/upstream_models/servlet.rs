//! Servlet containers, and Spring on top of them.

use super::escapes::{decode, decode_strictly};
use super::segments::{AboveRoot, backslashes_to_slashes, cut_parameters, map, merge_slashes, resolve_dots};

/// `encodedSolidusHandling` of Tomcat's connector.
#[derive(Clone, Copy)]
enum EncodedSlash {
    Reject,
    Decode,
    PassThrough,
}

/// `allowBackslash` of Tomcat's connector.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Backslash {
    Refuse,
    IsSlash,
}

pub(super) fn tomcat(path: &[u8]) -> Option<Vec<u8>> {
    resolve_as_tomcat(path, EncodedSlash::Reject, Backslash::Refuse)
}

pub(super) fn tomcat_that_decodes_slashes(path: &[u8]) -> Option<Vec<u8>> {
    resolve_as_tomcat(path, EncodedSlash::Decode, Backslash::Refuse)
}

pub(super) fn tomcat_that_keeps_slashes(path: &[u8]) -> Option<Vec<u8>> {
    resolve_as_tomcat(path, EncodedSlash::PassThrough, Backslash::Refuse)
}

pub(super) fn tomcat_with_backslash(path: &[u8]) -> Option<Vec<u8>> {
    resolve_as_tomcat(path, EncodedSlash::Decode, Backslash::IsSlash)
}

/// Cuts path parameters, decodes the rest once, normalises it, and refuses what is not UTF-8.
fn resolve_as_tomcat(path: &[u8], encoded_slash: EncodedSlash, backslash: Backslash) -> Option<Vec<u8>> {
    let cut = cut_parameters(path);
    let decoded = match encoded_slash {
        EncodedSlash::Reject if contains(&cut, b"%2f") => return None,
        // Escapes of the slash stay, and so do those of the percent sign; otherwise `%252f` would become `%2f`.
        EncodedSlash::PassThrough => decode_strictly(&protect_escape(&protect_escape(&cut, b"%25"), b"%2f"))?,
        EncodedSlash::Reject | EncodedSlash::Decode => decode_strictly(&cut)?,
    };
    if !decoded.starts_with(b"/") || decoded.contains(&0) {
        return None;
    }
    if backslash == Backslash::Refuse && decoded.contains(&b'\\') {
        return None;
    }
    let plain = resolve_dots(&merge_slashes(&backslashes_to_slashes(&decoded)), AboveRoot::Refuse)?;
    std::str::from_utf8(&plain).is_ok().then_some(plain)
}

/// Encodes the percent sign of this escape once more, so that decoding restores the escape.
fn protect_escape(path: &[u8], escape: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(path.len());
    for at in 0..path.len() {
        kept.push(path[at]);
        if path[at..].get(..escape.len()).is_some_and(|found| found.eq_ignore_ascii_case(escape)) {
            kept.extend(b"25");
        }
    }
    kept
}

fn contains(path: &[u8], escape: &[u8]) -> bool {
    path.windows(escape.len()).any(|window| window.eq_ignore_ascii_case(escape))
}

/// Works on the URI as sent: cuts parameters, decodes the rest, and merges slashes. Dots stay.
pub(super) fn spring_url_path_helper(path: &[u8]) -> Option<Vec<u8>> {
    Some(merge_slashes(&decode_strictly(&cut_parameters(path))?))
}

/// Decodes before it cuts parameters, so `%3b` begins parameters, too.
pub(super) fn spring_that_decodes_first(path: &[u8]) -> Option<Vec<u8>> {
    Some(merge_slashes(&cut_parameters(&decode_strictly(path)?)))
}

/// Cuts the parameters of each segment, then decodes it. A decoded slash separates no segments.
pub(super) fn spring_path_pattern(path: &[u8]) -> Option<Vec<u8>> {
    decode_strictly(path)?;
    Some(map(&cut_parameters(path), |segment| {
        let decoded: Vec<Vec<u8>> = decode(segment).split(|byte| *byte == b'/').map(<[u8]>::to_vec).collect();
        decoded.join(b"%2F".as_slice())
    }))
}

/// The first parameter of any segment ends the path.
pub(super) fn cut_at_first_semicolon(path: &[u8]) -> Option<Vec<u8>> {
    let end = path.iter().position(|byte| *byte == b';').unwrap_or(path.len());
    resolve_dots(&merge_slashes(&decode_strictly(&path[..end])?), AboveRoot::Refuse)
}
