//! Measures this machine: the pipeline of `run`, with the user's own dumps, data directory and broker.
//!
//! Saves are made in a folder of its own in the state directory, so on the same disk; messages go
//! into a folder of its own beside the spool, or to exchanges and queues of its own. All of that is
//! removed at the end, and what a killed process has left, by the next one. Nothing that is in use is
//! touched.
//!
//! What a save costs can't be seen in a single run, because a machine's speed changes more than that.
//! So runs with saves and runs without go by turns, and the difference counts that the many saves of
//! all runs have made together.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Machine, Measured, Trial};
use crate::config::{BrokerConfig, Config, TuneConfig};
use crate::driver::{self, Observer, Open};
use crate::dump::{Dump, Kind, Selection, file_name};
use crate::extraction::{Ending, Extraction, Notice, Options};
use crate::fs::{FileSystem, Lock};
use crate::marker::{Checkpoint, Frontier, Marker, Paths, Save, SaveError};
use crate::plan::{self, PlanError};
use crate::rabbitmq::{self, DeclaredQueue, QueueType, Topology};
use crate::record::Position;
use crate::run::{self, Dumps, RunError};
use crate::saver::ThreadSaver;
use crate::seek_point::SeekPoint;
use crate::signals::StopSignals;
use crate::source::{Fingerprint, Read, Reads, SourceError};
use crate::time::{Clock, Instant};

/// The name of everything that is made for measuring.
const NAME: &str = "discogs-extractor-tune";
/// How often every interval is measured.
const ROUNDS: usize = 5;
/// The fewest records of a run, so that it has saves.
const RECORDS_MIN: f64 = 1_000.0;
/// The most saves that are made one after another.
const SAVES_MAX: u64 = 300;

/// Why nothing can be recommended.
#[derive(Debug, thiserror::Error)]
pub enum TuneError {
    /// There is nothing to read, or the folder is in use.
    #[error("{0}")]
    Run(#[from] RunError),
    /// The folder for measuring.
    #[error("cannot {operation} {}: {error}", .path.display())]
    Folder {
        /// What was tried.
        operation: &'static str,
        /// The folder.
        path: PathBuf,
        /// What the file system said.
        error: io::Error,
    },
    /// A save failed.
    #[error("{0}")]
    Save(#[from] SaveError),
    /// The broker, or a dump, does not let us.
    #[error("cannot measure: {0}")]
    Trouble(String),
    /// Its streams would be left behind.
    #[error(
        "streams can't be measured, because what was published there stays; measure with amqp:// on \
         the same RabbitMQ, or with null:"
    )]
    Stream,
    /// A signal came.
    #[error("stopped on request; nothing was left behind")]
    Stopped,
}

impl From<PlanError> for TuneError {
    fn from(error: PlanError) -> Self {
        Self::Run(error.into())
    }
}

/// The outside world.
pub struct Outside<'a> {
    /// Files.
    pub fs: Arc<dyn FileSystem>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Ends it early.
    pub stop: &'a StopSignals,
}

/// Measures for about so long.
///
/// # Errors
/// What stands in the way.
pub fn measure(
    config: &TuneConfig,
    time: Duration,
    outside: Outside<'_>,
) -> Result<Measured, TuneError> {
    let failures_per_day = config.failures_per_day;
    let config = &config.run;
    let selection = run::select(&*outside.fs, config)?;
    let owner = run::owner(&*outside.fs, &*outside.clock);
    let state = run::state_directory(config, &selection);
    let folder = Folder::new(&*outside.fs, &state, &owner)?;
    let target = Target::new(&*outside.fs, config, &owner)?;
    let bench = Bench {
        paths: Paths::new(&folder.path, &selection.version),
        selection,
        config: config.clone(),
        outside,
        target,
        owner,
    };
    let save_seconds = bench.saves(time / 6)?;
    let configured = config.extraction.save.interval;
    let rounds = bench.rounds(time * 2 / 3, configured)?;
    let machine = Machine {
        records_per_second: rounds.records_per_second(),
        save_cost_seconds: rounds.save_cost_seconds(),
        save_seconds: median(save_seconds.iter().copied()),
        window_messages: config.extraction.window_messages as u64,
        save_age_max_seconds: config.extraction.save.age_max.as_secs_f64(),
        failures_per_day,
    };
    Ok(Measured {
        broker: bench.target.describe(),
        machine,
        save_seconds,
        measured: rounds.trials(),
        noise_percent: rounds.noise_percent(),
        configured,
    })
}

/// A folder that is removed with everything in it.
struct Folder {
    path: PathBuf,
    /// Given back before the folder goes.
    lock: Option<Box<dyn Lock>>,
}

impl Folder {
    /// One in `directory`; fails if another process has it.
    fn new(fs: &dyn FileSystem, directory: &Path, owner: &str) -> Result<Self, TuneError> {
        let path = directory.join(format!(".{NAME}"));
        let version = "20000101".parse();
        let paths = Paths::new(&path, &version.expect("a date is a version"));
        if fs.metadata(&path).is_ok() {
            drop(plan::lock(fs, &paths, owner)?);
            failing("remove", &path, std::fs::remove_dir_all(&path))?;
        }
        failing("create", &path, fs.create_dir(&path))?;
        let lock = Some(plan::lock(fs, &paths, owner)?);
        Ok(Self { path, lock })
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        self.lock = None;
        // What can't be removed now is removed by the next one.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn failing(operation: &'static str, path: &Path, result: io::Result<()>) -> Result<(), TuneError> {
    result.map_err(|error| TuneError::Folder {
        operation,
        path: path.to_owned(),
        error,
    })
}

/// Where messages go, and nobody else's.
enum Target {
    Null,
    /// The folder, and whether the one that it is in was made for it.
    Spool(Folder, Option<PathBuf>),
    RabbitMq(rabbitmq::RabbitMqConfig),
}

impl Target {
    fn new(fs: &dyn FileSystem, config: &Config, owner: &str) -> Result<Self, TuneError> {
        Ok(match &config.broker {
            BrokerConfig::Null => Self::Null,
            BrokerConfig::Stream(_) => return Err(TuneError::Stream),
            BrokerConfig::Spool(directory) => {
                let is_new = fs.metadata(directory).is_err();
                failing("create", directory, fs.create_dir(directory))?;
                let folder = Folder::new(fs, directory, owner)?;
                Self::Spool(folder, is_new.then(|| directory.clone()))
            }
            BrokerConfig::RabbitMq(rabbitmq) => {
                let mut rabbitmq = rabbitmq.clone();
                rabbitmq.topology = Topology::Fanout {
                    prefix: NAME.to_owned(),
                };
                rabbitmq.queues = vec![DeclaredQueue {
                    name: format!("{NAME}-{{kind}}"),
                    queue_type: QueueType::default(),
                }];
                Self::RabbitMq(rabbitmq)
            }
        })
    }

    fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Spool(..) => "files".to_owned(),
            Self::RabbitMq(config) => format!("RabbitMQ at {}", config.addresses[0]),
        }
    }

    /// The same, with nothing in it.
    fn emptied(&self) -> Result<BrokerConfig, TuneError> {
        Ok(match self {
            Self::Null => BrokerConfig::Null,
            Self::Spool(folder, _) => {
                let directory = folder.path.join("messages");
                if directory.exists() {
                    failing("remove", &directory, std::fs::remove_dir_all(&directory))?;
                }
                BrokerConfig::Spool(directory)
            }
            Self::RabbitMq(config) => {
                rabbitmq::remove(config).map_err(TuneError::Trouble)?;
                BrokerConfig::RabbitMq(config.clone())
            }
        })
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // What can't be removed now is removed by the next one.
        match self {
            Self::RabbitMq(config) => drop(rabbitmq::remove(config)),
            Self::Spool(folder, Some(made)) => {
                folder.lock = None;
                let _ = std::fs::remove_dir_all(&folder.path);
                let _ = std::fs::remove_dir(made);
            }
            _ => {}
        }
    }
}

/// What is measured with.
struct Bench<'a> {
    config: Config,
    selection: Selection,
    paths: Paths,
    outside: Outside<'a>,
    target: Target,
    owner: String,
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Timing {
    seconds: f64,
    saves: u64,
}

impl Bench<'_> {
    /// How long saves take, one after another.
    fn saves(&self, time: Duration) -> Result<Vec<f64>, TuneError> {
        let clock = &self.outside.clock;
        let marker = full_marker(&self.selection);
        let deadline = clock.now() + time;
        let mut taken = Vec::new();
        for number in 1..=SAVES_MAX {
            let began = clock.now();
            if !taken.is_empty() && began > deadline {
                break;
            }
            self.check_stop()?;
            Save::new(&self.paths, number, &marker, Vec::new()).finish(&*self.outside.fs)?;
            taken.push(clock.now().since(began).as_secs_f64());
        }
        Ok(taken)
    }

    fn check_stop(&self) -> Result<(), TuneError> {
        match self.outside.stop.flag.load(Ordering::Relaxed) {
            true => Err(TuneError::Stopped),
            false => Ok(()),
        }
    }

    /// Runs with saves and without by turns.
    fn rounds(&self, time: Duration, configured: u64) -> Result<Rounds, TuneError> {
        let mut intervals = vec![100, 1_000, configured];
        intervals.sort_unstable();
        intervals.dedup();
        let each = time.as_secs_f64() / (ROUNDS * (intervals.len() + 1)) as f64;
        let records = self.find_records(each)?;
        let mut rounds = Rounds {
            records,
            without: Vec::new(),
            with: intervals
                .iter()
                .map(|&interval| (interval, Vec::new()))
                .collect(),
        };
        for _ in 0..ROUNDS {
            rounds.without.push(self.run(None, records)?);
            for (interval, timings) in &mut rounds.with {
                timings.push(self.run(Some(*interval), records)?);
            }
        }
        Ok(rounds)
    }

    /// How many records take about so long.
    fn find_records(&self, seconds: f64) -> Result<u64, TuneError> {
        let mut records = RECORDS_MIN;
        loop {
            let taken = self.run(None, whole(records))?.seconds.max(1e-4);
            let wanted = (records * seconds / taken).max(RECORDS_MIN);
            if wanted <= records * 2.0 {
                return Ok(whole(wanted));
            }
            // A short run says little of a long one.
            records = wanted.min(records * 10.0);
        }
    }

    /// One run over so many records, with saves or without.
    fn run(&self, interval: Option<u64>, records: u64) -> Result<Timing, TuneError> {
        self.check_stop()?;
        let Outside { fs, clock, stop } = &self.outside;
        let mut config = self.config.clone();
        config.broker = self.target.emptied()?;
        let mut broker = run::broker(&config, Vec::new(), fs, clock, &self.owner);
        stop.wake(broker.waker());
        let last = self.selection.dumps.last().expect("a selection has dumps");
        let selection = Selection {
            dumps: vec![last.clone()],
            ..self.selection.clone()
        };
        let plan = plan::plan(&**fs, selection, self.paths.clone(), true)?;
        let options = options(&config.extraction, interval);
        let mut extraction = Extraction::new(plan, options, clock.now(), clock.unix());
        let mut trouble = Trouble { why: None, stop };
        let mut dumps = Sample {
            dumps: Dumps::new(&config, fs),
            records,
            began: None,
            clock: &**clock,
        };
        let ending = driver::run(
            &mut extraction,
            &mut driver::Outside {
                clock: &**clock,
                saver: &mut ThreadSaver::new(Arc::clone(fs), broker.waker()),
                broker: &mut *broker,
                dumps: &mut dumps,
                observer: &mut trouble,
                stop: &stop.flag,
            },
        );
        if let Some(why) = trouble.why {
            return Err(TuneError::Trouble(why));
        }
        match ending {
            Ending::Complete | Ending::SelectionComplete => Ok(Timing {
                seconds: clock
                    .now()
                    .since(dumps.began.expect("the dump was opened"))
                    .as_secs_f64(),
                saves: extraction.progress().saves,
            }),
            Ending::Stopped => Err(TuneError::Stopped),
            Ending::Failed(failure) => Err(TuneError::Trouble(failure.to_string())),
        }
    }
}

/// A marker as large as in the middle of a version.
fn full_marker(selection: &Selection) -> Marker {
    let mut marker = Marker::new(&selection.version);
    for kind in Kind::ALL {
        let file = marker.file_mut(&file_name(&selection.version, kind));
        file.checkpoint = Some(Checkpoint {
            fingerprint: Fingerprint("0".repeat(64)),
            file_bytes: 1 << 33,
            frontier: Frontier::default(),
        });
    }
    marker
}

/// As configured, but for the saves.
fn options(configured: &Options, interval: Option<u64>) -> Options {
    const NEVER: (u64, Duration) = (u64::MAX / 2, Duration::from_secs(86_400));
    let mut options = *configured;
    options.dead_letters_max = u64::MAX;
    (options.save.interval, options.save.age_max) = match interval {
        Some(interval) => (interval, options.save.age_max),
        None => NEVER,
    };
    options
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of records is not negative"
)]
fn whole(records: f64) -> u64 {
    records as u64
}

/// Ends a run that can't go on as it should: a measurement that waited is none.
struct Trouble<'a> {
    why: Option<String>,
    stop: &'a StopSignals,
}

impl Observer for Trouble<'_> {
    fn notice(&mut self, _: Instant, notice: &Notice, _: &Extraction) {
        let why = match notice {
            Notice::Disconnected { why, .. }
            | Notice::Unanswered { why }
            | Notice::NotTaken { why, .. }
            | Notice::Blocked { why } => why.clone(),
            Notice::SaveFailed { error, .. } => error.to_string(),
            _ => return,
        };
        self.why.get_or_insert(why);
        self.stop.flag.store(true, Ordering::Relaxed);
    }

    fn step(&mut self, _: Instant, _: &Extraction) {}
}

/// Opens a dump as one with so many records.
struct Sample<'a> {
    dumps: Dumps,
    records: u64,
    began: Option<Instant>,
    clock: &'a dyn Clock,
}

impl Open for Sample<'_> {
    fn open(
        &mut self,
        dump: &Dump,
        from: Position,
        seek_point: Option<SeekPoint>,
    ) -> Result<Reads, SourceError> {
        self.began = Some(self.clock.now());
        let reads = self.dumps.open(dump, from, seek_point)?;
        Ok(Box::new(Again {
            dumps: self.dumps.clone(),
            dump: dump.clone(),
            reads,
            left: self.records,
            offset: Position::START,
            reached: Position::START,
        }))
    }
}

/// The records of a dump, again and again until there were enough.
struct Again {
    dumps: Dumps,
    dump: Dump,
    reads: Reads,
    left: u64,
    /// Where this time began.
    offset: Position,
    reached: Position,
}

impl Iterator for Again {
    type Item = Result<Read, SourceError>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.left > 0 {
            match self.reads.next()? {
                Ok(Read::Item(mut item)) => {
                    self.left -= 1;
                    item.start.0 += self.offset.xml.0;
                    item.position.xml.0 += self.offset.xml.0;
                    item.position.ordinal.0 += self.offset.ordinal.0;
                    self.reached = item.position;
                    return Some(Ok(Read::Item(item)));
                }
                // A dump without records would be read without end.
                Ok(Read::End { .. }) if self.reached != self.offset => {
                    self.offset = self.reached;
                    match self.dumps.open(&self.dump, Position::START, None) {
                        Ok(reads) => self.reads = reads,
                        Err(error) => return Some(Err(error)),
                    }
                }
                other => return Some(other),
            }
        }
        let checksum = String::new();
        Some(Ok(Read::End { checksum }))
    }
}

/// What the rounds have measured.
struct Rounds {
    records: u64,
    without: Vec<Timing>,
    with: Vec<(u64, Vec<Timing>)>,
}

impl Rounds {
    fn records_per_second(&self) -> f64 {
        self.records as f64 / median(self.without.iter().map(|timing| timing.seconds))
    }

    /// The median of what each round says, so that one disturbed run decides nothing.
    fn save_cost_seconds(&self) -> f64 {
        let rounds = 0..self.without.len();
        median(rounds.map(|round| self.cost_in(round))).max(0.0)
    }

    /// The slope of the line through the differences of a round, and through none for no save.
    fn cost_in(&self, round: usize) -> f64 {
        let without = self.without[round];
        let (mut products, mut squares) = (0.0, 0.0);
        for with in self.with.iter().map(|(_, timings)| timings[round]) {
            let saves = with.saves.saturating_sub(without.saves) as f64;
            products += saves * (with.seconds - without.seconds);
            squares += saves * saves;
        }
        if squares > 0.0 {
            products / squares
        } else {
            0.0
        }
    }

    /// How much runs without saves differed among themselves: the middle half of them, in percent.
    fn noise_percent(&self) -> f64 {
        let mut seconds: Vec<_> = self.without.iter().map(|timing| timing.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        let quarter = seconds.len() / 4;
        let (low, high) = (seconds[quarter], seconds[seconds.len() - 1 - quarter]);
        (high / low - 1.0) * 100.0
    }

    fn trials(&self) -> Vec<Trial> {
        let overhead = |timings: &[Timing]| {
            let pairs = timings.iter().zip(&self.without);
            let ratios = pairs.map(|(with, without)| with.seconds / without.seconds);
            (median(ratios) - 1.0) * 100.0
        };
        let trials = self.with.iter().map(|(interval, timings)| Trial {
            interval: *interval,
            records: self.records,
            overhead_percent: overhead(timings),
        });
        trials.collect()
    }
}

/// The middle of at least one value.
fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(seconds: f64, saves: u64) -> Timing {
        Timing { seconds, saves }
    }

    #[test]
    fn the_cost_of_a_save_is_what_all_of_them_took_more() {
        let rounds = Rounds {
            records: 1_000,
            without: vec![timing(1.0, 4), timing(2.0, 4)],
            with: vec![
                (100, vec![timing(1.1, 14), timing(2.1, 14)]),
                (500, vec![timing(1.02, 6), timing(2.02, 6)]),
            ],
        };
        assert!((rounds.save_cost_seconds() - 0.01).abs() < 1e-9);
        let trials = rounds.trials();
        assert!((trials[0].overhead_percent - 10.0).abs() < 1e-9);
        assert!((rounds.records_per_second() - 500.0).abs() < 1e-9);
        assert!((rounds.noise_percent() - 100.0).abs() < 1e-9);
    }

    #[test]
    fn a_cost_that_is_not_seen_is_none() {
        let rounds = Rounds {
            records: 1_000,
            without: vec![timing(1.0, 4)],
            with: vec![(100, vec![timing(0.9, 14)])],
        };
        assert!(rounds.save_cost_seconds().abs() < 1e-12);
    }
}
