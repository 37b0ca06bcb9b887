//! Learning rates over time.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Factor on the peak learning rate, in `[0, 1]`, by step.
///
/// | variant             | after the warm-up                    | source                                             |
/// |---------------------|--------------------------------------|----------------------------------------------------|
/// | `constant`          | 1 (and no warm-up)                   |                                                    |
/// | `warmup_constant`   | 1                                    | transformers `get_constant_schedule_with_warmup`   |
/// | `warmup_linear`     | line to 0                            | Devlin et al. 2019; `get_linear_schedule_with_warmup` |
/// | `warmup_cosine`     | half a cosine to 0                   | Loshchilov & Hutter 2017; `get_cosine_schedule_with_warmup` |
/// | `warmup_polynomial` | `end + (1 - end) · (1 - p)^power`    | `get_polynomial_decay_schedule_with_warmup`        |
/// | `step_decay`        | times `rate` every so many steps     | NeuronBlocks' `lr_decay`; PyTorch's `StepLR`       |
///
/// `p` is the share done of the steps from `warmup` to `total`. A `warmup` of 0 steps is none. With one of `n` steps,
/// step `s < n` has the factor `(s + 1) / n`: that of transformers is `s / n`, whose first update changes nothing. From
/// step `warmup` on the factors are those of transformers. Beyond `total` the last value stays, also that of the cosine.
///
/// ```
/// use kd_core::schedule::Schedule;
/// let schedule = Schedule::WarmupLinear { warmup: 10, total: 110 };
/// assert_eq!([0, 9, 10, 60, 109].map(|step| schedule.factor(step)), [0.1, 1.0, 1.0, 0.5, 0.01]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Schedule {
    /// 1 at every step.
    Constant,
    /// Rises over `warmup` steps and stays.
    WarmupConstant {
        /// Steps of the rise.
        warmup: usize,
    },
    /// Rises over `warmup` steps, then falls in a line to 0 at step `total` (Devlin et al. 2019).
    WarmupLinear {
        /// Steps of the rise.
        warmup: usize,
        /// Steps of the whole run.
        total: usize,
    },
    /// Rises over `warmup` steps, then falls to 0 at step `total`: `(1 + cos πp) / 2` (Loshchilov & Hutter 2017,
    /// without restarts).
    WarmupCosine {
        /// Steps of the rise.
        warmup: usize,
        /// Steps of the whole run.
        total: usize,
    },
    /// Rises over `warmup` steps, then falls to `end` at step `total`: `end + (1 - end) · (1 - p)^power`.
    WarmupPolynomial {
        /// Steps of the rise.
        warmup: usize,
        /// Steps of the whole run.
        total: usize,
        /// Exponent, above 0; 1 is a line.
        power: f64,
        /// Factor at the end, in `[0, 1]`: transformers' `lr_end` divided by the peak rate.
        end: f64,
    },
    /// `rate^n`, but at least `minimum`, where `n` counts the steps `start`, `start + every`, `start + 2·every`, … up
    /// to this one.
    ///
    /// NeuronBlocks counts in epochs and in learning rates: after each epoch from `epoch_start_lr_decay` (from 1) on,
    /// `lr ← max(lr · lr_decay, minimum_lr)`. With `E` steps an epoch that is `start: epoch_start_lr_decay · E`,
    /// `every: E`, `rate: lr_decay`, `minimum: minimum_lr / lr`. PyTorch's `StepLR(step_size, gamma)` is `start` and
    /// `every` of `step_size`, `rate: gamma` and `minimum: 0`.
    ///
    /// ```
    /// use kd_core::schedule::Schedule;
    /// let schedule = Schedule::StepDecay { start: 20, every: 10, rate: 0.5, minimum: 0.2 };
    /// assert_eq!([0, 19, 20, 29, 30, 40, 50].map(|step| schedule.factor(step)), [1., 1., 0.5, 0.5, 0.25, 0.2, 0.2]);
    /// ```
    StepDecay {
        /// First step with a lower rate.
        start: usize,
        /// Steps from one decay to the next, ≥ 1.
        every: usize,
        /// Factor of each decay, in `(0, 1]`.
        rate: f64,
        /// Smallest factor, in `[0, 1]`.
        minimum: f64,
    },
}

impl Schedule {
    /// The factor at `step`, counted from 0.
    pub fn factor(&self, step: usize) -> f64 {
        match *self {
            Self::WarmupConstant { warmup }
            | Self::WarmupLinear { warmup, .. }
            | Self::WarmupCosine { warmup, .. }
            | Self::WarmupPolynomial { warmup, .. }
                if step < warmup =>
            {
                (step + 1) as f64 / warmup as f64
            }
            Self::Constant | Self::WarmupConstant { .. } => 1.0,
            Self::WarmupLinear { warmup, total } => rest(step, warmup, total),
            Self::WarmupCosine { warmup, total } => {
                0.5 * (1.0 + (std::f64::consts::PI * (1.0 - rest(step, warmup, total))).cos())
            }
            Self::WarmupPolynomial { warmup, total, power, end } => {
                end + (1.0 - end) * rest(step, warmup, total).powf(power)
            }
            Self::StepDecay { start, every, rate, minimum } => {
                let decays = if step < start { 0 } else { (step - start) / every + 1 };
                rate.powf(decays as f64).max(minimum)
            }
        }
    }

    /// Checks the ranges of the fields, as a trainer does before its first step.
    ///
    /// # Errors
    /// If one is outside its range, or `total` is below `warmup`.
    pub fn check(&self) -> Result<()> {
        let wrong = |field, expected, found: String| Err(Error::Config { field, expected, found });
        match *self {
            Self::WarmupLinear { warmup, total }
            | Self::WarmupCosine { warmup, total }
            | Self::WarmupPolynomial { warmup, total, .. }
                if total < warmup =>
            {
                wrong("schedule.total", "at least the steps of the warm-up", format!("{total} of {warmup}"))
            }
            Self::WarmupPolynomial { power, .. } if !(power.is_finite() && power > 0.0) => {
                wrong("schedule.power", "a finite exponent above 0", power.to_string())
            }
            Self::WarmupPolynomial { end, .. } if !(0.0..=1.0).contains(&end) => {
                wrong("schedule.end", "a factor in [0, 1]", end.to_string())
            }
            Self::StepDecay { every: 0, .. } => wrong("schedule.every", "at least 1", "0".to_string()),
            Self::StepDecay { rate, .. } if !(rate > 0.0 && rate <= 1.0) => {
                wrong("schedule.rate", "a factor in (0, 1]", rate.to_string())
            }
            Self::StepDecay { minimum, .. } if !(0.0..=1.0).contains(&minimum) => {
                wrong("schedule.minimum", "a factor in [0, 1]", minimum.to_string())
            }
            _ => Ok(()),
        }
    }
}

/// Share left of the steps from `warmup` to `total`.
fn rest(step: usize, warmup: usize, total: usize) -> f64 {
    total.saturating_sub(step) as f64 / total.saturating_sub(warmup).max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_reads_back_what_it_wrote() {
        for (text, schedule) in [
            (r#""constant""#, Schedule::Constant),
            (r#"{"warmup_constant":{"warmup":2}}"#, Schedule::WarmupConstant { warmup: 2 }),
            (r#"{"warmup_linear":{"warmup":3,"total":23}}"#, Schedule::WarmupLinear { warmup: 3, total: 23 }),
            (r#"{"warmup_cosine":{"warmup":3,"total":23}}"#, Schedule::WarmupCosine { warmup: 3, total: 23 }),
            (
                r#"{"warmup_polynomial":{"warmup":3,"total":23,"power":2.0,"end":0.1}}"#,
                Schedule::WarmupPolynomial { warmup: 3, total: 23, power: 2.0, end: 0.1 },
            ),
            (
                r#"{"step_decay":{"start":4,"every":2,"rate":0.9,"minimum":0.0}}"#,
                Schedule::StepDecay { start: 4, every: 2, rate: 0.9, minimum: 0.0 },
            ),
        ] {
            assert_eq!(serde_json::from_str::<Schedule>(text).unwrap(), schedule);
            assert_eq!(serde_json::to_string(&schedule).unwrap(), text);
        }
        let error = serde_json::from_str::<Schedule>(r#"{"warmup_linear":{"warmup":3,"totl":23}}"#).unwrap_err();
        assert!(error.to_string().starts_with("unknown field `totl`"), "{error}");
    }

    #[test]
    fn a_warm_up_of_no_steps_starts_at_the_peak_and_the_end_stays() {
        let polynomial = Schedule::WarmupPolynomial { warmup: 0, total: 4, power: 2.0, end: 0.25 };
        for (schedule, end) in [
            (Schedule::WarmupConstant { warmup: 0 }, 1.0),
            (Schedule::WarmupLinear { warmup: 0, total: 4 }, 0.0),
            (Schedule::WarmupCosine { warmup: 0, total: 4 }, 0.0),
            (polynomial, 0.25),
        ] {
            assert_eq!(schedule.factor(0), 1.0, "{schedule:?}");
            assert_eq!([4, 5, 1000].map(|step| schedule.factor(step)), [end; 3], "{schedule:?}");
        }
        // Halfway: 1/4 + 3/4 · (1/2)².
        assert_eq!(polynomial.factor(2), 0.4375);
    }

    #[test]
    fn fields_out_of_range_are_named() {
        let polynomial = |total, power, end| {
            Schedule::WarmupPolynomial { warmup: 3, total, power, end }.check().map_err(|e| e.to_string())
        };
        let decay = |every, rate, minimum| {
            Schedule::StepDecay { start: 0, every, rate, minimum }.check().map_err(|error| error.to_string())
        };
        for (found, expected) in [
            (polynomial(3, 1.0, 0.0), Ok(())),
            (polynomial(2, 1.0, 0.0), Err("schedule.total: expected at least the steps of the warm-up, found 2 of 3")),
            (polynomial(3, 0.0, 0.0), Err("schedule.power: expected a finite exponent above 0, found 0")),
            (polynomial(3, 1.0, 1.5), Err("schedule.end: expected a factor in [0, 1], found 1.5")),
            (decay(1, 1.0, 1.0), Ok(())),
            (decay(0, 1.0, 1.0), Err("schedule.every: expected at least 1, found 0")),
            (decay(1, f64::NAN, 1.0), Err("schedule.rate: expected a factor in (0, 1], found NaN")),
            (decay(1, 0.5, -1.0), Err("schedule.minimum: expected a factor in [0, 1], found -1")),
        ] {
            assert_eq!(found, expected.map_err(String::from));
        }
    }
}
