//! How far a version is, as its state marker says: for people, and as JSON for programs.
//!
//! Only reads, so it may run beside an extractor. Markers of other extractors have no
//! checkpoint: then how much of a dump is done is not known, and not shown.
//!
//! # The JSON
//!
//! One object; `null` is what is not known. Fields may be added, never renamed or removed.
//!
//! ```json
//! {
//!   "format": 1,
//!   "version": "20260801",
//!   "marker": "/data/.extraction_status_20260801.json",
//!   "status": "in_progress",
//!   "started_at": "2026-08-02T01:00:00.000Z",
//!   "saved_at": "2026-08-02T01:30:00.000Z",
//!   "saved_seconds_ago": 4.2,
//!   "records": 2500000,
//!   "messages": 2499998,
//!   "dead_letters": 2,
//!   "dumps": [
//!     {
//!       "kind": "artists",
//!       "file": "discogs_20260801_artists.xml.gz",
//!       "status": "in_progress",
//!       "records": 2500000,
//!       "messages": 2499998,
//!       "dead_letters": 2,
//!       "percent": 25.5,
//!       "records_per_second": 1388.9,
//!       "seconds_left": 5259,
//!       "started_at": "2026-08-02T01:00:00.000Z",
//!       "completed_at": null
//!     }
//!   ],
//!   "errors": ["what went wrong, oldest first"]
//! }
//! ```
//!
//! `status` is `pending`, `in_progress`, `completed` or `failed`. A rate is the mean since the
//! dump was begun, pauses included.

use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::config::Place;
use crate::dump::{self, Dump, Kind, Version};
use crate::fs::FileSystem;
use crate::human::{count, counted, duration, percent, rounded};
use crate::marker::{self, FileProgress, Marker, Paths, Status};

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// The file system failed.
    #[error("cannot read {path}: {error}")]
    Unreadable {
        /// What was to be read.
        path: PathBuf,
        /// What the file system said.
        error: io::Error,
    },
    /// No extraction was begun here.
    #[error(
        "{directory} has no state marker{}; name the directory that an extraction runs in, or its \
         --state-dir", .version.as_ref().map(|version| format!(" of version {version}")).unwrap_or_default()
    )]
    Missing {
        /// Where it was looked for.
        directory: PathBuf,
        /// What was asked for.
        version: Option<Version>,
    },
    /// Neither the marker nor its previous generation is one.
    #[error("{path} is no state marker: {reason}; the next run sets it aside and begins anew")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// How far a version is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    format: u32,
    version: String,
    marker: String,
    status: Status,
    started_at: Option<String>,
    saved_at: Option<String>,
    saved_seconds_ago: Option<f64>,
    records: u64,
    messages: u64,
    dead_letters: u64,
    dumps: Vec<DumpReport>,
    errors: Vec<String>,
}

/// How far a dump is.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct DumpReport {
    kind: Kind,
    file: String,
    status: Status,
    records: u64,
    messages: u64,
    dead_letters: Option<u64>,
    percent: Option<f64>,
    records_per_second: Option<f64>,
    seconds_left: Option<u64>,
    started_at: Option<String>,
    completed_at: Option<String>,
}

/// Reads the marker at `place`; `unix` is the present wall-clock time.
///
/// # Errors
/// There is none, or none that can be read.
pub fn report(fs: &dyn FileSystem, place: &Place, unix: Duration) -> Result<Report, StatusError> {
    let found = find(fs, place)?;
    Ok(Report::new(
        &found.path,
        &found.version,
        &found.marker,
        unix,
    ))
}

/// A state marker and where it is.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its version.
    pub version: Version,
    /// Where the state of that version is.
    pub paths: Paths,
    /// The file that was read: the marker, or its previous generation.
    pub path: PathBuf,
    /// What it says.
    pub marker: Marker,
}

/// The marker at `place`: of the version that is named, or the newest.
///
/// # Errors
/// There is none, or none that can be read.
pub fn find(fs: &dyn FileSystem, place: &Place) -> Result<Found, StatusError> {
    let (directory, named) = locate(fs, place)?;
    let found = match named.clone() {
        Some(version) => Some(version),
        None => newest(fs, &directory)?,
    };
    let missing = || StatusError::Missing {
        directory: directory.clone(),
        version: named.clone(),
    };
    let version = found.ok_or_else(missing)?;
    let paths = Paths::new(&directory, &version);
    let (path, marker) = read(fs, &paths)?.ok_or_else(missing)?;
    Ok(Found {
        version,
        paths,
        path,
        marker,
    })
}

/// The directory of the state, and the version if it is given.
fn locate(fs: &dyn FileSystem, place: &Place) -> Result<(PathBuf, Option<Version>), StatusError> {
    let root = &place.root;
    let metadata = fs.metadata(root).map_err(|error| unreadable(root, error));
    let dump = Dump::from_path(root);
    let (directory, version) = match (&place.state_directory, dump) {
        (Some(directory), dump) => (directory.clone(), dump.map(|dump| dump.version)),
        (None, Some(dump)) if !metadata?.is_dir => (parent(root), Some(dump.version)),
        _ => (root.clone(), None),
    };
    Ok((directory, place.version.clone().or(version)))
}

/// The directory of a file.
pub fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn unreadable(path: &Path, error: io::Error) -> StatusError {
    StatusError::Unreadable {
        path: path.to_owned(),
        error,
    }
}

/// The newest version that has a marker in `directory`.
fn newest(fs: &dyn FileSystem, directory: &Path) -> Result<Option<Version>, StatusError> {
    let paths = fs
        .list(directory)
        .map_err(|error| unreadable(directory, error))?;
    let version = |path: &PathBuf| -> Option<Version> {
        let name = path.file_name()?.to_str()?;
        let version = name.strip_prefix(".extraction_status_")?;
        let version = version.strip_suffix(".previous").unwrap_or(version);
        version.strip_suffix(".json")?.parse().ok()
    };
    Ok(paths.iter().filter_map(version).max())
}

/// The marker, else its previous generation; with its path.
///
/// # Errors
/// The file system failed, or neither is a marker.
pub fn read(fs: &dyn FileSystem, paths: &Paths) -> Result<Option<(PathBuf, Marker)>, StatusError> {
    let mut broken = None;
    for path in [paths.marker(), paths.previous()] {
        match marker::read(fs, &path).map_err(|error| unreadable(&path, error))? {
            Ok(Some(marker)) => return Ok(Some((path, marker))),
            Ok(None) => {}
            Err(reason) => broken = broken.or(Some(StatusError::Broken { path, reason })),
        }
    }
    broken.map_or(Ok(None), Err)
}

impl Report {
    fn new(path: &Path, version: &Version, marker: &Marker, unix: Duration) -> Self {
        let saved = marker.last_updated.as_deref().and_then(unix_seconds);
        let dumps: Vec<_> = Kind::ALL
            .into_iter()
            .filter_map(|kind| {
                let name = dump::file_name(version, kind);
                let file = marker.file(&name)?;
                Some(DumpReport::new(kind, name, file, saved))
            })
            .collect();
        let processing = &marker.processing_phase;
        let errors = [
            &marker.download_phase.errors,
            &processing.errors,
            &marker.publishing_phase.errors,
        ];
        Self {
            format: 1,
            version: version.to_string(),
            marker: path.display().to_string(),
            status: overall(marker),
            started_at: processing.started_at.clone(),
            saved_at: marker.last_updated.clone(),
            saved_seconds_ago: saved.map(|saved| (unix.as_secs_f64() - saved).max(0.0)),
            records: dumps.iter().map(|dump| dump.records).sum(),
            messages: dumps.iter().map(|dump| dump.messages).sum(),
            dead_letters: dumps.iter().filter_map(|dump| dump.dead_letters).sum(),
            dumps,
            errors: errors.into_iter().flatten().map(error_text).collect(),
        }
    }

    /// The documented JSON, indented, with a line end.
    pub fn to_json(&self) -> String {
        let json = serde_json::to_string_pretty(self).expect("every key of a report is a string");
        json + "\n"
    }

    fn write_dumps(&self, text: &mut String) -> fmt::Result {
        let count_width = |number: fn(&DumpReport) -> u64| {
            let widths = self.dumps.iter().map(|dump| count(number(dump)).len());
            widths.max().unwrap_or_default()
        };
        let width = count_width(|dump| dump.records);
        for dump in &self.dumps {
            let records = count(dump.records);
            write!(
                text,
                "  {:9}{} {records:>width$} records",
                dump.kind,
                bar(dump)
            )?;
            for part in dump.details() {
                write!(text, ", {part}")?;
            }
            writeln!(text)?;
        }
        Ok(())
    }
}

/// Extractors differ in what they keep up to date, so the phases count besides the summary.
fn overall(marker: &Marker) -> Status {
    let phases = [
        marker.summary.overall_status,
        marker.processing_phase.status,
    ];
    match marker.summary.overall_status {
        Status::Pending => phases[1],
        overall => overall,
    }
}

fn error_text(error: &Value) -> String {
    match error {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// An RFC 3339 time in seconds since the Unix epoch.
fn unix_seconds(text: &str) -> Option<f64> {
    let timestamp: jiff::Timestamp = text.parse().ok()?;
    Some(timestamp.as_duration().as_secs_f64())
}

impl DumpReport {
    /// What is known of one dump; `saved` is when the marker was saved.
    #[expect(clippy::cast_precision_loss, reason = "a rate is for reading")]
    fn new(kind: Kind, name: String, file: &FileProgress, saved: Option<f64>) -> Self {
        let checkpoint = file.checkpoint.as_ref();
        let is_completed = file.status == Status::Completed;
        let bytes = checkpoint
            .map(|checkpoint| (checkpoint.frontier.compressed_offset, checkpoint.file_bytes));
        let time = |text: &Option<String>| text.as_deref().and_then(unix_seconds);
        let end = time(&file.completed_at).or(saved);
        let elapsed = time(&file.started_at)
            .zip(end)
            .map(|(start, end)| end - start)
            .filter(|seconds| *seconds > 0.0);
        let left = elapsed.zip(bytes).and_then(|(seconds, (done, all))| {
            let left = all.saturating_sub(done) as f64 / (done as f64 / seconds);
            Duration::try_from_secs_f64(left).ok()
        });
        Self {
            kind,
            file: name,
            status: file.status,
            records: file.records_extracted,
            messages: file.messages_published,
            dead_letters: checkpoint.map(|checkpoint| checkpoint.frontier.dead_letters),
            percent: match is_completed {
                true => Some(100.0),
                false => bytes.map(|(done, all)| percent(done, all)),
            },
            records_per_second: elapsed
                .map(|seconds| file.records_extracted as f64 / seconds)
                .filter(|_| checkpoint.is_some() || is_completed),
            seconds_left: left
                .filter(|_| file.status == Status::InProgress)
                .map(|left| left.as_secs()),
            started_at: file.started_at.clone(),
            completed_at: file.completed_at.clone(),
        }
    }

    /// What there is to say after the number of records.
    fn details(&self) -> Vec<String> {
        let mut details = Vec::new();
        if let Some(rate) = self.records_per_second {
            details.push(format!("{}/s", rounded(rate)));
        }
        if let Some(seconds) = self.seconds_left {
            details.push(format!("{} left", duration(Duration::from_secs(seconds))));
        }
        if let Some(letters) = self.dead_letters.filter(|letters| *letters > 0) {
            details.push(counted(letters, "dead letter"));
        }
        if self.status == Status::InProgress && self.dead_letters.is_none() {
            details.push("no checkpoint, begins again at record 1".to_owned());
        }
        if self.status == Status::Failed {
            details.push("failed".to_owned());
        }
        details
    }
}

/// `[########------------------------]  25.5 %`
fn bar(dump: &DumpReport) -> String {
    const WIDTH: usize = 24;
    let Some(percent) = dump.percent else {
        return format!("[{}]       ?", "-".repeat(WIDTH));
    };
    let is_filled = |cell: &usize| (cell + 1) as f64 * 100.0 <= percent * WIDTH as f64 + 1e-9;
    let filled = (0..WIDTH).take_while(is_filled).count();
    let (full, empty) = ("#".repeat(filled), "-".repeat(WIDTH - filled));
    format!("[{full}{empty}] {percent:5.1} %")
}

fn status_text(status: Status) -> &'static str {
    match status {
        Status::Pending => "not begun",
        Status::InProgress => "in progress",
        Status::Completed => "complete",
        Status::Failed => "failed; run it again to go on",
    }
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "version {}: {}", self.version, status_text(self.status))?;
        let mut dumps = String::new();
        self.write_dumps(&mut dumps)?;
        f.write_str(&dumps)?;
        writeln!(
            f,
            "{}, {}, {}",
            counted(self.records, "record"),
            counted(self.messages, "message"),
            counted(self.dead_letters, "dead letter")
        )?;
        if let Some(ago) = self.saved_seconds_ago {
            let ago = duration(Duration::from_secs_f64(ago));
            writeln!(f, "last saved {ago} ago, in {}", self.marker)?;
        }
        let errors = self.errors.len();
        if errors > 0 {
            writeln!(f, "{}, the last:", counted(errors as u64, "error"))?;
        }
        for error in &self.errors[errors.saturating_sub(3)..] {
            writeln!(f, "  {error}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "makes the files of a test")]
mod tests {
    use super::*;
    use crate::fs::OsFileSystem;
    use crate::settings::{Layer, Value as Setting};
    use std::fs::write;

    const ARTISTS: &str = "discogs_20260801_artists.xml.gz";
    const LABELS: &str = "discogs_20260801_labels.xml.gz";

    /// A version whose artists are complete after 100 s, and whose labels are a quarter done.
    fn marker() -> String {
        let json = serde_json::json!({
            "current_version": "20260801",
            "last_updated": "2026-08-02T01:10:00.000Z",
            "processing_phase": {
                "status": "in_progress",
                "started_at": "2026-08-02T01:00:00.000Z",
                "progress_by_file": {
                    ARTISTS: {
                        "status": "completed",
                        "records_extracted": 1_000_000,
                        "messages_published": 999_999,
                        "started_at": "2026-08-02T01:00:00.000Z",
                        "completed_at": "2026-08-02T01:01:40.000Z",
                        "checkpoint": checkpoint(1_000_000, 1_000, 1_000, 1),
                    },
                    LABELS: {
                        "status": "in_progress",
                        "records_extracted": 2_500,
                        "messages_published": 2_500,
                        "started_at": "2026-08-02T01:01:40.000Z",
                        "checkpoint": checkpoint(2_500, 250, 1_000, 0),
                    },
                },
                "errors": ["first", {"what": "second"}],
            },
        });
        json.to_string()
    }

    fn checkpoint(record: u64, done: u64, all: u64, letters: u64) -> Value {
        serde_json::json!({
            "fingerprint": "x",
            "file_bytes": all,
            "record": record,
            "xml_offset": 1,
            "compressed_offset": done,
            "messages": record - letters,
            "dead_letters": letters,
            "dead_letter_bytes": 0,
            "repaired": 0,
        })
    }

    fn place(root: &Path, version: Option<&str>, state: Option<&Path>) -> Place {
        Place {
            root: root.to_owned(),
            root_value: Setting {
                text: root.display().to_string(),
                layer: Layer::Flag,
                origin: "a test".to_owned(),
            },
            version: version.map(|version| version.parse().unwrap()),
            state_directory: state.map(Path::to_owned),
        }
    }

    /// The report of a directory with these files, on 2026-08-02 at 01:10:12.
    fn shown(files: &[(&str, &str)], version: Option<&str>) -> Result<Report, String> {
        let directory = tempfile::tempdir().unwrap();
        for (name, text) in files {
            write(directory.path().join(name), text).unwrap();
        }
        let unix = Duration::from_secs(1_785_633_012);
        let place = place(directory.path(), version, None);
        let shown = report(&OsFileSystem, &place, unix);
        let shortened = |text: &str| text.replace(&directory.path().display().to_string(), "data");
        shown
            .map(|report| Report {
                marker: shortened(&report.marker),
                ..report
            })
            .map_err(|error| shortened(&error.to_string()))
    }

    #[test]
    fn people_see_bars() {
        let report = shown(&[(".extraction_status_20260801.json", &marker())], None).unwrap();
        assert_eq!(
            report.to_string(),
            "\
version 20260801: in progress
  artists  [########################] 100.0 % 1,000,000 records, 10,000/s, 1 dead letter
  labels   [######------------------]  25.0 %     2,500 records, 5/s, 25m 00s left
1,002,500 records, 1,002,499 messages, 1 dead letter
last saved 12s ago, in data/.extraction_status_20260801.json
2 errors, the last:
  first
  {\"what\":\"second\"}
"
        );
    }

    #[test]
    fn programs_see_the_documented_json() {
        let report = shown(&[(".extraction_status_20260801.json", &marker())], None).unwrap();
        let json: Value = serde_json::from_str(&report.to_json()).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "format": 1,
                "version": "20260801",
                "marker": "data/.extraction_status_20260801.json",
                "status": "in_progress",
                "started_at": "2026-08-02T01:00:00.000Z",
                "saved_at": "2026-08-02T01:10:00.000Z",
                "saved_seconds_ago": 12.0,
                "records": 1_002_500,
                "messages": 1_002_499,
                "dead_letters": 1,
                "dumps": [
                    {
                        "kind": "artists",
                        "file": ARTISTS,
                        "status": "completed",
                        "records": 1_000_000,
                        "messages": 999_999,
                        "dead_letters": 1,
                        "percent": 100.0,
                        "records_per_second": 10_000.0,
                        "seconds_left": null,
                        "started_at": "2026-08-02T01:00:00.000Z",
                        "completed_at": "2026-08-02T01:01:40.000Z",
                    },
                    {
                        "kind": "labels",
                        "file": LABELS,
                        "status": "in_progress",
                        "records": 2_500,
                        "messages": 2_500,
                        "dead_letters": 0,
                        "percent": 25.0,
                        "records_per_second": 5.0,
                        "seconds_left": 1_500,
                        "started_at": "2026-08-02T01:01:40.000Z",
                        "completed_at": null,
                    },
                ],
                "errors": ["first", "{\"what\":\"second\"}"],
            })
        );
    }

    #[test]
    fn without_a_checkpoint_progress_is_not_known() {
        let text = marker().replace("checkpoint", "something_else");
        let report = shown(&[(".extraction_status_20260801.json", &text)], None).unwrap();
        let text = report.to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[1..3],
            [
                "  artists  [########################] 100.0 % 1,000,000 records, 10,000/s",
                "  labels   [------------------------]       ?     2,500 records, no checkpoint, \
                 begins again at record 1",
            ]
        );
    }

    #[test]
    fn the_newest_marker_is_shown_unless_a_version_is_named() {
        let (old, new) = (
            ".extraction_status_20260701.json",
            ".extraction_status_20260801.json",
        );
        let previous = ".extraction_status_20260801.json.previous";
        let marker = marker();
        let version =
            |files: &[(&str, &str)], version| shown(files, version).map(|report| report.marker);
        let both = [(old, "{}"), (new, &*marker)];
        assert_eq!(version(&both, None), Ok(format!("data/{new}")));
        assert_eq!(version(&both, Some("20260701")), Ok(format!("data/{old}")));
        let torn = [(new, "{"), (previous, &*marker)];
        assert_eq!(version(&torn, None), Ok(format!("data/{previous}")));
        assert_eq!(
            version(&[(previous, &*marker)], None),
            Ok(format!("data/{previous}"))
        );
    }

    #[test]
    fn nothing_to_show_is_explained() {
        let check = |files: &[(&str, &str)], version, expected: &str| {
            let error = shown(files, version).unwrap_err();
            assert!(error.contains(expected), "{error}");
        };
        let name = ".extraction_status_20260801.json";
        check(&[], None, "data has no state marker; name the directory");
        check(
            &[(name, "{}")],
            Some("20260701"),
            "no state marker of version 20260701;",
        );
        check(&[(name, "{")], None, "is no state marker: EOF");
        let nowhere = report(
            &OsFileSystem,
            &place(Path::new("nowhere"), None, None),
            Duration::ZERO,
        );
        let error = nowhere.unwrap_err().to_string();
        assert!(error.starts_with("cannot read nowhere"), "{error}");
    }

    #[test]
    fn a_dump_or_a_state_directory_can_be_named() {
        let directory = tempfile::tempdir().unwrap();
        let directory = directory.path();
        let name = ".extraction_status_20260801.json";
        write(directory.join(name), marker()).unwrap();
        write(directory.join(ARTISTS), "").unwrap();
        let check = |place: &Place| {
            let report = report(&OsFileSystem, place, Duration::ZERO).unwrap();
            assert_eq!(report.marker, directory.join(name).display().to_string());
        };
        check(&place(&directory.join(ARTISTS), None, None));
        check(&place(Path::new("."), None, Some(directory)));
    }

    #[test]
    fn markers_of_real_extractors_are_shown() {
        let samples = Path::new("../shared/samples/markers");
        let Ok(entries) = std::fs::read_dir(samples) else {
            println!("{} is absent", samples.display());
            return;
        };
        for path in entries.map(|entry| entry.unwrap().path()) {
            let name = path.file_stem().unwrap().to_str().unwrap();
            let version = name.rsplit_once('_').unwrap().1;
            let text = std::fs::read_to_string(&path).unwrap();
            let file = format!(".extraction_status_{version}.json");
            let report = shown(&[(&file, &text)], None).unwrap();
            let marker: Marker = serde_json::from_str(&text).unwrap();
            let files = marker.processing_phase.progress_by_file.values();
            let expected: Vec<_> = files.map(|file| file.records_extracted).collect();
            assert_eq!(report.dumps.len(), expected.len(), "{name}");
            assert_eq!(report.records, expected.iter().sum::<u64>(), "{name}");
            let is_completed = name.contains("completed");
            assert_eq!(report.status == Status::Completed, is_completed, "{name}");
            assert!(report.to_string().contains(version), "{name}");
        }
    }
}
