//! Stores request bodies that must be complete before they are used: in unnamed files, with a limit for all together.

use crate::base::limit::Limit;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Body;
use futures_util::StreamExt as _;
use policy::WorkspaceId;
use tokio::runtime::Handle;
use tracing::error;

use crate::store::Database;
use crate::web::problem::Problem;

/// How much of a body may be in memory; the rest is written to its file in blocks of this size.
const BLOCK_BYTES: usize = 64 << 10;

/// The limit's name in a response. It isn't in the operator's file: it bounds the disk space that imports need.
const LIMIT_NAME: &str = "import_spool_bytes";

/// The share of the spool for bodies sent by one workspace's own admins, as a divisor. It fits one body of the largest
/// size, so a few slow ones don't keep everybody else from importing.
const TENANT_SHARE: u64 = 4;

/// A folder for request bodies, with a limit in bytes. Clones share it.
#[derive(Clone)]
pub struct Spool(Arc<Shared>);

struct Shared {
    folder: PathBuf,
    maximum: u64,
    used: Mutex<UsedBytes>,
}

/// Bytes that bodies use.
#[derive(Default)]
struct UsedBytes {
    all: u64,
    /// Those that workspaces' own admins sent.
    of_tenants: HashMap<WorkspaceId, u64>,
}

/// A body, or the part that has arrived so far. Reads from its beginning. Dropping it frees its file and its share of
/// the spool.
pub(crate) struct SpooledBody {
    /// Created when the first block is full. It is unnamed, so it disappears with its last descriptor, even after a
    /// crash.
    file: Option<File>,
    /// The bytes after those in the file.
    tail: Vec<u8>,
    /// How much of `tail` was read.
    read: usize,
    share: Share,
}

/// The bytes that count for a body, until this is dropped.
struct Share {
    spool: Spool,
    of_tenant: Option<WorkspaceId>,
    bytes: u64,
}

impl Spool {
    /// At most `maximum` bytes, in files in `folder`.
    pub fn new(folder: PathBuf, maximum: u64) -> Self {
        Self(Arc::new(Shared { folder, maximum, used: Mutex::default() }))
    }

    /// Where a control plane may write: beside its database file, else in the system's folder for temporary files.
    pub fn folder(database: &Database) -> PathBuf {
        match database {
            Database::File(path) => match path.parent().filter(|parent| *parent != Path::new("")) {
                Some(parent) => parent.to_owned(),
                None => PathBuf::from("."),
            },
            Database::Server { .. } => std::env::temp_dir(),
        }
    }

    /// Receives a body of at most `maximum` bytes, to its last byte. 429 if the spool is full, or if bodies sent by
    /// the admins of this workspace (`of_tenant`) use their share.
    pub(crate) async fn receive(
        &self,
        body: Body,
        maximum: usize,
        of_tenant: Option<WorkspaceId>,
    ) -> Result<SpooledBody, Problem> {
        let share = Share { spool: self.clone(), of_tenant, bytes: 0 };
        let mut spooled = SpooledBody { file: None, tail: Vec::new(), read: 0, share };
        let (mut body, mut length) = (body.into_data_stream(), 0_usize);
        while let Some(bytes) = body.next().await {
            // A client that has gone away gets no response anyway, and its incomplete body is not used.
            let bytes = bytes.map_err(|_| Problem::not_json("the body ended early".to_owned()))?;
            length = length.saturating_add(bytes.len());
            if length > maximum {
                return Err(Problem::too_large(maximum));
            }
            spooled.share.grow(bytes.len())?;
            spooled.tail.extend_from_slice(&bytes);
            if spooled.tail.len() >= BLOCK_BYTES {
                spooled = spooled.flush_tail().await.map_err(write_failed)?;
            }
        }
        spooled.rewind().map_err(write_failed)?;
        Ok(spooled)
    }

    /// Bytes that bodies use at the moment.
    #[cfg(test)]
    pub(crate) fn used_bytes(&self) -> u64 {
        self.lock().all
    }

    fn lock(&self) -> MutexGuard<'_, UsedBytes> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Share {
    fn grow(&mut self, by: usize) -> Result<(), Problem> {
        let (mut used, by) = (self.spool.lock(), u64::try_from(by).unwrap_or(u64::MAX));
        let reached = |maximum| Problem::too_many_bodies(Limit { name: LIMIT_NAME, maximum });
        let grown = |used: u64, maximum: u64| {
            used.checked_add(by).filter(|used| *used <= maximum).ok_or_else(|| reached(maximum))
        };
        let maximum = self.spool.0.maximum;
        let all = grown(used.all, maximum)?;
        if let Some(tenant) = self.of_tenant {
            let own = used.of_tenants.get(&tenant).copied().unwrap_or_default();
            used.of_tenants.insert(tenant, grown(own, maximum / TENANT_SHARE)?);
        }
        used.all = all;
        self.bytes = self.bytes.saturating_add(by);
        Ok(())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut used = self.spool.lock();
        used.all = used.all.saturating_sub(self.bytes);
        if let Some(tenant) = self.of_tenant
            && let Some(own) = used.of_tenants.get_mut(&tenant)
        {
            *own = own.saturating_sub(self.bytes);
            if *own == 0 {
                used.of_tenants.remove(&tenant);
            }
        }
    }
}

impl SpooledBody {
    /// Moves the tail into the file, which is created if there is none. If the caller has gone away, the body is
    /// dropped when this is done.
    async fn flush_tail(mut self) -> io::Result<Self> {
        let writing = tokio::task::spawn_blocking(move || {
            let mut file = match self.file.take() {
                Some(file) => file,
                None => tempfile::tempfile_in(&self.share.spool.0.folder)?,
            };
            file.write_all(&self.tail)?;
            self.tail.clear();
            self.file = Some(file);
            Ok(self)
        });
        writing.await.map_err(io::Error::other)?
    }

    /// Returns to the beginning of the body.
    pub(crate) fn rewind(&mut self) -> io::Result<()> {
        self.read = 0;
        self.file.as_mut().map_or(Ok(()), |file| file.seek(SeekFrom::Start(0)).map(drop))
    }
}

impl Drop for SpooledBody {
    /// Freeing a large file takes milliseconds, and this may run on an async thread.
    fn drop(&mut self) {
        if let (Some(file), Ok(runtime)) = (self.file.take(), Handle::try_current()) {
            drop(runtime.spawn_blocking(move || drop(file)));
        }
    }
}

impl Read for SpooledBody {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if let Some(file) = &mut self.file {
            let bytes = file.read(into)?;
            if bytes > 0 || into.is_empty() {
                return Ok(bytes);
            }
        }
        let bytes = self.tail.get(self.read..).unwrap_or_default().read(into)?;
        self.read = self.read.saturating_add(bytes);
        Ok(bytes)
    }
}

/// Usually a full disk. Logs the cause for the operator.
fn write_failed(cause: io::Error) -> Problem {
    error!(
        %cause,
        "the body of an import can't be stored: free space beside the database, or in the folder for temporary files"
    );
    Problem::spool_unwritable()
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use futures_util::{Stream, stream};

    use super::*;

    const MAXIMUM: u64 = 1 << 20;

    /// Pieces that all differ.
    fn pieces(sizes: &[usize]) -> Vec<Bytes> {
        let byte = |at: usize| u8::try_from(at % 251).unwrap();
        let mut from = 0;
        let mut piece = |size: usize| {
            from += size;
            (from - size..from).map(byte).collect()
        };
        sizes.iter().map(|size| piece(*size)).collect()
    }

    fn body(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
        Body::from_stream(pieces.map(Ok::<_, io::Error>))
    }

    async fn receive(spool: &Spool, sizes: &[usize]) -> Result<SpooledBody, Problem> {
        spool.receive(body(stream::iter(pieces(sizes))), usize::MAX, None).await
    }

    fn files(folder: &tempfile::TempDir) -> usize {
        std::fs::read_dir(folder.path()).unwrap().count()
    }

    #[tokio::test]
    async fn a_body_reads_as_it_was_sent_and_again() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().to_owned(), MAXIMUM);
        for (sizes, is_in_memory) in [
            (&[][..], true),
            (&[1][..], true),
            (&[BLOCK_BYTES - 1][..], true),
            (&[BLOCK_BYTES][..], false),
            (&[BLOCK_BYTES - 1, 1, 1][..], false),
            (&[10_000; 50][..], false),
            (&[500_000, 1, 70_000][..], false),
        ] {
            let mut spooled = receive(&spool, sizes).await.unwrap();
            assert_eq!(spooled.file.is_none(), is_in_memory, "{sizes:?}");
            assert!(spooled.tail.capacity() <= 8 * BLOCK_BYTES, "{sizes:?}");
            assert_eq!(files(&folder), 0, "{sizes:?}: the file has a name");
            let expected = pieces(sizes).concat();
            for _ in 0..2 {
                let mut read = Vec::new();
                spooled.read_to_end(&mut read).unwrap();
                assert!(read == expected, "{sizes:?}");
                spooled.rewind().unwrap();
            }
        }
    }

    #[tokio::test]
    async fn bodies_share_the_spool_and_free_their_part_however_they_end() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().to_owned(), MAXIMUM);
        let complete = receive(&spool, &[600_000]).await.unwrap();
        assert_eq!(spool.used_bytes(), 600_000);
        let refused = receive(&spool, &[400_000, 100_000]).await.err().unwrap();
        assert_eq!((refused.status().as_u16(), refused.code()), (429, "limit-reached"));
        assert_eq!(spool.used_bytes(), 600_000, "a refused one uses nothing");
        let too_large = spool.receive(body(stream::iter(pieces(&[10, 10]))), 19, None).await.err().unwrap();
        assert_eq!((too_large.code(), spool.used_bytes()), ("too-large", 600_000));

        let begun = stream::iter(pieces(&[400_000])).chain(stream::pending());
        let receiving = spool.receive(body(begun), usize::MAX, None);
        let unfinished = tokio::time::timeout(std::time::Duration::from_millis(1), receiving).await;
        assert!(unfinished.is_err(), "it has no end");
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        // A block may be on its way to the disk.
        while spool.used_bytes() != 600_000 {
            assert!(std::time::Instant::now() < deadline, "a client that went away uses {}", spool.used_bytes());
            tokio::task::yield_now().await;
        }
        let broken = stream::iter([Ok(Bytes::from_static(b"x")), Err(io::Error::other("gone"))]);
        let broken = spool.receive(Body::from_stream(broken), usize::MAX, None).await.err().unwrap();
        assert_eq!((broken.code(), spool.used_bytes()), ("not-json", 600_000));
        drop(complete);
        assert_eq!(spool.used_bytes(), 0);
        assert_eq!(receive(&spool, &[1 << 20]).await.unwrap().share.bytes, MAXIMUM);
    }

    #[tokio::test]
    async fn a_tenant_s_bodies_use_at_most_a_quarter_of_the_spool() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().to_owned(), MAXIMUM);
        let [acme, zeta] = [1, 2].map(|id| Some(WorkspaceId::from_bytes([id; 16])));
        let receive = async |size: usize, of| {
            let received = spool.receive(body(stream::iter(pieces(&[size]))), usize::MAX, of).await;
            received.map_err(|problem| problem.detail().to_owned())
        };
        let quarter = usize::try_from(MAXIMUM / 4).unwrap();
        let first = receive(quarter - 1, acme).await.unwrap();
        let refused = receive(2, acme).await.err().unwrap();
        assert!(refused.contains(&format!("all {quarter} bytes")), "{refused}");
        let all = [receive(1, acme).await, receive(quarter, zeta).await, receive(2 * quarter, None).await];
        assert!(all.iter().all(Result::is_ok));
        drop((first, all));
        assert_eq!(spool.used_bytes(), 0);
        assert!(spool.lock().of_tenants.is_empty());
        assert!(receive(quarter, acme).await.is_ok());
    }

    #[tokio::test]
    async fn a_body_that_cannot_be_written_is_503_and_uses_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let spool = Spool::new(folder.path().join("not there"), MAXIMUM);
        let unwritten = receive(&spool, &[BLOCK_BYTES]).await.err().unwrap();
        assert_eq!((unwritten.status().as_u16(), unwritten.code()), (503, "storage-unavailable"));
        assert_eq!(spool.used_bytes(), 0);
        assert!(receive(&spool, &[BLOCK_BYTES - 1]).await.is_ok(), "a small one needs no disk");
    }

    #[test]
    fn bodies_are_stored_beside_a_database_file_or_with_temporary_files() {
        for (database, folder) in [("latchkey.db", "."), ("/var/lib/latchkey/latchkey.db", "/var/lib/latchkey")] {
            assert_eq!(Spool::folder(&database.parse().unwrap()), PathBuf::from(folder), "{database}");
        }
        let server = "postgres://latchkey@db.example.com/latchkey".parse().unwrap();
        assert_eq!(Spool::folder(&server), std::env::temp_dir());
    }
}
