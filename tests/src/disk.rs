//! A disk that a test fills, breaks, or cuts off from power while a real control plane writes to it.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use fastrand::Rng;
use tempfile::TempDir;

use crate::preload::preload;

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFault {
    Nothing,
    /// No file can grow.
    Full,
    /// Nothing can be written, as when the system remounts a file system read-only after an error.
    ReadOnly,
    /// A sync fails, and its data never reaches the disk unless it is written again, as on Linux.
    SyncFails,
    /// A sync reports success and does nothing, as with a drive that ignores flushes.
    SyncLies,
}

/// What a power loss leaves of unsynced writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnsyncedWrites {
    Lost,
    /// Any part of it, in sectors.
    Torn,
}

/// The bytes that are written completely or not at all.
const SECTOR: usize = 512;

/// The disk of a database. Clones are the same disk.
#[derive(Clone)]
pub struct Disk {
    folder: Arc<TempDir>,
}

impl Disk {
    pub fn new() -> Self {
        let disk = Self { folder: Arc::new(tempfile::tempdir().expect("a folder")) };
        std::fs::create_dir(disk.durable()).expect("a folder");
        std::fs::write(disk.fault_file(), 0_u64.to_ne_bytes()).expect("the fault's file");
        disk
    }

    /// From now on the disk has this fault.
    pub fn set(&self, fault: DiskFault) {
        let number: u64 = match fault {
            DiskFault::Nothing => 0,
            DiskFault::Full => 1,
            DiskFault::ReadOnly => 2,
            DiskFault::SyncFails => 3,
            DiskFault::SyncLies => 4,
        };
        // In place, because the program has this file mapped.
        let file = std::fs::File::options().write(true).open(self.fault_file()).expect("the fault's file");
        file.write_all_at(&number.to_ne_bytes(), 0).expect("the fault's file");
    }

    /// Makes `command` keep `database` on this disk.
    pub fn attach(&self, command: &mut Command, database: &Path) {
        preload(command, "disk");
        command.env("DISK_FILE", database).env("DISK_FAULT", self.fault_file()).env("DISK_DURABLE", self.durable());
    }

    /// Turns `database`, whose control plane was killed, into what a power loss would have left of it. Returns how many
    /// bytes had been written and not synced.
    pub fn lose_power(&self, database: &Path, unsynced: UnsyncedWrites, random: &mut Rng) -> usize {
        let (folder, name) = (database.parent().expect("a folder"), name(database));
        let mut differing = 0;
        let written: Vec<PathBuf> = files(folder).into_iter().filter(|file| is_database_file(file, &name)).collect();
        for file in written {
            if !self.durable().join(format!("{}.named", self::name(&file))).exists() {
                std::fs::remove_file(file).expect("a file whose name wasn't synced");
            }
        }
        for marker in files(&self.durable()) {
            let Some(name) = self::name(&marker).strip_suffix(".named").map(str::to_owned) else { continue };
            let (kept, written) = (self.durable().join(&name), folder.join(&name));
            let synced = std::fs::read(&kept).unwrap_or_default();
            let live = std::fs::read(&written).unwrap_or_else(|_| synced.clone());
            let (content, lost) = content_after_loss(&synced, &live, unsynced, random);
            differing += lost;
            std::fs::write(&written, &content).expect("the remaining content");
            // It is on the disk now, so the next power loss keeps it, too.
            std::fs::write(&kept, &content).expect("the remaining content");
        }
        differing
    }

    fn durable(&self) -> PathBuf {
        self.folder.path().join("durable")
    }

    fn fault_file(&self) -> PathBuf {
        self.folder.path().join("fault")
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

/// A file's content after a power loss, and how many bytes of it were written and not synced.
fn content_after_loss(synced: &[u8], live: &[u8], unsynced: UnsyncedWrites, random: &mut Rng) -> (Vec<u8>, usize) {
    let longest = synced.len().max(live.len());
    let padded = |bytes: &[u8]| [bytes, &vec![0; longest - bytes.len()]].concat();
    let (mut left, mut differing) = (padded(synced), 0);
    for (old, new) in left.chunks_mut(SECTOR).zip(padded(live).chunks(SECTOR)) {
        if old != new {
            differing += new.len();
            if unsynced == UnsyncedWrites::Torn && random.bool() {
                old.copy_from_slice(new);
            }
        }
    }
    let is_new_length = unsynced == UnsyncedWrites::Torn && random.bool();
    left.truncate(if is_new_length { live.len() } else { synced.len() });
    (left, differing)
}

/// The database or a file beside it, except those that each start creates again.
fn is_database_file(file: &Path, database: &str) -> bool {
    let name = name(file);
    name.starts_with(database) && !name.ends_with("-lock")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("a file").path()).collect()
}

fn name(file: &Path) -> String {
    file.file_name().and_then(|name| name.to_str()).expect("a name in UTF-8").to_owned()
}
