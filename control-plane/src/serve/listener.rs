//! Listening sockets, with TLS or without.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpSocket, UnixListener};
use tokio::sync::watch;

use super::address::{ListenAddress, resolved};
use super::tls::{Tls, TlsError, TlsFiles};
use super::unix_socket::{self, SocketFile};
use crate::base::limit::Limit;
use crate::base::public_url::PublicUrl;
use crate::serve::ServeOptions;
use crate::web::connection_slots::SlotLimits;

/// Connections that may wait to be accepted; the system may allow fewer. After a restart all edges reconnect together.
pub(super) const BACKLOG: u32 = 4096;

/// Connections of a listener: twice the number of edges that one control plane is designed for.
const CONNECTIONS: usize = 20_000;

/// Additional connections on trial.
const TRIALS: usize = 1_024;

/// Open files that are not clients' connections: the database, the connections to it, and its readers.
const OTHER_FILES: usize = 128;

/// What one of the flags that name an address listens on.
pub(super) struct Listener {
    pub(super) sockets: Vec<ListeningSocket>,
    /// For TCP sockets. `None`: plain HTTP, which a Unix socket always uses.
    pub(super) tls: Option<Tls>,
    /// Host and port that it is reached by; `None` for a Unix socket.
    authority: Option<String>,
}

/// A socket that accepts connections.
pub(super) enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl Listener {
    pub(super) fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The address of each socket, as a client uses it.
    pub(super) fn addresses(&self) -> Vec<String> {
        let address = |socket: &ListeningSocket| match socket {
            ListeningSocket::Tcp(listener) => {
                let address = listener.local_addr().map_or_else(|_| "?".to_owned(), |address| address.to_string());
                format!("{}://{address}", self.scheme())
            }
            ListeningSocket::Unix(_, file) => file.to_string(),
        };
        self.sockets.iter().map(address).collect()
    }

    /// The URL that people reach it by, unless the operator sets another.
    pub(super) fn public_url(&self) -> PublicUrl {
        PublicUrl::of(self.scheme(), self.authority.as_deref().unwrap_or("localhost"))
    }
}

/// The listener for admins, and the one for edges if they have an address of their own.
pub(super) fn listeners(
    options: &ServeOptions,
    ending: &watch::Receiver<bool>,
) -> anyhow::Result<(Listener, Option<Listener>)> {
    let pair = options.tls_certificate.clone().zip(options.tls_key.clone());
    let load_tls = |client_ca: Option<PathBuf>| {
        let files = pair.clone().map(|(certificate, key)| TlsFiles { certificate, key, client_ca });
        files.map(|files| Tls::load_and_watch(files, ending.clone())).transpose()
    };
    let insecure = options.insecure_http;
    let is_unix = |address: &ListenAddress| matches!(address, ListenAddress::Unix(_));
    let edges_by_unix = options.edge_listen.as_ref().is_some_and(is_unix);
    if edges_by_unix && options.edge_client_ca.is_some() {
        anyhow::bail!(
            "--edge-client-ca: a Unix socket has no TLS, so no client certificate can be requested; give --edge-listen \
             an address, or omit the option"
        );
    }
    if pair.is_some() && is_unix(&options.listen) && options.edge_listen.as_ref().is_none_or(is_unix) {
        anyhow::bail!(
            "--tls-certificate: a Unix socket has no TLS, and there is no other listener; listen on an address, or omit \
             the option"
        );
    }
    let listener = listen("--listen", &options.listen, || load_tls(None), insecure)?;
    let edge_listener = match &options.edge_listen {
        Some(address) => Some(listen("--edge-listen", address, || load_tls(options.edge_client_ca.clone()), insecure)?),
        None => None,
    };
    Ok((listener, edge_listener))
}

fn listen(
    flag: &str,
    address: &ListenAddress,
    tls: impl FnOnce() -> Result<Option<Tls>, TlsError>,
    insecure_http: bool,
) -> anyhow::Result<Listener> {
    let cannot =
        || format!("{flag} {address}: cannot listen on it; stop the program that does, or choose another address");
    let (addresses, host) = match address {
        ListenAddress::Unix(path) => {
            let (listener, file) =
                unix_socket::listen(path).map_err(|cause| anyhow::anyhow!("{flag} {address}: {cause:#}"))?;
            return Ok(Listener { sockets: vec![ListeningSocket::Unix(listener, file)], tls: None, authority: None });
        }
        ListenAddress::Address(address) => (vec![*address], None),
        ListenAddress::Name { host, port } => {
            let unknown = || format!("{flag} {address}: the name cannot be resolved; give an address instead");
            (resolved(host, *port).with_context(unknown)?, Some(host))
        }
    };
    let tls = tls()?;
    if let Some(open) = addresses.iter().find(|address| !address.ip().is_loopback())
        && tls.is_none()
        && !insecure_http
    {
        let resolved = if host.is_some() { format!(" is {open}, and") } else { ":".to_owned() };
        anyhow::bail!(
            "{flag} {address}{resolved} plain HTTP would show tokens to the network; give --tls-certificate and \
             --tls-key, listen on 127.0.0.1, or give --insecure-http if a proxy in front of it terminates TLS"
        );
    }
    let sockets = bind_all(&addresses).with_context(cannot)?;
    let first = sockets.first().ok_or_else(|| anyhow::anyhow!(cannot()))?.local_addr()?;
    let authority = host.map_or_else(|| first.to_string(), |host| format!("{host}:{}", first.port()));
    Ok(Listener { sockets: sockets.into_iter().map(ListeningSocket::Tcp).collect(), tls, authority: Some(authority) })
}

/// Listens on all of these addresses, on one port. An address that the machine doesn't have, such as IPv6 where that is
/// off, is skipped if there is another one, because a name may resolve to both.
fn bind_all(addresses: &[SocketAddr]) -> io::Result<Vec<TcpListener>> {
    let (mut sockets, mut missing): (Vec<TcpListener>, _) = (Vec::new(), None);
    for address in addresses {
        let mut address = *address;
        if let (0, Some(first)) = (address.port(), sockets.first()) {
            address.set_port(first.local_addr()?.port());
        }
        match bind_one(address) {
            Ok(socket) => sockets.push(socket),
            Err(cause) if is_address_missing(&cause) => {
                tracing::debug!(%address, %cause, "this machine doesn't have an address");
                missing = Some(cause);
            }
            Err(cause) => return Err(cause),
        }
    }
    match missing {
        Some(cause) if sockets.is_empty() => Err(cause),
        Some(_) | None => Ok(sockets),
    }
}

fn is_address_missing(cause: &io::Error) -> bool {
    let is_unknown = cause.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error());
    is_unknown || cause.kind() == io::ErrorKind::AddrNotAvailable
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // As in the standard library: a restart must not wait until the system forgets the connections of the last run.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// How many connections a listener may have at a time: fewer if the system allows fewer open files, so that further
/// ones are refused and don't wait for a file.
pub(super) fn slot_limits(open_files: Option<u64>, has_edge_listener: bool, of_address: Option<Limit>) -> SlotLimits {
    let files = open_files.map_or(usize::MAX, |files| usize::try_from(files).unwrap_or(usize::MAX));
    let listeners = if has_edge_listener { 2 } else { 1 };
    let files = files.saturating_sub(OTHER_FILES) / listeners;
    let trials = (files / 8).min(TRIALS);
    SlotLimits { all: files.saturating_sub(trials).min(CONNECTIONS), trials, of_address }
}

/// Raises the limit of open files to what the system allows, and returns it. Each waiting edge takes one, and the usual
/// limit of 1,024 is meant for programs that use select(2).
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

#[cfg(test)]
mod tests {
    use super::*;

    fn ports(addresses: &[&str]) -> io::Result<Vec<u16>> {
        let addresses: Vec<SocketAddr> = addresses.iter().map(|text| text.parse().unwrap()).collect();
        bind_all(&addresses)?.iter().map(|socket| Ok(socket.local_addr()?.port())).collect()
    }

    #[tokio::test]
    async fn the_addresses_of_a_name_share_a_port_and_missing_ones_are_left_out() {
        let both = ports(&["127.0.0.1:0", "127.0.0.2:0"]).unwrap();
        assert!(both.len() == 2 && both[0] == both[1] && both[0] != 0, "{both:?}");
        // 203.0.113.0/24 is reserved for documentation.
        assert_eq!(ports(&["203.0.113.1:0", "127.0.0.1:0"]).unwrap().len(), 1);
        assert!(ports(&["203.0.113.1:0"]).is_err());
        let taken = bind_one("127.0.0.2:0".parse().unwrap()).unwrap();
        let taken = taken.local_addr().unwrap();
        let refused = bind_all(&[SocketAddr::from(([127, 0, 0, 1], taken.port())), taken]);
        assert_eq!(refused.map(|_| ()).map_err(|cause| cause.kind()), Err(io::ErrorKind::AddrInUse));
    }
}
