//! One configuration of the filter, checked and ready to serve.

use policy::config::{Config, ConfigError};
use policy::route::{self, RouteRule, Routes};

use crate::metadata::RouteMetadata;

/// What an edge was configured to do.
pub struct Edge {
    pub config: Config,
    pub token: Option<String>,
    routes: Routes,
    health: Health,
}

/// Whether the edge could be set up in Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    Sound,
    /// Envoy refused something that enforcement stands on: nothing but denials leaves this worker.
    DenyAll,
}

impl Edge {
    /// Parses and checks the plugin configuration; an error names the field.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let (config, routes) = Config::parse(json)?;
        Ok(Self { config, routes, token: None, health: Health::Sound })
    }

    /// From now on this edge lets nothing through.
    pub fn deny_all(&mut self) {
        self.health = Health::DenyAll;
    }

    pub fn health(&self) -> Health {
        self.health
    }

    /// What the request's route asks for: by its metadata, else by `routes`, else by `unmatched`.
    pub fn route_rule<'a>(&'a self, metadata: RouteMetadata<'a>, method: &[u8], path: &'a [u8]) -> RouteRule<'a> {
        match metadata {
            RouteMetadata::Absent => self.routes.find(method, path, self.config.unmatched.rule()),
            RouteMetadata::Unusable => RouteRule::Unknown,
            RouteMetadata::Rule { rule, path: template } => route::stated(rule, template, path),
        }
    }

    /// True for the path that readiness probes ask for.
    pub fn is_ready_path(&self, path: &[u8]) -> bool {
        path.split(|byte| *byte == b'?').next() == Some(self.config.ready_path.as_bytes())
    }
}
