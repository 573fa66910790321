//! The operator's configuration file, `latchkey.toml`: the environments and scopes, and how much history is kept.

mod limits;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use policy::{Environment, Scope};
use serde::Deserialize;

pub use self::limits::{Limits, TokenKind};

/// A record counts a key's scopes in a byte, so the catalogue has no more; environments are numbered in a byte.
const MAX_NAMES: usize = 255;

/// With a shorter log, new snapshots would be made all the time: a snapshot serves only while it is behind the head by
/// at most a tenth of the log.
const MIN_LOG_REVISIONS: u64 = 1_000;

/// 1.6 GB on disk. Catching up on so many takes longer than a snapshot of a million keys.
const MAX_LOG_REVISIONS: u64 = 10_000_000;

/// The default catalogue, with what each scope gives access to.
const CATALOGUE: [(&str, &str); 6] = [
    ("reviews", "reviews and their comments"),
    ("workspaces", "the workspace, its settings and members"),
    ("credentials", "credentials that are kept for other systems"),
    ("webhooks", "webhook endpoints and their deliveries"),
    ("repositories", "repositories that are connected"),
    ("security_scans", "security scans and what they found"),
];

/// The most characters of a scope's meaning, and of the gateway's address.
const MAX_TEXT: usize = 200;

/// The operator's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Environments that a key may be made for; the first is the default.
    pub environments: Vec<Environment>,
    /// The scope catalogue: what a key may be granted.
    pub scopes: Vec<Scope>,
    /// What each scope gives access to, for people who choose among them.
    pub scope_meanings: BTreeMap<Scope, String>,
    /// The gateway's URL, for the command that the console shows with a new key. curl must accept it.
    pub gateway_url: Option<String>,
    /// How many of the newest changes are kept for edges that were cut off. One that missed more loads a snapshot.
    pub log_revisions: u64,
    pub limits: Limits,
}

/// Why the file can't be used. Each error names it and what to do, in one line.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration {path}: cannot read it: {cause}")]
    Read { path: PathBuf, cause: std::io::Error },
    #[error("configuration {path}, line {line}: {message}")]
    Parse { path: PathBuf, line: usize, message: String },
    #[error("configuration {path}: `{field}` {message}")]
    Value { path: PathBuf, field: &'static str, message: String },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            environments: vec![Environment::default()],
            scopes: CATALOGUE.iter().filter_map(|(name, _)| name.parse().ok()).collect(),
            scope_meanings: BTreeMap::new(),
            gateway_url: None,
            log_revisions: 100_000,
            limits: Limits::default(),
        }
    }
}

impl Config {
    /// Reads the file at `path`.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|cause| ConfigError::Read { path: path.to_owned(), cause })?;
        Self::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count().saturating_add(1);
            let message = error.message().replace('\n', " ");
            ConfigError::Parse { path: path.to_owned(), line, message }
        })?;
        let refused = |field, message| ConfigError::Value { path: path.to_owned(), field, message };
        check_names(&config.environments).map_err(|message| refused("environments", message))?;
        check_names(&config.scopes).map_err(|message| refused("scopes", message))?;
        if config.environments.is_empty() {
            return Err(refused("environments", "is empty: name at least one, like \"live\"".to_owned()));
        }
        if let Some(scope) = config.scope_meanings.keys().find(|scope| !config.scopes.contains(scope)) {
            return Err(refused("scope_meanings", format!("names `{scope}`, which is not in `scopes`")));
        }
        if let Some(text) = config.scope_meanings.values().find(|text| text.chars().count() > MAX_TEXT) {
            let message = format!("has a text of {} characters; at most {MAX_TEXT} are possible", text.chars().count());
            return Err(refused("scope_meanings", message));
        }
        if config.gateway_url.as_ref().is_some_and(|url| !is_http_url(url)) {
            let message = "must be an address like \"https://api.example.com/v1/reviews\"".to_owned();
            return Err(refused("gateway_url", message));
        }
        if !(MIN_LOG_REVISIONS..=MAX_LOG_REVISIONS).contains(&config.log_revisions) {
            let message = format!("is {}: choose {MIN_LOG_REVISIONS} to {MAX_LOG_REVISIONS}", config.log_revisions);
            return Err(refused("log_revisions", message));
        }
        Ok(config)
    }

    /// What a scope gives access to, if that is known.
    pub fn meaning(&self, scope: &Scope) -> Option<&str> {
        let default = || CATALOGUE.into_iter().find(|(name, _)| *name == scope.as_str()).map(|(_, meaning)| meaning);
        self.scope_meanings.get(scope).map(String::as_str).or_else(default)
    }

    /// The environment of a key that is made without one.
    pub fn first_environment(&self) -> Environment {
        self.environments.first().cloned().unwrap_or_default()
    }
}

/// Whether a text is an HTTP URL that can be pasted into a command.
fn is_http_url(url: &str) -> bool {
    let is_plain = url.len() <= MAX_TEXT && url.bytes().all(|byte| byte.is_ascii_graphic());
    let uri = url.parse::<axum::http::Uri>().ok();
    is_plain && uri.is_some_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.authority().is_some())
}

fn check_names<T: Ord + std::fmt::Display>(names: &[T]) -> Result<(), String> {
    if names.len() > MAX_NAMES {
        return Err(format!("has {} names; at most {MAX_NAMES} are possible", names.len()));
    }
    let mut seen = BTreeSet::new();
    match names.iter().find(|name| !seen.insert(*name)) {
        Some(twice) => Err(format!("names `{twice}` twice: name it once")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("latchkey.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn an_empty_file_is_the_default() {
        assert_eq!(parsed(""), Ok(Config::default()));
        assert_eq!(Config::default().scopes.len(), 6);
        assert_eq!(Config::default().first_environment().as_str(), "live");
    }

    #[test]
    fn the_operator_s_names_replace_the_default_ones() {
        let config = parsed("environments = [\"test\", \"live\"]\nscopes = [\"orders\"]").unwrap();
        assert_eq!(config.first_environment().as_str(), "test");
        assert_eq!(config.scopes, ["orders".parse().unwrap()]);
    }

    #[test]
    fn scopes_have_the_meanings_that_the_operator_gives_them() {
        let config =
            parsed("scopes = [\"orders\", \"reviews\"]\nscope_meanings = {orders = \"orders of a shop\"}").unwrap();
        for (scope, expected) in [("orders", Some("orders of a shop")), ("reviews", Some("reviews and their comments"))]
        {
            assert_eq!(config.meaning(&scope.parse().unwrap()), expected);
        }
        let gateway = parsed("gateway_url = \"https://api.example.com/v1/reviews\"").unwrap().gateway_url;
        assert_eq!(gateway.as_deref(), Some("https://api.example.com/v1/reviews"));
    }

    #[test]
    fn an_error_names_what_is_wrong_in_one_line() {
        for (text, expected) in [
            ("scopes = [\"orders\"]\nscope = 1", "line 2: unknown field `scope`"),
            ("scopes = [\"Orders\"]", "a scope is a lower-case letter"),
            ("scopes = \"orders\"", "line 1: invalid type"),
            ("environments = []", "`environments` is empty"),
            ("environments = [\"live\", \"live\"]", "`environments` names `live` twice"),
            ("scopes = [\"a\", \"b\", \"a\"]", "`scopes` names `a` twice"),
            ("scopes = [", "line 1"),
            ("scope_meanings = {orders = \"orders\"}", "`scope_meanings` names `orders`, which is not in `scopes`"),
            ("gateway_url = \"api.example.com\"", "`gateway_url` must be an address"),
            ("gateway_url = \"ftp://api.example.com/\"", "`gateway_url` must be an address"),
            ("log_revisions = 999", "`log_revisions` is 999: choose 1000 to 10000000"),
            ("log_revisions = 10000001", "choose 1000 to 10000000"),
            ("log_revisions = -1", "line 1"),
            ("[limits]\ninstances = 1", "line 2: unknown field `instances`"),
            ("[limits]\nworkers_per_instance = -1", "line 2: invalid value"),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.starts_with("configuration latchkey.toml") && error.contains(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
