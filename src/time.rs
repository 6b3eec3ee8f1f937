//! Time as the program sees it: a monotonic instant and the wall clock, both from one injected
//! [`Clock`].
//!
//! Nothing else in the library may ask the operating system for the time, so that a simulator
//! can run hours in milliseconds and the same seed gives the same run.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

/// A point of monotonic time, in nanoseconds since its clock's origin.
///
/// Our own type and not [`std::time::Instant`], because that one can neither be made nor printed:
/// a simulated run has to be replayed from a list of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The origin of the clock.
    pub const ORIGIN: Self = Self(0);

    /// The instant `nanoseconds` after the origin.
    pub const fn from_nanoseconds(nanoseconds: u64) -> Self {
        Self(nanoseconds)
    }

    /// Nanoseconds since the origin; wraps never, a clock covers 584 years.
    pub const fn as_nanoseconds(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this instant is; zero if it is before.
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// Saturates at the end of time, so that an absurd time-out is a long one and not a panic.
    fn add(self, duration: Duration) -> Self {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanoseconds))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.6}s", self.since(Self::ORIGIN).as_secs_f64())
    }
}

/// Where time comes from. Shared between threads, because a broker on a thread of its own waits
/// until a deadline of the program's clock.
pub trait Clock: Send + Sync {
    /// Monotonic time: never goes back.
    fn now(&self) -> Instant;

    /// Wall-clock time since the Unix epoch, UTC. May jump; used only to tell people when.
    fn unix(&self) -> Duration;
}

/// A wall-clock time since the Unix epoch as RFC 3339 in UTC, to the millisecond:
/// `2026-08-01T12:34:56.789Z`.
pub fn rfc3339(unix: Duration) -> String {
    jiff::Timestamp::UNIX_EPOCH
        .checked_add(unix)
        .map(|timestamp| format!("{timestamp:.3}"))
        .unwrap_or_default()
}

/// The operating system's clocks.
#[derive(Debug)]
pub struct SystemClock {
    origin: std::time::Instant,
}

impl SystemClock {
    /// A clock whose origin is the moment of this call.
    #[expect(clippy::disallowed_methods, reason = "this is the adapter of `Clock`")]
    #[expect(
        clippy::new_without_default,
        reason = "a default that depends on when it is called surprises"
    )]
    pub fn new() -> Self {
        Self {
            origin: std::time::Instant::now(),
        }
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::ORIGIN + self.origin.elapsed()
    }

    #[expect(clippy::disallowed_methods, reason = "this is the adapter of `Clock`")]
    fn unix(&self) -> Duration {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_rfc_3339_to_the_millisecond() {
        assert_eq!(rfc3339(Duration::ZERO), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            rfc3339(Duration::from_micros(1_785_587_696_789_999)),
            "2026-08-01T12:34:56.789Z"
        );
    }

    #[test]
    fn instants_saturate() {
        let late = Instant::from_nanoseconds(u64::MAX);
        assert_eq!(late + Duration::from_secs(1), late);
        assert_eq!(Instant::ORIGIN.since(late), Duration::ZERO);
    }
}
