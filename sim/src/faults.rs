//! The kinds of faults, and which of them exist in a run.
//!
//! A run with every fault at once seldom gets far: the first refusal hides what a late confirm would
//! have shown. So a seeded run first draws *which* kinds exist in it and how rare they are (a swarm:
//! Groce et al., "Swarm testing", 2012). A kind that does not exist draws nothing from the tape,
//! which keeps recordings short and exhaustive searches possible.

use crate::tape::Tape;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Fault {
    /// Disk: a read gives fewer bytes than it was asked for.
    ShortRead,
    /// Disk: a write takes fewer bytes than it was given.
    ShortWrite,
    /// Disk: reading, opening or listing fails with EIO.
    ReadError,
    /// Disk: an operation that changes bytes or names fails with EIO and changes nothing.
    WriteError,
    /// Disk: an operation that needs space fails with ENOSPC.
    NoSpace,
    /// Disk: a sync fails; the pages are clean afterwards and *not* durable.
    SyncError,
    /// Process: it stands still for up to five minutes (a suspended machine, a slow disk).
    Pause,
    /// Broker: frames take up to half a second.
    Latency,
    /// Broker: a confirm comes seconds or minutes late, or never, with the link up.
    LateConfirm,
    /// Broker: confirms are held back and come together (`multiple`).
    MergedConfirm,
    /// Broker: confirms overtake each other.
    Reordered,
    /// Broker: a message is nacked and not stored.
    Nack,
    /// Broker: a message is returned as unroutable and not stored.
    Return,
    /// Broker: a message is refused for ever.
    Refuse,
    /// Broker: a message arrives, is dropped, and nobody says so.
    Drop,
    /// Broker: the link breaks; what is in flight is lost in both directions.
    LinkLoss,
    /// Broker: what was in flight when a link or a process died, or a connection was closed, may
    /// have arrived all the same.
    InFlight,
    /// Broker: ... and may be accepted late, when the next session or process is at work.
    LateFrames,
    /// Broker: answers of a dead session arrive after its end.
    LateAnswers,
    /// Broker: a connection is refused.
    ConnectRefused,
    /// Broker: an attempt to connect is never answered.
    ConnectSilent,
    /// Broker: an alarm; nothing is taken and nothing is confirmed for up to five minutes.
    Blocked,
}

impl Fault {
    /// All kinds.
    pub const ALL: [Self; 22] = [
        Self::ShortRead,
        Self::ShortWrite,
        Self::ReadError,
        Self::WriteError,
        Self::NoSpace,
        Self::SyncError,
        Self::Pause,
        Self::Latency,
        Self::LateConfirm,
        Self::MergedConfirm,
        Self::Reordered,
        Self::Nack,
        Self::Return,
        Self::Refuse,
        Self::Drop,
        Self::LinkLoss,
        Self::InFlight,
        Self::LateFrames,
        Self::LateAnswers,
        Self::ConnectRefused,
        Self::ConnectSilent,
        Self::Blocked,
    ];

    /// Those that keep a single message out, while others behind it get in.
    pub const ONE_BY_ONE: [Self; 4] = [Self::Nack, Self::Return, Self::Refuse, Self::Drop];

    /// What can become of a message that arrives at the broker, apart from being stored and
    /// confirmed.
    pub const AT_ARRIVAL: [Self; 9] = [
        Self::Nack,
        Self::Return,
        Self::Refuse,
        Self::Drop,
        Self::LateConfirm,
        Self::MergedConfirm,
        Self::Reordered,
        Self::LinkLoss,
        Self::Blocked,
    ];

    /// What can become of an attempt to connect.
    pub const AT_CONNECT: [Self; 2] = [Self::ConnectRefused, Self::ConnectSilent];

    const fn bit(self) -> u32 {
        1 << self as u8
    }
}

/// Which kinds of faults exist in a run, and how rare they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Faults {
    kinds: u32,
    one_in: u32,
}

impl Faults {
    /// No faults: a world in which everything works at once.
    pub const fn none() -> Self {
        Self {
            kinds: 0,
            one_in: 32,
        }
    }

    /// Every kind.
    pub const fn all() -> Self {
        Self {
            kinds: (1 << Fault::ALL.len()) - 1,
            one_in: 32,
        }
    }

    /// Only these kinds.
    pub fn only(kinds: &[Fault]) -> Self {
        kinds
            .iter()
            .fold(Self::none(), |faults, &kind| faults.with(kind))
    }

    /// These and one kind more.
    #[must_use]
    pub const fn with(self, kind: Fault) -> Self {
        Self {
            kinds: self.kinds | kind.bit(),
            ..self
        }
    }

    /// These without one kind.
    #[must_use]
    pub const fn without(self, kind: Fault) -> Self {
        Self {
            kinds: self.kinds & !kind.bit(),
            ..self
        }
    }

    /// These, each of which a seeded run meets once in `one_in` occasions. Recordings and odometers
    /// do not care.
    #[must_use]
    pub const fn one_in(self, one_in: u32) -> Self {
        Self { one_in, ..self }
    }

    /// A swarm: draws from the tape which kinds exist, and how rare they are. All zeros is no
    /// fault at all.
    pub fn swarm(tape: &Tape) -> Self {
        let tape = tape.fork("faults");
        let rarity = tape.choose("faults.rarity", 4);
        Fault::ALL
            .into_iter()
            .filter(|_| tape.choose("faults.exists", 2) == 1)
            .fold(Self::none(), Self::with)
            .one_in([512, 128, 32, 8][rarity as usize])
    }

    /// Whether a kind exists in this run.
    pub const fn has(self, kind: Fault) -> bool {
        self.kinds & kind.bit() != 0
    }

    /// The kinds that exist.
    pub fn kinds(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(move |&kind| self.has(kind))
    }

    /// How rare a fault is in a seeded run: once in so many occasions.
    pub const fn rarity(self) -> u32 {
        self.one_in
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_a_bit_of_its_own() {
        assert_eq!(Faults::only(&Fault::ALL), Faults::all());
        for kind in Fault::ALL {
            assert!(!Faults::none().has(kind));
            assert!(Faults::all().has(kind));
            assert!(!Faults::all().without(kind).has(kind));
            assert_eq!(Faults::only(&[kind]).kinds().collect::<Vec<_>>(), [kind]);
        }
    }

    #[test]
    fn the_benign_swarm_is_no_fault() {
        assert_eq!(Faults::swarm(&Tape::benign()).kinds().count(), 0);
    }

    #[test]
    fn swarms_differ_and_reach_every_kind() {
        let swarms: Vec<Faults> = (0..64)
            .map(|seed| Faults::swarm(&Tape::seeded(seed)))
            .collect();
        for kind in Fault::ALL {
            assert!(swarms.iter().any(|swarm| swarm.has(kind)), "{kind:?} never");
            assert!(
                !swarms.iter().all(|swarm| swarm.has(kind)),
                "{kind:?} always"
            );
        }
    }
}
