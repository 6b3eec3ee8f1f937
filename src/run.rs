//! A run: everything that the driver needs, wired together for production.
//!
//! ```text
//! select ─→ lock ─→ plan ─→ broker ─→ Extraction ⇄ driver ─→ summary
//! ```
//!
//! The lock is taken before the state is read, and kept to the end. A stop request is honoured from
//! the beginning.

use std::fmt;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::broker::Broker;
use crate::config::{BrokerConfig, Config};
use crate::driver::{self, Open, Outside};
use crate::dump::{self, Dump, Kind, SelectError, Version};
use crate::extraction::{Ending, Extraction, Failure};
use crate::fs::{FileSystem, OsFileSystem};
use crate::human::{count, counted, duration, rounded};
use crate::marker::{Marker, Paths, Status};
use crate::null::Null;
use crate::plan::{self, PlanError};
use crate::pool;
use crate::queue::Threaded;
use crate::rabbitmq::RabbitMq;
use crate::rabbitmq::stream::{self, RabbitMqStream, StreamPublisher};
use crate::record::Position;
use crate::saver::ThreadSaver;
use crate::seek_point::SeekPoint;
use crate::settings::ConfigError;
use crate::signals::StopSignals;
use crate::source::{self, Reads, SourceError};
use crate::spool::{self, Spool};
use crate::supervisor::Supervisor;
use crate::telemetry::Telemetry;
use crate::time::{Clock, SystemClock, rfc3339};

/// Why a run could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is nothing to read where the configuration says.
    #[error("{0}")]
    Config(ConfigError),
    /// The state can't be locked or read.
    #[error("{0}")]
    Plan(#[from] PlanError),
}

/// What a run came to.
#[derive(Debug)]
pub struct Summary {
    /// How it ended.
    pub ending: Ending,
    version: Version,
    marker: Marker,
    marker_path: PathBuf,
    /// Whether there was anything to do.
    is_idle: bool,
    records: u64,
    saves: u64,
    elapsed: Duration,
    /// Where the messages are, if that is a place to look at.
    spool: Option<PathBuf>,
}

/// What the tasks of this process have in common.
pub struct Process {
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// What users see.
    pub telemetry: Telemetry,
    /// Who wants to know whether it is ready, and that it lives.
    pub supervisor: Supervisor,
    /// What users want.
    pub stop: StopSignals,
}

impl Process {
    /// This process, with the system's clock.
    ///
    /// # Errors
    /// The operating system does not let us take signals.
    pub fn new(telemetry: Telemetry, supervisor: Supervisor) -> io::Result<Self> {
        Ok(Self {
            clock: Arc::new(SystemClock::new()),
            telemetry,
            supervisor,
            stop: StopSignals::take()?,
        })
    }
}

/// Makes a run with the real clock, file system and broker, until it is over or a signal says so. The
/// supervisor is told that it is ready once the state is locked and read.
///
/// # Errors
/// It could not begin. How it ended, if it began, is in the summary.
pub fn run(config: &Config, process: &Process) -> Result<Summary, RunError> {
    let Process {
        clock,
        telemetry,
        supervisor,
        stop,
    } = process;
    let fs: Arc<dyn FileSystem> = Arc::new(OsFileSystem);
    let selection = select(&*fs, config)?;
    let owner = owner(&*fs, &**clock);
    let paths = Paths::new(&state_directory(config, &selection), &selection.version);
    let _lock = plan::lock(&*fs, &paths, &owner)?;
    let mut plan = plan::plan(&*fs, selection, paths.clone(), config.is_forced)?;
    if let BrokerConfig::Stream(_) = &config.broker {
        let unix_seconds = clock.unix().as_secs();
        plan::assign_publishers(&mut plan, &rules(config), config.is_forced, unix_seconds);
    }
    let mut broker = broker(config, stream::publishers(&plan), &fs, clock, &owner);
    stop.wake(broker.waker());
    for warning in config.warnings.iter().chain(&plan.warnings) {
        tracing::warn!("{warning}");
    }

    supervisor.ready();

    let version = plan.version.clone();
    let began = clock.now();
    let mut watch = telemetry.watch(began, &plan, &config.extraction);
    let mut extraction = Extraction::new(plan, config.extraction, began, clock.unix());
    let mut outside = Outside {
        clock: &**clock,
        saver: &mut ThreadSaver::new(Arc::clone(&fs), broker.waker()),
        broker: &mut *broker,
        dumps: &mut Dumps::new(config, &fs),
        observer: &mut supervisor.watching(&mut watch),
        stop: &stop.flag,
    };
    let ending = driver::run(&mut extraction, &mut outside);
    watch.end(clock.now(), &extraction, &ending);
    let progress = extraction.progress();
    Ok(Summary {
        ending,
        version,
        marker: extraction.marker().clone(),
        marker_path: paths.marker(),
        is_idle: progress.saves == 0,
        records: progress.read_in_run,
        saves: progress.saves,
        elapsed: clock.now().since(began),
        spool: match &config.broker {
            BrokerConfig::Spool(directory) => Some(directory.clone()),
            _ => None,
        },
    })
}

/// The dumps that `config` names.
///
/// # Errors
/// There are none.
pub fn select(fs: &dyn FileSystem, config: &Config) -> Result<dump::Selection, RunError> {
    let place = &config.place;
    let selected = dump::select(fs, &place.root, place.version.as_ref(), &config.kinds);
    let mut selection = selected.map_err(|error: SelectError| {
        RunError::Config(place.root_value.error(error.to_string()))
    })?;
    if selection.directory == Path::new("") {
        selection.directory = PathBuf::from(".");
    }
    Ok(selection)
}

/// What decides, besides the bytes of a dump, which records become messages.
fn rules(config: &Config) -> String {
    let version = env!("CARGO_PKG_VERSION");
    format!("{version} {:?} {}", config.profile, config.record_bytes_max)
}

/// Where the state of `selection` is.
pub fn state_directory(config: &Config, selection: &dump::Selection) -> PathBuf {
    let named = config.place.state_directory.clone();
    named.unwrap_or_else(|| selection.directory.clone())
}

/// How dumps are read.
pub fn source_options(config: &Config) -> source::Options {
    source::Options {
        record_bytes_max: config.record_bytes_max,
        profile: config.profile,
        ..source::Options::default()
    }
}

/// The broker that `config` names; `owner` is who writes into files of ours, `publishers` who publish
/// to streams.
pub fn broker(
    config: &Config,
    publishers: Vec<StreamPublisher>,
    fs: &Arc<dyn FileSystem>,
    clock: &Arc<dyn Clock>,
    owner: &str,
) -> Box<dyn Broker> {
    match &config.broker {
        BrokerConfig::Null => Box::new(Null::new(Arc::clone(clock))),
        BrokerConfig::RabbitMq(rabbitmq) => {
            Box::new(RabbitMq::new(rabbitmq.clone(), Arc::clone(clock)))
        }
        BrokerConfig::Stream(stream) => {
            let mut stream = stream.clone();
            stream.publishers = publishers;
            Box::new(RabbitMqStream::new(stream, Arc::clone(clock)))
        }
        BrokerConfig::Spool(directory) => {
            let options = spool::Options {
                owner: owner.to_owned(),
                ..spool::Options::default()
            };
            let (fs, spool_clock) = (Arc::clone(fs), Arc::clone(clock));
            let directory = directory.clone();
            let make = move || Spool::new(fs, spool_clock, directory, options);
            Box::new(Threaded::new(make, Arc::clone(clock)))
        }
    }
}

/// Who we are, for the extractor that finds our lock: `process 12 on name since 2026-08-02T..`.
pub fn owner(fs: &dyn FileSystem, clock: &dyn Clock) -> String {
    let (process, since) = (std::process::id(), rfc3339(clock.unix()));
    let mut host = String::new();
    let read = fs
        .open(Path::new("/proc/sys/kernel/hostname"))
        .and_then(|mut file| file.read_to_string(&mut host));
    match read {
        Ok(_) => format!("process {process} on {} since {since}", host.trim_end()),
        Err(_) => format!("process {process} since {since}"),
    }
}

/// Opens dumps, each on threads of its own.
#[derive(Clone)]
pub struct Dumps {
    fs: Arc<dyn FileSystem>,
    options: source::Options,
    source_threads: usize,
}

impl Dumps {
    /// As `config` says.
    pub fn new(config: &Config, fs: &Arc<dyn FileSystem>) -> Self {
        Self {
            fs: Arc::clone(fs),
            options: source_options(config),
            source_threads: config.source_threads,
        }
    }
}

impl fmt::Debug for Dumps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dumps")
    }
}

impl Open for Dumps {
    fn open(
        &mut self,
        dump: &Dump,
        from: Position,
        seek_point: Option<SeekPoint>,
    ) -> Result<Reads, SourceError> {
        let source = source::open(&*self.fs, dump, from, &self.options)?;
        Ok(pool::pooled(
            source.with_seek_point(seek_point),
            self.source_threads,
        ))
    }
}

impl Summary {
    /// The error that the run ended with.
    pub fn failure(&self) -> Option<&Failure> {
        match &self.ending {
            Ending::Failed(failure) => Some(failure),
            _ => None,
        }
    }

    fn headline(&self) -> String {
        let version = &self.version;
        match (&self.ending, self.is_idle) {
            (Ending::Complete, true) => format!("version {version} is complete: nothing to do"),
            (Ending::Complete, false) => format!("version {version} is complete"),
            (Ending::SelectionComplete, true) => {
                format!("these dumps of version {version} are complete: nothing to do")
            }
            (Ending::SelectionComplete, false) => {
                format!("these dumps of version {version} are complete")
            }
            (Ending::Stopped, _) => {
                format!("version {version} was stopped on request: run it again to go on")
            }
            (Ending::Failed(_), _) => {
                format!("version {version} ended with an error: run it again to go on")
            }
        }
    }

    fn write_dumps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for kind in Kind::ALL {
            let Some(file) = self.marker.file(&dump::file_name(&self.version, kind)) else {
                continue;
            };
            let frontier = file.checkpoint.as_ref().map(|point| point.frontier);
            let letters = frontier.map_or(0, |frontier| frontier.dead_letters);
            write!(
                f,
                "  {kind:9}{:>12} records {:>12} messages",
                count(file.records_extracted),
                count(file.messages_published)
            )?;
            if letters > 0 {
                write!(f, ", {}", counted(letters, "dead letter"))?;
            }
            if file.status != Status::Completed {
                write!(f, ", not complete")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// For people, at the end.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        self.write_dumps(f)?;
        if !self.is_idle {
            let seconds = self.elapsed.as_secs_f64().max(0.001);
            #[expect(clippy::cast_precision_loss, reason = "a rate is for reading")]
            let rate = rounded(self.records as f64 / seconds);
            writeln!(
                f,
                "{} read in {} ({rate}/s), {}",
                counted(self.records, "record"),
                duration(self.elapsed),
                counted(self.saves, "save")
            )?;
        }
        if let Some(spool) = &self.spool {
            let files = spool.join(self.version.as_str()).join("*.jsonl");
            writeln!(f, "messages: {}", files.display())?;
        }
        writeln!(f, "state: {}", self.marker_path.display())
    }
}
