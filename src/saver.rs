//! The saver of production: one thread that makes the saves, so that a sync never stops the
//! pipeline.

use std::fmt;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::thread::JoinHandle;

use crate::broker::Waker;
use crate::driver::Saver;
use crate::fs::FileSystem;
use crate::marker::{Save, SaveError};

/// Saves on a thread of its own. Dropping it waits for a save under way.
pub struct ThreadSaver {
    /// `None` only while this is dropped.
    saves: Option<Sender<Save>>,
    results: Receiver<Result<(), SaveError>>,
    thread: Option<JoinHandle<()>>,
}

impl ThreadSaver {
    /// Starts the thread. `waker` ends the program's wait when a save is over.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the adapter that gives saves a thread"
    )]
    pub fn new(fs: Arc<dyn FileSystem>, waker: Waker) -> Self {
        let (saves, inbox) = channel::<Save>();
        let (outbox, results) = channel();
        let work = move || {
            // Also after a panic: the program has to find out.
            let wake = WakeOnDrop(waker);
            for save in inbox {
                let result = save.finish(&*fs);
                if outbox.send(result).is_err() {
                    return;
                }
                wake.0.wake();
            }
        };
        let thread = std::thread::Builder::new()
            .name("saver".to_owned())
            .spawn(work)
            .expect("the system can run one more thread");
        Self {
            saves: Some(saves),
            results,
            thread: Some(thread),
        }
    }
}

struct WakeOnDrop(Waker);

impl Drop for WakeOnDrop {
    fn drop(&mut self) {
        self.0.wake();
    }
}

impl Saver for ThreadSaver {
    fn start(&mut self, save: Save) {
        let saves = self.saves.as_ref().expect("set until dropped");
        // Only a thread that panicked does not listen, which the next poll finds out.
        let _ = saves.send(save);
    }

    fn poll(&mut self) -> Option<Result<(), SaveError>> {
        match self.results.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let thread = self.thread.take()?;
                let panic = thread
                    .join()
                    .expect_err("the thread ends by itself only by a panic");
                resume_unwind(panic)
            }
        }
    }
}

impl Drop for ThreadSaver {
    fn drop(&mut self) {
        self.saves = None;
        if let Some(thread) = self.thread.take() {
            // A panic here would abort while the program unwinds; the thread has printed its own.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for ThreadSaver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ThreadSaver")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dump::Version;
    use crate::fs::OsFileSystem;
    use crate::marker::{self, Marker, Paths};
    use std::path::Path;

    /// Saves to `directory` and waits for the waker, and then for the result.
    fn save(directory: &Path) -> Result<(), SaveError> {
        let version: Version = "20260801".parse().unwrap();
        let paths = Paths::new(directory, &version);
        let (woken, wakes) = channel();
        let waker = Waker::new(move || {
            let _ = woken.send(());
        });
        let mut saver = ThreadSaver::new(Arc::new(OsFileSystem), waker);
        assert_eq!(saver.poll(), None);
        saver.start(Save::new(&paths, 1, &Marker::new(&version), Vec::new()));
        wakes.recv().unwrap();
        let result = saver.poll().expect("the waker comes after the result");
        assert_eq!(saver.poll(), None, "one result for one save");
        let read = marker::read(&OsFileSystem, &paths.marker()).unwrap();
        assert_eq!(read.unwrap().is_some(), result.is_ok());
        result
    }

    #[test]
    fn a_save_is_made_and_the_waiting_program_woken() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(save(directory.path()), Ok(()));
        let missing = directory.path().join("missing");
        assert_eq!(save(&missing).unwrap_err().operation, "create");
    }
}
