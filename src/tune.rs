//! How often to save on this machine, with this broker: measured, and said with the reason.
//!
//! [`measure`](measure()) runs the pipeline as `run` does, with files and queues of its own that it removes
//! again; [`Report`] sets the figures into a model. The two cost something together, saving and
//! repeating; the least of it is recommended.
//!
//! # The JSON
//!
//! One object. Fields may be added, never renamed or removed.
//!
//! | field | |
//! |---|---|
//! | `format`, `broker` | 1, and where messages went |
//! | `machine` | what was measured and configured: `records_per_second`, `save_cost_seconds` (what the pipeline lost by one save), `save_seconds` (the median), `window_messages`, `save_age_max_seconds`, `failures_per_day` |
//! | `save_seconds` | `median`, `p95` and `most` of so many (`count`) |
//! | `measured` | `interval`, `records`, and the median of the `overhead_percent` that was measured; `noise_percent` is how much runs without saves differed among themselves |
//! | `rows` | for each `interval`: `saves_per_hour`, `overhead_percent`, `repeating_percent`, `repeats_per_failure`, `lost_seconds_per_day` |
//! | `young`, `daly` | the interval after these two, in records |
//! | `recommended`, `configured`, `is_configured_fine`, `reason` | what to set, what is set, and whether that need not change |

mod measure;
mod model;
mod plot;

use std::fmt;

use serde::Serialize;

use crate::human::{count, rounded};

pub use self::measure::{Outside, TuneError, measure};
pub use self::model::Machine;

/// The intervals of the table.
const INTERVALS: [u64; 9] = [
    100, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
];

/// Runs that differ by more say little about the cost of saves.
const NOISE_PERCENT_MAX: f64 = 10.0;

/// What was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// Where messages went.
    pub broker: String,
    /// The figures, and what is configured.
    pub machine: Machine,
    /// How long saves took, in seconds; at least one.
    pub save_seconds: Vec<f64>,
    /// What saving cost at some intervals.
    pub measured: Vec<Trial>,
    /// How much runs without saves differed among themselves.
    pub noise_percent: f64,
    /// The interval that is set.
    pub configured: u64,
}

/// What saving at one interval cost, the median of several runs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Trial {
    /// Records between saves.
    pub interval: u64,
    /// Records of a run.
    pub records: u64,
    /// Against a run without saves; less than 0 if there was no difference to see.
    pub overhead_percent: f64,
}

/// The recommendation, and what it follows from.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    format: u32,
    broker: String,
    machine: Machine,
    save_seconds: Distribution,
    measured: Vec<Trial>,
    noise_percent: f64,
    rows: Vec<Row>,
    young: f64,
    daly: f64,
    /// The interval to set.
    pub recommended: u64,
    configured: u64,
    is_configured_fine: bool,
    reason: String,
}

/// How long saves took, in seconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Distribution {
    count: usize,
    median: f64,
    p95: f64,
    most: f64,
}

impl Distribution {
    fn new(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |hundredths: usize| seconds[(seconds.len() - 1) * hundredths / 100];
        Self {
            count: seconds.len(),
            median: at(50),
            p95: at(95),
            most: at(100),
        }
    }
}

/// What an interval leads to.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Row {
    interval: u64,
    saves_per_hour: f64,
    overhead_percent: f64,
    repeating_percent: f64,
    repeats_per_failure: f64,
    lost_seconds_per_day: f64,
}

impl Row {
    fn new(machine: &Machine, interval: u64) -> Self {
        Self {
            interval,
            saves_per_hour: machine.saves_per_hour(interval),
            overhead_percent: machine.overhead(interval) * 100.0,
            repeating_percent: machine.repeating(interval) * 100.0,
            repeats_per_failure: machine.repeats(interval),
            lost_seconds_per_day: machine.lost(interval) * 86_400.0,
        }
    }
}

impl Report {
    /// What follows from `measured`.
    ///
    /// # Panics
    /// If no save was measured.
    pub fn new(measured: Measured) -> Self {
        let machine = measured.machine;
        let recommended = machine.best();
        let mut intervals = INTERVALS.to_vec();
        intervals.extend([recommended, measured.configured]);
        intervals.sort_unstable();
        intervals.dedup();
        let rows = intervals
            .iter()
            .map(|&interval| Row::new(&machine, interval));
        Self {
            format: 1,
            broker: measured.broker,
            machine,
            save_seconds: Distribution::new(measured.save_seconds),
            measured: measured.measured,
            noise_percent: measured.noise_percent,
            rows: rows.collect(),
            young: machine.young(),
            daly: machine.daly(),
            recommended,
            configured: measured.configured,
            is_configured_fine: machine.is_fine(measured.configured),
            reason: reason(&machine, recommended, measured.configured),
        }
    }

    /// For programs.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report is JSON") + "\n"
    }

    /// As a picture.
    pub fn to_svg(&self) -> String {
        plot::svg(self)
    }
}

/// Why, in two sentences.
fn reason(machine: &Machine, best: u64, configured: u64) -> String {
    let window = count(machine.window_messages);
    let basis = match machine.daly() {
        daly if daly <= machine.floor() => format!(
            "A save costs too little to be seen, and below about a window of {window} records a \
             smaller interval saves nothing, because those in flight are repeated in any case"
        ),
        daly => format!(
            "A save costs the pipeline {:.2} ms, and at {} a day saving and repeating together cost \
             least near {} records",
            machine.save_cost_seconds * 1e3,
            failures(machine.failures_per_day),
            rounded(daly)
        ),
    };
    let more = (machine.lost(configured) - machine.lost(best)).max(0.0) * 100.0;
    let (present, other) = (count(configured), count(best));
    let verdict = match machine.is_fine(configured) {
        _ if configured == best => format!("{present} is configured, so it is fine"),
        true => format!(
            "{present}, which is configured, loses only {more:.3} % more of the time than {other}, \
             so it is fine"
        ),
        false => format!(
            "{present}, which is configured, loses {more:.1} % more of the time than {other}, so a \
             change is worth it"
        ),
    };
    format!("{basis}. {verdict}.")
}

fn failures(number: f64) -> String {
    let is_one = (number - 1.0).abs() < f64::EPSILON;
    let noun = if is_one { "failure" } else { "failures" };
    format!("{number} {noun}")
}

/// For people.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (machine, saves) = (&self.machine, &self.save_seconds);
        writeln!(
            f,
            "into {}: {} records/s without saves",
            self.broker,
            rounded(machine.records_per_second)
        )?;
        writeln!(
            f,
            "a save takes {:.2} ms (95 %: {:.2} ms, most: {:.2} ms, of {}), beside the pipeline, \
             which loses {:.2} ms by it",
            saves.median * 1e3,
            saves.p95 * 1e3,
            saves.most * 1e3,
            saves.count,
            machine.save_cost_seconds * 1e3
        )?;
        for trial in &self.measured {
            writeln!(
                f,
                "measured: a save every {} records changed the time for {} records by {:+.1} %",
                count(trial.interval),
                count(trial.records),
                trial.overhead_percent
            )?;
        }
        writeln!(
            f,
            "runs without saves differed by {:.1} % among themselves",
            self.noise_percent
        )?;
        if self.noise_percent > NOISE_PERCENT_MAX {
            writeln!(
                f,
                "this machine is busy: measure again when it is quiet, or longer (--seconds)"
            )?;
        }
        writeln!(
            f,
            "\n{:>10} {:>12} {:>11} {:>18} {:>12}",
            "interval", "saves/hour", "overhead", "repeats/failure", "lost s/day"
        )?;
        for row in &self.rows {
            let marks = match row.interval {
                interval if interval == self.recommended => "  <- recommended",
                interval if interval == self.configured => "  <- configured",
                _ => "",
            };
            writeln!(
                f,
                "{:>10} {:>12} {:>9.3} % {:>18} {:>12.1}{marks}",
                count(row.interval),
                rounded(row.saves_per_hour),
                row.overhead_percent,
                rounded(row.repeats_per_failure),
                row.lost_seconds_per_day
            )?;
        }
        writeln!(
            f,
            "\nYoung: {} records, Daly: {} records\nstate-save-interval = {}\n{}",
            rounded(self.young),
            rounded(self.daly),
            self.set(),
            self.reason
        )
    }
}

impl Report {
    /// What to write into the configuration.
    fn set(&self) -> u64 {
        match self.is_configured_fine {
            true => self.configured,
            false => self.recommended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(configured: u64, save_cost_seconds: f64) -> Report {
        Report::new(Measured {
            broker: "files".to_owned(),
            machine: Machine {
                records_per_second: 10_000.0,
                save_cost_seconds,
                save_seconds: 0.002,
                window_messages: 1_000,
                save_age_max_seconds: 30.0,
                failures_per_day: 1.0,
            },
            save_seconds: vec![0.003, 0.001, 0.002],
            measured: Vec::new(),
            noise_percent: 12.0,
            configured,
        })
    }

    #[test]
    fn the_text_says_what_to_set_and_why() {
        let check = |configured, cost, expected: &[&str]| {
            let text = report(configured, cost).to_string();
            for part in expected {
                assert!(text.contains(part), "{part} is not in\n{text}");
            }
        };
        check(
            5_000,
            0.001,
            &[
                "a save takes 2.00 ms (95 %: 2.00 ms, most: 3.00 ms, of 3)",
                "this machine is busy",
                "state-save-interval = 5000",
                "at 1 failure a day",
                "so it is fine",
            ],
        );
        check(
            100,
            0.001,
            &["state-save-interval = 100000", "a change is worth it"],
        );
        check(5_000, 0.0, &["A save costs too little to be seen"]);
    }
}
