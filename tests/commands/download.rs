//! `download` and `follow`, as their users meet them, against a host with the habits of the public one. That no crash
//! makes a wrong dump is shown by `sim/tests/download.rs`; here it is the real program, the real
//! network and the real disk.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::host::{Asked, Habit, Host};
use crate::site::{Site, dumps, fixture, signal};
use serde_json::Value;

pub(crate) fn name(kind: &str) -> String {
    format!("discogs_20260801_{kind}.xml.gz")
}

pub(crate) fn site() -> Site {
    let nothing = tempfile::tempdir().unwrap();
    Site::with_copies(nothing.path())
}

fn line(host: &Host) -> String {
    format!("download data --download-url {}", host.address())
}

/// What `data` holds but for hidden files.
fn held(site: &Site) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(site.path("data")).unwrap();
    let file = |path: &Path| {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (!name.starts_with('.')).then(|| (name, fs::read(path).unwrap()))
    };
    entries
        .filter_map(|entry| file(&entry.unwrap().path()))
        .collect()
}

fn marker(site: &Site) -> Value {
    let text = fs::read_to_string(site.path("data/.extraction_status_20260801.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

#[test]
fn a_version_is_fetched_once_and_can_be_run() {
    let (site, host) = (site(), Host::new(dumps()));
    let (out, _) = site.ends(&line(&host), 0);
    assert_eq!(out, "version 20260801 is complete in data\n");
    assert_eq!(held(&site), dumps());
    let phase = marker(&site)["download_phase"].clone();
    assert_eq!(phase["status"], "completed");
    assert_eq!(phase["files_downloaded"], 4);
    assert_eq!(
        phase["downloads_by_file"][name("labels")]["status"],
        "completed"
    );
    assert_eq!(host.asked().len(), 4);

    site.ends(&line(&host), 0);
    assert_eq!(host.asked(), []);
    site.ends("run data --broker file:spool", 0);
    assert_eq!(marker(&site)["download_phase"], phase);
    let (_, err) = site.ends(&line(&host), 0);
    assert!(err.contains("here already"), "{err}");
    let (out, _) = site.ends("run data --broker file:spool", 0);
    assert!(out.contains("nothing to do"), "{out}");
}

#[test]
fn what_fails_is_tried_again_and_what_came_is_kept() {
    let (site, host) = (site(), Host::new(dumps()));
    let labels = name("labels");
    host.habits(&name("artists"), &[Habit::Status(429), Habit::Page]);
    host.habits(&labels, &[Habit::BreaksAfter(1_000), Habit::Status(503)]);
    host.habits(
        &name("masters"),
        &[Habit::BreaksAfter(2_000), Habit::SendsAll],
    );
    let (_, err) = site.ends(&line(&host), 0);
    assert_eq!(held(&site), dumps());
    for part in [
        "pause (429); next attempt in 1s",
        "sends a page",
        "status 503",
        "starting over",
    ] {
        assert!(err.contains(part), "{part} is not in\n{err}");
    }
    let of_labels: Vec<_> = host
        .asked()
        .into_iter()
        .filter(|asked| asked.file == labels)
        .collect();
    let asked = |from| Asked {
        file: labels.clone(),
        from,
    };
    assert_eq!(of_labels, [asked(0), asked(1_000), asked(1_000)]);
}

/// Looks now and then until `is_so`, while the program lives.
pub(crate) fn look_until(child: &mut Child, is_so: impl Fn() -> bool) {
    for _ in 0..120_000 {
        if is_so() {
            return;
        }
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    panic!("nothing came");
}

/// Starts the program and waits until so much of `file` is on the disk.
fn begun(site: &Site, line: &str, file: &str, length: u64) -> Child {
    let mut child = site.command(line).stderr(Stdio::null()).spawn().unwrap();
    let part = site.path(&format!("data/{file}.part"));
    look_until(&mut child, || {
        fs::metadata(&part).is_ok_and(|part| part.len() >= length)
    });
    child
}

#[test]
fn a_stop_request_ends_a_download_that_hangs_and_keeps_what_came() {
    let (site, host) = (site(), Host::new(dumps()));
    let releases = name("releases");
    host.habits(&releases, &[Habit::HangsAfter(5_000)]);
    let mut child = begun(&site, &line(&host), &releases, 5_000);
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(3));
    let entry = &marker(&site)["download_phase"]["downloads_by_file"][&releases];
    assert_eq!(entry["bytes_downloaded"], 5_000);
    assert_eq!(entry["status"], "in_progress");

    host.asked();
    site.ends(&line(&host), 0);
    assert_eq!(held(&site), dumps());
    assert_eq!(
        host.asked(),
        [Asked {
            file: releases,
            from: 5_000
        }]
    );
}

#[test]
fn a_killed_download_goes_on() {
    let (site, host) = (site(), Host::new(dumps()));
    for file in [name("labels"), name("releases")] {
        host.habits(&file, &[Habit::HangsAfter(3_000)]);
        let mut child = begun(&site, &line(&host), &file, 3_000);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    site.ends(&line(&host), 0);
    assert_eq!(held(&site), dumps());
}

#[test]
fn another_upload_replaces_the_dump_and_is_processed() {
    let (site, host) = (site(), Host::new(dumps()));
    site.ends(&line(&host), 0);
    site.ends("run data --broker file:spool", 0);
    let mut changed = dumps();
    let other = fs::read(fixture("broken/bad_utf8").join(name("labels"))).unwrap();
    changed.insert(name("labels"), other);
    host.upload(changed.clone());
    let (_, err) = site.ends(&line(&host), 0);
    assert!(
        err.contains("other bytes are published under this name by now"),
        "{err}"
    );
    assert_eq!(held(&site), changed);
    let (out, _) = site.ends("run data --broker file:spool --kinds labels", 0);
    assert!(out.contains("6 records"), "{out}");
}

#[test]
fn what_cannot_be_had_is_said() {
    let (site, host) = (site(), Host::new(dumps()));
    let check = |line: &str, code: i32, expected: &str| {
        let (_, err) = site.ends(line, code);
        assert!(err.contains(expected), "{err}");
    };
    let fetch = line(&host);
    check(
        &format!("{fetch} --dump-version 20260701"),
        1,
        "lists no complete version 20260701",
    );
    check(
        "download data --download-url ftp://x",
        2,
        "`ftp://x` is no host",
    );
    fs::write(site.path("file"), "").unwrap();
    check("download file", 2, "file is a file; name a directory");
    host.habits(&name("artists"), &[Habit::Status(404)]);
    check(&fetch, 1, "is not there (404)");

    let mut wrong = dumps();
    wrong.get_mut(&name("artists")).unwrap()[100] ^= 1;
    let liar = Host::new(dumps());
    liar.replace(wrong);
    check(&line(&liar), 1, "came 2 times with other bytes");
}

#[test]
fn follow_fetches_and_publishes_across_kills_and_waits_until_it_is_stopped() {
    let (site, host) = (site(), Host::new(dumps()));
    let old = site.path("data/discogs_20260701_labels.xml.gz");
    let line = format!(
        "follow data --download-url {} --broker file:spool --keep 1 --listen off",
        host.address()
    );
    for file in [name("labels"), name("releases")] {
        host.habits(&file, &[Habit::HangsAfter(3_000)]);
        let mut child = begun(&site, &line, &file, 3_000);
        child.kill().unwrap();
        child.wait().unwrap();
    }
    fs::write(&old, "").unwrap();

    let mut child = site.command(&line).stderr(Stdio::null()).spawn().unwrap();
    look_until(&mut child, || {
        let marker = site.path("data/.extraction_status_20260801.json");
        let text = fs::read_to_string(marker).unwrap_or_default();
        let marker: Value = serde_json::from_str(&text).unwrap_or_default();
        marker["summary"]["overall_status"] == "completed" && !old.exists()
    });
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(held(&site), dumps());
    let (out, _) = site.ends("run data --broker file:spool", 0);
    assert!(
        out.contains("version 20260801 is complete: nothing to do"),
        "{out}"
    );
}

#[test]
fn follow_survives_what_fails_and_can_be_stopped_meanwhile() {
    let (site, host) = (site(), Host::new(dumps()));
    host.habits(&name("artists"), &[Habit::Status(404)]);
    let line = format!("follow data --listen off --download-url {}", host.address());
    let mut child = site.command(&line).stderr(Stdio::piped()).spawn().unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut told = String::new();
    while !told.contains("next attempt in 1m 00s") {
        assert_ne!(err.read_line(&mut told).unwrap(), 0, "{told}");
    }
    assert!(told.contains("is not there (404)"), "{told}");
    signal(&child, "TERM");
    assert_eq!(child.wait().unwrap().code(), Some(0));
    site.ends("follow data --check-days 0", 2);
}
