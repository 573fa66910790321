//! The name of a source of keys.

use policy::config::Config;

/// The name of a source. Configurations that differ in any of its parts never share a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceName {
    pub cluster: String,
    pub authority: String,
    pub environment: String,
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
