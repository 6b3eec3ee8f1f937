//! What a user sees of a run: log lines on stderr, and either bars on a terminal or a line now
//! and then.
//!
//! Bars and log lines share stderr. Every line is written while the bars are taken off the
//! screen, in one piece, so that neither garbles the other.
//!
//! The same numbers go onto the [`Board`], from which other threads show them.
//!
//! Nothing here asks for the time: what is shown depends on the `now` of the driver, so a
//! simulated run can be watched as well.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use tracing::Level;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::board::{Board, Shown, Speed};
use crate::config::{LogConfig, ProgressMode};
use crate::download::{self, Watcher};
use crate::driver::Observer;
use crate::dump::Kind;
use crate::extraction::{Ending, Extraction, Notice, Options, Progress};
use crate::follow;
use crate::human::{count, counted, duration, percent, rounded, size};
use crate::plan::Plan;
use crate::time::Instant;

/// Between two lines.
const LINE_EVERY: Duration = Duration::from_secs(15);
/// Between two updates of the bars and the board.
const SAMPLE_EVERY: Duration = Duration::from_millis(200);
/// What a rate is the mean of.
const RATE_OVER: Duration = Duration::from_secs(30);

/// The log of this process, and the place of its bars.
#[derive(Debug)]
pub struct Telemetry {
    bars: Option<MultiProgress>,
    is_json: bool,
    mode: ProgressMode,
    board: Board,
}

impl Telemetry {
    /// Sends this process's log to stderr. If the process has a log already, that one stays.
    pub fn start(config: LogConfig) -> Self {
        let wants_bars = config.progress == ProgressMode::Auto && !config.is_json;
        let bars = (wants_bars && io::stderr().is_terminal())
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()))
            .filter(|bars| !bars.is_hidden());
        let builder = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(filter(config.level)))
            .with_writer(Stderr(bars.clone()))
            .with_target(false);
        let _ = match config.is_json {
            true => builder.json().flatten_event(true).try_init(),
            false => builder.with_ansi(io::stderr().is_terminal()).try_init(),
        };
        Self {
            bars,
            is_json: config.is_json,
            mode: config.progress,
            board: Board::default(),
        }
    }

    /// What is shown to other threads.
    pub fn board(&self) -> Board {
        self.board.clone()
    }

    /// Watches the run that does what `plan` says, from `now` on.
    pub fn watch(&self, now: Instant, plan: &Plan, options: &Options) -> Watch {
        let view = match (&self.bars, self.mode) {
            (Some(bars), _) => View::Bars(Bars::new(bars, plan)),
            (None, ProgressMode::Never) => View::Nothing,
            (None, _) => View::Lines {
                is_json: self.is_json,
            },
        };
        self.board.write().run_begins(now, plan, options);
        Watch {
            view,
            board: self.board(),
            rate: Rate::default(),
            speed: Speed::default(),
            sample: Every::new(SAMPLE_EVERY, now),
            line: Every::new(LINE_EVERY, now),
        }
    }

    /// Tells what a round of `follow` came to, and returns what it told.
    pub fn tell_round(&self, now: Instant, notice: &follow::Notice) -> String {
        let (level, text) = match notice {
            follow::Notice::Complete(version, pause) => {
                let pause = duration(*pause);
                let text =
                    format!("version {version} is complete, looking for the next in {pause}");
                (Level::INFO, text)
            }
            follow::Notice::Failed(why, pause) => {
                let text = format!("{why}; next attempt in {}", duration(*pause));
                (Level::ERROR, text)
            }
        };
        tell(&self.board, now, level, &text, |shown| {
            shown.round_ends(now, notice);
        });
        text
    }

    /// A bar for a dump, if there are bars.
    fn bar(&self, kind: Kind, length: u64) -> Option<ProgressBar> {
        let bar = ProgressBar::new(length)
            .with_style(style(BAR))
            .with_prefix(kind.name());
        self.bars.as_ref().map(|screen| screen.add(bar))
    }

    /// Shows how far a download is that begins now.
    pub fn download(&self, now: Instant) -> DownloadView<'_> {
        self.board.write().fetch_begins(now);
        DownloadView {
            telemetry: self,
            dump: None,
        }
    }

    /// Shows how far the reading of a dump of `length` compressed bytes is.
    pub fn reading(&self, kind: Kind, length: u64) -> ReadingView {
        ReadingView {
            kind,
            length,
            bar: self.bar(kind, length),
            is_silent: self.mode == ProgressMode::Never,
            next: None,
        }
    }
}

/// Logs what happened, and puts it onto the board together with what it changes there: whoever looks
/// sees both or neither.
fn tell(board: &Board, now: Instant, level: Level, text: &str, change: impl FnOnce(&mut Shown)) {
    match level {
        Level::ERROR => tracing::error!("{text}"),
        Level::WARN => tracing::warn!("{text}"),
        Level::INFO => tracing::info!("{text}"),
        _ => tracing::debug!("{text}"),
    }
    let mut shown = board.write();
    change(&mut shown);
    if level <= Level::INFO {
        shown.happened(now, level, text);
    }
}

/// What is done now and then.
#[derive(Debug)]
struct Every {
    every: Duration,
    next: Instant,
}

impl Every {
    const fn new(every: Duration, next: Instant) -> Self {
        Self { every, next }
    }

    /// Whether it is time.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.next <= now;
        if is_due {
            self.postpone(now);
        }
        is_due
    }

    /// The next time is a while after `now`.
    fn postpone(&mut self, now: Instant) {
        self.next = now + self.every;
    }
}

/// How far a run is, in a line without speeds; `None` between two dumps.
pub fn summary(progress: &Progress) -> Option<String> {
    let is_reading = progress.dump.is_some();
    is_reading.then(|| line(progress, Speed::default()))
}

/// How far a download is, and what happens in it.
#[derive(Debug)]
pub struct DownloadView<'a> {
    telemetry: &'a Telemetry,
    dump: Option<DownloadedDump>,
}

/// A dump that is being downloaded.
#[derive(Debug)]
struct DownloadedDump {
    kind: Kind,
    bar: Option<ProgressBar>,
    rate: Rate,
    sample: Every,
    line: Every,
}

impl Watcher for DownloadView<'_> {
    fn progress(&mut self, now: Instant, kind: Kind, done: u64, total: Option<u64>) {
        if self.dump.as_ref().is_none_or(|dump| dump.kind != kind) {
            self.dump = Some(DownloadedDump {
                kind,
                bar: self.telemetry.bar(kind, total.unwrap_or_default()),
                rate: Rate::default(),
                sample: Every::new(SAMPLE_EVERY, now),
                line: Every::new(LINE_EVERY, now),
            });
        }
        let dump = self.dump.as_mut().expect("it was just made");
        let board = &self.telemetry.board;
        board.write().fetch_goes_on(now, kind, done, total);
        if dump.sample.is_due(now) {
            let speed = Speed {
                records_per_second: None,
                ..dump.rate.sample(now, 0, done, total.unwrap_or_default())
            };
            board.write().speed = speed;
            dump.show(now, done, total, speed, self.telemetry.mode);
        }
    }

    fn notice(&mut self, now: Instant, notice: &download::Notice) {
        if matches!(
            notice,
            download::Notice::Fetched(_) | download::Notice::Failed { .. }
        ) {
            self.dump = None;
        }
        let (level, text) = describe_download(notice);
        tell(&self.telemetry.board, now, level, &text, |shown| {
            shown.fetch_notices(notice);
        });
    }
}

impl DownloadedDump {
    /// `releases 12.3 %: 1.3 GB of 10.3 GB, 12.1 MB/s, 12m 40s left`
    fn show(
        &mut self,
        now: Instant,
        done: u64,
        total: Option<u64>,
        speed: Speed,
        mode: ProgressMode,
    ) {
        let mut text = size(done);
        if let Some(total) = total {
            text += &format!(" of {}", size(total));
        }
        if let Some(rate) = speed.bytes_per_second {
            text += &format!(", {}/s", size(rate as u64));
        }
        if let Some(left) = speed.left.filter(|_| total.is_some()) {
            text += &format!(", {} left", duration(left));
        }
        match (&self.bar, total) {
            (Some(bar), _) => {
                bar.set_position(done);
                bar.set_message(text);
            }
            (None, _) if mode == ProgressMode::Never || !self.line.is_due(now) => {}
            (None, Some(total)) => {
                tracing::info!("{} {:.1} %: {text}", self.kind, percent(done, total));
            }
            (None, None) => tracing::info!("{}: {text}", self.kind),
        }
    }
}

impl Drop for DownloadedDump {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What a notice of a download says to people.
fn describe_download(notice: &download::Notice) -> (Level, String) {
    use download::Notice;
    match notice {
        Notice::Found(version) => (Level::INFO, format!("the host has version {version}")),
        Notice::Present(file) => (Level::INFO, format!("{file}: here already")),
        Notice::Outdated(file) => (
            Level::WARN,
            format!("{file}: other bytes are published under this name by now, fetching them"),
        ),
        Notice::Fetching { file, from: 0 } => (Level::INFO, format!("{file}: fetching")),
        Notice::Fetching { file, from } => (
            Level::INFO,
            format!("{file}: fetching what follows {}", size(*from)),
        ),
        Notice::Fetched(file) => (Level::INFO, format!("{file}: complete, as published")),
        Notice::StartedOver(file) => (
            Level::WARN,
            format!("{file}: the host sends it from its beginning, starting over"),
        ),
        Notice::Mismatch(file) => (
            Level::WARN,
            format!("{file}: the bytes are not the published ones, starting over"),
        ),
        Notice::Failed { why, retry } => (
            Level::WARN,
            format!("{why}; next attempt in {}", duration(*retry)),
        ),
    }
}

/// A dump's prefix, bar and message.
const BAR: &str = "{prefix:9} {bar:32} {percent:>3} %  {msg}";

/// How far the reading of a dump is: a bar, or a line now and then.
#[derive(Debug)]
pub struct ReadingView {
    kind: Kind,
    length: u64,
    bar: Option<ProgressBar>,
    is_silent: bool,
    /// When to show it next.
    next: Option<Instant>,
}

impl ReadingView {
    /// Shows it, if it is time. Called often.
    pub fn show(&mut self, now: Instant, compressed: u64, records: u64) {
        let every = self.bar.as_ref().map_or(LINE_EVERY, |_| SAMPLE_EVERY);
        if now < *self.next.get_or_insert(now + every) {
            return;
        }
        self.next = Some(now + every);
        let records = counted(records, "record");
        match &self.bar {
            Some(bar) => {
                bar.set_position(compressed);
                bar.set_message(records);
            }
            None if self.is_silent => {}
            None => {
                let percent = percent(compressed, self.length);
                tracing::info!("{} {percent:.1} %: {records} read", self.kind);
            }
        }
    }
}

impl Drop for ReadingView {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What of the log is written. lapin warns of every message that comes back, with its whole body;
/// what of that matters is a [`Notice`].
fn filter(level: Level) -> String {
    let others = match level {
        Level::TRACE => "warn",
        _ => "error,lapin=off",
    };
    let level = level.as_str().to_lowercase();
    format!("{others},discogs_extractor={level}")
}

/// Writes each log line in one piece, with the bars out of the way.
#[derive(Clone)]
struct Stderr(Option<MultiProgress>);

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().lock().write_all(bytes);
        match &self.0 {
            Some(bars) => bars.suspend(write)?,
            None => write()?,
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// Watches a run.
#[derive(Debug)]
pub struct Watch {
    view: View,
    board: Board,
    rate: Rate,
    speed: Speed,
    sample: Every,
    line: Every,
}

#[derive(Debug)]
enum View {
    Bars(Bars),
    Lines { is_json: bool },
    Nothing,
}

impl Watch {
    /// The run is over: what is shown of it is what it came to.
    pub fn end(&mut self, now: Instant, extraction: &Extraction, ending: &Ending) {
        self.show(now, extraction.progress());
        self.board.write().run_ends(ending);
    }

    /// Puts it onto the board.
    fn show(&self, now: Instant, progress: Progress) {
        self.board.write().run_goes_on(now, progress, self.speed);
    }

    /// How fast it goes by now.
    fn measure(&mut self, now: Instant, progress: &Progress) {
        self.speed = match progress.dump {
            None => Speed::default(),
            Some((_, length)) => {
                let (records, bytes) = (progress.read_in_run, progress.compressed);
                self.rate.sample(now, records, bytes, length)
            }
        };
    }
}

impl Observer for Watch {
    fn notice(&mut self, now: Instant, notice: &Notice, extraction: &Extraction) {
        let (level, text) = describe(notice);
        tell(&self.board, now, level, &text, |shown| {
            shown.run_notices(now, notice);
        });
        if let View::Bars(bars) = &self.view {
            bars.notice(notice);
        }
        let progress = extraction.progress();
        if matches!(notice, Notice::Started { .. } | Notice::Resumed { .. }) {
            self.rate = Rate::default();
            self.measure(now, &progress);
            self.sample.postpone(now);
            self.line.postpone(now);
        }
        self.show(now, progress);
    }

    fn step(&mut self, now: Instant, extraction: &Extraction) {
        if !self.sample.is_due(now) {
            return;
        }
        let progress = extraction.progress();
        self.measure(now, &progress);
        match &self.view {
            View::Bars(bars) => bars.show(&progress, self.speed),
            View::Lines { is_json } if progress.dump.is_some() && self.line.is_due(now) => {
                log(&progress, self.speed, *is_json);
            }
            _ => {}
        }
        self.show(now, progress);
    }
}

/// Speed as the mean of the last [`RATE_OVER`].
#[derive(Debug, Default)]
struct Rate {
    /// When, records, compressed bytes; of one dump.
    samples: VecDeque<(Instant, u64, u64)>,
}

impl Rate {
    /// How fast it goes when so much of `length` bytes is done.
    #[expect(clippy::cast_precision_loss, reason = "a rate is for reading")]
    fn sample(&mut self, now: Instant, records: u64, bytes: u64, length: u64) -> Speed {
        self.samples.push_back((now, records, bytes));
        // The last sample that is old enough stays: it is the other end of the mean.
        while self.samples.len() > 2 && self.samples[1].0 + RATE_OVER <= now {
            self.samples.pop_front();
        }
        let (since, records_before, bytes_before) = self.samples[0];
        let seconds = now.since(since).as_secs_f64();
        if seconds <= 0.0 {
            return Speed::default();
        }
        let bytes_per_second = bytes.saturating_sub(bytes_before) as f64 / seconds;
        let left = length.saturating_sub(bytes) as f64 / bytes_per_second;
        Speed {
            records_per_second: Some((records - records_before) as f64 / seconds),
            bytes_per_second: Some(bytes_per_second),
            left: Duration::try_from_secs_f64(left).ok(),
        }
    }
}

fn log(progress: &Progress, speed: Speed, is_json: bool) {
    if !is_json {
        tracing::info!("{}", line(progress, speed));
        return;
    }
    let (kind, length) = progress.dump.expect("only logged while a dump is read");
    tracing::info!(
        kind = kind.name(),
        records = progress.read,
        records_published = progress.frontier.published(),
        dead_letters = progress.frontier.dead_letters,
        bytes = progress.compressed,
        bytes_total = length,
        records_per_second = speed.records_per_second,
        seconds_left = speed.left.map(|left| left.as_secs()),
        in_flight = progress.in_flight,
        unsaved = progress.unsaved,
        is_connected = progress.is_connected,
        is_blocked = progress.is_blocked,
        reconnects = progress.reconnects,
        retried = progress.retried,
        saves = progress.saves,
        saves_failed = progress.saves_failed,
        "progress"
    );
}

/// `releases 12.3 %: 2,345,678 records, 12,345/s, 1h 05m left, 812 in flight, 3,210 not saved`
fn line(progress: &Progress, speed: Speed) -> String {
    let mut line = String::new();
    if let Some((kind, length)) = progress.dump {
        line = format!("{kind} {:.1} %: ", percent(progress.compressed, length));
    }
    line += &records(progress, speed);
    line += &format!(
        ", {} in flight, {} not saved",
        count(progress.in_flight as u64),
        count(progress.unsaved)
    );
    line + trouble(progress)
}

/// `2,345,678 records, 12,345/s, 1h 05m left`
fn records(progress: &Progress, speed: Speed) -> String {
    let mut text = counted(progress.read, "record");
    if let Some(rate) = speed.records_per_second {
        text += &format!(", {}/s", rounded(rate));
    }
    if let Some(left) = speed.left {
        text += &format!(", {} left", duration(left));
    }
    text
}

/// Why it may not go on, if it may not.
fn trouble(progress: &Progress) -> &'static str {
    match (progress.is_connected, progress.is_blocked) {
        (false, _) => ", not connected",
        (true, true) => ", the broker asks to wait",
        (true, false) => "",
    }
}

/// One bar for each dump of the run, over its compressed bytes, and a line below.
#[derive(Debug)]
struct Bars {
    dumps: Vec<(Kind, String, ProgressBar)>,
    below: ProgressBar,
}

impl Bars {
    fn new(screen: &MultiProgress, plan: &Plan) -> Self {
        let dumps = plan.dumps.iter().map(|planned| {
            let checkpoint = &planned.checkpoint;
            let kind = planned.dump.kind;
            let bar = ProgressBar::new(checkpoint.file_bytes)
                .with_style(style(BAR))
                .with_prefix(kind.name())
                .with_position(checkpoint.frontier.compressed_offset);
            let bar = screen.add(bar);
            bar.tick();
            (kind, planned.dump.file_name(), bar)
        });
        Self {
            dumps: dumps.collect(),
            below: screen.add(ProgressBar::no_length().with_style(style("{msg}"))),
        }
    }

    fn show(&self, progress: &Progress, speed: Speed) {
        let current = progress.dump.map(|(kind, _)| kind);
        for (_, _, bar) in self
            .dumps
            .iter()
            .filter(|(kind, ..)| Some(*kind) == current)
        {
            bar.set_position(progress.compressed);
            bar.set_message(records(progress, speed));
        }
        let (in_flight, unsaved) = (progress.in_flight as u64, progress.unsaved);
        self.below.set_message(format!(
            "{} in flight, {} not saved{}",
            count(in_flight),
            count(unsaved),
            trouble(progress)
        ));
    }

    fn notice(&self, notice: &Notice) {
        let Notice::Completed { file, totals } = notice else {
            return;
        };
        for (_, _, bar) in self.dumps.iter().filter(|(_, name, _)| name == file) {
            bar.set_position(bar.length().unwrap_or_default());
            bar.abandon_with_message(counted(totals.record, "record"));
        }
    }
}

/// What was reached stays on the screen; what is below has no meaning any more.
impl Drop for Bars {
    fn drop(&mut self) {
        for (_, _, bar) in &self.dumps {
            bar.abandon();
        }
        self.below.finish_and_clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are right")
}

/// What a notice says to people, and how important it is.
fn describe(notice: &Notice) -> (Level, String) {
    match notice {
        Notice::Started { file } => (Level::INFO, format!("{file}: starting at record 1")),
        Notice::Resumed {
            file,
            records,
            xml_offset,
            inflated_from,
        } => (
            Level::INFO,
            format!(
                "{file}: going on behind record {}, at byte {} of the XML, inflating from byte {}; {} \
                 published before are skipped",
                count(*records),
                count(*xml_offset),
                count(*inflated_from),
                counted(*records, "record")
            ),
        ),
        Notice::Completed { file, totals } => (
            Level::INFO,
            format!(
                "{file}: complete, {}, {}",
                counted(totals.record, "record"),
                counted(totals.dead_letters, "dead letter")
            ),
        ),
        Notice::Announced => (
            Level::INFO,
            "the end of the version is published".to_owned(),
        ),
        Notice::Connected => (Level::INFO, "connected to the broker".to_owned()),
        Notice::DeadLetter {
            file,
            record,
            reason,
        } => (
            Level::WARN,
            format!(
                "{file}: record {} was skipped and kept as a dead letter: {reason}",
                count(*record)
            ),
        ),
        Notice::Stopping { in_flight } => (
            Level::INFO,
            format!(
                "stopping: {} without a confirm; a second signal ends at once",
                counted(*in_flight as u64, "message")
            ),
        ),
        trouble => describe_trouble(trouble),
    }
}

/// The notices about the broker and about saves.
fn describe_trouble(notice: &Notice) -> (Level, String) {
    let in_time = |retry: &Duration| format!("next attempt in {}", duration(*retry));
    match notice {
        Notice::Disconnected { why, retry } => (
            Level::WARN,
            format!("no connection to the broker: {why}; {}", in_time(retry)),
        ),
        Notice::Unanswered { why } => (
            Level::WARN,
            format!(
                "the broker does not answer: {why}; connecting anew and publishing again what has \
                 no confirm"
            ),
        ),
        Notice::NotTaken { id, why, retry } => (
            Level::WARN,
            format!("message {id} was not taken: {why}; {}", in_time(retry)),
        ),
        Notice::Blocked { why } => (
            Level::WARN,
            format!(
                "the broker asks to wait: {why}; free some of its memory or disk, publishing goes \
                 on by itself then"
            ),
        ),
        Notice::Unblocked => (Level::INFO, "the broker takes messages again".to_owned()),
        Notice::SaveFailed { error, retry } => (
            Level::WARN,
            format!(
                "the state could not be saved: {error}; publishing goes on, but a crash now would \
                 repeat it; {}",
                in_time(retry)
            ),
        ),
        Notice::SaveRecovered => (Level::INFO, "the state is saved again".to_owned()),
        Notice::Saved { took } => (Level::DEBUG, format!("the state is saved, in {took:.1?}")),
        _ => unreachable!("`describe` has the others"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::marker::{Frontier, SaveError};

    fn at(seconds: u64) -> Instant {
        Instant::ORIGIN + Duration::from_secs(seconds)
    }

    fn reading(compressed: u64, read: u64) -> Progress {
        Progress {
            dump: Some((Kind::Labels, 1_000)),
            compressed,
            read,
            read_in_run: read,
            is_connected: true,
            ..Progress::default()
        }
    }

    #[test]
    fn speed_is_a_mean_of_the_last_half_minute() {
        let mut rate = Rate::default();
        let mut sample = |second, bytes, records| rate.sample(at(second), records, bytes, 1_000);
        assert_eq!(sample(0, 0, 0), Speed::default());
        let check = |speed: Speed, records: f64, bytes: f64, left| {
            assert_eq!(speed.records_per_second, Some(records));
            assert_eq!(speed.bytes_per_second, Some(bytes));
            assert_eq!(speed.left, left);
        };
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        check(sample(10, 100, 50), 5.0, 10.0, seconds(90));
        check(sample(40, 100, 50), 0.0, 0.0, None);
        check(sample(50, 200, 90), 1.0, 2.5, seconds(320));
    }

    #[test]
    fn a_line_says_how_far_it_is() {
        let check = |progress: &Progress, speed, expected| {
            assert_eq!(line(progress, speed), expected);
        };
        let speed = Speed {
            records_per_second: Some(12_345.4),
            left: Some(Duration::from_secs(3_900)),
            ..Speed::default()
        };
        let mut progress = reading(123, 2_345_678);
        progress.in_flight = 812;
        progress.unsaved = 3_210;
        check(
            &progress,
            speed,
            "labels 12.3 %: 2,345,678 records, 12,345/s, 1h 05m left, 812 in flight, 3,210 not saved",
        );
        progress.is_blocked = true;
        check(
            &progress,
            Speed::default(),
            "labels 12.3 %: 2,345,678 records, 812 in flight, 3,210 not saved, the broker asks to wait",
        );
        progress.is_connected = false;
        check(
            &progress,
            Speed::default(),
            "labels 12.3 %: 2,345,678 records, 812 in flight, 3,210 not saved, not connected",
        );
    }

    #[test]
    fn notices_say_what_happened_and_what_to_do() {
        let check = |notice: Notice, level, parts: &[&str]| {
            let (actual, text) = describe(&notice);
            assert_eq!(actual, level, "{text}");
            for part in parts {
                assert!(text.contains(part), "{part} in {text}");
            }
        };
        let text = str::to_owned;
        let (file, retry) = (
            text("discogs_20260801_labels.xml.gz"),
            Duration::from_secs(4),
        );
        check(
            Notice::Started { file: file.clone() },
            Level::INFO,
            &[&file, "record 1"],
        );
        check(
            Notice::Resumed {
                file: file.clone(),
                records: 4_000,
                xml_offset: 123_456,
                inflated_from: 123_000,
            },
            Level::INFO,
            &[
                "behind record 4,000",
                "byte 123,456 of the XML, inflating from byte 123,000",
                "4,000 records published before are skipped",
            ],
        );
        let totals = Frontier {
            record: 1,
            dead_letters: 1,
            ..Frontier::default()
        };
        check(
            Notice::Completed {
                file: file.clone(),
                totals,
            },
            Level::INFO,
            &["1 record, 1 dead letter"],
        );
        check(
            Notice::NotTaken {
                id: text("20260801-labels-7"),
                why: text("no queue is bound; bind one"),
                retry,
            },
            Level::WARN,
            &["20260801-labels-7", "bind one", "next attempt in 4s"],
        );
        let error = SaveError {
            operation: "sync",
            path: "somewhere".into(),
            reason: text("disk full"),
        };
        check(
            Notice::SaveFailed { error, retry },
            Level::WARN,
            &[
                "cannot sync somewhere: disk full",
                "publishing goes on",
                "4s",
            ],
        );
        let why = || text("because");
        check(
            Notice::Disconnected { why: why(), retry },
            Level::WARN,
            &["because", "4s"],
        );
        check(Notice::Unanswered { why: why() }, Level::WARN, &["because"]);
        check(Notice::Blocked { why: why() }, Level::WARN, &["because"]);
        check(
            Notice::DeadLetter {
                file,
                record: 7,
                reason: why(),
            },
            Level::WARN,
            &["record 7", "because"],
        );
        check(
            Notice::Stopping { in_flight: 3 },
            Level::INFO,
            &["3 messages"],
        );
    }
}
