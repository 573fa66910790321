//! Reads a request's path, and refuses it unless every plausible upstream reads it as Envoy does.
//!
//! Between Envoy and the service that handles a request, a path is read more than once. Readers decode escapes once or
//! twice, cut off what follows `;`, treat `\` as `/`, and resolve dot segments before or after any of these. A path
//! that two readers could take for different paths is refused here, whatever its rule.

use std::borrow::Cow;
use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// A spelling that upstreams read in different ways, and that an operator may still admit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathKind {
    /// `;`: parameters of a segment (RFC 3986 3.3). Never `%3b`.
    Semicolon,
    /// `%2f`. Never `%5c`.
    EncodedSlash,
    /// `%61`, `%2d`, `%2e`: an escape of a character that needs none (RFC 3986 2.3).
    EncodedUnreserved,
    /// `//`: an empty segment that is not the last.
    DoubleSlash,
    /// `%3f` and `%23`.
    EncodedQuery,
}

impl PathKind {
    /// Every kind.
    pub const ALL: [Self; 5] =
        [Self::Semicolon, Self::EncodedSlash, Self::EncodedUnreserved, Self::DoubleSlash, Self::EncodedQuery];

    /// Whether Envoy matches such a path as it is spelled, so that it may miss the route that an upstream reads. Envoy
    /// decodes characters that need no escape before it matches.
    pub fn is_matched_as_spelled(self) -> bool {
        match self {
            Self::Semicolon | Self::EncodedSlash | Self::DoubleSlash | Self::EncodedQuery => true,
            Self::EncodedUnreserved => false,
        }
    }
}

/// How an edge reads paths: `paths` of the plugin configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Paths {
    /// Spellings that are admitted although they can be read in several ways. Dot segments, in any reading, never are.
    pub allow: BTreeSet<PathKind>,
}

/// A path that was read, without its query. Templates are matched against it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestPath<'a> {
    /// Decoded, without parameters and empty segments; an encoded slash or query that was admitted is still encoded.
    plain: Cow<'a, str>,
    /// With these decoded too, and cut at the query; `None` where this changes nothing.
    decoded: Option<String>,
}

impl RequestPath<'_> {
    /// The readings that templates are matched against: one, or two that must agree.
    pub(crate) fn readings(&self) -> (&str, Option<&str>) {
        (&self.plain, self.decoded.as_deref())
    }
}

impl Paths {
    /// Reads the path of a request, with or without its query; `None` is a `bad-path`. CONNECT without a path has none
    /// to check, and matches no template.
    ///
    /// One pass over the bytes, without allocation, for an ordinary path without escapes.
    pub fn read<'a>(&self, method: &[u8], path: &'a [u8]) -> Option<RequestPath<'a>> {
        if path.is_empty() && method == b"CONNECT" {
            return Some(RequestPath::default());
        }
        let path = path.split(|byte| *byte == b'?').next().unwrap_or_default();
        if is_ordinary(path) {
            return Some(RequestPath { plain: Cow::Borrowed(str::from_utf8(path).ok()?), decoded: None });
        }
        self.read_with_decoding(str::from_utf8(path).ok()?)
    }

    fn admits(&self, kind: PathKind) -> Option<()> {
        self.allow.contains(&kind).then_some(())
    }

    fn read_with_decoding<'a>(&self, path: &'a str) -> Option<RequestPath<'a>> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let mut plain = Reading::default();
        let mut decoded = Reading::default();
        for segment in segments {
            self.check_spelling(segment)?;
            let text = decode(segment)?;
            plain.push(cut(&decode_except(segment, is_delimiter)?, &[';']));
            for part in text.split('/') {
                for end in [&[][..], &[';'], &['?', '#'], &[';', '?', '#']] {
                    is_plain_name(cut(part, end))?;
                }
                decoded.push(cut(part, &[';']));
            }
        }
        if plain.has_empty_segment || decoded.has_empty_segment {
            self.admits(PathKind::DoubleSlash)?;
        }
        let whole = cut(&decoded.text, &['?', '#']).to_owned();
        let decoded = (whole != plain.text).then_some(whole);
        Some(RequestPath { plain: Cow::Owned(plain.text), decoded })
    }

    /// `Some` if every character and escape of a segment is admitted.
    fn check_spelling(&self, segment: &str) -> Option<()> {
        let mut rest = segment.as_bytes();
        while let [first, behind @ ..] = rest {
            rest = behind;
            match first {
                0..=b' ' | 0x7f | b'\\' | b'#' => return None,
                b';' => self.admits(PathKind::Semicolon)?,
                b'%' => {
                    let [high, low, behind @ ..] = behind else { return None };
                    rest = behind;
                    match escaped(*high, *low)? {
                        0..b' ' | 0x7f | b'\\' | b'%' | b';' => return None,
                        b'/' => self.admits(PathKind::EncodedSlash)?,
                        b'?' | b'#' => self.admits(PathKind::EncodedQuery)?,
                        byte if is_unreserved(byte) => self.admits(PathKind::EncodedUnreserved)?,
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        Some(())
    }
}

/// The segments that one reader sees.
#[derive(Default)]
struct Reading {
    text: String,
    /// Whether a segment other than the last is empty.
    has_empty_segment: bool,
    ends_empty: bool,
}

impl Reading {
    fn push(&mut self, segment: &str) {
        self.has_empty_segment |= self.ends_empty;
        // An empty one is merged into the slash before it, unless it is the last.
        if !self.ends_empty {
            self.text.push('/');
        }
        self.text.push_str(segment);
        self.ends_empty = segment.is_empty();
    }
}

/// True for a path that needs no closer check: it has no escape, parameter, empty or dot segment, and no byte that some
/// reader might trim, cut at or refuse.
fn is_ordinary(path: &[u8]) -> bool {
    let Some((b'/', mut rest)) = path.split_first() else { return false };
    let mut after_slash = true;
    let mut has_leading_dot = false;
    while let [byte, behind @ ..] = rest {
        match byte {
            b'/' if after_slash => return false,
            b'.' if after_slash => has_leading_dot = true,
            b'!' | b'$' | b'&'..=b'/' | b'0'..=b':' | b'=' | b'@' | b'A'..=b'Z' | b'_' | b'a'..=b'z' | b'~' => {}
            _ => return false,
        }
        after_slash = *byte == b'/';
        rest = behind;
    }
    !has_leading_dot || path.split(|byte| *byte == b'/').all(|segment| !matches!(segment, b"." | b".."))
}

/// `Some` for a segment that no reader takes for a dot segment, and none trims.
fn is_plain_name(segment: &str) -> Option<()> {
    // JavaScript also trims a byte order mark.
    let is_blank = |c: char| c.is_whitespace() || c == '\u{feff}';
    let is_trimmed = segment.starts_with(is_blank) || segment.ends_with(is_blank);
    let is_dots = matches!(segment, "." | "..")
        || (segment.contains(is_blank) && segment.chars().all(|c| is_blank(c) || c == '.'));
    (!is_trimmed && !is_dots).then_some(())
}

fn cut<'a>(segment: &'a str, at: &[char]) -> &'a str {
    segment.split(at).next().unwrap_or_default()
}

/// A byte that some readers take for the end of a segment or of the path.
fn is_delimiter(byte: u8) -> bool {
    matches!(byte, b'/' | b'?' | b'#')
}

/// Decodes once; `None` if the result isn't UTF-8 (overlong forms included) or has control characters.
pub(crate) fn decode(segment: &str) -> Option<Cow<'_, str>> {
    decode_except(segment, |_| false)
}

/// Like [`decode`], but leaves escapes of the bytes that `is_kept` selects.
fn decode_except(segment: &str, is_kept: impl Fn(u8) -> bool) -> Option<Cow<'_, str>> {
    let text = if segment.contains('%') {
        let mut bytes = Vec::with_capacity(segment.len());
        let mut rest = segment.as_bytes();
        while let [first, behind @ ..] = rest {
            rest = behind;
            match (first, behind) {
                (b'%', [high, low, behind @ ..]) if !is_kept(escaped(*high, *low)?) => {
                    bytes.push(escaped(*high, *low)?);
                    rest = behind;
                }
                _ => bytes.push(*first),
            }
        }
        Cow::Owned(String::from_utf8(bytes).ok()?)
    } else {
        Cow::Borrowed(segment)
    };
    (!text.chars().any(char::is_control)).then_some(text)
}

/// Characters that mean the same with and without an escape (RFC 3986 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// The byte of two hexadecimal digits, as after a `%`.
pub fn escaped(high: u8, low: u8) -> Option<u8> {
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some((digit(high)? << 4) | digit(low)?)
}

#[cfg(test)]
mod tests;
