//! Many seeds, on several threads.
//!
//! CI takes other seeds for every commit: those that its hash begins with ([`first_seed`]), so that
//! two runs of a commit agree, and the search gets somewhere with every change.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::program::Program;
use crate::search::{Failure, Report, seeded};
use crate::trace::Trace;

/// How many failures are kept, each made short.
pub const FAILURES_MAX: usize = 3;

/// What many seeds came to.
#[derive(Debug, Default)]
pub struct Sweep {
    /// What happened in the seeds that broke nothing.
    pub report: Report,
    /// A hash over the trace hashes of all these seeds, whatever the order in which they ran.
    pub trace_hash: u64,
    /// The seeds that broke something, in order.
    pub failed: Vec<u64>,
    /// Some of them, made short.
    pub failures: Vec<Box<Failure>>,
}

/// The seeds of a commit begin with the first eight digits of its hash; `None` if it is no hash.
pub fn first_seed(commit: &str) -> Option<u64> {
    u64::from_str_radix(commit.get(..8)?, 16).ok()
}

/// Runs all `seeds`, `jobs` at the same time. `tell` is called after each, with how many are done
/// and what they came to so far.
///
/// # Panics
///
/// If the simulation itself does.
pub fn sweep(
    program: &dyn Program,
    seeds: Range<u64>,
    jobs: usize,
    tell: impl Fn(u64, &Sweep) + Sync,
) -> Sweep {
    let next = AtomicU64::new(seeds.start);
    let all = Mutex::new(Sweep::default());
    let work = || {
        let scenarios = seeded::Scenarios::default();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if !seeds.contains(&seed) {
                return;
            }
            let outcome = seeded::judged(program, &scenarios, seed);
            let mut all = all.lock().expect("no other thread has panicked");
            match outcome {
                Ok(outcome) => all.add(seed, &outcome),
                Err(failure) if all.failures.len() < FAILURES_MAX => {
                    all.failed.push(seed);
                    all.failures
                        .push(seeded::shrunk(program, &scenarios, seed, failure));
                }
                Err(_) => all.failed.push(seed),
            }
            tell(all.report.runs + all.failed.len() as u64, &all);
        }
    };
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(work);
        }
    });
    let mut all = all.into_inner().expect("no thread has panicked");
    all.failed.sort_unstable();
    all
}

impl Sweep {
    fn add(&mut self, seed: u64, outcome: &seeded::Outcome) {
        self.report.merge(&outcome.report);
        let mut trace = Trace::new();
        trace.number(seed);
        trace.number(outcome.trace_hash);
        // Addition, so that the order does not matter.
        self.trace_hash = self.trace_hash.wrapping_add(trace.value());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extractor::Extractor;

    #[test]
    fn threads_do_not_change_what_a_sweep_finds() {
        let run = |jobs| sweep(&Extractor::product(), 40..60, jobs, |_, _| {});
        let (one, three) = (run(1), run(3));
        assert_eq!(one.report, three.report);
        assert_eq!(one.trace_hash, three.trace_hash);
        assert_eq!(one.report.runs, 20);
    }

    #[test]
    fn a_commit_has_seeds_of_its_own() {
        let hash = "00010ef3a1b2c3d4e5f60718293a4b5c6d7e8f90";
        assert_eq!(first_seed(hash), Some(0x0001_0ef3));
        for no_hash in ["", "1234567", "v1.2.3-rc1"] {
            assert_eq!(first_seed(no_hash), None, "{no_hash}");
        }
    }
}
