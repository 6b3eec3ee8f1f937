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
use crate::marker::{DeadLetters, Paths, SaveError};
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
    /// Saves begun, which is also the number of the present one.
    pub begun: u64,
    /// Saves that failed.
    pub failed: u64,
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
    under_way: usize,
    pending: Vec<u8>,
}

impl Letters {
    /// Those under way are durable.
    fn kept(&mut self) {
        self.saved_bytes += self.under_way as u64;
        self.pending.drain(..self.under_way);
        self.under_way = 0;
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

    /// Whether something has changed that is not saved.
    pub fn is_dirty(&self) -> bool {
        self.revision != self.saved.revision
    }

    /// Whether a save is under way.
    pub fn is_under_way(&self) -> bool {
        self.under_way.is_some()
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

    /// Begins a save: its number, and the dead letters that go with it.
    ///
    /// # Panics
    /// If one is under way.
    pub fn begin(&mut self, paths: &Paths) -> (u64, Vec<DeadLetters>) {
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
            .filter(|(_, letters)| !letters.pending.is_empty());
        let letters = letters.map(|(kind, letters)| {
            letters.under_way = letters.pending.len();
            DeadLetters {
                path: paths.dead_letters(*kind),
                saved_bytes: letters.saved_bytes,
                lines: letters.pending.clone(),
            }
        });
        (self.begun, letters.collect())
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
        if result.is_err() {
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
