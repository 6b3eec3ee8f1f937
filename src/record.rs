//! Records and where they are: ordinals, byte offsets, positions.

use std::fmt;

/// The 1-based position of a record in its dump. 0 stands for "before the first record".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ordinal(pub u64);

impl Ordinal {
    /// Before the first record.
    pub const ZERO: Self = Self(0);

    /// The ordinal of the next record.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Ordinal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An offset in bytes from the start of a dump; whether of its compressed or its XML bytes is
/// said by the name of what holds it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteOffset(pub u64);

impl fmt::Display for ByteOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A boundary between two records of a dump: a place where reading can go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The last record before the boundary.
    pub ordinal: Ordinal,
    /// Where that record ends in the XML; 0 for the start of the dump.
    pub xml: ByteOffset,
}

impl Position {
    /// The start of a dump.
    pub const START: Self = Self {
        ordinal: Ordinal::ZERO,
        xml: ByteOffset(0),
    };
}
