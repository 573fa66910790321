//! The digest in a line of an import, in the notations of other systems.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use policy::Digest;
use policy::key_text::KEY_PREFIX;
use serde_json::Value;

use crate::operations::fields::InvalidValue;
use crate::operations::values;

/// SHA-256 of a secret's text, as 64 hexadecimal digits of either case or in base64 of either alphabet, with or without
/// `=` at its end, and with or without the prefix `sha256:`.
pub(super) fn digest(value: Value) -> Result<Digest, InvalidValue> {
    let text = values::string(value)?;
    if text.as_bytes().starts_with(KEY_PREFIX) {
        let message = "is a key's text; send its SHA-256 instead, and rotate the key, because its text was exposed";
        return Err(InvalidValue::new("bad-digest", message));
    }
    let digits = text.strip_prefix("sha256:").unwrap_or(&text);
    let bytes = match digits.len() {
        64 => hexadecimal(digits),
        _ => base64(digits),
    };
    let message = "must be the SHA-256 of a secret's text: 64 hexadecimal digits, or base64 of its 32 bytes";
    bytes.map(Digest).ok_or_else(|| InvalidValue::new("bad-digest", message))
}

fn hexadecimal(digits: &str) -> Option<[u8; 32]> {
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let mut bytes = [0; 32];
    if pairs.len() != bytes.len() || !rest.is_empty() {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(pairs) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let [high, low] = pair.map(digit);
        *byte = high.zip(low).map(|(high, low)| (high << 4) | low)?;
    }
    Some(bytes)
}

fn base64(digits: &str) -> Option<[u8; 32]> {
    let digits = digits.strip_suffix('=').unwrap_or(digits);
    let digits = digits.replace('+', "-").replace('/', "_");
    URL_SAFE_NO_PAD.decode(digits).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_digest_is_64_hexadecimal_digits_or_base64() {
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let (base64, unpadded) =
            ("ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=", "ungWv48Bz-pBQUDeXa4iI7ADYaOWF3qctBD_YfIAFa0");
        for text in [
            abc.to_owned(),
            abc.to_uppercase(),
            format!("sha256:{abc}"),
            base64.to_owned(),
            unpadded.to_owned(),
            format!("sha256:{base64}"),
        ] {
            assert_eq!(digest(json!(text)).unwrap(), Digest::of(b"abc"));
        }
        for wrong in [
            json!(abc.replacen('b', "", 1)),
            json!(format!("{abc}00")),
            json!(abc.replacen('b', "g", 1)),
            json!("é".repeat(32)),
            json!(""),
            json!("sha256:"),
            json!(format!("sha512:{abc}")),
            json!(format!("{base64}=")),
            json!(base64.replacen('u', "", 1)),
            json!(format!("{unpadded}AA")),
            // More bits than 32 bytes.
            json!(unpadded.replace("Fa0", "Fa1")),
            json!("lk_live_000000000000000000000000000000004cjNQE"),
        ] {
            assert_eq!(digest(wrong.clone()).unwrap_err().code, "bad-digest", "{wrong}");
        }
        assert_eq!(digest(json!(null)).unwrap_err().code, "wrong-type");
    }
}
