//! The program is killed again and again, and now and then the RabbitMQ with it: every message is in its
//! stream once, in order.
//!
//! Moments are chosen from a seed, by how much has arrived at the RabbitMQ. `RABBITMQ_TEST_SEED` repeats
//! the intention, and not the instant; what is asserted holds at every instant.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use discogs_extractor::dump::Kind;
use discogs_extractor::time::{Clock, SystemClock};
use serde_json::Value;
use sim::dumps::{Amount, Dumps, Form};
use sim::random::Random;
use tempfile::TempDir;

use crate::consumer::Streams;
use crate::network::Network;

const VERSION: &str = "20260801";
/// Records in each dump.
const RECORDS: u64 = 2_000;
const KILLS: u64 = 25;
/// Every so many kills the RabbitMQ is killed as well.
const BROKER_EVERY: u64 = 6;
/// What has not come about by then is a failure. Never waited for by a test that passes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A directory with the dumps, where the state goes as well, and the program at work in it.
struct Site {
    directory: TempDir,
    truth: BTreeMap<Kind, Vec<Value>>,
    /// Of all messages.
    bytes: u64,
    broker: String,
}

impl Site {
    fn new(streams: &Streams, port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (mut all, mut bytes) = (BTreeMap::new(), 0);
        for kind in Kind::ALL {
            let (mut dump, mut truth) = (Vec::new(), Vec::new());
            Dumps::new(7, Form::Y2025)
                .write(kind, Amount::Records(RECORDS), &mut dump, Some(&mut truth))
                .unwrap();
            let name = format!("discogs_{VERSION}_{kind}.xml.gz");
            fs::write(directory.path().join(name), dump).unwrap();
            bytes += truth.len() as u64;
            let messages = serde_json::Deserializer::from_slice(&truth).into_iter();
            all.insert(kind, messages.collect::<Result<_, _>>().unwrap());
        }
        let address = streams.address();
        Self {
            directory,
            truth: all,
            bytes,
            broker: format!(
                "--broker rabbitmq-stream://{}:{}@127.0.0.1:{port} --exchange-prefix {}",
                address.username, address.password, streams.prefix
            ),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn marker(&self) -> PathBuf {
        self.path(&format!(".extraction_status_{VERSION}.json"))
    }

    /// Starts the program; the arguments are separated by spaces.
    fn start(&self, arguments: &str) -> Run {
        let all = format!(
            "run . --state-save-interval 150 --window-messages 100 --progress never {} {arguments}",
            self.broker
        );
        let log = self.path("log");
        let child = Command::new(env!("CARGO_BIN_EXE_discogs-extractor"))
            .args(all.split_whitespace())
            .env_clear()
            .current_dir(self.directory.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Run { child, log }
    }

    /// Panics unless the streams hold every message `times` times: all of them in order, then all of them
    /// in order again.
    fn check(&self, streams: &Streams, times: usize) {
        for kind in Kind::ALL {
            let held = streams.held(kind);
            let ids: Vec<_> = held.iter().map(|delivery| delivery.id.as_str()).collect();
            let records = (1..=RECORDS).map(|ordinal| ordinal.to_string());
            let ends = ["file_complete", "extraction_complete"].map(str::to_owned);
            let names = records.chain(ends);
            let once: Vec<_> = names
                .map(|name| format!("{VERSION}-{kind}-{name}"))
                .collect();
            let expected: Vec<_> = std::iter::repeat_n(once, times).flatten().collect();
            assert_eq!(ids, expected, "{kind}");
            let truth = self.truth[&kind].iter();
            for (delivery, expected) in held.iter().zip(truth) {
                let body: Value = serde_json::from_slice(&delivery.body).unwrap();
                assert_eq!(body, *expected, "{}", delivery.id);
            }
        }
    }
}

/// A run of the program; killed at the latest when the test is over.
struct Run {
    child: Child,
    log: PathBuf,
}

impl Run {
    fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for its end, and asserts the exit code; what it has said.
    fn ends(&mut self, code: i32) -> String {
        look_until("the end of the run", || self.ended().is_some());
        let status = self.ended().unwrap();
        assert_eq!(status.code(), Some(code), "{}", self.log());
        self.log()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until `is_there` says so; panics if it never does.
fn look_until(what: &str, mut is_there: impl FnMut() -> bool) {
    let clock = SystemClock::new();
    let deadline = clock.now() + PATIENCE;
    while !is_there() {
        assert!(clock.now() < deadline, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn seed() -> u64 {
    let given = std::env::var("RABBITMQ_TEST_SEED").ok();
    given.map_or_else(
        || SystemClock::new().unix().as_secs(),
        |seed| seed.parse().expect("RABBITMQ_TEST_SEED is a number"),
    )
}

/// Kills the RabbitMQ and starts it again, if somebody has said how.
fn restart_broker() {
    let Ok(command) = std::env::var("RABBITMQ_TEST_RESTART") else {
        return;
    };
    let mut words = command.split_whitespace();
    let status = Command::new(words.next().unwrap())
        .args(words)
        .stdout(Stdio::null())
        .status();
    assert!(status.unwrap().success());
}

#[test]
fn a_program_that_is_killed_repeats_nothing() {
    let Some(streams) = Streams::get("killed") else {
        return;
    };
    let seed = seed();
    println!("repeat with RABBITMQ_TEST_SEED={seed}");
    let mut random = Random::new(seed);
    let network = Network::new(&streams.address());
    let site = Site::new(&streams, network.port);
    // On the average all kills together see two thirds of all messages, and repeats.
    let bytes_max = site.bytes * 4 / 3 / KILLS;
    for kill in 1..=KILLS {
        let until = network.arrived() + random.below(bytes_max);
        let mut run = site.start("");
        look_until("the moment of a kill", || {
            let has_ended = run.ended().is_some();
            assert!(!has_ended, "ended too early: {}", run.log());
            network.arrived() >= until
        });
        // The program sees the RabbitMQ die, and goes on for a moment.
        if kill % BROKER_EVERY == 0 {
            restart_broker();
        }
        run.kill();
    }
    site.start("").ends(0);
    site.check(&streams, 1);
}

#[test]
fn an_extraction_without_its_state_is_refused_until_it_is_asked_for() {
    let Some(streams) = Streams::get("refused") else {
        return;
    };
    let network = Network::new(&streams.address());
    let site = Site::new(&streams, network.port);
    site.start("").ends(0);
    fs::remove_file(site.marker()).unwrap();
    let _ = fs::remove_file(site.path(&format!(".extraction_status_{VERSION}.json.previous")));

    // Killed before it knows, and refused when it does: either way the next one is refused as well.
    let mut killed = site.start("");
    look_until("a marker", || {
        site.marker().exists() || killed.ended().is_some()
    });
    killed.kill();
    for _ in 0..2 {
        let log = site.start("").ends(1);
        for word in ["in silence", "--reprocess", "artists"] {
            assert!(log.contains(word), "{word} in {log}");
        }
    }
    site.check(&streams, 1);
    site.start("--reprocess").ends(0);
    site.check(&streams, 2);
}
