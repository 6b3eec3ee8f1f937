//! The committed fixtures, read as a user's dumps and state markers are: every message that must
//! come out does, everything that is wrong is named, and every marker means what it says.
#![expect(clippy::disallowed_methods, reason = "reads and copies the fixtures")]
#![expect(
    clippy::unwrap_used,
    reason = "a fixture that is missing fails the test"
)]

use std::fs;
use std::path::{Path, PathBuf};

use discogs_extractor::dump::{self, Dump};
use discogs_extractor::frame::FrameError;
use discogs_extractor::fs::OsFileSystem;
use discogs_extractor::gzip::GzipError;
use discogs_extractor::marker::Paths;
use discogs_extractor::plan;
use discogs_extractor::pool;
use discogs_extractor::record::Position;
use discogs_extractor::source::{self, Item, Options, Outcome, Read, Reads, SourceError};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

fn lines(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn json(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn directories(path: &Path) -> Vec<PathBuf> {
    let mut directories: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    directories.retain(|path| path.is_dir());
    directories.sort();
    directories
}

fn dump_in(directory: &Path) -> Dump {
    let mut dumps = fs::read_dir(directory)
        .unwrap()
        .filter_map(|entry| Dump::from_path(&entry.unwrap().path()));
    dumps.next().expect("a case has a dump")
}

/// All that reading a dump on so many threads yields, and the word for how it ended.
fn read(dump: &Dump, options: &Options, threads: usize) -> (Vec<Item>, &'static str) {
    let source = match source::open(&OsFileSystem, dump, Position::START, options) {
        Ok(source) => source,
        Err(error) => return (Vec::new(), word(&error)),
    };
    let reads: Reads = match threads {
        0 => Box::new(source),
        threads => pool::pooled(source, threads),
    };
    let mut items = Vec::new();
    for read in reads {
        match read {
            Ok(Read::Item(item)) => items.push(item),
            Ok(Read::Skipped) => {}
            Ok(Read::End { .. }) => return (items, "none"),
            Err(error) => return (items, word(&error)),
        }
    }
    panic!("reading ends with `End` or an error");
}

fn word(error: &SourceError) -> &'static str {
    match error {
        SourceError::Gzip { error, .. } => match error {
            GzipError::NotGzip { .. } => "not_gzip",
            GzipError::Truncated { .. } => "truncated",
            GzipError::Deflate { .. } | GzipError::Garbage { .. } => "corrupt",
            GzipError::Crc { .. } | GzipError::Length { .. } => "crc",
            _ => "another gzip error",
        },
        SourceError::Xml { error, .. } => match error {
            FrameError::OtherKind { .. } | FrameError::NotXml { .. } => "root",
            FrameError::Truncated { .. } => "unclosed",
            _ => "another XML error",
        },
        SourceError::Open { .. } => "open",
    }
}

fn messages(items: &[Item]) -> Vec<Value> {
    let contents = items.iter().filter_map(|item| match &item.outcome {
        Outcome::Content(content) => Some(&content.body),
        Outcome::Malformed { .. } => None,
    });
    contents
        .map(|body| serde_json::from_slice(body).unwrap())
        .collect()
}

fn ordinals(items: &[Item], is_wanted: impl Fn(&Outcome) -> bool) -> Vec<u64> {
    let wanted = items.iter().filter(|item| is_wanted(&item.outcome));
    wanted.map(|item| item.position.ordinal.0).collect()
}

#[test]
fn good_dumps_give_the_expected_messages() {
    for version in ["20260801", "20200801"] {
        let directory = fixtures().join(version);
        let selection = dump::select(&OsFileSystem, &directory, None, &[]).unwrap();
        assert_eq!(selection.dumps.len(), 4);
        for dump in selection.dumps {
            let name = format!("expected/discogs_{version}_{}.jsonl", dump.kind);
            let expected = lines(&directory.join(name));
            for (buffer_bytes, threads) in [(1, 0), (2, 1), (7, 3), (64 * 1024, 2)] {
                let options = Options {
                    buffer_bytes,
                    ..Options::default()
                };
                let (items, end) = read(&dump, &options, threads);
                assert_eq!(end, "none");
                assert_eq!(messages(&items), expected, "{}", dump.path.display());
            }
        }
    }
}

#[test]
fn bad_dumps_lose_nothing_and_say_what_is_wrong() {
    let cases = directories(&fixtures().join("broken"));
    assert!(cases.len() >= 20);
    for case in cases {
        let name = case.file_name().unwrap().to_string_lossy().into_owned();
        let expected = json(&case.join("expected.json"));
        let record_bytes_max = expected.get("record_bytes_max").and_then(Value::as_u64);
        for (buffer_bytes, threads) in [(1, 0), (7, 1), (7, 2), (64 * 1024, 3)] {
            let mut options = Options {
                buffer_bytes,
                ..Options::default()
            };
            if let Some(bytes) = record_bytes_max {
                options.record_bytes_max = usize::try_from(bytes).unwrap();
            }
            let (items, end) = read(&dump_in(&case), &options, threads);
            let malformed = ordinals(&items, |outcome| {
                matches!(outcome, Outcome::Malformed { .. })
            });
            let repaired = ordinals(
                &items,
                |outcome| matches!(outcome, Outcome::Content(content) if content.repaired),
            );
            assert_eq!(
                messages(&items),
                lines(&case.join("expected.jsonl")),
                "{name}"
            );
            assert_eq!(Value::from(end), expected["error"], "{name}");
            assert_eq!(Value::from(items.len()), expected["records"], "{name}");
            assert_eq!(Value::from(malformed), expected["malformed"], "{name}");
            assert_eq!(Value::from(repaired), expected["repaired"], "{name}");
        }
    }
}

#[test]
fn foreign_markers_mean_what_they_say() {
    let expected = json(&fixtures().join("markers/expected.json"));
    for (name, expected) in expected.as_object().unwrap() {
        let directory = fixtures().join("20260801");
        let selection = dump::select(&OsFileSystem, &directory, None, &[]).unwrap();
        let state = tempfile::tempdir().unwrap();
        let paths = Paths::new(state.path(), &selection.version);
        fs::copy(fixtures().join("markers").join(name), paths.marker()).unwrap();

        let plan = plan::plan(&OsFileSystem, selection, paths.clone(), false).unwrap();

        let from_start: Vec<_> = plan
            .dumps
            .iter()
            .map(|planned| planned.dump.kind.name())
            .collect();
        assert_eq!(Value::from(from_start), expected["from_start"], "{name}");
        for planned in &plan.dumps {
            assert_eq!(
                planned.checkpoint.frontier.position(),
                Position::START,
                "{name}"
            );
        }
        let loads = expected["loads"].as_bool().unwrap();
        assert_eq!(
            paths.marker().exists(),
            loads,
            "{name}: what can't be read is set aside"
        );
        assert!(
            loads || !plan.warnings.is_empty(),
            "{name}: and the user is told"
        );
    }
}
