//! Dumps with their truth, a directory with the dumps, and the program at work in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::LazyLock;

use discogs_extractor::dump::Kind;
use serde_json::Value;
use sim::dumps::{Amount, Dumps, Form};
use tempfile::TempDir;

use crate::watch::look_for;

/// The version of all dumps.
pub(crate) const VERSION: &str = "20260801";
/// Records in each dump.
pub(crate) const RECORDS: u64 = 2_000;
/// Records between two saves.
pub(crate) const INTERVAL: u64 = 150;
/// The most messages without a confirm.
pub(crate) const WINDOW: u64 = 100;

/// The dumps of all trials, and what has to come of them.
pub(crate) struct Dataset {
    pub(crate) dumps: BTreeMap<Kind, Vec<u8>>,
    /// The message of each record, in order.
    pub(crate) truth: BTreeMap<Kind, Vec<Value>>,
}

impl Dataset {
    /// The bytes of all messages of records, without their properties.
    pub(crate) fn bytes(&self) -> u64 {
        let messages = self.truth.values().flatten();
        messages
            .map(|message| message.to_string().len() as u64)
            .sum()
    }
}

pub(crate) static DATASET: LazyLock<Dataset> = LazyLock::new(|| {
    let mut dataset = Dataset {
        dumps: BTreeMap::new(),
        truth: BTreeMap::new(),
    };
    for kind in Kind::ALL {
        let (mut dump, mut truth) = (Vec::new(), Vec::new());
        Dumps::new(7, Form::Y2025)
            .write(kind, Amount::Records(RECORDS), &mut dump, Some(&mut truth))
            .unwrap();
        let messages = serde_json::Deserializer::from_slice(&truth).into_iter();
        dataset.dumps.insert(kind, dump);
        dataset
            .truth
            .insert(kind, messages.collect::<Result<_, _>>().unwrap());
    }
    dataset
});

/// A directory with the dumps, where the state goes as well.
pub(crate) struct Site(TempDir);

impl Site {
    pub(crate) fn new() -> Self {
        // In memory if possible, because a run saves often, and a kill does not lose the page cache.
        let in_memory = tempfile::tempdir_in("/dev/shm");
        let site = Self(in_memory.unwrap_or_else(|_| tempfile::tempdir().unwrap()));
        for (kind, dump) in &DATASET.dumps {
            fs::write(site.path(&format!("discogs_{VERSION}_{kind}.xml.gz")), dump).unwrap();
        }
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts a run, with a save every [`INTERVAL`] records and a window of [`WINDOW`]. The
    /// arguments are separated by spaces.
    pub(crate) fn start(&self, arguments: &str) -> Run {
        self.start_task("run .", arguments)
    }

    /// The same for a task like `run .`.
    pub(crate) fn start_task(&self, task: &str, arguments: &str) -> Run {
        let log = self.path("log");
        let fixed = format!(
            "{task} --state-save-interval {INTERVAL} --window-messages {WINDOW} --progress never"
        );
        let child = self
            .program()
            .args(fixed.split(' '))
            .args(arguments.split(' '))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Run { child, log }
    }

    /// The program in this directory, with an empty environment.
    pub(crate) fn program(&self) -> Command {
        let mut program = Command::new(env!("CARGO_BIN_EXE_discogs-extractor"));
        program.env_clear().current_dir(self.0.path());
        program
    }

    /// How many records the state marker says are published.
    pub(crate) fn saved(&self) -> u64 {
        let path = self.path(&format!(".extraction_status_{VERSION}.json"));
        let Ok(marker) = fs::read(path) else {
            return 0;
        };
        let marker: Value = serde_json::from_slice(&marker).expect("a marker is always whole");
        let dumps = &marker["processing_phase"]["progress_by_file"];
        let records = dumps.as_object().unwrap().values();
        records
            .map(|dump| dump["records_extracted"].as_u64().unwrap())
            .sum()
    }

    /// How many dead letters there are.
    pub(crate) fn dead_letters(&self, kind: Kind) -> usize {
        let path = self.path(&format!("discogs_{VERSION}_{kind}.dead_letters.jsonl"));
        fs::read_to_string(path).map_or(0, |letters| letters.lines().count())
    }
}

/// A run of the program; killed at the latest when the test is over.
pub(crate) struct Run {
    child: Child,
    log: PathBuf,
}

impl Run {
    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// What it has said so far.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// How often it has said something so far.
    pub(crate) fn count(&self, words: &str) -> u64 {
        self.log().matches(words).count() as u64
    }

    /// Waits until it has said something; panics if it ends before.
    pub(crate) fn says(&mut self, words: &str) {
        look_for(words, || {
            let has_ended = self.ended().is_some();
            let has_said = self.count(words) > 0;
            assert!(
                has_said || !has_ended,
                "ended without `{words}`: {}",
                self.log()
            );
            has_said.then_some(())
        });
    }

    /// Waits for its end, and asserts the exit code.
    pub(crate) fn ends(&mut self, code: i32) {
        let status = look_for("the end of the run", || self.ended());
        assert_eq!(status.code(), Some(code), "{}", self.log());
        assert_eq!(self.count("panicked"), 0, "{}", self.log());
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            println!("the program said:\n{}", self.log());
        }
    }
}
