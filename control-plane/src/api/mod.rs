//! REST for admins and their scripts. Knows HTTP and the store's public functions; `router.rs` has every route.

mod admin_tokens;
pub(crate) mod audit;
pub(crate) mod authority;
mod body;
mod edge_tokens;
mod edges;
mod enforcement;
#[cfg(fuzzing)]
pub mod fuzzing;
pub(crate) mod health;
mod idempotency;
mod identify;
mod json_lines;
mod keys;
pub mod metric_registry;
mod metrics;
pub(crate) mod observe;
pub mod openapi;
pub(crate) mod panics;
pub(crate) mod path;
mod precondition;
mod prefer;
pub(crate) mod principal;
mod query;
pub(crate) mod request_id;
mod response;
pub(crate) mod router;
mod workspaces;

use std::ops::Deref;
use std::sync::{Arc, OnceLock};

use axum::body::Bytes;

use self::metric_registry::Metrics;
use crate::base::clock::Clock;
use crate::base::config::Config;
use crate::base::entropy::Entropy;
use crate::base::public_url::PublicUrl;
use crate::base::tokens::Token;
use crate::edges::Edges;
use crate::operations::Operations;
use crate::store::Store;
use crate::web::auth_failures::AuthFailureLimiter;
use crate::web::import_limiter::ImportLimiter;

/// The state that handlers share. Each route and each request has a clone, which is cheap.
#[derive(Clone)]
pub struct Api(Arc<Shared>);

struct Shared {
    parts: Parts,
    /// The OpenAPI document as it is served. Cached: building it takes milliseconds, and requests for it need no token.
    document: OnceLock<Bytes>,
}

/// The parts of an [`Api`].
pub struct Parts {
    pub store: Store,
    pub clock: Clock,
    pub entropy: Entropy,
    pub config: Config,
    /// The platform admin's token, from its file.
    pub admin_token: Token,
    pub metrics: Metrics,
    pub auth_failures: AuthFailureLimiter,
    pub public_url: PublicUrl,
    /// The first edge token, from its file.
    pub edge_token: Token,
    /// The instances that subscribe to the feed.
    pub edges: Edges,
    /// Running imports, and the stored bodies of pending ones.
    pub imports: ImportLimiter,
}

impl From<Parts> for Api {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(Shared { parts, document: OnceLock::new() }))
    }
}

impl Api {
    /// The OpenAPI document as it is served here, built on the first request and shared.
    fn document(&self) -> Bytes {
        self.0.document.get_or_init(|| openapi::with_servers(&self.public_url).into()).clone()
    }

    /// What admins can do.
    pub(crate) fn operations(&self) -> Operations<'_> {
        let Parts { store, clock, entropy, config, admin_token, edge_token, .. } = &self.0.parts;
        Operations { store, clock, entropy, config, admin_token, edge_token }
    }
}

impl Deref for Api {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}
