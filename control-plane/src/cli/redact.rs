//! Removes secrets from error messages.

use std::borrow::Cow;

/// Shown in place of a secret.
const REMOVED: &str = "[removed]";

/// The prefixes of all keys and tokens, as docs/api.md lists them for secret scanners.
const PREFIXES: [&str; 3] = ["lk_", "lkadm_", "lkedge_"];

/// A prefix with this many symbols after it belongs to a secret, or most of one. No other name has so many.
const SYMBOLS: usize = 20;

/// The text without what looks like a key or token.
pub(super) fn without_secrets(text: &str) -> Cow<'_, str> {
    let is_symbol = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split_inclusive(|c| !is_symbol(c));
    if !words.clone().any(holds_secret) {
        return Cow::Borrowed(text);
    }
    let kept = words.map(|word| {
        if !holds_secret(word) {
            return Cow::Borrowed(word);
        }
        let end = word.strip_suffix(|c| !is_symbol(c)).map_or(0, str::len);
        Cow::Owned(format!("{REMOVED}{}", word.get(end..).filter(|_| end > 0).unwrap_or_default()))
    });
    Cow::Owned(kept.collect())
}

/// True for a word that contains the text of a key or token, or most of it.
pub(super) fn holds_secret(word: &str) -> bool {
    PREFIXES.iter().any(|prefix| {
        word.match_indices(prefix).any(|(at, _)| {
            let rest = word.get(at.saturating_add(prefix.len())..).unwrap_or_default();
            rest.chars().filter(char::is_ascii_alphanumeric).count() >= SYMBOLS
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "lk_live_000000000000000000000000000000004cjNQE";

    #[test]
    fn secrets_are_removed_and_nothing_else() {
        for (text, expected) in [
            (format!("unexpected argument '{KEY}' found"), "unexpected argument '[removed]' found"),
            (format!("{KEY}\n{KEY}"), "[removed]\n[removed]"),
            (format!("--token=lkadm_{}", "a".repeat(38)), "--token=[removed]"),
            (format!("xlkedge_{}!", "a".repeat(37)), "[removed]!"),
            (
                "key_01a20dc75fef723d8d216b0908c04487 of lk_live".to_owned(),
                "key_01a20dc75fef723d8d216b0908c04487 of lk_live",
            ),
            ("lkadm_…".to_owned(), "lkadm_…"),
        ] {
            assert_eq!(without_secrets(&text), expected);
        }
    }
}
