//! What is promised, in words: the names under which a search reports that something is broken.

use std::fmt;

/// A promise of the product, or of the code that stands in for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Guarantee {
    /// A checkpoint is never ahead of what the broker has.
    NeverAhead,
    /// What was reported as saved survives every later crash.
    Durable,
    /// The marker's own name holds a whole marker at every moment.
    WholeMarker,
    /// At the end every record is in the broker, or is a recorded skip.
    NothingLost,
    /// The broker holds nothing that no dump has.
    NothingInvented,
    /// The spool holds every message once, in order.
    ExactlyOnce,
    /// A crash repeats at most an interval and a window of records.
    BoundedRepeats,
    /// What is before the checkpoint, or of a completed dump, is never published again.
    NeverAgain,
    /// First deliveries come in the order of the records.
    InOrder,
    /// `file_complete` follows its records, `extraction_complete` every `file_complete`.
    EndsLast,
    /// A message has the same identity, sequence and bytes on every attempt, in all lives.
    StableIdentity,
    /// Once faults stop, a run ends, complete, in a bounded time.
    Ends,
    /// A run that is asked to stop publishes at most a window more.
    Stops,
    /// A run that fails has a reason that cannot be retried, and tells it.
    FailsForAReason,
    /// At every opportunity to save, less than an interval is unsaved.
    BoundedLag,
    /// The counters in the marker are what they count.
    TrueCounters,
    /// No more messages are unanswered than the window holds.
    BoundedWindow,
    /// A complete run leaves no temporary file behind.
    CleanEnd,
    /// The contract of the broker is kept.
    BrokerContract,
    /// The program never panics.
    NoPanic,
    /// Damage, of the state or of a dump, is told, never passed over.
    ToldDamage,
    /// What a search planned did happen; otherwise it has tested nothing.
    PlannedHappened,
}

impl Guarantee {
    /// All guarantees.
    pub const ALL: [Self; 22] = [
        Self::NeverAhead,
        Self::Durable,
        Self::WholeMarker,
        Self::NothingLost,
        Self::NothingInvented,
        Self::ExactlyOnce,
        Self::BoundedRepeats,
        Self::NeverAgain,
        Self::InOrder,
        Self::EndsLast,
        Self::StableIdentity,
        Self::Ends,
        Self::Stops,
        Self::FailsForAReason,
        Self::BoundedLag,
        Self::TrueCounters,
        Self::BoundedWindow,
        Self::CleanEnd,
        Self::BrokerContract,
        Self::NoPanic,
        Self::ToldDamage,
        Self::PlannedHappened,
    ];

    /// The promise as a sentence.
    pub const fn words(self) -> &'static str {
        match self {
            Self::NeverAhead => "a checkpoint is never ahead of what the broker has",
            Self::Durable => "what was reported as saved survives every later crash",
            Self::WholeMarker => "the marker's own name holds a whole marker at every moment",
            Self::NothingLost => {
                "nothing is lost: every record is in the broker or kept as a dead letter"
            }
            Self::NothingInvented => "the broker holds nothing that no dump has",
            Self::ExactlyOnce => "the spool holds every message exactly once and in order",
            Self::BoundedRepeats => "a crash repeats at most an interval and a window of records",
            Self::NeverAgain => "what is before the checkpoint is never published again",
            Self::InOrder => "first deliveries come in the order of the records",
            Self::EndsLast => "the end of a dump or version is announced after all that it ends",
            Self::StableIdentity => "identity, sequence and bytes are the same on every attempt",
            Self::Ends => "once faults stop, a run ends, complete, in a bounded time",
            Self::Stops => "a run that is asked to stop publishes at most a window more",
            Self::FailsForAReason => {
                "a run fails only for a reason that cannot be retried, and tells it"
            }
            Self::BoundedLag => "at every opportunity to save less than an interval is unsaved",
            Self::TrueCounters => "the counters in the marker are what they count",
            Self::BoundedWindow => "no more messages are unanswered than the window holds",
            Self::CleanEnd => "a complete run leaves no temporary file behind",
            Self::BrokerContract => "the contract of the broker is kept",
            Self::NoPanic => "the program never panics",
            Self::ToldDamage => "damage is told, never passed over",
            Self::PlannedHappened => "what a search planned did happen",
        }
    }
}

impl fmt::Display for Guarantee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub guarantee: Guarantee,
    /// How it was broken.
    pub what: String,
}

impl Violation {
    /// `guarantee` was broken as `what` says.
    pub fn new(guarantee: Guarantee, what: impl Into<String>) -> Self {
        Self {
            guarantee,
            what: what.into(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.guarantee, self.what)
    }
}
