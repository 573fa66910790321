//! What a field's value must be, and what is said when it isn't.

use std::num::NonZeroU32;

use policy::allowlist::AllowlistError;
use policy::key_text::find_secret;
use policy::protocol::{NAME_EXPECTED, is_name};
use policy::{Allowlist, Environment, Level, Scope, Scopes, UnixSeconds};
use serde_json::Value;

use super::fields::{Fields, Refused, shown};
use crate::config::Config;
use crate::instant;
use crate::store::{MAX_METADATA_BYTES, Metadata, WorkspaceName};

/// The most characters of a name.
const MAX_NAME: usize = 100;

/// Items of a page that names no limit.
pub(crate) const DEFAULT_LIMIT: NonZeroU32 = match NonZeroU32::new(50) {
    Some(limit) => limit,
    None => NonZeroU32::MIN,
};

/// The most items of a page.
const MAX_LIMIT: u32 = 200;

/// The longest overlap: a secret that was rotated should not live on for longer.
const MAX_OVERLAP_SECS: i64 = 7 * DAY;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

pub(crate) fn string(value: Value) -> Result<String, Refused> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(Refused::new("wrong-type", "must be a string"))
        }
    }
}

/// A string, or `null`, which is as if the field were left out.
pub(crate) fn optional_string(value: Value) -> Result<Option<String>, Refused> {
    if value.is_null() { Ok(None) } else { string(value).map(Some) }
}

pub(crate) fn boolean(value: Value) -> Result<bool, Refused> {
    value.as_bool().ok_or_else(|| Refused::new("wrong-type", "must be true or false"))
}

/// A workspace by its id or slug.
pub(crate) fn workspace_name(text: &str) -> WorkspaceName {
    // No slug has an underscore, so an id is never taken for one.
    text.parse().map_or_else(|_| WorkspaceName::Slug(text.to_owned()), WorkspaceName::Id)
}

/// Refuses a text in which a key or token of ours stands, or its own: what is kept is shown, and what is shown is copied.
fn without_secret(text: &str) -> Result<(), Refused> {
    match find_secret(text.as_bytes()) {
        Some(_) => {
            let message = "contains a key or token; leave it out, and replace it wherever it was seen";
            Err(Refused::new("contains-secret", message))
        }
        None => Ok(()),
    }
}

/// A name for people: 1 to 100 characters, none of them a control character or an invisible one, not spaces alone, and no secret
/// among them.
pub(crate) fn name(value: Value) -> Result<String, Refused> {
    let name = string(value)?;
    without_secret(&name)?;
    let length = name.chars().count();
    if name.trim().is_empty() {
        return Err(Refused::new("empty", "must have at least one character that is no space"));
    }
    if length > MAX_NAME {
        return Err(Refused::new("too-long", format!("has {length} characters; at most {MAX_NAME} are possible")));
    }
    if let Some(hidden) = name.chars().find(|character| is_hidden(*character)) {
        let message =
            format!("has U+{:04X}, which is not shown or changes how others are; leave it out", u32::from(hidden));
        return Err(Refused::new("bad-characters", message));
    }
    Ok(name)
}

/// Control characters, ends of lines, and what Unicode calls default-ignorable (DerivedCoreProperties.txt), which has all
/// bidirectional controls and characters without a width: two names that look equal are equal. Variation selectors, which emoji
/// have, choose between two looks of the character before, and may stay.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
                | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}'
        )
}

/// `[a-z][a-z0-9-]{1,38}`
pub(crate) fn slug(value: Value) -> Result<String, Refused> {
    let slug = string(value)?;
    without_secret(&slug)?;
    let fits = match slug.as_bytes() {
        [first, rest @ ..] => {
            first.is_ascii_lowercase()
                && (1..=38).contains(&rest.len())
                && rest.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
        }
        [] => false,
    };
    let message = "must be a lower-case letter and 1 to 38 lower-case letters, digits or `-`";
    if fits { Ok(slug) } else { Err(Refused::new("bad-slug", message)) }
}

/// The name of an edge.
pub(crate) fn edge(value: Value) -> Result<String, Refused> {
    let name = string(value)?;
    without_secret(&name)?;
    let message = || format!("must be {NAME_EXPECTED}");
    if is_name(&name) { Ok(name) } else { Err(Refused::new("bad-edge", message())) }
}

/// `{"reviews": "read"}`, with scopes of the catalogue.
pub(crate) fn scopes(value: Value, config: &Config) -> Result<Scopes, Refused> {
    let Value::Object(given) = value else {
        return Err(Refused::new(
            "wrong-type",
            "must be an object like {\"reviews\": \"read\"}; {} is no scope at all",
        ));
    };
    let mut scopes = Scopes::new();
    for (name, level) in given {
        let known = name.parse::<Scope>().ok().filter(|scope| config.scopes.contains(scope));
        let Some(scope) = known else {
            let catalogue: Vec<_> = config.scopes.iter().map(Scope::as_str).collect();
            let message = format!("names `{}`, which is not in the catalogue: {}", shown(&name), catalogue.join(", "));
            return Err(Refused::new("unknown-scope", message));
        };
        let level = match level.as_str() {
            Some("read") => Level::Read,
            Some("write") => Level::Write,
            _ => {
                let message = format!("gives `{scope}` a level other than \"read\" and \"write\"");
                return Err(Refused::new("unknown-level", message));
            }
        };
        scopes.insert(scope, level);
    }
    Ok(scopes)
}

/// `null`, or a list of addresses and ranges.
pub(crate) fn allowlist(value: Value) -> Result<Allowlist, Refused> {
    let wrong_type = || Refused::new("wrong-type", "must be null, or a list of addresses and CIDR ranges");
    let entries = match value {
        Value::Null => None,
        Value::Array(items) => {
            Some(items.into_iter().map(string).collect::<Result<Vec<_>, _>>().map_err(|_| wrong_type())?)
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => return Err(wrong_type()),
    };
    Allowlist::try_from(entries).map_err(|mut error| {
        if let AllowlistError::NotANetwork { entry, .. } = &mut error {
            *entry = shown(entry);
        }
        let code = match error {
            AllowlistError::Empty => "empty-allowlist",
            AllowlistError::TooMany { .. } => "too-many",
            AllowlistError::NotANetwork { .. } => "not-a-network",
            AllowlistError::HostBits { .. } => "host-bits",
        };
        Refused::new(code, format!("is refused: {error}"))
    })
}

/// An environment of the operator's list.
pub(crate) fn environment(value: Value, config: &Config) -> Result<Environment, Refused> {
    let name = string(value)?;
    let known = config.environments.iter().find(|environment| environment.as_str() == name);
    known.cloned().ok_or_else(|| {
        let all: Vec<_> = config.environments.iter().map(Environment::as_str).collect();
        Refused::new("unknown-environment", format!("must be one of: {}", all.join(", ")))
    })
}

/// A JSON object of at most 4 KiB, without a secret in its names and texts.
pub(crate) fn metadata(value: Value) -> Result<Metadata, Refused> {
    let json = value.to_string();
    without_secret(&json)?;
    let bytes = json.len();
    match value {
        Value::Object(_) if bytes > MAX_METADATA_BYTES => {
            let message = format!("has {bytes} bytes of JSON; at most {MAX_METADATA_BYTES} are possible");
            Err(Refused::new("too-long", message))
        }
        Value::Object(metadata) => Ok(metadata),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(Refused::new("wrong-type", "must be a JSON object"))
        }
    }
}

/// What to merge into the metadata: an object, or null to empty it.
pub(crate) fn metadata_patch(value: Value) -> Result<Value, Refused> {
    if value.is_null() { Ok(value) } else { metadata(value).map(Value::Object) }
}

/// When a key is to end: exactly one of `expires_in` and `expires_at` says so. The inner `None` is never.
pub(crate) fn expiration(fields: &mut Fields, now: UnixSeconds) -> Option<Option<UnixSeconds>> {
    match (fields.has("expires_in"), fields.has("expires_at")) {
        (true, true) => {
            fields.never("expires_in", Refused::new("ambiguous", "and `expires_at` are both given; give one of them"));
            fields.never("expires_at", Refused::new("ambiguous", "and `expires_in` are both given; give one of them"));
            None
        }
        (true, false) => fields.optional("expires_in", |value| lifetime(value, now)),
        (false, true) => fields.optional("expires_at", |value| future(value, now)).map(Some),
        (false, false) => {
            let message = "is required, or `expires_at` instead: \"none\" for a key that never expires";
            fields.refuse("expires_in", Refused::new("required", message));
            None
        }
    }
}

/// Whether `expires_at` is an instant that has come. The field isn't taken.
pub(crate) fn has_expired(fields: &Fields, now: UnixSeconds) -> bool {
    let at = fields.peek("expires_at").and_then(Value::as_str).and_then(instant::parse);
    at.is_some_and(|at| at.has_come(now))
}

fn lifetime(value: Value, now: UnixSeconds) -> Result<Option<UnixSeconds>, Refused> {
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
            let message = "must be one of none, 1h, 1d, 7d, 30d, 90d, 180d, 360d; for another time give `expires_at`";
            return Err(Refused::new("unknown-lifetime", message));
        }
    };
    Ok(Some(now.saturating_add_secs(secs)))
}

fn future(value: Value, now: UnixSeconds) -> Result<UnixSeconds, Refused> {
    let Some(at) = instant::parse(&string(value)?) else {
        let message = "must be an instant like \"2027-01-31T12:00:00Z\"";
        return Err(Refused::new("bad-instant", message));
    };
    if at.has_come(now) {
        return Err(Refused::new("in-the-past", format!("must be later than now, {}", instant::text(now))));
    }
    Ok(at)
}

/// How long the previous secret works on: `30m`, `12h`, `7d`. `null` is not at all.
pub(crate) fn overlap(value: Value) -> Result<Option<i64>, Refused> {
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
        Some(secs) if secs > MAX_OVERLAP_SECS => Err(Refused::new("too-long", "must be at most 7 days")),
        Some(secs) if secs > 0 => Ok(Some(secs)),
        Some(_) | None => {
            Err(Refused::new("bad-duration", "must be like \"30m\", \"12h\" or \"7d\"; leave it out for none"))
        }
    }
}

/// Items of a page: 1 to 200. A parameter of a query.
pub(crate) fn limit(value: Value) -> Result<NonZeroU32, Refused> {
    let limit = string(value)?.parse::<u32>().ok().filter(|limit| *limit <= MAX_LIMIT).and_then(NonZeroU32::new);
    limit.ok_or_else(|| Refused::new("out-of-range", format!("must be a number from 1 to {MAX_LIMIT}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: UnixSeconds = UnixSeconds(1_795_420_800);

    const SECRET: &str = "lk_live_000000000000000000000000000000004cjNQE";

    fn code<T>(result: Result<T, Refused>) -> Option<&'static str> {
        result.err().map(|refused| refused.code)
    }

    #[test]
    fn names_are_short_and_printable() {
        for (value, expected) in [
            (json!("a"), None),
            (json!("Ünïcode key №1"), None),
            (json!("ä".repeat(100)), None),
            (json!("ä".repeat(101)), Some("too-long")),
            (json!(""), Some("empty")),
            (json!("  "), Some("empty")),
            (json!("a\nb"), Some("bad-characters")),
            (json!("a\u{0}"), Some("bad-characters")),
            (json!("\u{202e}moc.elgoog"), Some("bad-characters")),
            (json!("pay\u{200b}pal"), Some("bad-characters")),
            (json!("\u{2066}a\u{2069}"), Some("bad-characters")),
            (json!("soft\u{ad}hyphen"), Some("bad-characters")),
            (json!("two\u{2028}lines"), Some("bad-characters")),
            (json!("tag\u{e0041}"), Some("bad-characters")),
            (json!("\u{feff}first"), Some("bad-characters")),
            (json!("שלום, مرحبا, 你好, ❤\u{fe0f}"), None),
            (json!(format!("CI {SECRET}")), Some("contains-secret")),
            (json!(SECRET.replace("QE", "QF")), None),
            (json!(null), Some("wrong-type")),
            (json!(1), Some("wrong-type")),
        ] {
            assert_eq!(code(name(value.clone())), expected, "{value}");
        }
    }

    #[test]
    fn a_hidden_character_is_named() {
        for (text, expected) in [("a\u{202e}b", "U+202E"), ("\n", "U+000A"), ("x\u{e0041}", "U+E0041")] {
            let refused = name(json!(format!("a{text}"))).unwrap_err();
            assert!(refused.message.starts_with(&format!("has {expected},")), "{}", refused.message);
        }
    }

    #[test]
    fn no_secret_is_kept_as_anything() {
        let inside = format!("x{SECRET}x");
        let nested = json!({"a": [{"b": inside}]});
        assert_eq!(code(metadata(nested.clone())), Some("contains-secret"));
        assert_eq!(code(metadata(json!({inside.clone(): 1}))), Some("contains-secret"));
        assert_eq!(code(metadata_patch(nested)), Some("contains-secret"));
        assert_eq!(code(slug(json!(inside))), Some("contains-secret"));
        assert_eq!(code(edge(json!(inside))), Some("contains-secret"));
    }

    #[test]
    fn slugs_fit_paths_and_are_never_ids() {
        for (text, fits) in [
            ("ab", true),
            ("acme-2", true),
            ("a".repeat(39).as_str(), true),
            ("a".repeat(40).as_str(), false),
            ("a", false),
            ("", false),
            ("2a", false),
            ("-a", false),
            ("Acme", false),
            ("a_b", false),
            ("a/b", false),
        ] {
            assert_eq!(code(slug(json!(text))).is_none(), fits, "{text:?}");
        }
    }

    #[test]
    fn scopes_come_from_the_catalogue() {
        let config = Config::default();
        for (value, expected) in [
            (json!({}), None),
            (json!({"reviews": "read", "webhooks": "write"}), None),
            (json!({"orders": "read"}), Some("unknown-scope")),
            (json!({"Reviews": "read"}), Some("unknown-scope")),
            (json!({"reviews": "admin"}), Some("unknown-level")),
            (json!({"reviews": null}), Some("unknown-level")),
            (json!(["reviews"]), Some("wrong-type")),
            (json!(null), Some("wrong-type")),
        ] {
            assert_eq!(code(scopes(value.clone(), &config)), expected, "{value}");
        }
    }

    #[test]
    fn allowlists_say_what_was_meant() {
        for (value, expected) in [
            (json!(null), None),
            (json!(["192.0.2.0/24", "2001:db8::1"]), None),
            (json!([]), Some("empty-allowlist")),
            (json!(["192.0.2.7/24"]), Some("host-bits")),
            (json!(["localhost"]), Some("not-a-network")),
            (json!([1]), Some("wrong-type")),
            (json!("192.0.2.0/24"), Some("wrong-type")),
            (json!(vec!["192.0.2.1"; 101]), Some("too-many")),
        ] {
            assert_eq!(code(allowlist(value.clone())), expected, "{value}");
        }
    }

    #[test]
    fn exactly_one_field_says_when_a_key_ends() {
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
            let got = expiration(&mut fields, NOW);
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
