//! TLS and separate addresses for edges, as the binary serves them.

use std::fs::write;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, crypto::ring};

use crate::start::{Running, command, failed};
use crate::waiting::until;

/// A certificate authority.
pub(crate) struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).unwrap();
        Self { certificate, issuer: Issuer::new(parameters, key) }
    }

    /// Its certificate, as PEM.
    pub(crate) fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Writes `<name>.pem` and `<name>.key`, good for `localhost`.
    pub(crate) fn issue(&self, directory: &Path, name: &str) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        write(directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        write(directory.join(format!("{name}.pem")), certificate.pem()).unwrap();
    }
}

/// The answer to a client that trusts `authority` and requests GET `path`; it presents the certificate `own` if the
/// server requests one.
async fn get(address: &str, authority: &Authority, own: Option<&Path>, path: &str) -> std::io::Result<String> {
    let mut roots = RootCertStore::empty();
    roots.add(authority.certificate.der().clone()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let chain = vec![CertificateDer::from_pem_file(path.with_extension("pem")).unwrap()];
            let key = PrivateKeyDer::from_pem_file(path.with_extension("key")).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    };
    let stream = TcpStream::connect(address.parse::<SocketAddr>().unwrap()).await?;
    let mut stream = TlsConnector::from(Arc::new(config)).connect("localhost".try_into().unwrap(), stream).await?;
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

const TLS: [&str; 4] = ["--tls-certificate", "server.pem", "--tls-key", "server.key"];

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (Authority::new(), Authority::new());
    first.issue(directory.path(), "server");
    let running = Running::start(command(directory.path(), &TLS));
    let answer = get(&running.address, &first, None, "/healthz").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(get(&running.address, &second, None, "/healthz").await.is_err());

    second.issue(directory.path(), "server");
    let is_served = async || get(&running.address, &second, None, "/healthz").await.is_ok();
    until("the new certificate is served", is_served).await;
    // With half of a new pair, the old pair stays in use.
    write(directory.path().join("server.key"), "no key").unwrap();
    assert!(get(&running.address, &second, None, "/healthz").await.is_ok());
}

#[tokio::test]
async fn edges_with_an_address_of_their_own_need_a_certificate_of_their_authority() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    let (ours, edges, others) = (Authority::new(), Authority::new(), Authority::new());
    ours.issue(directory.path(), "server");
    edges.issue(directory.path(), "edge");
    others.issue(directory.path(), "other");
    write(at("edges.pem"), edges.pem()).unwrap();
    let flags = [&TLS[..], &["--edge-listen", "127.0.0.1:0", "--edge-client-ca", "edges.pem"]].concat();
    let mut running = Running::start(command(directory.path(), &flags));
    let edge_address = running.next_address();

    let answer = get(&edge_address, &ours, Some(&at("edge")), "/edge/v1/feed").await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 401"), "a certificate is no token: {answer}");
    for own in [None, Some(at("other"))] {
        let refused = get(&edge_address, &ours, own.as_deref(), "/healthz").await;
        assert!(refused.as_ref().is_err() || refused.as_ref().is_ok_and(String::is_empty), "{own:?}: {refused:?}");
    }
    let admin = get(&running.address, &ours, None, "/healthz").await.unwrap();
    assert!(admin.starts_with("HTTP/1.1 200"), "admins need no certificate: {admin}");
}

#[tokio::test]
async fn an_address_for_edges_serves_edges_alone_and_the_other_one_no_more() {
    let directory = tempfile::tempdir().unwrap();
    let mut running = Running::start(command(directory.path(), &["--edge-listen", "127.0.0.1:0"]));
    let (admins, edges) = (running.address.clone(), running.next_address());
    let status = async |address: &str, path: &str| {
        let answer = reqwest::get(format!("http://{address}{path}")).await.unwrap();
        answer.status().as_u16()
    };
    for (path, at_admins, at_edges) in [
        ("/healthz", 200, 200),
        ("/readyz", 200, 200),
        ("/readyz?for=edges", 200, 200),
        ("/readyz?for=changes", 200, 200),
        ("/readyz?for=nothing", 422, 422),
        ("/openapi.json", 200, 404),
        ("/v1/workspaces", 401, 404),
        ("/metrics", 401, 404),
        ("/edge/v1/feed", 404, 401),
        ("/edge/v1/snapshots/0/0/0", 404, 401),
    ] {
        assert_eq!((status(&admins, path).await, status(&edges, path).await), (at_admins, at_edges), "{path}");
    }
}

#[test]
fn tls_that_can_not_be_served_reports_why_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    Authority::new().issue(directory.path(), "server");
    Authority::new().issue(directory.path(), "other");
    write(at("empty.pem"), "").unwrap();
    for (more, names) in [
        (&["--tls-certificate", "none.pem", "--tls-key", "server.key"][..], "--tls-certificate none.pem: cannot read"),
        (&["--tls-certificate", "empty.pem", "--tls-key", "server.key"], "empty.pem: it contains no certificate"),
        (&["--tls-certificate", "server.pem", "--tls-key", "none.key"], "--tls-key none.key: cannot read"),
        (&["--tls-certificate", "server.pem", "--tls-key", "server.pem"], "--tls-key server.pem"),
        (&["--tls-certificate", "server.pem", "--tls-key", "other.key"], "a certificate and its own key"),
        (&["--edge-listen", "0.0.0.0:0"], "--edge-listen 0.0.0.0:0: plain HTTP"),
    ] {
        let output = failed(directory.path(), more);
        let printed = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), printed.lines().count()), (Some(1), 1), "{more:?}: {printed}");
        assert!(printed.contains(names), "{more:?}: {printed}");
        assert!(!at("admin.token").exists(), "{more:?}");
    }
    for more in [
        &["--tls-certificate", "server.pem"][..],
        &["--tls-key", "server.key"],
        &["--edge-listen", "127.0.0.1:0", "--edge-client-ca", "server.pem"],
        &["--public-url", "keys.example.com"],
    ] {
        assert_eq!(failed(directory.path(), more).status.code(), Some(2), "{more:?}");
    }
}
