//! Instants as text: RFC 3339 in UTC, in whole seconds.

use jiff::Timestamp;
use policy::UnixSeconds;
use serde::Serializer;

/// `2026-11-23T08:00:00Z`. What lies outside the years -9999 to 9999 is written as the nearest end.
pub(crate) fn text(at: UnixSeconds) -> String {
    let end = if at.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::from_second(at.0).unwrap_or(end).to_string()
}

/// An instant with its offset from UTC; a fraction of a second is dropped. `None` for any other text.
pub(crate) fn parse(text: &str) -> Option<UnixSeconds> {
    text.parse::<Timestamp>().ok().map(|at| UnixSeconds(at.as_second()))
}

/// For serde: an instant, as [`text`] writes it.
pub(crate) fn serialize<S: Serializer>(at: &UnixSeconds, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&text(*at))
}

/// For serde: an instant or `null`.
pub(crate) mod optional {
    use super::{Serializer, UnixSeconds, text};

    #[expect(clippy::ref_option, reason = "serde hands fields over like this")]
    pub(crate) fn serialize<S: Serializer>(at: &Option<UnixSeconds>, serializer: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => serializer.serialize_str(&text(*at)),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_in_utc_and_whole_seconds() {
        assert_eq!(text(UnixSeconds(1_795_420_800)), "2026-11-23T08:00:00Z");
        assert_eq!(text(UnixSeconds(0)), "1970-01-01T00:00:00Z");
        assert!(text(UnixSeconds::DISTANT_FUTURE).starts_with("9999-"));
    }

    #[test]
    fn instants_are_read_with_any_offset_and_never_without() {
        let at = Some(UnixSeconds(1_795_420_800));
        for (text, expected) in [
            ("2026-11-23T08:00:00Z", at),
            ("2026-11-23T08:00:00.999Z", at),
            ("2026-11-23T10:30:00+02:30", at),
            ("2026-11-23T08:00:00", None),
            ("2026-11-23", None),
            ("2026-02-30T08:00:00Z", None),
            ("1795420800", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
        }
    }
}
