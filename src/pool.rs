//! The records of a dump, made on several threads.
//!
//! ```text
//!                        ┌─→ transcode ─┐
//! inflate, cut up ─ turn ┼─→ transcode ─┼ turn ─→ the same sequence as inline
//!                        └─→ transcode ─┘
//! ```
//!
//! One thread inflates and cuts the XML into records, others transcode them, each a batch of them at
//! a time. Batches are dealt out in turn and taken back in turn, so their order needs no numbers and
//! does not depend on who is fast. All queues are short, so what is under way is bounded.
//!
//! Where the tags of a record don't match, only the one who cuts can say where it ends, and that
//! changes everything behind it. It has to be asked for perhaps once in ten million records. So the
//! threads end, the source goes back to the boundary before that record, which is a place without
//! state, reads it inline, and goes on behind it with new threads.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};

use crate::message::Transcoder;
use crate::record::Position;
use crate::seek_point::SeekPoint;
use crate::source::{Cut, Read, Reads, Source, SourceError, Step};

/// How much XML one batch holds before it is handed over, in bytes. It may hold one record more.
const BATCH_BYTES: usize = 128 * 1024;

/// A fixed share for each record of a batch, so that the number of tiny ones is bounded too.
const RECORD_BYTES: usize = 64;

/// How many batches wait for a thread to take them, and as many for what it made of them to be
/// taken.
const BATCHES_WAITING: usize = 2;

/// The same sequence as `source`, transcoded on so many threads, at least one, and inflated on
/// another.
///
/// About 1 MiB of records for each thread is under way at most. When the result is dropped, the
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
                State::Unbalanced(crew) => self.read_inline(crew.end()),
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
    fn take(&mut self, mut crew: Crew) -> State {
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

/// Records that were cut out and wait to be transcoded.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Each with its place in `bytes`.
    cuts: Vec<(Cut, Range<usize>)>,
    /// What comes behind them.
    then: Option<Result<Read, SourceError>>,
}

impl Batch {
    /// The next batch of a source; empty if it is over.
    fn next(source: &mut Source) -> Self {
        let mut batch = Self::default();
        // With room for one more record of almost any size: growing copies what is there.
        batch.bytes.reserve(BATCH_BYTES + BATCH_BYTES / 8);
        while batch.bytes.len() + RECORD_BYTES * batch.cuts.len() < BATCH_BYTES
            && batch.then.is_none()
            && let Some(step) = source.step()
        {
            match step {
                Step::Cut(cut) => batch.push(cut, source.bytes()),
                Step::Read(read) => batch.then = Some(read),
            }
        }
        batch
    }

    fn push(&mut self, cut: Cut, bytes: &[u8]) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(bytes);
        self.cuts.push((cut, start..self.bytes.len()));
    }

    const fn is_empty(&self) -> bool {
        self.cuts.is_empty() && self.then.is_none()
    }

    fn transcode(self, transcoder: &mut Transcoder) -> Done {
        let mut reads = VecDeque::with_capacity(self.cuts.len() + 1);
        for (cut, range) in self.cuts {
            let Ok(outcome) = cut.outcome(&self.bytes[range], transcoder) else {
                return Done {
                    reads,
                    is_unbalanced: true,
                };
            };
            reads.push_back(Ok(Read::Item(cut.item(outcome))));
        }
        reads.extend(self.then);
        Done {
            reads,
            is_unbalanced: false,
        }
    }
}

/// What became of a batch.
struct Done {
    reads: VecDeque<Result<Read, SourceError>>,
    /// Whether it was left at a record whose tags don't match.
    is_unbalanced: bool,
}

/// The threads.
struct Crew {
    cutter: JoinHandle<Box<Source>>,
    transcoders: Vec<JoinHandle<()>>,
    done: Vec<Receiver<Done>>,
    turn: usize,
}

impl Crew {
    fn new(source: Source, threads: usize) -> Self {
        let (mut batches, mut transcoders, mut done) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..threads {
            let (batch_sender, batch_receiver) = sync_channel(BATCHES_WAITING);
            let (done_sender, done_receiver) = sync_channel(BATCHES_WAITING);
            let transcoder = source.transcoder();
            batches.push(batch_sender);
            done.push(done_receiver);
            transcoders.push(start("transcode", move || {
                transcode(transcoder, &batch_receiver, &done_sender);
            }));
        }
        Self {
            cutter: start("inflate", move || cut(Box::new(source), &batches)),
            transcoders,
            done,
            turn: 0,
        }
    }

    /// The next batch in turn; `None` if a thread has panicked.
    fn receive(&mut self) -> Option<Done> {
        let receiver = &self.done[self.turn];
        self.turn = (self.turn + 1) % self.done.len();
        receiver.recv().ok()
    }

    /// Ends the threads, and takes the source back, wherever it is now.
    fn end(self) -> Box<Source> {
        // Nobody to hand anything to is how they are told.
        drop(self.done);
        for transcoder in self.transcoders {
            transcoder
                .join()
                .unwrap_or_else(|panic| resume_unwind(panic));
        }
        self.cutter
            .join()
            .unwrap_or_else(|panic| resume_unwind(panic))
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the threads see the file only: what they make depends on nothing else"
)]
fn start<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> JoinHandle<T> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .expect("the system can start a thread")
}

/// Deals out a source in batches.
fn cut(mut source: Box<Source>, batches: &[SyncSender<Batch>]) -> Box<Source> {
    for sender in batches.iter().cycle() {
        let batch = Batch::next(&mut source);
        if batch.is_empty() || sender.send(batch).is_err() {
            break;
        }
    }
    source
}

fn transcode(mut transcoder: Transcoder, batches: &Receiver<Batch>, done: &SyncSender<Done>) {
    for batch in batches {
        if done.send(batch.transcode(&mut transcoder)).is_err() {
            return;
        }
    }
}
