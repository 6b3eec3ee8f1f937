//! What the other benches have measured last, as tables in Markdown, and the most memory that runs
//! take.

#![expect(
    clippy::disallowed_methods,
    reason = "reads what criterion has written, and watches processes"
)]
#![expect(clippy::unwrap_used, reason = "a bench that can't run fails")]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use discogs_extractor::dump::Kind;
use discogs_extractor::rabbitmq::QueueType;
use serde_json::Value;
use support::pairs::Pairs;
use support::{Corpus, SAVES, rabbitmq, rabbitmq_megabytes, xml_megabytes};
use tempfile::TempDir;

fn main() {
    // As a test it has nothing to tell.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    println!(
        "Medians; generated dumps of {} MB of XML each, of {} MB for RabbitMQ.",
        xml_megabytes(),
        rabbitmq_megabytes()
    );
    if rabbitmq::url().is_none() {
        println!("There was no RabbitMQ: neither a Docker daemon nor RABBITMQ_TEST_URL.");
    }
    reading();
    end_to_end();
    one_save();
    saving();
    resuming();
    memory();
}

fn row(first: &str, others: &[String]) {
    println!("| {first} | {} |", others.join(" | "));
}

fn head(first: &str, others: &[&str]) {
    let owned: Vec<_> = others.iter().map(|&cell| cell.to_owned()).collect();
    println!();
    row(first, &owned);
    println!("|---{}|", "|---".repeat(others.len()));
}

fn show(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// The median of a criterion bench in seconds, if it was run.
fn median(group: &str, name: &str) -> Option<f64> {
    let criterion = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../criterion");
    let path = criterion.join(group).join(name).join("new/estimates.json");
    let estimates: Value = serde_json::from_str(&fs::read_to_string(path).ok()?).unwrap();
    Some(estimates["median"]["point_estimate"].as_f64()? / 1e9)
}

fn reading() {
    const STEPS: [(&str, &str); 9] = [
        ("limit", "inflating alone, zlib-rs"),
        ("inflate", "inflate"),
        ("split", "split"),
        ("transcode", "split and transcode"),
        ("reference", "the same, reference reader"),
        ("source-1", "source, 1 thread"),
        ("source-2", "source, 2 threads"),
        ("source-3", "source, 3 threads"),
        ("tree", "a tree per record"),
    ];
    head("MB of XML per second", &Kind::ALL.map(Kind::name));
    for (step, name) in STEPS {
        let rate = |kind| {
            let corpus = Corpus::new(kind);
            let seconds = median(kind.name(), step);
            show(
                seconds.map(|seconds| corpus.xml_bytes as f64 / 1e6 / seconds),
                0,
            )
        };
        row(name, &Kind::ALL.map(rate));
    }
}

fn end_to_end() {
    const INTO: [(&str, &str); 5] = [
        ("null", "nothing, beside inflating alone"),
        ("gzip", "nothing, beside `gzip -dc`"),
        ("spool", "files, beside writing and one sync"),
        ("quorum", "RabbitMQ, quorum queue, beside a bare publisher"),
        (
            "classic",
            "RabbitMQ, classic queue, beside a bare publisher",
        ),
    ];
    head(
        "a whole run, saving every 5,000 records, into",
        &[
            "dump",
            "records/s",
            "MB of XML/s",
            "limit, MB of XML/s",
            "of the limit (quartiles)",
        ],
    );
    for kind in [Kind::Artists, Kind::Releases] {
        for (name, title) in INTO {
            let corpus = match name {
                "quorum" | "classic" => Corpus::sized(kind, rabbitmq_megabytes()),
                _ => Corpus::new(kind),
            };
            let megabytes = corpus.xml_bytes as f64 / 1e6;
            let pairs = Pairs::load(&format!("end-to-end-{kind}"), name);
            let of_limit = pairs.as_ref().map_or_else(
                || "-".to_owned(),
                |pairs| {
                    let [low, middle, high] = pairs.ratio().map(|ratio| 1.0 / ratio);
                    format!("{middle:.2} ({high:.2} to {low:.2})")
                },
            );
            let one = pairs.as_ref().map(Pairs::one);
            let other = pairs.as_ref().map(Pairs::other);
            let cells = [
                kind.to_string(),
                show(one.map(|one| corpus.records as f64 / one), 0),
                show(one.map(|one| megabytes / one), 1),
                show(other.map(|other| megabytes / other), 1),
                of_limit,
            ];
            row(title, &cells);
        }
    }
}

fn one_save() {
    head(
        "one save, on",
        &[
            "save, µs",
            "write, sync, rename, sync the directory, µs",
            "of it (quartiles)",
        ],
    );
    for place in ["disk", "tmpfs"] {
        let pairs = Pairs::load("save", place);
        let microseconds = |seconds: f64| seconds * 1e6 / SAVES as f64;
        let of_it = pairs.as_ref().map_or_else(
            || "-".to_owned(),
            |pairs| {
                let [low, middle, high] = pairs.ratio();
                format!("{middle:.2} ({low:.2} to {high:.2})")
            },
        );
        let cells = [
            show(pairs.as_ref().map(|pairs| microseconds(pairs.one())), 0),
            show(pairs.as_ref().map(|pairs| microseconds(pairs.other())), 0),
            of_it,
        ];
        row(place, &cells);
    }
}

fn saving() {
    const INTERVALS: [&str; 6] = ["100", "500", "1000", "5000", "20000", "100000"];
    head(
        "slower than without saves, in %, by records between saves",
        &INTERVALS,
    );
    for target in ["null", "spool", "quorum"] {
        for place in ["disk", "tmpfs"] {
            let group = format!("saving-{target}-{place}");
            let cost = |interval| {
                Pairs::load(&group, interval).map_or_else(
                    || "-".to_owned(),
                    |pairs| {
                        let [low, middle, high] = pairs.ratio().map(|ratio| (ratio - 1.0) * 100.0);
                        format!("{middle:.1} ({low:.1} to {high:.1})")
                    },
                )
            };
            let title = match target {
                "quorum" => "RabbitMQ".to_owned(),
                _ => target.to_owned(),
            };
            row(&format!("{title}, state on {place}"), &INTERVALS.map(cost));
        }
    }
}

fn resuming() {
    head(
        "resume of releases at",
        &["first message, ms", "reading up to there, ms", "of it, %"],
    );
    for place in ["1", "50", "99"] {
        let pairs = Pairs::load("resuming", place);
        let cells = [
            show(pairs.as_ref().map(|pairs| pairs.one() * 1e3), 1),
            show(pairs.as_ref().map(|pairs| pairs.other() * 1e3), 0),
            show(pairs.as_ref().map(|pairs| pairs.ratio()[1] * 100.0), 2),
        ];
        row(&format!("{place} %"), &cells);
    }
}

fn memory() {
    let sizes = [rabbitmq_megabytes(), xml_megabytes()];
    let names = sizes.map(|size| format!("{size} MB of XML"));
    let mut titles = Vec::new();
    for kind in Kind::ALL {
        titles.extend(names.iter().map(|name| format!("{kind}, {name}")));
    }
    let titles: Vec<_> = titles.iter().map(String::as_str).collect();
    head("most memory of a run, in MB", &titles);
    for broker in ["null", "spool", "RabbitMQ"] {
        let mut cells = Vec::new();
        for kind in Kind::ALL {
            for size in sizes {
                cells.push(show(peak_megabytes(&Corpus::sized(kind, size), broker), 0));
            }
        }
        row(broker, &cells);
    }
    if rabbitmq::url().is_some() {
        rabbitmq::clean();
    }
}

/// The most memory that a run takes, as the system has counted, if there is that broker.
fn peak_megabytes(corpus: &Corpus, broker: &str) -> Option<f64> {
    let state = TempDir::new().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_discogs-extractor"));
    command
        .arg("run")
        .arg(&corpus.dump.path)
        .args(["--reprocess", "--state-dir"])
        .arg(state.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    match broker {
        "null" => command.args(["--broker", "null:"]),
        "spool" => command.arg(format!("--broker=file:{}/spool", state.path().display())),
        _ => {
            let url = rabbitmq::url()?;
            rabbitmq::empty(corpus.dump.kind, QueueType::Quorum);
            command.args(["--exchange-prefix", &rabbitmq::prefix(QueueType::Quorum)]);
            command.args(["--broker", &url])
        }
    };
    Some(peak_bytes(command) / 1e6)
}

/// Looks often: what the system counts only grows, and is gone with the process.
fn peak_bytes(mut command: Command) -> f64 {
    let mut run = command.spawn().unwrap();
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
        std::thread::sleep(Duration::from_millis(1));
    };
    assert!(ended.success(), "the run has failed");
    peak
}
