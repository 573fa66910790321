//! Places of a request that may carry a key, as the configuration names them.

use serde::{Deserialize, Serialize};

/// A place of the request that may carry a key. Names of headers are in lower case; those of query parameters and
/// cookies are compared as they are, after percent-decoding for the former.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawCredentialSource", into = "RawCredentialSource")]
pub enum CredentialSource {
    /// A header, and the prefix before the key in it, in upper or lower case. A value without that prefix is no key.
    Header {
        /// Lower-case letters, digits, `-` and `_`, 1 to 100; not `cookie` or `host`, no [framing
        /// header](is_framing_header), and nothing that starts with `x-latchkey-`.
        name: String,
        /// Such as `Bearer `: 1 to 100 visible ASCII characters and spaces. With `None`, the whole value is the key.
        prefix: Option<String>,
    },
    /// A parameter of the query. The key is its value, percent-decoded.
    Query {
        /// Letters, digits, `-`, `_` and `.`, 1 to 100; upper and lower case differ.
        name: String,
    },
    /// A cookie. The key is its value, without quotes around it.
    Cookie {
        /// Letters, digits, `-`, `_` and `.`, 1 to 100; upper and lower case differ.
        name: String,
    },
}

/// A place as it is configured: `{"header": …, "prefix": …}`, `{"query": …}` or `{"cookie": …}`.
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RawCredentialSource {
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cookie: Option<String>,
}

/// A place that can't carry a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
enum SourceError {
    #[error("one of `header`, `query` and `cookie` is expected, and `prefix` beside `header` only")]
    NotOne,
    #[error(
        "a header name in lower case is expected: not `host`, not `cookie` (write `{{\"cookie\": NAME}}`), none that frames \
         the request, such as `te`, and none that starts with `:` or `x-latchkey-`"
    )]
    Header,
    #[error("a prefix of 1 to 100 visible ASCII characters and spaces is expected")]
    Prefix,
    #[error("a name of 1 to 100 ASCII letters, digits, `-`, `_` or `.` is expected")]
    Name,
}

/// Whether a header, by its name in lower case, defines how the request is framed or how its connection is used. Envoy
/// reads these before the filter, so none can carry a key.
pub fn is_framing_header(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "content-length"
            | "expect"
            | "http2-settings"
            | "keep-alive"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
    )
}

impl TryFrom<RawCredentialSource> for CredentialSource {
    type Error = SourceError;

    fn try_from(written: RawCredentialSource) -> Result<Self, SourceError> {
        let is_word = |name: &String| (1..=100).contains(&name.len()) && name.bytes().all(is_word_byte);
        match written {
            RawCredentialSource { header: Some(name), prefix, query: None, cookie: None } => {
                let plain = is_word(&name) && !name.bytes().any(|byte| byte.is_ascii_uppercase() || byte == b'.');
                // The host is decided before credentials are looked for, and would never match.
                let has_other_use = matches!(name.as_str(), "cookie" | "host") || is_framing_header(&name);
                if !plain || name.starts_with("x-latchkey-") || has_other_use {
                    return Err(SourceError::Header);
                }
                let visible = |prefix: &String| {
                    (1..=100).contains(&prefix.len())
                        && prefix.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ')
                };
                if !prefix.as_ref().is_none_or(visible) {
                    return Err(SourceError::Prefix);
                }
                Ok(Self::Header { name, prefix })
            }
            RawCredentialSource { header: None, prefix: None, query: Some(name), cookie: None } => {
                if is_word(&name) {
                    Ok(Self::Query { name })
                } else {
                    Err(SourceError::Name)
                }
            }
            RawCredentialSource { header: None, prefix: None, query: None, cookie: Some(name) } => {
                if is_word(&name) {
                    Ok(Self::Cookie { name })
                } else {
                    Err(SourceError::Name)
                }
            }
            _ => Err(SourceError::NotOne),
        }
    }
}

impl From<CredentialSource> for RawCredentialSource {
    fn from(source: CredentialSource) -> Self {
        match source {
            CredentialSource::Header { name, prefix } => Self { header: Some(name), prefix, ..Self::default() },
            CredentialSource::Query { name } => Self { query: Some(name), ..Self::default() },
            CredentialSource::Cookie { name } => Self { cookie: Some(name), ..Self::default() },
        }
    }
}

/// Whether names may contain this byte.
fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')
}
