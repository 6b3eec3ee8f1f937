//! `dead-letters`, as its users meet it: what was skipped can be seen, and published after all,
//! once, behind everything else, under the identity that it always had.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "works with the files and processes of the real program"
)]

#[path = "support/program.rs"]
mod program;

use std::fs;

use program::{Site, fixture, lines};
use serde_json::{Value, json};

const LABELS: &str = "discogs_20260801_labels.xml.gz";

/// A complete version but for the labels, which are the case `broken` of `fixtures/`; `run` has
/// processed it into the spool.
fn site(broken: &str, run: &str) -> Site {
    let site = Site::with_fixtures("20260801");
    site.add_copies(&fixture(&format!("broken/{broken}")));
    site.ends(&format!("run . --broker file:spool {run}"), 0);
    site
}

/// What the spool has of labels.
fn messages(site: &Site) -> Vec<Value> {
    let lines = lines(&site.path("spool/20260801/labels-000000000001.jsonl"));
    let parsed = lines.iter().map(|line| serde_json::from_str(line).unwrap());
    parsed.collect()
}

/// The records of the letters that are listed, and whether each was published.
fn listed(site: &Site) -> Vec<(u64, bool)> {
    let letters = site.json("dead-letters list . --json", 0);
    let letter = |letter: &Value| {
        assert_eq!(letter["kind"], "labels");
        let is_published = letter["is_published"].as_bool().unwrap();
        (letter["record"].as_u64().unwrap(), is_published)
    };
    letters.as_array().unwrap().iter().map(letter).collect()
}

#[test]
fn they_are_listed_and_shown_with_their_xml() {
    let site = site("no_id", "");
    assert_eq!(listed(&site), [(2, false), (4, false), (5, false)]);
    let (out, _) = site.ends("dead-letters list .", 0);
    assert!(out.contains("labels 4: record 4, at byte "), "{out}");
    assert!(out.contains("the record has no id"), "{out}");
    assert!(out.ends_with("3 dead letters\n"), "{out}");

    let (out, _) = site.ends("dead-letters show . --kinds labels --record 5", 0);
    assert!(
        out.ends_with("\n<label/>\n") || out.contains("<label"),
        "{out}"
    );
    assert_eq!(out.matches("labels 5:").count(), 1, "{out}");
    let (_, err) = site.ends("dead-letters show . --record 1", 1);
    assert!(err.contains("there is no such dead letter"), "{err}");
}

#[test]
fn what_is_still_malformed_is_left() {
    let site = site("no_id", "");
    let before = messages(&site);
    let (out, _) = site.ends("dead-letters retry . --broker file:spool", 1);
    assert!(
        out.contains("labels 2 is left: record 2, at byte "),
        "{out}"
    );
    assert!(out.ends_with("0 dead letters published, 3 left\n"), "{out}");
    assert_eq!(messages(&site), before);
}

#[test]
fn repaired_xml_is_published_once_behind_all_others() {
    let site = site("no_id", "");
    let before = messages(&site);
    let xml = "<label><id>77</id><name>Found again</name></label>\n";
    fs::write(site.path("fixed.xml"), xml).unwrap();
    let line = "dead-letters retry . --broker file:spool --kinds labels --record 4 --xml fixed.xml";

    let (out, _) = site.ends(line, 0);
    assert_eq!(
        out,
        "20260801-labels-4: published\n1 dead letter published, 0 left\n"
    );
    let after = messages(&site);
    assert_eq!(after[..before.len()], before);
    assert_eq!(after.len(), before.len() + 1);
    let last = after.last().unwrap();
    assert_eq!(last["id"], "77");
    assert_eq!(last["name"], "Found again");
    assert_eq!(listed(&site), [(2, false), (4, true), (5, false)]);

    let (_, err) = site.ends(line, 1);
    assert!(err.contains("there is no such dead letter"), "{err}");
    site.ends("run . --broker file:spool", 0);
    assert_eq!(
        messages(&site),
        after,
        "and a run has nothing to do with it"
    );
}

#[test]
fn a_crash_before_it_is_noted_repeats_it_in_the_same_place() {
    let site = site("no_id", "");
    let marker = site.path(".extraction_status_20260801.json");
    let noted = fs::read(&marker).unwrap();
    for id in ["77", "77", "78"] {
        let xml = format!("<label><id>{id}</id><name>Found again</name></label>");
        fs::write(site.path("fixed.xml"), xml).unwrap();
        site.ends(
            "dead-letters retry . --broker file:spool --kinds labels --record 4 --xml fixed.xml",
            0,
        );
        let messages = messages(&site);
        assert_eq!(messages.last().unwrap()["id"], id);
        assert_eq!(messages.len(), 3 + 2 + 1);
        fs::write(&marker, &noted).unwrap();
    }
}

#[test]
fn other_bounds_publish_what_was_too_large() {
    let site = site("huge_record", "--record-bytes-max 64KiB");
    let letters = listed(&site);
    assert_eq!(letters.len(), 1);
    let before = messages(&site).len();
    site.ends(
        "dead-letters retry . --broker file:spool --record-bytes-max 64KiB",
        1,
    );
    assert_eq!(messages(&site).len(), before);

    site.ends("dead-letters retry . --broker file:spool", 0);
    let messages = messages(&site);
    assert_eq!(messages.len(), before + 1);
    assert!(messages.last().unwrap().to_string().len() > 100_000);
    assert_eq!(listed(&site), [(letters[0].0, true)]);
    let (out, _) = site.ends("dead-letters retry . --broker file:spool", 0);
    assert_eq!(out, "0 dead letters published, 0 left\n");
}

#[test]
fn what_stands_in_the_way_is_said() {
    let check = |site: &Site, line: &str, expected: &str| {
        let (_, err) = site.ends(&format!("dead-letters retry {line}"), 1);
        assert!(err.contains(expected), "{err}");
    };
    let incomplete = Site::with_fixtures("broken/no_id");
    incomplete.ends("run . --kinds labels --broker file:spool", 0);
    check(
        &incomplete,
        ".",
        "version 20260801 is not complete yet: run it to its end",
    );

    let site = site("no_id", "");
    fs::write(site.path("fixed.xml"), "<label><name>No id</name></label>").unwrap();
    let xml = "--kinds labels --record 4 --xml";
    check(
        &site,
        ". --xml fixed.xml",
        "name it with --kinds and --record",
    );
    check(
        &site,
        &format!(". {xml} fixed.xml"),
        "fixed.xml: at byte 0: the record has no id",
    );
    check(
        &site,
        &format!(". {xml} nowhere.xml"),
        "cannot read nowhere.xml",
    );
    site.add_copies(&fixture("broken/bad_utf8"));
    check(
        &site,
        ".",
        &format!("{LABELS} is not the file that the dead letters are from"),
    );
    assert_eq!(listed(&site), [(2, false), (4, false), (5, false)]);
}

#[test]
fn processing_a_version_again_forgets_what_was_published() {
    let site = site("huge_record", "--record-bytes-max 64KiB");
    site.ends("dead-letters retry . --broker file:spool", 0);
    let run = "run . --broker file:again --record-bytes-max 64KiB --reprocess";
    site.ends(run, 0);
    assert_eq!(
        listed(&site)
            .iter()
            .map(|letter| letter.1)
            .collect::<Vec<_>>(),
        [false]
    );
    let marker: Value = serde_json::from_str(
        &fs::read_to_string(site.path(".extraction_status_20260801.json")).unwrap(),
    )
    .unwrap();
    let entry = &marker["processing_phase"]["progress_by_file"][LABELS];
    assert_eq!(entry.get("dead_letters_published"), None);
    assert_eq!(entry["status"], json!("completed"));
}
