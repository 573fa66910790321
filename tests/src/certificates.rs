//! Certificates from a certificate authority that a test creates.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

/// A certificate authority, with its own certificate in `<name>.pem`.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut parameters = CertificateParams::new(Vec::new()).expect("parameters");
        // A distinct name: a certificate whose issuer has the same name would look self-signed.
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = parameters.self_signed(&key).expect("a certificate");
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).expect("its file");
        Self { folder: folder.to_owned(), issuer: Issuer::new(parameters, key) }
    }

    /// Writes `<name>.pem` and `<name>.key`, valid for these names and addresses.
    pub fn issue(&self, name: &str, good_for: &[&str]) {
        let key = KeyPair::generate().expect("a key");
        let names = good_for.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let mut parameters = CertificateParams::new(names).expect("parameters");
        parameters.distinguished_name.push(DnType::CommonName, name);
        let certificate = parameters.signed_by(&key, &self.issuer).expect("a certificate");
        std::fs::write(self.folder.join(format!("{name}.key")), key.serialize_pem()).expect("the key's file");
        std::fs::write(self.folder.join(format!("{name}.pem")), certificate.pem()).expect("the certificate's file");
    }
}
