//! Control plane, Envoy and upstream together, as the demo runs them.

use crate::admin::{Admin, CreatedKey};
use crate::control_plane::ControlPlane;
use crate::echo::Echo;
use crate::envoy::{Envoy, EnvoyConfig};
use crate::wait::eventually;

/// Everything, ready: one workspace, `acme`, and two workers that have their keys.
pub struct Stack {
    // Dropped in this order: Envoy first, so that it doesn't log the others' end.
    pub envoy: Envoy,
    pub config: EnvoyConfig,
    pub control_plane: ControlPlane,
    pub echo: Echo,
    pub admin: Admin,
}

impl Stack {
    pub fn start() -> Self {
        Self::start_with(|_| {})
    }

    /// For tests of the SQLite file, whatever engine the other tests use.
    pub fn start_on_sqlite() -> Self {
        Self::start_at(ControlPlane::start_on_sqlite(), |_| {})
    }

    /// As [`Self::start`], with changes to Envoy's config.
    pub fn start_with(change: impl FnOnce(&mut EnvoyConfig)) -> Self {
        Self::start_at(ControlPlane::start(), change)
    }

    fn start_at(control_plane: ControlPlane, change: impl FnOnce(&mut EnvoyConfig)) -> Self {
        let echo = Echo::start();
        let admin = control_plane.admin();
        admin.create_workspace("acme");
        let mut config = EnvoyConfig::new(control_plane.port, echo.port, &control_plane.edge_token());
        change(&mut config);
        let mut envoy = Envoy::start(&config);
        envoy.wait_ready();
        Self { envoy, config, control_plane, echo, admin }
    }

    /// Waits until every worker allows this key to read reviews.
    pub fn wait_known(&self, key: &CreatedKey) {
        for mut connection in self.envoy.connections(8) {
            eventually("the key is known to every worker", || {
                let seen = connection.get("/v1/reviews", &[("x-api-key", &key.secret)]).verdict();
                if seen == "200 -" { Ok(()) } else { Err(seen) }
            });
        }
    }
}
