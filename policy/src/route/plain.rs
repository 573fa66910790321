//! Paths that every reader takes for the same path.

/// The path without its query, when every reader takes it for the same path: no dot segments, no empty ones, no
/// backslash, control byte, `;`, and no encoded unreserved character, slash, backslash, percent, semicolon or dot.
pub fn plain_path(path: &[u8]) -> Option<&str> {
    let path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let path = str::from_utf8(path).ok()?;
    let mut segments = path.strip_prefix('/')?.split('/').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        if matches!(segment, "." | "..") || (segment.is_empty() && !is_last) {
            return None;
        }
        if segment.bytes().any(|byte| byte <= b' ' || byte == 0x7f || matches!(byte, b'\\' | b';')) {
            return None;
        }
        if !escapes_are_plain(segment.as_bytes()) {
            return None;
        }
    }
    Some(path)
}

fn escapes_are_plain(segment: &[u8]) -> bool {
    let mut rest = segment;
    while let Some(at) = rest.iter().position(|byte| *byte == b'%') {
        let Some([_, high, low, after @ ..]) = rest.get(at..) else { return false };
        let (Some(high), Some(low)) = (hex(*high), hex(*low)) else { return false };
        let byte = (high << 4) | low;
        let plain = byte.is_ascii_alphanumeric()
            || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'/' | b'\\' | b'%' | b';')
            || byte < b' '
            || byte == 0x7f;
        if plain {
            return false;
        }
        rest = after;
    }
    true
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}
