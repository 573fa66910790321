//! One configuration of the filter, checked and ready to serve.

use policy::config::{Config, ConfigError};
use policy::path::RequestPath;
use policy::route::{self, RouteRule, Routes};

use crate::metadata::RouteMetadata;
use crate::templates::Templates;

/// What an edge was configured to do.
pub struct Edge {
    pub config: Config,
    pub token: Option<String>,
    routes: Routes,
    templates: Templates,
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
        Ok(Self { config, routes, templates: Templates::default(), token: None, health: Health::Sound })
    }

    /// From now on this edge lets nothing through.
    pub fn deny_all(&mut self) {
        self.health = Health::DenyAll;
    }

    pub fn health(&self) -> Health {
        self.health
    }

    /// What the request's route asks for: by its metadata, else by `routes`, else by `unmatched`; nothing where the path
    /// can be read in more than one way, which is `None`.
    pub fn route_rule<'a>(
        &'a self,
        metadata: RouteMetadata<'a>,
        method: &[u8],
        path: Option<&'a RequestPath<'_>>,
    ) -> RouteRule<'a> {
        let Some(path) = path else { return RouteRule::BadPath };
        match (self.health, metadata) {
            (Health::DenyAll, _) | (Health::Sound, RouteMetadata::Unusable) => RouteRule::Unknown,
            (Health::Sound, RouteMetadata::Absent) => self.routes.find(method, path, self.config.unmatched.rule()),
            (Health::Sound, RouteMetadata::Rule { rule, path: template }) => {
                route::stated(rule, template.map(|template| self.templates.bind(template, path)))
            }
        }
    }

    /// True for the path that readiness probes ask for.
    pub fn is_ready_path(&self, path: &[u8]) -> bool {
        path.split(|byte| *byte == b'?').next() == Some(self.config.ready_path.as_bytes())
    }
}
