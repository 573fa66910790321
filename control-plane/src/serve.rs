//! `latchkey serve`: from the options to a running service, and back to a closed database.

mod connections;
mod tls;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use policy::key_text::Kind;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

use self::connections::Limits;
use self::tls::{Files, Tls};
use crate::api::{Api, router};
use crate::cli::ServeOptions;
use crate::clock::Clock;
use crate::config::Config;
use crate::entropy::Entropy;
use crate::feed::Feed;
use crate::guesses::Guesses;
use crate::metrics::Metrics;
use crate::public_url::PublicUrl;
use crate::store::{Acting, Store};
use crate::tokens::{Origin, Token};

/// How often what time removes is removed, and the audit log's head is told.
const HOUR: Duration = Duration::from_secs(3600);

/// How long requests that were accepted may go on after the signal. Clients that never finish don't hold the end up.
const DRAIN: Duration = Duration::from_secs(10);

/// Serves until SIGTERM or SIGINT. An error before that is one line that names what is wrong.
pub async fn serve(options: ServeOptions) -> anyhow::Result<()> {
    let config = match &options.config {
        Some(path) => Config::from_file(path)?,
        None => Config::default(),
    };
    // All that can be refused comes first: a start that can't succeed leaves no token file behind.
    let tokens = [(&options.admin_token_file, Kind::AdminToken), (&options.edge_token_file, Kind::EdgeToken)];
    for (path, kind) in &tokens {
        Token::existing(path, kind)?;
    }
    let (end, ending) = watch::channel(false);
    let (listener, edge_listener) = listeners(&options, &ending).await?;
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let store = Store::open(&options.database, entropy.id(&clock)?, &config, Acting::system(clock.now())).await?;
    let token = |(path, kind): (&PathBuf, Kind)| -> anyhow::Result<Token> {
        let (token, origin) = Token::from_file(path, &kind, &entropy)?;
        if origin == Origin::Made {
            info!(file = %path.display(), "made a token file");
        }
        Ok(token)
    };
    let [admin, edge] = tokens;
    let (admin_token, edge_token) = (token(admin)?, token(edge)?);

    let guesses = Guesses::default();
    let feed = Feed::new(store.clone(), clock.clone(), edge_token.clone(), guesses.clone(), ending.clone());
    let api = Api {
        store: store.clone(),
        clock: clock.clone(),
        entropy,
        config: Arc::new(config),
        admin_token,
        edge_token,
        metrics: Metrics::new(store.clone()),
        guesses: guesses.clone(),
        public_url: options.public_url.unwrap_or_else(|| PublicUrl::of(listener.scheme(), listener.address)),
    };
    // Before anybody is told that it runs, and could end it.
    let signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    info!(address = %listener.address, revision = store.head().borrow().revision.0, public_url = %api.public_url, "serving");
    // For whoever started us; a closed standard output is no reason to end.
    let _ = writeln!(std::io::stdout(), "latchkey: listening on {}://{}", listener.scheme(), listener.address);
    let services = match edge_listener {
        None => vec![(listener, router::router(api, feed))],
        Some(edge) => {
            let _ = writeln!(std::io::stdout(), "latchkey: edges on {}://{}", edge.scheme(), edge.address);
            vec![(listener, router::rest(api)), (edge, router::edge_router(feed))]
        }
    };
    let hourly = tokio::spawn(hourly(store.clone(), clock, guesses, ending));
    run(services, end, signals).await;
    let _ = hourly.await;
    store.close().await;
    info!("closed");
    Ok(())
}

/// Where requests come in.
struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    /// `None`: plain HTTP.
    tls: Option<Tls>,
}

impl Listener {
    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// For admins, and for edges if they have an address of their own.
async fn listeners(
    options: &ServeOptions,
    ending: &watch::Receiver<bool>,
) -> anyhow::Result<(Listener, Option<Listener>)> {
    let pair = options.tls_certificate.clone().zip(options.tls_key.clone());
    let follow = |client_ca: Option<PathBuf>| {
        let files = pair.clone().map(|(certificate, key)| Files { certificate, key, client_ca });
        files.map(|files| Tls::follow(files, ending.clone())).transpose()
    };
    let insecure = options.insecure_http;
    let listener = listen("--listen", options.listen, follow(None)?, insecure).await?;
    let edge_listener = match options.edge_listen {
        Some(address) => {
            let tls = follow(options.edge_client_ca.clone())?;
            Some(listen("--edge-listen", address, tls, insecure).await?)
        }
        None => None,
    };
    Ok((listener, edge_listener))
}

async fn listen(flag: &str, address: SocketAddr, tls: Option<Tls>, insecure_http: bool) -> anyhow::Result<Listener> {
    if tls.is_none() && !address.ip().is_loopback() && !insecure_http {
        anyhow::bail!(
            "{flag} {address}: plain HTTP would show tokens to the network; give --tls-certificate and --tls-key, listen \
             on 127.0.0.1, or say --insecure-http where TLS ends in front of it"
        );
    }
    let socket = TcpListener::bind(address)
        .await
        .with_context(|| format!("{flag} {address}: cannot listen there; stop what does, or choose another address"))?;
    let address = socket.local_addr().context("cannot tell the address that is listened on")?;
    Ok(Listener { socket, address, tls })
}

/// Serves until a signal comes, and then until all that was accepted is answered, or [`DRAIN`] has passed.
async fn run(
    services: Vec<(Listener, Router)>,
    end: watch::Sender<bool>,
    (mut terminate, mut interrupt): (Signal, Signal),
) {
    let mut serving = tokio::task::JoinSet::new();
    for (Listener { socket, tls, .. }, router) in services {
        serving.spawn(connections::serve(socket, tls, router, Limits::default(), end.subscribe()));
    }
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    info!("ending: no more requests are accepted");
    end.send_replace(true);
    if tokio::time::timeout(DRAIN, serving.join_all()).await.is_err() {
        error!("some requests didn't end in time");
    }
}

/// Removes what is due, and tells the audit log's head, at the start and every hour.
async fn hourly(store: Store, clock: Clock, guesses: Guesses, mut ending: watch::Receiver<bool>) {
    let mut hours = tokio::time::interval(HOUR);
    hours.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = hours.tick() => {}
            _ = ending.wait_for(|ending| *ending) => return,
        }
        guesses.forget_quiet();
        // The store has logged the cause; the next hour tries again.
        let _ = store.sweep(Acting::system(clock.now())).await;
        if let Ok(Some(head)) = store.audit_head().await {
            info!(audit.revision = head.revision.0, audit.head = %head.hash, "the audit log's head");
        }
    }
}
