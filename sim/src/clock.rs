//! The virtual clock: hours pass in microseconds.
//!
//! Time stands still while the program computes. It moves for two reasons only: an operation on the
//! outside world takes a moment, and the program's one wait jumps to whatever happens next. So a
//! time-out of eleven minutes costs nothing to test, and a run that takes no real time can say how
//! many virtual hours it lasted.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use discogs_extractor::time::{Clock, Instant};

/// The wall clock at the origin: 2026-08-01T00:00:00Z.
pub const UNIX_START: Duration = Duration::from_secs(1_785_542_400);

/// A clock that is moved by hand. Clones show the same time.
#[derive(Clone, Debug, Default)]
pub struct VirtualClock {
    nanoseconds: Arc<AtomicU64>,
}

impl VirtualClock {
    /// A clock at `now`.
    pub fn at(now: Instant) -> Self {
        Self {
            nanoseconds: Arc::new(AtomicU64::new(now.as_nanoseconds())),
        }
    }

    /// Jumps to `instant`; stays where it is if that has passed.
    pub fn advance_to(&self, instant: Instant) {
        self.nanoseconds
            .fetch_max(instant.as_nanoseconds(), Ordering::Relaxed);
    }

    /// Moves on by `duration`.
    pub fn advance(&self, duration: Duration) {
        self.advance_to(self.now() + duration);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Instant {
        Instant::from_nanoseconds(self.nanoseconds.load(Ordering::Relaxed))
    }

    fn unix(&self) -> Duration {
        UNIX_START + self.now().since(Instant::ORIGIN)
    }
}

#[cfg(test)]
mod tests {
    use discogs_extractor::time::rfc3339;

    use super::*;

    #[test]
    fn both_times_move_together_and_never_back() {
        let clock = VirtualClock::default();
        let shared = clock.clone();
        clock.advance(Duration::from_secs(3600));
        clock.advance_to(Instant::ORIGIN);
        assert_eq!(shared.now().since(Instant::ORIGIN).as_secs(), 3600);
        assert_eq!(rfc3339(shared.unix()), "2026-08-01T01:00:00.000Z");
    }

    #[test]
    fn a_branch_has_a_time_of_its_own() {
        let clock = VirtualClock::default();
        let branch = VirtualClock::at(clock.now());
        clock.advance(Duration::from_secs(1));
        assert_eq!(branch.now(), Instant::ORIGIN);
    }
}
