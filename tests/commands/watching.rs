//! The endpoint, as those meet it who watch the program: what it shows must be what is.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};

use serde_json::{Value, json};

use crate::client::{self, Answer};
use crate::download::{name, site};
use crate::host::{Habit, Host};
use crate::site::{Site, dumps, fixture, lines, signal};
use crate::watched::Watched;

const KINDS: [&str; 4] = ["artists", "labels", "masters", "releases"];

/// The records of a committed dump.
fn records(kind: &str) -> u64 {
    let name = format!("20260801/expected/discogs_20260801_{kind}.jsonl");
    lines(&fixture(&name)).len() as u64
}

fn all_records() -> u64 {
    KINDS.into_iter().map(records).sum()
}

fn follow(host: &Host) -> String {
    format!(
        "follow data --download-url {} --broker file:spool",
        host.address()
    )
}

#[test]
fn a_download_is_shown_while_it_goes_on() {
    let (site, host) = (site(), Host::new(dumps()));
    host.habits(&name("masters"), &[Habit::HangsAfter(5_000)]);
    let mut watched = Watched::start(&site, &follow(&host), &[]);
    let is_there = |progress: &Value| progress["dumps"][2]["fetched_bytes"] == 5_000;
    let progress = watched.until(is_there);
    assert_eq!(progress["status"], "running");
    assert_eq!(progress["activity"], "fetching");
    let stages = progress["dumps"].as_array().unwrap().iter();
    let stages: Vec<_> = stages.map(|dump| dump["stage"].as_str().unwrap()).collect();
    assert_eq!(stages, ["fetched", "fetched", "fetching", "pending"]);
    let length = dumps()[&name("masters")].len();
    assert_eq!(progress["dumps"][2]["bytes"], length);

    let fetched = dumps()[&name("artists")].len() + dumps()[&name("labels")].len() + 5_000;
    let downloaded = watched.metrics()["discogs_extractor_downloaded_bytes_total"];
    assert_eq!(downloaded, fetched as f64);
    assert_eq!(
        watched.get("/health").json()["extraction_status"],
        "running"
    );
    assert_eq!(watched.get("/ready").status, 200);
    let refused = watched.trigger(&[], "");
    assert_eq!(
        (refused.status, refused.json()),
        (409, json!({"status": "already_running"}))
    );
}

#[test]
fn what_was_published_is_shown_and_another_look_can_be_wanted() {
    let (site, host) = (site(), Host::new(dumps()));
    let mut watched = Watched::start(&site, &follow(&host), &[]);
    let is_waiting = |progress: &Value| progress["activity"] == "waiting";
    let progress = watched.until(is_waiting);
    let fifteen_days = 15.0 * 86_400.0;
    let next = progress["next_look_in_seconds"].as_f64().unwrap();
    assert!((1.0..=fifteen_days).contains(&next), "{next}");

    let health = watched.get("/health");
    assert_eq!(health.status, 200);
    let health = health.json();
    assert_eq!(health["status"], "healthy");
    assert_eq!(health["extraction_status"], "waiting");
    assert_eq!(health["extraction_progress"]["total"], all_records());
    for kind in KINDS {
        assert_eq!(health["extraction_progress"][kind], records(kind));
        assert!(health["last_extraction_time"][kind].is_f64(), "{kind}");
    }
    assert_eq!(watched.get("/ready").json()["ready"], true);
    published(&watched, 1);

    let wish = watched.trigger(&[], "");
    let started = json!({"status": "started", "force_reprocess": false});
    assert_eq!((wish.status, wish.json()), (202, started));
    watched.until(|progress| looks(progress) == 2 && is_waiting(progress));
    published(&watched, 1);

    let anew = watched.trigger(&[], "{\"force_reprocess\": true}");
    assert_eq!(anew.status, 202);
    watched.until(|progress| confirmed(progress) == 2 * once() && is_waiting(progress));
    published(&watched, 2);
    signal(&watched.child, "TERM");
    assert_eq!(watched.child.wait().unwrap().code(), Some(0));
}

/// How many of the last events say that a look has ended.
fn looks(progress: &Value) -> usize {
    let events = progress["events"].as_array().unwrap().iter();
    let texts = events.filter_map(|event| event["text"].as_str());
    texts
        .filter(|text| text.contains("looking for the next"))
        .count()
}

fn confirmed(progress: &Value) -> u64 {
    progress["messages_confirmed"].as_u64().unwrap()
}

/// The messages of a version: those of the records, and two ends of each dump.
fn once() -> u64 {
    all_records() + 2 * KINDS.len() as u64
}

/// Everything was published so many times, say the metrics and the state.
fn published(watched: &Watched, times: u64) {
    let metrics = watched.metrics();
    let is = |name: &str, expected: u64| {
        let name = format!("discogs_extractor_{name}");
        assert_eq!(metrics.get(&name), Some(&(expected as f64)), "{name}");
    };
    is("status{status=\"waiting\"}", 1);
    is("status{status=\"running\"}", 0);
    is("dump_version_info{version=\"20260801\"}", 1);
    is("records_read_total", times * all_records());
    is("messages_confirmed_total", times * once());
    is("messages_repeated_total", 0);
    for zero in [
        "dead_letters_total",
        "saves_failed_total",
        "unsaved_records",
        "in_flight_messages",
    ] {
        is(zero, 0);
    }
    for kind in KINDS {
        is(&format!("dump_records{{kind=\"{kind}\"}}"), records(kind));
        is(&format!("dump_completed{{kind=\"{kind}\"}}"), 1);
        let bytes = dumps()[&name(kind)].len() as u64;
        is(&format!("dump_bytes{{kind=\"{kind}\"}}"), bytes);
        is(&format!("dump_read_bytes{{kind=\"{kind}\"}}"), bytes);
    }
    let saves = metrics["discogs_extractor_save_duration_seconds_count"];
    assert!(saves >= times as f64 * 4.0, "{saves} saves");
    let (saved, started) = (
        metrics["discogs_extractor_last_save_timestamp_seconds"],
        metrics["process_start_time_seconds"],
    );
    assert!(saved >= started && started > 1.7e9, "{saved} {started}");
}

#[test]
fn a_failure_is_shown_and_can_be_tried_again_at_once() {
    let (site, host) = (site(), Host::new(dumps()));
    host.habits(&name("artists"), &[Habit::Status(404)]);
    let mut watched = Watched::start(&site, &follow(&host), &[]);
    let progress = watched.until(|progress| progress["activity"] == "failed");
    assert_eq!(progress["events"][0]["level"], "error");
    let text = progress["events"][0]["text"].as_str().unwrap();
    assert!(text.contains("(404)"), "{text}");
    let health = watched.get("/health");
    assert_eq!(health.status, 503);
    assert_eq!(health.json()["extraction_status"], "failed");
    assert_eq!(watched.get("/ready").status, 503);
    assert_eq!(watched.trigger(&[], "").status, 202);
    watched.until(|progress| progress["activity"] == "waiting");
}

/// A program that can't reach its broker, which a test looks at as long as it likes.
fn unconnected(site: &Site, variables: &[(&str, &str)]) -> Watched {
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let line = format!("run . --broker amqp://watcher@{closed} --log-level debug");
    let mut watched = Watched::start(site, &line, variables);
    watched.until(|progress| {
        let events = progress["events"].to_string();
        events.contains("no connection to the broker")
    });
    watched
}

#[test]
fn a_broker_that_is_not_there_is_shown_and_one_run_takes_no_wishes() {
    let site = Site::with_fixtures("20260801");
    let watched = unconnected(&site, &[]);
    let progress = watched.progress();
    assert_eq!(progress["broker"], "connecting");
    assert_eq!(progress["can_trigger"], false);
    assert_eq!(watched.get("/health").status, 200);
    let ready = watched.get("/ready");
    assert_eq!(ready.status, 503);
    assert_eq!(ready.json()["reason"], "the broker is not connected");
    assert_eq!(watched.metrics()["discogs_extractor_broker_connected"], 0.0);
    let refused = watched.trigger(&[], "");
    assert_eq!(
        (refused.status, &refused.json()["status"]),
        (409, &json!("not_following"))
    );
}

#[test]
fn no_secret_is_shown_anywhere() {
    let site = Site::with_fixtures("20260801");
    let file = site.path("secret");
    std::fs::write(&file, "hunter2-in-a-file\n").unwrap();
    let from_file = [("RABBITMQ_PASSWORD_FILE", file.to_str().unwrap())];
    for variables in [
        &from_file[..],
        &[("RABBITMQ_PASSWORD", "hunter2-in-a-variable")],
    ] {
        let mut watched = unconnected(&site, variables);
        let process = format!("/proc/{}/cmdline", watched.child.id());
        let mut seen = vec![std::fs::read_to_string(process).unwrap()];
        for path in [
            "/",
            "/progress",
            "/health",
            "/ready",
            "/metrics",
            "/trigger",
            "/x",
        ] {
            let answer = watched.get(path);
            seen.push(format!("{answer:?}"));
        }
        assert!(seen[0].contains("watcher@"), "{}", seen[0]);
        watched.until_told("no connection to the broker");
        seen.push(watched.log());
        assert!(
            seen.iter().all(|text| !text.contains("hunter2")),
            "{seen:?}"
        );
    }
}

#[test]
fn requests_are_bounded_and_those_of_other_pages_refused() {
    let site = Site::with_fixtures("20260801");
    let watched = unconnected(&site, &[]);
    let address = &watched.address;
    let status = |answer: Answer| answer.status;
    let ask =
        |method, path, headers: &[(&str, &str)]| client::ask(address, method, path, headers, "");
    let head = ask("HEAD", "/", &[]);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_ne!(head.headers["content-length"], "0");
    let wrong = ask("PUT", "/metrics", &[]);
    assert_eq!(
        (wrong.status, wrong.headers["allow"].as_str()),
        (405, "GET, HEAD")
    );
    assert_eq!(status(ask("GET", "/x", &[])), 404);
    assert_eq!(
        status(ask("GET", "/health", &[("Host", "rebound.example")])),
        421
    );
    let origin = [("Origin", "http://other.example")];
    assert_eq!(status(watched.trigger(&origin, "")), 403);
    assert_eq!(status(watched.trigger(&[], &"x".repeat(5_000))), 413);
    assert_eq!(status(client::send(address, b"nonsense\r\n\r\n")), 400);
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    assert_eq!(status(client::send(address, long.as_bytes())), 431);

    // Whoever says nothing, or not all, is dropped, and keeps nobody else out.
    let silent: Vec<_> = (0..100)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    for mut stream in &silent {
        stream.write_all(b"GET / HTTP/1.1\r\n").unwrap();
    }
    assert_eq!(watched.get("/health").status, 200);
    drop(silent);
}

#[test]
fn nobody_listens_unless_told_and_an_address_that_is_taken_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let site = Site::with_fixtures("20260801");
    for line in ["run . --broker null:", "follow . --broker null:"] {
        let (_, err) = site.ends(&format!("{line} --listen {address}"), 2);
        let expected = format!("error: --listen: cannot listen on {address}: Address");
        assert!(err.contains(&expected), "{err}");
        assert!(
            err.contains("choose another address with --listen, or off"),
            "{err}"
        );
    }
    assert!(!site.path(".extraction_status_20260801.json").exists());
    site.ends("run . --broker null: --listen nowhere", 2);
    let (_, err) = site.ends("run . --broker null:", 0);
    assert!(!err.contains("to be watched"), "{err}");
}
