//! The plugin configuration of an edge.

use serde::{Deserialize, Deserializer, Serialize};

use crate::environment::Environment;
use crate::key_text::ForeignKeys;
use crate::route::{Route, Routes};
use crate::rule::Rule;

/// The shortest staleness bound, in seconds: below it, a slow answer of the feed would deny everything.
pub const MIN_STALENESS_SECS: u64 = 10;

/// A configuration as it is written. Unknown fields are refused; all but `control_plane` have defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The operator's name for this gateway; replicas share it.
    #[serde(default = "default_edge")]
    pub edge: String,
    pub control_plane: ControlPlane,
    #[serde(default)]
    pub environment: Environment,
    /// Where a request may carry its key.
    #[serde(default = "default_credentials")]
    pub credentials: Vec<CredentialSource>,
    #[serde(default)]
    pub routes: Vec<Route>,
    /// What a request gets that neither route metadata nor `routes` knows.
    #[serde(default)]
    pub unmatched: Unmatched,
    /// What the upstream is told of an allowed request.
    #[serde(default = "default_forward")]
    pub forward: Vec<Forward>,
    /// The path that answers 200 once this edge has its keys.
    #[serde(default = "default_ready_path")]
    pub ready_path: String,
    /// Whether keys that other systems made, and that were imported, are looked up.
    #[serde(default)]
    pub foreign_keys: bool,
    /// How long the last table may serve without word from the control plane. `null` must be written and means for ever.
    #[serde(default = "default_staleness", deserialize_with = "bound")]
    pub max_staleness_secs: Option<u64>,
    #[serde(default)]
    pub feed: Feed,
}

/// Where the control plane is, as Envoy knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ControlPlane {
    /// The Envoy cluster.
    pub cluster: String,
    /// The `:authority` of requests to it.
    pub authority: String,
    /// The environment variable that holds the edge token; left out where Envoy adds the token itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_env: Option<String>,
}

/// A place of the request that may carry a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialSource {
    /// A request header, in lower case.
    pub header: String,
    /// What stands before the key, whatever its case; a value without it is no key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
}

/// The rule of requests that no route knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    #[default]
    Deny,
    Key,
}

impl Unmatched {
    /// The rule.
    pub fn rule(self) -> Rule<'static> {
        match self {
            Self::Deny => Rule::Deny,
            Self::Key => Rule::AnyKey,
        }
    }
}

/// An identity header for the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Forward {
    KeyId,
    WorkspaceId,
    Workspace,
    Scopes,
}

/// Who asks the control plane for changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Feed {
    /// Each worker by itself.
    #[default]
    Worker,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("the plugin configuration is not valid at `{field}`: {reason}")]
    Field { field: String, reason: String },
}

impl Config {
    /// Parses and checks a configuration; an error names the field.
    pub fn parse(json: &[u8]) -> Result<(Self, Routes), ConfigError> {
        let mut input = serde_json::Deserializer::from_slice(json);
        let config: Self = serde_path_to_error::deserialize(&mut input)
            .map_err(|error| refused(&error.path().to_string(), error.inner().to_string()))?;
        input.end().map_err(|error| refused(".", error.to_string()))?;
        let routes = config.check()?;
        Ok((config, routes))
    }

    /// Whether imported keys are looked up, as the rules name it.
    pub fn foreign(&self) -> ForeignKeys {
        if self.foreign_keys { ForeignKeys::LookedUp } else { ForeignKeys::Refused }
    }

    fn check(&self) -> Result<Routes, ConfigError> {
        let filled = [
            ("edge", &self.edge),
            ("control_plane.cluster", &self.control_plane.cluster),
            ("control_plane.authority", &self.control_plane.authority),
        ];
        for (field, value) in filled {
            if value.is_empty() || value.len() > 200 || !value.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(refused(field, "1 to 200 visible ASCII characters are expected"));
            }
        }
        if self.control_plane.token_env.as_ref().is_some_and(|name| name.is_empty() || name.contains(['=', '\0'])) {
            return Err(refused("control_plane.token_env", "the name of an environment variable is expected"));
        }
        if self.credentials.is_empty() {
            return Err(refused("credentials", "at least one place for the key is expected"));
        }
        for (at, source) in self.credentials.iter().enumerate() {
            let token = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
            if source.header.is_empty() || !source.header.bytes().all(token) {
                return Err(refused(&format!("credentials[{at}].header"), "a header name in lower case is expected"));
            }
            if self.credentials.iter().take(at).any(|earlier| earlier == source) {
                return Err(refused(&format!("credentials[{at}]"), "the same place is given twice"));
            }
        }
        if !self.ready_path.starts_with('/') || self.ready_path.contains(['?', '#', ' ']) {
            return Err(refused("ready_path", "a path that starts with `/`, without a query, is expected"));
        }
        if self.max_staleness_secs.is_some_and(|secs| secs < MIN_STALENESS_SECS) {
            return Err(refused(
                "max_staleness_secs",
                format!("at least {MIN_STALENESS_SECS}, or null for never, is expected"),
            ));
        }
        Routes::compile(&self.routes).map_err(|error| refused("routes", error.to_string()))
    }
}

fn refused(field: &str, reason: impl Into<String>) -> ConfigError {
    ConfigError::Field { field: field.to_owned(), reason: reason.into() }
}

/// A bound that is given as `null` means never; one that isn't given is the default.
fn bound<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Option::deserialize(deserializer)
}

fn default_edge() -> String {
    "edge".to_owned()
}

fn default_credentials() -> Vec<CredentialSource> {
    vec![
        CredentialSource { header: "x-api-key".to_owned(), prefix: None },
        CredentialSource { header: "authorization".to_owned(), prefix: Some("Bearer ".to_owned()) },
    ]
}

fn default_forward() -> Vec<Forward> {
    vec![Forward::KeyId, Forward::WorkspaceId]
}

fn default_ready_path() -> String {
    "/latchkey/ready".to_owned()
}

// The signature is serde's: a default is the whole field.
#[expect(clippy::unnecessary_wraps, reason = "serde takes the field's type")]
fn default_staleness() -> Option<u64> {
    Some(86_400)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::test;

    const LEAST: &str = r#"{"control_plane": {"cluster": "latchkey", "authority": "latchkey"}}"#;

    fn error(json: &str) -> String {
        Config::parse(json.as_bytes()).map(|_| ()).unwrap_err().to_string()
    }

    fn with(field: &str) -> String {
        LEAST.replacen('{', &format!("{{{field}, "), 1)
    }

    #[test]
    fn all_but_the_control_plane_has_defaults() {
        let (config, routes) = Config::parse(LEAST.as_bytes()).unwrap();
        assert_eq!(config.edge, "edge");
        assert_eq!(config.environment, Environment::default());
        assert_eq!(config.credentials, default_credentials());
        assert_eq!(config.unmatched, Unmatched::Deny);
        assert_eq!(config.forward, [Forward::KeyId, Forward::WorkspaceId]);
        assert_eq!(config.ready_path, "/latchkey/ready");
        assert!(!config.foreign_keys);
        assert_eq!(config.max_staleness_secs, Some(86_400));
        assert!(routes.is_empty());
    }

    #[test]
    fn never_must_be_written() {
        let (config, _) = Config::parse(with(r#""max_staleness_secs": null"#).as_bytes()).unwrap();
        assert_eq!(config.max_staleness_secs, None);
    }

    #[test]
    fn an_error_names_the_field() {
        for (json, field) in [
            ("{}", "control_plane"),
            ("", "."),
            (&with(r#""edge": 7"#), "`edge`"),
            (&with(r#""edge": """#), "`edge`"),
            (&with(r#""egde": "x""#), "egde"),
            (&with(r#""environment": "LIVE""#), "`environment`"),
            (&with(r#""credentials": []"#), "`credentials`"),
            (&with(r#""credentials": [{"header": "X-Api-Key"}]"#), "`credentials[0].header`"),
            (&with(r#""credentials": [{"header": "a"}, {"header": "a"}]"#), "`credentials[1]`"),
            (&with(r#""routes": [{"path": "/a", "rule": "read all"}]"#), "`routes[0].rule`"),
            (&with(r#""routes": [{"path": "a", "rule": "key"}]"#), "`routes`"),
            (&with(r#""unmatched": "public""#), "`unmatched`"),
            (&with(r#""forward": ["secret"]"#), "`forward[0]`"),
            (&with(r#""ready_path": "ready""#), "`ready_path`"),
            (&with(r#""max_staleness_secs": 9"#), "`max_staleness_secs`"),
            (&with(r#""feed": "nobody""#), "`feed`"),
            (&format!("{LEAST} x"), "."),
        ] {
            assert!(error(json).contains(field), "{json}: {}", error(json));
        }
    }
}
