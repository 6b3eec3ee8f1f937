//! `follow` from an empty directory to the end of a version, killed again and again on the way.
//!
//! What could go wrong beside what `crashes.rs` looks for: a dump that was half there when the program
//! died is taken for whole, or a version for published; and those who watch are told something else
//! than what consumers got. So at the end everything must have been delivered, and the page, the
//! metrics, `/health` and `status` must say so, with the same numbers.

use std::fs;

use discogs_extractor::dump::Kind;
use serde_json::Value;

use crate::browser::{Browser, bar};
use crate::client;
use crate::host::{Habit, Host};
use crate::prometheus;
use crate::shared::Shared;
use crate::site::{DATASET, RECORDS, Run, VERSION};
use crate::trial::{REPEATS_PER_CRASH, Trial};
use crate::verdict::{Order, Verdict};
use crate::watch::{look_for, look_until, succeed};

/// How much of the records is saved when the program is killed, in parts of a hundred.
const KILLED_AT: [u64; 3] = [20, 45, 70];
/// What hangs while the program is killed, and after how many bytes.
const HANGS: [(Kind, usize); 2] = [(Kind::Labels, 10_000), (Kind::Releases, 100_000)];

fn name(kind: Kind) -> String {
    format!("discogs_{VERSION}_{kind}.xml.gz")
}

/// A life of the program that is being watched.
struct Life {
    run: Run,
    address: String,
}

impl Life {
    fn begin(trial: &Trial, host: &Host) -> Self {
        // The state is in the directory of the trial, where it looks for it; the dumps come to
        // another one, which is not there yet.
        let task = format!(
            "follow data --state-dir . --download-url {}",
            host.address()
        );
        let mut run = trial.start_task(&task, "--listen 127.0.0.1:0");
        run.says("to be watched at");
        let log = run.log();
        let address = log.split("http://").nth(1).unwrap().split('/').next();
        let address = address.unwrap().to_owned();
        Self { run, address }
    }

    fn get(&self, path: &str) -> client::Answer {
        client::ask(&self.address, "GET", path, &[], "")
    }

    fn progress(&self) -> Value {
        self.get("/progress").json()
    }

    fn die(mut self, trial: &Trial) {
        self.run.kill();
        // What a dead process has sent is still delivered.
        let network = trial.network();
        look_until("the end of its connections", || network.open() == 0);
    }
}

#[test]
fn a_version_is_followed_across_five_kills_and_shown_as_it_is() {
    let Some(shared) = Shared::get("follow") else {
        return;
    };
    let dumps = DATASET.dumps.iter();
    let host = Host::new(
        dumps
            .map(|(kind, dump)| (name(*kind), dump.clone()))
            .collect(),
    );
    let mut trial = Trial::on_shared("follow killed 5 times", &shared);
    for (kind, bytes) in HANGS {
        host.habits(&name(kind), &[Habit::HangsAfter(bytes)]);
        let life = Life::begin(&trial, &host);
        let part = trial.site.path(&format!("data/{}.part", name(kind)));
        look_until("a half download", || {
            fs::metadata(&part).is_ok_and(|part| part.len() >= bytes as u64)
        });
        assert_eq!(life.progress()["activity"], "fetching");
        life.die(&trial);
    }
    for percent in KILLED_AT {
        let mut life = Life::begin(&trial, &host);
        trial.reaches(percent, &mut life.run);
        // Nothing goes on while it is looked at.
        trial.network().black_hole(true);
        shows_what_goes_on(&life, &trial, percent);
        life.run.kill();
        trial.network().black_hole(false);
        life.die(&trial);
    }

    let mut repeats = trial.take();
    let before = trial.delivered();
    let life = Life::begin(&trial, &host);
    look_for("the end of the version", || {
        let health = life.get("/health").json();
        (health["extraction_status"] == "waiting").then_some(())
    });
    repeats += trial.take();
    assert!(
        repeats <= REPEATS_PER_CRASH * KILLED_AT.len() as u64,
        "{repeats} repeats"
    );
    let in_this_life = trial.delivered() - before;
    shows_the_end(&life, in_this_life);
    agrees(&status(&trial));
    life.die(&trial);
    trial.is(&Verdict::new(Order::Strict));
}

/// Between what was saved before and what is saved afterwards lies what is shown.
fn shows_what_goes_on(life: &Life, trial: &Trial, percent: u64) {
    let before = trial.site.saved();
    let progress = life.progress();
    let dumps = progress["dumps"].as_array().unwrap().iter();
    let shown: u64 = dumps.map(|dump| dump["records"].as_u64().unwrap()).sum();
    assert!(
        shown >= before,
        "{shown} records are shown, and {before} saved"
    );
    assert_eq!(progress["broker"], "connected");
    assert_eq!(life.get("/ready").status, 200);
    let is_dark = percent == KILLED_AT[0];
    if let Some(browser) = Browser::open(1000, is_dark) {
        browser.go(&life.address);
        browser.until_text("status", "publishing");
        browser.until_text("broker", "connected");
        browser.screenshot(&format!("publishing-{percent}"));
    }
}

/// The page and the metrics tell what was delivered.
fn shows_the_end(life: &Life, delivered: u64) {
    let answer = life.get("/metrics");
    let metrics = prometheus::parse(&answer.body).unwrap();
    let is = |name: &str, expected: u64| {
        let name = format!("discogs_extractor_{name}");
        assert_eq!(metrics.get(&name), Some(&(expected as f64)), "{name}");
    };
    is("messages_confirmed_total", delivered);
    is("messages_repeated_total", 0);
    is("broker_reconnects_total", 0);
    is("unsaved_records", 0);
    for kind in Kind::ALL {
        is(&format!("dump_records{{kind=\"{kind}\"}}"), RECORDS);
        is(&format!("dump_messages{{kind=\"{kind}\"}}"), RECORDS);
        is(&format!("dump_completed{{kind=\"{kind}\"}}"), 1);
    }
    let health = life.get("/health").json();
    let total = RECORDS * Kind::ALL.len() as u64;
    assert_eq!(health["extraction_progress"]["total"], total);
    agrees(&life.progress());
    if let Some(browser) = Browser::open(1000, false) {
        browser.go(&life.address);
        browser.until_text("status", "complete, waiting");
        for kind in Kind::ALL {
            browser.until_text(&format!("dump-{kind}"), "2,000 records");
            assert_eq!(bar(&browser, kind.name()), 100.0);
        }
        browser.screenshot("followed");
        browser.has_no_trouble();
    }
}

/// What `status` says.
fn status(trial: &Trial) -> Value {
    let mut program = trial.site.program();
    let said = succeed(program.args("status data --state-dir . --json".split(' ')));
    let status: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(status["status"], "completed");
    status
}

/// Both reports have the dumps in the same fields.
fn agrees(report: &Value) {
    let dumps = report["dumps"].as_array().unwrap();
    assert_eq!(report["version"], VERSION);
    assert_eq!(dumps.len(), Kind::ALL.len());
    for (kind, dump) in Kind::ALL.into_iter().zip(dumps) {
        assert_eq!(dump["kind"], kind.name());
        for number in ["records", "messages"] {
            assert_eq!(dump[number], RECORDS, "{kind}: {number}");
        }
        assert_eq!(dump["dead_letters"], 0);
        assert_eq!(dump["percent"], 100.0);
    }
}
