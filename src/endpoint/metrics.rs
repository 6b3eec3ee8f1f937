//! What is shown as Prometheus' text format, version 0.0.4.
//!
//! Counters and the histogram are of the process. Gauges with a `kind` are of the version, whoever
//! published it.

use std::fmt::{Display, Write as _};
use std::time::Duration;

use super::json;
use crate::board::{Activity, DumpShown, Histogram, Shown, Stage};
use crate::dump::Kind;
use crate::time::Instant;

/// In front of every name but the conventional one.
const PREFIX: &str = "discogs_extractor_";

/// All metrics; the wall clock calls `now` `unix`, and the endpoint was started at `since`.
pub(super) fn text(shown: &Shown, now: Instant, unix: Duration, since: Instant) -> String {
    let mut text = Text::default();
    about_the_program(&mut text, shown);
    let seconds = |at: Instant| unix.saturating_sub(now.since(at)).as_secs_f64();
    let (started, help) = (seconds(since), "When the program was started, Unix time.");
    text.family("process_start_time_seconds", "gauge", help);
    text.sample("process_start_time_seconds", "", started);
    about_records(&mut text, shown);
    about_saves(&mut text, shown);
    if let Some(saved_at) = shown.saved_at {
        let help = "When a checkpoint was saved last, Unix time.";
        text.gauge("last_save_timestamp_seconds", help, seconds(saved_at));
    }
    about_the_broker(&mut text, shown);
    about_dumps(&mut text, shown);
    text.0
}

fn about_the_program(text: &mut Text, shown: &Shown) {
    let name = text.own("build_info", "gauge", "Which program this is; always 1.");
    let version = label("version", env!("CARGO_PKG_VERSION"));
    text.sample(&name, &version, 1);
    let help = "What the program does: 1 for that, 0 for everything else.";
    let name = text.own("status", "gauge", help);
    let at = Instant::ORIGIN;
    let activities = [
        Activity::Idle,
        Activity::Publishing,
        Activity::Completed,
        Activity::Waiting(at),
        Activity::Failed(None),
    ];
    let present = json::status(shown.activity);
    for status in activities.map(json::status) {
        let is_present = u8::from(status == present);
        text.sample(&name, &label("status", status), is_present);
    }
    if let Some(version) = &shown.version {
        let help = "Which version of the dumps it is about; always 1.";
        let name = text.own("dump_version_info", "gauge", help);
        text.sample(&name, &label("version", version.as_str()), 1);
    }
}

fn about_records(text: &mut Text, shown: &Shown) {
    let (run, totals) = (&shown.progress, &shown.totals);
    text.counter(
        "records_read",
        "Records that were read.",
        totals.records_read,
    );
    let help = "Messages that the broker confirmed, control messages among them.";
    text.counter("messages_confirmed", help, totals.messages_confirmed);
    let help = "Messages that were published once more, because nothing came of the time before.";
    text.counter("messages_repeated", help, totals.messages_repeated);
    let help = "Records that were skipped and kept as dead letters.";
    text.counter("dead_letters", help, totals.dead_letters);
    let help = "Compressed bytes of dumps that were read.";
    text.counter("read_bytes", help, totals.bytes_read);
    let help = "Bytes of dumps that were downloaded.";
    text.counter("downloaded_bytes", help, totals.bytes_fetched);
    let help = "Records of the present dump that were read and are not settled: how far the frontier \
                is behind the reading.";
    let lag = run.read.saturating_sub(run.frontier.record);
    text.gauge("frontier_lag_records", help, lag);
    let help = "Settled records that no checkpoint covers: at most so many and a window are repeated \
                after a crash.";
    text.gauge("unsaved_records", help, run.unsaved);
    let help = "Messages that wait for a confirm.";
    text.gauge("in_flight_messages", help, run.in_flight);
    let help = "The most messages that may wait for a confirm.";
    text.gauge("window_messages", help, shown.window_messages);
}

fn about_saves(text: &mut Text, shown: &Shown) {
    let help = "How long it took to save a checkpoint.";
    text.histogram("save_duration_seconds", help, &shown.totals.saves);
    let help = "Checkpoints that could not be saved.";
    text.counter("saves_failed", help, shown.totals.saves_failed);
}

fn about_the_broker(text: &mut Text, shown: &Shown) {
    let (run, totals) = (&shown.progress, &shown.totals);
    let help = "Whether the broker is connected.";
    text.gauge("broker_connected", help, u8::from(run.is_connected));
    let help = "Whether the broker asks for silence.";
    text.gauge("broker_blocked", help, u8::from(run.is_blocked));
    let help = "How long the broker asked for silence.";
    text.counter("broker_blocked_seconds", help, totals.blocked.as_secs_f64());
    let help = "Connections to the broker that were made after the first of a run.";
    text.counter("broker_reconnects", help, totals.reconnects);
}

fn about_dumps(text: &mut Text, shown: &Shown) {
    let mut of_dumps = |name: &str, help: &str, number: fn(&DumpShown) -> Option<u64>| {
        let dumps = shown.dumps.iter();
        let numbers = dumps.filter_map(|(kind, dump)| Some((*kind, number(dump)?)));
        let numbers: Vec<(Kind, u64)> = numbers.collect();
        if numbers.is_empty() {
            return;
        }
        let name = text.own(name, "gauge", help);
        for (kind, number) in numbers {
            text.sample(&name, &label("kind", kind.name()), number);
        }
    };
    let help = "Records of a dump that are settled.";
    of_dumps("dump_records", help, |dump| Some(dump.records));
    let help = "Messages of a dump that are confirmed.";
    of_dumps("dump_messages", help, |dump| Some(dump.messages));
    let help = "Dead letters of a dump.";
    of_dumps("dump_dead_letters", help, |dump| Some(dump.dead_letters));
    let help = "How much of a dump was read, in compressed bytes.";
    of_dumps("dump_read_bytes", help, |dump| Some(dump.read));
    let help = "The length of a dump in compressed bytes.";
    of_dumps("dump_bytes", help, |dump| dump.bytes);
    let help = "How much of a dump that is being downloaded is there.";
    let fetched = |dump: &DumpShown| (dump.stage == Stage::Fetching).then_some(dump.fetched);
    of_dumps("dump_downloaded_bytes", help, fetched);
    let help = "Whether all of a dump is published.";
    let is_completed = |dump: &DumpShown| Some(u64::from(dump.stage == Stage::Completed));
    of_dumps("dump_completed", help, is_completed);
}

/// A label; its value has nothing in it that would have to be escaped.
fn label(name: &str, value: &str) -> String {
    assert!(
        !value.contains(['"', '\\', '\n']),
        "{value} is a plain word"
    );
    format!("{name}=\"{value}\"")
}

/// The text as it grows.
#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, form: &str, help: &str) {
        let written = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {form}\n");
        written.expect("a string takes everything");
    }

    /// A family of ours: its whole name.
    fn own(&mut self, name: &str, form: &str, help: &str) -> String {
        let name = format!("{PREFIX}{name}");
        self.family(&name, form, help);
        name
    }

    fn sample(&mut self, name: &str, labels: &str, value: impl Display) {
        let written = match labels {
            "" => writeln!(self.0, "{name} {value}"),
            labels => writeln!(self.0, "{name}{{{labels}}} {value}"),
        };
        written.expect("a string takes everything");
    }

    fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        let name = self.own(name, "gauge", help);
        self.sample(&name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: impl Display) {
        let name = self.own(&format!("{name}_total"), "counter", help);
        self.sample(&name, "", value);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        let name = self.own(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        let mut count = 0;
        let bounds = Histogram::BOUNDS.map(|bound| bound.to_string());
        let bounds = bounds.into_iter().chain(["+Inf".to_owned()]);
        for (bound, counted) in bounds.zip(histogram.counts) {
            count += counted;
            self.sample(&bucket, &label("le", &bound), count);
        }
        self.sample(&format!("{name}_sum"), "", histogram.sum.as_secs_f64());
        self.sample(&format!("{name}_count"), "", count);
    }
}
