//! What the other benches have measured last, as a table in Markdown, and the most memory that a
//! run takes.

#![expect(
    clippy::disallowed_methods,
    reason = "reads what criterion has written"
)]
#![expect(clippy::unwrap_used, reason = "a bench that can't run fails")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use discogs_extractor::dump::Kind;
use serde_json::Value;
use support::{Corpus, xml_megabytes};
use tempfile::TempDir;

fn main() {
    println!("Medians, dumps of {} MB of XML.\n", xml_megabytes());
    reading();
    saving();
    resume();
}

/// The median of a bench in seconds, if it was run.
fn median(group: &str, name: &str) -> Option<f64> {
    let criterion = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../criterion");
    let path = criterion.join(group).join(name).join("new/estimates.json");
    let estimates: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).unwrap();
    Some(estimates["median"]["point_estimate"].as_f64()? / 1e9)
}

fn show(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

fn reading() {
    const STEPS: [&str; 9] = [
        "limit",
        "inflate",
        "split",
        "transcode",
        "reference",
        "source-0",
        "source-1",
        "source-2",
        "tree",
    ];
    println!(
        "| MB of XML per second | {} | source : limit | source : tree | peak MB |",
        STEPS.join(" | ")
    );
    println!("|---{}|", "|---".repeat(STEPS.len() + 3));
    for kind in Kind::ALL {
        let group = kind.to_string();
        let corpus = Corpus::new(kind);
        let megabytes = corpus.xml_bytes as f64 / 1e6;
        let rates = STEPS.map(|step| show(median(&group, step).map(|time| megabytes / time), 0));
        let ratio = |one: &str, other: &str| {
            show(
                median(&group, one)
                    .zip(median(&group, other))
                    .map(|(one, other)| one / other),
                1,
            )
        };
        let (limit, tree) = (ratio("source-2", "limit"), ratio("tree", "source-2"));
        let peak = peak_bytes(&corpus) / 1e6;
        println!(
            "| {kind} | {} | {limit} | {tree} | {peak:.0} |",
            rates.join(" | ")
        );
    }
}

fn saving() {
    const INTERVALS: [&str; 7] = ["100", "500", "1000", "5000", "20000", "100000", "0"];
    println!(
        "\n| seconds, a save every .. records | {} |",
        INTERVALS.join(" | ")
    );
    println!("|---{}|", "|---".repeat(INTERVALS.len()));
    for group in ["null-disk", "null-tmpfs", "spool-disk", "spool-tmpfs"] {
        let times = INTERVALS.map(|interval| show(median(group, interval), 3));
        println!("| {group} | {} |", times.join(" | "));
    }
}

fn resume() {
    println!("\n| first message after a resume at | ms |\n|---|---|");
    for place in ["1", "50", "99"] {
        let time = median("resume", place).map(|time| time * 1e3);
        println!("| {place} % | {} |", show(time, 1));
    }
}

/// The most memory that a run into nothing takes, as the system has counted.
fn peak_bytes(corpus: &Corpus) -> f64 {
    let state = TempDir::new().unwrap();
    let mut run = Command::new(env!("CARGO_BIN_EXE_discogs-extractor"))
        .arg("run")
        .arg(&corpus.dump.path)
        .args(["--broker", "null:", "--reprocess", "--state-dir"])
        .arg(state.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = format!("/proc/{}/status", run.id());
    let mut peak = 0.0_f64;
    let ended = loop {
        if let Some(status) = run.try_wait().unwrap() {
            break status;
        }
        let text = fs::read_to_string(&status).unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<f64>().ok());
        peak = peak.max(kilobytes.unwrap_or(0.0) * 1024.0);
    };
    assert!(ended.success(), "the run has failed");
    peak
}
