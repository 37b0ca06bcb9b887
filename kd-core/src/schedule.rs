//! Learning rates over time.

use serde::{Deserialize, Serialize};

/// Factor on the peak learning rate, in `[0, 1]`, by step.
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
    /// Rises over `warmup` steps, then falls to 0 at step `total` (Devlin et al. 2019).
    WarmupLinear {
        /// Steps of the rise.
        warmup: usize,
        /// Steps of the whole run.
        total: usize,
    },
}

impl Schedule {
    /// The factor at `step`, counted from 0.
    pub fn factor(&self, step: usize) -> f64 {
        match *self {
            Schedule::Constant => 1.0,
            Schedule::WarmupLinear { warmup, .. } if step < warmup => (step + 1) as f64 / warmup as f64,
            Schedule::WarmupLinear { warmup, total } => {
                total.saturating_sub(step) as f64 / total.saturating_sub(warmup).max(1) as f64
            }
        }
    }
}
