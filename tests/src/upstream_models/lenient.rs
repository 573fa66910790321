//! Mistakes that upstreams have made, separately and combined.

use super::escapes::{
    Malformed, decode, decode_all as decoded_all, decode_with_units, utf8_without_checks, valid_utf8,
};
use super::segments::{backslashes_to_slashes, clean, cut_parameters, map, trim_blanks as trimmed};

/// As behind a proxy that decodes a path and doesn't encode it again.
pub(super) fn decode_twice(path: &[u8]) -> Option<Vec<u8>> {
    clean(&backslashes_to_slashes(&decode(&decode(path))))
}

pub(super) fn decode_all(path: &[u8]) -> Option<Vec<u8>> {
    clean(&backslashes_to_slashes(&decoded_all(path)))
}

pub(super) fn decode_all_then_cut(path: &[u8]) -> Option<Vec<u8>> {
    clean(&cut_parameters(&backslashes_to_slashes(&decoded_all(path))))
}

/// `%c0%af` is `/`, `%c0%ae` and `%e0%80%ae` are `.`.
pub(super) fn overlong_utf8(path: &[u8]) -> Option<Vec<u8>> {
    clean(&backslashes_to_slashes(&utf8_without_checks(&decode(path))))
}

/// `.%ff.` is `..`.
pub(super) fn drop_invalid_utf8(path: &[u8]) -> Option<Vec<u8>> {
    clean(&backslashes_to_slashes(&valid_utf8(&decode(path))))
}

/// `..%09` and `..%20` are `..`.
pub(super) fn trim_blanks(path: &[u8]) -> Option<Vec<u8>> {
    clean(&map(&backslashes_to_slashes(&decode(path)), trimmed))
}

/// `.%00.` and `.%0a.` are `..`.
pub(super) fn drop_control_bytes(path: &[u8]) -> Option<Vec<u8>> {
    let without: Vec<u8> = decode(path).into_iter().filter(|byte| !byte.is_ascii_control()).collect();
    clean(&backslashes_to_slashes(&without))
}

/// `/a%3f/../b` is `/a`, as when a decoded path is parsed again as a URL, or passed to code that ends at NUL.
pub(super) fn cut_at_delimiters(path: &[u8]) -> Option<Vec<u8>> {
    clean(&until_delimiter(decode(path)))
}

/// All leniencies together; nothing is refused.
pub(super) fn everything(path: &[u8]) -> Option<Vec<u8>> {
    let decoded = utf8_without_checks(&decoded_all(&decode_with_units(path, Malformed::Keep)?));
    let cut = cut_parameters(&backslashes_to_slashes(&until_delimiter(decoded)));
    clean(&map(&cut, trimmed))
}

fn until_delimiter(mut path: Vec<u8>) -> Vec<u8> {
    let end = path.iter().position(|byte| matches!(byte, b'?' | b'#' | 0));
    path.truncate(end.unwrap_or(path.len()));
    path
}
