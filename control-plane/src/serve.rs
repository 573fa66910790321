//! `latchkey serve`: from the options to a running service, and back to a closed database.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::serve::ListenerExt as _;
use policy::key_text::Kind;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{error, info};

use crate::api::{Api, router};
use crate::cli::ServeOptions;
use crate::clock::Clock;
use crate::config::Config;
use crate::entropy::Entropy;
use crate::feed::Feed;
use crate::store::{Acting, Store};
use crate::tokens::{Origin, Token};

/// How often what time removes is removed.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

/// Connections that may wait to be accepted; the system may allow fewer. Edges come back all at once after a restart.
const BACKLOG: u32 = 4096;

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
    let open_files = raise_open_files();
    let listener = listen(options.listen, options.insecure_http)?;
    let (clock, entropy) = (Clock::system(), Entropy::system());
    let store = Store::open(&options.database, entropy.id(&clock)?, &config, system(&clock)).await?;
    let token = |(path, kind): (&PathBuf, Kind)| -> anyhow::Result<Token> {
        let (token, origin) = Token::from_file(path, &kind, &entropy)?;
        if origin == Origin::Made {
            info!(file = %path.display(), "made a token file");
        }
        Ok(token)
    };
    let [admin, edge] = tokens;
    let (admin_token, edge_token) = (token(admin)?, token(edge)?);

    let (end, ending) = watch::channel(false);
    let feed = Feed::new(store.clone(), clock.clone(), edge_token, config.log_revisions, ending.clone());
    let api = Api { store: store.clone(), clock: clock.clone(), entropy, config: Arc::new(config), admin_token };
    let address = listener.local_addr().context("cannot tell the address that is listened on")?;
    info!(%address, open_files, revision = store.head().borrow().revision.0, "serving");
    // For whoever started us; a closed standard output is no reason to end.
    let _ = writeln!(std::io::stdout(), "latchkey: listening on http://{address}");

    let sweeping = tokio::spawn(sweep(store.clone(), clock, ending));
    let compacting = tokio::spawn(feed.clone().keep_log());
    run(listener, router::router(api, feed), end).await?;
    let _ = tokio::join!(sweeping, compacting);
    store.close().await;
    info!("closed");
    Ok(())
}

/// Raises the limit of open files to what the system allows, and answers with it: each waiting edge takes one, and the usual
/// limit of 1,024 is there for programs that use select(2).
fn raise_open_files() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(cause) => {
            tracing::warn!(%cause, open_files = limit.current, "cannot raise the limit of open files");
            limit.current
        }
    }
}

fn listen(address: SocketAddr, insecure_http: bool) -> anyhow::Result<TcpListener> {
    if !address.ip().is_loopback() && !insecure_http {
        anyhow::bail!(
            "--listen {address}: plain HTTP would show tokens to the network; listen on 127.0.0.1, or say \
             --insecure-http where TLS ends in front of it"
        );
    }
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As the standard library does: a restart must not wait for the connections of the last run to be forgotten.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound()
        .with_context(|| format!("--listen {address}: cannot listen there; stop what does, or choose another address"))
}

/// Serves until a signal comes, and then until all that was accepted is answered, or [`DRAIN`] has passed.
async fn run(listener: TcpListener, router: Router, end: watch::Sender<bool>) -> anyhow::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut ending = end.subscribe();
    let mut drained = end.subscribe();
    let listener = listener.tap_io(|stream| {
        // Answers are small, and awaited.
        if let Err(cause) = stream.set_nodelay(true) {
            tracing::debug!(%cause, "a connection without TCP_NODELAY");
        }
    });
    let served = axum::serve(listener, router).with_graceful_shutdown(async move {
        let _ = ending.wait_for(|ending| *ending).await;
    });
    let signalled = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("ending: no more requests are accepted");
        end.send_replace(true);
        std::future::pending::<()>().await;
    };
    let overdue = async move {
        let _ = drained.wait_for(|ending| *ending).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        result = served => result.context("cannot go on serving"),
        () = overdue => {
            error!("some requests didn't end in time");
            Ok(())
        }
        () = signalled => Ok(()),
    }
}

/// Removes what is due, at the start and every hour.
async fn sweep(store: Store, clock: Clock, mut ending: watch::Receiver<bool>) {
    let mut hours = tokio::time::interval(SWEEP_EVERY);
    hours.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = hours.tick() => {}
            _ = ending.wait_for(|ending| *ending) => return,
        }
        // The store has logged the cause; the next hour tries again.
        let _ = store.sweep(system(&clock)).await;
    }
}

/// What the control plane does by itself is done by this principal.
fn system(clock: &Clock) -> Acting {
    Acting { principal: "system".to_owned(), at: clock.now() }
}
