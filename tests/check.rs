//! `check`, as its users meet it: what it says of a dump must be what a run then does.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "works with the files and processes of the real program"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

const KINDS: [&str; 4] = ["artists", "labels", "masters", "releases"];

/// The program in a directory with an empty environment.
fn program(directory: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_discogs-extractor"));
    command
        .args(line.split_whitespace())
        .env_clear()
        .current_dir(directory)
        .output()
        .unwrap()
}

/// A directory with copies of the fixtures in `folder`.
fn copied(folder: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(folder);
    for path in fs::read_dir(fixtures)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        if path.is_file() {
            fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    directory
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// The report on a directory; `check` ends with `code`.
fn report(directory: &Path, line: &str, code: i32) -> Value {
    let output = program(directory, &format!("check . --json {line}"));
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{line}\n{err}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn lines(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn it_counts_what_a_run_publishes() {
    let directory = copied("20260801");
    let report = report(directory.path(), "", 0);
    let expected = |kind: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/20260801/expected");
        lines(&folder.join(format!("discogs_20260801_{kind}.jsonl")))
    };
    let mut to_publish = 0;
    for (kind, dump) in KINDS.iter().zip(report["dumps"].as_array().unwrap()) {
        let messages = expected(kind);
        let bytes: usize = messages.iter().map(String::len).sum();
        assert_eq!(dump["kind"], *kind);
        assert_eq!(dump["messages"], messages.len());
        assert_eq!(dump["message_bytes"], bytes);
        assert_eq!(dump["malformed"], 0);
        assert_eq!(dump["damage"], Value::Null);
        assert_eq!(dump["drift"]["new"], json!([]), "{kind}");
        assert_eq!(dump["begins_at"], 1);
        to_publish += messages.len() + 2;
    }
    assert_eq!(report["messages_to_publish"], to_publish);

    let run = program(directory.path(), "run . --broker file:spool");
    assert!(run.status.success(), "{}", text(&run.stderr));
    let spool = directory.path().join("spool/20260801");
    let published: usize = fs::read_dir(&spool)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "jsonl")
        })
        .map(|path| lines(&path).len())
        .sum();
    assert_eq!(published, to_publish);
}

#[test]
fn it_says_what_a_run_would_do_with_the_state_that_is_there() {
    let directory = copied("20260801");
    let directory = directory.path();
    let run = program(directory, "run . --kinds artists --broker file:spool");
    assert!(run.status.success(), "{}", text(&run.stderr));
    let before = lines(&directory.join(".extraction_status_20260801.json"));

    let begins = |report: &Value| -> Vec<Value> {
        let dumps = report["dumps"].as_array().unwrap().iter();
        dumps.map(|dump| dump["begins_at"].clone()).collect()
    };
    let resumed = report(directory, "", 0);
    assert_eq!(
        begins(&resumed),
        [json!(null), json!(1), json!(1), json!(1)]
    );
    let forced = report(directory, "--reprocess", 0);
    assert_eq!(begins(&forced), [1, 1, 1, 1].map(|at| json!(at)));
    assert_eq!(
        forced["messages_to_publish"].as_u64().unwrap(),
        resumed["messages_to_publish"].as_u64().unwrap() + 121
    );
    let after = lines(&directory.join(".extraction_status_20260801.json"));
    assert_eq!(before, after, "a check changes nothing");
}

#[test]
fn samples_are_the_messages_of_a_run() {
    let directory = copied("20260801");
    let output = program(directory.path(), "check . --kinds labels --sample 3");
    assert!(output.status.success());
    let expected = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/20260801/expected/discogs_20260801_labels.jsonl");
    let canonical = |line: &String| serde_json::from_str::<Value>(line).unwrap();
    let printed: Vec<_> = text(&output.stdout).lines().map(str::to_owned).collect();
    assert_eq!(
        printed.iter().map(canonical).collect::<Vec<_>>(),
        lines(&expected)[..3]
            .iter()
            .map(canonical)
            .collect::<Vec<_>>()
    );
    assert!(text(&output.stderr).contains("a run publishes 81 messages"));
}

#[test]
fn a_published_checksum_is_held_against_the_dump() {
    let directory = copied("20260801");
    let directory = directory.path();
    let only = "--kinds labels";
    let dump = |code| report(directory, only, code)["dumps"][0].clone();
    let unknown = dump(0);
    assert_eq!(unknown["is_published"], Value::Null);

    let sha256 = unknown["sha256"].as_str().unwrap();
    let publish = |sha256: &str| {
        let line = format!("{sha256} discogs_20260801_labels.xml.gz\n");
        fs::write(directory.join("discogs_20260801_CHECKSUM.txt"), line).unwrap();
    };
    publish(sha256);
    assert_eq!(dump(0)["is_published"], true);
    publish(&sha256.chars().rev().collect::<String>());
    assert_eq!(dump(1)["is_published"], false);
}

#[test]
fn trouble_is_told_with_its_place() {
    let check = |folder: &str, line: &str, code: i32, expected: &[&str]| {
        let directory = copied(&format!("broken/{folder}"));
        let dump = fs::read_dir(directory.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .find(|name| name.ends_with(".gz"))
            .unwrap();
        let output = program(directory.path(), &format!("check {dump} {line}"));
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{folder}\n{out}{err}");
        for part in expected {
            assert!(out.contains(part), "{part} is not in\n{out}");
        }
    };
    check(
        "no_id",
        "",
        0,
        &[
            "malformed: record 2, at byte ",
            "malformed: record 4, at byte ",
            "malformed: record 5, at byte ",
            "6 records, 3 messages",
        ],
    );
    check(
        "no_id",
        "--dead-letters-max 2",
        1,
        &["it allows 2 dead letters"],
    );
    check("cut_xml", "", 1, &["3 records, 3 messages", "damaged: "]);
    check(
        "wrong_crc",
        "",
        1,
        &["damaged: ", "a run would end with an error"],
    );
    check(
        "bad_utf8",
        "",
        0,
        &["bytes that are not UTF-8 were replaced in "],
    );
}

#[test]
fn real_dumps_have_no_new_fields() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples/dumps");
    if !samples.exists() {
        println!("{} is absent", samples.display());
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    for path in fs::read_dir(samples)
        .unwrap()
        .map(|entry| entry.unwrap().path())
    {
        fs::copy(&path, directory.path().join(path.file_name().unwrap())).unwrap();
    }
    for dump in report(directory.path(), "", 0)["dumps"].as_array().unwrap() {
        assert_eq!(dump["drift"]["new"], json!([]), "{}", dump["kind"]);
        assert_eq!(dump["records"], 1_000);
    }
}
