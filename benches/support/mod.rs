//! What all benches share: generated dumps, runs over them, and figures that are held against
//! others.
//!
//! `BENCH_XML_MB` is how much XML a dump has, 2 by default, a tenth of it where RabbitMQ is the broker,
//! which takes fewer records a second. Dumps are kept in the target folder.
//! `RABBITMQ_TEST_URL` is the RabbitMQ to measure; without it that part is left out, and says so.

#![expect(
    clippy::disallowed_methods,
    reason = "benches use the machine as it is"
)]
#![expect(clippy::unwrap_used, reason = "a bench that can't run fails")]
#![allow(
    dead_code,
    clippy::allow_attributes,
    reason = "each bench uses a part of this"
)]

pub(crate) mod pairs;
pub(crate) mod rabbitmq;
pub(crate) mod tree;

use std::fs::{self, File};
use std::io::{BufWriter, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use discogs_extractor::broker::Broker;
use discogs_extractor::driver::{self, Observer, Open, Outside};
use discogs_extractor::dump::{self, Dump, Kind};
use discogs_extractor::extraction::{Ending, Extraction, Notice, Options};
use discogs_extractor::frame::{Framer, Step};
use discogs_extractor::fs::{FileSystem, OsFileSystem};
use discogs_extractor::marker::Paths;
use discogs_extractor::message::Content;
use discogs_extractor::null::Null;
use discogs_extractor::plan;
use discogs_extractor::pool::pooled;
use discogs_extractor::queue::Threaded;
use discogs_extractor::rabbitmq::{QueueType, RabbitMq};
use discogs_extractor::record::Position;
use discogs_extractor::saver::ThreadSaver;
use discogs_extractor::seek_point::SeekPoint;
use discogs_extractor::source::{self, Outcome, Reads, Source, SourceError};
use discogs_extractor::spool::{self, Spool};
use discogs_extractor::time::{Clock, Instant, SystemClock};
use flate2::bufread::GzDecoder;
use sim::dumps::{Amount, Dumps, Form};
use tempfile::TempDir;

/// How much XML a dump has, in MB.
pub(crate) fn xml_megabytes() -> u64 {
    let text = std::env::var("BENCH_XML_MB").unwrap_or_else(|_| "2".to_owned());
    text.parse().expect("BENCH_XML_MB is a number")
}

/// How much XML a dump for RabbitMQ has, in MB.
pub(crate) fn rabbitmq_megabytes() -> u64 {
    xml_megabytes().div_ceil(10)
}

/// How many saves are measured together, because one takes little time.
pub(crate) const SAVES: u64 = 100;

/// A generated dump, and its size.
pub(crate) struct Corpus {
    pub(crate) dump: Dump,
    pub(crate) xml_bytes: u64,
    pub(crate) records: u64,
}

impl Corpus {
    /// The dump of a kind, in a folder of its own.
    pub(crate) fn new(kind: Kind) -> Self {
        Self::sized(kind, xml_megabytes())
    }

    /// Likewise, with so many MB of XML.
    pub(crate) fn sized(kind: Kind, megabytes: u64) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{kind}-{megabytes}"));
        let path = folder.join(format!("discogs_20260801_{kind}.xml.gz"));
        let size = folder.join("size");
        if !size.exists() {
            fs::create_dir_all(&folder).unwrap();
            let file = BufWriter::new(File::create(&path).unwrap());
            let amount = Amount::XmlBytes(megabytes * 1_000_000);
            let written = Dumps::new(1, Form::Y2025).write(kind, amount, file, None);
            let written = written.unwrap();
            let text = format!("{} {}", written.xml_bytes, written.records);
            fs::write(&size, text).unwrap();
        }
        let text = fs::read_to_string(&size).unwrap();
        let (xml_bytes, records) = text.split_once(' ').unwrap();
        Self {
            dump: Dump::from_path(&path).unwrap(),
            xml_bytes: xml_bytes.parse().unwrap(),
            records: records.parse().unwrap(),
        }
    }

    pub(crate) fn file(&self) -> File {
        File::open(&self.dump.path).unwrap()
    }

    /// Inflates it, with the same library as the product: the limit of reading.
    pub(crate) fn inflate(&self) {
        const PIECE: usize = 128 * 1024;
        let file = std::io::BufReader::with_capacity(PIECE, self.file());
        let mut decoder = GzDecoder::new(file);
        let mut piece = vec![0; PIECE];
        while decoder.read(&mut piece).unwrap() > 0 {}
    }

    /// All of its XML.
    pub(crate) fn xml(&self) -> Vec<u8> {
        let mut xml = Vec::new();
        let file = std::io::BufReader::with_capacity(128 * 1024, self.file());
        GzDecoder::new(file).read_to_end(&mut xml).unwrap();
        xml
    }

    /// Its record messages.
    pub(crate) fn messages(&self) -> Vec<Content> {
        let source = self.source(Position::START, None);
        source
            .filter_map(|read| match read.unwrap() {
                source::Read::Item(item) => Some(item.outcome),
                _ => None,
            })
            .map(|outcome| match outcome {
                Outcome::Content(content) => content,
                Outcome::Malformed { reason, .. } => panic!("a generated record: {reason}"),
            })
            .collect()
    }

    pub(crate) fn source(&self, from: Position, seek_point: Option<SeekPoint>) -> Source {
        let source = source::open(&OsFileSystem, &self.dump, from, &source::Options::default());
        source.unwrap().with_seek_point(seek_point)
    }
}

/// Gives every record of `xml` to `each`.
pub(crate) fn split(kind: Kind, xml: &[u8], mut each: impl FnMut(&[u8])) {
    let mut framer = Framer::new(kind, Position::START, usize::MAX / 2);
    let mut rest = xml;
    loop {
        match framer.step().unwrap() {
            Step::Starved => {
                let count = framer.room().len().min(rest.len());
                framer.room()[..count].copy_from_slice(&rest[..count]);
                framer.filled(count);
                rest = &rest[count..];
            }
            Step::Frame(_) => each(framer.bytes()),
            Step::End => return,
        }
    }
}

/// Where messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Null,
    Spool,
    RabbitMq(QueueType),
}

impl Target {
    /// One word in lower case.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Spool => "spool",
            Self::RabbitMq(QueueType::Quorum) => "quorum",
            Self::RabbitMq(QueueType::Classic) => "classic",
        }
    }
}

/// How long the whole pipeline takes for a dump, with its state in a folder of `directory` that is
/// gone afterwards, and a save whenever so many records were settled; never if that is 0.
pub(crate) fn extract(
    corpus: &Corpus,
    target: Target,
    interval: u64,
    directory: &Path,
) -> Duration {
    let state = TempDir::new_in(directory).unwrap();
    if let Target::RabbitMq(queue_type) = target {
        rabbitmq::empty(corpus.dump.kind, queue_type);
    }
    let fs: Arc<dyn FileSystem> = Arc::new(OsFileSystem);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let began = clock.now();
    let mut broker = broker(target, &fs, &clock, state.path().join("spool"));
    let selection = dump::select(&*fs, &corpus.dump.path, None, &[]).unwrap();
    let paths = Paths::new(state.path(), &selection.version);
    let plan = plan::plan(&*fs, selection, paths, true).unwrap();
    let mut options = Options::default();
    if interval > 0 {
        options.save.interval = interval;
    } else {
        options.save.interval = u64::MAX / 2;
        options.save.age_max = Duration::from_secs(86_400);
    }
    let mut extraction = Extraction::new(plan, options, began, clock.unix());
    let ending = driver::run(
        &mut extraction,
        &mut Outside {
            clock: &*clock,
            saver: &mut ThreadSaver::new(Arc::clone(&fs), broker.waker()),
            broker: &mut *broker,
            dumps: &mut Pooled,
            observer: &mut Nobody,
            stop: &AtomicBool::new(false),
        },
    );
    assert!(matches!(ending, Ending::SelectionComplete), "{ending:?}");
    clock.now().since(began)
}

fn broker(
    target: Target,
    fs: &Arc<dyn FileSystem>,
    clock: &Arc<dyn Clock>,
    directory: PathBuf,
) -> Box<dyn Broker> {
    match target {
        Target::Null => Box::new(Null::new(Arc::clone(clock))),
        Target::Spool => {
            let (fs, spool_clock) = (Arc::clone(fs), Arc::clone(clock));
            let make = move || Spool::new(fs, spool_clock, directory, spool::Options::default());
            Box::new(Threaded::new(make, Arc::clone(clock)))
        }
        Target::RabbitMq(queue_type) => {
            let config = rabbitmq::config(queue_type);
            Box::new(RabbitMq::new(config, Arc::clone(clock)))
        }
    }
}

/// How long `work` takes.
pub(crate) fn timed(work: impl FnOnce()) -> Duration {
    let began = std::time::Instant::now();
    work();
    began.elapsed()
}

/// A directory on a disk, and one in memory if there is one.
pub(crate) fn places() -> Vec<(&'static str, &'static Path)> {
    let disk = ("disk", Path::new(env!("CARGO_TARGET_TMPDIR")));
    let memory = ("tmpfs", Path::new("/dev/shm"));
    let mut places = vec![disk, memory];
    places.retain(|(_, directory)| directory.is_dir());
    places
}

struct Pooled;

impl Open for Pooled {
    fn open(
        &mut self,
        dump: &Dump,
        from: Position,
        seek_point: Option<SeekPoint>,
    ) -> Result<Reads, SourceError> {
        let source = source::open(&OsFileSystem, dump, from, &source::Options::default())?;
        Ok(pooled(source.with_seek_point(seek_point), 2))
    }
}

struct Nobody;

impl Observer for Nobody {
    fn notice(&mut self, _: Instant, _: &Notice, _: &Extraction) {}

    fn step(&mut self, _: Instant, _: &Extraction) {}
}
