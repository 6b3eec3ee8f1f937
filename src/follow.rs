//! Goes on for years: looks for a new version, fetches it, publishes it, and waits.
//!
//! ```text
//! ┌─→ fetch ─→ run ─→ remove old dumps ─→ wait for days ─┐
//! │     └───────┴─ failed ─→ wait, ever longer ──────────┤
//! └──────────────────────────────────────────────────────┘
//! ```
//!
//! Whatever fails is tried again, because nobody looks: after a minute, then ever more slowly up to
//! six hours. What was done stays done, so trying again costs little. A wait also ends when somebody
//! wants the next look now. It ends when it is asked to.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::download::Pause;
use crate::dump::{Dump, Version};
use crate::fs::FileSystem;
use crate::time::{Clock, Instant};

/// The pause after the first failure.
const RETRY_MIN: Duration = Duration::from_secs(60);
/// The longest pause after a failure.
const RETRY_MAX: Duration = Duration::from_secs(6 * 3600);

/// What a round came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Round {
    /// The newest version is complete.
    Complete(Version),
    /// Something stood in the way; what, and what to do.
    Failed(String),
    /// Somebody wants it to stop.
    Stopped,
}

/// What a user wants to be told between two rounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A version is complete, and the next look is after this pause.
    Complete(Version, Duration),
    /// A round failed, and the next one is after this pause.
    Failed(String, Duration),
}

/// The outside world.
pub struct Outside<'a> {
    /// Time.
    pub clock: &'a dyn Clock,
    /// Waiting.
    pub pause: &'a mut dyn Pause,
    /// Set, from a signal or another thread, to stop.
    pub stop: &'a AtomicBool,
    /// Set, from another thread, to look now; taken back when a look begins.
    pub look: &'a AtomicBool,
    /// Who is told.
    pub notice: &'a mut dyn FnMut(Instant, &Notice),
}

/// Makes rounds until it is stopped, `check_every` after each that came to its end.
pub fn follow(outside: &mut Outside<'_>, check_every: Duration, round: &mut dyn FnMut() -> Round) {
    let mut failures = 0;
    while !outside.stop.load(Ordering::Relaxed) {
        outside.look.store(false, Ordering::Relaxed);
        let (notice, pause) = match round() {
            Round::Stopped => return,
            Round::Complete(version) => {
                failures = 0;
                (Notice::Complete(version, check_every), check_every)
            }
            Round::Failed(why) => {
                failures += 1;
                let pause = retry_pause(failures);
                (Notice::Failed(why, pause), pause)
            }
        };
        let now = outside.clock.now();
        (outside.notice)(now, &notice);
        wait(outside, now + pause);
    }
}

/// Waits until `deadline`, or until a stop or a look is wanted.
fn wait(outside: &mut Outside<'_>, deadline: Instant) {
    let is_wanted = |flag: &AtomicBool| flag.load(Ordering::Relaxed);
    while outside.clock.now() < deadline && !is_wanted(outside.stop) && !is_wanted(outside.look) {
        outside.pause.pause(deadline);
    }
}

/// A minute, doubled with each failure that follows.
fn retry_pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    (RETRY_MIN * (1 << doublings)).min(RETRY_MAX)
}

/// Removes the dumps of all but the newest `keep` versions from a directory, the parts of downloads
/// among them; state and dead letters stay. Returns what it removed.
///
/// # Errors
/// What the file system said; what was removed by then is gone.
pub fn remove_old(fs: &dyn FileSystem, directory: &Path, keep: usize) -> io::Result<Vec<PathBuf>> {
    let paths = fs.list(directory)?;
    let dumps = paths.iter().filter_map(|path| Some((path, version(path)?)));
    let dumps: Vec<_> = dumps.collect();
    let versions: BTreeSet<_> = dumps.iter().map(|(_, version)| version).collect();
    let kept: BTreeSet<_> = versions.into_iter().rev().take(keep).collect();
    let old = dumps.iter().filter(|(_, version)| !kept.contains(version));
    let old: Vec<_> = old.map(|(path, _)| (*path).clone()).collect();
    for path in &old {
        fs.remove(path)?;
    }
    Ok(old)
}

/// The version of a dump or of the part of one.
fn version(path: &Path) -> Option<Version> {
    let name = path.file_name()?.to_str()?;
    let name = name.strip_suffix(".part").unwrap_or(name);
    Dump::from_path(Path::new(name)).map(|dump| dump.version)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::OsFileSystem;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    const DAY: Duration = Duration::from_secs(86_400);

    /// A clock that only waiting moves.
    #[derive(Default)]
    struct Calendar(std::sync::Mutex<Duration>);

    impl Clock for Calendar {
        fn now(&self) -> Instant {
            Instant::ORIGIN + self.unix()
        }

        fn unix(&self) -> Duration {
            *self.0.lock().unwrap()
        }
    }

    /// Sleeps at most a day at a time, as one that is woken for nothing, and stops after a year.
    struct Sleeper<'a> {
        calendar: &'a Calendar,
        stop: &'a AtomicBool,
        look: &'a AtomicBool,
        /// When somebody wants a look, once.
        wish: Option<Duration>,
    }

    impl Pause for Sleeper<'_> {
        fn pause(&mut self, deadline: Instant) {
            let now = self.calendar.now();
            let mut time = self.calendar.0.lock().unwrap();
            *time += deadline.since(now).min(DAY);
            self.stop.store(*time >= 365 * DAY, Ordering::Relaxed);
            if let Some(wish) = self.wish.take_if(|wish| *wish <= *time) {
                *time = wish;
                self.look.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Follows in the time of `calendar`, on which somebody may wish for a look.
    fn live(
        calendar: &Calendar,
        stop: &AtomicBool,
        wish: Option<Duration>,
        check_every: Duration,
        round: &mut dyn FnMut() -> Round,
    ) {
        let look = AtomicBool::new(false);
        let mut outside = Outside {
            clock: calendar,
            pause: &mut Sleeper {
                calendar,
                stop,
                look: &look,
                wish,
            },
            stop,
            look: &look,
            notice: &mut |_, _| (),
        };
        follow(&mut outside, check_every, round);
    }

    fn month(number: u32) -> Version {
        format!("2026{number:02}01").parse().unwrap()
    }

    /// A year in which a version appears every 30 days; `fails` says whether a round does. The day of
    /// each round, and the day on which each version was complete.
    fn year(fails: impl Fn(u32, u64) -> bool) -> (Vec<u64>, BTreeMap<Version, u64>) {
        let (calendar, stop) = (Calendar::default(), AtomicBool::new(false));
        let (mut days, mut complete) = (Vec::new(), BTreeMap::new());
        let rounds = Cell::new(0);
        let mut round = || {
            let day = calendar.unix().as_secs() / DAY.as_secs();
            days.push(day);
            rounds.set(rounds.get() + 1);
            if fails(rounds.get(), day) {
                return Round::Failed("something".to_owned());
            }
            let version = month(u32::try_from(day / 30).unwrap().min(11) + 1);
            complete.entry(version.clone()).or_insert(day);
            Round::Complete(version)
        };
        live(&calendar, &stop, None, 15 * DAY, &mut round);
        (days, complete)
    }

    #[test]
    fn a_wish_ends_one_wait() {
        let (calendar, stop) = (Calendar::default(), AtomicBool::new(false));
        let mut days = Vec::new();
        live(&calendar, &stop, Some(20 * DAY), 15 * DAY, &mut || {
            days.push(calendar.unix().as_secs() / DAY.as_secs());
            Round::Complete(month(1))
        });
        assert_eq!(days[..5], [0, 15, 20, 35, 50]);
    }

    #[test]
    fn every_version_of_a_year_is_taken_within_its_interval() {
        let (days, complete) = year(|_, _| false);
        assert_eq!(days.len(), 25);
        assert_eq!(complete.len(), 12);
        let expected = (0..12).map(|month| month * 30);
        assert!(complete.values().copied().eq(expected), "{complete:?}");
    }

    #[test]
    fn failures_only_delay_it() {
        // Every second round fails, and from the look on day 105 on nothing works for two days.
        let (days, complete) = year(|round, day| round % 2 == 0 || (100..107).contains(&day));
        assert_eq!(complete.len(), 12, "{complete:?}");
        let attempts = days.iter().filter(|day| (100..107).contains(*day)).count();
        assert!((12..20).contains(&attempts), "{attempts} attempts");

        let (days, complete) = year(|_, day| (0..7).contains(&day));
        assert_eq!(complete[&month(1)], 7);
        let in_the_week = days.iter().filter(|day| **day < 7).count();
        assert!((30..50).contains(&in_the_week), "{in_the_week} attempts");
    }

    #[test]
    fn it_waits_longer_after_each_failure() {
        let pauses: Vec<_> = (1..=11)
            .map(|failures| retry_pause(failures).as_secs() / 60)
            .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360]);
        assert_eq!(retry_pause(u32::MAX), RETRY_MAX);
    }

    #[test]
    fn a_stop_ends_it_before_the_next_round_and_in_it() {
        let calendar = Calendar::default();
        let stop = AtomicBool::new(true);
        let mut rounds = 0;
        live(&calendar, &stop, None, DAY, &mut || {
            rounds += 1;
            Round::Stopped
        });
        assert_eq!(rounds, 0);
        stop.store(false, Ordering::Relaxed);
        live(&calendar, &stop, None, DAY, &mut || {
            rounds += 1;
            Round::Stopped
        });
        assert_eq!(rounds, 1);
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "makes the files of a test")]
    fn old_dumps_are_removed_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let names = [
            "discogs_20260601_labels.xml.gz",
            "discogs_20260701_labels.xml.gz",
            "discogs_20260701_releases.xml.gz.part",
            "discogs_20260801_labels.xml.gz",
            "discogs_20260601_labels.dead_letters.jsonl",
            ".extraction_status_20260601.json",
            "notes.txt",
        ];
        for name in names {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let removed = |keep| {
            let removed = remove_old(&OsFileSystem, directory.path(), keep).unwrap();
            let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
            removed.into_iter().map(name).collect::<Vec<_>>()
        };
        assert_eq!(removed(3), [""; 0]);
        assert_eq!(removed(2), names[..1]);
        assert_eq!(removed(1), names[1..3]);
        assert_eq!(removed(1), [""; 0]);
    }
}
