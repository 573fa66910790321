//! The latest denials of valid secrets, with the details for a person who investigates them.

use std::collections::VecDeque;
use std::net::IpAddr;

use policy::UnixSeconds;
use policy::protocol::usage::{DenialReport, MAX_DENIALS, MAX_METHOD, MAX_PATH};

use super::DeniedRequest;
use crate::credential::percent_decoded;

/// How many denials of one key are stored in 10 s.
pub(super) const MAX_DENIALS_PER_KEY: u8 = 4;

/// Replaces a path that may contain a credential.
const REMOVED: &str = "[removed]";

/// The shortest Latchkey key or token is longer than this.
const MIN_KEY: usize = 40;

/// The newest [`MAX_DENIALS`].
#[derive(Default)]
pub(super) struct Denials(VecDeque<DenialReport>);

impl Denials {
    /// Adds a denial. Returns whether the oldest one was dropped for it.
    pub(super) fn push(&mut self, denied: &DeniedRequest<'_>, at: UnixSeconds, address: Option<IpAddr>) -> bool {
        let DeniedRequest { key, reason, method, path, secret } = *denied;
        let (method, path) = (printable_ascii(method, MAX_METHOD), redacted_path(path, secret));
        let is_full = self.0.len() >= MAX_DENIALS;
        if is_full {
            self.0.pop_front();
        }
        self.0.push_back(DenialReport { key, code: reason.code().into(), address, at, method, path });
        is_full
    }

    pub(super) fn take(&mut self) -> Vec<DenialReport> {
        self.0.drain(..).collect()
    }
}

/// A path without its query; [`REMOVED`] if it contains a key, since some clients put theirs everywhere.
fn redacted_path(path: &[u8], secret: Option<&[u8]>) -> String {
    let path = path.split(|byte| matches!(byte, b'?' | b'#')).next().unwrap_or_default();
    let decoded = percent_decoded(path);
    let holds = |text: &[u8]| !text.is_empty() && decoded.windows(text.len()).any(|window| window == text);
    let mut words = decoded.split(|byte| !(byte.is_ascii_alphanumeric() || *byte == b'_'));
    let has_key = words.any(|word| word.len() >= MIN_KEY && word.windows(2).any(|two| two == b"lk"));
    if has_key || secret.is_some_and(holds) { REMOVED.to_owned() } else { printable_ascii(path, MAX_PATH) }
}

/// The text as visible ASCII, at most `max_bytes` bytes.
fn printable_ascii(text: &[u8], max_bytes: usize) -> String {
    let letter = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '_' };
    text.iter().take(max_bytes).map(letter).collect()
}
