//! The source of randomness: secrets, ids and jitter.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use policy::key_text::{self, Kind};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::base::clock::Clock;
use crate::base::secret::Secret;

/// The source of random bytes. Tests pass their own.
#[derive(Clone)]
pub struct Entropy(Arc<Fill>);

type Fill = dyn Fn(&mut [u8]) -> Result<(), EntropyError> + Send + Sync;

/// The operating system gave no random bytes.
#[derive(Debug, thiserror::Error)]
#[error("the operating system gave no random bytes: {0}")]
pub struct EntropyError(pub String);

impl Entropy {
    /// The operating system's source.
    #[expect(clippy::disallowed_methods, reason = "the one place where randomness comes from")]
    pub fn system() -> Self {
        Self::from_fill(|bytes| getrandom::fill(bytes).map_err(|error| EntropyError(error.to_string())))
    }

    /// A source that overwrites its argument.
    pub fn from_fill(fill: impl Fn(&mut [u8]) -> Result<(), EntropyError> + Send + Sync + 'static) -> Self {
        Self(Arc::new(fill))
    }

    /// A new secret of this kind.
    pub fn secret(&self, kind: &Kind) -> Result<Secret, EntropyError> {
        key_text::compose(kind, |bytes| (self.0)(bytes)).map(Secret::new)
    }

    /// A text that nobody can guess: 192 bits in 32 characters that are safe in cookies, forms and URLs.
    pub fn text(&self) -> Result<Secret, EntropyError> {
        let mut bytes = Zeroizing::new([0; 24]);
        (self.0)(bytes.as_mut())?;
        Ok(Secret::new(URL_SAFE_NO_PAD.encode(bytes.as_ref())))
    }

    /// A random duration between four and six fifths of `length`, evenly distributed; about `length` if the source
    /// fails.
    pub fn jittered(&self, length: Duration) -> Duration {
        let mut byte = [128];
        // If the source fails, use the middle.
        let [byte] = (self.0)(&mut byte).map_or([128], |()| byte);
        length * 4 / 5 + length * 2 / 5 * u32::from(byte) / 255
    }

    /// A new id, a UUID of version 7. Ids sort by the instant of their creation, to a quarter of a microsecond (RFC
    /// 9562, 6.2, method 3).
    pub fn id<I: From<Uuid>>(&self, clock: &Clock) -> Result<I, EntropyError> {
        let nanos = clock.unix_nanos();
        let mut random = [0; 10];
        (self.0)(&mut random)?;
        // The 12 bits after the milliseconds hold the rest of the instant; the builder overwrites the upper four bits.
        let rest = u16::try_from((nanos % 1_000_000) * 4096 / 1_000_000).unwrap_or(0).to_be_bytes();
        let [high, low, ..] = &mut random;
        (*high, *low) = rest.into();
        Ok(uuid::Builder::from_unix_timestamp_millis(nanos / 1_000_000, &random).into_uuid().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_jittered_by_a_fifth() {
        for (byte, expected_secs) in [(Some(0), 480..=480), (Some(255), 720..=720), (None, 595..=605)] {
            let entropy = Entropy::from_fill(move |bytes| {
                bytes.fill(byte.unwrap_or_default());
                byte.map(|_| ()).ok_or_else(|| EntropyError("none".to_owned()))
            });
            let jittered = entropy.jittered(Duration::from_secs(600)).as_secs();
            assert!(expected_secs.contains(&jittered), "{byte:?}: {jittered} s");
        }
    }

    #[test]
    fn ids_sort_by_the_instant_they_were_made() {
        let mut last = None;
        for nanos in [0, 999_999, 1_000_000, 1_000_250, 1_001_000, 1_700_000_000_000_000_000, 1_700_000_000_000_001_000]
        {
            let id: Uuid = Entropy::system().id(&Clock::from_nanos(move || nanos)).unwrap();
            assert_eq!(id.get_version_num(), 7);
            assert!(Some(id) > last, "{nanos}");
            last = Some(id);
        }
    }
}
