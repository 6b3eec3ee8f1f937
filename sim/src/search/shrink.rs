//! Makes a failing tape short, so that people see what it takes to fail.
//!
//! A tape is simpler than another if it is shorter, or as long and lower at the first difference: 0
//! is always the benign choice, and a tape that ends goes on with zeros. Simpler tapes are tried in
//! rounds: spans of halving length are set to zero and cut out, from the end on, then single numbers
//! are lowered. What fails is kept as its run recorded it, which drops the zeros at the end. It is
//! over when a round finds nothing, or after so many runs.

/// The simplest tape found that still fails. `fails` runs a tape, and returns the recording of the
/// run if it fails as the first one did; it is called at most `runs_max` times.
pub fn shrink(
    tape: Vec<u32>,
    runs_max: usize,
    fails: impl FnMut(&[u32]) -> Option<Vec<u32>>,
) -> Vec<u32> {
    let mut shrinker = Shrinker {
        shortest: tape,
        runs_left: runs_max,
        fails,
    };
    while shrinker.round() {}
    shrinker.shortest
}

struct Shrinker<F> {
    shortest: Vec<u32>,
    runs_left: usize,
    fails: F,
}

impl<F: FnMut(&[u32]) -> Option<Vec<u32>>> Shrinker<F> {
    /// Whether it found something.
    fn round(&mut self) -> bool {
        let before = self.shortest.clone();
        let mut length = self.shortest.len();
        while length > 0 {
            self.spans(length);
            length /= 2;
        }
        self.numbers();
        self.shortest != before
    }

    /// Sets each span of this length to zero, or cuts it out.
    fn spans(&mut self, length: usize) {
        let mut end = self.shortest.len();
        while end > 0 {
            let start = end.saturating_sub(length);
            let mut zeroed = self.shortest.clone();
            zeroed[start..end].fill(0);
            let mut cut = self.shortest.clone();
            cut.drain(start..end);
            self.tries(&cut);
            self.tries(&zeroed);
            end = start.min(self.shortest.len());
        }
    }

    /// Halves each number while it fails, then counts it down.
    fn numbers(&mut self) {
        let mut index = 0;
        while let Some(&number) = self.shortest.get(index) {
            let lowered = |to| {
                let mut lowered = self.shortest.clone();
                lowered[index] = to;
                lowered
            };
            let (halved, less) = (lowered(number / 2), lowered(number.saturating_sub(1)));
            if !self.tries(&halved) && !self.tries(&less) {
                index += 1;
            }
        }
    }

    /// Keeps a tape if it is simpler and fails.
    fn tries(&mut self, tape: &[u32]) -> bool {
        if !is_simpler(tape, &self.shortest) || self.runs_left == 0 {
            return false;
        }
        self.runs_left -= 1;
        let Some(recording) = (self.fails)(tape) else {
            return false;
        };
        let is_progress = is_simpler(&recording, &self.shortest);
        if is_progress {
            self.shortest = recording;
        }
        is_progress
    }
}

fn is_simpler(one: &[u32], other: &[u32]) -> bool {
    (one.len(), one) < (other.len(), other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tape::Tape;

    /// Shrinks what `fails` says of the numbers that a run reads: `count` numbers below 100.
    fn check(tape: &[u32], count: usize, fails: fn(&[u32]) -> bool, expected: &[u32]) {
        let run = |tape: &[u32]| {
            let tape = Tape::recorded(tape.to_vec());
            let numbers: Vec<_> = (0..count).map(|_| tape.choose("number", 100)).collect();
            fails(&numbers).then(|| tape.recording())
        };
        assert_eq!(shrink(tape.to_vec(), 1_000, run), expected);
    }

    #[test]
    fn only_what_it_takes_is_left() {
        let tape: Vec<u32> = (0..50).map(|number| number * 7 % 100).collect();
        check(&tape, 50, |numbers| numbers.contains(&63), &[63]);
        let adjacent = |numbers: &[u32]| numbers.windows(2).any(|it| it[0] > 20 && it[1] > 30);
        check(&tape, 50, adjacent, &[21, 31]);
        check(
            &tape,
            50,
            |numbers| numbers[7] > 4,
            &[0, 0, 0, 0, 0, 0, 0, 5],
        );
        check(&tape, 50, |_| true, &[]);
    }

    #[test]
    fn a_tape_that_no_simpler_one_fails_like_stays() {
        check(&[9, 8, 7], 3, |numbers| numbers == [9, 8, 7], &[9, 8, 7]);
    }

    #[test]
    fn it_keeps_to_its_bound() {
        let mut runs = 0;
        let shrunk = shrink((1..1_000).collect(), 25, |_| {
            runs += 1;
            None
        });
        assert_eq!((shrunk.len(), runs), (999, 25));
    }
}
