//! The composition root: builds a control plane from its configuration, clock and randomness, and serves its routes.

use axum::Router;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;

use super::router;
use crate::api::metric_registry::Metrics;
use crate::api::{Api, Parts};
use crate::base::clock::Clock;
use crate::base::config::Config;
use crate::base::entropy::Entropy;
use crate::base::public_url::PublicUrl;
use crate::base::tokens::Token;
use crate::edges::Edges;
use crate::feed::Feed;
use crate::store::{Store, StoreError};
use crate::web::auth_failures::AuthFailureLimiter;
use crate::web::import_limiter::ImportLimiter;
use crate::web::spool::Spool;

/// What a control plane is built from.
pub struct AppConfig {
    pub store: Store,
    pub config: Config,
    pub clock: Clock,
    pub entropy: Entropy,
    /// The tokens of the two token files.
    pub admin_token: Token,
    pub edge_token: Token,
    pub public_url: PublicUrl,
    /// Where bodies of imports wait.
    pub spool: Spool,
    /// Counts the lines of the log that were lost.
    pub log_lines_lost: Counter,
}

/// A control plane without sockets. Its tasks end when `ending` becomes true, which the caller sends.
pub struct App {
    pub store: Store,
    pub edges: Edges,
    pub feed: Feed,
    pub imports: ImportLimiter,
    pub auth_failures: AuthFailureLimiter,
    api: Api,
}

impl App {
    /// Reads the instances from the store. `Err`: they can't be read.
    pub async fn build(parts: AppConfig, ending: watch::Receiver<bool>) -> Result<Self, StoreError> {
        let AppConfig { store, config, clock, entropy, admin_token, edge_token, public_url, spool, log_lines_lost } =
            parts;
        let auth_failures = AuthFailureLimiter::new(store.clone(), clock.clone());
        let edges = Edges::load(store.clone(), clock.clone(), config.limits, ending.clone()).await?;
        let feed = Feed::new(
            store.clone(),
            clock.clone(),
            edge_token.clone(),
            auth_failures.clone(),
            edges.clone(),
            config.log_revisions,
            ending,
        );
        let imports = ImportLimiter::new(config.limits, spool);
        let api = Api::from(Parts {
            imports: imports.clone(),
            store: store.clone(),
            clock,
            entropy,
            config,
            admin_token,
            edge_token,
            edges: edges.clone(),
            metrics: Metrics::new(store.clone(), feed.clone(), log_lines_lost),
            auth_failures: auth_failures.clone(),
            public_url,
        });
        Ok(Self { store, edges, feed, imports, auth_failures, api })
    }

    /// REST, the console and the feed, for one address.
    pub fn router(&self) -> Router {
        router::router(self.api.clone(), self.feed.clone())
    }

    /// REST and the console; and the feed, for an address of its own.
    pub fn separate_routers(&self) -> (Router, Router) {
        (router::rest(&self.api), router::edge_router(&self.api, self.feed.clone()))
    }
}
