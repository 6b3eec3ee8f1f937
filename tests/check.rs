//! `check`, as its users meet it: what it says of a dump must be what a run then does.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "works with the files and processes of the real program"
)]

#[path = "support/program.rs"]
mod program;

use std::fs;
use std::path::Path;

use program::{Site, fixture, lines};
use serde_json::{Value, json};

const KINDS: [&str; 4] = ["artists", "labels", "masters", "releases"];

#[test]
fn it_counts_what_a_run_publishes() {
    let site = Site::with_fixtures("20260801");
    let report = site.json("check . --json", 0);
    let mut to_publish = 0;
    for (kind, dump) in KINDS.iter().zip(report["dumps"].as_array().unwrap()) {
        let name = format!("20260801/expected/discogs_20260801_{kind}.jsonl");
        let messages = lines(&fixture(&name));
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

    site.ends("run . --broker file:spool", 0);
    let spool = site.path("spool/20260801");
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
    let site = Site::with_fixtures("20260801");
    site.ends("run . --kinds artists --broker file:spool", 0);
    let marker = || lines(&site.path(".extraction_status_20260801.json"));
    let before = marker();

    let begins = |report: &Value| -> Vec<Value> {
        let dumps = report["dumps"].as_array().unwrap().iter();
        dumps.map(|dump| dump["begins_at"].clone()).collect()
    };
    let resumed = site.json("check . --json", 0);
    assert_eq!(
        begins(&resumed),
        [json!(null), json!(1), json!(1), json!(1)]
    );
    let forced = site.json("check . --json --reprocess", 0);
    assert_eq!(begins(&forced), [1, 1, 1, 1].map(|at| json!(at)));
    assert_eq!(
        forced["messages_to_publish"].as_u64().unwrap(),
        resumed["messages_to_publish"].as_u64().unwrap() + 121
    );
    assert_eq!(before, marker(), "a check changes nothing");
}

#[test]
fn samples_are_the_messages_of_a_run() {
    let site = Site::with_fixtures("20260801");
    let (out, err) = site.ends("check . --kinds labels --sample 3", 0);
    let expected = fixture("20260801/expected/discogs_20260801_labels.jsonl");
    let canonical = |line: &String| serde_json::from_str::<Value>(line).unwrap();
    let printed: Vec<_> = out.lines().map(str::to_owned).collect();
    assert_eq!(
        printed.iter().map(canonical).collect::<Vec<_>>(),
        lines(&expected)[..3]
            .iter()
            .map(canonical)
            .collect::<Vec<_>>()
    );
    assert!(err.contains("a run publishes 81 messages"), "{err}");
}

#[test]
fn a_published_checksum_is_held_against_the_dump() {
    let site = Site::with_fixtures("20260801");
    let dump = |code| site.json("check . --json --kinds labels", code)["dumps"][0].clone();
    let unknown = dump(0);
    assert_eq!(unknown["is_published"], Value::Null);

    let sha256 = unknown["sha256"].as_str().unwrap();
    let publish = |sha256: &str| {
        let line = format!("{sha256} discogs_20260801_labels.xml.gz\n");
        fs::write(site.path("discogs_20260801_CHECKSUM.txt"), line).unwrap();
    };
    publish(sha256);
    assert_eq!(dump(0)["is_published"], true);
    publish(&sha256.chars().rev().collect::<String>());
    assert_eq!(dump(1)["is_published"], false);
}

#[test]
fn trouble_is_told_with_its_place() {
    let check = |folder: &str, line: &str, code: i32, expected: &[&str]| {
        let folder = format!("broken/{folder}");
        let site = Site::with_fixtures(&folder);
        let dump = fs::read_dir(fixture(&folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .find(|name| name.ends_with(".gz"))
            .unwrap();
        let (out, _) = site.ends(&format!("check {dump} {line}"), code);
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
    let report = Site::with_copies(&samples).json("check . --json", 0);
    for dump in report["dumps"].as_array().unwrap() {
        assert_eq!(dump["drift"]["new"], json!([]), "{}", dump["kind"]);
        assert_eq!(dump["records"], 1_000);
    }
}
