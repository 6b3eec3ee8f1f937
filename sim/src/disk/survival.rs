//! Which of `n` changes that nobody made durable survive a power loss.
//!
//! All subsets, while they are few. A file with many unsynced chunks has more subsets than anybody
//! can try, so from [`ALL_SUBSETS_MAX`] on the family is: all, none, every prefix, all but any one,
//! any one alone. That is enough for every single reordering and every torn end, and grows with `n`
//! instead of 2^n. Seeded runs draw from the full set as well.

use crate::tape::Tape;

/// Up to so many changes, every subset is tried.
pub const ALL_SUBSETS_MAX: u32 = 6;

/// The subsets of `n` changes that are tried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subsets {
    n: u32,
}

impl Subsets {
    pub(super) fn of(n: usize) -> Self {
        let n = u32::try_from(n).expect("the changes fit in memory");
        Self { n }
    }

    /// How many subsets are tried.
    pub(super) const fn count(self) -> u32 {
        if self.n <= ALL_SUBSETS_MAX {
            1 << self.n
        } else {
            2 + (self.n - 1) + 2 * self.n
        }
    }

    /// The subset with a number below [`Self::count`]: which changes survive. Number 0 is all.
    pub(super) fn subset(self, number: u32) -> Vec<bool> {
        (0..self.n)
            .map(|change| self.survives(number, change))
            .collect()
    }

    const fn survives(self, number: u32, change: u32) -> bool {
        let n = self.n;
        if n <= ALL_SUBSETS_MAX {
            return number >> change & 1 == 0;
        }
        match number {
            0 => true,
            1 => false,
            // The prefixes of length 1 to n - 1, all but one, one alone.
            _ if number < n + 1 => change < number - 1,
            _ if number < 2 * n + 1 => change != number - (n + 1),
            _ => change == number - (2 * n + 1),
        }
    }

    /// One subset by the tape; all zeros means that everything survives.
    pub(super) fn draw(self, tape: &Tape, label: &'static str) -> Vec<bool> {
        let beyond = u32::from(self.n > ALL_SUBSETS_MAX);
        let number = tape.choose(label, self.count() + beyond);
        if number == self.count() {
            (0..self.n).map(|_| tape.choose(label, 2) == 0).collect()
        } else {
            self.subset(number)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn subsets(n: usize) -> BTreeSet<Vec<bool>> {
        let subsets = Subsets::of(n);
        (0..subsets.count())
            .map(|number| subsets.subset(number))
            .collect()
    }

    #[test]
    fn few_changes_have_all_subsets() {
        for n in 0..=6 {
            assert_eq!(subsets(n).len(), 1 << n);
            assert_eq!(Subsets::of(n).subset(0), vec![true; n]);
        }
    }

    #[test]
    fn many_changes_have_prefixes_and_what_differs_by_one() {
        let tried = subsets(9);
        assert_eq!(Subsets::of(9).subset(0), vec![true; 9]);
        for i in 0..9 {
            let of = |survives: fn(usize, usize) -> bool| (0..9).map(|j| survives(j, i)).collect();
            assert!(tried.contains::<Vec<bool>>(&of(|j, i| j < i)), "prefix {i}");
            assert!(
                tried.contains::<Vec<bool>>(&of(|j, i| j != i)),
                "all but {i}"
            );
            assert!(tried.contains::<Vec<bool>>(&of(|j, i| j == i)), "{i} alone");
        }
        // All but the last is a prefix, the first alone too.
        assert_eq!(tried.len() as u32, Subsets::of(9).count() - 2);
    }
}
