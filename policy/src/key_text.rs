//! The text of keys and tokens: a prefix that never changes, 32 random symbols, and a checksum against typos.
//!
//! `lk_<environment>_<32 random><6 checksum>` for keys, `lkadm_…` for admin tokens, `lkedge_…` for edge tokens. One
//! pattern therefore finds any leak.

use std::ops::Range;

use crate::environment::{Environment, is_environment};

/// The digits, in the order of their values.
pub const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// Random symbols in a text: 32 in base 62 are 190 bits.
pub const RANDOM_SYMBOLS: usize = 32;

/// Symbols of the checksum: six digits in base 62 hold any CRC-32.
pub const CHECKSUM_SYMBOLS: usize = 6;

/// The longest credential that is looked up, in bytes. Imported keys may have this length.
pub const MAX_FOREIGN_BYTES: usize = 256;

/// What each key begins with.
pub const KEY_PREFIX: &[u8] = b"lk_";

const ADMIN_TOKEN_PREFIX: &str = "lkadm_";
const EDGE_TOKEN_PREFIX: &str = "lkedge_";

/// What a text is for; decides its prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A key for the public API, in one environment.
    Key(Environment),
    /// A token for the control plane's REST.
    AdminToken,
    /// A token that an edge presents to the feed.
    EdgeToken,
}

impl Kind {
    fn prefix(&self) -> String {
        match self {
            Self::Key(environment) => format!("lk_{environment}_"),
            Self::AdminToken => ADMIN_TOKEN_PREFIX.to_owned(),
            Self::EdgeToken => EDGE_TOKEN_PREFIX.to_owned(),
        }
    }
}

/// A new text of this kind. `fill` overwrites its argument with random bytes; its errors are returned.
///
/// Bytes of 248 and above are drawn again, so that each symbol is equally likely. The caller wipes the text after use.
pub fn compose<E>(kind: &Kind, mut fill: impl FnMut(&mut [u8]) -> Result<(), E>) -> Result<String, E> {
    let prefix = kind.prefix();
    // Reserved in full: growing would leave a copy of the secret in freed memory.
    let mut text = String::with_capacity(prefix.len() + RANDOM_SYMBOLS + CHECKSUM_SYMBOLS);
    text.push_str(&prefix);
    let whole = prefix.len() + RANDOM_SYMBOLS;
    while text.len() < whole {
        let mut bytes = [0; RANDOM_SYMBOLS];
        fill(&mut bytes)?;
        let missing = whole - text.len();
        let fair = bytes.iter().filter(|byte| **byte < 248);
        text.extend(fair.take(missing).map(|byte| char::from(symbol(u32::from(*byte)))));
    }
    let checksum = Checksum::of(text.as_bytes()).symbols();
    text.extend(checksum.map(char::from));
    Ok(text)
}

/// Detects typing errors in the text; no security.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Checksum(u32);

impl Checksum {
    /// CRC-32/ISO-HDLC of everything before the checksum.
    fn of(text: &[u8]) -> Self {
        Self(crc32fast::hash(text))
    }

    /// In base 62, most significant digit first, padded with `0`.
    fn symbols(self) -> [u8; CHECKSUM_SYMBOLS] {
        let mut rest = self.0;
        let mut symbols = [b'0'; CHECKSUM_SYMBOLS];
        for digit in symbols.iter_mut().rev() {
            *digit = symbol(rest);
            rest /= 62;
        }
        symbols
    }
}

/// The symbol for `value` modulo 62.
fn symbol(value: u32) -> u8 {
    let digit = (value % 62) as u8;
    match digit {
        0..=9 => b'0' + digit,
        10..=35 => b'A' + (digit - 10),
        36..=u8::MAX => b'a' + (digit - 36),
    }
}

/// Why bytes aren't a key's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key: expected `lk_`, an environment, `_`, 32 letters or digits, and their checksum")]
pub struct Malformed;

/// Whether credentials that other systems made may be looked up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForeignKeys {
    /// Only texts that start with `lk_` are keys.
    #[default]
    Refused,
    /// Any text of 1 to 256 bytes that doesn't start with `lk_` may be an imported key.
    LookedUp,
}

/// Untrusted bytes of a request, after the check of their shape. Such a key need not exist.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PresentedKey<'a> {
    text: &'a [u8],
    environment: Option<&'a [u8]>,
}

impl<'a> PresentedKey<'a> {
    /// Checks the shape and the checksum. Reads at most 256 bytes, allocates nothing.
    pub fn parse(text: &'a [u8], foreign: ForeignKeys) -> Result<Self, Malformed> {
        if !text.starts_with(KEY_PREFIX) {
            let fits = !text.is_empty() && text.len() <= MAX_FOREIGN_BYTES;
            return match foreign {
                ForeignKeys::LookedUp if fits => Ok(Self { text, environment: None }),
                ForeignKeys::LookedUp | ForeignKeys::Refused => Err(Malformed),
            };
        }
        let (environment, length) = own_text(text).ok_or(Malformed)?;
        if length != text.len() {
            return Err(Malformed);
        }
        Ok(Self { text, environment: Some(environment) })
    }

    /// The bytes that were presented.
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// True when the text names another environment. The text of an imported key names none.
    pub fn is_for_another(&self, environment: &Environment) -> bool {
        self.environment.is_some_and(|own| own != environment.as_str().as_bytes())
    }
}

/// The place of the first key text, of any environment and with a correct checksum, in other bytes.
///
/// Costs a search for `_`, which is rare in requests, and a checksum for each text that looks like a key.
pub fn find_key(bytes: &[u8]) -> Option<Range<usize>> {
    memchr::memchr_iter(b'_', bytes).find_map(|underscore| {
        let start = underscore.checked_sub(KEY_PREFIX.len() - 1)?;
        let (_, length) = own_text(bytes.get(start..)?)?;
        Some(start..start + length)
    })
}

/// The place of the first key or token text with a correct checksum in other bytes. For text that people type; requests
/// are searched with [`find_key`].
pub fn find_secret(bytes: &[u8]) -> Option<Range<usize>> {
    let token = [ADMIN_TOKEN_PREFIX, EDGE_TOKEN_PREFIX].into_iter().flat_map(move |prefix| {
        memchr::memmem::find_iter(bytes, prefix).filter_map(move |start| {
            let end = start + prefix.len() + RANDOM_SYMBOLS + CHECKSUM_SYMBOLS;
            has_checksum(bytes.get(start..end)?).then_some(start..end)
        })
    });
    token.chain(find_key(bytes)).min_by_key(|found| found.start)
}

/// The environment and the length of the key's text that these bytes begin with.
fn own_text(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let behind = bytes.strip_prefix(KEY_PREFIX)?;
    let underscore = behind.iter().take(11).position(|byte| *byte == b'_')?;
    let environment = behind.get(..underscore).filter(|environment| is_environment(environment))?;
    let length = KEY_PREFIX.len() + underscore + 1 + RANDOM_SYMBOLS + CHECKSUM_SYMBOLS;
    let text = bytes.get(..length)?;
    has_checksum(text).then_some((environment, length))
}

/// Whether a text ends in random symbols and the checksum of everything before it.
fn has_checksum(text: &[u8]) -> bool {
    let Some((summed, checksum)) = text.split_last_chunk::<CHECKSUM_SYMBOLS>() else { return false };
    let Some((_, random)) = summed.split_last_chunk::<RANDOM_SYMBOLS>() else { return false };
    random.iter().chain(checksum).all(u8::is_ascii_alphanumeric) && Checksum::of(summed).symbols() == *checksum
}

/// True for the text of a token of this kind: prefix, length, symbols and checksum.
pub fn is_token(text: &str, kind: &Kind) -> bool {
    let symbols = text.strip_prefix(kind.prefix().as_str());
    symbols.is_some_and(|symbols| symbols.len() == RANDOM_SYMBOLS + CHECKSUM_SYMBOLS) && has_checksum(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::test;

    fn live() -> Kind {
        Kind::Key(Environment::default())
    }

    /// A source of bytes that counts up, so that a text is the same in each run.
    fn counting(mut next: u8) -> impl FnMut(&mut [u8]) -> Result<(), std::convert::Infallible> {
        move |bytes| {
            for byte in bytes {
                *byte = next;
                next = next.wrapping_add(1);
            }
            Ok(())
        }
    }

    #[test]
    fn the_documented_example_has_its_checksum() {
        let zeros = |bytes: &mut [u8]| {
            bytes.fill(0);
            Ok::<(), std::convert::Infallible>(())
        };
        let text = compose(&live(), zeros).unwrap();
        assert_eq!(text, format!("lk_live_{}4cjNQE", "0".repeat(32)));
    }

    #[test]
    fn unfair_bytes_are_drawn_again() {
        let text = compose(&live(), counting(240)).unwrap();
        // 240..=247 give the last fair symbols, then counting continues at 0.
        assert!(text.starts_with("lk_live_stuvwxyz0123"), "{text}");
        assert!(PresentedKey::parse(text.as_bytes(), ForeignKeys::Refused).is_ok());
    }

    #[test]
    fn composed_texts_parse_and_name_their_environment() {
        let kind = Kind::Key("staging".parse().unwrap());
        let text = compose(&kind, counting(3)).unwrap();
        let key = PresentedKey::parse(text.as_bytes(), ForeignKeys::Refused).unwrap();
        assert_eq!(key.text(), text.as_bytes());
        assert!(key.is_for_another(&Environment::default()));
        assert!(!key.is_for_another(&"staging".parse().unwrap()));
    }

    #[test]
    fn every_single_typo_is_malformed() {
        let text = compose(&live(), counting(9)).unwrap();
        for at in 0..text.len() {
            for replacement in [b'0', b'z', b'_', b' ', 0xff] {
                let mut typo = text.clone().into_bytes();
                if typo[at] == replacement {
                    continue;
                }
                typo[at] = replacement;
                assert!(PresentedKey::parse(&typo, ForeignKeys::Refused).is_err(), "byte {at} as {replacement}");
            }
        }
    }

    #[test]
    fn a_text_of_another_shape_is_malformed() {
        let good = compose(&live(), counting(1)).unwrap();
        let longer = format!("{good}0");
        let shorter = good.strip_suffix(|_: char| true).unwrap();
        let huge = "lk_".repeat(100_000);
        for (name, text) in [
            ("empty", ""),
            ("prefix alone", "lk_"),
            ("no environment", "lk__0"),
            ("only an environment", "lk_live_"),
            ("longer", longer.as_str()),
            ("shorter", shorter),
            ("huge", huge.as_str()),
            ("an admin token", "lkadm_0"),
            ("not ours", "sk_live_abc"),
        ] {
            assert_eq!(PresentedKey::parse(text.as_bytes(), ForeignKeys::Refused).err(), Some(Malformed), "{name}");
        }
    }

    #[test]
    fn a_key_is_found_anywhere_in_a_text() {
        let key = compose(&live(), counting(7)).unwrap();
        let other = compose(&Kind::Key("lk".parse().unwrap()), counting(8)).unwrap();
        let typo = key.replace(key.chars().last().unwrap(), "_");
        for (name, text, expected) in [
            ("alone", key.clone(), Some(key.as_str())),
            ("in a list", format!("a, {key}, b"), Some(&key)),
            ("in an address", format!("https://x.example/?api_key={key}&y"), Some(&key)),
            ("without bounds", format!("x_lk_{key}Z9"), Some(&key)),
            ("the first of two", format!("{other}{key}"), Some(&other)),
            ("behind one with a typo", format!("{typo}{key}"), Some(&key)),
            ("an environment named like the prefix", format!("lk_{other}"), Some(&other)),
            ("a typo", typo.clone(), None),
            ("cut short", key.split_at(key.len() - 1).0.to_owned(), None),
            ("a token", compose(&Kind::AdminToken, counting(7)).unwrap(), None),
            ("nothing", String::new(), None),
            ("underscores", "_lk_".repeat(50), None),
        ] {
            let found = find_key(text.as_bytes()).map(|at| text.get(at).unwrap());
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn a_token_is_found_anywhere_in_a_text() {
        let key = compose(&live(), counting(7)).unwrap();
        let admin = compose(&Kind::AdminToken, counting(8)).unwrap();
        let edge = compose(&Kind::EdgeToken, counting(9)).unwrap();
        let typo = admin.replace("lkadm_8", "lkadm_9");
        for (name, text, expected) in [
            ("a key", key.clone(), Some(key.as_str())),
            ("an admin token", admin.clone(), Some(&admin)),
            ("an edge token", edge.clone(), Some(&edge)),
            ("in a sentence", format!("Bearer {admin}, please"), Some(&admin)),
            ("without bounds", format!("lkedge_{edge}Z"), Some(&edge)),
            ("the first of three", format!("{edge}{key}{admin}"), Some(&edge)),
            ("a key before a token", format!("{key} {admin}"), Some(&key)),
            ("behind one with a typo", format!("{typo}{admin}"), Some(&admin)),
            ("a typo", typo.clone(), None),
            ("cut short", admin.split_at(admin.len() - 1).0.to_owned(), None),
            ("prefixes", "lkadm_lkedge_lk_".repeat(9), None),
        ] {
            let found = find_secret(text.as_bytes()).map(|at| text.get(at).unwrap());
            assert_eq!(found, expected, "{name}");
        }
    }

    #[test]
    fn foreign_texts_are_accepted_up_to_their_limit_and_only_where_enabled() {
        let long = "k".repeat(MAX_FOREIGN_BYTES);
        let too_long = "k".repeat(MAX_FOREIGN_BYTES + 1);
        for (text, taken) in [("sk_abc", true), (&long, true), (&too_long, false), ("", false), ("lk_abc", false)] {
            assert_eq!(PresentedKey::parse(text.as_bytes(), ForeignKeys::LookedUp).is_ok(), taken, "{text}");
            assert!(PresentedKey::parse(text.as_bytes(), ForeignKeys::Refused).is_err(), "{text}");
        }
    }

    #[test]
    fn tokens_are_distinguished_by_their_prefix() {
        let admin = compose(&Kind::AdminToken, counting(5)).unwrap();
        assert!(admin.starts_with("lkadm_") && admin.len() == 44, "{admin}");
        assert!(is_token(&admin, &Kind::AdminToken));
        assert!(!is_token(&admin, &Kind::EdgeToken));
        assert!(!is_token(admin.strip_suffix(|_: char| true).unwrap(), &Kind::AdminToken));
        assert!(!is_token(&admin.replace("lkadm_", "lkadn_"), &Kind::AdminToken));
    }

    #[test]
    fn alphabet_and_symbols_agree() {
        for (value, expected) in ALPHABET.iter().enumerate() {
            assert_eq!(symbol(value as u32), *expected);
        }
    }

    #[test]
    fn the_longest_key_fits_one_sha_256_block() {
        let text = compose(&Kind::Key("abcdefghij".parse().unwrap()), counting(0)).unwrap();
        assert!(text.len() <= 55, "{} bytes", text.len());
    }
}
