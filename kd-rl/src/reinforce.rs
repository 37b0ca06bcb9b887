//! The policy gradient of Williams (1992), *Simple statistical gradient-following algorithms*.
//!
//! With actions `a_k ~ Bernoulli(p_k)` and a reward `R` that depends on them,
//! `∇ E[R] = E[(R - b) · ∇ Σ_k log π(a_k)]` where `π(a) = p` if `a = 1` and `1 - p` if `a = 0`. The baseline `b` changes
//! the variance and not the mean, as long as it does not depend on the actions it judges.

use candle_core::{DType, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

/// `-mean_rows (R - b) · Σ_k log π(a_k)`: a step down this loss is a step up the expected reward.
///
/// # Shapes
/// - `probs`: `(rows, teachers)` float in `[0, 1]`, with the policy's graph
/// - `actions`: `(rows, teachers)` of 0 and 1, drawn from `probs`
/// - `rewards`: `(rows,)` float, detached here; `baseline`: `b`, in the reward's unit, 0 for none
/// - returns a scalar of the dtype of `probs`, differentiable in `probs` only
///
/// # Errors
/// If shapes differ, there are no rows or no teachers, or a reward or the baseline is not finite.
/// ```
/// # use candle_core::{Device, Tensor};
/// let probs = Tensor::new(&[[0.5f64, 0.5]], &Device::Cpu)?;
/// let (actions, rewards) = (Tensor::new(&[[1f64, 0.0]], &Device::Cpu)?, Tensor::new(&[3f64], &Device::Cpu)?);
/// let loss = kd_rl::reinforce::reinforce_loss(&probs, &actions, &rewards, 1.0)?;
/// assert!((loss.to_scalar::<f64>()? - 2.0 * 2.0 * 2f64.ln()).abs() < 1e-12); // (3 - 1) · two choices of ln 2 each
/// # Ok::<(), candle_core::Error>(())
/// ```
pub fn reinforce_loss(probs: &Tensor, actions: &Tensor, rewards: &Tensor, baseline: f64) -> Result<Tensor> {
    let (rows, teachers) = probs.dims2()?;
    if rows == 0 || teachers == 0 {
        bail!("a policy gradient needs rows and teachers, found probabilities of shape {:?}", probs.dims());
    }
    if actions.dims() != probs.dims() || rewards.dims() != [rows] {
        bail!(
            "expected actions of shape {:?} and rewards of shape {:?}, found {:?} and {:?}",
            probs.dims(),
            [rows],
            actions.dims(),
            rewards.dims()
        );
    }
    let values = rewards.to_dtype(DType::F64)?.to_vec1::<f64>()?;
    if let Some(row) = values.iter().position(|reward| !reward.is_finite()) {
        bail!("row {row}: expected a finite reward, found {}", values[row]);
    }
    if !baseline.is_finite() {
        bail!("expected a finite baseline, found {baseline}");
    }
    let (actions, rewards) = (actions.detach(), rewards.detach().to_dtype(probs.dtype())?);
    // One logarithm of the probability of what was done: a sum over both cases would be 0 · ln 0 at p = 0 or 1.
    let done = ((&actions * probs)? + (actions.affine(-1.0, 1.0)? * probs.affine(-1.0, 1.0)?)?)?;
    let log_prob = done.log()?.sum(1)?; // (rows,)
    (log_prob * rewards.affine(1.0, -baseline)?)?.mean(0)?.neg()
}

/// A moving average of rewards, `b ← decay · b + (1 - decay) · mean_rows R`; the first update sets it to the mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Baseline {
    decay: f64,
    value: Option<f64>,
}

impl Baseline {
    /// A baseline that has seen nothing. `decay` is in `[0, 1)`; 0.9 remembers about ten batches.
    ///
    /// # Errors
    /// If `decay` is out of its range.
    pub fn new(decay: f64) -> Result<Self> {
        if !(0.0..1.0).contains(&decay) {
            bail!("`decay`: expected a number in [0, 1), found {decay}");
        }
        Ok(Self { decay, value: None })
    }

    /// The average so far, 0 before the first update.
    pub fn value(&self) -> f64 {
        self.value.unwrap_or(0.0)
    }

    /// Takes in a batch's rewards, `(rows,)`. Call it after [`reinforce_loss`] has used the old value.
    ///
    /// # Errors
    /// If there are no rewards or their mean is not finite; the average is unchanged then.
    pub fn update(&mut self, rewards: &Tensor) -> Result<()> {
        let rewards = rewards.to_dtype(DType::F64)?.to_vec1::<f64>()?;
        let mean = rewards.iter().sum::<f64>() / rewards.len() as f64;
        if !mean.is_finite() {
            bail!("expected rewards with a finite mean, found a mean of {mean} over {} rows", rewards.len());
        }
        self.value = Some(self.value.map_or(mean, |value| self.decay * value + (1.0 - self.decay) * mean));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use candle_core::{Device, Var};

    #[test]
    fn a_certain_choice_is_no_nan() {
        let probs = Var::new(&[[1f32, 0.0]], &Device::Cpu).unwrap();
        let (actions, rewards) =
            (Tensor::new(&[[1f32, 0.0]], &Device::Cpu).unwrap(), Tensor::new(&[2f32], &Device::Cpu));
        let loss = reinforce_loss(&probs, &actions, &rewards.unwrap(), 0.0).unwrap();
        assert_eq!(loss.to_scalar::<f32>().unwrap(), 0.0);
        let grads = loss.backward().unwrap();
        // d(-2 · (ln p_0 + ln(1 - p_1))) = (-2, 2) at p = (1, 0).
        assert_eq!(grads.get(&probs).unwrap().to_vec2::<f32>().unwrap(), [[-2.0, 2.0]]);
    }

    #[test]
    fn what_does_not_fit_is_an_error() {
        let tensor = |rows: usize, teachers: usize| Tensor::full(0.5f32, (rows, teachers), &Device::Cpu).unwrap();
        let rewards = |values: &[f32]| Tensor::new(values, &Device::Cpu).unwrap();
        let check = |probs, actions, values: &[f32], baseline, expected: &str| {
            let message = reinforce_loss(&probs, &actions, &rewards(values), baseline).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        };
        check(tensor(2, 0), tensor(2, 0), &[0.0, 0.0], 0.0, "needs rows and teachers");
        check(tensor(2, 3), tensor(2, 2), &[0.0, 0.0], 0.0, "expected actions of shape [2, 3]");
        check(tensor(2, 3), tensor(2, 3), &[0.0], 0.0, "rewards of shape [2]");
        check(tensor(2, 3), tensor(2, 3), &[0.0, f32::NAN], 0.0, "row 1: expected a finite reward, found NaN");
        check(tensor(1, 3), tensor(1, 3), &[0.0], f64::INFINITY, "expected a finite baseline, found inf");
    }

    #[test]
    fn a_baseline_follows_the_mean_and_survives_bad_rewards() {
        let rewards = |values: &[f64]| Tensor::new(values, &Device::Cpu).unwrap();
        let mut baseline = Baseline::new(0.75).unwrap();
        assert_eq!(baseline.value(), 0.0);
        baseline.update(&rewards(&[1.0, 3.0])).unwrap();
        assert_eq!(baseline.value(), 2.0);
        baseline.update(&rewards(&[6.0])).unwrap();
        assert_eq!(baseline.value(), 0.75 * 2.0 + 0.25 * 6.0);
        assert!(baseline.update(&rewards(&[f64::NAN])).unwrap_err().to_string().contains("a mean of NaN over 1 rows"));
        assert!(baseline.update(&rewards(&[])).is_err());
        assert_eq!(baseline.value(), 3.0);
        assert!(Baseline::new(1.0).unwrap_err().to_string().contains("expected a number in [0, 1), found 1"));
    }
}
