//! When a key or token expires, and how long a previous secret keeps working.

use policy::UnixSeconds;
use serde_json::Value;

use super::fields::{Fields, InvalidValue};
use super::values::string;
use crate::base::instant;

/// The longest overlap: a rotated secret should not work for longer.
const MAX_OVERLAP_SECS: i64 = 7 * DAY;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// When a key expires: exactly one of `expires_in` and `expires_at` is required. The inner `None` is a key that never
/// expires.
pub(super) fn parse(fields: &mut Fields, now: UnixSeconds) -> Option<Option<UnixSeconds>> {
    match (fields.has("expires_in"), fields.has("expires_at")) {
        (true, true) => {
            for (name, other) in [("expires_in", "expires_at"), ("expires_at", "expires_in")] {
                let message = format!("and `{other}` are both given; send one of them");
                fields.forbid(name, InvalidValue::new("ambiguous", message));
            }
            None
        }
        (true, false) => fields.optional("expires_in", |value| lifetime(value, now)),
        (false, true) => fields.optional("expires_at", |value| future(value, now)).map(Some),
        (false, false) => {
            let message = "or `expires_at` is required; send \"none\" for a key that never expires";
            fields.refuse("expires_in", InvalidValue::new("required", message));
            None
        }
    }
}

/// Whether `expires_at` is an instant in the past. The field stays unparsed.
pub(super) fn has_expired(fields: &Fields, now: UnixSeconds) -> bool {
    let at = fields.peek("expires_at").and_then(Value::as_str).and_then(instant::parse);
    at.is_some_and(|at| at.is_reached(now))
}

fn lifetime(value: Value, now: UnixSeconds) -> Result<Option<UnixSeconds>, InvalidValue> {
    let secs = match string(value)?.as_str() {
        "none" => return Ok(None),
        "1h" => HOUR,
        "1d" => DAY,
        "7d" => 7 * DAY,
        "30d" => 30 * DAY,
        "90d" => 90 * DAY,
        "180d" => 180 * DAY,
        "360d" => 360 * DAY,
        _ => {
            let message = "must be one of none, 1h, 1d, 7d, 30d, 90d, 180d, 360d; for another time, use `expires_at`";
            return Err(InvalidValue::new("unknown-lifetime", message));
        }
    };
    Ok(Some(now.saturating_add_secs(secs)))
}

fn future(value: Value, now: UnixSeconds) -> Result<UnixSeconds, InvalidValue> {
    let Some(at) = instant::parse(&string(value)?) else {
        let message = "must be an instant like \"2027-01-31T12:00:00Z\"";
        return Err(InvalidValue::new("bad-instant", message));
    };
    if at.is_reached(now) {
        return Err(InvalidValue::new("in-the-past", format!("must be later than now, {}", instant::text(now))));
    }
    Ok(at)
}

/// How long the previous secret keeps working: `30m`, `12h`, `7d`. `null` ends it at once.
pub(super) fn overlap(value: Value) -> Result<Option<i64>, InvalidValue> {
    if value.is_null() {
        return Ok(None);
    }
    let text = string(value)?;
    let parts = text.char_indices().next_back().and_then(|(at, unit)| Some((text.get(..at)?, unit)));
    let secs = parts.and_then(|(digits, unit)| {
        let unit = match unit {
            'm' => MINUTE,
            'h' => HOUR,
            'd' => DAY,
            _ => return None,
        };
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        let count = if is_number { digits.parse::<i64>().ok()? } else { return None };
        Some(count.saturating_mul(unit))
    });
    match secs {
        Some(secs) if secs > MAX_OVERLAP_SECS => Err(InvalidValue::new("too-long", "must be at most 7 days")),
        Some(secs) if secs > 0 => Ok(Some(secs)),
        Some(_) | None => {
            Err(InvalidValue::new("bad-duration", "must be like \"30m\", \"12h\" or \"7d\"; leave it out for none"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_795_420_800);

    #[test]
    fn exactly_one_expiration_field_is_required() {
        for (given, expected) in [
            (json!({"expires_in": "none"}), Ok(None)),
            (json!({"expires_in": "1h"}), Ok(Some(3_600))),
            (json!({"expires_in": "360d"}), Ok(Some(360 * 86_400))),
            (json!({"expires_at": "2026-11-23T08:00:01Z"}), Ok(Some(1))),
            (json!({"expires_at": "2026-11-23T08:00:00Z"}), Err("in-the-past")),
            (json!({"expires_at": "soon"}), Err("bad-instant")),
            (json!({"expires_at": null}), Err("wrong-type")),
            (json!({"expires_in": "2h"}), Err("unknown-lifetime")),
            (json!({"expires_in": null}), Err("wrong-type")),
            (json!({"expires_in": "1h", "expires_at": "2027-01-01T00:00:00Z"}), Err("ambiguous")),
            (json!({}), Err("required")),
        ] {
            let mut fields = Fields::new(given.as_object().unwrap().clone());
            let got = parse(&mut fields, NOW);
            let got = fields.finish(|| got).map(|at| at.map(|at| at.0 - NOW.0));
            match expected {
                Ok(secs) => assert_eq!(got.ok(), Some(secs), "{given}"),
                Err(code) => assert!(format!("{:?}", got.err()).contains(code), "{given}"),
            }
        }
    }

    #[test]
    fn an_overlap_is_at_most_seven_days() {
        for (value, expected) in [
            (json!(null), Ok(None)),
            (json!("30m"), Ok(Some(1_800))),
            (json!("12h"), Ok(Some(43_200))),
            (json!("7d"), Ok(Some(604_800))),
            (json!("8d"), Err("too-long")),
            (json!("99999999999999999d"), Err("too-long")),
            (json!("0m"), Err("bad-duration")),
            (json!("-1h"), Err("bad-duration")),
            (json!("+1h"), Err("bad-duration")),
            (json!("1"), Err("bad-duration")),
            (json!("h"), Err("bad-duration")),
            (json!("1é"), Err("bad-duration")),
            (json!(""), Err("bad-duration")),
            (json!(30), Err("wrong-type")),
        ] {
            assert_eq!(overlap(value.clone()).map_err(|refused| refused.code), expected, "{value}");
        }
    }
}
