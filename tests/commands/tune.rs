//! `tune`, as its users meet it: what it says, and that it leaves nothing behind.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::yield_now;
use std::time::{Duration, Instant};

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::site::{Site, lines};

/// The names of everything in the directory.
fn names(site: &Site) -> Vec<PathBuf> {
    let entries = fs::read_dir(site.path(".")).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

#[test]
fn it_measures_recommends_and_leaves_nothing_behind() {
    for (broker, name) in [("null:", "nothing"), ("file:spool", "files")] {
        let site = Site::with_fixtures("20260801");
        // What a killed one has left.
        fs::create_dir(site.path(".discogs-extractor-tune")).unwrap();
        fs::write(site.path(".discogs-extractor-tune/left"), "").unwrap();
        let report = site.json(&format!("tune . --broker {broker} --seconds 1 --json"), 0);
        assert_eq!(report["broker"], name);
        assert!(report["machine"]["records_per_second"].as_f64().unwrap() > 0.0);
        assert!(report["save_seconds"]["count"].as_u64().unwrap() > 0);
        let intervals = |list: &str| -> Vec<u64> {
            let rows = report[list].as_array().unwrap().iter();
            rows.map(|row| row["interval"].as_u64().unwrap()).collect()
        };
        assert_eq!(intervals("measured"), [100, 1_000, 5_000]);
        let recommended = report["recommended"].as_u64().unwrap();
        assert!(intervals("rows").contains(&recommended));
        let untouched = Site::with_fixtures("20260801");
        let relative = |site: &Site| -> Vec<_> {
            let names = names(site);
            names
                .iter()
                .map(|name| name.file_name().unwrap().to_owned())
                .collect()
        };
        assert_eq!(relative(&site), relative(&untouched), "{broker}");
    }
}

#[test]
fn the_state_and_the_messages_of_runs_stay_as_they_are() {
    let site = Site::with_fixtures("20260801");
    site.ends("run . --broker file:spool --kinds labels", 0);
    let marker = || lines(&site.path(".extraction_status_20260801.json"));
    let (before, files) = (marker(), names(&site));
    let (out, _) = site.ends("tune . --broker file:spool --seconds 1", 0);
    assert!(out.contains("state-save-interval = "), "{out}");
    assert_eq!(before, marker());
    assert_eq!(files, names(&site));
    site.ends("run . --broker file:spool", 0);
}

#[test]
fn the_picture_is_xml() {
    let site = Site::with_fixtures("20260801");
    site.ends("tune . --broker null: --seconds 1 --svg plot.svg", 0);
    let svg = fs::read_to_string(site.path("plot.svg")).unwrap();
    let mut reader = Reader::from_str(&svg);
    let mut lines = 0;
    loop {
        match reader.read_event().unwrap() {
            Event::Empty(tag) if tag.name().0 == "polyline" => lines += 1,
            Event::Eof => break,
            _ => {}
        }
    }
    assert_eq!(lines, 3);
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_measured() {
    let site = Site::with_fixtures("20260801");
    let check = |line: &str, code: i32, expected: &str| {
        let (_, err) = site.ends(line, code);
        assert!(err.contains(expected), "{expected} is not in\n{err}");
    };
    check("tune . --failures-per-day 0", 2, "--failures-per-day: `0`");
    check("tune . --seconds 0", 2, "0 is not in 1..=3600");
    check("tune missing --broker null:", 2, "missing");
    check(
        "tune . --broker rabbitmq-stream://localhost",
        1,
        "streams can't be measured",
    );
}

#[test]
fn a_signal_ends_it_and_it_cleans_up() {
    let site = Site::with_fixtures("20260801");
    let before = names(&site);
    let mut tune = site
        .command("tune . --broker file:spool --seconds 600")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !site.path("spool/.discogs-extractor-tune").exists() {
        assert!(Instant::now() < deadline, "it has not begun");
        yield_now();
    }
    // It takes signals before it makes anything.
    let interrupt = Command::new("kill")
        .args(["-INT", &tune.id().to_string()])
        .status();
    assert!(interrupt.unwrap().success());
    assert_eq!(tune.wait().unwrap().code(), Some(3));
    assert_eq!(before, names(&site));
}
