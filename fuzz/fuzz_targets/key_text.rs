//! Any bytes as a presented key: what is accepted has the form of a key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::key_text::{ForeignKeys, MAX_FOREIGN_BYTES, PresentedKey};
use policy::{Environment, Rule};

fuzz_target!(|bytes: &[u8]| {
    let live = Environment::default();
    if let Ok(key) = PresentedKey::parse(bytes, ForeignKeys::Refused) {
        assert!(key.text() == bytes && bytes.len() <= 55 && bytes.starts_with(b"lk_"));
        assert!(bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_'));
        assert_eq!(key.is_for_another(&live), !bytes.starts_with(b"lk_live_"));
    }
    if let Ok(key) = PresentedKey::parse(bytes, ForeignKeys::LookedUp) {
        assert!(key.text() == bytes && bytes.len() <= MAX_FOREIGN_BYTES);
        let is_ours = PresentedKey::parse(bytes, ForeignKeys::Refused).is_ok();
        assert_eq!(bytes.starts_with(b"lk_"), is_ours, "a text with our prefix is ours, or malformed");
    }
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = (text.parse::<Environment>(), Rule::parse(text));
    }
});
