//! Token files: one token per file, created at the first start, and authoritative from then on.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use policy::Digest;
use policy::key_text::{Kind, is_token};
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::base::entropy::{Entropy, EntropyError};
use crate::base::private_file::{self, FileExposure};
use crate::base::secret::Secret;

/// A token that clients may present. Kept as a digest: only its file contains the text.
#[derive(Clone)]
pub struct Token(Digest);

/// Whether a token file existed or was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenFileOrigin {
    Existing,
    Created,
}

/// Why a token file can't be used. Each error names the file and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    #[error("token file {path}: cannot read it: {cause}")]
    Read { path: PathBuf, cause: io::Error },
    #[error("token file {path}: cannot make it: {cause}; make its directory, or name another file")]
    Create { path: PathBuf, cause: io::Error },
    #[error("token file {path}: it is not a file; name a file, or a path where one can be made")]
    NotAFile { path: PathBuf },
    #[error("token file {path}: {cause}")]
    Exposed { path: PathBuf, cause: FileExposure },
    #[error(
        "token file {path}: expected one {expected} token in it and nothing else; delete the file to have one made"
    )]
    Content { path: PathBuf, expected: &'static str },
    #[error("token file {path}: {cause}")]
    Entropy { path: PathBuf, cause: EntropyError },
}

impl Token {
    /// The token with this text.
    pub fn of(text: &str) -> Self {
        Self(Digest::of(text.as_bytes()))
    }

    /// Whether this is the token's text. Takes the same time for every text of one length.
    pub fn is(&self, presented: &str) -> bool {
        self.has(&Digest::of(presented.as_bytes()))
    }

    /// Whether this is the token's digest.
    pub fn has(&self, digest: &Digest) -> bool {
        self.0.0.ct_eq(&digest.0).into()
    }

    /// The token in the file at `path`; creates the file and the token when there is none.
    pub fn from_file(path: &Path, kind: &Kind, entropy: &Entropy) -> Result<(Self, TokenFileOrigin), TokenFileError> {
        match Self::existing(path, kind)? {
            Some(token) => Ok((token, TokenFileOrigin::Existing)),
            None => create(path, kind, entropy).map(|token| (token, TokenFileOrigin::Created)),
        }
    }

    /// The token in the file at `path`; `None` when there is no such file.
    pub fn existing(path: &Path, kind: &Kind) -> Result<Option<Self>, TokenFileError> {
        match File::open(path) {
            Ok(file) => read(path, file, kind).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(TokenFileError::Read { path: path.to_owned(), cause }),
        }
    }
}

fn read(path: &Path, file: File, kind: &Kind) -> Result<Token, TokenFileError> {
    let failed = |cause| TokenFileError::Read { path: path.to_owned(), cause };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(TokenFileError::NotAFile { path: path.to_owned() });
    }
    private_file::check(&metadata).map_err(|cause| TokenFileError::Exposed { path: path.to_owned(), cause })?;
    let refused = || TokenFileError::Content { path: path.to_owned(), expected: name(kind) };
    let token = Secret::read(file).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => refused(),
        _ => failed(error),
    })?;
    if is_token(token.expose(), kind) { Ok(Token(token.digest())) } else { Err(refused()) }
}

fn create(path: &Path, kind: &Kind, entropy: &Entropy) -> Result<Token, TokenFileError> {
    let failed = |cause| TokenFileError::Create { path: path.to_owned(), cause };
    let secret = entropy.secret(kind).map_err(|cause| TokenFileError::Entropy { path: path.to_owned(), cause })?;
    let line = Zeroizing::new([secret.expose(), "\n"].concat());
    private_file::create(path, line.as_bytes()).map_err(failed)?;
    Ok(Token(secret.digest()))
}

fn name(kind: &Kind) -> &'static str {
    match kind {
        Kind::AdminToken => "`lkadm_…`",
        Kind::EdgeToken => "`lkedge_…`",
        Kind::Key(_) => "`lk_…`",
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, read_to_string, set_permissions, write};
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;

    fn load(path: &Path) -> Result<(Token, TokenFileOrigin), TokenFileError> {
        Token::from_file(path, &Kind::AdminToken, &Entropy::system())
    }

    #[test]
    fn a_missing_file_is_created_for_its_owner_only_and_read_at_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.token");
        let (created, origin) = load(&path).ok().unwrap();
        assert_eq!(origin, TokenFileOrigin::Created);
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        let text = read_to_string(&path).unwrap();
        assert!(created.is(text.trim_end()) && !created.is(&text) && !created.is(""));
        let (existing, origin) = load(&path).ok().unwrap();
        assert_eq!(origin, TokenFileOrigin::Existing);
        assert!(existing.is(text.trim_end()));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.token");
        load(&path).ok().unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644, 0o610] {
            set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            let error = load(&path).err().unwrap().to_string();
            assert!(error.contains("chmod 600") && error.contains(&format!("{mode:03o}")), "{error}");
        }
        set_permissions(&path, Permissions::from_mode(0o400)).unwrap();
        assert!(load(&path).is_ok());
    }

    #[test]
    fn a_file_without_exactly_one_token_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.token");
        let admin = Entropy::system().secret(&Kind::AdminToken).ok().unwrap();
        let edge = Entropy::system().secret(&Kind::EdgeToken).ok().unwrap();
        for (name, content) in [
            ("empty", String::new()),
            ("a word", "secret".to_owned()),
            ("two tokens", format!("{0}\n{0}\n", admin.expose())),
            ("a token of another kind", edge.expose().to_owned()),
            ("a comment", format!("# token\n{}", admin.expose())),
        ] {
            write(&path, content).unwrap();
            set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
            let error = load(&path).err().unwrap().to_string();
            assert!(error.contains("expected one") && error.contains("admin.token"), "{name}: {error}");
            assert!(!error.contains(admin.expose()), "{name}");
        }
    }

    #[test]
    fn a_path_that_can_hold_no_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(load(directory.path()).err().unwrap().to_string().contains("not a file"));
        let error = load(&directory.path().join("nowhere/admin.token")).err().unwrap().to_string();
        assert!(error.contains("make its directory"), "{error}");
    }
}
