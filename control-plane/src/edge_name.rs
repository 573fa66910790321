//! Names of edges and of their instances, as the feed takes them.

/// The most characters of a name.
const MAX: usize = 64;

/// What a name must be, for refusals.
pub(crate) const EXPECTED: &str = "1 to 64 letters, digits, `-`, `_` or `.`";

pub(crate) fn fits(text: &str) -> bool {
    (1..=MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}
