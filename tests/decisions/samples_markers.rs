//! State markers as other extractors wrote them; absent where the shared samples are.

use std::path::PathBuf;

use discogs_extractor::dump::{Kind, Version, file_name};
use discogs_extractor::marker::{Marker, Paths, Status, load};
use serde_json::Value;

use crate::memory::Memory;

/// The marker of that name as text, if the samples are there.
fn sample(name: &str) -> Option<String> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let samples = root.parent()?.join("shared/samples/markers");
    if !samples.exists() {
        eprintln!("the shared samples are absent: nothing is tested");
        return None;
    }
    #[expect(clippy::disallowed_methods, reason = "a test reads its input")]
    let text = std::fs::read_to_string(samples.join(name));
    Some(text.expect("the samples hold this marker"))
}

/// Loads a sample and checks the status of its dumps, artists first.
fn check(name: &str, version: &str, is_complete: bool, expected: [Status; 4]) {
    let Some(text) = sample(name) else {
        return;
    };
    let version: Version = version.parse().unwrap();
    let paths = Paths::new("state".as_ref(), &version);
    let fs = Memory::default();
    fs.put(&paths.marker(), text.as_bytes());
    let loaded = load(&fs, &paths).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    let marker = loaded.marker.unwrap();
    let status = |kind| {
        let file = marker.file(&file_name(&version, kind))?;
        assert_eq!(file.checkpoint, None, "only ours have one");
        Some(file.status)
    };
    let statuses = Kind::ALL.map(|kind| status(kind).unwrap_or_default());
    assert_eq!(statuses, expected);
    assert_eq!(marker.is_complete(), is_complete);
    check_nothing_is_lost(&marker, &text);
}

/// Every field of the sample is in what we would write.
fn check_nothing_is_lost(marker: &Marker, text: &str) {
    let written = serde_json::to_value(marker).unwrap();
    check_contains(&written, &serde_json::from_str(text).unwrap(), "");
}

fn check_contains(written: &Value, sample: &Value, path: &str) {
    match sample {
        Value::Object(fields) => fields.iter().for_each(|(key, value)| {
            check_contains(&written[key], value, &format!("{path}/{key}"));
        }),
        value => assert_eq!(written, value, "{path}"),
    }
}

use Status::{Completed, InProgress, Pending};

#[test]
fn an_older_extractor_that_completed() {
    let name = "older_extractor_completed_20251101.json";
    check(name, "20251101", true, [Completed; 4]);
}

#[test]
fn an_older_extractor_in_its_documentation() {
    let name = "older_extractor_documented_20260101.json";
    let expected = [Completed, Completed, InProgress, Pending];
    check(name, "20260101", false, expected);
}

#[test]
fn an_older_extractor_that_was_interrupted() {
    let name = "older_extractor_releases_in_progress_20251101.json";
    let expected = [Completed, Pending, Pending, InProgress];
    check(name, "20251101", false, expected);
}

#[test]
fn a_newer_extractor_in_its_documentation() {
    let name = "newer_extractor_documented_20260101.json";
    let expected = [Completed, Completed, InProgress, Pending];
    check(name, "20260101", false, expected);
}

#[test]
fn a_fragment_of_a_real_run() {
    let name = "fragment_of_a_real_run_20260201.json";
    let expected = [InProgress, InProgress, Pending, Pending];
    check(name, "20260201", false, expected);
}
