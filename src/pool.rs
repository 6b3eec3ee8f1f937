//! The records of a dump, made on several threads.
//!
//! ```text
//! thread 1 ─ inflate, cut ─ transcode ───────── inflate, cut ─ transcode ──────── ..
//! thread 2 ──────────────── inflate, cut ─ transcode ──────── inflate, cut ─ transcode ..
//! ```
//!
//! All threads do the same: they take the source, cut the next batch of records out of it, hand the
//! source on, and transcode the batch. So no thread waits for another as long as cutting takes less
//! than its share, records are transcoded where they were inflated and are still in the cache, and a
//! thread that the system has put aside holds up its own batch only. If all others wait nevertheless,
//! whoever has the source makes do with a smaller batch. It queues the promise of its batch before
//! handing the source on: promises are in the order of the batches, and their records do not depend
//! on who is fast. The queue is short, so what is under way is bounded.
//!
//! Where the tags of a record don't match, only the one who cuts can say where it ends, and that
//! changes everything behind it. It has to be asked for perhaps once in ten million records. So the
//! threads end, the source goes back to the boundary before that record, which is a place without
//! state, reads it inline, and goes on behind it with new threads.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};

use crate::message::Transcoder;
use crate::record::Position;
use crate::seek_point::SeekPoint;
use crate::source::{Cut, Read, Reads, Source, SourceError, Step};

/// How much XML one batch holds before it is handed over, in bytes. It may hold one record more.
const BATCH_BYTES: usize = 1024 * 1024;

/// How much it holds at least while all other threads wait: handing over costs something too.
const BATCH_BYTES_MIN: usize = BATCH_BYTES / 4;

/// A fixed share for each record of a batch, so that the number of tiny ones is bounded too.
const RECORD_BYTES: usize = 64;

/// How many batches wait to be taken, for each thread. One more is in the making.
const BATCHES_WAITING: usize = 2;

/// The same sequence as `source`, made on so many threads, at least one.
///
/// About 8 MiB of records for each thread is under way at most. When the result is dropped, the
/// threads end with their present batch; nobody waits for them. A panic goes on where the next
/// item is asked for.
///
/// # Panics
///
/// If the system can't start a thread.
pub fn pooled(source: Source, threads: usize) -> Reads {
    Box::new(Pool {
        threads: threads.max(1),
        reached: source.position(),
        seek_point: source.seek_point().cloned().map(Arc::new),
        ready: VecDeque::new(),
        state: State::Inline(Box::new(source)),
    })
}

struct Pool {
    threads: usize,
    /// The boundary behind the last item that was yielded.
    reached: Position,
    /// The last seek point before that.
    seek_point: Option<Arc<SeekPoint>>,
    ready: VecDeque<Result<Read, SourceError>>,
    /// Where what comes after `ready` is to be had.
    state: State,
}

enum State {
    /// The threads are to be started.
    Inline(Box<Source>),
    /// The threads are at work.
    Crew(Crew),
    /// The threads are to be ended: the next record is to be read inline.
    Unbalanced(Crew),
    Over,
}

impl Iterator for Pool {
    type Item = Result<Read, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(read) = self.ready.pop_front() {
                self.notice(&read);
                return Some(read);
            }
            self.state = match std::mem::replace(&mut self.state, State::Over) {
                State::Inline(source) => State::Crew(Crew::new(*source, self.threads)),
                State::Crew(crew) => self.take(crew),
                State::Unbalanced(crew) => self.read_inline(crew.end().into()),
                State::Over => return None,
            }
        }
    }
}

impl Pool {
    fn notice(&mut self, read: &Result<Read, SourceError>) {
        if let Ok(Read::Item(item)) = read {
            self.reached = item.position;
            if item.seek_point.is_some() {
                self.seek_point.clone_from(&item.seek_point);
            }
        }
    }

    /// Takes the next batch.
    fn take(&mut self, crew: Crew) -> State {
        let Some(done) = crew.receive() else {
            // A thread has panicked, and its panic goes on here.
            crew.end();
            return State::Over;
        };
        self.ready = done.reads;
        if done.is_unbalanced {
            return State::Unbalanced(crew);
        }
        let is_over = matches!(self.ready.back(), Some(Ok(Read::End { .. }) | Err(_)));
        if is_over {
            State::Over
        } else {
            State::Crew(crew)
        }
    }

    /// Reads one record inline.
    fn read_inline(&mut self, mut source: Box<Source>) -> State {
        let seek_point = self.seek_point.as_deref().cloned();
        if let Err(error) = source.go_back(self.reached, seek_point) {
            self.ready.push_back(Err(error));
            return State::Over;
        }
        // The way back there is no news to anybody.
        let read = source.find(|read| !matches!(read, Ok(Read::Skipped)));
        self.ready.extend(read);
        State::Inline(source)
    }
}

/// Records that were cut out, to be transcoded.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Each with its place in `bytes`.
    cuts: Vec<(Cut, Range<usize>)>,
    /// What comes behind them.
    then: Option<Result<Read, SourceError>>,
}

impl Batch {
    /// Cuts the next records out of a source, fewer if that is urgent; none, and nothing behind them,
    /// if it is over.
    fn fill(&mut self, source: &mut Source, is_urgent: impl Fn() -> bool) {
        let is_full = |size| size >= BATCH_BYTES || size >= BATCH_BYTES_MIN && is_urgent();
        while !is_full(self.bytes.len() + RECORD_BYTES * self.cuts.len())
            && self.then.is_none()
            && let Some(step) = source.step()
        {
            match step {
                Step::Cut(cut) => self.push(cut, source.bytes()),
                Step::Read(read) => self.then = Some(read),
            }
        }
    }

    fn push(&mut self, cut: Cut, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.cuts.push((cut, start..self.bytes.len()));
    }

    const fn is_empty(&self) -> bool {
        self.cuts.is_empty() && self.then.is_none()
    }

    /// Empties it, and keeps its memory unless a record was huge.
    fn transcode(&mut self, transcoder: &mut Transcoder) -> Done {
        let mut reads = VecDeque::with_capacity(self.cuts.len() + 1);
        let then = self.then.take();
        let mut is_unbalanced = false;
        // Nearly always all of it is UTF-8, and asking once costs less than asking for each record.
        let text = simdutf8::basic::from_utf8(&self.bytes).ok();
        for (cut, range) in self.cuts.drain(..) {
            let text = text.and_then(|text| text.get(range.clone()));
            let Ok(outcome) = cut.outcome(&self.bytes[range], text, transcoder) else {
                is_unbalanced = true;
                break;
            };
            reads.push_back(Ok(Read::Item(cut.item(outcome))));
        }
        if !is_unbalanced {
            reads.extend(then);
        }
        self.bytes.clear();
        self.bytes.shrink_to(2 * BATCH_BYTES);
        Done {
            reads,
            is_unbalanced,
        }
    }
}

/// What became of a batch.
struct Done {
    reads: VecDeque<Result<Read, SourceError>>,
    /// Whether it was left at a record whose tags don't match.
    is_unbalanced: bool,
}

/// The source that the threads share.
struct Shared {
    source: Mutex<Source>,
    threads: usize,
    /// How many threads wait for it.
    waiting: AtomicUsize,
}

impl Shared {
    /// Waits for the source; `None` if that has panicked.
    fn take(&self) -> Option<MutexGuard<'_, Source>> {
        self.waiting.fetch_add(1, Relaxed);
        let source = self.source.lock().ok();
        self.waiting.fetch_sub(1, Relaxed);
        source
    }

    /// Whether all threads but one wait, and there are others.
    fn is_urgent(&self) -> bool {
        self.threads > 1 && self.waiting.load(Relaxed) == self.threads - 1
    }
}

/// The threads.
struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
    /// What each batch will become, in the order in which they were cut.
    promises: Receiver<Receiver<Done>>,
}

impl Crew {
    fn new(source: Source, threads: usize) -> Self {
        let transcoders: Vec<_> = (0..threads).map(|_| source.transcoder()).collect();
        let shared = Arc::new(Shared {
            source: Mutex::new(source),
            threads,
            waiting: AtomicUsize::new(0),
        });
        let (sender, promises) = sync_channel(threads * BATCHES_WAITING);
        let start = |transcoder| {
            let (shared, promises) = (Arc::clone(&shared), sender.clone());
            start(move || work(&shared, transcoder, &promises))
        };
        Self {
            threads: transcoders.into_iter().map(start).collect(),
            shared,
            promises,
        }
    }

    /// The next batch; `None` if a thread has panicked.
    fn receive(&self) -> Option<Done> {
        self.promises.recv().ok()?.recv().ok()
    }

    /// Ends the threads, and takes the source back, wherever it is now.
    fn end(self) -> Source {
        // Nobody to hand anything to is how they are told.
        drop(self.promises);
        for thread in self.threads {
            thread.join().unwrap_or_else(|panic| resume_unwind(panic));
        }
        let shared = Arc::into_inner(self.shared).expect("the threads have ended");
        shared.source.into_inner().expect("no thread has panicked")
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the threads see the file only: what they make depends on nothing else"
)]
fn start(work: impl FnOnce() + Send + 'static) -> JoinHandle<()> {
    thread::Builder::new()
        .name("source".to_owned())
        .spawn(work)
        .expect("the system can start a thread")
}

/// Cuts batches out of the source when it is free, and transcodes them when it is not.
fn work(shared: &Shared, mut transcoder: Transcoder, promises: &SyncSender<Receiver<Done>>) {
    let mut batch = Batch::default();
    // If the source has panicked, that is enough of it.
    while let Some(mut source) = shared.take() {
        batch.fill(&mut source, || shared.is_urgent());
        let (sender, promise) = sync_channel(1);
        // In the order of the batches, because nobody else has the source now.
        if batch.is_empty() || promises.send(promise).is_err() {
            return;
        }
        drop(source);
        if sender.send(batch.transcode(&mut transcoder)).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Read, Seek, SeekFrom, Write as _};
    use std::path::Path;
    use std::sync::mpsc::{self, Sender};

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;
    use crate::dump::Dump;
    use crate::source::Options;

    const RECORD_LENGTH: usize = 64 * 1024;

    /// A file that counts what is read of it, is damaged in its own way at some byte, and tells when
    /// it is dropped.
    struct Watched {
        file: Cursor<Vec<u8>>,
        read: Arc<AtomicUsize>,
        breaks_at: u64,
        _dropped: Sender<()>,
    }

    impl Read for Watched {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            assert!(self.file.position() < self.breaks_at, "the file is broken");
            let count = self.file.read(buffer)?;
            self.read.fetch_add(count, Relaxed);
            Ok(count)
        }
    }

    impl Seek for Watched {
        fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
            self.file.seek(to)
        }
    }

    struct World {
        reads: Reads,
        read: Arc<AtomicUsize>,
        dropped: Receiver<()>,
    }

    /// Records of 64 KiB, many, on so many threads.
    fn watch(threads: usize, breaks_at: u64) -> World {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::none());
        encoder.write_all(b"<artists>").unwrap();
        for id in 0..500 {
            let name = "x".repeat(RECORD_LENGTH);
            write!(encoder, "<artist><id>{id}</id><name>{name}</name></artist>").unwrap();
        }
        encoder.write_all(b"</artists>").unwrap();
        let read = Arc::new(AtomicUsize::new(0));
        let (sender, dropped) = mpsc::channel();
        let file = Watched {
            file: Cursor::new(encoder.finish().unwrap()),
            read: Arc::clone(&read),
            breaks_at,
            _dropped: sender,
        };
        let dump = Dump::from_path(Path::new("discogs_20260801_artists.xml.gz")).unwrap();
        let source = Source::new(Box::new(file), &dump, Position::START, &Options::default());
        World {
            reads: pooled(source, threads),
            read,
            dropped,
        }
    }

    #[test]
    fn dropping_the_pool_ends_the_threads_which_never_ran_far_ahead() {
        for (threads, taken) in [(1, 0), (1, 1), (1, 30), (3, 1), (3, 100)] {
            let World {
                reads,
                read,
                dropped,
            } = watch(threads, u64::MAX);
            assert_eq!(reads.take(taken).count(), taken);
            assert!(dropped.recv().is_err(), "the threads have dropped the file");
            let ahead = read.load(Relaxed) - taken * RECORD_LENGTH;
            assert!(ahead <= threads << 22, "{ahead} bytes ahead of {taken}");
        }
    }

    #[test]
    fn a_panic_on_a_thread_goes_on_where_the_next_item_is_asked_for() {
        for threads in [1, 3] {
            let World { mut reads, .. } = watch(threads, 3 << 20);
            let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                reads.by_ref().for_each(drop);
            }));
            let panic = panic.expect_err("the file is broken");
            assert_eq!(*panic.downcast::<&str>().unwrap(), "the file is broken");
        }
    }
}
