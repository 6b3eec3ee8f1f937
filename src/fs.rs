//! The file system as the program sees it: primitives only, so that a crash can fall between any
//! two of them.
//!
//! Durability has two halves. *Bytes* written to a file are durable after [`FileWrite::sync`];
//! *names* (a file created, renamed, linked or removed) are durable after
//! [`FileSystem::sync_dir`] of their directory. Before that a crash may keep or lose either.

use std::fmt;
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

/// The file system.
///
/// Shared by threads: a save runs beside the pipeline, a source reads on a thread of its own.
pub trait FileSystem: Send + Sync {
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Box<dyn FileRead>>;

    /// Creates a file or truncates an existing one, and opens it for writing.
    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>>;

    /// Opens a file for writing at its end; creates it if it is missing.
    fn append(&self, path: &Path) -> io::Result<Box<dyn FileWrite>>;

    /// Renames a file; a file that has the new name is replaced in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Gives a file a second name; fails with `AlreadyExists` if the new name is taken.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a name.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes a directory and its missing parents; succeeds if it exists.
    fn create_dir(&self, directory: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    fn sync_dir(&self, directory: &Path) -> io::Result<()>;

    /// The entries of a directory as full paths, sorted.
    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>>;

    /// What is known of a path.
    fn metadata(&self, path: &Path) -> io::Result<Metadata>;

    /// How many bytes can be written to files in a directory before it is full.
    fn free_space(&self, directory: &Path) -> io::Result<u64>;

    /// Takes the lock at `path`, which dies with the process, and writes `owner` into the file
    /// for the next one to read.
    ///
    /// Fails with `WouldBlock`, and the present owner as the message, if somebody has it.
    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Lock>>;
}

/// A file open for reading.
pub trait FileRead: Read + Seek + Send {}

impl<T: Read + Seek + Send> FileRead for T {}

/// A file open for writing, always at its end.
pub trait FileWrite: Write + Send {
    /// Makes the bytes written so far durable. After an error the state of the file is unknown:
    /// never sync the same file again, write a new one.
    fn sync(&mut self) -> io::Result<()>;

    /// Cuts the file to `length` bytes; the next write goes there.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// A lock that is held until it is dropped.
pub trait Lock: Send {}

/// What is known of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Length in bytes; of no meaning for a directory.
    pub length: u64,
    /// Whether the path is a directory.
    pub is_dir: bool,
}

/// The whole content of a file.
pub fn read(fs: &dyn FileSystem, path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs.open(path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The operating system's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsFileSystem;

#[expect(
    clippy::disallowed_methods,
    reason = "this is the adapter of `FileSystem`"
)]
impl FileSystem for OsFileSystem {
    fn open(&self, path: &Path) -> io::Result<Box<dyn FileRead>> {
        Ok(Box::new(fs::File::open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        Ok(Box::new(OsFile(fs::File::create(path)?)))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let file = fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(path)?;
        Ok(Box::new(OsFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir(&self, directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)
    }

    fn sync_dir(&self, directory: &Path) -> io::Result<()> {
        fs::File::open(or_here(directory))?.sync_all()
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = fs::read_dir(or_here(directory))?
            .map(|entry| Ok(entry?.path()))
            .collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        Ok(paths)
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        let metadata = fs::metadata(path)?;
        Ok(Metadata {
            length: metadata.len(),
            is_dir: metadata.is_dir(),
        })
    }

    fn free_space(&self, directory: &Path) -> io::Result<u64> {
        let space = rustix::fs::statvfs(or_here(directory))?;
        Ok(space.f_bavail.saturating_mul(space.f_frsize))
    }

    fn lock(&self, path: &Path, owner: &str) -> io::Result<Box<dyn Lock>> {
        let mut file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)?;
        if let Err(error) = file.try_lock() {
            return Err(match error {
                fs::TryLockError::WouldBlock => {
                    let mut present = String::new();
                    file.read_to_string(&mut present)?;
                    io::Error::new(io::ErrorKind::WouldBlock, present.trim_end().to_owned())
                }
                fs::TryLockError::Error(error) => error,
            });
        }
        file.set_len(0)?;
        file.write_all(owner.as_bytes())?;
        Ok(Box::new(OsLock { _file: file }))
    }
}

/// The parent of a bare file name is the empty path, which the operating system does not know.
fn or_here(directory: &Path) -> &Path {
    match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    }
}

struct OsFile(fs::File);

impl Write for OsFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl FileWrite for OsFile {
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.0.set_len(length)?;
        self.0.seek(io::SeekFrom::Start(length))?;
        Ok(())
    }
}

/// The lock is the open file: closing it gives the lock back, and the kernel closes it for a
/// process that was killed.
struct OsLock {
    _file: fs::File,
}

impl Lock for OsLock {}

impl fmt::Debug for dyn Lock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lock")
    }
}
