//! The plugin configuration of an edge.

use serde::{Deserialize, Deserializer, Serialize};

use crate::credential_source::CredentialSource;
use crate::environment::Environment;
use crate::key_text::ForeignKeys;
use crate::path::Paths;
use crate::protocol::{NAME_EXPECTED, is_name};
use crate::route::{Route, Routes};
use crate::rule::Rule;

/// The shortest staleness bound, in seconds: below it, one slow feed response could make an edge deny all requests.
pub const MIN_STALENESS_SECS: u64 = 10;

/// A configuration as in the file. Unknown fields are refused; all but `control_plane` have defaults.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The operator's name for this gateway; replicas share it.
    #[serde(default = "default_edge")]
    pub edge: String,
    /// Where the feed and the usage reports of this edge are sent.
    pub control_plane: ControlPlane,
    /// The only environment whose keys pass here; `live` by default.
    #[serde(default)]
    pub environment: Environment,
    /// Where a request may carry its key.
    #[serde(default = "default_credentials")]
    pub credentials: Vec<CredentialSource>,
    /// Rules by path and method, for requests whose route has no metadata; none by default. Order doesn't matter.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// The rule of a request that matches neither route metadata nor `routes`.
    #[serde(default)]
    pub unmatched: Unmatched,
    /// The identity headers that the upstream receives with an allowed request.
    #[serde(default = "default_forward")]
    pub forward: Vec<Forward>,
    /// The path that answers 200 once this edge has its keys.
    #[serde(default = "default_ready_path")]
    pub ready_path: String,
    /// Whether keys that other systems made, and that were imported, are looked up.
    #[serde(default)]
    pub foreign_keys: bool,
    /// How long the last table may serve without a confirmation from the control plane. `null` must be written, and
    /// means forever.
    #[serde(default = "default_staleness", deserialize_with = "deserialize_bound")]
    pub max_staleness_secs: Option<u64>,
    /// Who subscribes to the feed. [`FeedMode::Worker`] shows whether sharing between workers causes a fault.
    #[serde(default)]
    pub feed: FeedMode,
    /// Spellings of paths that are admitted although upstreams may read them in different ways.
    #[serde(default)]
    pub paths: Paths,
    /// The operator's own proxies in front of Envoy, as in its `xff_num_trusted_hops`; with any, the client's address
    /// is read from `x-forwarded-for`.
    #[serde(default)]
    pub trusted_hops: u32,
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

/// The rule of requests that no route matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unmatched {
    /// [`Rule::Deny`]. The default: a route that was forgotten stays closed.
    #[default]
    Deny,
    /// [`Rule::AnyKey`]: any valid key passes, whatever its scopes.
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
    /// `x-latchkey-key-id`: the key's id, `key_…`.
    KeyId,
    /// `x-latchkey-workspace-id`: the id of the key's workspace, `ws_…`.
    WorkspaceId,
    /// `x-latchkey-workspace`: the slug of the key's workspace.
    Workspace,
    /// `x-latchkey-scopes`: the key's scopes and levels, sorted by name: `reviews:read webhooks:write`.
    Scopes,
}

/// Which workers request changes from the control plane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FeedMode {
    /// One worker of an Envoy for all of them.
    #[default]
    Process,
    /// Each worker by itself.
    Worker,
}

/// Why a configuration is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The JSON is broken, or a field is missing, unknown or wrong.
    #[error("the plugin configuration is not valid at `{field}`: {reason}")]
    Field {
        /// The field's path, such as `credentials[0]`; for a missing field, that of the object which lacks it. `.` is
        /// the whole document.
        field: String,
        /// A sentence for the operator: what is wrong or expected there. It may quote the value.
        reason: String,
    },
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

    /// Whether imported keys are looked up.
    pub fn foreign(&self) -> ForeignKeys {
        if self.foreign_keys { ForeignKeys::LookedUp } else { ForeignKeys::Refused }
    }

    fn check(&self) -> Result<Routes, ConfigError> {
        if !is_name(&self.edge) {
            return Err(refused("edge", format!("{NAME_EXPECTED} are expected")));
        }
        let filled = [
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

/// `null` means never; an absent field gets the default.
fn deserialize_bound<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    Option::deserialize(deserializer)
}

fn default_edge() -> String {
    "edge".to_owned()
}

fn default_credentials() -> Vec<CredentialSource> {
    vec![
        CredentialSource::Header { name: "x-api-key".to_owned(), prefix: None },
        CredentialSource::Header { name: "authorization".to_owned(), prefix: Some("Bearer ".to_owned()) },
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

    const MINIMAL: &str = r#"{"control_plane": {"cluster": "latchkey", "authority": "latchkey"}}"#;

    fn error(json: &str) -> String {
        Config::parse(json.as_bytes()).map(|_| ()).unwrap_err().to_string()
    }

    fn with(field: &str) -> String {
        MINIMAL.replacen('{', &format!("{{{field}, "), 1)
    }

    #[test]
    fn all_but_the_control_plane_has_defaults() {
        let (config, routes) = Config::parse(MINIMAL.as_bytes()).unwrap();
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
    fn a_key_may_be_in_four_kinds_of_places() {
        let places = r#"[{"header":"x-api-key"},{"header":"authorization","prefix":"Bearer "},{"query":"api_key"},{"cookie":"api_key"}]"#;
        let (config, _) = Config::parse(with(&format!(r#""credentials": {places}"#)).as_bytes()).unwrap();
        assert_eq!(config.credentials.len(), 4);
        assert_eq!(serde_json::to_string(&config.credentials).unwrap(), places);
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
            (&with(&format!(r#""edge": "{}""#, "x".repeat(65))), "`edge`"),
            (&with(r#""egde": "x""#), "egde"),
            (&with(r#""environment": "LIVE""#), "`environment`"),
            (&with(r#""credentials": []"#), "`credentials`"),
            (&with(r#""credentials": [{"header": "X-Api-Key"}]"#), "`credentials[0]`"),
            (&with(r#""credentials": [{"header": "x-latchkey-key-id"}]"#), "`credentials[0]`"),
            (&with(r#""credentials": [{"header": ":path"}]"#), "`credentials[0]`"),
            (&with(r#""credentials": [{"header": "host"}]"#), "not `host`"),
            (&with(r#""credentials": [{"header": "cookie"}]"#), "{\"cookie\": NAME}"),
            (&with(r#""credentials": [{"header": "transfer-encoding"}]"#), "none that frames the request"),
            (&with(r#""credentials": [{"header": "a", "query": "b"}]"#), "`credentials[0]`"),
            (&with(r#""credentials": [{"query": "b", "prefix": "c"}]"#), "`credentials[0]`"),
            (&with(r#""credentials": [{"query": "a&b"}]"#), "`credentials[0]`"),
            (&with(r#""credentials": [{"cookie": ""}]"#), "`credentials[0]`"),
            (&with(r#""credentials": [{"cookies": "a"}]"#), "cookies"),
            (&with(r#""credentials": [{"header": "a"}, {"header": "a"}]"#), "`credentials[1]`"),
            (&with(r#""routes": [{"path": "/a", "rule": "read all"}]"#), "`routes[0].rule`"),
            (&with(r#""routes": [{"path": "a", "rule": "key"}]"#), "`routes`"),
            (&with(r#""unmatched": "public""#), "`unmatched`"),
            (&with(r#""forward": ["secret"]"#), "`forward[0]`"),
            (&with(r#""ready_path": "ready""#), "`ready_path`"),
            (&with(r#""max_staleness_secs": 9"#), "`max_staleness_secs`"),
            (&with(r#""feed": "nobody""#), "`feed`"),
            (&format!("{MINIMAL} x"), "."),
        ] {
            assert!(error(json).contains(field), "{json}: {}", error(json));
        }
    }
}
