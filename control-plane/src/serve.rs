//! `latchkey serve`: starts the service from its options, and shuts it down.

mod address;
pub mod app;
mod body;
mod connections;
mod database_options;
mod listener;
mod options;
mod proxies;
mod router;
mod signals;
mod socket;
mod tls;
mod unix_socket;

use std::path::PathBuf;
use std::time::Duration;

use policy::key_text::Kind;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{error, info, warn};

pub use self::address::ListenAddress;
use self::app::{App, AppConfig};
use self::connections::{ConnectionContext, Deadlines};
pub use self::database_options::{DatabaseOptions, PasswordOption};
use self::listener::{Listener, ListeningSocket, listeners, raise_open_files, slot_limits};
pub use self::options::ServeOptions;
use self::proxies::TrustedProxies;
pub use self::proxies::TrustedProxy;
use self::signals::Signals;
use crate::base::clock::Clock;
use crate::base::config::Config;
use crate::base::entropy::Entropy;
use crate::base::lossy_log::LossyWriter;
use crate::base::tokens::{Token, TokenFileOrigin};
use crate::edges::Edges;
use crate::store::{ChangeContext, Store};
use crate::web::auth_failures::AuthFailureLimiter;
use crate::web::connection_slots::ConnectionSlots;
use crate::web::spool::Spool;

/// How often expired data is removed, and the audit log's head is logged.
const HOUR: Duration = Duration::from_secs(3600);

/// How long accepted requests may run after the signal. Clients that never finish don't block the shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// How long the shutdown waits for a reader of standard output.
const FLUSH: Duration = Duration::from_millis(100);

/// Serves until SIGTERM, SIGINT or SIGHUP. An error before that is one line that names the cause. `log_lines_lost` is
/// shown with the metrics.
pub async fn serve(options: ServeOptions, log_lines_lost: Counter) -> anyhow::Result<()> {
    let config = match &options.config {
        Some(path) => Config::from_file(path)?,
        None => Config::default(),
    };
    // Everything that can be refused comes first, so that a failed start leaves no token file behind.
    let tokens = [(&options.admin_token_file, Kind::AdminToken), (&options.edge_token_file, Kind::EdgeToken)];
    let mut has_token_file = false;
    for (path, kind) in &tokens {
        has_token_file |= Token::existing(path, kind)?.is_some();
    }
    let (end, ending) = watch::channel(false);
    let open_files = raise_open_files();
    let (listener, edge_listener) = listeners(&options, &ending)?;
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let store =
        Store::open(options.database.database(), entropy.id(&clock)?, &config, ChangeContext::system(clock.now()))
            .await?;
    if has_token_file && store.was_new() {
        warn!(
            database = %options.database.database(),
            "the database is new, but there are token files already. If this control plane has served before, its \
             database is lost or its volume isn't mounted, and all keys are unknown: stop it, and mount the volume or \
             restore a backup (docs/operating.md). At a first start with token files of your own, this is expected"
        );
    }
    let token = |(path, kind): (&PathBuf, Kind)| -> anyhow::Result<Token> {
        let (token, origin) = Token::from_file(path, &kind, &entropy)?;
        if origin == TokenFileOrigin::Created {
            info!(file = %path.display(), "made a token file");
        }
        Ok(token)
    };
    let [admin, edge] = tokens;

    let parts = AppConfig {
        store: store.clone(),
        config,
        clock: clock.clone(),
        entropy: entropy.clone(),
        admin_token: token(admin)?,
        edge_token: token(edge)?,
        public_url: options.public_url.unwrap_or_else(|| listener.public_url()),
        spool: Spool::new(Spool::folder(&options.database.database()), options.import_spool_bytes),
        log_lines_lost,
    };
    let (public_url, connection_limit) = (parts.public_url.clone(), parts.config.limits.connections());
    let app = App::build(parts, ending.clone()).await?;
    let App { feed, edges, auth_failures, .. } = &app;
    // Before the first feed request, so that no edge gets more of the log than is kept. The store has logged a failure.
    let _ = feed.compact().await;
    // Before the address is announced, because a signal may follow.
    let signals = Signals::listen()?;
    let revision = store.head().borrow().revision.0;
    info!(address = listener.addresses().join(", "), %public_url, open_files, revision, "serving");
    // For the program that started this one. The service runs even if standard output is closed or has no reader.
    let announcements = LossyWriter::start(std::io::stdout(), Counter::default())?;
    let announce = |what: &str, listener: &Listener| {
        let lines = listener.addresses().into_iter().map(|address| format!("latchkey: {what} on {address}\n"));
        announcements.write_lines(&lines.collect::<String>());
    };
    announce("listening", &listener);
    let measuring = tokio::spawn(edges.clone().measure());
    let compacting = tokio::spawn(feed.clone().compact_log());
    let limits = slot_limits(open_files, edge_listener.is_some(), connection_limit);
    let deadlines = Deadlines::of(Duration::from_millis(options.still_ms));
    let proxies = TrustedProxies::new(&options.trusted_proxies);
    let services = match edge_listener {
        None => vec![(listener, app.router())],
        Some(edge) => {
            announce("edges", &edge);
            let (admins, edges) = app.separate_routers();
            vec![(listener, admins), (edge, edges)]
        }
    };
    let services = services.into_iter().flat_map(|(Listener { sockets, tls, .. }, router)| {
        let (slots, entropy) = (ConnectionSlots::new(limits), entropy.clone());
        let context = ConnectionContext { router, tls, slots, proxies: proxies.clone(), deadlines, entropy };
        sockets.into_iter().map(move |socket| (socket, context.clone()))
    });
    let services = services.collect();
    let watching = tokio::spawn(store.clone().watch(ending.clone()));
    let maintenance = tokio::spawn(run_hourly(store.clone(), clock, auth_failures.clone(), edges.clone(), ending));
    run(services, end, signals).await;
    let _ = tokio::join!(maintenance, watching, compacting, measuring);
    edges.release().await;
    store.close().await;
    announcements.flush_within(FLUSH);
    info!("closed");
    Ok(())
}

/// Serves until a signal arrives, and then until all accepted requests are answered, or [`DRAIN`] has passed.
async fn run(services: Vec<(ListeningSocket, ConnectionContext)>, end: watch::Sender<bool>, mut signals: Signals) {
    let mut serving = tokio::task::JoinSet::new();
    for (socket, context) in services {
        serving.spawn(connections::serve(socket, context, end.subscribe()));
    }
    let signal = signals.next().await;
    info!(signal, "shutting down: no further requests are accepted");
    end.send_replace(true);
    if tokio::time::timeout(DRAIN, serving.join_all()).await.is_err() {
        error!("some requests didn't end in time");
    }
}

/// Removes expired data, and logs the audit log's head, at the start and every hour.
async fn run_hourly(
    store: Store,
    clock: Clock,
    auth_failures: AuthFailureLimiter,
    edges: Edges,
    mut ending: watch::Receiver<bool>,
) {
    let mut hours = tokio::time::interval(HOUR);
    hours.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = hours.tick() => {}
            _ = ending.wait_for(|ending| *ending) => return,
        }
        auth_failures.evict_idle();
        // The store has logged the cause; the next hour tries again.
        let _ = store.sweep(&clock).await;
        let _ = edges.forget_silent().await;
        if let Ok(Some(head)) = store.audit_head().await {
            info!(audit.revision = head.revision.0, audit.head = %head.hash, "the audit log's head");
        }
    }
}
