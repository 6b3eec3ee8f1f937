//! The binary as users meet it: arguments, environment, files and signals in; exit codes, output
//! and the spool out.
//!
//! The test that matters most kills the extractor with SIGKILL at thirty moments and runs it again
//! each time. What could go wrong: a checkpoint that is ahead of the spool loses records, because
//! the next run begins behind them; a spool that does not recognise what it holds repeats records;
//! a torn line makes a message that is none. So at the end the spool must hold the bytes of an
//! undisturbed run, and at every kill a marker that is whole and not ahead of the spool.
//!
//! Moments are chosen by a seeded stream of numbers: by how much is in the spool, or by how often
//! the test has looked at it. The operating system schedules as it likes, so a seed repeats the
//! intention and not the instant; what is asserted holds at every instant.

#![expect(clippy::unwrap_used, reason = "the helpers of tests fail like tests")]
#![expect(
    clippy::disallowed_methods,
    reason = "works with the files and processes of the real program"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;
use tempfile::TempDir;

const VERSION: &str = "20260801";
const KINDS: [&str; 4] = ["artists", "labels", "masters", "releases"];

/// How often the file system is looked at before a test gives up: a minute, at least.
const LOOKS_MAX: u32 = 120_000;

// Dumps.

/// The XML of a dump of `count` records. Ids have gaps, as real ones do.
fn xml(kind: &str, count: u64) -> String {
    let element = &kind[..kind.len() - 1];
    let mut xml = format!("<{kind}>\n");
    for number in 1..=count {
        let id = number * 3;
        let text = format!(
            "Nº {number} &amp; {}",
            "äöü ".repeat((number % 50) as usize)
        );
        let record = match kind {
            "artists" => format!("<id>{id}</id><name>{text}</name>"),
            "labels" => format!("<id>{id}</id><name>{text}</name><profile/>"),
            _ => format!("<title>{text}</title><genres><genre>Rock</genre></genres>"),
        };
        let attribute = match kind {
            "masters" => format!(" id=\"{id}\""),
            "releases" => format!(" id=\"{id}\" status=\"Accepted\""),
            _ => String::new(),
        };
        xml += &format!("<{element}{attribute}>{record}</{element}>\n");
    }
    xml + &format!("</{kind}>\n")
}

fn gzip(xml: &str) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(xml.as_bytes()).unwrap();
    encoder.finish().unwrap()
}

fn dump_name(kind: &str) -> String {
    format!("discogs_{VERSION}_{kind}.xml.gz")
}

// A working directory with dumps in `data`, and the program in it.

struct Site(TempDir);

impl Site {
    /// A site with `count` records of each kind.
    fn new(count: u64) -> Self {
        let site = Self(temporary_directory());
        fs::create_dir(site.path("data")).unwrap();
        for kind in KINDS {
            site.write(kind, &gzip(&xml(kind, count)));
        }
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, kind: &str, bytes: &[u8]) {
        fs::write(self.path("data").join(dump_name(kind)), bytes).unwrap();
    }

    /// The program, with arguments that are separated by spaces, and an empty environment.
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_discogs-extractor"));
        command
            .args(line.split_whitespace())
            .env_clear()
            .current_dir(self.0.path())
            .stdin(Stdio::null());
        command
    }

    fn output(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs to the end, asserts the exit code, and returns stdout and stderr.
    fn ends(&self, line: &str, code: i32) -> (String, String) {
        let output = self.output(line);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{line}\n{out}{err}");
        (out, err)
    }

    /// Starts the program with its stderr in a file of that name.
    fn start(&self, line: &str, stderr: &str) -> Running {
        let child = self
            .command(line)
            .stdout(Stdio::null())
            .stderr(File::create(self.path(stderr)).unwrap())
            .spawn()
            .unwrap();
        Running(child)
    }

    /// Every line of the spool by kind, in order; a torn last line is left out.
    fn spool(&self) -> BTreeMap<&'static str, Vec<Vec<u8>>> {
        let directory = self.path("out").join(VERSION);
        KINDS
            .into_iter()
            .map(|kind| (kind, whole_lines(&directory, kind)))
            .collect()
    }

    fn spool_bytes(&self) -> u64 {
        let Ok(entries) = fs::read_dir(self.path("out").join(VERSION)) else {
            return 0;
        };
        let segments = entries.flatten().filter(|entry| {
            let name = entry.file_name();
            name.to_string_lossy().ends_with(".jsonl")
        });
        segments
            .filter_map(|entry| entry.metadata().ok())
            .map(|metadata| metadata.len())
            .sum()
    }

    fn marker(&self) -> Option<Value> {
        let path = self
            .path("data")
            .join(format!(".extraction_status_{VERSION}.json"));
        let bytes = fs::read(path).ok()?;
        Some(serde_json::from_slice(&bytes).expect("a marker is whole at every moment"))
    }
}

fn whole_lines(directory: &Path, kind: &str) -> Vec<Vec<u8>> {
    let mut segments: Vec<_> = fs::read_dir(directory)
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    segments.retain(|path: &PathBuf| {
        let name = path.file_name().unwrap().to_str().unwrap();
        name.starts_with(kind) && name.ends_with(".jsonl")
    });
    segments.sort();
    let mut lines = Vec::new();
    for segment in segments {
        let mut bytes = Vec::new();
        File::open(segment)
            .unwrap()
            .read_to_end(&mut bytes)
            .unwrap();
        let pieces = bytes.split_inclusive(|byte| *byte == b'\n');
        lines.extend(pieces.filter_map(|line| Some(line.strip_suffix(b"\n")?.to_vec())));
    }
    lines
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// In memory if possible, because a run syncs often and a kill does not lose the page cache.
fn temporary_directory() -> TempDir {
    tempfile::tempdir_in("/dev/shm").unwrap_or_else(|_| tempfile::tempdir().unwrap())
}

/// What must be the same in every run: record messages to the byte, control messages without
/// their times.
fn comparable(spool: &BTreeMap<&str, Vec<Vec<u8>>>) -> Vec<String> {
    let lines = spool.values().flatten();
    lines
        .map(|line| {
            let text = text(line);
            let mut value: Value = serde_json::from_str(&text).expect("a message is JSON");
            if value["type"] == "data" {
                return text;
            }
            let object = value.as_object_mut().expect("a message is an object");
            object.remove("timestamp");
            object.remove("started_at");
            value.to_string()
        })
        .collect()
}

/// Asserts that two spools hold the same, and says where they differ if they don't.
fn assert_same(actual: &Site, expected: &Site) {
    let (actual, expected) = (comparable(&actual.spool()), comparable(&expected.spool()));
    let differs = actual.iter().zip(&expected).position(|(a, e)| a != e);
    if let Some(place) = differs {
        panic!("line {place}:\n{}\n{}", actual[place], expected[place]);
    }
    assert_eq!(actual.len(), expected.len());
}

/// A program under way; killed at the latest when the test is over.
struct Running(Child);

impl Running {
    fn ended(&mut self) -> Option<ExitStatus> {
        self.0.try_wait().unwrap()
    }

    fn terminate(&self) {
        let kill = Command::new("kill")
            .args(["-TERM", &self.0.id().to_string()])
            .status();
        assert!(kill.unwrap().success());
    }

    fn wait(&mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks until `is_there` says so; panics if it never does.
fn look_until(what: &str, mut is_there: impl FnMut() -> bool) {
    for _ in 0..LOOKS_MAX {
        if is_there() {
            return;
        }
        pause();
    }
    panic!("{what} did not come about");
}

/// Gives the program that is watched the processor; there is nothing of it to wait for.
fn pause() {
    std::thread::sleep(Duration::from_micros(500));
}

fn contains(path: &Path, needle: &str) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.contains(needle))
}

/// Numbers that look random, from a seed (SplitMix64, Steele and others, 2014).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

// Crashes.

/// When to kill a run.
#[derive(Debug)]
enum Moment {
    /// Once the spool holds so many bytes.
    Bytes(u64),
    /// After so many looks.
    Looks(u64),
}

impl Moment {
    fn choose(random: &mut Random, spool_bytes: u64, all_bytes: u64) -> Self {
        match random.below(2) {
            0 => Self::Looks(random.below(120)),
            _ => Self::Bytes(spool_bytes + random.below(all_bytes / 4)),
        }
    }
}

/// Kills the run at the moment; false if it ended before.
fn kill_at(site: &Site, running: &mut Running, moment: &Moment) -> bool {
    for look in 0..LOOKS_MAX {
        let is_now = match *moment {
            Moment::Bytes(bytes) => site.spool_bytes() >= bytes,
            Moment::Looks(looks) => u64::from(look) >= looks,
        };
        if let Some(status) = running.ended() {
            assert_eq!(status.code(), Some(0), "{moment:?}");
            return false;
        }
        if is_now {
            running.kill();
            return true;
        }
        pause();
    }
    panic!("{moment:?} did not come about");
}

/// After a kill: no checkpoint is ahead of what the spool holds.
fn assert_not_ahead(site: &Site) {
    let (Some(marker), spool) = (site.marker(), site.spool()) else {
        return;
    };
    for (kind, lines) in spool {
        let file = &marker["processing_phase"]["progress_by_file"][dump_name(kind)];
        let saved = file["checkpoint"]["messages"].as_u64().unwrap_or(0);
        let held = lines.len() as u64;
        assert!(saved <= held, "{kind}: {saved} saved, {held} held");
    }
}

#[test]
fn killed_thirty_times_the_spool_holds_every_message_once() {
    const RECORDS: u64 = 1_500;
    const RUN: &str = "run data --broker file:out --state-save-interval 100 --window-messages 50";
    let undisturbed = Site::new(RECORDS);
    undisturbed.ends(RUN, 0);
    let all_bytes = undisturbed.spool_bytes();
    let lines = comparable(&undisturbed.spool()).len() as u64;
    assert_eq!(lines, 4 * (RECORDS + 2));

    let mut random = Random(20_260_801);
    let mut site = Site::new(RECORDS);
    let mut kills = 0;
    // A run that ends before its moment finishes its site; the next one begins a new site.
    for _ in 0..200 {
        let moment = Moment::choose(&mut random, site.spool_bytes(), all_bytes);
        let mut running = site.start(RUN, "stderr");
        if kill_at(&site, &mut running, &moment) {
            assert_not_ahead(&site);
            kills += 1;
        } else {
            assert_same(&site, &undisturbed);
            site = Site::new(RECORDS);
        }
        if kills == 30 {
            break;
        }
    }
    assert_eq!(kills, 30);
    site.ends(RUN, 0);
    assert_same(&site, &undisturbed);
}

// Whole runs.

#[test]
fn a_complete_version_is_not_published_again() {
    let site = Site::new(20);
    let (out, err) = site.ends("run data --broker file:out", 0);
    assert!(out.starts_with("version 20260801 is complete\n"), "{out}");
    assert!(out.contains("20 records"), "{out}");
    assert!(out.contains("messages: out/20260801/*.jsonl"), "{out}");
    assert!(
        err.contains("discogs_20260801_labels.xml.gz: complete"),
        "{err}"
    );
    let first = site.spool();
    for lines in first.values() {
        assert_eq!(lines.len(), 22);
    }
    let (out, _) = site.ends("run data --broker file:out", 0);
    assert!(
        out.starts_with("version 20260801 is complete: nothing to do\n"),
        "{out}"
    );
    assert_eq!(site.spool(), first);
}

#[test]
fn one_dump_can_be_named() {
    let site = Site::new(20);
    let line = format!("run data/{} --broker file:out", dump_name("labels"));
    let (out, _) = site.ends(&line, 0);
    assert!(
        out.starts_with("these dumps of version 20260801 are complete\n"),
        "{out}"
    );
    assert_eq!(
        site.spool()["labels"].len(),
        21,
        "without extraction_complete"
    );
    let name = dump_name("labels");
    let mut inside = site.command(&format!("run {name} --broker null:"));
    let output = inside.current_dir(site.path("data")).output().unwrap();
    assert!(text(&output.stdout).contains("nothing to do"), "{output:?}");
}

#[test]
fn reprocessing_is_forced_by_a_flag_or_the_environment() {
    let site = Site::new(20);
    let line = "run data --broker null:";
    site.ends(line, 0);
    let check = |command: &mut Command, expected: &str| {
        let out = text(&command.output().unwrap().stdout);
        assert!(out.starts_with(expected), "{out}");
    };
    let (again, nothing) = (
        "version 20260801 is complete\n",
        "version 20260801 is complete:",
    );
    check(&mut site.command(line), nothing);
    check(
        &mut site.command("run data --broker null: --reprocess"),
        again,
    );
    check(site.command(line).env("FORCE_REPROCESS", "yes"), again);
    check(site.command(line).env("FORCE_REPROCESS", "no"), nothing);
}

#[test]
fn a_configuration_file_and_the_environment_make_a_run() {
    let site = Site::new(5);
    fs::write(
        site.path("discogs-extractor.toml"),
        "broker = \"file:out\"\n",
    )
    .unwrap();
    let mut command = site.command("run --log-format json");
    let output = command
        .env("DISCOGS_ROOT", "data")
        .env("BATCH_SIZE", "9")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(site.spool()["artists"].len(), 7);
    let log = text(&output.stderr);
    let lines: Vec<Value> = log
        .lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect();
    let first = lines[0]["message"].as_str().unwrap();
    assert!(first.contains("BATCH_SIZE is ignored"), "{log}");
    assert_eq!(lines[0]["level"], "WARN");
}

/// The excerpts of real dumps, where they are, against what an independent model made of them.
#[test]
fn real_records_become_the_expected_messages() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/samples");
    if !samples.exists() {
        println!("{} is absent", samples.display());
        return;
    }
    let site = Site::new(0);
    let dumps = samples.join("dumps").display().to_string();
    site.ends(&format!("run {dumps} --broker file:out --state-dir ."), 0);
    for kind in KINDS {
        let path = samples.join(format!("expected/discogs_20200806_{kind}.jsonl.gz"));
        let decoder = flate2::read::GzDecoder::new(File::open(path).unwrap());
        let expected = BufReader::new(decoder).lines();
        let actual = whole_lines(&site.path("out/20200806"), kind);
        assert_eq!(actual.len(), 1_002, "{kind}");
        let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap();
        for (line, (actual, expected)) in actual.iter().zip(expected).enumerate() {
            assert_eq!(
                parse(actual),
                parse(expected.unwrap().as_bytes()),
                "{kind} {line}"
            );
        }
    }
    let (out, _) = site.ends(&format!("run {dumps} --broker file:out --state-dir ."), 0);
    assert!(out.contains("nothing to do"), "{out}");
}

// Stops.

#[test]
fn a_stopped_run_saves_and_the_next_one_goes_on() {
    const RUN: &str = "run data --broker file:out --state-save-interval 1000000";
    let undisturbed = Site::new(3_000);
    undisturbed.ends(RUN, 0);
    let site = Site::new(3_000);
    let mut running = site.start(RUN, "stderr");
    look_until("a message", || site.spool_bytes() > 0);
    running.terminate();
    assert_eq!(running.wait(), Some(3));
    let marker = site.marker().expect("a stopped run saves");
    let held: usize = site.spool().values().map(Vec::len).sum();
    assert!((1..4 * 3_002).contains(&held), "{held} lines");
    assert_eq!(marker["publishing_phase"]["status"], "in_progress");

    let (_, err) = site.ends(RUN, 0);
    assert!(err.contains("going on behind record") || err.contains("starting at record 1"));
    assert_same(&site, &undisturbed);
}

/// A run that waits for a broker that is not there, and has told so.
fn waiting(site: &Site) -> Running {
    let running = site.start("run data --broker amqp://127.0.0.1:1", "waiting");
    let log = site.path("waiting");
    look_until("the warning", || {
        contains(&log, "no connection to the broker")
    });
    running
}

#[test]
fn a_run_without_a_broker_waits_and_can_be_stopped() {
    let site = Site::new(5);
    let mut running = waiting(&site);
    assert!(contains(&site.path("waiting"), "next attempt in"));
    assert_eq!(running.ended(), None);
    running.terminate();
    assert_eq!(running.wait(), Some(3));
}

#[test]
fn a_second_extractor_is_refused_and_told_about_the_first() {
    let site = Site::new(5);
    let first = waiting(&site);
    let (_, err) = site.ends("run data --broker null:", 1);
    let owner = format!("process {}", first.0.id());
    assert!(err.contains(".extraction.lock is locked"), "{err}");
    assert!(err.contains(&owner), "{owner} in {err}");
    site.ends("status data", 0);
    drop(first);
    site.ends("run data --broker null:", 0);
}

/// A dump that is a pipe without a writer holds the run where it can't look at a stop request.
#[test]
fn a_second_signal_ends_at_once() {
    let site = Site::new(0);
    let pipe = site.path("data").join(dump_name("labels"));
    fs::remove_file(&pipe).unwrap();
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut running = site.start("run data --kinds labels --broker null:", "stderr");
    let lock = site.path("data").join(".extraction.lock");
    look_until("the lock", || contains(&lock, "process"));
    let mut status = None;
    // More than two, because signals that nobody has taken yet count as one.
    look_until("the end", || {
        running.terminate();
        status = running.ended();
        status.is_some()
    });
    assert_eq!(status.unwrap().signal(), Some(15));
}

// Damage.

#[test]
fn a_damaged_dump_fails_after_every_whole_record() {
    let site = Site::new(500);
    let whole = gzip(&xml("labels", 500));
    site.write("labels", &whole[..whole.len() / 2]);
    let (out, err) = site.ends("run data --broker file:out", 1);
    assert!(err.contains("error: "), "{err}");
    assert!(err.contains(&dump_name("labels")), "{err}");
    assert!(err.contains("byte"), "{err}");
    assert!(out.contains("ended with an error"), "{out}");

    let spool = site.spool();
    let labels = spool["labels"].len() as u64;
    assert!((1..500).contains(&labels), "{labels}");
    assert_eq!(spool["artists"].len(), 501, "without extraction_complete");
    let marker = site.marker().unwrap();
    let file = &marker["processing_phase"]["progress_by_file"][dump_name("labels")];
    assert_eq!(file["status"], "failed");
    assert_eq!(file["checkpoint"]["record"], labels);
    let (status, _) = site.ends("status data", 0);
    assert!(status.starts_with("version 20260801: failed"), "{status}");
    assert!(status.contains("1 error"), "{status}");

    site.write("labels", &whole);
    let (_, err) = site.ends("run data --broker file:out", 0);
    assert!(
        err.contains("is not the file that was read before"),
        "{err}"
    );
    let undisturbed = Site::new(500);
    undisturbed.ends("run data --broker file:out", 0);
    assert_same(&site, &undisturbed);
}

#[test]
fn too_many_dead_letters_end_a_run_that_can_go_on() {
    let site = Site::new(20);
    let odd = xml("artists", 20).replace("<id>15</id>", "");
    site.write("artists", &gzip(&odd));
    let (_, err) = site.ends("run data --broker file:out --dead-letters-max 0", 1);
    assert!(err.contains("raise --dead-letters-max"), "{err}");
    let (out, err) = site.ends("run data --broker file:out", 0);
    assert!(out.contains("1 dead letter"), "{out}{err}");
    assert_eq!(site.spool()["artists"].len(), 21);
    let letters = site
        .path("data")
        .join("discogs_20260801_artists.dead_letters.jsonl");
    assert_eq!(
        BufReader::new(File::open(letters).unwrap()).lines().count(),
        1
    );
}

// The command line.

#[test]
fn help_completions_and_manual_pages_are_written() {
    let site = Site::new(1);
    let (out, _) = site.ends("--help", 0);
    for part in [
        "run",
        "status",
        "Exit codes:",
        "Examples:",
        "AMQP_CONNECTION",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    let (out, _) = site.ends("run --help", 0);
    for part in [
        "--state-save-interval",
        "STATE_SAVE_INTERVAL",
        "[default: 5000]",
        "Limits:",
    ] {
        assert!(out.contains(part), "{part} in {out}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let (out, _) = site.ends(&format!("completions {shell}"), 0);
        assert!(out.contains("state-save-interval"), "{shell}");
    }
    site.ends("man pages", 0);
    let page = |name: &str| fs::read_to_string(site.path("pages").join(name)).unwrap();
    assert!(page("discogs-extractor.1").contains("Exit codes:"));
    let run = page("discogs-extractor-run.1");
    assert!(run.contains("state\\-save\\-interval"), "{run}");
}

#[test]
fn what_makes_no_sense_is_refused_before_anything_is_read() {
    let site = Site::new(1);
    fs::write(site.path("wrong.toml"), "colour = \"red\"\n").unwrap();
    let check = |line: &str, parts: &[&str]| {
        let (_, err) = site.ends(line, 2);
        for part in parts {
            assert!(err.contains(part), "{line}: {part} in {err}");
        }
        assert!(site.marker().is_none(), "{line}");
    };
    check("", &["Usage:"]);
    check("publish", &["publish"]);
    check("run --colour red", &["--colour"]);
    check(
        "run data --state-save-interval 0",
        &["--state-save-interval: `0`"],
    );
    check(
        "run data --broker ftp://x",
        &["--broker: `ftp://x` is no broker"],
    );
    check("run data --broker amqp://h:99999", &["--broker: the port"]);
    check(
        "run nowhere",
        &["PATH on the command line: cannot read nowhere"],
    );
    check("run wrong.toml", &["wrong.toml is not named like a dump"]);
    check("run data --dump-version 20250101", &["it holds 20260801"]);
    check(
        "run data --config wrong.toml",
        &["wrong.toml: colour: there is no such setting"],
    );
    check(
        "run data --state-dir nowhere",
        &["--state-dir: cannot use nowhere"],
    );
    check(
        "run data --password-file nowhere --broker amqp://h",
        &["--password-file"],
    );
    check("status nowhere --state-dir nowhere", &["--state-dir"]);
}

#[test]
fn the_configuration_shows_origins_and_no_secrets() {
    let site = Site::new(1);
    fs::write(site.path("discogs-extractor.toml"), "window-messages = 7\n").unwrap();
    let mut command = site.command("config data --kinds labels");
    command
        .env("AMQP_CONNECTION", "amqp://me:hunter2@rabbit/v")
        .env("RABBITMQ_PASSWORD", "hunter2");
    let output = command.output().unwrap();
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for line in [
        "root = \"data\"  # PATH on the command line",
        "kinds = \"labels\"  # --kinds",
        "broker = \"amqp://me:***@rabbit/v\"  # environment variable AMQP_CONNECTION",
        "password = \"***\"  # environment variable RABBITMQ_PASSWORD",
        "window-messages = 7  # discogs-extractor.toml: window-messages",
        "state-save-interval = 5000  # default",
    ] {
        assert!(out.lines().any(|other| other == line), "{line} in {out}");
    }
    assert!(!out.contains("hunter2"), "{out}");
}

#[test]
fn status_is_shown_before_and_after_a_run() {
    let site = Site::new(20);
    let (_, err) = site.ends("status data", 1);
    assert!(err.contains("data has no state marker"), "{err}");
    site.ends("run data --broker null:", 0);
    let (out, _) = site.ends("status data", 0);
    assert!(out.starts_with("version 20260801: complete\n"), "{out}");
    assert!(
        out.contains("80 records, 80 messages, 0 dead letters"),
        "{out}"
    );
    let (out, _) = site.ends("status data --json", 0);
    let json: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&json["format"], &json["records"]), (&1.into(), &80.into()));
    assert_eq!(json["dumps"].as_array().unwrap().len(), 4);
}
