//! `[limits]` of the operator's configuration file: how much of the shared resources one client may use.
//!
//! A limit of 0 means no limit. One that isn't named has its default.

use serde::Deserialize;

use crate::base::limit::Limit;

/// Connected instances of a token that was created over REST, which is for one edge.
const INSTANCES_PER_CREATED_TOKEN: u64 = 1_000;

/// Connected instances of the token file's token, which all edges may use at first.
const INSTANCES_PER_FILE_TOKEN: u64 = 20_000;

/// Workers of an instance, which has one more than Envoy's concurrency. The default is twice the number of threads of
/// the largest machines.
const WORKERS: u64 = 256;

/// Connections of one address that have presented no valid token: enough for all people behind one NAT who look at the
/// sign-in page.
const CONNECTIONS: u64 = 1_024;

/// Keys of one workspace: more than most tenants have customers.
const KEYS: u64 = 1_000_000;

/// Bytes that one workspace's records may take of a table, which each worker of each edge holds. A million keys with
/// two scopes take 80 MB.
const BYTES: u64 = 256 << 20;

/// Imports of one workspace at a time. A tenant's second import would only wait for its first.
const IMPORTS_PER_WORKSPACE: u64 = 1;

/// Imports at a time. They are carried out one by one; each of those that wait takes some MB.
const IMPORTS: u64 = 4;

/// The kind of token that an instance uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// The token in the token file.
    File,
    /// A token that was created over REST.
    Created,
}

/// The limits that the operator sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Connected instances of one edge token; `None`: the default of its kind.
    pub instances_per_edge_token: Option<u64>,
    /// Live workers.
    pub workers_per_instance: u64,
    /// Connections that have presented no valid token yet.
    pub connections_per_address: u64,
    /// Keys that aren't deleted.
    pub keys_per_workspace: u64,
    /// Bytes of records at an edge.
    pub bytes_per_workspace: u64,
    /// Imports into one workspace at a time.
    pub imports_per_workspace: u64,
    /// Imports at a time, into all workspaces together.
    pub imports_at_once: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            instances_per_edge_token: None,
            workers_per_instance: WORKERS,
            connections_per_address: CONNECTIONS,
            keys_per_workspace: KEYS,
            bytes_per_workspace: BYTES,
            imports_per_workspace: IMPORTS_PER_WORKSPACE,
            imports_at_once: IMPORTS,
        }
    }
}

impl Limits {
    /// The limit of connected instances of one edge token. A configured limit applies to both kinds. `None`: there is
    /// none.
    pub fn instances(&self, of: TokenKind) -> Option<Limit> {
        let default = match of {
            TokenKind::File => INSTANCES_PER_FILE_TOKEN,
            TokenKind::Created => INSTANCES_PER_CREATED_TOKEN,
        };
        limit("instances_per_edge_token", self.instances_per_edge_token.unwrap_or(default))
    }

    /// The limit of workers of one instance. `None`: there is none.
    pub fn workers(&self) -> Option<Limit> {
        limit("workers_per_instance", self.workers_per_instance)
    }

    /// The limit of connections of one address that have presented no valid token. `None`: there is none.
    pub fn connections(&self) -> Option<Limit> {
        limit("connections_per_address", self.connections_per_address)
    }

    /// The limit of keys of one workspace. `None`: there is none.
    pub fn keys(&self) -> Option<Limit> {
        limit("keys_per_workspace", self.keys_per_workspace)
    }

    /// The limit of bytes that one workspace's records take at an edge. `None`: there is none.
    pub fn bytes(&self) -> Option<Limit> {
        limit("bytes_per_workspace", self.bytes_per_workspace)
    }

    /// The limit of imports into one workspace at a time. `None`: there is none.
    pub fn imports_of_workspace(&self) -> Option<Limit> {
        limit("imports_per_workspace", self.imports_per_workspace)
    }

    /// The limit of all imports at a time. `None`: there is none.
    pub fn imports(&self) -> Option<Limit> {
        limit("imports_at_once", self.imports_at_once)
    }
}

fn limit(name: &'static str, maximum: u64) -> Option<Limit> {
    (maximum > 0).then_some(Limit { name, maximum })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connections_of_an_address_have_a_limit_of_their_own() {
        for (text, expected) in
            [("", Some(1_024)), ("connections_per_address = 2", Some(2)), ("connections_per_address = 0", None)]
        {
            let limits: Limits = toml::from_str(text).unwrap();
            assert_eq!(limits.connections().map(|limit| limit.maximum), expected, "{text}");
        }
    }

    #[test]
    fn a_workspace_has_limits_of_its_keys_and_of_what_they_take_at_an_edge() {
        let maximum = |limit: Option<Limit>| limit.map(|limit| limit.maximum);
        for (text, keys, bytes) in [
            ("", Some(1_000_000), Some(268_435_456)),
            ("keys_per_workspace = 2\nbytes_per_workspace = 3", Some(2), Some(3)),
            ("keys_per_workspace = 0\nbytes_per_workspace = 0", None, None),
        ] {
            let limits: Limits = toml::from_str(text).unwrap();
            assert_eq!((maximum(limits.keys()), maximum(limits.bytes())), (keys, bytes), "{text}");
        }
    }

    #[test]
    fn imports_have_a_total_limit_and_one_for_each_workspace() {
        for (text, expected) in [
            ("", (Some(1), Some(4))),
            ("imports_per_workspace = 2\nimports_at_once = 8", (Some(2), Some(8))),
            ("imports_per_workspace = 0\nimports_at_once = 0", (None, None)),
        ] {
            let limits: Limits = toml::from_str(text).unwrap();
            let maximum = |limit: Option<Limit>| limit.map(|limit| limit.maximum);
            assert_eq!((maximum(limits.imports_of_workspace()), maximum(limits.imports())), expected, "{text}");
        }
    }

    #[test]
    fn a_configured_limit_applies_to_both_kinds_of_token_and_0_means_none() {
        let maximum = |limit: Option<Limit>| limit.map(|limit| limit.maximum);
        for (text, file, made, workers) in [
            ("", Some(20_000), Some(1_000), Some(256)),
            ("instances_per_edge_token = 5", Some(5), Some(5), Some(256)),
            ("instances_per_edge_token = 0\nworkers_per_instance = 0", None, None, None),
            ("workers_per_instance = 512", Some(20_000), Some(1_000), Some(512)),
        ] {
            let limits: Limits = toml::from_str(text).unwrap();
            let found = (maximum(limits.instances(TokenKind::File)), maximum(limits.instances(TokenKind::Created)));
            assert_eq!((found, maximum(limits.workers())), ((file, made), workers), "{text}");
        }
    }
}
