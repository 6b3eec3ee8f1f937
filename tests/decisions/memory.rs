//! A file system in memory that counts its operations and fails those it is told to.
//!
//! It knows nothing of durability: what a crash leaves behind is the simulator's subject.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use discogs_extractor::fs::{FileRead, FileSystem, FileWrite, Lock, Metadata};

type Bytes = Arc<Mutex<Vec<u8>>>;

#[derive(Debug, Default)]
struct State {
    files: BTreeMap<PathBuf, Bytes>,
    operations: u64,
    failing: BTreeMap<u64, io::ErrorKind>,
    is_broken: bool,
    write_max: Option<usize>,
    link_error: Option<io::ErrorKind>,
}

/// The file system; clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Memory(Arc<Mutex<State>>);

impl Memory {
    /// Operations so far, failed ones included.
    pub(crate) fn operations(&self) -> u64 {
        self.0.lock().unwrap().operations
    }

    /// Fails the `number`-th operation from now on, counted from 1.
    pub(crate) fn fail(&self, number: u64) {
        self.fail_with(number, io::ErrorKind::Other);
    }

    /// Fails the `number`-th operation from now on by this error.
    pub(crate) fn fail_with(&self, number: u64, error: io::ErrorKind) {
        let mut state = self.0.lock().unwrap();
        let number = state.operations + number;
        state.failing.insert(number, error);
    }

    /// Forgets the failures that have not come about.
    pub(crate) fn calm(&self) {
        self.0.lock().unwrap().failing.clear();
    }

    /// Fails every operation that changes something, or none any more.
    pub(crate) fn set_broken(&self, is_broken: bool) {
        self.0.lock().unwrap().is_broken = is_broken;
    }

    /// Writes take at most this many bytes.
    pub(crate) fn limit_writes(&self, bytes: usize) {
        self.0.lock().unwrap().write_max = Some(bytes);
    }

    /// Has no links: whoever wants to make one is told so by this error.
    pub(crate) fn refuse_links(&self, error: io::ErrorKind) {
        self.0.lock().unwrap().link_error = Some(error);
    }

    /// Makes a file with these bytes.
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) {
        let file = Arc::new(Mutex::new(bytes.to_vec()));
        self.0.lock().unwrap().files.insert(path.to_owned(), file);
    }

    /// What a file holds, if it exists. No operation.
    pub(crate) fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.0.lock().unwrap();
        state
            .files
            .get(path)
            .map(|file| file.lock().unwrap().clone())
    }

    /// The names of all files. No operation.
    pub(crate) fn names(&self) -> Vec<String> {
        let state = self.0.lock().unwrap();
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        state.files.keys().map(name).collect()
    }

    fn operate<T>(
        &self,
        is_change: bool,
        operation: impl FnOnce(&mut State) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = self.0.lock().unwrap();
        state.operations += 1;
        let number = state.operations;
        let broken = (state.is_broken && is_change).then_some(io::ErrorKind::Other);
        if let Some(error) = state.failing.remove(&number).or(broken) {
            return Err(io::Error::new(error, "injected"));
        }
        operation(&mut state)
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl FileSystem for Memory {
    fn open(&self, path: &Path) -> io::Result<Box<dyn FileRead>> {
        self.operate(false, |state| {
            let file = state.files.get(path).ok_or_else(missing)?;
            let bytes = file.lock().unwrap().clone();
            Ok(Box::new(Cursor::new(bytes)) as Box<dyn FileRead>)
        })
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let bytes = self.operate(true, |state| {
            let file = state.files.entry(path.to_owned()).or_default();
            file.lock().unwrap().clear();
            Ok(file.clone())
        })?;
        let memory = self.clone();
        Ok(Box::new(File { memory, bytes }))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn FileWrite>> {
        let bytes = self.operate(true, |state| {
            Ok(state.files.entry(path.to_owned()).or_default().clone())
        })?;
        let memory = self.clone();
        Ok(Box::new(File { memory, bytes }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(true, |state| {
            let file = state.files.remove(from).ok_or_else(missing)?;
            state.files.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(true, |state| {
            if let Some(error) = state.link_error {
                return Err(error.into());
            }
            if state.files.contains_key(to) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            let file = state.files.get(from).ok_or_else(missing)?.clone();
            state.files.insert(to.to_owned(), file);
            Ok(())
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.operate(true, |state| {
            state.files.remove(path).map(drop).ok_or_else(missing)
        })
    }

    fn create_dir(&self, _directory: &Path) -> io::Result<()> {
        self.operate(true, |_| Ok(()))
    }

    fn sync_dir(&self, _directory: &Path) -> io::Result<()> {
        self.operate(true, |_| Ok(()))
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        self.operate(false, |state| {
            let inside = |path: &&PathBuf| path.parent() == Some(directory);
            Ok(state.files.keys().filter(inside).cloned().collect())
        })
    }

    fn metadata(&self, path: &Path) -> io::Result<Metadata> {
        self.operate(false, |state| {
            let file = state.files.get(path).ok_or_else(missing)?;
            let length = file.lock().unwrap().len() as u64;
            Ok(Metadata {
                length,
                is_dir: false,
            })
        })
    }

    fn free_space(&self, _directory: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn lock(&self, _path: &Path, _owner: &str) -> io::Result<Box<dyn Lock>> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

struct File {
    memory: Memory,
    bytes: Bytes,
}

impl Write for File {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.memory.operate(true, |state| {
            let length = bytes.len().min(state.write_max.unwrap_or(usize::MAX));
            self.bytes
                .lock()
                .unwrap()
                .extend_from_slice(&bytes[..length]);
            Ok(length)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl FileWrite for File {
    fn sync(&mut self) -> io::Result<()> {
        self.memory.operate(true, |_| Ok(()))
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        self.memory.operate(true, |_| {
            let length = usize::try_from(length).unwrap();
            self.bytes.lock().unwrap().resize(length, 0);
            Ok(())
        })
    }
}
