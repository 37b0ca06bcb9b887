//! How a model is trained.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::optim::{EmaConfig, Group, OptimizerConfig};
use crate::schedule::Schedule;

/// How a model is trained.
///
/// | field              | [`new`](Self::new) | range          | purpose                                                      |
/// |--------------------|--------------------|----------------|--------------------------------------------------------------|
/// | `steps`            | –                  | ≥ 1            | steps to make                                                |
/// | `optimizer`        | –                  | its own        | optimiser and peak learning rate                             |
/// | `groups`           | none               | its own        | other rates, other decay, frozen variables, by name          |
/// | `schedule`         | constant           | its own        | factor on the learning rate by step                          |
/// | `clip_norm`        | none               | > 0            | largest norm of all gradients together                       |
/// | `accumulate`       | 1                  | ≥ 1            | batches of one step, whose gradients are added               |
/// | `ema`              | none               | its own        | average of the weights that is scored and kept               |
/// | `evaluate_every`   | `steps`            | ≥ 1            | steps or epochs between evaluations                          |
/// | `patience`         | none               |                | evaluations without a better one that end training           |
/// | `checkpoint_every` | `steps`            | ≥ 1            | steps between checkpoints                                    |
/// | `max_skipped`      | 3                  | ≥ 0            | steps in a row that may be skipped for a loss that is no number |
/// | `may_be_still`     | none               | names          | variables that need no gradient in the first steps           |
/// | `seed`             | 0                  |                | seed of dropout                                              |
///
/// In JSON the fields from `groups` to `ema`, `max_skipped` and `may_be_still` may be left out.
///
/// ```
/// use kd_core::optim::AdamWConfig;
/// use kd_core::schedule::Schedule;
/// use kd_core::trainer::{Interval, TrainerConfig};
/// let config = TrainerConfig {
///     schedule: Schedule::WarmupLinear { warmup: 100, total: 1000 },
///     accumulate: 4,
///     evaluate_every: Interval::Epochs(1),
///     ..TrainerConfig::new(1000, AdamWConfig::with_lr(5e-5))
/// };
/// # let _ = config;
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainerConfig {
    /// Steps to make, ≥ 1. Each makes one update, unless it is skipped.
    pub steps: usize,
    /// The optimiser and its settings.
    pub optimizer: OptimizerConfig,
    /// What is different for some variables.
    #[serde(default)]
    pub groups: Vec<Group>,
    /// Factor on the learning rate by step.
    #[serde(default = "constant")]
    pub schedule: Schedule,
    /// Largest norm of all gradients together; `None` does not clip.
    #[serde(default)]
    pub clip_norm: Option<f64>,
    /// Batches of one step, ≥ 1. Their gradients are added in proportion to their rows, which makes them one large
    /// batch for a loss that is a mean over rows; the memory is that of one and a sum of gradients.
    #[serde(default = "one")]
    pub accumulate: usize,
    /// An exponential moving average of the trained weights. With one, evaluations see the averages, and the best
    /// weights are averages.
    #[serde(default)]
    pub ema: Option<EmaConfig>,
    /// Steps or epochs between evaluations; the last step is always evaluated.
    pub evaluate_every: Interval,
    /// Evaluations without a better score after which training stops; `None` makes all `steps`.
    pub patience: Option<usize>,
    /// Steps between checkpoints, ≥ 1.
    pub checkpoint_every: usize,
    /// Steps *in a row* whose loss or gradient is not finite that are skipped; one more ends training with an error. A
    /// skipped step changes nothing but the step's number. In a row, because a run that broke stays broken, while a
    /// long run may overflow now and then; reports count them all.
    #[serde(default = "three")]
    pub max_skipped: usize,
    /// Names of variables that may be without a gradient in the first steps, `*` standing for any characters: heads of
    /// tasks that come later, matrices behind a weight that starts at 0, attention's key biases, whose gradient is 0
    /// but for rounding. For all others see [`Trainer::step`](super::Trainer::step).
    #[serde(default)]
    pub may_be_still: Vec<String>,
    /// Seed of dropout.
    pub seed: u64,
}

/// Number of steps or of epochs. In JSON a bare number is steps, and `{"epochs": 1}` is epochs.
///
/// An epoch ends with the step in which the last of its batches was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interval {
    /// So many epochs, ≥ 1; the batches must know how long one is.
    Epochs(usize),
    /// So many steps, ≥ 1.
    #[serde(untagged)]
    Steps(usize),
}

fn constant() -> Schedule {
    Schedule::Constant
}

fn one() -> usize {
    1
}

fn three() -> usize {
    3
}

impl TrainerConfig {
    /// `steps` steps of `optimizer`, and for the rest what the table above says.
    pub fn new(steps: usize, optimizer: impl Into<OptimizerConfig>) -> Self {
        Self {
            steps,
            optimizer: optimizer.into(),
            groups: Vec::new(),
            schedule: constant(),
            clip_norm: None,
            accumulate: one(),
            ema: None,
            evaluate_every: Interval::Steps(steps),
            patience: None,
            checkpoint_every: steps,
            max_skipped: three(),
            may_be_still: Vec::new(),
            seed: 0,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        let expected = "at least 1";
        let (Interval::Steps(interval) | Interval::Epochs(interval)) = self.evaluate_every;
        for (field, found) in [
            ("steps", self.steps),
            ("accumulate", self.accumulate),
            ("evaluate_every", interval),
            ("checkpoint_every", self.checkpoint_every),
        ] {
            if found == 0 {
                return Err(Error::Config { field, expected, found: "0".to_string() });
            }
        }
        self.schedule.check()?;
        match self.clip_norm {
            Some(norm) if !(norm.is_finite() && norm > 0.0) => {
                Err(Error::Config { field: "clip_norm", expected: "a finite norm above 0", found: norm.to_string() })
            }
            _ => Ok(()),
        }
    }

    /// Whether an evaluation is due after `step` steps.
    ///
    /// # Errors
    /// If it is counted in epochs and their length is not known.
    pub(super) fn is_evaluated(&self, step: usize, steps_per_epoch: Option<usize>) -> Result<bool> {
        Ok(step == self.steps
            || match (self.evaluate_every, steps_per_epoch) {
                (Interval::Steps(steps), _) => step.is_multiple_of(steps),
                (Interval::Epochs(epochs), Some(batches)) if batches > 0 => {
                    let done = |step: usize| step * self.accumulate / (epochs * batches);
                    done(step) > done(step - 1)
                }
                (Interval::Epochs(epochs), _) => {
                    return Err(Error::Config {
                        field: "evaluate_every",
                        expected: "a number of steps, since the batches do not know how long an epoch is",
                        found: format!("{epochs} epochs"),
                    });
                }
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::AdamWConfig;

    #[test]
    fn intervals_read_as_numbers_and_as_epochs() {
        for (text, interval) in [("500", Interval::Steps(500)), (r#"{"epochs":2}"#, Interval::Epochs(2))] {
            assert_eq!(serde_json::from_str::<Interval>(text).unwrap(), interval);
            assert_eq!(serde_json::to_string(&interval).unwrap(), text);
        }
    }

    #[test]
    fn an_epoch_ends_with_the_step_of_its_last_batch() {
        let due = |accumulate, epochs, batches| {
            let config = TrainerConfig {
                accumulate,
                evaluate_every: Interval::Epochs(epochs),
                ..TrainerConfig::new(100, AdamWConfig::with_lr(0.1))
            };
            (1..=12).filter(|&step| config.is_evaluated(step, Some(batches)).unwrap()).collect::<Vec<_>>()
        };
        assert_eq!(due(1, 1, 4), [4, 8, 12]);
        assert_eq!(due(1, 2, 3), [6, 12]);
        // Two batches a step: batches 5, 10, 15, 20 are in steps 3, 5, 8, 10.
        assert_eq!(due(2, 1, 5), [3, 5, 8, 10]);
        // More than an epoch a step.
        assert_eq!(due(5, 1, 2), (1..=12).collect::<Vec<_>>());
    }

    #[test]
    fn a_minimal_json_is_the_constructor() {
        let optimizer = AdamWConfig::with_lr(0.5);
        let mut json = serde_json::to_value(TrainerConfig::new(7, optimizer)).unwrap();
        let object = json.as_object_mut().unwrap();
        for field in ["groups", "schedule", "clip_norm", "accumulate", "ema", "patience", "max_skipped", "may_be_still"]
        {
            object.remove(field).unwrap();
        }
        assert_eq!(serde_json::from_value::<TrainerConfig>(json).unwrap(), TrainerConfig::new(7, optimizer));
    }
}
