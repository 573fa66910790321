//! One configuration of the filter, validated and ready to serve.

use policy::config::{Config, ConfigError};
use policy::path::RequestPath;
use policy::route::{self, RouteRule, Routes};

use crate::metadata::RouteMetadata;
use crate::templates::Templates;

/// An edge, as configured.
pub struct Edge {
    /// The plugin configuration, checked by [`Config::parse`].
    pub config: Config,
    /// The edge token. `None`: the configuration names no variable for it, or the variable is empty or missing.
    pub token: Option<String>,
    routes: Routes,
    templates: Templates,
    health: Health,
}

/// Whether the edge could be set up in Envoy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Envoy accepted everything: requests are decided by their routes and keys.
    Healthy,
    /// Envoy refused something that enforcement depends on, or the source of keys was in use: this worker denies every
    /// request.
    DenyAll,
}

impl Edge {
    /// Parses and checks the plugin configuration; an error names the field.
    pub fn parse(json: &[u8]) -> Result<Self, ConfigError> {
        let (config, routes) = Config::parse(json)?;
        Ok(Self { config, routes, templates: Templates::default(), token: None, health: Health::Healthy })
    }

    /// From now on this edge denies every request.
    pub fn deny_all(&mut self) {
        self.health = Health::DenyAll;
    }

    /// Whether this worker decides requests at all. [`Health::DenyAll`] is final.
    pub fn health(&self) -> Health {
        self.health
    }

    /// What the request's route requires: by its metadata, else by `routes`, else by `unmatched`. A path that is
    /// ambiguous is `None`, and is denied.
    pub fn route_rule<'a>(
        &'a self,
        metadata: RouteMetadata<'a>,
        method: &[u8],
        path: Option<&'a RequestPath<'_>>,
    ) -> RouteRule<'a> {
        let Some(path) = path else { return RouteRule::BadPath };
        match (self.health, metadata) {
            (Health::DenyAll, _) | (Health::Healthy, RouteMetadata::Unusable) => RouteRule::Unknown,
            (Health::Healthy, RouteMetadata::Absent) => self.routes.find(method, path, self.config.unmatched.rule()),
            (Health::Healthy, RouteMetadata::Rule { rule, path: template }) => {
                route::rule_from_metadata(rule, template.map(|template| self.templates.bind(template, path)))
            }
        }
    }

    /// Whether this is the path of readiness probes.
    pub fn is_ready_path(&self, path: &[u8]) -> bool {
        path.split(|byte| *byte == b'?').next() == Some(self.config.ready_path.as_bytes())
    }
}
