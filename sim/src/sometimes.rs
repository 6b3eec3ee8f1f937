//! Points that a search must reach sometimes: a sweep that never recovered from a torn spool has
//! not shown that such a recovery works.
//!
//! They are derived from what the simulation sees (notices, disk images, exits), never from code in
//! the product.

/// A point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Sometimes {
    /// A life went on in the middle of a dump, and inflated what lies before.
    Resumed,
    /// A life went on in the middle of a dump by way of a seek point.
    SeekPoint,
    /// A life found a seek point that it could not use.
    SeekPointRefused,
    /// A life went on from the previous generation of the marker.
    PreviousGeneration,
    /// A life found no marker that it could read, although there was one.
    StartedOver,
    /// A damaged marker was set aside.
    SetAside,
    /// The spool was found with an unfinished last line.
    TornSpool,
    /// The spool was found with messages beyond the checkpoint.
    SpoolAhead,
    /// A message was submitted that an earlier life had submitted.
    Repeat,
    /// A save failed.
    SaveFailed,
    /// A save succeeded after others had failed.
    SaveRecovered,
    /// A run ended because its state could not be saved.
    SaveHopeless,
    /// The broker asked for silence.
    Blocked,
    /// The broker took messages again.
    Unblocked,
    /// A confirm or a connection did not come in time.
    Unanswered,
    /// A message was turned down.
    NotTaken,
    /// The link was lost or did not come about.
    Disconnected,
    /// A record was skipped and kept.
    DeadLetter,
    /// The broker refused a record for ever.
    Refused,
    /// A dump was completed.
    Completed,
    /// The end of the version was announced.
    Announced,
    /// The end of the version was announced again, after a crash.
    AnnouncedAgain,
    /// A run was stopped in the middle.
    Stopped,
    /// A dump could not be read.
    SourceFailed,
    /// A run could not even begin.
    CannotBegin,
    /// The process died while a save was under way.
    CrashInSave,
    /// The process died before it had saved anything.
    CrashBeforeFirstSave,
    /// The process died in the life after a crash.
    CrashInRecovery,
    /// The image that the next life found was not what the dead one saw.
    LostBytes,
    /// A dump was changed between two lives after it was begun.
    ChangedDump,
    /// A completed version was started again and left alone.
    NothingToDo,
}

impl Sometimes {
    /// All points.
    pub const ALL: [Self; 31] = [
        Self::Resumed,
        Self::SeekPoint,
        Self::SeekPointRefused,
        Self::PreviousGeneration,
        Self::StartedOver,
        Self::SetAside,
        Self::TornSpool,
        Self::SpoolAhead,
        Self::Repeat,
        Self::SaveFailed,
        Self::SaveRecovered,
        Self::SaveHopeless,
        Self::Blocked,
        Self::Unblocked,
        Self::Unanswered,
        Self::NotTaken,
        Self::Disconnected,
        Self::DeadLetter,
        Self::Refused,
        Self::Completed,
        Self::Announced,
        Self::AnnouncedAgain,
        Self::Stopped,
        Self::SourceFailed,
        Self::CannotBegin,
        Self::CrashInSave,
        Self::CrashBeforeFirstSave,
        Self::CrashInRecovery,
        Self::LostBytes,
        Self::ChangedDump,
        Self::NothingToDo,
    ];

    /// The point in words.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Resumed => "resumed in the middle of a dump, inflating what lies before",
            Self::SeekPoint => "resumed by way of a seek point",
            Self::SeekPointRefused => "a seek point could not be used",
            Self::PreviousGeneration => "went on from the previous generation",
            Self::StartedOver => "no marker could be read",
            Self::SetAside => "a damaged marker was set aside",
            Self::TornSpool => "the spool had a torn last line",
            Self::SpoolAhead => "the spool was ahead of the checkpoint",
            Self::Repeat => "a message was published again",
            Self::SaveFailed => "a save failed",
            Self::SaveRecovered => "saving recovered",
            Self::SaveHopeless => "a run ended unsaved",
            Self::Blocked => "the broker was blocked",
            Self::Unblocked => "the broker was unblocked",
            Self::Unanswered => "an answer did not come in time",
            Self::NotTaken => "a message was turned down",
            Self::Disconnected => "the link was lost",
            Self::DeadLetter => "a record became a dead letter",
            Self::Refused => "the broker refused a record",
            Self::Completed => "a dump was completed",
            Self::Announced => "the version was announced",
            Self::AnnouncedAgain => "the version was announced again",
            Self::Stopped => "stopped in mid-run",
            Self::SourceFailed => "a dump could not be read",
            Self::CannotBegin => "a run could not begin",
            Self::CrashInSave => "crashed in a save",
            Self::CrashBeforeFirstSave => "crashed before the first save",
            Self::CrashInRecovery => "crashed in the recovery from a crash",
            Self::LostBytes => "a crash took something away",
            Self::ChangedDump => "a dump was changed between lives",
            Self::NothingToDo => "a complete version was left alone",
        }
    }
}

/// Which points one life or run has reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached(u64);

impl Reached {
    /// `point` was reached.
    pub const fn add(&mut self, point: Sometimes) {
        self.0 |= 1 << point as u8;
    }

    /// Whether `point` was reached.
    pub const fn has(self, point: Sometimes) -> bool {
        self.0 & 1 << point as u8 != 0
    }

    /// Adds all points of `other`.
    pub const fn merge(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

/// How often each point was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally([u64; Sometimes::ALL.len()]);

impl Tally {
    /// Counts what was reached once more.
    pub fn add(&mut self, reached: Reached) {
        for point in Sometimes::ALL {
            self.0[point as usize] += u64::from(reached.has(point));
        }
    }

    /// Adds all counts of `other`.
    pub fn merge(&mut self, other: &Self) {
        let pairs = self.0.iter_mut().zip(other.0);
        pairs.for_each(|(own, other)| *own += other);
    }

    /// How often `point` was reached.
    pub const fn count(&self, point: Sometimes) -> u64 {
        self.0[point as usize]
    }

    /// Whether `point` was reached.
    pub const fn has(&self, point: Sometimes) -> bool {
        self.count(point) > 0
    }

    /// The points that were never reached.
    pub fn missing(&self) -> impl Iterator<Item = Sometimes> {
        Sometimes::ALL.into_iter().filter(|&point| !self.has(point))
    }
}
