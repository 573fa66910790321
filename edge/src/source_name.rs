//! The name of a source of keys.

use policy::config::Config;

/// The name of a source. Configurations that differ in any of its parts never share a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceName {
    /// The Envoy cluster of the control plane.
    pub cluster: String,
    /// The `:authority` of requests to it.
    pub authority: String,
    /// The environment that keys must be for, such as `live`.
    pub environment: String,
    /// The operator's name for the gateway, under which it subscribes.
    pub edge: String,
}

impl SourceName {
    /// The source of a configuration.
    pub fn of(config: &Config) -> Self {
        Self {
            cluster: config.control_plane.cluster.clone(),
            authority: config.control_plane.authority.clone(),
            environment: config.environment.to_string(),
            edge: config.edge.clone(),
        }
    }
}
