//! Percent-encoding and UTF-8, as strict or as lenient as servers decode them.

/// The byte of two hex digits after a percent sign.
fn escaped(rest: &[u8]) -> Option<u8> {
    let digit = |at: usize| rest.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (high, low) = (digit(1)?, digit(2)?);
    u8::try_from(high << 4 | low).ok()
}

/// What happens to a percent sign without two hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Malformed {
    Refuse,
    Keep,
}

/// Decodes once; `None` for a percent sign without two hex digits.
pub(super) fn decode_strictly(path: &[u8]) -> Option<Vec<u8>> {
    decode_each(path, Malformed::Refuse, |_| None)
}

/// Decodes once; a percent sign without two hex digits stays unchanged.
pub(super) fn decode(path: &[u8]) -> Vec<u8> {
    decode_each(path, Malformed::Keep, |_| None).expect("nothing is refused")
}

/// Repeats [`decode`] until nothing changes.
pub(super) fn decode_all(path: &[u8]) -> Vec<u8> {
    let decoded = decode(path);
    if decoded == path { decoded } else { decode_all(&decoded) }
}

/// Decodes once, with `%uXXXX` for a UTF-16 unit.
pub(super) fn decode_with_units(path: &[u8], malformed: Malformed) -> Option<Vec<u8>> {
    decode_each(path, malformed, |rest| {
        let digits = rest.get(2..6).filter(|_| matches!(rest.get(1), Some(b'u' | b'U')))?;
        let unit = digits.iter().try_fold(0, |unit, digit| Some(unit << 4 | char::from(*digit).to_digit(16)?))?;
        Some((char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER).to_string().into_bytes(), 6))
    })
}

/// `other` returns the bytes of another form of escape, and the length of the escape.
fn decode_each(
    path: &[u8],
    malformed: Malformed,
    other: impl Fn(&[u8]) -> Option<(Vec<u8>, usize)>,
) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, after @ ..] = rest {
        let is_escape = *first == b'%';
        let length = match escaped(rest).filter(|_| is_escape) {
            Some(byte) => {
                decoded.push(byte);
                3
            }
            None => match (other(rest).filter(|_| is_escape), malformed) {
                (Some((bytes, length)), _) => {
                    decoded.extend(bytes);
                    length
                }
                (None, Malformed::Refuse) if is_escape => return None,
                (None, _) => {
                    decoded.push(*first);
                    1
                }
            },
        };
        rest = &after[length - 1..];
    }
    Some(decoded)
}

/// Decodes UTF-8 by its lead bytes alone. It checks neither the shortest form nor continuation bytes, and accepts
/// sequences of up to six bytes, as decoders did before RFC 3629.
pub(super) fn utf8_without_checks(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let lead = bytes[at];
        let (length, bits) = match lead {
            0xc0..=0xdf => (2, lead & 0x1f),
            0xe0..=0xef => (3, lead & 0x0f),
            0xf0..=0xf7 => (4, lead & 0x07),
            0xf8..=0xfb => (5, lead & 0x03),
            0xfc..=0xfd => (6, lead & 0x01),
            _ => (1, lead),
        };
        let Some(rest) = bytes.get(at + 1..at + length).filter(|_| length > 1) else {
            text.push(lead);
            at += 1;
            continue;
        };
        let code = rest.iter().fold(u32::from(bits), |code, byte| code << 6 | u32::from(byte & 0x3f));
        let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        text.extend(character.to_string().into_bytes());
        at += length;
    }
    text
}

/// The valid UTF-8 among these bytes.
pub(super) fn valid_utf8(bytes: &[u8]) -> Vec<u8> {
    bytes.utf8_chunks().flat_map(|chunk| chunk.valid().bytes()).collect()
}
