//! When a key or token expires, and how long a previous secret keeps working.

use policy::UnixSeconds;
use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{KnownFormat, ObjectBuilder, Schema, SchemaFormat};

use super::choice::{Choice as _, choice};
use super::fields::{Fields, InvalidValue};
use super::request::{BodyField, BodyValue, NamedSchemas, RequestContext, string_schema};
use super::values::string;
use crate::base::instant;

/// The longest overlap: a rotated secret should not work for longer.
const MAX_OVERLAP_SECS: i64 = 7 * DAY;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// How long a key or token lives, from now on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    Endless,
    Secs(i64),
}

choice!(
    "How long a key or token lives.",
    Lifetime as "Lifetime",
    "unknown-lifetime" or "for another time, use `expires_at`",
    Self::Endless => "none",
    Self::Secs(HOUR) => "1h",
    Self::Secs(DAY) => "1d",
    Self::Secs(7 * DAY) => "7d",
    Self::Secs(30 * DAY) => "30d",
    Self::Secs(90 * DAY) => "90d",
    Self::Secs(180 * DAY) => "180d",
    Self::Secs(360 * DAY) => "360d",
);

/// When a key expires; `None`: never. Exactly one of the fields `expires_in` and `expires_at` is required.
pub(crate) struct Expiration(pub(crate) Option<UnixSeconds>);

/// When a token expires; `None`: never. Without a field, when its creator's own token does; never later than that.
pub(crate) struct TokenExpiration(pub(crate) Option<UnixSeconds>);

/// Refuses the fields of an expiration, which is fixed when a key is created.
pub(crate) struct FixedExpiration;

/// How long the previous secret keeps working, in seconds: `30m`, `12h`, `7d`.
pub(crate) struct Overlap(pub(crate) i64);

impl BodyField for Expiration {
    fn take(fields: &mut Fields, _: &str, context: &RequestContext<'_>) -> Option<Self> {
        let now = context.now;
        match (fields.has("expires_in"), fields.has("expires_at")) {
            (true, true) => {
                for (name, other) in [("expires_in", "expires_at"), ("expires_at", "expires_in")] {
                    let message = format!("and `{other}` are both given; send one of them");
                    fields.forbid(name, InvalidValue::new("ambiguous", message));
                }
                None
            }
            (true, false) => fields.optional("expires_in", Lifetime::from_value).map(|lifetime| match lifetime {
                Lifetime::Endless => Self(None),
                Lifetime::Secs(secs) => Self(Some(now.saturating_add_secs(secs))),
            }),
            (false, true) => fields.optional("expires_at", |value| future(value, now)).map(|at| Self(Some(at))),
            (false, false) => {
                let message = "or `expires_at` is required; send \"none\" for a key that never expires";
                fields.refuse("expires_in", InvalidValue::new("required", message));
                None
            }
        }
    }

    fn describe(_: &str, description: Option<&str>, body: ObjectBuilder) -> ObjectBuilder {
        let body = <Option<Lifetime> as BodyField>::describe("expires_in", description, body);
        let instant = string_schema().format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
        body.property("expires_at", Schema::Object(instant.build()))
    }

    fn schemas(schemas: &mut NamedSchemas) {
        <Lifetime as BodyValue>::schemas(schemas);
    }
}

impl BodyField for TokenExpiration {
    fn take(fields: &mut Fields, name: &str, context: &RequestContext<'_>) -> Option<Self> {
        let own = context.principal.expires_at();
        let Some(field) = ["expires_in", "expires_at"].into_iter().find(|name| fields.has(name)) else {
            return Some(Self(own));
        };
        let Expiration(requested) = Expiration::take(fields, name, context)?;
        match own {
            Some(own) if requested.is_none_or(|requested| requested > own) => {
                let message = format!("would outlive your own token, which ends {}", instant::text(own));
                fields.refuse(field, InvalidValue::new("beyond-own", message));
                None
            }
            _ => Some(Self(requested)),
        }
    }

    fn describe(name: &str, description: Option<&str>, body: ObjectBuilder) -> ObjectBuilder {
        Expiration::describe(name, description, body)
    }

    fn schemas(schemas: &mut NamedSchemas) {
        Expiration::schemas(schemas);
    }
}

impl BodyField for FixedExpiration {
    fn take(fields: &mut Fields, _: &str, _: &RequestContext<'_>) -> Option<Self> {
        for name in ["expires_at", "expires_in"] {
            fields.forbid(name, InvalidValue::new("expiration-immutable", "is fixed when a key is made"));
        }
        Some(Self)
    }

    fn describe(_: &str, _: Option<&str>, body: ObjectBuilder) -> ObjectBuilder {
        body
    }

    fn schemas(_: &mut NamedSchemas) {}
}

impl BodyValue for Overlap {
    fn parse(value: Value, _: &RequestContext<'_>) -> Result<Self, InvalidValue> {
        overlap(&string(value)?).map(Self)
    }

    fn schema() -> RefOr<Schema> {
        Schema::Object(string_schema().pattern(Some("^[0-9]+[mhd]$")).build()).into()
    }
}

/// Whether `expires_at` is an instant in the past. The field stays unparsed.
pub(crate) fn has_expired(fields: &Fields, now: UnixSeconds) -> bool {
    let at = fields.peek("expires_at").and_then(Value::as_str).and_then(instant::parse);
    at.is_some_and(|at| at.is_reached(now))
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

fn overlap(text: &str) -> Result<i64, InvalidValue> {
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
        Some(secs) if secs > 0 => Ok(secs),
        Some(_) | None => {
            Err(InvalidValue::new("bad-duration", "must be like \"30m\", \"12h\" or \"7d\"; leave it out for none"))
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::operations::request::{OrNull, with_context};

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
            let got = with_context(NOW, |context| Expiration::take(&mut fields, "", context));
            let got = fields.finish(|| got).map(|Expiration(at)| at.map(|at| at.0 - NOW.0));
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
            let got = with_context(NOW, |context| OrNull::<Overlap>::parse(value.clone(), context));
            let got = got.map(|OrNull(overlap)| overlap.map(|Overlap(secs)| secs)).map_err(|refused| refused.code);
            assert_eq!(got, expected, "{value}");
        }
    }
}
