//! When to save: the cadence of checkpoints.
//!
//! A save is due when the frontier has moved by `interval` records since what is saved, or has
//! moved at all and `age_max` has passed, or at once when something happened that must not be
//! done twice (a dump completed, the end of the run). A threshold, never `count % interval`: the
//! frontier moves in jumps and would step over a multiple.
//!
//! One save at a time. What happens meanwhile is in the next one.
//!
//! **The bound on repeats.** After a crash everything read since the saved checkpoint is
//! published again. A save takes time, and publishing goes on beside it, so the cadence alone
//! bounds nothing. Therefore reading stops `interval` plus a window ahead of what is saved. That
//! does not idle the broker: it has a window of messages to work on, and a save takes less time
//! than that. Only while saves *fail* is there no such bound, because a failed save must not
//! stop processing.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::dump::Kind;
use crate::marker::{DeadLetters, Paths, SaveError, SeekPoints};
use crate::time::Instant;

/// The cadence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SaveOptions {
    /// Records between saves; at least 1.
    pub interval: u64,
    /// The longest that a moved frontier stays unsaved.
    pub age_max: Duration,
    /// The pause after a failed save; doubles with each in a row, up to `age_max`.
    pub retry_min: Duration,
    /// How often the last save of a run is tried.
    pub attempts_max: u32,
}

/// The saves of a run.
#[derive(Debug)]
pub struct Saves {
    options: SaveOptions,
    window: u64,
    settled: u64,
    revision: u64,
    is_urgent: bool,
    saved: Snapshot,
    saved_at: Instant,
    under_way: Option<Snapshot>,
    failures: u32,
    retry_at: Instant,
    letters: BTreeMap<Kind, Letters>,
    seek_points: SeekPoints,
    /// Those that go with the save under way.
    seek_points_under_way: SeekPoints,
    /// Saves begun, which is also the number of the present one.
    pub begun: u64,
    /// Saves that failed.
    pub failed: u64,
}

/// What goes with a save.
#[derive(Debug)]
pub struct Begun {
    /// Which save of the process it is.
    pub number: u64,
    /// What is appended to the dead-letter files.
    pub dead_letters: Vec<DeadLetters>,
    /// What becomes of seek points.
    pub seek_points: SeekPoints,
}

/// What a save covers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Snapshot {
    settled: u64,
    revision: u64,
}

/// The dead letters of one dump.
#[derive(Debug, Default)]
struct Letters {
    saved_bytes: u64,
    /// Whether the file holds no more than `saved_bytes`: a process that died in a save may have
    /// left some behind them.
    is_cut: bool,
    /// How many bytes of `pending` go with the save under way, if it concerns this file.
    under_way: Option<usize>,
    pending: Vec<u8>,
}

impl Letters {
    /// Those under way are durable.
    fn kept(&mut self) {
        if let Some(bytes) = self.under_way.take() {
            self.saved_bytes += bytes as u64;
            self.pending.drain(..bytes);
            self.is_cut = true;
        }
    }
}

impl Saves {
    /// Nothing is saved yet; `window` is the most records that can be read and unsettled.
    ///
    /// # Panics
    /// If the interval is 0.
    pub fn new(options: SaveOptions, window: u64, now: Instant) -> Self {
        assert!(
            options.interval > 0,
            "an interval of 0 records is refused as configuration"
        );
        Self {
            options,
            window,
            settled: 0,
            revision: 0,
            is_urgent: false,
            saved: Snapshot::default(),
            saved_at: now,
            under_way: None,
            failures: 0,
            retry_at: now,
            letters: BTreeMap::new(),
            seek_points: SeekPoints::new(),
            seek_points_under_way: SeekPoints::new(),
            begun: 0,
            failed: 0,
        }
    }

    /// The frontier has moved by one record.
    pub fn record_settled(&mut self) {
        self.settled += 1;
        self.revision += 1;
    }

    /// Something happened that is to be saved at once.
    pub fn request(&mut self) {
        self.revision += 1;
        self.hurry();
    }

    /// What has changed, if anything has, is to be saved at once.
    pub fn hurry(&mut self) {
        self.is_urgent = true;
    }

    /// A dump is begun whose dead-letter file has `saved_bytes` that count.
    pub fn begin_letters(&mut self, kind: Kind, saved_bytes: u64) {
        self.letters.insert(
            kind,
            Letters {
                saved_bytes,
                ..Letters::default()
            },
        );
    }

    /// A dead letter behind which the frontier has moved.
    pub fn add_letter(&mut self, kind: Kind, line: &[u8]) {
        self.letters
            .entry(kind)
            .or_default()
            .pending
            .extend_from_slice(line);
    }

    /// The seek point of a dump is to be this file, or is of no use any more. That is no reason to
    /// save: it goes with the next save.
    pub fn change_seek_point(&mut self, kind: Kind, file: Option<Vec<u8>>) {
        self.seek_points.insert(kind, file);
    }

    /// Whether another record may be read when `read` were read in this run.
    pub fn may_read(&self, read: u64) -> bool {
        let bound = self.saved.settled.saturating_add(self.options.interval) + self.window;
        read < bound || self.is_failing()
    }

    /// Whether a save is to begin now.
    pub fn is_due(&self, now: Instant) -> bool {
        let moved = self.settled - self.saved.settled >= self.options.interval;
        let is_old = self.saved_at + self.options.age_max <= now;
        let is_wanted = self.is_dirty() && (moved || is_old || self.is_urgent);
        is_wanted && self.under_way.is_none() && self.retry_at <= now
    }

    /// Whether something has changed that is not saved, as while a save of it is under way.
    pub fn is_dirty(&self) -> bool {
        self.revision != self.saved.revision
    }

    /// Whether the last save failed.
    pub fn is_failing(&self) -> bool {
        self.failures > 0
    }

    /// Whether the end of the run should stop trying to save.
    pub fn is_hopeless(&self) -> bool {
        self.failures >= self.options.attempts_max
    }

    /// Settled records that are not saved.
    pub fn lag(&self) -> u64 {
        self.settled - self.saved.settled
    }

    /// When the last save succeeded; the start of the run before the first.
    pub fn saved_at(&self) -> Instant {
        self.saved_at
    }

    /// Begins a save.
    ///
    /// # Panics
    /// If one is under way.
    pub fn begin(&mut self, paths: &Paths) -> Begun {
        let snapshot = Snapshot {
            settled: self.settled,
            revision: self.revision,
        };
        let present = self.under_way.replace(snapshot);
        assert!(present.is_none(), "one save at a time");
        self.begun += 1;
        self.is_urgent = false;
        let letters = self
            .letters
            .iter_mut()
            .filter(|(_, letters)| !letters.pending.is_empty() || !letters.is_cut);
        let letters = letters.map(|(kind, letters)| {
            letters.under_way = Some(letters.pending.len());
            DeadLetters {
                path: paths.dead_letters(*kind),
                saved_bytes: letters.saved_bytes,
                lines: letters.pending.clone(),
            }
        });
        let dead_letters = letters.collect();
        self.seek_points_under_way = std::mem::take(&mut self.seek_points);
        Begun {
            number: self.begun,
            dead_letters,
            seek_points: self.seek_points_under_way.clone(),
        }
    }

    /// The save under way is over. After a failure, how long until the next attempt.
    ///
    /// # Panics
    /// If none is under way.
    pub fn end(&mut self, now: Instant, result: &Result<(), SaveError>) -> Option<Duration> {
        let snapshot = self
            .under_way
            .take()
            .expect("only a save that was begun ends");
        if result
            .as_ref()
            .err()
            .is_none_or(SaveError::kept_dead_letters)
        {
            self.letters.values_mut().for_each(Letters::kept);
        }
        let mut seek_points = std::mem::take(&mut self.seek_points_under_way);
        if result.is_err() {
            seek_points.append(&mut self.seek_points);
            self.seek_points = seek_points;
            return Some(self.fail(now));
        }
        self.saved = snapshot;
        self.saved_at = now;
        self.failures = 0;
        None
    }

    fn fail(&mut self, now: Instant) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        let pause = self
            .options
            .retry_min
            .saturating_mul(factor)
            .min(self.options.age_max);
        self.failures = self.failures.saturating_add(1);
        self.failed += 1;
        self.is_urgent = true;
        self.retry_at = now + pause;
        pause
    }

    /// When a save will be due, if nothing happens before.
    pub fn wakeup(&self) -> Option<Instant> {
        let is_waiting = self.is_dirty() && self.under_way.is_none();
        let due = match self.is_urgent {
            true => self.retry_at,
            false => (self.saved_at + self.options.age_max).max(self.retry_at),
        };
        is_waiting.then_some(due)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const OPTIONS: SaveOptions = SaveOptions {
        interval: 5,
        age_max: Duration::from_secs(30),
        retry_min: Duration::from_secs(1),
        attempts_max: 3,
    };

    const WINDOW: u64 = 4;

    const fn at(seconds: u64) -> Instant {
        Instant::from_nanoseconds(seconds * 1_000_000_000)
    }

    fn saves() -> Saves {
        Saves::new(OPTIONS, WINDOW, Instant::ORIGIN)
    }

    fn settled(records: u64) -> Saves {
        let mut saves = saves();
        (0..records).for_each(|_| saves.record_settled());
        saves
    }

    fn paths() -> Paths {
        Paths::new(Path::new("state"), &"20260801".parse().unwrap())
    }

    fn error(path: &Path) -> Result<(), SaveError> {
        Err(SaveError {
            operation: "sync",
            path: path.to_owned(),
            reason: "injected".to_owned(),
        })
    }

    fn failed() -> Result<(), SaveError> {
        error(&paths().marker())
    }

    #[test]
    fn the_interval_is_a_threshold() {
        for (records, is_due) in [(0, false), (4, false), (5, true), (6, true), (11, true)] {
            assert_eq!(settled(records).is_due(at(1)), is_due, "{records}");
        }
        let mut saves = settled(7);
        saves.begin(&paths());
        (0..5).for_each(|_| saves.record_settled());
        assert!(!saves.is_due(at(1)), "one at a time");
        saves.end(at(1), &Ok(()));
        assert_eq!(saves.lag(), 5, "what happened meanwhile is not saved");
        assert!(saves.is_due(at(1)));
    }

    #[test]
    fn only_a_moved_frontier_gets_old() {
        let saves = saves();
        assert!(!saves.is_due(at(1_000)));
        assert_eq!(saves.wakeup(), None);
        let mut saves = settled(1);
        assert_eq!(saves.wakeup(), Some(at(30)));
        assert!(!saves.is_due(at(29)));
        assert!(saves.is_due(at(30)));
        saves.begin(&paths());
        assert_eq!(saves.wakeup(), None);
        saves.end(at(40), &Ok(()));
        assert!(!saves.is_dirty());
        saves.record_settled();
        assert_eq!(saves.wakeup(), Some(at(70)));
    }

    #[test]
    fn what_is_requested_is_saved_at_once_also_beside_a_save() {
        let mut saves = saves();
        saves.hurry();
        assert!(!saves.is_due(at(1)), "there is nothing to save");
        saves.request();
        assert!(saves.is_due(at(1)));
        saves.begin(&paths());
        saves.request();
        saves.end(at(2), &Ok(()));
        assert!(saves.is_due(at(2)));
        saves.begin(&paths());
        saves.end(at(3), &Ok(()));
        assert!(!saves.is_dirty());
    }

    #[test]
    fn a_failed_save_is_tried_again_ever_more_slowly() {
        let mut saves = settled(1);
        saves.request();
        let mut pauses = Vec::new();
        for number in 1..=8 {
            let now = at(100 * number);
            assert!(saves.is_due(now));
            saves.begin(&paths());
            pauses.push(saves.end(now, &failed()).unwrap());
            assert_eq!(saves.wakeup(), Some(now + pauses[pauses.len() - 1]));
            assert!(!saves.is_due(now));
            assert_eq!(saves.is_hopeless(), number >= 3);
        }
        let seconds: Vec<_> = pauses.iter().map(Duration::as_secs).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30, 30]);
        saves.begin(&paths());
        assert_eq!(saves.end(at(1_000), &Ok(())), None);
        assert!(!saves.is_failing() && !saves.is_hopeless() && !saves.is_dirty());
        assert_eq!((saves.begun, saves.failed), (9, 8));
    }

    #[test]
    fn reading_stops_an_interval_and_a_window_ahead_of_what_is_saved() {
        let mut saves = saves();
        assert!(saves.may_read(8));
        assert!(!saves.may_read(9));
        (0..6).for_each(|_| saves.record_settled());
        saves.begin(&paths());
        assert!(!saves.may_read(9), "a save under way is not saved");
        saves.end(at(1), &Ok(()));
        assert!(saves.may_read(14));
        assert!(!saves.may_read(15));
        saves.request();
        saves.begin(&paths());
        saves.end(at(2), &failed());
        assert!(
            saves.may_read(1_000),
            "a failed save does not stop processing"
        );
    }

    /// The dead letters of a save: from which byte on, and what.
    fn begin(saves: &mut Saves) -> Vec<(u64, String)> {
        let begun = saves.begin(&paths());
        let text = |lines| String::from_utf8(lines).unwrap();
        let letters = begun.dead_letters.into_iter();
        letters
            .map(|letters| (letters.saved_bytes, text(letters.lines)))
            .collect()
    }

    #[test]
    fn dead_letters_go_with_the_next_save_and_with_one_only() {
        let mut saves = saves();
        saves.begin_letters(Kind::Labels, 100);
        assert_eq!(begin(&mut saves), [(100, String::new())], "cut at first");
        saves.add_letter(Kind::Labels, b"a\n");
        saves.end(at(1), &Ok(()));
        assert_eq!(begin(&mut saves), [(100, "a\n".to_owned())]);
        saves.add_letter(Kind::Labels, b"bc\n");
        saves.end(at(2), &Ok(()));
        assert_eq!(begin(&mut saves), [(102, "bc\n".to_owned())]);
        saves.end(at(3), &Ok(()));
        assert_eq!(begin(&mut saves), []);
        saves.begin_letters(Kind::Masters, 7);
        saves.end(at(4), &Ok(()));
        assert_eq!(
            begin(&mut saves),
            [(7, String::new())],
            "begun beside a save"
        );
    }

    #[test]
    fn dead_letters_stay_for_the_next_save_only_if_they_failed_themselves() {
        for (path, next) in [
            (paths().dead_letters(Kind::Labels), (0, "a\nb\n".to_owned())),
            (paths().temporary(1), (2, "b\n".to_owned())),
            (paths().directory().to_owned(), (2, "b\n".to_owned())),
        ] {
            let mut saves = saves();
            saves.begin_letters(Kind::Labels, 0);
            saves.add_letter(Kind::Labels, b"a\n");
            begin(&mut saves);
            saves.add_letter(Kind::Labels, b"b\n");
            saves.end(at(1), &error(&path));
            assert_eq!(begin(&mut saves), [next], "{}", path.display());
        }
    }

    #[test]
    fn a_seek_point_goes_with_one_save_and_again_only_if_that_failed() {
        let points = |points: &[(Kind, Option<&str>)]| -> SeekPoints {
            let points = points.iter();
            points
                .map(|(kind, file)| (*kind, file.map(|file| file.as_bytes().to_vec())))
                .collect()
        };
        let mut saves = saves();
        saves.change_seek_point(Kind::Labels, Some(b"a".to_vec()));
        assert!(!saves.is_dirty(), "it is no reason to save");
        saves.change_seek_point(Kind::Labels, Some(b"b".to_vec()));
        let begun = saves.begin(&paths()).seek_points;
        assert_eq!(begun, points(&[(Kind::Labels, Some("b"))]));
        saves.change_seek_point(Kind::Masters, Some(b"c".to_vec()));
        saves.end(at(1), &failed());
        let both = points(&[(Kind::Labels, Some("b")), (Kind::Masters, Some("c"))]);
        assert_eq!(saves.begin(&paths()).seek_points, both);
        saves.change_seek_point(Kind::Labels, None);
        saves.end(at(2), &failed());
        let newest = points(&[(Kind::Labels, None), (Kind::Masters, Some("c"))]);
        assert_eq!(saves.begin(&paths()).seek_points, newest);
        saves.end(at(3), &Ok(()));
        assert_eq!(saves.begin(&paths()).seek_points, points(&[]));
    }

    #[test]
    #[should_panic(expected = "an interval of 0")]
    fn an_interval_of_nothing_is_refused() {
        let interval = 0;
        Saves::new(
            SaveOptions {
                interval,
                ..OPTIONS
            },
            WINDOW,
            Instant::ORIGIN,
        );
    }
}
