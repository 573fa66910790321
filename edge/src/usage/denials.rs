//! The latest denials of right secrets, with what helps whoever wonders why.

use std::collections::VecDeque;
use std::net::IpAddr;

use policy::UnixSeconds;
use policy::protocol::usage::{DenialReport, MAX_DENIALS, MAX_METHOD, MAX_PATH};

use super::Denied;
use crate::credential::percent_decoded;

/// How many denials of one key are kept in 10 s.
pub const A_KEY: u8 = 4;

/// What stands in the place of a path that may hold a credential.
const REMOVED: &str = "[removed]";

/// The shortest text that has the form of a key or token of ours is longer.
const MIN_KEY: usize = 40;

/// The newest [`MAX_DENIALS`].
#[derive(Default)]
pub struct Denials(VecDeque<DenialReport>);

impl Denials {
    /// Keeps a denial. Answers whether an older one made room for it.
    pub fn keep(&mut self, denied: &Denied<'_>, at: UnixSeconds, address: Option<IpAddr>) -> bool {
        let Denied { key, code, method, path, secret } = *denied;
        let (method, path) = (plain(method, MAX_METHOD), shown(path, secret));
        let is_full = self.0.len() >= MAX_DENIALS;
        if is_full {
            self.0.pop_front();
        }
        self.0.push_back(DenialReport { key, code: code.into(), address, at, method, path });
        is_full
    }

    pub fn take(&mut self) -> Vec<DenialReport> {
        self.0.drain(..).collect()
    }
}

/// A path without its query. One in which a key stands is not shown: some clients put theirs everywhere.
fn shown(path: &[u8], secret: Option<&[u8]>) -> String {
    let path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let decoded = percent_decoded(path);
    let holds = |text: &[u8]| !text.is_empty() && decoded.windows(text.len()).any(|window| window == text);
    let mut words = decoded.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'));
    let has_key = words.any(|word| word.len() >= MIN_KEY && word.windows(2).any(|two| two == b"lk"));
    if has_key || secret.is_some_and(holds) { REMOVED.to_owned() } else { plain(path, MAX_PATH) }
}

/// Visible ASCII, at most so many bytes.
fn plain(text: &[u8], most: usize) -> String {
    let letter = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '_' };
    text.iter().take(most).map(letter).collect()
}
