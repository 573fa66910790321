//! Parsers of field values, with a message for each invalid one.

use std::num::NonZeroU32;

use policy::allowlist::AllowlistError;
use policy::key_text::find_secret;
use policy::protocol::{NAME_EXPECTED, is_name};
use policy::{Allowlist, Environment, Level, Scope, Scopes};
use serde_json::Value;

use super::fields::{InvalidValue, redacted};
use crate::base::config::Config;
use crate::store::{MAX_METADATA_BYTES, Metadata, WorkspaceName};

/// The maximum length of a name, in characters.
pub(super) const MAX_NAME: usize = 100;

/// Items of a page, by default.
pub(crate) const DEFAULT_LIMIT: NonZeroU32 = match NonZeroU32::new(50) {
    Some(limit) => limit,
    None => NonZeroU32::MIN,
};

/// The maximum number of items of a page.
pub(crate) const MAX_LIMIT: u32 = 200;

pub(crate) fn string(value: Value) -> Result<String, InvalidValue> {
    match value {
        Value::String(text) => Ok(text),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Err(InvalidValue::new("wrong-type", "must be a string"))
        }
    }
}

pub(crate) fn boolean(value: Value) -> Result<bool, InvalidValue> {
    value.as_bool().ok_or_else(|| InvalidValue::new("wrong-type", "must be true or false"))
}

/// A workspace by its id or slug.
pub(crate) fn workspace_name(text: &str) -> WorkspaceName {
    // No slug has an underscore, so an id is never mistaken for one.
    text.parse().map_or_else(|_| WorkspaceName::Slug(text.to_owned()), WorkspaceName::Id)
}

/// Refuses a text that contains one of our keys or tokens: stored text is shown, and shown text is copied.
fn without_secret(text: &str) -> Result<(), InvalidValue> {
    match find_secret(text.as_bytes()) {
        Some(_) => {
            let message = "contains a key or token; leave it out, and replace it wherever it was seen";
            Err(InvalidValue::new("contains-secret", message))
        }
        None => Ok(()),
    }
}

/// A name for people: 1 to 100 characters, without control characters and invisible ones, not spaces alone, and without
/// a secret.
pub(crate) fn name(value: Value) -> Result<String, InvalidValue> {
    let name = string(value)?;
    without_secret(&name)?;
    let length = name.chars().count();
    if name.trim().is_empty() {
        return Err(InvalidValue::new("empty", "must have at least one character other than spaces"));
    }
    if length > MAX_NAME {
        return Err(InvalidValue::new("too-long", format!("has {length} characters; at most {MAX_NAME} are allowed")));
    }
    if let Some(hidden) = name.chars().find(|character| is_hidden(*character)) {
        let message = format!(
            "has U+{:04X}, which is invisible or changes how others are displayed; leave it out",
            u32::from(hidden)
        );
        return Err(InvalidValue::new("bad-characters", message));
    }
    Ok(name)
}

/// Control characters, line ends, and Unicode's default-ignorable characters (DerivedCoreProperties.txt), which include
/// all bidirectional controls and characters without a width, so that names which look equal are equal. Variation
/// selectors are allowed: emoji have them, to choose between two forms of the character before.
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
pub(crate) fn slug(value: Value) -> Result<String, InvalidValue> {
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
    if fits { Ok(slug) } else { Err(InvalidValue::new("bad-slug", message)) }
}

/// The name of an edge.
pub(crate) fn edge(value: Value) -> Result<String, InvalidValue> {
    let name = string(value)?;
    without_secret(&name)?;
    let message = || format!("must be {NAME_EXPECTED}");
    if is_name(&name) { Ok(name) } else { Err(InvalidValue::new("bad-edge", message())) }
}

/// `{"reviews": "read"}`, with scopes of the catalogue.
pub(crate) fn scopes(value: Value, config: &Config) -> Result<Scopes, InvalidValue> {
    let Value::Object(given) = value else {
        return Err(InvalidValue::new(
            "wrong-type",
            "must be an object like {\"reviews\": \"read\"}; {} grants no scope",
        ));
    };
    let mut scopes = Scopes::new();
    for (name, level) in given {
        let known = name.parse::<Scope>().ok().filter(|scope| config.scopes.contains(scope));
        let Some(scope) = known else {
            let catalogue: Vec<_> = config.scopes.iter().map(Scope::as_str).collect();
            let message = format!("has `{}`, which is not in the catalogue: {}", redacted(&name), catalogue.join(", "));
            return Err(InvalidValue::new("unknown-scope", message));
        };
        let level = match level.as_str() {
            Some("read") => Level::Read,
            Some("write") => Level::Write,
            _ => {
                let message = format!("gives `{scope}` a level other than \"read\" and \"write\"");
                return Err(InvalidValue::new("unknown-level", message));
            }
        };
        scopes.insert(scope, level);
    }
    Ok(scopes)
}

/// `null`, or a list of addresses and ranges.
pub(crate) fn allowlist(value: Value) -> Result<Allowlist, InvalidValue> {
    let wrong_type = || InvalidValue::new("wrong-type", "must be null, or a list of addresses and CIDR ranges");
    let entries = match value {
        Value::Null => None,
        Value::Array(items) => {
            Some(items.into_iter().map(string).collect::<Result<Vec<_>, _>>().map_err(|_| wrong_type())?)
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_) => return Err(wrong_type()),
    };
    Allowlist::try_from(entries).map_err(|mut error| {
        if let AllowlistError::NotANetwork { entry, .. } = &mut error {
            *entry = redacted(entry);
        }
        let code = match error {
            AllowlistError::Empty => "empty-allowlist",
            AllowlistError::TooMany { .. } => "too-many",
            AllowlistError::NotANetwork { .. } => "not-a-network",
            AllowlistError::HostBits { .. } => "host-bits",
        };
        InvalidValue { allowlist: Some(error.clone()), ..InvalidValue::new(code, format!("is refused: {error}")) }
    })
}

/// An environment of the operator's list.
pub(crate) fn environment(value: Value, config: &Config) -> Result<Environment, InvalidValue> {
    let name = string(value)?;
    let known = config.environments.iter().find(|environment| environment.as_str() == name);
    known.cloned().ok_or_else(|| {
        let all: Vec<_> = config.environments.iter().map(Environment::as_str).collect();
        InvalidValue::new("unknown-environment", format!("must be one of: {}", all.join(", ")))
    })
}

/// A JSON object of at most 4 KiB, without a secret in its names and texts.
pub(crate) fn metadata(value: Value) -> Result<Metadata, InvalidValue> {
    let json = value.to_string();
    without_secret(&json)?;
    let bytes = json.len();
    match value {
        Value::Object(_) if bytes > MAX_METADATA_BYTES => {
            let message = format!("has {bytes} bytes of JSON; at most {MAX_METADATA_BYTES} are allowed");
            Err(InvalidValue::new("too-long", message))
        }
        Value::Object(metadata) => Ok(metadata),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Err(InvalidValue::new("wrong-type", "must be a JSON object"))
        }
    }
}

/// A merge patch for the metadata: an object, or null to empty it.
pub(crate) fn metadata_patch(value: Value) -> Result<Value, InvalidValue> {
    if value.is_null() { Ok(value) } else { metadata(value).map(Value::Object) }
}

/// Items of a page: 1 to 200. A parameter of a query.
pub(crate) fn limit(value: Value) -> Result<NonZeroU32, InvalidValue> {
    let limit = string(value)?.parse::<u32>().ok().filter(|limit| *limit <= MAX_LIMIT).and_then(NonZeroU32::new);
    limit.ok_or_else(|| InvalidValue::new("out-of-range", format!("must be a number from 1 to {MAX_LIMIT}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const SECRET: &str = "lk_live_000000000000000000000000000000004cjNQE";

    fn code<T>(result: Result<T, InvalidValue>) -> Option<&'static str> {
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
    fn a_secret_is_refused_in_every_other_field() {
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
    fn invalid_allowlists_are_refused_with_a_code() {
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
}
