//! A secret's text in memory: from its creation to the one response that shows it.

use std::io::{self, Read};

use policy::Digest;
use zeroize::Zeroizing;

/// The most bytes to read of a secret: more than the length of any.
const MAX_BYTES: u64 = 4096;

/// The text that a client keeps and sends. Wiped when dropped; has no `Debug`, no `Display`, no `Serialize`.
pub struct Secret(Zeroizing<String>);

/// The secret's last 4 characters, to tell keys apart; empty if they are unknown, as for an imported digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCharacters(pub String);

impl LastCharacters {
    /// `None` if they are unknown.
    pub fn into_option(self) -> Option<String> {
        Some(self.0).filter(|characters| !characters.is_empty())
    }
}

impl Secret {
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The only line of a text, without its end.
    pub(crate) fn from_line(mut text: Zeroizing<String>) -> Self {
        let length = text.trim_end_matches(['\n', '\r']).len();
        text.truncate(length);
        Self(text)
    }

    /// Reads the only line of a file or a pipe. Fails for a text that isn't UTF-8.
    pub(crate) fn read(input: impl Read) -> io::Result<Self> {
        // Never grows, which would leave a copy in memory that isn't wiped.
        let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX_BYTES).unwrap_or_default()));
        input.take(MAX_BYTES).read_to_string(&mut text)?;
        Ok(Self::from_line(text))
    }

    /// What is stored and looked up.
    pub fn digest(&self) -> Digest {
        Digest::of(self.0.as_bytes())
    }

    /// Its last 4 characters.
    pub fn last_characters(&self) -> LastCharacters {
        let from = self.0.char_indices().rev().nth(3).map_or(0, |(at, _)| at);
        LastCharacters(self.0.get(from..).unwrap_or_default().to_owned())
    }

    /// The text itself. Only for the response that shows it once, and for the token file that contains it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_characters_are_four_of_any_text() {
        for (text, last) in [("lk_live_abcd1234", "1234"), ("abc", "abc"), ("", ""), ("größe", "röße")] {
            assert_eq!(Secret::new(text.to_owned()).last_characters().0, last);
        }
    }
}
