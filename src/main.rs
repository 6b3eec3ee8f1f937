//! The command line: parses, calls the library, and maps what comes back to an exit code.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{CommandFactory as _, Parser as _};

use discogs_extractor::check;
use discogs_extractor::cli::{Cli, LettersTask, Task};
use discogs_extractor::config::{
    self, Config, DownloadConfig, FollowConfig, ListenConfig, LogConfig, Place, TuneConfig,
};
use discogs_extractor::download::DownloadError;
use discogs_extractor::endpoint::{Endpoint, Sources};
use discogs_extractor::extraction::Ending;
use discogs_extractor::fetch::{self, FetchError};
use discogs_extractor::fs::{FileSystem, OsFileSystem};
use discogs_extractor::letters::{self, Choice};
use discogs_extractor::run::{self, Process, RunError};
use discogs_extractor::settings::{ConfigError, Flags, Values, environment};
use discogs_extractor::signals::Trigger;
use discogs_extractor::status;
use discogs_extractor::supervisor::Supervisor;
use discogs_extractor::telemetry::Telemetry;
use discogs_extractor::time::{Clock, SystemClock};
use discogs_extractor::tune::{self, TuneError};

const COMPLETE: u8 = 0;
const ERROR: u8 = 1;
const USAGE: u8 = 2;
const STOPPED: u8 = 3;

fn main() -> ExitCode {
    let done = match Cli::parse().task {
        Task::Run(flags) => run(&flags.0),
        Task::Download(flags) => download(&flags.0),
        Task::Follow(flags) => follow(&flags.0),
        Task::Status { place, json } => status(&place.0, json),
        Task::Check {
            flags,
            sample,
            json,
        } => check(&flags.0, sample, json),
        Task::Tune {
            flags,
            seconds,
            svg,
            json,
        } => tune(&flags.0, Duration::from_secs(seconds), svg.as_deref(), json),
        Task::DeadLetters(task) => dead_letters(task),
        Task::Config(flags) => show_config(&flags.0),
        Task::Completions { shell } => completions(shell),
        Task::Man { directory } => man(&directory),
    };
    done.map_or_else(|error| failed(&error), ExitCode::from)
}

/// Prints why, and finds the exit code of it.
fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    let is_config =
        error.is::<ConfigError>() || matches!(error.downcast_ref(), Some(RunError::Config(_)));
    ExitCode::from(if is_config { USAGE } else { ERROR })
}

fn load(flags: &Flags) -> Result<Values, ConfigError> {
    Values::load(&OsFileSystem, flags, &environment())
}

fn run(flags: &Flags) -> anyhow::Result<u8> {
    let values = load(flags)?;
    let config = Config::new(&OsFileSystem, &values)?;
    let listen = ListenConfig::new(&values, ListenConfig::OFF)?;
    let process = process(config.log)?;
    let _endpoint = watched(listen, &process, None)?;
    let summary = run::run(&config, &process)?;
    process.supervisor.stopping();
    print(&summary.to_string())?;
    if let Some(failure) = summary.failure() {
        eprintln!("error: {failure}");
    }
    Ok(match summary.ending {
        Ending::Complete | Ending::SelectionComplete => COMPLETE,
        Ending::Stopped => STOPPED,
        Ending::Failed(_) => ERROR,
    })
}

fn download(flags: &Flags) -> anyhow::Result<u8> {
    let config = DownloadConfig::new(&OsFileSystem, &load(flags)?)?;
    let process = process(config.log)?;
    process.supervisor.ready();
    let fetched = fetch::fetch(&config, &process);
    process.supervisor.stopping();
    match fetched {
        Ok(version) => {
            let directory = config.directory.display();
            print(&format!("version {version} is complete in {directory}\n"))?;
            Ok(COMPLETE)
        }
        Err(error @ FetchError::Download(DownloadError::Stopped)) => {
            eprintln!("{error}");
            Ok(STOPPED)
        }
        Err(error) => Err(error.into()),
    }
}

/// The supervisor comes after the log, because there may be something to say of it.
fn process(log: LogConfig) -> anyhow::Result<Process> {
    let telemetry = Telemetry::start(log);
    Process::new(telemetry, Supervisor::new(&environment())).context("cannot take signals")
}

/// Lets `process` be watched, if that is wanted.
fn watched(
    listen: Option<ListenConfig>,
    process: &Process,
    trigger: Option<Arc<Trigger>>,
) -> Result<Option<Endpoint>, ConfigError> {
    let sources = Sources {
        board: process.telemetry.board(),
        clock: Arc::clone(&process.clock),
        trigger,
    };
    let start = |listen| Endpoint::start(&listen, sources);
    let endpoint = listen.map(start).transpose()?;
    if let Some(endpoint) = &endpoint {
        tracing::info!("to be watched at http://{}/", endpoint.address);
    }
    Ok(endpoint)
}

/// Goes on until it is stopped, which is not an error.
fn follow(flags: &Flags) -> anyhow::Result<u8> {
    let values = load(flags)?;
    let config = FollowConfig::new(&OsFileSystem, &values)?;
    let listen = ListenConfig::new(&values, ListenConfig::ON)?;
    let process = process(config.run.log)?;
    let trigger = Arc::new(Trigger::default());
    let _endpoint = watched(listen, &process, Some(Arc::clone(&trigger)))?;
    process.supervisor.ready();
    fetch::follow(config, &process, &trigger);
    process.supervisor.stopping();
    Ok(COMPLETE)
}

fn status(flags: &Flags, is_json: bool) -> anyhow::Result<u8> {
    let place = Place::new(&OsFileSystem, &load(flags)?)?;
    let report = status::report(&OsFileSystem, &place, SystemClock::new().unix())?;
    print(&match is_json {
        true => report.to_json(),
        false => report.to_string(),
    })?;
    Ok(COMPLETE)
}

fn check(flags: &Flags, samples: u64, is_json: bool) -> anyhow::Result<u8> {
    let config = Config::new(&OsFileSystem, &load(flags)?)?;
    let telemetry = Telemetry::start(config.log);
    let clock = SystemClock::new();
    let mut printed = Ok(());
    let mut sample = |message: &[u8]| {
        if printed.is_ok() {
            printed = print_bytes(&[message, b"\n"].concat());
        }
    };
    let checked = check::check(
        &OsFileSystem,
        &clock,
        &config,
        &telemetry,
        samples,
        &mut sample,
    );
    let report = checked?;
    printed?;
    let text = match is_json {
        true => report.to_json(),
        false => report.to_string(),
    };
    match samples {
        0 => print(&text)?,
        _ => eprint!("{text}"),
    }
    Ok(if report.is_sound() { COMPLETE } else { ERROR })
}

fn tune(flags: &Flags, time: Duration, svg: Option<&Path>, is_json: bool) -> anyhow::Result<u8> {
    let config = TuneConfig::new(&OsFileSystem, &load(flags)?)?;
    let process = process(config.run.log)?;
    tracing::info!("measuring for about {} seconds", time.as_secs());
    let outside = tune::Outside {
        fs: Arc::new(OsFileSystem),
        clock: Arc::clone(&process.clock),
        stop: &process.stop,
    };
    let measured = match tune::measure(&config, time, outside) {
        Ok(measured) => measured,
        Err(error @ TuneError::Stopped) => {
            eprintln!("{error}");
            return Ok(STOPPED);
        }
        Err(TuneError::Run(error)) => return Err(error.into()),
        Err(error) => return Err(error.into()),
    };
    let report = tune::Report::new(measured);
    if let Some(path) = svg {
        let written = OsFileSystem.create(path);
        written
            .and_then(|mut file| file.write_all(report.to_svg().as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    print(&match is_json {
        true => report.to_json(),
        false => report.to_string(),
    })?;
    Ok(COMPLETE)
}

fn dead_letters(task: LettersTask) -> anyhow::Result<u8> {
    let listed = |flags: &Flags, record| {
        let values = load(flags)?;
        let choice = Choice {
            kinds: config::kinds(&values)?,
            record,
        };
        let place = Place::new(&OsFileSystem, &values)?;
        anyhow::Ok(letters::list(&OsFileSystem, &place, &choice)?)
    };
    match task {
        LettersTask::List { chosen, json } => {
            let letters = listed(&chosen.0, None)?;
            print(&match json {
                true => letters.to_json(),
                false => letters.to_string(),
            })?;
            Ok(COMPLETE)
        }
        LettersTask::Show { chosen, record } => {
            print(&listed(&chosen.0, record)?.show()?)?;
            Ok(COMPLETE)
        }
        LettersTask::Retry { flags, record, xml } => retry(&flags.0, record, xml),
    }
}

fn retry(flags: &Flags, record: Option<u64>, xml: Option<PathBuf>) -> anyhow::Result<u8> {
    let config = Config::new(&OsFileSystem, &load(flags)?)?;
    let _telemetry = Telemetry::start(config.log);
    let fs: Arc<dyn FileSystem> = Arc::new(OsFileSystem);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let owner = run::owner(&*fs, &*clock);
    let mut broker = run::broker(&config, Vec::new(), &fs, &clock, &owner);
    let outside = letters::Outside {
        fs: &*fs,
        clock: &*clock,
        broker: &mut *broker,
    };
    let choice = Choice {
        kinds: config.kinds.clone(),
        record,
    };
    let retried = letters::retry(outside, &config, &choice, xml, &owner)?;
    print(&retried.to_string())?;
    Ok(if retried.left == 0 { COMPLETE } else { ERROR })
}

fn show_config(flags: &Flags) -> anyhow::Result<u8> {
    let values = load(flags)?;
    Config::new(&OsFileSystem, &values)?;
    ListenConfig::new(&values, ListenConfig::OFF)?;
    print(&values.to_toml(config::mask))?;
    Ok(COMPLETE)
}

fn completions(shell: clap_complete::Shell) -> anyhow::Result<u8> {
    let mut script = Vec::new();
    let mut command = Cli::command();
    clap_complete::generate(shell, &mut command, "discogs-extractor", &mut script);
    print(&String::from_utf8_lossy(&script))?;
    Ok(COMPLETE)
}

fn man(directory: &Path) -> anyhow::Result<u8> {
    let written = OsFileSystem
        .create_dir(directory)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), directory));
    written.with_context(|| format!("cannot write into {}", directory.display()))?;
    Ok(COMPLETE)
}

/// Writes to stdout. A reader that has seen enough (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    print_bytes(text.as_bytes())
}

fn print_bytes(bytes: &[u8]) -> anyhow::Result<()> {
    match io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to stdout")
        }
        _ => Ok(()),
    }
}
