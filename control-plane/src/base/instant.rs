//! Instants as text: RFC 3339 in UTC, in whole seconds.

use jiff::SignedDuration;
use jiff::civil::{DateTime, date};
use jiff::fmt::temporal::Pieces;
use policy::UnixSeconds;
use serde::Serializer;

/// The Unix epoch in UTC. Instants are computed from here with calendar arithmetic, because our library's timestamps
/// end 26 hours before the year 9999 does, to leave room for every offset.
const EPOCH: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);

/// `9999-12-31T23:59:59Z`, after which RFC 3339 has no instant.
const LAST: UnixSeconds = UnixSeconds(253_402_300_799);

/// `2026-11-23T08:00:00Z`. An instant outside the years -9999 to 9999 is written as the nearest end.
pub(crate) fn text(at: UnixSeconds) -> String {
    let end = if at.0 < 0 { DateTime::MIN } else { DateTime::MAX };
    let at = EPOCH.checked_add(SignedDuration::from_secs(at.0.min(LAST.0))).unwrap_or(end);
    format!("{at}Z")
}

/// An instant with its offset from UTC, up to [`LAST`]; a fraction of a second is dropped. `None` for any other text.
pub(crate) fn parse(text: &str) -> Option<UnixSeconds> {
    let pieces = Pieces::parse(text).ok()?;
    let (time, offset) = (pieces.time()?, pieces.to_numeric_offset()?);
    let local = pieces.date().to_datetime(time).duration_since(EPOCH);
    let at = UnixSeconds(local.as_secs().saturating_sub(i64::from(offset.seconds())));
    (at <= LAST).then_some(at)
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
        assert_eq!(text(UnixSeconds::DISTANT_FUTURE), "9999-12-31T23:59:59Z");
        assert!(text(UnixSeconds::DISTANT_PAST).starts_with("-009999-"));
    }

    #[test]
    fn instants_are_read_with_any_offset_and_never_without() {
        let at = Some(UnixSeconds(1_795_420_800));
        for (text, expected) in [
            ("2026-11-23T08:00:00Z", at),
            ("2026-11-23T08:00:00.999Z", at),
            ("2026-11-23T10:30:00+02:30", at),
            ("2026-11-23T08:00:00[Europe/Berlin]", None),
            ("9999-12-30T22:00:01Z", Some(UnixSeconds(253_402_207_201))),
            ("9999-12-31T23:59:59Z", Some(LAST)),
            ("9999-12-31T23:59:59.9Z", Some(LAST)),
            ("9999-12-31T22:59:59-01:00", Some(LAST)),
            ("9999-12-31T23:59:59-00:01", None),
            ("9999-12-31T24:00:00Z", None),
            ("10000-01-01T00:00:00Z", None),
            ("1969-12-31T23:59:59Z", Some(UnixSeconds(-1))),
            ("2026-11-23T08:00:00", None),
            ("2026-11-23", None),
            ("2026-02-30T08:00:00Z", None),
            ("1795420800", None),
            ("tomorrow", None),
            ("", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
            if let Some(at) = expected {
                assert_eq!(parse(&super::text(at)), expected, "{text} there and back");
            }
        }
    }
}
