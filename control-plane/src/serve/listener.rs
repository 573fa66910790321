//! Addresses: where requests come in, with TLS or without.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::watch;

use super::tls::{Files, Tls};
use crate::cli::ServeOptions;
use crate::places::Most;
use crate::problem::Limit;

/// Connections that may wait to be accepted; the system may allow fewer. Edges come back all at once after a restart.
const BACKLOG: u32 = 4096;

/// Connections of a listener: twice the edges that one control plane is made for.
const CONNECTIONS: usize = 20_000;

/// Connections on trial, besides.
const TRIALS: usize = 1_024;

/// Open files that are no connections: the database, its own connections, and what reads it.
const OTHER_FILES: usize = 128;

/// An address that is listened on.
pub(super) struct Listener {
    pub(super) socket: TcpListener,
    pub(super) address: SocketAddr,
    /// `None`: plain HTTP.
    pub(super) tls: Option<Tls>,
}

impl Listener {
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }
}

/// For admins, and for edges if they have an address of their own.
pub(super) fn listeners(
    options: &ServeOptions,
    ending: &watch::Receiver<bool>,
) -> anyhow::Result<(Listener, Option<Listener>)> {
    let pair = options.tls_certificate.clone().zip(options.tls_key.clone());
    let follow = |client_ca: Option<PathBuf>| {
        let files = pair.clone().map(|(certificate, key)| Files { certificate, key, client_ca });
        files.map(|files| Tls::follow(files, ending.clone())).transpose()
    };
    let insecure = options.insecure_http;
    let listener = listen("--listen", options.listen, follow(None)?, insecure)?;
    let edge_listener = match options.edge_listen {
        Some(address) => {
            let tls = follow(options.edge_client_ca.clone())?;
            Some(listen("--edge-listen", address, tls, insecure)?)
        }
        None => None,
    };
    Ok((listener, edge_listener))
}

fn listen(flag: &str, address: SocketAddr, tls: Option<Tls>, insecure_http: bool) -> anyhow::Result<Listener> {
    if tls.is_none() && !address.ip().is_loopback() && !insecure_http {
        anyhow::bail!(
            "{flag} {address}: plain HTTP would show tokens to the network; give --tls-certificate and --tls-key, listen \
             on 127.0.0.1, or say --insecure-http where TLS ends in front of it"
        );
    }
    let socket = bound(address)
        .with_context(|| format!("{flag} {address}: cannot listen there; stop what does, or choose another address"))?;
    let address = socket.local_addr().context("cannot tell the address that is listened on")?;
    Ok(Listener { socket, address, tls })
}

fn bound(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As the standard library does: a restart must not wait for the connections of the last run to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Connections that a listener may have at once: fewer where the system allows fewer open files, so that those beyond are
/// refused, and don't wait for one.
pub(super) fn places(open_files: Option<u64>, has_edge_listener: bool, of_address: Option<Limit>) -> Most {
    let files = open_files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let listeners = if has_edge_listener { 2 } else { 1 };
    let files = files.saturating_sub(OTHER_FILES) / listeners;
    let trials = (files / 8).min(TRIALS);
    Most { all: files.saturating_sub(trials).min(CONNECTIONS), trials, of_address }
}

/// Raises the limit of open files to what the system allows, and answers with it: each waiting edge takes one, and the usual
/// limit of 1,024 is there for programs that use select(2).
pub(super) fn raise_open_files() -> Option<u64> {
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
