//! What a run has to do: decided on start, from the dumps that are there and the state marker.
//!
//! | the marker says of a dump | its bytes are | then |
//! |---|---|---|
//! | nothing, or `pending` | | from record 1 |
//! | `completed` | the same, or can't be told | skip |
//! | `completed` | others | from record 1 |
//! | `in_progress` or `failed`, with a checkpoint | the same | from the checkpoint |
//! | `in_progress` or `failed`, with a checkpoint | others | from record 1 |
//! | `in_progress` or `failed`, no checkpoint | | from record 1: the counts of other extractors were taken before the broker confirmed |
//!
//! When the user forces it, everything starts from record 1 whatever the marker says.
//!
//! A dump that goes on from a checkpoint goes there by way of its seek point, if that is whole, of
//! the same bytes, and not ahead of the checkpoint. Any other seek point is removed, and the user is
//! told if it would have been of use.

use std::io;
use std::path::PathBuf;

use crate::dump::{Dump, Selection, Version};
use crate::fs::{FileSystem, Lock};
use crate::marker::{self, Checkpoint, FileProgress, Frontier, Marker, Paths, Publisher, Status};
use crate::seek_point::SeekPoint;
use crate::source;

/// What a run has to do.
#[derive(Debug)]
pub struct Plan {
    /// The version.
    pub version: Version,
    /// Where its state is.
    pub paths: Paths,
    /// The state that the run goes on from.
    pub marker: Marker,
    /// The dumps to read, in processing order.
    pub dumps: Vec<PlannedDump>,
    /// What the user must be told.
    pub warnings: Vec<String>,
}

/// A dump to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedDump {
    /// The dump.
    pub dump: Dump,
    /// Where to go on, and in which bytes.
    pub checkpoint: Checkpoint,
    /// Where to begin on the way there, if that is known.
    pub seek_point: Option<SeekPoint>,
}

/// Why a run can't begin.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// Another extractor works in the same directory.
    #[error(
        "{} is locked by another extractor: {owner}; wait for its end, or stop it",
        .path.display()
    )]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// What the other one wrote into it.
        owner: String,
    },
    /// The file system failed.
    #[error("cannot {operation} {}: {error}", .path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the file system said.
        error: io::Error,
    },
}

fn failed(operation: &'static str, path: PathBuf) -> impl FnOnce(io::Error) -> PlanError {
    move |error| PlanError::Io {
        operation,
        path,
        error,
    }
}

/// Locks the state directory for this process; `owner` names it to the next one. The lock is
/// held until it is dropped, or the process dies.
///
/// # Errors
/// [`PlanError::Locked`] names the extractor that has it.
pub fn lock(fs: &dyn FileSystem, paths: &Paths, owner: &str) -> Result<Box<dyn Lock>, PlanError> {
    let path = paths.directory().join(".extraction.lock");
    fs.lock(&path, owner).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => PlanError::Locked {
            path,
            owner: error.to_string(),
        },
        _ => PlanError::Io {
            operation: "lock",
            path,
            error,
        },
    })
}

/// Decides what a run of `selection` has to do, with its state in `paths`.
///
/// # Errors
/// What the file system said of the state directory or a dump.
pub fn plan(
    fs: &dyn FileSystem,
    selection: Selection,
    paths: Paths,
    is_forced: bool,
) -> Result<Plan, PlanError> {
    let loaded = marker::load(fs, &paths);
    let loaded = loaded.map_err(failed(
        "load the state marker in",
        paths.directory().to_owned(),
    ))?;
    let mut warnings = loaded.warnings;
    let mut marker = loaded
        .marker
        .unwrap_or_else(|| Marker::new(&selection.version));
    marker.current_version = Some(selection.version.clone());
    if is_forced {
        forget(&mut marker, &selection.dumps);
    }

    let mut dumps = Vec::new();
    for dump in selection.dumps {
        let entry = marker.file(&dump.file_name()).cloned().unwrap_or_default();
        let decided = decide(fs, &dump, &entry).map_err(failed("read", dump.path.clone()))?;
        warnings.extend(decided.warning);
        let seek_point = match loaded.seek_points.contains(&dump.kind) {
            true => seek_point(fs, &paths, &dump, decided.checkpoint.as_ref()),
            false => Ok(None),
        };
        let seek_point = seek_point.unwrap_or_else(|warning| {
            warnings.push(warning);
            None
        });
        if let Some(checkpoint) = decided.checkpoint {
            if entry.status == Status::Completed {
                marker.summary.overall_status = Status::InProgress;
            }
            *marker.file_mut(&dump.file_name()) = begun(entry, &checkpoint);
            dumps.push(PlannedDump {
                dump,
                checkpoint,
                seek_point,
            });
        }
    }
    Ok(Plan {
        version: selection.version,
        paths,
        marker,
        dumps,
        warnings,
    })
}

/// Gives every dump of the plan a publisher, for a broker that recognises repeats by it.
///
/// | the marker knows | then |
/// |---|---|
/// | no publisher of these bytes | the first generation |
/// | one, and the user forces another extraction | a new generation |
/// | one with other rules | a new generation, which may repeat what comes after the checkpoint |
/// | one | the same |
///
/// The first generation is always the same, so that who has lost the state finds that the broker
/// holds messages of it, and is refused instead of having everything dropped in silence. For a new
/// one, without state to count from, there is only the time: `unix_seconds`.
pub fn assign_publishers(plan: &mut Plan, rules: &str, is_forced: bool, unix_seconds: u64) {
    for planned in &plan.dumps {
        let name = planned.dump.file_name();
        let entry = plan.marker.file_mut(&name);
        let checkpoint = &planned.checkpoint;
        let known = entry
            .publisher
            .take()
            .filter(|known| known.fingerprint == checkpoint.fingerprint);
        let is_same_rules = known.as_ref().is_none_or(|known| known.rules == rules);
        entry.publisher = Some(match known {
            Some(known) if is_same_rules && !is_forced => known,
            known => Publisher {
                fingerprint: checkpoint.fingerprint.clone(),
                generation: match known {
                    Some(known) => unix_seconds.max(known.generation + 1),
                    None if is_forced => unix_seconds,
                    None => 1,
                },
                rules: rules.to_owned(),
                after: checkpoint.frontier.messages,
                is_claimed: false,
            },
        });
        if !is_same_rules && !is_forced {
            plan.warnings.push(format!(
                "{name} was begun with other settings, or by another version of this program: what \
                 comes after record {} may be in the stream twice",
                checkpoint.frontier.record
            ));
        }
    }
}

/// Where a run would go on in `dump`, of which the marker says `entry`; `None` if it would skip it.
/// Only reads.
///
/// # Errors
/// What the file system said of the dump.
pub fn checkpoint(
    fs: &dyn FileSystem,
    dump: &Dump,
    entry: &FileProgress,
) -> Result<Option<Checkpoint>, PlanError> {
    let decided = decide(fs, dump, entry).map_err(failed("read", dump.path.clone()))?;
    Ok(decided.checkpoint)
}

/// Forgets what was done of `dumps`, but not who published it. The original start stays while another
/// dump is completed: consumers delete what is older.
fn forget(marker: &mut Marker, dumps: &[Dump]) {
    let processing = &mut marker.processing_phase;
    for dump in dumps {
        let forgotten = processing.progress_by_file.remove(&dump.file_name());
        if let Some(publisher) = forgotten.and_then(|file| file.publisher) {
            let file = processing.progress_by_file.entry(dump.file_name());
            file.or_default().publisher = Some(publisher);
        }
    }
    let mut others = processing.progress_by_file.values();
    if !others.any(|file| file.status == Status::Completed) {
        processing.started_at = None;
    }
    marker.summary.overall_status = Status::Pending;
}

/// The entry of a dump that is to be read from `checkpoint` on.
fn begun(entry: FileProgress, checkpoint: &Checkpoint) -> FileProgress {
    // Also at record 1, if that is where the dump stood: one without records has no other place.
    let is_resumed = entry.checkpoint.as_ref() == Some(checkpoint);
    FileProgress {
        status: if is_resumed {
            Status::InProgress
        } else {
            Status::Pending
        },
        records_extracted: checkpoint.frontier.record,
        messages_published: checkpoint.frontier.published(),
        batches_sent: checkpoint.frontier.published(),
        started_at: entry.started_at.filter(|_| is_resumed),
        completed_at: entry.completed_at.filter(|_| is_resumed),
        source_checksum: None,
        checkpoint: is_resumed.then(|| checkpoint.clone()),
        publisher: entry.publisher,
        dead_letters_published: Vec::new(),
        unknown: entry.unknown,
    }
}

/// The seek point of a dump that goes on from `checkpoint`, or why there is none. One that is of
/// no use is removed; if that fails, the next start tries again.
fn seek_point(
    fs: &dyn FileSystem,
    paths: &Paths,
    dump: &Dump,
    checkpoint: Option<&Checkpoint>,
) -> Result<Option<SeekPoint>, String> {
    let path = paths.seek_point(dump.kind);
    let resumed = checkpoint.filter(|checkpoint| checkpoint.frontier != Frontier::default());
    let Some(checkpoint) = resumed else {
        let _ = fs.remove(&path);
        return Ok(None);
    };
    let loaded = marker::read_seek_point(fs, &path, checkpoint);
    loaded.map(Some).map_err(|reason| {
        let _ = fs.remove(&path);
        format!(
            "the seek point {} can't be used ({reason}): {} is inflated and skipped up to where \
             reading goes on",
            path.display(),
            dump.file_name()
        )
    })
}

/// What to do with one dump.
struct Decided {
    /// Where to begin; `None` to skip it.
    checkpoint: Option<Checkpoint>,
    warning: Option<String>,
}

fn decide(fs: &dyn FileSystem, dump: &Dump, entry: &FileProgress) -> io::Result<Decided> {
    let start = Checkpoint {
        fingerprint: source::fingerprint(fs, &dump.path)?,
        file_bytes: fs.metadata(&dump.path)?.length,
        frontier: Frontier::default(),
    };
    let name = dump.file_name();
    let is_completed = entry.status == Status::Completed;
    let from_start = |warning: Option<String>| {
        Ok(Decided {
            checkpoint: Some(start.clone()),
            warning,
        })
    };
    match &entry.checkpoint {
        _ if entry.status == Status::Pending => from_start(None),
        Some(checkpoint) if checkpoint.fingerprint != start.fingerprint => from_start(Some(
            format!("{name} is not the file that was read before: starting again at record 1"),
        )),
        Some(_) if is_completed => Ok(Decided {
            checkpoint: None,
            warning: None,
        }),
        Some(checkpoint) => Ok(Decided {
            checkpoint: Some(checkpoint.clone()),
            warning: None,
        }),
        None if is_completed => match is_changed(fs, dump, entry)? {
            false => Ok(Decided {
                checkpoint: None,
                warning: None,
            }),
            true => from_start(Some(format!(
                "{name} no longer has the checksum that it was completed with: processing it again"
            ))),
        },
        None if entry.records_extracted > 0 => from_start(Some(format!(
            "{name} was begun by an extractor that saved no checkpoint: starting at record 1"
        ))),
        None => from_start(None),
    }
}

/// Whether a completed dump has other bytes than the checksum of another extractor says. This
/// reads the whole file; dumps that we completed have a fingerprint instead.
fn is_changed(fs: &dyn FileSystem, dump: &Dump, entry: &FileProgress) -> io::Result<bool> {
    let is_sha256 =
        |text: &&String| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    match entry.source_checksum.as_ref().filter(is_sha256) {
        Some(checksum) => Ok(!source::checksum(fs, &dump.path)?.eq_ignore_ascii_case(checksum)),
        None => Ok(false),
    }
}
