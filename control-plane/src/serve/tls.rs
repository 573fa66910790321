//! TLS: certificates from files, reloaded when the files change.

use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tracing::{error, info};

/// How often the files are checked; costs a stat each.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The files of one listener.
#[derive(Clone, Debug)]
pub(super) struct TlsFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// If set, only clients with a certificate of this authority may connect.
    pub(super) client_ca: Option<PathBuf>,
}

/// The configuration in the files as of now. Clones share it.
#[derive(Clone)]
pub(super) struct Tls(watch::Receiver<Arc<ServerConfig>>);

/// Why files can't be used. Each error names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub(super) enum TlsError {
    #[error("{what} {path}: cannot read it: {cause}")]
    Read { what: &'static str, path: PathBuf, cause: pem::Error },
    #[error("{what} {path}: it contains no certificate; give a file in PEM format")]
    Empty { what: &'static str, path: PathBuf },
    #[error("--tls-key {path} and --tls-certificate {certificate}: {cause}; give a certificate and its own key")]
    Pair { path: PathBuf, certificate: PathBuf, cause: rustls::Error },
    #[error("--edge-client-ca {path}: {cause}")]
    ClientCa { path: PathBuf, cause: String },
}

impl Tls {
    /// Loads `files`, and reloads them when they change, until `ending` becomes true.
    pub(super) fn load_and_watch(files: TlsFiles, ending: watch::Receiver<bool>) -> Result<Self, TlsError> {
        // Taken before the files are read: a file that changes in between is loaded again.
        let stamp = files.stamp();
        let (sender, receiver) = watch::channel(files.load()?);
        tokio::spawn(watch_files(files, stamp, sender, ending));
        Ok(Self(receiver))
    }

    /// Performs a handshake with the current certificate.
    pub(super) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(&self, stream: S) -> io::Result<TlsStream<S>> {
        let config = Arc::clone(&self.0.borrow());
        TlsAcceptor::from(config).accept(stream).await
    }
}

async fn watch_files(
    files: TlsFiles,
    mut stamp: Vec<Option<FileStamp>>,
    sender: watch::Sender<Arc<ServerConfig>>,
    mut ending: watch::Receiver<bool>,
) {
    let mut checks = interval(CHECK_INTERVAL);
    checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = checks.tick() => {}
            _ = ending.wait_for(|ending| *ending) => return,
        }
        let now = files.stamp();
        if now == stamp {
            continue;
        }
        stamp = now;
        match files.load() {
            Ok(config) => {
                sender.send_replace(config);
                info!(certificate = %files.certificate.display(), "reloaded the TLS certificate");
            }
            // Maybe only half of a pair is written yet; the other half changes the stamp again.
            Err(cause) => error!(%cause, "cannot reload the TLS certificate; the previous one stays in use"),
        }
    }
}

/// The metadata that differs after a file was written or replaced.
#[derive(Debug, PartialEq, Eq)]
struct FileStamp {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

impl From<Metadata> for FileStamp {
    fn from(file: Metadata) -> Self {
        Self { inode: file.ino(), length: file.len(), modified: (file.mtime(), file.mtime_nsec()) }
    }
}

impl TlsFiles {
    fn stamp(&self) -> Vec<Option<FileStamp>> {
        let paths = [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()];
        paths.into_iter().flatten().map(|path| std::fs::metadata(path).ok().map(FileStamp::from)).collect()
    }

    fn load(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let chain = certificates("--tls-certificate", &self.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(|cause| TlsError::Read {
            what: "--tls-key",
            path: self.key.clone(),
            cause,
        })?;
        let pair = |cause| TlsError::Pair { path: self.key.clone(), certificate: self.certificate.clone(), cause };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(pair)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let refused = |cause: String| TlsError::ClientCa { path: path.clone(), cause };
                let mut roots = RootCertStore::empty();
                for certificate in certificates("--edge-client-ca", path)? {
                    roots.add(certificate).map_err(|cause| refused(cause.to_string()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|cause| refused(cause.to_string()))?)
            }
        };
        let mut config = builder.with_single_cert(chain, key).map_err(pair)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let failed = |cause| TlsError::Read { what, path: path.to_owned(), cause };
    let read = CertificateDer::pem_file_iter(path).map_err(failed)?;
    let chain = read.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if chain.is_empty() { Err(TlsError::Empty { what, path: path.to_owned() }) } else { Ok(chain) }
}
