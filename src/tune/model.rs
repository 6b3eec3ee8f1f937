//! What saving and repeating cost, by the interval between saves: a model with figures measured on
//! one machine.
//!
//! With a save every `N` records, at `R` records a second:
//!
//! - **Saving** takes away `C` seconds of a pipeline for each save, so `C * R / N` of its time. `C`
//!   is not how long a save takes, because it runs beside the pipeline; it is what the pipeline lost.
//! - **Repeating** after a failure takes `N / 2` records in the mean, and what was in flight in any
//!   case: a window of messages, and what was published while the last save ran. The second part
//!   does not depend on `N`, so intervals far below it gain nothing.
//!
//! The sum of both is least near Young's interval, `sqrt(2 C M)` for a mean time between failures
//! `M` (J. W. Young, *A first order approximation to the optimum checkpoint interval*, 1974); Daly's
//! is closer where `C` is not small against `M` (J. T. Daly, *A higher order estimate of the optimum
//! checkpoint interval for restart dumps*, 2006, equation 37).

use serde::Serialize;

/// What was measured, and how often it fails.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Machine {
    /// Records a second without saves.
    pub records_per_second: f64,
    /// What the pipeline loses by one save, in seconds.
    pub save_cost_seconds: f64,
    /// How long a save takes, the median, in seconds.
    pub save_seconds: f64,
    /// The most messages without a confirm.
    pub window_messages: u64,
    /// The longest that progress stays unsaved, in seconds.
    pub save_age_max_seconds: f64,
    /// How often a run is interrupted.
    pub failures_per_day: f64,
}

/// Seconds.
const DAY: f64 = 86_400.0;

/// How much of the time an interval may cost more than the best and still be called as good.
const INDIFFERENT: f64 = 0.005;

impl Machine {
    /// The records between two saves that an interval really leads to: saves are made one at a time,
    /// and after some time in any case.
    fn effective(&self, interval: u64) -> f64 {
        let most = self.records_per_second * self.save_age_max_seconds;
        (interval as f64).min(most).max(self.records_in_a_save())
    }

    fn records_in_a_save(&self) -> f64 {
        self.records_per_second * self.save_seconds
    }

    /// How many saves an hour has.
    pub fn saves_per_hour(&self, interval: u64) -> f64 {
        3_600.0 * self.records_per_second / self.effective(interval)
    }

    /// The part of the time that saving takes away.
    pub fn overhead(&self, interval: u64) -> f64 {
        self.save_cost_seconds * self.records_per_second / self.effective(interval)
    }

    /// How many records a failure repeats in the mean.
    pub fn repeats(&self, interval: u64) -> f64 {
        let effective = self.effective(interval);
        let window = self.window_messages as f64;
        (effective / 2.0 + window + self.records_in_a_save()).min(effective + window)
    }

    /// The part of the time that repeating takes away.
    pub fn repeating(&self, interval: u64) -> f64 {
        self.failures_per_day * self.repeats(interval) / self.records_per_second / DAY
    }

    /// The part of the time that is lost in all.
    pub fn lost(&self, interval: u64) -> f64 {
        self.overhead(interval) + self.repeating(interval)
    }

    fn seconds_between_failures(&self) -> f64 {
        DAY / self.failures_per_day
    }

    /// Young's interval in records.
    pub fn young(&self) -> f64 {
        let seconds = (2.0 * self.save_cost_seconds * self.seconds_between_failures()).sqrt();
        seconds * self.records_per_second
    }

    /// Daly's interval in records.
    pub fn daly(&self) -> f64 {
        let (cost, between) = (self.save_cost_seconds, self.seconds_between_failures());
        let share = cost / (2.0 * between);
        let seconds = match share < 1.0 {
            true => {
                let factor = 1.0 + share.sqrt() / 3.0 + share / 9.0;
                (2.0 * cost * between).sqrt() * factor - cost
            }
            false => between,
        };
        seconds * self.records_per_second
    }

    /// Below this an interval saves nothing worth having: what is in flight is repeated in any case.
    pub fn floor(&self) -> f64 {
        (self.window_messages as f64).max(self.records_in_a_save())
    }

    /// The round number near Daly's interval, within what makes sense, that loses least.
    pub fn best(&self) -> u64 {
        let most = self.records_per_second * self.save_age_max_seconds;
        let aim = self.daly().min(most).max(self.floor());
        let round = round_around(aim).into_iter();
        let sensible = round.filter(|&interval| interval as f64 >= self.floor());
        let best = sensible.min_by(|&one, &other| self.lost(one).total_cmp(&self.lost(other)));
        best.expect("the largest is not below what is aimed at")
    }

    /// Whether `interval` costs so little more than the best that it is not worth a change.
    pub fn is_fine(&self, interval: u64) -> bool {
        self.lost(interval) - self.lost(self.best()) < INDIFFERENT
    }
}

/// The numbers of one digit, 1, 2 or 5, around `number`, in rising order.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "not negative, and the cast saturates"
)]
fn round_around(number: f64) -> [u64; 4] {
    let power = 10_f64.powf(number.max(1.0).log10().floor());
    [1.0, 2.0, 5.0, 10.0].map(|step| (step * power).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine = Machine {
        records_per_second: 10_000.0,
        save_cost_seconds: 0.005,
        save_seconds: 0.01,
        window_messages: 1_000,
        save_age_max_seconds: 30.0,
        failures_per_day: 1.0,
    };

    fn near(value: f64, expected: f64) {
        assert!(
            (value - expected).abs() <= expected.abs() * 1e-4,
            "{value} is not {expected}"
        );
    }

    #[test]
    fn the_intervals_are_youngs_and_dalys() {
        // sqrt(2 * 0.005 s * 86,400 s) = 29.3939 s
        near(MACHINE.young(), 293_939.0);
        near(MACHINE.daly(), 293_905.0);
        // sqrt(2 * 600 s * 3,600 s) = 2,078.46 s; times 1 + 0.0962250 + 0.0092593, less 600 s.
        let hourly = Machine {
            records_per_second: 1.0,
            save_cost_seconds: 600.0,
            failures_per_day: 24.0,
            ..MACHINE
        };
        near(hourly.young(), 2_078.46);
        near(hourly.daly(), 1_697.71);
        let hopeless = Machine {
            save_cost_seconds: 10_000.0,
            ..hourly
        };
        near(hopeless.daly(), 3_600.0);
    }

    #[test]
    fn the_best_costs_least_among_its_neighbours() {
        for failures_per_day in [0.1, 1.0, 100.0, 10_000.0] {
            for save_cost_seconds in [0.0, 1e-5, 1e-3, 1e-1] {
                let machine = Machine {
                    failures_per_day,
                    save_cost_seconds,
                    ..MACHINE
                };
                let best = machine.best();
                assert!(best as f64 >= machine.floor(), "{machine:?}");
                for other in [best * 10, best / 10] {
                    let (lost, least) = (machine.lost(other), machine.lost(best));
                    let is_needless = (other as f64) < machine.floor();
                    assert!(
                        least <= lost || is_needless,
                        "{best} and {other}, {machine:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn an_interval_has_limits() {
        near(MACHINE.saves_per_hour(10_000), 3_600.0);
        near(MACHINE.overhead(10_000), 0.005);
        near(MACHINE.repeats(10_000), 5_000.0 + 1_000.0 + 100.0);
        // No more often than one save after another, at least every 30 seconds.
        near(MACHINE.saves_per_hour(1), 360_000.0);
        near(MACHINE.saves_per_hour(10_000_000), 120.0);
        // Never more than an interval and a window.
        near(MACHINE.repeats(1), 1_100.0);
    }

    #[test]
    fn a_save_that_costs_nothing_is_made_once_a_window() {
        let free = Machine {
            save_cost_seconds: 0.0,
            ..MACHINE
        };
        assert_eq!(free.best(), 1_000);
        assert!(free.is_fine(5_000));
        let dear = Machine {
            save_cost_seconds: 0.1,
            ..MACHINE
        };
        assert!(!dear.is_fine(100));
    }

    #[test]
    fn intervals_are_round() {
        let check = |number, expected| assert_eq!(round_around(number), expected, "{number}");
        check(0.0, [1, 2, 5, 10]);
        check(1_000.0, [1_000, 2_000, 5_000, 10_000]);
        check(9_999.0, [1_000, 2_000, 5_000, 10_000]);
    }
}
