//! Downloads, and what follows them, with the real clock, file system and network.

use std::io;
use std::path::Path;
use std::sync::Arc;

use crate::config::{Config, DownloadConfig, FollowConfig};
use crate::download::{self, DownloadError, Options, Outside};
use crate::dump::Version;
use crate::extraction::Ending;
use crate::follow::{self, Round};
use crate::fs::{FileSystem, OsFileSystem};
use crate::http_client::HttpClient;
use crate::marker::Paths;
use crate::plan::{self, PlanError};
use crate::run::{self, Process};
use crate::signals::{Sleeper, Trigger};

/// Why there are no dumps.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The download ended early.
    #[error("{0}")]
    Download(#[from] DownloadError),
    /// Another extractor works there.
    #[error("{0}")]
    Plan(#[from] PlanError),
    /// The directory can't be made.
    #[error("cannot create {path}: {error}")]
    Directory {
        /// The directory.
        path: String,
        /// What the file system said.
        error: io::Error,
    },
}

/// Fetches what is missing of the version that `config` names, and returns that; until a signal says
/// otherwise.
///
/// # Errors
/// Why it ended before everything was there.
pub fn fetch(config: &DownloadConfig, process: &Process) -> Result<Version, FetchError> {
    let Process {
        clock,
        telemetry,
        supervisor,
        stop,
    } = process;
    let fs = OsFileSystem;
    let mut sleeper = Sleeper::new(Arc::clone(clock));
    stop.wake(sleeper.waker());
    let directory = &config.directory;
    create(&fs, directory)?;
    let state = config.state_directory.as_ref().unwrap_or(directory);
    let options = Options::new(&config.url);
    let mut view = telemetry.download(clock.now());
    let mut outside = Outside {
        fs: &fs,
        clock: &**clock,
        http: &mut HttpClient::new(Arc::clone(clock)),
        pause: &mut supervisor.pausing(&mut sleeper, &**clock),
        watcher: &mut supervisor.watching(&mut view),
        stop: &stop.flag,
    };
    let published = download::find(&mut outside, &options, config.version.as_ref())?;
    let paths = Paths::new(state, &published.version);
    let _lock = plan::lock(&fs, &paths, &run::owner(&fs, &**clock))?;
    download::fetch(&mut outside, &options, &published, directory, &paths)?;
    Ok(published.version)
}

/// Fetches and publishes every new version until a signal says otherwise; `trigger` makes it look now.
pub fn follow(config: FollowConfig, process: &Process, trigger: &Trigger) {
    let Process {
        clock,
        telemetry,
        supervisor,
        stop,
    } = process;
    let mut sleeper = Sleeper::new(Arc::clone(clock));
    let waker = sleeper.waker();
    trigger.wake(waker.clone());
    let FollowConfig {
        download,
        mut run,
        check_every,
        keep,
    } = config;
    let mut outside = follow::Outside {
        clock: &**clock,
        pause: &mut supervisor.pausing(&mut sleeper, &**clock),
        stop: &stop.flag,
        look: &trigger.flag,
        notice: &mut |now, notice| supervisor.status(&telemetry.tell_round(now, notice)),
    };
    follow::follow(&mut outside, check_every, &mut || {
        let round = round(&download, &mut run, process, trigger);
        stop.wake(waker.clone());
        match (&round, keep) {
            (Round::Complete(_), Some(keep)) => remove_old(&download.directory, keep, round),
            _ => round,
        }
    });
}

/// Fetches the newest version, and publishes it.
fn round(
    download: &DownloadConfig,
    run: &mut Config,
    process: &Process,
    trigger: &Trigger,
) -> Round {
    let version = match fetch(download, process) {
        Ok(version) => version,
        Err(FetchError::Download(DownloadError::Stopped)) => return Round::Stopped,
        Err(error) => return Round::Failed(error.to_string()),
    };
    run.place.version = Some(version.clone());
    run.is_forced = trigger.take_forced();
    match run::run(run, process) {
        Err(error) => Round::Failed(error.to_string()),
        Ok(summary) => match summary.ending {
            Ending::Complete | Ending::SelectionComplete => Round::Complete(version),
            Ending::Stopped => Round::Stopped,
            Ending::Failed(failure) => Round::Failed(failure.to_string()),
        },
    }
}

/// What `round` comes to if old dumps have to go after it.
fn remove_old(directory: &Path, keep: usize, round: Round) -> Round {
    match follow::remove_old(&OsFileSystem, directory, keep) {
        Ok(_) => round,
        Err(error) => Round::Failed(format!("cannot remove old dumps: {error}")),
    }
}

fn create(fs: &dyn FileSystem, directory: &Path) -> Result<(), FetchError> {
    fs.create_dir(directory)
        .map_err(|error| FetchError::Directory {
            path: directory.display().to_string(),
            error,
        })
}
